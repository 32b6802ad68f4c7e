"""The decorators: keys, attributes, methods, sync and async functions."""

# pyright: basic
# Tests look at private state and at values of no declared type.

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from test_single_flight import GUARD, Threads, run_async, until, until_async

from moka_wasm import (
    Moka,
    RecursiveComputationError,
    UnsupportedKeyError,
    cached,
    cached_method,
    hashkey,
    methodkey,
    typedkey,
    typedmethodkey,
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counted(**options: Any) -> tuple[list[Any], Any]:
    """A cached function that answers its arguments, and the list of its calls."""
    calls: list[Any] = []

    @cached(**options)
    def function(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return [args, kwargs]

    return calls, function


@cached
def documented(amount: int, *, currency: str = "EUR") -> str:
    """Tells an amount."""
    return f"{amount} {currency}"


@cached
async def documented_async(amount: int) -> str:
    """Tells an amount, later."""
    return f"{amount}"


# --- the decorator's forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorator", [cached, cached(), cached(64), cached(maxsize=None), cached(64, True, ttl=5)])
def test_every_form_of_the_decorator_caches(decorator: Callable[..., Any]) -> None:
    """Bare, with parentheses and with arguments, the decorator computes a call once."""
    calls = []

    def compute(x: int) -> int:
        calls.append(x)
        return x * x

    square = decorator(compute)
    assert [square(3), square(4), square(3)] == [9, 16, 9]
    assert calls == [3, 4]


def test_a_decorator_used_twice_makes_two_caches() -> None:
    """Functions that share a decorator object do not share entries."""
    decorator = cached(16)
    assert decorator(lambda x: x + 1)(1) == 2
    assert decorator(lambda x: x + 2)(1) == 3


def test_a_function_keeps_its_metadata() -> None:
    """Name, docstring, signature, annotations and kind of the function are those of its wrapper."""
    for function, is_async in ((documented, False), (documented_async, True)):
        original = function.__wrapped__
        assert function.__name__ == original.__name__
        assert function.__doc__ == original.__doc__
        assert function.__doc__
        assert inspect.signature(function) == inspect.signature(original)
        assert function.__annotations__ == original.__annotations__
        assert inspect.iscoroutinefunction(function) is is_async


def test_a_cached_function_pickles_by_name() -> None:
    """A module's cached function is pickled as a reference to it, like any function."""
    assert pickle.loads(pickle.dumps(documented)) is documented


def test_the_wrapper_names_its_cache() -> None:
    """A cache is named after its function unless told otherwise."""
    assert "test_cached.documented" in repr(documented.cache)
    assert "rates" in repr(cached(name="rates")(lambda: 1).cache)


def test_bad_settings_are_refused_at_decoration() -> None:
    """An unknown policy, a ttl that is not positive and something that is no function are refused at once."""
    with pytest.raises(ValueError, match="policy"):
        cached(policy="unknown_policy")(lambda x: x)  # type: ignore[call-overload]
    refused: list[dict[str, Any]] = [{"ttl": 0.0}, {"ttl": -1}, {"tti": 0}, {"tti": timedelta(0)}]
    for options in refused:
        with pytest.raises(ValueError, match=r"ttl|tti"):
            cached(**options)(lambda x: x)
    with pytest.raises(TypeError, match="decorates functions"):
        cached()(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_every_policy_works(policy: Any) -> None:
    """Both policies cache."""
    calls, function = counted(policy=policy)
    assert function(5, 6) == function(5, 6)
    assert len(calls) == 1


def test_none_is_a_hit() -> None:
    """A cached None is answered from the cache."""
    calls = []

    @cached
    def nothing(x: int) -> None:
        calls.append(x)

    assert nothing(1) is None
    assert nothing(1) is None
    assert calls == [1]


def test_callers_cannot_corrupt_each_other() -> None:
    """Changing an answer changes neither the cache nor another caller's answer."""

    @cached
    def numbers() -> list[int]:
        return [1]

    numbers().append(2)
    numbers().append(3)
    assert numbers() == [1]


@pytest.mark.parametrize("wait_concurrent", [False, True])
def test_an_exception_is_not_cached(wait_concurrent: bool) -> None:
    """A failing call raises its exception, and the next one computes again."""
    calls = []

    @cached(wait_concurrent=wait_concurrent)
    def flaky(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            raise LookupError("first")
        return x

    with pytest.raises(LookupError, match="first"):
        flaky(1)
    assert flaky(1) == 1
    assert calls == [1, 1]


@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)])
def test_ttl_in_every_form(ttl: Any) -> None:
    """An entry lives for its ttl, given in seconds or as a timedelta, and reads do not extend it."""
    clock = Clock()
    calls, function = counted(ttl=ttl, clock=clock)
    function(1)
    clock.now += 9
    function(1)
    assert len(calls) == 1
    clock.now += 2
    function(1)
    assert len(calls) == 2


@pytest.mark.parametrize("tti", [10, 10.0, timedelta(seconds=10)])
def test_tti_in_every_form(tti: Any) -> None:
    """An entry lives for its tti after each use."""
    clock = Clock()
    calls, function = counted(tti=tti, clock=clock)
    for _ in range(3):
        function(1)
        clock.now += 9
    assert len(calls) == 1
    clock.now += 2
    function(1)
    assert len(calls) == 2


def test_maxsize_bounds_and_none_does_not() -> None:
    """At most maxsize entries stay, all of them without a bound."""
    _, small = counted(maxsize=10)
    _, unbounded = counted(maxsize=None)
    for number in range(500):
        small(number)
        unbounded(number)
    assert small.cache_info().currsize <= 10
    assert unbounded.cache_info().currsize == 500


def test_the_weigher_gets_an_opaque_key_and_the_value() -> None:
    """A weigher weighs the computed value, and what it raises reaches the caller."""
    weighed = []

    def weigh(key: Any, value: Any) -> int:
        hash(key)
        weighed.append(value)
        return len(value)

    @cached(maxsize=100, weigher=weigh)
    def text(x: str) -> str:
        return x * 2

    assert text("ab") == "abab"
    assert weighed == ["abab"]
    assert text.cache.weighted_size() == 4 or text.cache_info().currsize == 1
    for wait_concurrent in (False, True):
        refused = cached(weigher=lambda key, value: -1, wait_concurrent=wait_concurrent)(lambda x: x)
        with pytest.raises(ValueError, match="weigher"):
            refused(2)


def test_the_listener_is_told() -> None:
    """An eviction listener gets key, value and cause."""
    told = []

    @cached(eviction_listener=lambda *event: told.append(event))
    def square(x: int) -> int:
        return x * x

    square(3)
    assert square.cache_invalidate(3)
    assert told == [(square.cache_key(3), 9, "explicit")]


def test_a_serializer_is_used() -> None:
    """The cache encodes values as it is told."""
    with pytest.raises(TypeError):
        cached(serializer="json")(lambda: {1})()


# --- attributes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait_concurrent", [False, True])
def test_cache_info_counts_like_functools(wait_concurrent: bool) -> None:
    """Hits, misses, maxsize and currsize are those of lru_cache after the same calls; clearing starts over."""
    ours = cached(maxsize=32, wait_concurrent=wait_concurrent)(lambda x: x)
    theirs = functools.lru_cache(maxsize=32)(lambda x: x)
    for function in (ours, theirs):
        for argument in (1, 2, 1, 3, 1, 2):
            function(argument)
    assert tuple(ours.cache_info()) == tuple(theirs.cache_info()) == (3, 3, 32, 3)
    ours.cache_clear()
    theirs.cache_clear()
    assert tuple(ours.cache_info()) == tuple(theirs.cache_info()) == (0, 0, 32, 0)
    assert ours.cache_info()._fields == theirs.cache_info()._fields


def test_async_cache_info_counts_like_functools() -> None:
    """The counts of an async function are those of a sync one."""

    async def main() -> None:
        for wait_concurrent in (False, True):

            @cached(wait_concurrent=wait_concurrent)
            async def same(x: int) -> int:
                return x

            for argument in (1, 2, 1, 3, 1, 2):
                assert await same(argument) == argument
            assert tuple(same.cache_info()) == (3, 3, 128, 3)

    run_async(main())


def test_cache_clear_computes_again() -> None:
    """After cache_clear every call computes again."""
    calls, function = counted()
    function(1)
    function(1)
    function.cache_clear()
    function(1)
    assert len(calls) == 2


def test_cache_parameters_tell_what_was_asked_for() -> None:
    """cache_parameters has lru_cache's names and all the others."""
    function = cached(7, True, ttl=5, wait_concurrent=True, policy="lru")(lambda: 1)
    parameters = function.cache_parameters()
    assert parameters["maxsize"] == 7
    assert parameters["typed"] is True
    assert parameters["ttl"] == 5
    assert parameters["tti"] is None
    assert parameters["wait_concurrent"] is True
    assert parameters["policy"] == "lru"
    options = set(inspect.signature(cached).parameters)
    assert set(parameters) == options


def test_cache_key_is_the_entrys_key() -> None:
    """What cache_key answers finds the call's entry in the cache, and stores one for it."""
    calls, function = counted()
    function(1, [2], a={"b": 3})
    assert function.cache.get(function.cache_key(1, [2], a={"b": 3})) == [(1, [2]), {"a": {"b": 3}}]
    function.cache.set(function.cache_key("new"), "stored")
    assert function("new") == "stored"
    assert len(calls) == 1
    hash(function.cache_key([1], {}, set()))


def test_cache_invalidate_removes_one_call() -> None:
    """cache_invalidate removes the entry of exactly that call and says whether there was one."""
    calls, function = counted()
    function(1)
    function(2)
    assert function.cache_invalidate(1) is True
    assert function.cache_invalidate(1) is False
    function(1)
    function(2)
    assert [args for args, _ in calls] == [(1,), (2,), (1,)]


def test_the_function_itself_stays_reachable() -> None:
    """__wrapped__ is the undecorated function, and cache the Moka."""
    calls, function = counted()
    function.__wrapped__(1)
    function.__wrapped__(1)
    assert len(calls) == 2
    assert isinstance(function.cache, Moka)


# --- keys ------------------------------------------------------------------------------------------------------------


def call(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


SAME = [
    (call(1), call(1.0)),
    (call(1), call(True)),
    (call(a=1, b=2), call(b=2, a=1)),
    (call({"a": 1, "b": 2}), call({"b": 2, "a": 1})),
    (call({1, 2, 3}), call({3, 2, 1})),
    (call([{"a": [1, {2}]}]), call([{"a": [1.0, {2}]}])),
    (call(x=[1, (2, [3])]), call(x=[1, (2, [3])])),
    (call(bytearray(b"a")), call(bytearray(b"a"))),
    (call(int), call(int)),
]
DIFFERENT = [
    (call([1]), call((1,))),
    (call([1]), call({1})),
    (call([1]), call(("list", 1))),
    (call((1,)), call(("tuple", 1))),
    (call([]), call(())),
    (call({}), call(set())),
    (call({"a": 1}), call([("a", 1)])),
    (call({"a": 1}), call({("a", 1)})),
    (call({1}), call(frozenset({1}))),
    (call(bytearray(b"a")), call(b"a")),
    (call(1), call("1")),
    (call("a"), call(b"a")),
    (call(1, 2), call((1, 2))),
    (call(1, 2), call(1, b=2)),
    (call(), call(None)),
    (call(), call(())),
    (call((1,), (), ()), call(1)),
    (call(("a", 1)), call(a=1)),
    (call(("a",), 1), call(("a", 1))),
    (call(int), call("int")),
    (call(int), call(float)),
    (call([[1], 2]), call([[1, 2]])),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_arguments_share_an_entry(one: Any, other: Any) -> None:
    """Calls with equal arguments, nested and in any order of keywords and members, have one entry."""
    calls, function = counted()
    function(*one[0], **one[1])
    function(*other[0], **other[1])
    assert len(calls) == 1
    assert hashkey(*one[0], **one[1]) == hashkey(*other[0], **other[1])


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_arguments_do_not_share_an_entry(one: Any, other: Any) -> None:
    """Calls with arguments of other kinds or values have entries of their own."""
    calls, function = counted()
    function(*one[0], **one[1])
    function(*other[0], **other[1])
    function(*one[0], **one[1])
    assert len(calls) == 2
    assert hashkey(*one[0], **one[1]) != hashkey(*other[0], **other[1])


def test_typed_keeps_immediate_arguments_apart() -> None:
    """With typed, 3 and 3.0 have entries of their own, by position and by keyword, but not inside of a list."""
    calls, function = counted(typed=True)
    for argument in (3, 3.0, 3):
        function(argument)
        function(x=argument)
    assert len(calls) == 4
    function([3])
    function([3.0])
    assert len(calls) == 5
    assert typedkey(1) != typedkey(1.0)
    assert typedkey(1, "int") == typedkey(1, "int")


def test_key_chooses_the_key() -> None:
    """key= gets the call's arguments, and its answer is the entry's key."""
    calls, function = counted(key=lambda user, **_: user["id"])
    function({"id": 7, "name": "a"}, at=1)
    function({"id": 7, "name": "b"}, at=2)
    assert len(calls) == 1
    assert function.cache_key({"id": 7}) == 7
    assert list(function.cache) == [7]


def test_an_unhashable_chosen_key_is_refused() -> None:
    """A key= that answers something unhashable is a TypeError."""
    _, function = counted(key=lambda x: [x])
    with pytest.raises(TypeError):
        function(1)


def test_classes_of_one_name_do_not_share_entries() -> None:
    """Classes as arguments are told apart even when their names are the same."""

    def make() -> type:
        class Local:
            pass

        return Local

    one, other = make(), make()
    calls = []

    @cached
    def name(cls: type) -> str:
        calls.append(cls)
        return cls.__qualname__

    assert len({name(cls) for cls in (one, other, one, other)}) == 1
    assert calls == [one, other]


# --- methods ---------------------------------------------------------------------------------------------------------


class Rates:
    """Has methods of all kinds."""

    calls: list[Any]

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.calls = []

    @cached
    def plain(self, x: int) -> int:
        return self.factor * x

    @cached(key=methodkey)
    def shared(self, x: int) -> int:
        self.calls.append(x)
        return self.factor * x

    @cached_method
    def own(self, x: int, *more: Any, **options: Any) -> int:
        """Multiplies."""
        self.calls.append(x)
        return self.factor * x

    @cached_method(wait_concurrent=True)
    async def own_async(self, x: int) -> int:
        self.calls.append(x)
        return self.factor * x

    @classmethod
    @cached
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @cached
    @classmethod
    def of_class_below(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @staticmethod
    @cached
    def static(x: int) -> int:
        return x + 1

    @cached
    @staticmethod
    def static_below(x: int) -> int:
        return x + 1


class DoubleRates(Rates):
    """A subclass."""


def test_self_without_an_encoding_is_explained() -> None:
    """A plain cached method says why it cannot work and names the two ways that do."""
    for wait_concurrent in (False, True):

        class Plain:
            @cached(wait_concurrent=wait_concurrent)
            def method(self, x: int) -> int:
                return x

        with pytest.raises(UnsupportedKeyError, match=r"a .*Plain, cannot be .*key=methodkey.*@cached_method"):
            Plain().method(1)


def test_an_async_self_without_an_encoding_is_explained() -> None:
    """So does an async one."""

    async def main() -> None:
        for wait_concurrent in (False, True):

            class Plain:
                @cached(wait_concurrent=wait_concurrent)
                async def method(self, x: int) -> int:
                    return x

            with pytest.raises(UnsupportedKeyError, match=r"key=methodkey.*@cached_method"):
                await Plain().method(1)

    run_async(main())


def test_the_functions_own_key_error_is_left_alone() -> None:
    """An UnsupportedKeyError from inside the function is not mistaken for one about its arguments."""
    inner = cached(lambda x: x)

    @cached(wait_concurrent=True)
    def outer(x: int) -> Any:
        return inner(object())

    with pytest.raises(UnsupportedKeyError, match="a object") as raised:
        outer(1)
    assert "a int" not in str(raised.value)


def test_methodkey_leaves_self_out() -> None:
    """With key=methodkey all instances share one entry."""
    one, two = Rates(2), Rates(3)
    Rates.shared.cache_clear()
    assert one.shared(5) == 10
    assert two.shared(5) == 10
    assert one.calls == [5]
    assert two.calls == []
    assert methodkey(one, 1, a=2) == hashkey(1, a=2)
    assert typedmethodkey(one, 1) == typedkey(1)
    assert typedmethodkey(one, 1) != typedmethodkey(one, 1.0)


def test_cached_method_keeps_instances_apart() -> None:
    """Every instance has entries of its own, also of a subclass, and by access through the class."""
    one, two, double = Rates(2), Rates(3), DoubleRates(4)
    assert [one.own(5), two.own(5), double.own(5)] == [10, 15, 20]
    assert [one.own(5), Rates.own(two, 5), DoubleRates.own(double, 5)] == [10, 15, 20]
    assert [one.calls, two.calls, double.calls] == [[5], [5], [5]]
    assert one.own(5, [1], a={}) == one.own(5, [1], a={})
    assert one.calls == [5, 5]


def test_cached_method_does_not_keep_an_instance_alive() -> None:
    """A collected instance is gone, and so are its entries at the method's next use."""
    Rates.own.cache_clear()
    one, two = Rates(2), Rates(3)
    assert [one.own(1), one.own(2), two.own(1)] == [2, 4, 3]
    assert Rates.own.cache_info().currsize == 3
    alive = weakref.ref(one)
    del one
    gc.collect()
    assert alive() is None
    assert Rates.own.cache_info().currsize == 1
    assert two.own(1) == 3
    assert two.calls == [1]


def test_a_new_instance_never_gets_a_dead_ones_entries() -> None:
    """Instances that follow each other at one address do not share entries."""
    answers = set()
    for factor in range(100):
        answers.add(Rates(factor).own(1))
    assert answers == set(range(100))


def test_cached_method_takes_unhashable_and_slotted_instances() -> None:
    """Instances need be neither hashable nor have a __dict__; equal ones are still apart."""

    @dataclass(eq=True)
    class Point:
        x: int

        @cached_method
        def doubled(self) -> int:
            return 2 * self.x

    class Slotted:
        __slots__ = ("__weakref__", "x")

        @cached_method()
        def doubled(self) -> int:
            return 2 * self.x  # type: ignore[attr-defined, no-any-return]

    point, twin = Point(1), Point(1)
    assert point == twin
    assert point.doubled() == 2
    twin.x = 5
    assert twin.doubled() == 10
    slotted = Slotted()
    slotted.x = 3  # type: ignore[attr-defined]
    assert slotted.doubled() == slotted.doubled() == 6


def test_cached_method_explains_what_it_cannot_take() -> None:
    """An instance that cannot be weakly referenced is refused with the remedy, and so is no instance at all."""

    class Bare:
        __slots__ = ()

        @cached_method
        def method(self) -> int:
            return 1

    with pytest.raises(UnsupportedKeyError, match="__weakref__"):
        Bare().method()
    with pytest.raises(TypeError, match="without its instance"):
        Bare.method()  # type: ignore[call-arg]


def test_cached_method_has_the_controls() -> None:
    """The attributes work on the class; the instance comes first. key= gets the arguments without it."""
    one = Rates(2)
    one.own(1)
    assert Rates.own.cache_invalidate(one, 1) is True
    assert Rates.own.cache_key(one, 1) in {Rates.own.cache_key(one, 1)}
    assert Rates.own.__doc__ == "Multiplies."
    assert one.own.__self__ is one  # type: ignore[attr-defined]

    class Keyed:
        @cached_method(key=lambda user: user["id"])
        def name(self, user: dict[str, Any]) -> Any:
            return user["name"]

    keyed = Keyed()
    assert keyed.name({"id": 1, "name": "a"}) == keyed.name({"id": 1, "name": "b"}) == "a"


def test_cached_method_forgets_keys_of_evicted_entries() -> None:
    """What an instance's calls leave on the host stays in proportion to the entries that it has."""

    class Counter:
        @cached_method(maxsize=10)
        def method(self, x: int) -> int:
            return x

    counter = Counter()
    for number in range(2000):
        counter.method(number)
    owners = [owner for owner in gc.get_objects() if type(owner).__name__ == "_Owner" and owner() is counter]
    assert [len(owner.keys) <= 200 for owner in owners] == [True]


def test_cached_async_methods_work() -> None:
    """An async cached method shares computations for each instance."""

    async def main() -> None:
        one, two = Rates(2), Rates(3)
        assert list(await asyncio.gather(one.own_async(1), one.own_async(1), two.own_async(1))) == [2, 2, 3]
        assert [one.calls, two.calls] == [[1], [1]]

    run_async(main())


def test_class_and_static_methods_stack_in_both_orders() -> None:
    """classmethod and staticmethod work above and below the decorator; a class is part of the key."""
    classes: list[Any] = [Rates, DoubleRates, Rates, DoubleRates]
    for cls in classes:
        assert cls.of_class(1) == f"{cls.__name__} 1"
        assert cls.of_class_below(1) == f"{cls.__name__} 1"
        assert cls.static(1) == cls.static_below(1) == cls(1).static(1) == cls(1).static_below(1) == 2
    assert Rates.of_class.cache_info().misses == 2
    assert Rates.static_below.cache_info().misses == 1


# --- concurrency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wait_concurrent", "expected"), [(True, 1), (False, 32)])
def test_wait_concurrent_shares_computations_among_threads(wait_concurrent: bool, expected: int) -> None:
    """With wait_concurrent one of 32 threads computes; without, all do."""
    calls, threads, release = [], Threads(), threading.Event()

    @cached(wait_concurrent=wait_concurrent)
    def divide(x: int, y: int) -> float:
        calls.append((x, y))
        assert release.wait(GUARD)
        return x / y

    threads.start(lambda: divide(12, 3), 32)
    flights = divide.cache._flights
    key_bytes = divide.cache._encode_key(divide.cache_key(12, 3))
    until(lambda: len(calls) + flights.waiting(key_bytes) == 32)
    release.set()
    assert threads.join() == [4.0] * 32
    assert len(calls) == expected


def test_wait_concurrent_shares_an_exception_among_threads() -> None:
    """All waiting threads get the exception of the one computation."""
    calls, threads, release = [], Threads(), threading.Event()

    @cached(wait_concurrent=True)
    def fail(x: int) -> int:
        calls.append(x)
        assert release.wait(GUARD)
        raise ValueError("bad")

    threads.start(lambda: fail(1), 5)
    flights = fail.cache._flights
    until(lambda: flights.waiting(fail.cache._encode_key(fail.cache_key(1))) == 4)
    release.set()
    assert [str(result) for result in threads.join()] == ["bad"] * 5
    assert calls == [1]


def test_recursion_of_a_cached_function() -> None:
    """A function may call itself with other arguments; with its own it gets an error instead of hanging."""

    @cached(wait_concurrent=True)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    @cached(wait_concurrent=True)
    def endless(n: int) -> int:
        return endless(n)

    assert fib(50) == 12586269025
    with pytest.raises(RecursiveComputationError):
        endless(1)


@pytest.mark.parametrize("wait_concurrent", [False, True])
def test_an_async_function_caches_its_result(wait_concurrent: bool) -> None:
    """The awaited result is cached, across event loops too; a failure is not."""
    calls = []

    @cached(wait_concurrent=wait_concurrent)
    async def divide(x: int, y: int) -> float:
        calls.append((x, y))
        await asyncio.sleep(0)
        return x / y

    async def main() -> None:
        for _ in range(3):
            assert await divide(1, 2) == 0.5
            with pytest.raises(ZeroDivisionError):
                await divide(1, 0)

    run_async(main())
    run_async(main())
    assert calls.count((1, 2)) == 1
    assert calls.count((1, 0)) == 6


@pytest.mark.parametrize(("wait_concurrent", "expected"), [(True, 1), (False, 5)])
def test_wait_concurrent_shares_computations_among_tasks(wait_concurrent: bool, expected: int) -> None:
    """With wait_concurrent one of five tasks computes, or fails for all; without, each does."""
    calls = []

    async def main() -> None:
        gate = asyncio.Event()

        @cached(wait_concurrent=wait_concurrent)
        async def divide(x: int, y: int) -> float:
            calls.append((x, y))
            await gate.wait()
            return x / y

        tasks = [asyncio.create_task(divide(12, y)) for y in (3, 0) for _ in range(5)]
        await until_async(lambda: len(calls) == 2 * expected)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[:5] == [4.0] * 5
        assert [type(result) for result in results[5:]] == [ZeroDivisionError] * 5

    run_async(main())
    assert len(calls) == 2 * expected


def test_a_cancelled_call_takes_no_other_with_it() -> None:
    """Cancelling the call that started a shared computation leaves it to the others."""
    calls = []

    async def main() -> None:
        gate = asyncio.Event()

        @cached(wait_concurrent=True)
        async def compute() -> int:
            calls.append(1)
            await gate.wait()
            return 1

        tasks = [asyncio.create_task(compute()) for _ in range(3)]
        await until_async(lambda: bool(calls))
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        gate.set()
        assert await asyncio.gather(*tasks[1:]) == [1, 1]

    run_async(main())
    assert calls == [1]


def test_async_recursion_of_a_cached_function() -> None:
    """An async function that awaits its own call gets an error instead of hanging."""

    @cached(wait_concurrent=True)
    async def endless(n: int) -> int:
        return await endless(n)

    async def main() -> None:
        with pytest.raises(RecursiveComputationError):
            await endless(1)

    run_async(main())


def test_a_partial_of_an_async_function_is_async() -> None:
    """functools.partial of a coroutine function is cached as one."""

    async def add(x: int, y: int) -> int:
        return x + y

    function: Callable[..., Any] = cached(functools.partial(add, 1))
    assert inspect.iscoroutinefunction(function)

    async def main() -> None:
        assert [await function(2), await function(2)] == [3, 3]

    run_async(main())


def test_a_weigher_error_goes_to_the_call_that_started() -> None:
    """With a weigher and wait_concurrent, sync or async, the starter gets the error and the others the result."""

    async def main() -> None:
        gate = asyncio.Event()

        @cached(weigher=lambda key, value: -1, wait_concurrent=True)
        async def compute() -> str:
            await gate.wait()
            return "value"

        tasks = [asyncio.create_task(compute()) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], ValueError)
        assert results[1:] == ["value", "value"]

    run_async(main())
