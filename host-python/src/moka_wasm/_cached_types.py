"""The types of what the decorators take and answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

from ._moka import Moka, OnTrap

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Instance = TypeVar("Instance")

Duration = float | timedelta
Policy = Literal["tiny_lfu", "lru"]
Cause = Literal["explicit", "size", "expired", "replaced"]
AnyMoka = Moka[Hashable, Any]


class CacheInfo(NamedTuple):
    """What ``cache_info()`` answers, as with ``functools.lru_cache``.

    ``currsize`` is a number of entries, ``maxsize`` a bound on their weight.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CachedFunction(Protocol[P, R_co]):
    """A function whose answers are cached.

    On an instance it is an ordinary bound method, whose attributes are the function's. ``cache_key`` and
    ``cache_invalidate`` therefore want the instance as their first argument: ``Rates.of.cache_invalidate(rates, 1)``.
    """

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, without the cache."""
        ...

    @property
    def cache(self) -> AnyMoka:
        """The cache, whose keys are those that ``cache_key`` answers."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_info(self) -> CacheInfo:
        """Answer hits and misses since the last ``cache_clear``, and the size."""
        ...

    def cache_clear(self) -> None:
        """Remove all entries and start counting hits and misses again."""
        ...

    def cache_parameters(self) -> dict[str, Any]:
        """Answer what the decorator was told."""
        ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """Answer the key of the entry that a call with these arguments uses."""
        ...

    def cache_invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the entry of this call; answer whether there was one."""
        ...

    # In this order: on a class; on an instance; under a staticmethod on an instance. Under a classmethod, type checkers
    # do not bind cls: an overload for that is wrongly chosen by mypy for ordinary methods.
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[Instance, Q], R], instance: Instance, owner: type | None = None, /
    ) -> Callable[Q, R]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...


class Decorator(Protocol):
    """Makes a cached function of a function."""

    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


class Options(TypedDict, total=False):
    """The keyword-only arguments of the decorators, told in full by ``cached``."""

    ttl: Duration | None
    tti: Duration | None
    wait_concurrent: bool
    policy: Policy
    weigher: Callable[[Hashable, Any], int] | None
    key: Callable[..., Hashable] | None
    eviction_listener: Callable[[Hashable, Any, Cause], object] | None
    memory_limit: int | None
    clock: Any
    serializer: Any
    name: str | None
    on_trap: OnTrap
    operation_timeout: Duration | None
    shards: int
