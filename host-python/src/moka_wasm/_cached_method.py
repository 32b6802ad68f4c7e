"""The decorator that caches what a method answers, for each instance by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import count
from typing import TYPE_CHECKING, Any, overload
from weakref import ref

from ._cached_types import AnyMoka, CachedFunction, Cause, Decorator, Duration, Options, P, Policy, R
from ._call_keys import call_key, typed_call_key
from ._errors import UnsupportedKeyError
from ._moka import OnTrap
from ._wrapping import Keys, Settings, wrap

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def cached_method(function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached_method(maxsize: int | None = 128, typed: bool = False, **options: Unpack[Options]) -> Decorator: ...


def cached_method(
    maxsize: int | Callable[..., Any] | None = 128,
    typed: bool = False,
    *,
    ttl: Duration | None = None,
    tti: Duration | None = None,
    wait_concurrent: bool = False,
    policy: Policy = "tiny_lfu",
    weigher: Callable[[Hashable, Any], int] | None = None,
    key: Callable[..., Hashable] | None = None,
    eviction_listener: Callable[[Hashable, Any, Cause], object] | None = None,
    memory_limit: int | None = None,
    clock: Any = None,
    serializer: Any = None,
    name: str | None = None,
    on_trap: OnTrap = "raise",
    operation_timeout: Duration | None = None,
    shards: int = 1,
) -> Any:
    """Cache what a method answers, for each instance by itself, without keeping the instance alive.

    All instances share one cache and its bound; a key begins with a number that stands for the instance. Instances are
    told apart by identity, so they need be neither hashable nor comparable, but weakly referable. When one is
    collected, its entries are removed the next time that the method or its ``cache_info`` is called.

    Args and attributes are those of ``cached``, except:

    Args:
        key: Called with the call's arguments without the instance.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If what is decorated cannot be called.
    """
    function: Any = None
    if callable(maxsize) or isinstance(maxsize, classmethod):
        function, maxsize = maxsize, 128
    settings = Settings(
        maxsize,
        typed,
        ttl,
        tti,
        wait_concurrent,
        policy,
        weigher,
        key,
        eviction_listener,
        memory_limit,
        clock,
        serializer,
        name,
        on_trap,
        operation_timeout,
        shards,
    )

    def keys_of(cache: AnyMoka) -> Keys:
        make_rest = _boxed(key) if key is not None else typed_call_key if typed else call_key
        instances = _InstanceKeys(cache, make_rest)
        return Keys(instances.make, instances.tidy)

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        return wrap(function, settings, keys_of)

    return decorate if function is None else decorate(function)


def _boxed(key: Callable[..., Hashable]) -> _MakeRest:
    return lambda args, kwargs: (key(*args, **kwargs),)


_MakeRest = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Hashable, ...]]


class _Owner(ref[Any]):
    """An instance, weakly: the number that stands for it, and the keys that its calls have used."""

    __slots__ = ("address", "keys", "number", "sift_at")

    address: int
    number: int
    keys: set[Hashable]
    sift_at: int


# Below this number of keys an instance's set is not worth sifting.
_FEW_KEYS = 64


class _InstanceKeys:
    """Makes the keys of one method, and removes the entries of instances that are gone."""

    def __init__(self, cache: AnyMoka, make_rest: _MakeRest) -> None:
        self._cache = cache
        self._make_rest = make_rest
        self._numbers = count()
        # By address, as an instance need not be hashable. An address is used again after its instance is gone, so what
        # is found here counts only if it still refers to the instance at hand.
        self._owners: dict[int, _Owner] = {}
        # The weak references' callback is this deque's append: it runs no Python code, so it can come at any moment,
        # inside of a cache operation or of the collector, and no interrupt gets lost in it. The work waits for tidy().
        self._collected: deque[_Owner] = deque()

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Answer the key of a call whose first argument is the instance."""
        if self._collected:
            self.tidy()
        if not args:
            raise TypeError("a cached method was called without its instance")
        instance = args[0]
        owner = self._owners.get(id(instance))
        if owner is None or owner() is not instance:
            owner = self._adopt(instance)
        key = (owner.number, *self._make_rest(args[1:], kwargs))
        if key not in owner.keys:
            self._note(owner, key)
        return key

    def tidy(self) -> None:
        """Remove the entries of instances that were collected."""
        while self._collected:
            try:
                owner = self._collected.popleft()
            except IndexError:  # another thread was here first
                return
            try:
                if self._owners.get(owner.address) is owner:
                    self._owners.pop(owner.address, None)
                for key in list(owner.keys):
                    self._cache.remove(key)
            except BaseException:
                self._collected.append(owner)
                raise

    def _adopt(self, instance: Any) -> _Owner:
        try:
            owner = _Owner(instance, self._collected.append)
        except TypeError as error:
            raise UnsupportedKeyError(
                f"a {type(instance).__qualname__} cannot be weakly referenced, which @cached_method needs: add"
                " '__weakref__' to its __slots__, or leave it out of the key with @cached(key=methodkey)"
            ) from error
        owner.address, owner.number = id(instance), next(self._numbers)
        owner.keys, owner.sift_at = set(), _FEW_KEYS
        known = self._owners.setdefault(id(instance), owner)
        if known() is instance:  # another thread may have been faster
            return known
        self._owners[id(instance)] = owner
        return owner

    def _note(self, owner: _Owner, key: Hashable) -> None:
        """Remember a key; forget keys whose entries are gone whenever their number has doubled."""
        if len(owner.keys) >= owner.sift_at:
            for noted in list(owner.keys):
                if noted not in self._cache:
                    owner.keys.discard(noted)
            owner.sift_at = max(_FEW_KEYS, 2 * len(owner.keys))
        owner.keys.add(key)
