"""How the public interface is typed. mypy, in strict mode, and pyright check this file; nobody runs it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from moka_wasm import CacheStats, Moka, Serializer, cached, cached_method, hashkey, methodkey
from moka_wasm._cached_types import CacheInfo

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Pickles:
    """A serializer of one's own."""

    def dumps(self, value: Any, /) -> bytes:
        return repr(value).encode()

    def loads(self, data: Any, /) -> Any:
        return data


def opened() -> None:
    Moka[str, int](None)
    Moka[str, int](100, 60, 30.5, None, "lru", None)
    Moka[str, int](100, ttl=timedelta(hours=1), tti=timedelta(minutes=1), policy="tiny_lfu")
    Moka[str, bytes](100, memory_limit=1 << 20, clock=lambda: 0.0, serializer="bytes", name="bytes")
    Moka[str, int](100, shards=4)
    serializer: Serializer = Pickles()
    Moka[str, int](100, serializer=serializer)
    Moka[str, int](100, serializer=Pickles())


def listened_to() -> None:
    def listener(key: str, value: int, cause: str) -> None: ...

    def weigher(key: str, value: int) -> int:
        return len(key) + value

    cache: Moka[str, int] = Moka(100, eviction_listener=listener, weigher=weigher)
    cache.set("key", 1)


def asked(cache: Moka[str, int]) -> None:
    assert_type(cache.get("key"), int | None)
    assert_type(cache.get("key", None), int | None)
    assert_type(cache.get("key", 0), int)
    assert_type(cache.get("key", "default"), int | str)
    assert_type(cache["key"], int)
    assert_type(cache.get_with("key", lambda: 1), int)
    assert_type(cache.get_with("key", lambda: 1, ttl=1, tti=timedelta(seconds=1)), int)
    assert_type(cache.remove("key"), int | None)
    assert_type(cache.remove("key", "default"), int | str)
    assert_type(cache.pop("key"), int)
    assert_type(cache.pop("key", "default"), int | str)
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.setdefault("key", 1), int)
    assert_type("key" in cache, bool)
    assert_type(len(cache), int)
    assert_type(iter(cache), Iterator[str])
    assert_type(list(cache.keys()), list[str])
    assert_type(list(cache.values()), list[int])
    assert_type(list(cache.items()), list[tuple[str, int]])
    assert_type(cache.expire("key", 1.5), bool)
    assert_type(cache.expire("key", None), bool)
    assert_type(cache.remaining("key"), float | None)
    assert_type(cache.get_many(["key"]), dict[str, int])
    assert_type(cache.remove_many(iter(["key"])), int)
    assert_type(cache.count(), int)
    assert_type(cache.weighted_size(), int)
    assert_type(cache.stats(), CacheStats)
    assert_type(cache.stats().hit_ratio, float)


def changed(cache: Moka[str, int]) -> None:
    cache.set("key", 1, ttl=60, tti=timedelta(seconds=5))
    cache["key"] = 2
    del cache["key"]
    cache.update({"key": 1}, other=2)
    cache.update([("key", 1)])
    cache.set_many({"key": 1}, ttl=5)
    cache.set_many([("key", 1)])
    cache.set_many((str(number), number) for number in range(3))
    cache.clear()
    cache.run_pending_tasks()
    with cache as same:
        assert_type(same, Moka[str, int])
    cache.close()


def mistaken(cache: Moka[str, int]) -> None:
    # Each of these would be an unused comment if the type checkers did not see the mistake.
    cache.set(1, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.set("key", "value")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache["key"] = "value"  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
    cache.set_many({"key": "value"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cache.get_with("key", lambda: "value")  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]
    Moka[str, int](100, shards="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Moka[str, int](100, policy="fifo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The decorators.


@cached
def bare(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@cached(maxsize=1024, ttl=timedelta(minutes=5), wait_concurrent=True, shards=4)
def configured(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@cached()
def empty(amount: int) -> list[int]:
    return [amount]


@cached
async def bare_async(amount: int) -> str:
    return str(amount)


@cached(maxsize=None, tti=5)
async def configured_async(amount: int) -> str:
    return str(amount)


@cached(key=lambda amount, rates: hashkey(amount))  # pyright: ignore[reportUnknownLambdaType,reportUnknownArgumentType]
def keyed(amount: int, rates: list[float]) -> float:
    return amount * rates[0]


class Rates:
    @cached_method
    def of(self, amount: int) -> float:
        return amount * 1.5

    @cached_method(maxsize=10, shards=2)
    async def later(self, amount: int) -> float:
        return amount * 1.5

    @cached(key=methodkey)
    def shared(self, amount: int) -> float:
        return amount * 1.5


def called(rates: Rates) -> None:
    assert_type(bare(1, currency="USD"), str)
    assert_type(configured(amount=1), str)
    assert_type(empty(1), list[int])
    assert_type(keyed(1, [1.0]), float)
    assert_type(rates.of(1), float)
    assert_type(rates.shared(1), float)
    bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare(1, "USD")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    configured()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rates.of("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited(rates: Rates) -> None:
    assert_type(await bare_async(1), str)
    assert_type(await configured_async(1), str)
    assert_type(await rates.later(1), float)


def inspected() -> None:
    assert_type(bare.cache_info(), CacheInfo)
    assert_type(bare.cache_info().maxsize, int | None)
    assert_type(bare.cache_parameters(), dict[str, Any])
    assert_type(bare.cache_key(1, currency="USD"), Hashable)
    assert_type(bare.cache_invalidate(1), bool)
    assert_type(bare.cache, Moka[Hashable, Any])
    bare.cache_clear()
    wrapped: Callable[..., str] = bare.__wrapped__
    assert_type(wrapped(1), str)
    assert_type(bare.__name__, str)
    assert_type(Rates.of.cache_info(), CacheInfo)
    configured.cache_key("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
