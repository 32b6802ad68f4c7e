"""What moka-py 0.5.0 promises, and its users rely on, holds here: signatures, errors, deadlines, weights, listeners."""

# pyright: basic
# Tests pass arguments of wrong types, too.

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from test_cached import Clock
from test_single_flight import GUARD, Threads, until

import moka_wasm
from moka_wasm import Moka, cached

EMPTY = inspect.Parameter.empty
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD

SIGNATURES = {
    "__init__": [
        ("capacity", EMPTY),
        ("ttl", None),
        ("tti", None),
        ("eviction_listener", None),
        ("policy", "tiny_lfu"),
        ("weigher", None),
    ],
    "set": [("key", EMPTY), ("value", EMPTY), ("ttl", None), ("tti", None)],
    "get": [("key", EMPTY), ("default", None)],
    "get_with": [("key", EMPTY), ("initializer", EMPTY), ("ttl", None), ("tti", None)],
    "remove": [("key", EMPTY), ("default", None)],
    "clear": [],
    "count": [],
    "weighted_size": [],
    "run_pending_tasks": [],
}

BAD_DURATIONS = [
    (0, "must be positive"),
    (0.0, "must be positive"),
    (-0.0, "must be positive"),
    (-1, "must be positive"),
    (-1e-9, "must be positive"),
    (math.inf, "must be positive"),
    (-math.inf, "must be positive"),
    (math.nan, "must be positive"),
    (1e30, "is out of range"),
    (10**30, "is out of range"),
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


# Signatures.


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_method_takes_what_moka_pys_takes(name: str) -> None:
    """A method's first parameters have moka-py's names, order and defaults, and go by position or by name."""
    parameters = list(inspect.signature(getattr(Moka, name)).parameters.values())[1:]
    expected = SIGNATURES[name]
    first = parameters[: len(expected)]
    assert expected == [(parameter.name, parameter.default) for parameter in first]
    assert all(parameter.kind is POSITIONAL for parameter in first)
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[len(expected) :])
    assert all(parameter.default is not EMPTY for parameter in parameters[len(expected) :])


def test_cached_takes_what_moka_pys_takes() -> None:
    """``cached`` takes moka-py's parameters, with its defaults; all but the first two by name only."""
    parameters = inspect.signature(cached).parameters
    defaults = {
        "maxsize": 128,
        "typed": False,
        "ttl": None,
        "tti": None,
        "wait_concurrent": False,
        "policy": "tiny_lfu",
        "weigher": None,
    }
    assert defaults == {name: parameters[name].default for name in defaults}
    assert list(parameters)[:2] == ["maxsize", "typed"]
    assert {name for name, parameter in parameters.items() if parameter.kind is POSITIONAL} == {"maxsize", "typed"}


def test_everything_moka_py_has_is_here() -> None:
    """``import moka_wasm as moka_py`` finds every public name."""
    assert isinstance(moka_wasm.VERSION, str)
    assert callable(moka_wasm.cached)
    assert isinstance(moka_wasm.Moka, type)


def test_all_of_it_by_position_and_by_name() -> None:
    """Calls written for moka-py mean the same, by position and by name."""
    events: list[Any] = []
    Moka(10, 5.0, 2.0, lambda *removal: events.append(removal), "lru", lambda key, value: 1).set("k", 1, 1.0, 1.0)
    cache: Moka[str, int] = Moka(
        capacity=10, ttl=5, tti=2, eviction_listener=None, policy="lru", weigher=lambda key, value: 1
    )
    cache.set(key="k", value=1, ttl=1, tti=1)
    assert cache.get(key="k", default=2) == 1
    assert cache.get_with(key="k", initializer=lambda: 3, ttl=1, tti=1) == 1
    assert cache.remove(key="k", default=4) == 1
    assert cache.remove("k", 4) == 4


def test_methods_that_answer_nothing_answer_none() -> None:
    """``set``, ``clear`` and ``run_pending_tasks`` answer ``None``."""
    cache: Moka[str, int] = Moka(10)
    assert cache.set("k", 1) is None  # type: ignore[func-returns-value]
    assert cache.run_pending_tasks() is None  # type: ignore[func-returns-value]
    assert cache.clear() is None  # type: ignore[func-returns-value]


