"""``cached`` in the extension: the same keys, answers and counters as in Python, by what is like a function."""

# pyright: basic

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import pydoc
import threading
import types
import weakref
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_native import INTEGERS, TEXT

import moka_wasm._hot as hot
from moka_wasm import ClosedError, Moka, RecursiveComputationError, cached
from moka_wasm._call_keys import call_key, typed_call_key
from moka_wasm._keys import encode_key

pytestmark = pytest.mark.skipif(hot._native is None, reason="the extension is not here, or is turned off")

PLAIN = st.none() | st.booleans() | INTEGERS | st.floats() | TEXT | st.binary(max_size=300)
ARGUMENTS = PLAIN | st.tuples(PLAIN) | st.lists(PLAIN, max_size=2) | st.fractions() | st.just(5 + 0j)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.just("x" * 300)


class Text(str):
    pass


@cached
def module_level(first: int, second: int = 2) -> int:
    """Adds."""
    return first + second


def is_native(function: Any) -> bool:
    return type(function).__name__ == "CachedFunction"


@pytest.mark.parametrize("typed", [False, True])
@settings(deadline=None, max_examples=500)
@given(st.lists(ARGUMENTS, max_size=5), st.dictionaries(NAMES, ARGUMENTS, max_size=4))
def test_keys_are_those_of_python(typed: bool, args: list[Any], kwargs: dict[str, Any]) -> None:
    """What is stored under which bytes is what the key maker in Python says."""
    calls = 0

    @cached(maxsize=None, typed=typed)
    def count(*_: Any, **__: Any) -> int:
        nonlocal calls
        calls += 1
        return calls

    assert is_native(count)
    key = (typed_call_key if typed else call_key)(tuple(args), kwargs)
    assert count(*args, **kwargs) == count(*args, **kwargs) == 1
    assert count.cache._channel.get(encode_key(key)) is not None
    count.cache.set(key, 2)
    assert count(*args, **kwargs) == 2
    info = count.cache_info()
    assert (info.hits, info.misses, info.currsize) == (3, 1, 1)


@pytest.mark.parametrize("value", [True, 1, 1.0, 0.0, -0.0, 0, False, "1", b"1", None, 2**63, -(2**63), 2.0**63, 1e300])
def test_equal_arguments_share_an_entry(value: Any) -> None:
    """As ``==`` says, and with ``typed`` as the types say, too."""
    others = [True, 1, 1.0, 0.0, -0.0, 0, False, "1", b"1", None, 2**63, -(2**63), 2.0**63, float(-(2**63)), 10**300]
    shared, apart = cached(maxsize=None)(repr), cached(maxsize=None, typed=True)(repr)
    shared(value), apart(value)
    for other in others:
        assert (shared(other) == repr(value)) == (other == value or repr(other) == repr(value))
        assert (apart(other) == repr(value)) == (type(other) is type(value) and other == value)


