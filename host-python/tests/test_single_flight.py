"""One computation a key among threads, and among asyncio tasks."""

# pyright: basic
# Tests look at private state and at values of no declared type.

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest
from fake_moka import FakeMoka

from moka_wasm import _single_flight, _single_flight_async
from moka_wasm._errors import RecursiveComputationError
from moka_wasm._single_flight import Request
from moka_wasm._single_flight_async import TaskFlights

# No test waits this long, in seconds; what hangs fails after it.
GUARD = 20.0

Cache = FakeMoka[Any, Any]


@pytest.fixture
def cache() -> Cache:
    return FakeMoka(None)


def asked(cache: Cache, key: Any, **options: Any) -> Request[Any, Any]:
    return Request(cache, cache._encode_key(key), key, **options)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(int(GUARD / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("what the test waits for did not happen")


async def until_async(condition: Callable[[], bool]) -> None:
    for _ in range(int(GUARD / 0.001)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("what the test waits for did not happen")


class Threads:
    """Runs functions in threads and collects what they answer or raise."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[[], Any], number: int = 1) -> None:
        for _ in range(number):
            thread = threading.Thread(target=self._run, args=(function,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(GUARD)
            assert not thread.is_alive(), "a thread hangs"
        return self.results

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.results.append(function())
        except BaseException as error:
            self.results.append(error)


def run_async(coroutine: Any) -> Any:
    async def guarded() -> Any:
        return await asyncio.wait_for(coroutine, GUARD)

    return asyncio.run(guarded())


def drain(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until all its tasks have ended, while interrupts are handed on from task to task."""
    for _ in range(1000):
        if not asyncio.all_tasks(loop):
            return
        with suppress(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(0))
    raise AssertionError("a task hangs")


# --- threads ---------------------------------------------------------------------------------------------------------


def test_32_threads_share_one_computation(cache: Cache) -> None:
    """Of 32 threads that ask for one key at once, one computes and all get its result."""
    calls, release, threads = [], threading.Event(), Threads()

    def compute() -> list[int]:
        calls.append(1)
        assert release.wait(GUARD)
        return [1, 2]

    threads.start(lambda: cache.get_with("k", compute), 32)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 31)
    release.set()
    assert threads.join() == [[1, 2]] * 32
    assert calls == [1]
    assert cache.stored == 1


def test_a_race_of_many_keys_computes_each_once(cache: Cache) -> None:
    """However 16 threads interleave over 50 keys, no key is computed twice."""
    calls: list[int] = []
    start, threads = threading.Barrier(16), Threads()

    def compute(key: int) -> int:
        calls.append(key)
        return key

    def work() -> list[int]:
        start.wait(GUARD)
        return [cache.get_with(key, functools.partial(compute, key)) for key in range(50)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads.start(work, 16)
        assert threads.join() == [list(range(50))] * 16
    finally:
        sys.setswitchinterval(interval)
    assert sorted(calls) == list(range(50))


def test_followers_get_copies(cache: Cache) -> None:
    """No two callers share a result, and the leader gets the object that it computed."""
    release, threads, made = threading.Event(), Threads(), [[1]]

    def compute() -> list[int]:
        assert release.wait(GUARD)
        return made[0]

    threads.start(lambda: cache.get_with("k", compute), 4)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 3)
    release.set()
    results = threads.join()
    assert results == [[1]] * 4
    assert len({id(result) for result in results}) == 4
    assert sum(result is made[0] for result in results) == 1


def test_a_failure_reaches_all_and_is_not_cached(cache: Cache) -> None:
    """Every waiting thread gets the leader's exception, nothing is stored, and the next call computes again."""
    calls, release, threads = [], threading.Event(), Threads()

    def fail() -> int:
        calls.append(1)
        assert release.wait(GUARD)
        raise LookupError("no such user")

    threads.start(lambda: cache.get_with("k", fail), 8)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 7)
    release.set()
    results = threads.join()
    assert [str(result) for result in results] == ["no such user"] * 8
    assert calls == [1]
    assert cache.get_with("k", lambda: 5) == 5


def test_the_traceback_does_not_grow_with_the_followers(cache: Cache) -> None:
    """A follower's traceback is the computation's and its own, however many followers raised it before."""
    error = LookupError()
    failure = _single_flight.Failure(error, None)
    lengths = []
    for _ in range(5):
        try:
            raise failure.raised()
        except LookupError as raised:
            lengths.append(len(traceback.extract_tb(raised.__traceback__)))
    assert lengths == [1] * 5


def test_a_failure_leaves_no_garbage_cycle(cache: Cache) -> None:
    """The exception of a computation is freed with its last user, without the collector's help."""

    class Marked(Exception):
        pass

    def fail() -> int:
        raise Marked

    gc.disable()
    try:
        try:
            cache.get_with("k", fail)
        except Marked as error:
            alive = weakref.ref(error)
        assert alive() is None
    finally:
        gc.enable()


def test_an_unserializable_result_fails_for_all(cache: Cache) -> None:
    """What cannot be encoded is nobody's result: all callers get the serializer's error."""
    release, threads = threading.Event(), Threads()

    def compute() -> Any:
        assert release.wait(GUARD)
        return threading.Lock()

    threads.start(lambda: cache.get_with("k", compute), 3)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 2)
    release.set()
    assert [type(result) for result in threads.join()] == [TypeError] * 3
    assert cache.count() == 0