def test_the_class_can_be_subscripted() -> None:
    """``Moka[K, V]`` is the class itself, as in moka-py, and opens caches."""
    assert Moka[str, int] is Moka
    cache = Moka[str, int](128)
    cache.set("k", 1)
    assert cache.get("k") == 1


# Absence and defaults.


@pytest.mark.parametrize("method", ["get", "remove"])
def test_an_absent_key_answers_the_default(method: str) -> None:
    """``get`` and ``remove`` answer ``None``, or the default, for an absent key."""
    cache: Moka[str, str] = Moka(8)
    ask: Callable[..., Any] = getattr(cache, method)
    default = object()
    assert ask("absent") is None
    assert ask("absent", None) is None
    assert ask("absent", default) is default
    assert ask("absent", default=default) is default


def test_remove_takes_the_entry_out() -> None:
    """``remove`` answers the value that it takes out, whatever the default."""
    cache: Moka[str, str] = Moka(8)
    cache.set("hello", "world")
    assert cache.remove("hello", "default") == "world"
    assert cache.get("hello") is None


def test_a_cached_none_is_a_hit() -> None:
    """``None`` is a value: it is found, taken out, and not computed again."""
    cache: Moka[str, None] = Moka(8)
    cache.set("k", None)
    assert cache.get("k", "default") is None  # type: ignore[call-overload]
    assert cache.get_with("k", lambda: pytest.fail("computed again")) is None
    assert cache.remove("k", "default") is None  # type: ignore[call-overload]
    calls = []

    @cached()
    def nothing(x: int) -> None:
        calls.append(x)

    assert [nothing(1), nothing(1)] == [None, None]
    assert calls == [1]


@pytest.mark.parametrize("key", [[1], {1: 2}, {1}, ([1],), bytearray(b"x")])
def test_an_unhashable_key_is_a_type_error(key: Any) -> None:
    """Every operation with a key refuses an unhashable one with TypeError, and stores nothing."""
    cache: Moka[Any, int] = Moka(8)
    operations: list[Callable[[], Any]] = [
        lambda: cache.set(key, 1),
        lambda: cache.get(key),
        lambda: cache.get_with(key, lambda: 1),
        lambda: cache.remove(key),
    ]
    for operation in operations:
        with pytest.raises(TypeError):
            operation()
    assert len(cache) == 0


def test_clear_takes_everything_out() -> None:
    """After ``clear`` nothing is there, and the cache goes on."""
    cache: Moka[int, int] = Moka(100)
    for number in range(50):
        cache.set(number, number)
    cache.clear()
    assert [cache.get(number) for number in range(50)] == [None] * 50
    cache.run_pending_tasks()
    assert (cache.count(), cache.weighted_size()) == (0, 0)
    cache.set(1, 2)
    assert cache.get(1) == 2


# Capacity, policies, weights.


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_the_capacity_bounds_the_number_of_entries(policy: Any) -> None:
    """Without a weigher every entry weighs 1: after maintenance, there are as many as the capacity."""
    cache: Moka[int, int] = Moka(128, policy=policy)
    for number in range(1000):
        cache.set(number, number)
    cache.run_pending_tasks()
    assert cache.count() == cache.weighted_size() == 128
    assert sum(cache.get(number) is not None for number in range(1000)) == 128


def test_lru_keeps_what_was_used_last() -> None:
    """The policy "lru" lets every new key in, and the entry that was unused for longest goes."""
    cache: Moka[int, int] = Moka(3, policy="lru")
    for number in range(3):
        cache.set(number, number)
    cache.run_pending_tasks()
    cache.get(0)
    cache.run_pending_tasks()
    cache.set(3, 3)
    cache.run_pending_tasks()
    assert [cache.get(number) for number in range(4)] == [0, None, 2, 3]


