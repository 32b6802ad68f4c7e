"""How a function and a cache become a cached function."""

# pyright: reportPrivateUsage=false
# The surface of a cache that the flights need is private to the package, not to a class.

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import Any, cast

from . import _hot as hot
from ._cached_types import AnyMoka, CachedFunction, CacheInfo, Cause, Duration, P, Policy, R
from ._errors import UnsupportedKeyError
from ._moka import Moka, OnTrap
from ._single_flight import FlightStore, Request

MakeKey = Callable[[tuple[Any, ...], dict[str, Any]], Hashable]

_MISSING: Any = object()


@dataclass(frozen=True)
class Keys:
    """How the calls of one function get their keys."""

    make: MakeKey
    tidy: Callable[[], None] = lambda: None
    """Called before anybody looks at the whole cache."""


@dataclass(frozen=True)
class Settings:
    """What a decorator was told."""

    maxsize: int | None
    typed: bool
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

    def open_cache(self, function: Callable[..., Any]) -> AnyMoka:
        """Open the cache of one decorated function."""
        module = getattr(function, "__module__", None)
        qualname = getattr(function, "__qualname__", type(function).__qualname__)
        return Moka(
            self.maxsize,
            self.ttl,
            self.tti,
            self.eviction_listener,
            self.policy,
            self.weigher,
            memory_limit=self.memory_limit,
            clock=self.clock,
            serializer=self.serializer,
            name=f"{module}.{qualname}" if self.name is None else self.name,
            on_trap=self.on_trap,
            operation_timeout=self.operation_timeout,
            shards=self.shards,
        )


def wrap(function: Callable[P, R], settings: Settings, keys_of: Callable[[AnyMoka], Keys]) -> CachedFunction[P, R]:
    """Open a cache and answer ``function`` with that cache before it.

    Args:
        function: Sync, async, or one of them inside of a ``staticmethod`` or ``classmethod``.
        settings: What the decorator was told.
        keys_of: Called with the cache; answers how its keys are made.
    """
    if isinstance(function, (staticmethod, classmethod)):
        # The decorator stands above this one: cache the function inside, and bind the result as it did.
        method = cast("staticmethod[P, R]", function)
        return cast("CachedFunction[P, R]", type(method)(wrap(method.__func__, settings, keys_of)))
    if not callable(function):
        raise TypeError(f"cached decorates functions, not {function!r}; its arguments go into parentheses")
    cache = settings.open_cache(function)
    keys = keys_of(cache)
    if inspect.iscoroutinefunction(function):
        wrapper = _wrap_async(function, cache, keys.make, settings.wait_concurrent)
    else:
        wrapper = _wrap_sync(function, cache, keys.make, settings.wait_concurrent)
    functools.update_wrapper(wrapper, function)
    _add_controls(wrapper, settings, cache, keys)
    return cast("CachedFunction[P, R]", wrapper)


def _wrap_sync(
    function: Callable[..., Any], cache: AnyMoka, make_key: MakeKey, wait_concurrent: bool
) -> Callable[..., Any]:
    get, put, get_with = cache.get, cache.set, cache.get_with
    store = cast("FlightStore[Hashable, Any]", cache)

    def compute(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        put(make_key(args, kwargs), value)
        return value

    def share(mark: object, /, *args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        request = Request(store, cache._encode_key(key), key)
        return cache._flights.run(request, lambda: function(*args, **kwargs), mark)

    def plain(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        try:
            value = get(key, _MISSING)
        except UnsupportedKeyError as error:
            raise _explained(error, cache, args) from error
        if value is _MISSING:
            value = function(*args, **kwargs)
            put(key, value)
        return value

    def shared(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        try:
            return get_with(key, lambda: function(*args, **kwargs))
        except UnsupportedKeyError as error:
            if _is_key(cache, key):
                raise  # the function's own
            raise _explained(error, cache, args) from error

    whole, missed = (shared, share) if wait_concurrent else (plain, compute)
    return hot.cached_function(cache, whole, missed, make_key, shared=wait_concurrent) or whole


def _wrap_async(
    function: Callable[..., Any], cache: AnyMoka, make_key: MakeKey, wait_concurrent: bool
) -> Callable[..., Any]:
    get, put = cache.get, cache.set
    store = cast("FlightStore[Hashable, Any]", cache)
    # asyncio takes a third as long to import as wasmtime, and most programs decorate no coroutine functions.
    from ._single_flight_async import TaskFlights

    flights = TaskFlights()

    async def plain(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        try:
            value = get(key, _MISSING)
        except UnsupportedKeyError as error:
            raise _explained(error, cache, args) from error
        if value is _MISSING:
            value = await function(*args, **kwargs)
            put(key, value)
        return value

    async def shared(*args: Any, **kwargs: Any) -> Any:
        key = make_key(args, kwargs)
        mark = flights.mark
        try:
            value = get(key, _MISSING)
        except UnsupportedKeyError as error:
            raise _explained(error, cache, args) from error
        if value is _MISSING:
            request = Request(store, cache._encode_key(key), key)
            value = await flights.run(request, lambda: function(*args, **kwargs), mark)
        return value

    return shared if wait_concurrent else plain


def _add_controls(wrapper: Callable[..., Any], settings: Settings, cache: AnyMoka, keys: Keys) -> None:
    counted_before = (0, 0)

    def cache_info() -> CacheInfo:
        keys.tidy()
        cache.run_pending_tasks()
        stats = cache.stats()
        hits, misses = counted_before
        return CacheInfo(stats.hits - hits, stats.misses - misses, settings.maxsize, stats.entries)

    def cache_clear() -> None:
        nonlocal counted_before
        cache.clear()
        stats = cache.stats()
        counted_before = (stats.hits, stats.misses)

    def cache_parameters() -> dict[str, Any]:
        return {field.name: getattr(settings, field.name) for field in fields(settings)}

    def cache_key(*args: Any, **kwargs: Any) -> Hashable:
        return keys.make(args, kwargs)

    def cache_invalidate(*args: Any, **kwargs: Any) -> bool:
        return cache.remove(keys.make(args, kwargs), _MISSING) is not _MISSING

    vars(wrapper).update(
        cache=cache,
        cache_info=cache_info,
        cache_clear=cache_clear,
        cache_parameters=cache_parameters,
        cache_key=cache_key,
        cache_invalidate=cache_invalidate,
    )


def _is_key(cache: AnyMoka, candidate: Any) -> bool:
    try:
        cache._encode_key(candidate)
    except TypeError:
        return False
    return True


def _explained(error: UnsupportedKeyError, cache: AnyMoka, args: tuple[Any, ...]) -> UnsupportedKeyError:
    """Answer the error to raise for a call whose arguments make no key."""
    if not args or isinstance(args[0], (list, tuple, dict, set, frozenset, type)) or _is_key(cache, args[0]):
        return UnsupportedKeyError(f"{error}. Choose what identifies the call with key=")
    return UnsupportedKeyError(
        f"the first argument, a {type(args[0]).__qualname__}, cannot be part of a cache key ({error}). If it is a"
        " method's self: @cached(key=methodkey) leaves it out of the key, so that all instances share one entry, and"
        " @cached_method keeps entries for each instance. Otherwise choose what identifies the call with key="
    )