def test_a_refused_result_fails_for_the_leader_only() -> None:
    """When the weigher raises, the leader gets the error and the followers the result; nothing is stored."""
    cache: Cache = FakeMoka(None, weigher=lambda key, value: -1)
    release, threads = threading.Event(), Threads()

    def compute() -> str:
        assert release.wait(GUARD)
        return "value"

    threads.start(lambda: cache.get_with("k", compute), 3)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 2)
    release.set()
    results = threads.join()
    assert results.count("value") == 2
    assert [type(result) for result in results if result != "value"] == [ValueError]
    assert cache.count() == 0


def test_the_winners_ttl_counts() -> None:
    """Of the ttls of concurrent callers, that of the one who computes is the entry's."""
    now = [0.0]
    cache: Cache = FakeMoka(None, clock=lambda: now[0])
    release, threads = threading.Event(), Threads()

    def compute() -> int:
        assert release.wait(GUARD)
        return 1

    threads.start(lambda: cache.get_with("k", compute, ttl=1.0))
    until(lambda: bool(cache.flights._flights))
    threads.start(lambda: cache.get_with("k", compute, ttl=100.0))
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 1)
    release.set()
    threads.join()
    now[0] = 2.0
    assert cache.get("k") is None


def test_recursion_raises_at_once(cache: Cache) -> None:
    """A computation that asks for its own key gets an error instead of waiting for itself."""
    with pytest.raises(RecursiveComputationError, match="'k'"):
        cache.get_with("k", lambda: cache.get_with("k", int))
    assert cache.get_with("k", lambda: 1) == 1


def test_recursion_through_another_key_raises_at_once(cache: Cache) -> None:
    """So does one that asks for its own key while computing another, also in another cache."""
    other: Cache = FakeMoka(None)
    with pytest.raises(RecursiveComputationError):
        cache.get_with("k", lambda: other.get_with("o", lambda: cache.get_with("k", int)))


def test_nested_computations_of_different_keys_work(cache: Cache) -> None:
    """Asking for other keys inside a computation is no recursion."""

    def fib(n: int) -> int:
        value: int = cache.get_with(n, lambda: n if n < 2 else fib(n - 1) + fib(n - 2))
        return value

    assert fib(30) == 832040
    assert cache.stored == 31


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_cycle_over_threads_is_broken(cache: Cache, size: int) -> None:
    """Threads that wait for each other in a ring get RecursiveComputationError; none hangs."""
    inside, threads = threading.Barrier(size), Threads()

    def compute(number: int) -> int:
        inside.wait(GUARD)
        value: int = cache.get_with((number + 1) % size, lambda: number)
        return value

    for number in range(size):
        threads.start(lambda number=number: cache.get_with(number, lambda: compute(number)))  # type: ignore[misc]
    assert [type(result) for result in threads.join()] == [RecursiveComputationError] * size
    assert cache.flights._flights == {}