def test_tiny_lfu_keeps_what_is_asked_for_often() -> None:
    """The policy "tiny_lfu" does not let keys that are used once push out those that are used often."""
    cache: Moka[int, int] = Moka(10)
    for number in range(10):
        cache.set(number, number)
    for _ in range(20):
        for number in range(10):
            cache.get(number)
    for number in range(100, 200):
        cache.set(number, number)
    cache.run_pending_tasks()
    assert [cache.get(number) for number in range(10)] == list(range(10))


@pytest.mark.parametrize("policy", ["", "LRU", "lfu", "tiny-lfu", None, 1])
def test_another_policy_is_a_value_error(policy: Any) -> None:
    """A policy that is none is refused, by ``Moka`` and by ``cached``; the message names the two that are."""
    with pytest.raises(ValueError, match="policy.*tiny_lfu.*lru"):
        Moka(8, policy=policy)
    with pytest.raises(ValueError, match="policy"):
        cached(policy=policy)(len)


def test_the_weigher_runs_once_an_insertion_on_the_calling_thread() -> None:
    """The weigher gets key and value by position, once for each insertion, on the thread that inserts."""
    calls: list[Any] = []

    def weigh(*arguments: Any) -> int:
        calls.append((arguments, threading.get_ident()))
        return 3

    cache: Moka[str, str] = Moka(100, weigher=weigh)
    here = threading.get_ident()
    cache.set("a", "x")
    cache.set("a", "y")
    cache.get_with("b", lambda: "z")
    cache.get("a")
    cache.get_with("b", lambda: "unused")
    cache.remove("a")
    cache.run_pending_tasks()
    assert calls == [(("a", "x"), here), (("a", "y"), here), (("b", "z"), here)]
    assert cache.weighted_size() == 3


def test_the_capacity_bounds_the_sum_of_the_weights() -> None:
    """With a weigher the capacity is the most that all weights sum up to."""
    cache: Moka[int, str] = Moka(10, weigher=lambda key, value: len(value))
    for number in range(5):
        cache.set(number, "abcd")
    cache.run_pending_tasks()
    assert cache.weighted_size() == 8
    assert cache.count() == 2


@pytest.mark.parametrize(("answer", "weight"), [(0, 0), (True, 1), (False, 0), (7, 7), (2**32 - 1, 2**32 - 1)])
def test_a_weight_is_an_int_from_zero_on(answer: int, weight: int) -> None:
    """A weigher's int counts as it is; a bool is an int; zero takes no capacity."""
    cache: Moka[str, str] = Moka(2**40, weigher=lambda key, value: answer)
    cache.set("a", "x")
    cache.run_pending_tasks()
    assert cache.get("a") == "x"
    assert cache.weighted_size() == weight


@pytest.mark.parametrize("huge", [2**32, 2**40, 10**30])
def test_a_weight_above_32_bits_is_clamped(huge: int) -> None:
    """A weight above 2**32 - 1 counts as that."""
    cache: Moka[str, str] = Moka(2**40, weigher=lambda key, value: huge)
    cache.set("a", "x")
    cache.run_pending_tasks()
    assert cache.weighted_size() == 2**32 - 1


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [(-1, ValueError, "non-negative"), (1.5, TypeError, "int"), ("10", TypeError, "int"), (None, TypeError, "int")],
)
def test_another_weight_is_an_error_and_the_old_entry_stays(answer: Any, error: Any, message: str) -> None:
    """A negative weight is a ValueError, one that is no int a TypeError; the insertion fails, the old entry stays."""
    answers: list[Any] = [1, answer, answer, answer]
    cache: Moka[str, str] = Moka(128, weigher=lambda key, value: answers.pop(0))
    cache.set("a", "old")
    with pytest.raises(error, match=message):
        cache.set("a", "new")
    with pytest.raises(error, match=message):
        cache.set("b", "new")
    with pytest.raises(error, match=message):
        cache.get_with("c", lambda: "new")
    assert [cache.get(key) for key in "abc"] == ["old", None, None]


