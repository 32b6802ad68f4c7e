"""The decorator that caches what a function answers."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, overload

from ._cached_types import CachedFunction, Cause, Decorator, Duration, Options, P, Policy, R
from ._call_keys import key_maker
from ._moka import OnTrap
from ._wrapping import Keys, Settings, wrap

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(maxsize: int | None = 128, typed: bool = False, **options: Unpack[Options]) -> Decorator: ...


def cached(
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
    """Cache what a function answers: ``@cached``, ``@cached()`` or ``@cached(maxsize=1024, ttl=30)``.

    The first call with certain arguments runs the function and answers what it returned; later ones answer a copy of
    that, decoded from the cache, so no caller can corrupt another's value. An exception is never cached. For an
    ``async def`` function the awaited result is cached.

    Arguments may be whatever the cache takes as keys and, nested in any way, lists, dicts and sets. Equal arguments
    share an entry (``3`` and ``3.0``); the order of keyword arguments does not matter, but the same argument passed by
    position and by keyword may make two entries, as with ``functools.lru_cache``. For methods, leave ``self`` out of
    the key with ``key=methodkey``, or use ``cached_method``.

    The decorated function has these attributes: ``cache`` (the ``Moka``), ``cache_info()``, ``cache_clear()``,
    ``cache_parameters()``, ``cache_key(*args, **kwargs)``, ``cache_invalidate(*args, **kwargs)`` and ``__wrapped__``.

    Args:
        maxsize: The bound on the total weight of all entries, which weigh 1 each unless a weigher is given. None for no
            bound.
        typed: Keep immediate arguments of different types apart. Has no effect with ``key``.
        ttl: How long an entry lives after it was computed, in seconds or as a timedelta.
        tti: How long an entry lives after it was last used, in seconds or as a timedelta.
        wait_concurrent: Let concurrent calls with one key share one computation, its result or its exception. A call
            that would wait for itself raises ``RecursiveComputationError``. If the result cannot be stored (the weigher
            raises, say), the call that started the computation gets the error and the others get the result.
        policy: "tiny_lfu" or "lru".
        weigher: Called with an opaque hashable key and the computed value.
        key: Called with the call's arguments; answers the entry's key.
        eviction_listener: Called with an opaque hashable key, the value and the cause of its removal.
        memory_limit: The bound on the cache's memory, in bytes.
        clock: See ``Moka``.
        serializer: See ``Moka``.
        name: The cache's name; by default the function's module and qualified name.
        on_trap: See ``Moka``. With "retry" a call whose look-up finds the sandbox stopped computes.
        operation_timeout: See ``Moka``. The decorated function's own time does not count.
        shards: See ``Moka``; ``maxsize`` is the capacity.

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
    keys = Keys(key_maker(typed, key))

    def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
        return wrap(function, settings, lambda cache: keys)

    return decorate if function is None else decorate(function)