def test_waiting_in_a_chain_is_no_cycle(cache: Cache) -> None:
    """A thread may wait for one that waits for a third."""
    release, threads = threading.Event(), Threads()

    def last() -> int:
        assert release.wait(GUARD)
        return 7

    waiting = cache.flights.waiting
    threads.start(lambda: cache.get_with("c", last))
    until(lambda: len(cache.flights._flights) == 1)
    threads.start(lambda: cache.get_with("b", lambda: cache.get_with("c", int)))
    until(lambda: waiting(cache._encode_key("c")) == 1)
    threads.start(lambda: cache.get_with("a", lambda: cache.get_with("b", int)))
    until(lambda: waiting(cache._encode_key("b")) == 1)
    release.set()
    assert threads.join() == [7, 7, 7]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_stays_with_its_thread(cache: Cache, interrupt: type[BaseException]) -> None:
    """An interrupted leader takes nobody with it: of the followers, one computes anew and the others get its result."""
    calls, release, threads = [], threading.Event(), Threads()

    def compute() -> str:
        calls.append(1)
        if len(calls) == 1:
            assert release.wait(GUARD)
            raise interrupt
        return "value"

    threads.start(lambda: cache.get_with("k", compute), 8)
    until(lambda: cache.flights.waiting(cache._encode_key("k")) == 7)
    release.set()
    results = threads.join()
    assert results.count("value") == 7
    assert sum(isinstance(result, interrupt) for result in results) == 1
    assert calls == [1, 1]