def test_a_weigher_that_raises_fails_the_insertion_and_the_old_entry_stays() -> None:
    """A weigher's own exception reaches the caller that inserts; the old entry stays."""

    def weigh(key: str, value: str) -> int:
        return 1 if value == "old" else 1 // 0

    cache: Moka[str, str] = Moka(128, weigher=weigh)
    cache.set("a", "old")
    with pytest.raises(ZeroDivisionError):
        cache.set("a", "new")
    with pytest.raises(ZeroDivisionError):
        cache.get_with("b", lambda: "new")
    assert [cache.get(key) for key in "ab"] == ["old", None]


def test_setting_again_weighs_again() -> None:
    """An overwritten entry weighs what its new value weighs."""
    cache: Moka[str, str] = Moka(1000, weigher=lambda key, value: len(value))
    for value in ("xx", "xxxxxxx", ""):
        cache.set("a", value)
        cache.run_pending_tasks()
        assert cache.weighted_size() == len(value)


def test_cached_passes_the_weigher_on() -> None:
    """``cached(weigher=...)`` weighs with an opaque hashable key and the computed value."""
    seen: list[Any] = []

    def weigh(key: Any, value: Any) -> int:
        hash(key)
        seen.append(value)
        return -1

    @cached(weigher=weigh)
    def double(x: int) -> int:
        return x * 2

    with pytest.raises(ValueError, match="non-negative"):
        double(2)
    assert seen == [4]


# Durations.


@pytest.mark.parametrize("name", ["ttl", "tti"])
@pytest.mark.parametrize(("duration", "message"), BAD_DURATIONS)
def test_a_duration_that_cannot_be_is_a_value_error(name: str, duration: float, message: str) -> None:
    """Constructor, ``set`` and ``get_with`` refuse a bad ttl or tti by its name; nothing is stored or computed."""
    option: dict[str, Any] = {name: duration}
    match = f"^{name} {message}"
    with pytest.raises(ValueError, match=match):
        Moka(8, **option)
    with pytest.raises(ValueError, match=match):
        cached(**option)(len)
    cache: Moka[str, str] = Moka(8)
    cache.set("k", "old")
    with pytest.raises(ValueError, match=match):
        cache.set("k", "new", **option)
    with pytest.raises(ValueError, match=match):
        cache.get_with("absent", lambda: pytest.fail("computed"), **option)
    with pytest.raises(ValueError, match=match):
        cache.get_with("k", lambda: pytest.fail("computed"), **option)
    assert cache.get("k") == "old"


@pytest.mark.parametrize("name", ["ttl", "tti"])
@pytest.mark.parametrize("duration", ["1", b"1", [], object(), 1j])
def test_a_duration_that_is_no_number_is_a_type_error(name: str, duration: Any) -> None:
    """A ttl or tti that is no number is a TypeError that names it."""
    option: dict[str, Any] = {name: duration}
    with pytest.raises(TypeError, match=name):
        Moka(8, **option)
    with pytest.raises(TypeError, match=name):
        Moka(8).set("k", 1, **option)


@pytest.mark.parametrize("duration", [1, 1.0, 1e-9, 5e-324, 1e9, 2**63, 1e19, True])
def test_int_and_float_seconds_are_durations(duration: float) -> None:
    """Every positive finite int or float below 2**64 seconds is taken."""
    cache: Moka[str, int] = Moka(8, ttl=duration, tti=duration, clock=Clock())
    cache.set("k", 1, ttl=duration, tti=duration)
    cache.get_with("l", lambda: 2, ttl=duration, tti=duration)


# Deadlines.