def test_it_is_like_a_function() -> None:
    """What programs ask of a function, it answers as the function it stands for."""
    assert is_native(module_level)
    assert callable(module_level)
    assert module_level.__name__ == module_level.__qualname__ == "module_level"
    assert module_level.__module__ == __name__
    assert module_level.__doc__ == "Adds."
    assert str(inspect.signature(module_level)) == "(first: 'int', second: 'int' = 2) -> 'int'"
    assert get_type_hints(module_level) == {"first": int, "second": int, "return": int}
    assert not inspect.iscoroutinefunction(module_level)
    assert module_level.__wrapped__(1) == 3
    assert inspect.unwrap(module_level) is module_level.__wrapped__
    assert repr(module_level).startswith("<function module_level at 0x")
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.copy(module_level) is copy.deepcopy(module_level) is module_level
    assert "Adds." in pydoc.render_doc(module_level)
    assert weakref.ref(module_level)() is module_level
    assert {module_level: 1}[module_level] == 1
    module_level.note = "kept"  # type: ignore[attr-defined]
    assert vars(module_level)["note"] == "kept"
    assert functools.partial(module_level, 1)(second=5) == 6
    assert [*map(module_level, range(3))] == [2, 3, 4]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        module_level()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        module_level(1, third=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cannot create"):
        type(module_level)()  # type: ignore[call-arg]


def test_methods() -> None:
    """On a class it binds as a function does, also as a static and a class method."""

    class Adder:
        def __init__(self, base: int) -> None:
            self.base = base

        @cached(key=lambda self, number: (self.base, number))
        def chosen(self, number: int) -> int:
            return self.base + number

        @staticmethod
        @cached
        def static(number: int) -> int:
            return number + 1

        @classmethod
        @cached
        def of_class(cls, number: int) -> tuple[str, int]:
            return cls.__name__, number

    assert not is_native(vars(Adder)["chosen"]), "the key is made by Python"
    assert is_native(vars(Adder)["static"].__func__)
    assert Adder(5).chosen(1) == 6
    assert [Adder.static(1), Adder(3).static(1)] == [2, 2]
    assert [Adder.of_class(1), Adder.of_class(1)] == [("Adder", 1)] * 2

    class Values(str):
        @cached
        def longer(self, by: int = 1) -> str:
            return self + "x" * by

    assert is_native(vars(Values)["longer"])
    bound = Values("a").longer
    assert isinstance(bound, types.MethodType)
    assert bound.__self__ == "a"
    assert Values.longer is vars(Values)["longer"]


def test_errors_and_refused_arguments() -> None:
    """An exception is not cached; arguments that make no key are explained as in Python."""
    calls = 0

    @cached
    def fails(number: Any) -> int:
        nonlocal calls
        calls += 1
        return 1 // number

    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            fails(0)
    assert calls == 2
    assert caught.traceback[-1].name == "fails"
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        fails(object())


@pytest.mark.parametrize("wait_concurrent", [False, True])
def test_recursion_to_any_depth_that_python_has(wait_concurrent: bool) -> None:
    """A recursive function fills its cache from the bottom up."""

    @cached(maxsize=None, wait_concurrent=wait_concurrent)
    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    assert fibonacci(60) == 1548008755920
    info = fibonacci.cache_info()
    assert (info.hits, info.misses) == (58, 61)

    @cached(maxsize=None)
    def endless(number: int) -> int:
        return endless(number + 1)

    with pytest.raises(RecursionError):
        endless(0)


def test_single_flight() -> None:
    """With ``wait_concurrent`` one thread computes; the others wait, and each gets a copy of its own."""
    entered, go = threading.Event(), threading.Event()
    calls: list[int] = []

    @cached(wait_concurrent=True)
    def slow(number: int) -> list[int]:
        calls.append(number)
        entered.set()
        assert go.wait(60)
        return [number]

    assert is_native(slow)
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(slow(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    while slow.cache._flights.waiting(encode_key((1,))) < 7:
        pass
    go.set()
    for thread in threads:
        thread.join(60)
    assert calls == [1]
    assert found == [[1]] * 8
    assert len({id(result) for result in found}) == 8

    @cached(wait_concurrent=True)
    def itself(number: int) -> int:
        return itself(number)

    with pytest.raises(RecursiveComputationError):
        itself(1)


def test_a_cache_that_is_closed_cleared_or_replaced() -> None:
    """The callable goes on with its cache, whatever happens to that."""
    double = cached(lambda number: 2 * number)
    assert is_native(double)
    assert double(2) == 4
    double.cache_clear()
    assert double.cache_info()[:2] == (0, 0)
    assert double(2) == 4
    assert double.cache_invalidate(2)
    assert not double.cache_invalidate(2)
    double.cache._channel.binding.unbind()
    assert [double(3), double(3)] == [6, 6]
    assert double.cache_info()[:2] == (1, 2)
    double.cache.close()
    with pytest.raises(ClosedError):
        double(2)


def test_python_does_what_the_extension_cannot() -> None:
    """Another serializer and coroutine functions."""

    async def nothing() -> None: ...

    assert not is_native(cached(serializer="pickle")(abs))
    assert inspect.iscoroutinefunction(cached(nothing))


def test_a_listener() -> None:
    """It is told by the next call, also by one that hits."""
    removed: list[Any] = []
    now = [0.0]
    function = cached(ttl=10, clock=lambda: now[0], eviction_listener=lambda *removal: removed.append(removal))(abs)
    assert is_native(function)
    assert [function(-number) for number in (1, 2)] == [1, 2]
    now[0] = 5.0
    assert function(-3) == 3
    now[0] = 12.0
    assert function(-3) == 3
    assert sorted(removal[1:] for removal in removed) == [(1, "expired"), (2, "expired")]


def test_it_is_collected() -> None:
    """Alone, in a cycle through an attribute, and through the function it calls; and its cache with it."""

    def make(kind: str) -> tuple[weakref.ref[Any], weakref.ref[Moka[Any, Any]]]:
        @cached
        def function(number: int) -> Any:
            return (kind, function)[0] if kind == "closure" else number

        function(1)
        if kind == "attribute":
            function.me = function  # type: ignore[attr-defined]
        return weakref.ref(function), weakref.ref(function.cache)

    for kind in ("alone", "attribute", "closure"):
        references = make(kind)
        gc.collect()
        assert [reference() for reference in references] == [None, None], kind


def test_the_dict_can_be_replaced() -> None:
    """As that of a function can."""
    double = cached(lambda number: 2 * number)
    double.__dict__ = {"other": 1}
    assert vars(double) == {"other": 1}
    assert double(2) == 4
    for _ in range(3):
        assert double.__get__(5)() == 10  # type: ignore[attr-defined]
    assert double.__get__(None, int) is double  # type: ignore[attr-defined]