def test_an_interrupted_follower_leaves_no_trace(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt of a waiting follower ends its wait and changes nothing for the others."""

    class Interrupted(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            raise KeyboardInterrupt

    release, threads = threading.Event(), Threads()

    def compute() -> int:
        assert release.wait(GUARD)
        return 1

    threads.start(lambda: cache.get_with("k", compute))
    until(lambda: bool(cache.flights._flights))
    with monkeypatch.context() as patch:
        patch.setattr(_single_flight, "SimpleQueue", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.get_with("k", compute)
    assert cache.flights.waiting(cache._encode_key("k")) == 0
    assert _single_flight._this_thread().waits_for is None
    release.set()
    assert threads.join() == [1]


class Tracer:
    """Raises KeyboardInterrupt at the nth traced event of some modules, once."""

    def __init__(self, nth: int, *modules: Any) -> None:
        self.left, self.files = nth, {module.__file__ for module in modules}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        if event in {"call", "line", "return"}:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self

    @contextmanager
    def tracing(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(before)


def interrupted_runs(action: Callable[[], Any], *modules: Any) -> Iterator[None]:
    """Run ``action`` again and again, interrupted at each of its events in turn, until it ends without."""
    for nth in range(1, 2000):
        tracer = Tracer(nth, *modules)
        try:
            with tracer.tracing():
                action()
        except KeyboardInterrupt:
            pass
        yield
        if tracer.left > 0:
            assert nth > 20, "the tracer saw too little to prove anything"
            return
    raise AssertionError("the action never ended")


def test_an_interrupt_of_the_leader_at_any_line_leaves_no_key_locked(cache: Cache) -> None:
    """Wherever in the single-flight code the leader is interrupted, the key is free and the next call computes."""
    thread = _single_flight._this_thread()

    def fail() -> int:
        raise LookupError

    def failing() -> None:
        with pytest.raises(LookupError):
            cache.get_with("k", fail)

    for action in (lambda: cache.get_with("k", lambda: 1), failing):
        for _ in interrupted_runs(action, _single_flight):
            assert cache.flights._flights == {}
            assert thread.waits_for is None
            cache.clear()


def test_an_interrupt_of_a_leader_with_followers_at_any_line_wakes_them(cache: Cache) -> None:
    """Wherever the leader is interrupted, whoever waits for it is woken and gets a result."""
    for nth in range(1, 60):
        release, threads = threading.Event(), Threads()
        tracer = Tracer(nth, _single_flight)

        def compute() -> int:
            assert release.wait(GUARD)  # noqa: B023
            return 1

        def lead() -> Any:
            with tracer.tracing():  # noqa: B023
                return cache.get_with("k", compute)

        threads.start(lead)
        until(lambda: bool(cache.flights._flights) or bool(threads.results))  # noqa: B023
        threads.start(lambda: cache.get_with("k", lambda: 2))
        waiting = cache.flights.waiting
        until(lambda: waiting(cache._encode_key("k")) == 1 or bool(threads.results))  # noqa: B023
        release.set()
        for result in threads.join():
            assert result in (1, 2) or isinstance(result, KeyboardInterrupt)
        assert cache.flights._flights == {}
        cache.clear()


def test_an_interrupt_of_a_follower_at_any_line_leaves_no_trace(cache: Cache) -> None:
    """Wherever a follower is interrupted, it is taken out of the flight and of the wait-for graph."""
    thread = _single_flight._this_thread()
    key_bytes = cache._encode_key("k")
    flight = _single_flight._Flight(_single_flight._Thread())
    cache.flights._flights[key_bytes] = flight

    class Answering(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return cache._dumps(3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_single_flight, "SimpleQueue", Answering)
        for _ in interrupted_runs(lambda: cache.get_with("k", int), _single_flight):
            # At the first line of the clean-up the inbox may be left behind; it is gone with the flight.
            assert len(flight.waiters) <= 1
            flight.waiters.clear()
            assert thread.waits_for is None
            assert cache.flights._flights == {key_bytes: flight}


def test_a_call_from_a_finalizer_does_not_deadlock(cache: Cache) -> None:
    """Code that runs between two bytecodes of a flight, on its thread, may use the flights itself."""
    results: list[Any] = []

    def tracer(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != _single_flight.__file__:
            return None
        sys.settrace(None)
        try:
            results.append(cache.get_with(len(results), lambda: "inner"))
        finally:
            sys.settrace(tracer)
        return tracer

    sys.settrace(tracer)
    try:
        assert cache.get_with("k", lambda: "outer") == "outer"
    finally:
        sys.settrace(None)
    assert results
    assert set(results) == {"inner"}


def test_a_handler_that_computes_during_a_wait_is_no_cycle(cache: Cache) -> None:
    """A thread whose wait is interrupted by a handler that computes another key is not taken for waiting."""
    me, leader = _single_flight._this_thread(), _single_flight._Thread()
    awaited = _single_flight._Flight(leader)
    me.waits_for = awaited
    try:
        seen = []

        def compute() -> int:
            mine = cache.flights._flights[cache._encode_key("handler")]
            leader.waits_for = mine
            seen.append(_single_flight._closes_cycle(leader, mine))
            return 1

        assert cache.get_with("handler", compute) == 1
        assert seen == [False]
        assert me.waits_for is awaited
    finally:
        me.waits_for = None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_is_not_locked_by_threads_it_does_not_have(cache: Cache) -> None:
    """After a fork, another thread's key is free in the child; one that the forking thread computes is not."""
    release, threads = threading.Event(), Threads()

    def compute() -> int:
        assert release.wait(GUARD)
        return 1

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert cache.get_with("k", lambda: 2) == 2
                with pytest.raises(RecursiveComputationError):
                    cache.get_with("mine", int)
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    threads.start(lambda: cache.get_with("k", compute))
    until(lambda: bool(cache.flights._flights))
    assert cache.get_with("mine", fork) == 0
    release.set()
    assert threads.join() == [1]


def test_flights_do_not_keep_a_cache_alive() -> None:
    """A cache and its flights form no cycle, and nothing global holds them."""
    cache: Cache = FakeMoka(None)
    cache.get_with("k", lambda: 1)
    alive = weakref.ref(cache.flights)
    gc.disable()
    try:
        del cache
        assert alive() is None
    finally:
        gc.enable()


def test_a_landing_between_lookup_and_take_off_is_noticed(cache: Cache) -> None:
    """Who looked a key up before a flight landed, and takes off after it, finds the stored result."""
    mark = cache.flights.mark
    cache.get_with("k", lambda: 1)
    assert cache.flights.run(asked(cache, "k"), lambda: 2, mark) == 1


# --- asyncio ---------------------------------------------------------------------------------------------------------


def once(
    calls: list[int], gate: asyncio.Event, result: Callable[[], Any] = lambda: [1]
) -> Callable[[], Awaitable[Any]]:
    """A computation that waits for ``gate``."""

    async def compute() -> Any:
        calls.append(1)
        await gate.wait()
        return result()

    return compute


def fails() -> Any:
    raise LookupError("no such user")


def test_tasks_share_one_computation(cache: Cache) -> None:
    """Of 100 tasks that ask for one key, one starts the computation, and all get results of their own."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        calls: list[int] = []
        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), once(calls, gate))) for _ in range(100)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 100)
        gate.set()
        results = await asyncio.gather(*tasks)
        assert results == [[1]] * 100
        assert len({id(result) for result in results}) == 100
        assert calls == [1]
        assert cache.stored == 1

    run_async(main())


def test_an_async_failure_reaches_all_and_is_not_cached(cache: Cache) -> None:
    """Every waiting task gets the exception, nothing is stored, and the next call computes again."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        calls: list[int] = []
        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), once(calls, gate, fails))) for _ in range(9)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 9)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["no such user"] * 9
        assert calls == [1]
        assert await flights.run(asked(cache, "k"), once(calls, gate)) == [1]

    run_async(main())