@pytest.mark.parametrize(
    ("cache_wide", "own", "life"),
    [
        ({"ttl": 10}, {}, 10),
        ({"tti": 10}, {}, 10),
        ({}, {"ttl": 10}, 10),
        ({}, {"tti": 10}, 10),
        ({"ttl": 2}, {"ttl": 10}, 2),
        ({"ttl": 10}, {"ttl": 2}, 2),
        ({"tti": 2}, {"tti": 10}, 2),
        ({"tti": 10}, {"tti": 2}, 2),
        ({"tti": 2}, {"ttl": 10}, 2),
        ({"tti": 10}, {"ttl": 2}, 2),
        ({"ttl": 2}, {"tti": 10}, 2),
        ({"ttl": 10}, {"tti": 2}, 2),
        ({}, {"ttl": 10, "tti": 2}, 2),
        ({}, {"ttl": 2, "tti": 10}, 2),
        ({"ttl": 3, "tti": 4}, {"ttl": 5, "tti": 2}, 2),
    ],
)
@pytest.mark.parametrize("method", ["set", "get_with"])
def test_the_earliest_deadline_wins(clock: Clock, cache_wide: Any, own: Any, life: float, method: str) -> None:
    """An entry lives until the first of the cache's and its own deadlines, set by ``set`` or by ``get_with``."""
    cache: Moka[str, str] = Moka(128, clock=clock, **cache_wide)
    if method == "set":
        cache.set("k", "v", **own)
    else:
        assert cache.get_with("k", lambda: "v", **own) == "v"
    clock.now += life - 0.001
    assert "k" in cache
    clock.now += 0.001
    assert cache.get("k") is None


@pytest.mark.parametrize("options", [{"ttl": 0.5}, {"ttl": 0.5, "tti": 0.3}])
def test_reads_do_not_extend_a_time_to_live(clock: Clock, options: Any) -> None:
    """However often it is read, an entry is gone once its ttl is over."""
    cache: Moka[str, str] = Moka(128, clock=clock)
    cache.set("k", "v", **options)
    found = []
    for _ in range(8):
        clock.now += 0.125
        found.append(cache.get("k"))
    assert found == ["v"] * 3 + [None] * 5


def test_reads_extend_a_time_to_idle(clock: Clock) -> None:
    """Every read begins an entry's tti anew."""
    cache: Moka[str, str] = Moka(128, clock=clock)
    cache.set("k", "v", tti=0.25)
    for _ in range(20):
        clock.now += 0.125
        assert cache.get("k") == "v"
    clock.now += 0.25
    assert cache.get("k") is None


@pytest.mark.parametrize(
    ("first", "second", "pause", "life"),
    [
        ({"ttl": 2}, {"ttl": 2}, 1, 2),
        ({"ttl": 2}, {"ttl": 8}, 1, 8),
        ({"ttl": 8}, {"ttl": 2}, 1, 2),
        ({"ttl": 2}, {"tti": 3}, 1, 3),
        ({"ttl": 2}, {"ttl": 8, "tti": 3}, 1, 3),
        ({"tti": 2}, {"ttl": 8}, 1, 8),
        ({"ttl": 2}, {"ttl": 3}, 5, 3),
        ({"ttl": 2}, {"tti": 1}, 5, 1),
    ],
)
def test_setting_again_moves_the_deadline(clock: Clock, first: Any, second: Any, pause: float, life: float) -> None:
    """The deadline counts from the last ``set`` and by its options, whether or not the entry had expired."""
    cache: Moka[str, str] = Moka(128, clock=clock)
    cache.set("k", "v1", **first)
    clock.now += pause
    cache.set("k", "v2", **second)
    clock.now += life - 0.001
    assert "k" in cache
    clock.now += 0.001
    assert "k" not in cache


@pytest.mark.parametrize("options", [{"ttl": 2}, {"tti": 2}, {"ttl": 2, "tti": 2}])
def test_setting_again_without_a_deadline_clears_it(clock: Clock, options: Any) -> None:
    """An entry that is set again without ttl and tti has no deadline of its own any more."""
    cache: Moka[str, str] = Moka(128, clock=clock)
    cache.set("k", "v1", **options)
    cache.set("k", "v2")
    clock.now += 1e6
    assert cache.get("k") == "v2"


def test_entries_expire_independently(clock: Clock) -> None:
    """Each entry has its own deadline."""
    cache: Moka[str, int] = Moka(128, clock=clock)
    for life in (1, 2, 3):
        cache.set(f"{life}", life, ttl=life)
    cache.set("forever", 0)
    alive = []
    for _ in range(4):
        alive.append("".join(key for key in ("1", "2", "3", "forever") if key in cache))
        clock.now += 1
    assert alive == ["123forever", "23forever", "3forever", "forever"]


# get_with.