def test_a_cancelled_starter_leaves_the_computation_to_the_others(cache: Cache) -> None:
    """Cancelling the caller that started the computation cancels that caller only."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        calls: list[int] = []
        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), once(calls, gate))) for _ in range(3)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 3)
        tasks[0].cancel()
        await until_async(lambda: tasks[0].done())
        gate.set()
        assert await asyncio.gather(*tasks[1:]) == [[1], [1]]
        assert tasks[0].cancelled()
        assert calls == [1]

    run_async(main())


def test_a_cancelled_follower_changes_nothing(cache: Cache) -> None:
    """Cancelling a follower cancels that follower only."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        calls: list[int] = []
        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), once(calls, gate))) for _ in range(3)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 3)
        tasks[2].cancel()
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 2)
        gate.set()
        assert await asyncio.gather(*tasks[:2]) == [[1], [1]]
        assert calls == [1]

    run_async(main())


def test_a_computation_is_cancelled_with_its_last_caller(cache: Cache) -> None:
    """When all callers were cancelled, so is the computation, and the next call computes anew."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        events: list[str] = []

        async def compute() -> int:
            try:
                await gate.wait()
            finally:
                events.append("cleaned up")
            return 1

        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), compute)) for _ in range(3)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until_async(lambda: not flights._flights)
        assert events == ["cleaned up"]
        gate.set()
        assert await flights.run(asked(cache, "k"), compute) == 1

    run_async(main())


def test_who_joins_a_cancelled_computation_computes_anew(cache: Cache) -> None:
    """A caller that comes while a cancelled computation cleans up waits for that, and then gets a result."""

    async def main() -> None:
        flights, cleaned = TaskFlights(), asyncio.Event()
        calls: list[int] = []

        async def compute() -> int:
            calls.append(1)
            if len(calls) == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    await cleaned.wait()
            return 2

        first = asyncio.create_task(flights.run(asked(cache, "k"), compute))
        await until_async(lambda: calls == [1])
        first.cancel()
        await until_async(first.done)
        second = asyncio.create_task(flights.run(asked(cache, "k"), compute))
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 1)
        cleaned.set()
        assert await second == 2
        assert calls == [1, 1]

    run_async(main())


def test_two_event_loops_share_one_computation(cache: Cache) -> None:
    """Tasks in the loops of two threads share one computation; each gets a result of its own."""
    flights, calls, threads = TaskFlights(), [], Threads()
    key_bytes = cache._encode_key("k")

    async def compute() -> list[int]:
        calls.append(1)
        await until_async(lambda: flights.waiting(key_bytes) == 40)
        return [5]

    async def ask() -> Any:
        return await asyncio.gather(*(flights.run(asked(cache, "k"), compute) for _ in range(20)))

    threads.start(lambda: run_async(ask()), 2)
    assert threads.join() == [[[5]] * 20] * 2
    assert calls == [1]


def test_a_follower_in_another_loop_computes_when_the_leaders_loop_ends(cache: Cache) -> None:
    """When the leader's loop is closed under a computation, followers in other loops compute anew."""
    flights, calls, threads = TaskFlights(), [], Threads()
    joined = threading.Event()
    key_bytes = cache._encode_key("k")

    async def compute() -> int:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return 5

    async def leader() -> str:
        task = asyncio.create_task(flights.run(asked(cache, "k"), compute))
        await until_async(joined.is_set)
        assert not task.done()
        return "left"

    async def follower() -> Any:
        task = asyncio.create_task(flights.run(asked(cache, "k"), compute))
        await until_async(lambda: flights.waiting(key_bytes) == 2)
        joined.set()
        return await task

    threads.start(lambda: run_async(leader()))
    until(lambda: bool(calls))
    threads.start(lambda: run_async(follower()))
    assert sorted(map(str, threads.join())) == ["5", "left"]
    assert calls == [1, 1]