def test_get_with_computes_what_is_absent_only() -> None:
    """``get_with`` answers the live value; only without one does it call the initializer, without arguments."""
    cache: Moka[str, str] = Moka(8)
    calls = []

    def initialize() -> str:
        calls.append(1)
        return "computed"

    assert cache.get_with("k", initialize) == "computed"
    assert cache.get_with("k", initialize) == "computed"
    assert cache.get("k") == "computed"
    assert len(calls) == 1


def test_one_thread_computes_and_the_others_wait() -> None:
    """Of threads that ask for one key at once, one calls its initializer, and all get its result and its ttl."""
    clock = Clock()
    cache: Moka[str, str] = Moka(8, clock=clock)
    calls: list[int] = []
    going_on = threading.Event()
    threads = Threads()

    def ask(number: int) -> str:
        def initialize() -> str:
            calls.append(number)
            assert going_on.wait(GUARD)
            return f"by {number}"

        return cache.get_with("k", initialize, ttl=10 + number)

    for number in range(8):
        threads.start(lambda number=number: ask(number))  # type: ignore[misc]
    until(lambda: cache._flights.waiting(cache._encode_key("k")) == 7)
    going_on.set()
    results = threads.join()
    (winner,) = calls
    assert results == [f"by {winner}"] * 8
    clock.now += 10 + winner - 0.001
    assert cache.get("k") == f"by {winner}"
    clock.now += 0.001
    assert cache.get("k") is None


def test_an_exception_reaches_every_waiter_and_nothing_is_cached() -> None:
    """A failing initializer fails every caller that waits for it; the next call computes again."""
    cache: Moka[str, str] = Moka(8)
    calls: list[int] = []
    going_on = threading.Event()
    threads = Threads()

    def fail() -> str:
        calls.append(1)
        assert going_on.wait(GUARD)
        raise LookupError("boom")

    def ask() -> tuple[Any, ...]:
        with pytest.raises(LookupError) as caught:
            cache.get_with("k", fail)
        return caught.value.args

    threads.start(ask, 5)
    until(lambda: cache._flights.waiting(cache._encode_key("k")) == 4)
    going_on.set()
    assert threads.join() == [("boom",)] * 5
    assert calls == [1]
    assert cache.get("k") is None
    assert cache.get_with("k", lambda: "ok") == "ok"


def test_concurrent_async_calls_share_result_and_exception() -> None:
    """With ``wait_concurrent=True`` async callers of one key share one computation, its result or its exception."""
    calls: list[str] = []

    @cached(wait_concurrent=True)
    async def work(what: str) -> str:
        calls.append(what)
        for _ in range(5):
            await asyncio.sleep(0)
        if what == "bad":
            raise LookupError(what)
        return what * 2

    async def main() -> None:
        assert await asyncio.gather(*[work("ok") for _ in range(10)]) == ["okok"] * 10
        errors = await asyncio.gather(*[work("bad") for _ in range(10)], return_exceptions=True)
        assert [type(error) for error in errors] == [LookupError] * 10

    asyncio.run(main())
    assert calls == ["ok", "bad"]


# The decorator.


def test_typed_keeps_types_apart() -> None:
    """``typed=True`` keeps ``f(1)`` and ``f(1.0)`` apart; without it they share an entry."""
    for typed, expected in ((True, [1, 1.0]), (False, [1])):
        calls: list[Any] = []

        @cached(typed=typed)
        def function(x: Any, calls: list[Any] = calls) -> Any:
            calls.append(x)
            return x

        function(1)
        function(1.0)
        assert calls == expected


@pytest.mark.parametrize("option", ["ttl", "tti"])
def test_the_decorators_deadlines(clock: Clock, option: str) -> None:
    """``cached(ttl=...)`` and ``cached(tti=...)`` compute again once the deadline has passed."""
    calls: list[int] = []
    options: dict[str, Any] = {option: 10, "clock": clock}

    @cached(**options)
    def function(x: int) -> int:
        calls.append(x)
        return x

    function(1)
    clock.now += 9
    function(1)
    clock.now += 9
    function(1)
    assert len(calls) == (2 if option == "ttl" else 1)
    clock.now += 10
    function(1)
    assert len(calls) == (3 if option == "ttl" else 2)