def test_a_stopped_loop_locks_no_key(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation whose loop no longer runs keeps neither a newcomer nor a follower of another loop waiting."""
    monkeypatch.setattr(_single_flight_async, "_PULSE", 0.001)
    flights, threads = TaskFlights(), Threads()
    key_bytes = cache._encode_key("k")
    stopped = asyncio.new_event_loop()

    async def forever() -> int:
        await asyncio.Event().wait()
        return 0

    async def five() -> int:
        return 5

    task = stopped.create_task(flights.run(asked(cache, "k"), forever))

    def run_until_joined() -> None:
        stopped.run_until_complete(until_async(lambda: flights.waiting(key_bytes) == 2))

    threads.start(run_until_joined)
    until(lambda: flights.waiting(key_bytes) == 1)
    threads.start(lambda: run_async(flights.run(asked(cache, "k"), five)))
    assert threads.join() in ([None, 5], [5, None])
    cache.clear()
    assert run_async(flights.run(asked(cache, "k"), five)) == 5
    task.cancel()
    drain(stopped)
    stopped.close()


def test_the_computation_runs_in_the_starters_context(cache: Cache) -> None:
    """A computation sees the context variables of the caller that started it."""
    user: ContextVar[str] = ContextVar("user")

    async def main() -> None:
        async def compute() -> str:
            return user.get()

        user.set("ann")
        assert await TaskFlights().run(asked(cache, "k"), compute) == "ann"

    run_async(main())


def test_async_recursion_raises_instead_of_hanging(cache: Cache) -> None:
    """A computation that asks for its own key, itself or through another key or a child task, gets an error."""
    flights = TaskFlights()

    def ask(*keys: str) -> Awaitable[Any]:
        async def compute() -> Any:
            return await ask(*keys[1:])

        return flights.run(asked(cache, keys[0]), compute)

    async def in_child() -> Any:
        return await asyncio.create_task(ask("k"))  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(RecursiveComputationError):
            await ask("k", "k")
        with pytest.raises(RecursiveComputationError):
            await ask("k", "b", "k")
        with pytest.raises(RecursiveComputationError):
            await flights.run(asked(cache, "k"), in_child)
        assert flights._flights == {}

    run_async(main())


def test_a_cycle_over_tasks_is_broken(cache: Cache) -> None:
    """Computations that wait for each other in a ring get RecursiveComputationError, also over two event loops."""
    flights, threads = TaskFlights(), Threads()
    inside: list[str] = []

    async def compute(own: str, other: str) -> Any:
        inside.append(own)
        await until_async(lambda: len(inside) >= 2)
        return await asyncio.gather(asyncio.sleep(0), flights.run(asked(cache, other), lambda: compute(other, own)))

    async def both() -> list[Any]:
        return list(
            await asyncio.gather(
                flights.run(asked(cache, "a"), lambda: compute("a", "b")),
                flights.run(asked(cache, "b"), lambda: compute("b", "a")),
                return_exceptions=True,
            )
        )

    assert [type(result) for result in run_async(both())] == [RecursiveComputationError] * 2
    inside.clear()
    threads.start(lambda: run_async(flights.run(asked(cache, "a"), lambda: compute("a", "b"))))
    threads.start(lambda: run_async(flights.run(asked(cache, "b"), lambda: compute("b", "a"))))
    assert [type(result) for result in threads.join()] == [RecursiveComputationError] * 2
    assert flights._flights == {}


def test_a_task_that_outlives_its_computation_may_ask_for_the_key(cache: Cache) -> None:
    """A task started in a computation is no longer part of it once that computation is over."""

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        later: list[asyncio.Task[Any]] = []

        async def refresh() -> Any:
            await gate.wait()
            cache.clear()
            return await flights.run(asked(cache, "k"), compute)

        async def compute() -> int:
            if not later:
                later.append(asyncio.create_task(refresh()))
            return len(later)

        assert await flights.run(asked(cache, "k"), compute) == 1
        gate.set()
        assert await later[0] == 1

    run_async(main())


def test_a_refused_async_result_fails_for_the_starter_only() -> None:
    """When the weigher raises, the caller that started the computation gets the error, the others the result."""
    cache: Cache = FakeMoka(None, weigher=lambda key, value: -1)

    async def main() -> None:
        flights, gate = TaskFlights(), asyncio.Event()
        calls: list[int] = []
        tasks = [asyncio.create_task(flights.run(asked(cache, "k"), once(calls, gate))) for _ in range(3)]
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 3)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, list, list]

    run_async(main())


def test_a_failure_nobody_waits_for_is_reported(cache: Cache) -> None:
    """An exception after all callers were cancelled goes to the event loop's exception handler."""

    async def main() -> list[Any]:
        flights, started = TaskFlights(), asyncio.Event()
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))

        async def compute() -> int:
            try:
                started.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise LookupError("in the clean-up") from None
            return 1

        task = asyncio.create_task(flights.run(asked(cache, "k"), compute))
        await started.wait()
        task.cancel()
        await until_async(lambda: bool(reported))
        return reported

    assert [str(error) for error in run_async(main())] == ["in the clean-up"]