def test_cache_clear_forgets_everything() -> None:
    """A decorated function has ``cache_clear``, after which it computes again."""
    calls: list[int] = []

    @cached()
    def function(x: int) -> int:
        calls.append(x)
        return x

    function(1)
    function.cache_clear()
    function(1)
    assert calls == [1, 1]


# The listener.


def test_the_listener_gets_key_value_and_cause_by_position() -> None:
    """The listener is called with three positional arguments, for each of the four causes."""
    events: list[tuple[Any, ...]] = []
    clock = Clock()

    def listener(*arguments: Any) -> None:
        events.append(arguments)

    cache: Moka[str, int] = Moka(2, eviction_listener=listener, clock=clock)
    cache.set("a", 1)
    cache.set("a", 2)
    cache.remove("a")
    cache.set("b", 3, ttl=1)
    clock.now += 2
    cache.get("b")
    cache.run_pending_tasks()
    for number in range(3):
        cache.set("cde"[number], number)
    cache.run_pending_tasks()
    assert events == [("a", 1, "replaced"), ("a", 2, "explicit"), ("b", 3, "expired"), ("e", 2, "size")]


def test_clear_is_explicit() -> None:
    """The listener hears of every entry that ``clear`` takes out, as "explicit"."""
    events: list[Any] = []
    cache: Moka[int, int] = Moka(100, eviction_listener=lambda *removal: events.append(removal))
    for number in range(10):
        cache.set(number, -number)
    cache.clear()
    cache.run_pending_tasks()
    assert sorted(events) == [(number, -number, "explicit") for number in range(10)]


@pytest.mark.parametrize("cache_ttl", [None, 20])
@pytest.mark.parametrize("operation", ["set", "get", "get_with", "remove", "run_pending_tasks", "clear"])
def test_an_entrys_own_ttl_gives_exactly_one_expired(cache_ttl: Any, operation: str) -> None:
    """An entry that dies of its own ttl is told once, as "expired", by whatever operations follow."""
    clock = Clock()
    events: list[Any] = []
    cache: Moka[str, Any] = Moka(
        128, ttl=cache_ttl, eviction_listener=lambda *removal: events.append(removal), clock=clock
    )
    cache.set("k", "value", ttl=1)
    assert cache.get("k") == "value"
    clock.now += 1.5
    arguments = {"set": ("k", 1), "get": ("k",), "get_with": ("k", lambda: 1), "remove": ("k",)}.get(operation, ())
    getattr(cache, operation)(*arguments)
    cache.set("other", "x")
    cache.run_pending_tasks()
    assert [event for event in events if event[2] == "expired"] == [("k", "value", "expired")]
    assert [event for event in events if event[:2] == ("k", "value")] == [("k", "value", "expired")]


def test_the_listener_is_never_called_from_a_background_thread() -> None:
    """The listener runs on the thread whose operation finds out, and the package starts no thread."""
    clock = Clock()
    threads_seen: set[int] = set()
    before = threading.active_count()
    cache: Moka[int, int] = Moka(
        10, ttl=1, eviction_listener=lambda *removal: threads_seen.add(threading.get_ident()), clock=clock
    )
    for number in range(100):
        cache.set(number, number)
    clock.now += 2
    assert not threads_seen - {threading.get_ident()}
    cache.get(1)
    cache.run_pending_tasks()
    assert threads_seen == {threading.get_ident()}
    assert threading.active_count() == before


def test_a_listener_is_told_of_every_entry_once() -> None:
    """Every entry that was inserted is still there or was told to the listener, once."""
    events: list[Any] = []
    cache: Moka[int, int] = Moka(10, eviction_listener=lambda *removal: events.append(removal))
    for number in range(500):
        cache.set(number % 50, number)
    cache.run_pending_tasks()
    here = [(key, value) for key, value in cache.items()]
    told = [(key, value) for key, value, _ in events]
    assert sorted(here + told) == sorted((number % 50, number) for number in range(500))