@pytest.mark.parametrize("key", ["own", "fails"])
def test_eager_tasks_work(cache: Cache, key: str) -> None:
    """With eager tasks a computation that never suspends is over before its starter waits, and still counts once."""
    calls = []

    async def compute() -> int:
        calls.append(1)
        if key == "fails":
            raise LookupError
        return 1

    async def main() -> None:
        factory = getattr(asyncio, "eager_task_factory", None)  # new in Python 3.12
        asyncio.get_running_loop().set_task_factory(factory)
        flights = TaskFlights()
        if key == "fails":
            with pytest.raises(LookupError):
                await flights.run(asked(cache, key), compute)
        else:
            assert await flights.run(asked(cache, key), compute) == 1
        assert flights._flights == {}

    run_async(main())
    assert calls == [1]


# An interrupt that comes while the collector closes a coroutine can only be reported, by nobody's fault.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_of_async_code_at_any_line_leaves_no_key_locked(cache: Cache) -> None:
    """Wherever an interrupt leaves through the event loop, the key is free afterwards and the next loop computes."""
    flights, loops = TaskFlights(), []

    async def compute() -> int:
        await asyncio.sleep(0)
        return 1

    async def ask() -> Any:
        return await asyncio.gather(*(flights.run(asked(cache, "k"), compute) for _ in range(2)))

    def run_in_new_loop() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        loops.append(loop)
        loop.run_until_complete(ask())

    for _ in interrupted_runs(run_in_new_loop, _single_flight_async):
        loop = loops.pop()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        drain(loop)
        loop.close()
        assert flights._flights == {}
        cache.clear()
        assert run_async(ask()) == [1, 1]
        cache.clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_no_async_flights(cache: Cache) -> None:
    """After a fork no key is locked by a task of the parent's event loop."""

    async def main() -> int:
        flights, gate = TaskFlights(), asyncio.Event()
        task = asyncio.create_task(flights.run(asked(cache, "k"), once([], gate)))
        await until_async(lambda: flights.waiting(cache._encode_key("k")) == 1)
        pid = os.fork()
        if pid == 0:
            os._exit(len(flights._flights))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        gate.set()
        await task
        return status

    assert run_async(main()) == 0
