"""Operations that take long in the sandbox: other threads run meanwhile, and those that want the same cache wait."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_guest import NEVER_ENDS, TRAPS_AFTERWARDS
from test_cached import Clock
from test_single_flight import GUARD, Threads
from test_threads import in_child
from test_trap import broken, broken_file, stop, use_file

from moka_wasm import ClosedError, Moka, SandboxError
from moka_wasm import _hot as hot
from moka_wasm._guest_calls import TRAP

__all__ = ["broken", "broken_file", "use_file"]

ENTRIES = 200_000
NUMBERS = dict.fromkeys(range(ENTRIES), 1)

extension = pytest.mark.skipif(hot._native is None, reason="without the extension every call holds the GIL")


@pytest.fixture(autouse=True)
def no_switches() -> Iterator[None]:
    """A thread that has the GIL keeps it until it lets it go by itself."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


class Meanwhile:
    """Runs a function on another thread, at the first moment when this one lets the GIL go.

    Args:
        function: What it does.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._turn = threading.Lock()
        self._turn.acquire()
        self._over = False
        self._threads = Threads()
        self.was_inside = False

        def run() -> object:
            self._turn.acquire()
            self.was_inside = not self._over
            return function()

        self._threads.start(run)

    def run(self, operation: Callable[[], object]) -> Any:
        """Does the operation; answers what the function answered, or raises what it raised."""
        # The thread cannot take its turn before this one lets the GIL go.
        self._turn.release()
        try:
            operation()
        finally:
            self._over = True
            (result,) = self._threads.join()
        if isinstance(result, BaseException):
            raise result
        return result


def filled(**options: Any) -> Moka[Any, Any]:
    cache: Moka[Any, Any] = Moka(None, **options)
    cache.set_many(NUMBERS)
    return cache


def expired() -> Moka[Any, Any]:
    clock = Clock()
    cache = filled(ttl=10, clock=clock)
    clock.now += 20
    return cache


def page_after_clear(cache: Moka[Any, Any]) -> Callable[[], object]:
    cursor = cache._channel.keys()
    cache.clear()
    return lambda: cursor.next(1)


# How the cache is made, and what makes the operation of it.
LONG: dict[str, tuple[Callable[[], Moka[Any, Any]], Callable[[Moka[Any, Any]], Callable[[], object]]]] = {
    "clear": (filled, lambda cache: cache.clear),
    "run_pending_tasks": (expired, lambda cache: cache.run_pending_tasks),
    "len": (expired, lambda cache: lambda: len(cache)),
    "iteration": (filled, lambda cache: lambda: next(iter(cache))),
    "a page of keys that are gone": (filled, page_after_clear),
}


@extension
@pytest.mark.parametrize("name", LONG)
def test_other_threads_run_during_a_long_operation(name: str) -> None:
    """While an operation goes through many entries, another thread runs Python code."""
    make, prepare = LONG[name]
    for _ in range(20):
        operation = prepare(make())
        meanwhile = Meanwhile(lambda: None)
        meanwhile.run(operation)
        if meanwhile.was_inside:
            return
        # The system did not run the other thread in time: once more.
    raise AssertionError("the operation holds the GIL")


@pytest.mark.parametrize(
    "operation", [lambda cache: cache.clear(), lambda cache: len(cache), lambda cache: list(cache)]
)
def test_a_short_operation_keeps_the_gil(operation: Callable[[Moka[Any, Any]], object]) -> None:
    """On a small cache no operation lets the GIL go: to get it back may take longer than the operation."""
    cache: Moka[int, int] = Moka(None)
    for _ in range(20):
        cache.update({number: number for number in range(1000)})
        meanwhile = Meanwhile(lambda: None)
        meanwhile.run(lambda: operation(cache))
        assert not meanwhile.was_inside


def test_a_walk_holds_the_gil_for_pages_that_follow_each_other() -> None:
    """A walk that is not held up lets the GIL go at its beginning, not for each of its pages."""
    cache = filled()
    for _ in range(20):
        walk = iter(cache)
        next(walk)
        meanwhile = Meanwhile(lambda: None)
        meanwhile.run(lambda walk=walk: set(walk))  # type: ignore[misc]
        if not meanwhile.was_inside:
            return
        # The system kept this thread waiting between two pages: once more.
    raise AssertionError("the walk lets the GIL go again and again")


@pytest.mark.parametrize("name", LONG)
def test_the_same_cache_meanwhile(name: str) -> None:
    """A thread that uses the cache in any way during a long operation gets the right answers, after it."""
    make, prepare = LONG[name]
    cache = make()
    operation = prepare(cache)

    def use() -> str:
        cache.set("k", "value")
        assert cache.get("k") == "value"
        cache.set_many({"l": 2, "m": "x" * 70_000})
        assert cache.get_many(["k", "l", "absent"]) == {"k": "value", "l": 2}
        assert cache.pop("m") == "x" * 70_000
        assert cache.get_with("n", lambda: [4]) == [4]
        assert cache.remove_many(["n", "absent"]) == 1
        assert "k" in cache
        assert cache.get(1) in (None, 1)
        assert set(cache) <= {"k", "l", *NUMBERS}
        assert len(cache) in (2, ENTRIES + 2)
        return "right"

    assert Meanwhile(use).run(operation) == "right"
    assert cache.get_many(["k", "l"]) == {"k": "value", "l": 2}


def test_another_cache_meanwhile() -> None:
    """During a long operation of one cache a thread uses another, and opens and closes a third."""
    cache = filled()
    other: Moka[str, int] = Moka(8)

    def use() -> int:
        other["k"] = 1
        with Moka[str, int](8) as third:
            third["k"] = 2
            return other["k"] + third["k"]

    assert Meanwhile(use).run(cache.clear) == 3
    assert len(cache) == 0


def test_many_threads_and_long_operations() -> None:
    """Threads that use a cache, each its own keys, find what they set while others walk, count and clear another's."""
    sys.setswitchinterval(5e-5)
    cache: Moka[Any, Any] = Moka(None)
    over = threading.Event()
    threads = Threads()

    def use(index: int) -> str:
        step = 0
        while not over.is_set():
            step += 1
            cache.set((index, step % 50), (index, step))
            assert cache.get((index, step % 50)) in (None, (index, step))
            found = cache.get_many([(index, number) for number in range(50)])
            assert all(value[0] == index for value in found.values())
        return "fine"

    def work() -> str:
        for _ in range(3):
            cache.set_many(dict.fromkeys(range(30_000), 1))
            for key in cache:
                assert isinstance(key, tuple) or key in NUMBERS
            cache.run_pending_tasks()
            assert len(cache) >= 30_000
            cache.remove_many(range(30_000))
            cache.set_many(dict.fromkeys(range(30_000), 1))
        cache.clear()
        return "fine"

    for index in range(4):
        threads.start(lambda index=index: use(index))  # type: ignore[misc]
    assert work() == "fine"
    over.set()
    assert threads.join() == ["fine"] * 4


def test_close_meanwhile() -> None:
    """A cache that is closed during a long operation finishes that one; after it, it is closed."""
    for _ in range(3):
        cache = filled()
        Meanwhile(cache.close).run(cache.clear)
        with pytest.raises(ClosedError):
            cache.get(1)


def test_the_last_reference_meanwhile() -> None:
    """The sandbox outlives the operation during which the cache was closed and let go."""
    for _ in range(3):
        caches = [filled()]

        def let_go(caches: list[Moka[Any, Any]] = caches) -> None:
            caches.pop().close()

        channel = caches[0]._channel
        clear = channel.clear
        del channel
        Meanwhile(let_go).run(clear)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("on_trap", ["raise", "retry"])
def test_a_trap_meanwhile(on_trap: Any) -> None:
    """Those who wait for a long operation in which the sandbox traps go on with its successor."""
    cache = filled(on_trap=on_trap)
    stop(cache, "clear", TRAPS_AFTERWARDS)
    refused = 0

    def use() -> None:
        nonlocal refused
        for _ in range(2):
            try:
                assert cache.get(1) in (None, 1)
                cache["k"] = 1
            except SandboxError:
                refused += 1

    with contextlib.suppress(SandboxError):
        Meanwhile(use).run(cache.clear)
    assert refused <= (on_trap == "raise")
    assert cache.stats().restarts == 1
    cache["k"] = 2
    assert cache["k"] == 2


def is_refused_after_a_trap(on_trap: Any) -> bool:
    """Whether a thread that found the sandbox trapped, before the thread that it trapped for, was kept out of it."""
    cache = filled(on_trap=on_trap)
    stop(cache, "clear", TRAPS_AFTERWARDS)
    channel: Any = cache._channel
    channel = getattr(channel, "_channel", channel)
    old, lane = channel._guest, channel._lanes[-1]
    outcomes: list[str] = []

    def use() -> None:
        while meanwhile.was_inside and not lane.args[TRAP]:
            pass  # with the GIL, which the other thread waits for
        try:
            cache["k"] = 1
            outcomes.append("entered" if channel._guest is old else "stored")
        except SandboxError as error:
            outcomes.append("refused" if "another operation" in str(error) else "trapped")

    meanwhile = Meanwhile(use)
    with contextlib.suppress(SandboxError):
        meanwhile.run(cache.clear)
    assert outcomes != ["entered"]
    assert cache.stats().restarts == 1
    return meanwhile.was_inside and outcomes == ["stored" if on_trap == "retry" else "refused"]


@extension
@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("on_trap", ["raise", "retry"])
def test_a_sandbox_that_trapped_is_not_entered_before_that_is_known(on_trap: Any) -> None:
    """A thread that gets the GIL before the one whose operation trapped finds the sandbox shut, and has it replaced."""
    # The system may run the threads in another order.
    assert any(is_refused_after_a_trap(on_trap) for _ in range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_meanwhile() -> None:
    """A fork waits for a long operation to end, so that the child's cache is whole; both go on."""
    sys.setswitchinterval(5e-5)
    cache = filled()
    over = threading.Event()
    threads = Threads()

    def use() -> str:
        while not over.is_set():
            next(iter(cache))
            assert len(cache) == ENTRIES
        return "fine"

    def child() -> None:
        assert len(cache) == ENTRIES
        assert sum(cache.get_many(range(1000)).values()) == 1000
        assert set(cache) == set(NUMBERS)
        cache.clear()
        assert len(cache) == 0
        cache["k"] = 1
        thread = threading.Thread(target=cache.clear)
        thread.start()
        thread.join()
        assert cache.get("k") is None
        assert in_child(lambda: cache.set("k", 2)) == 0

    threads.start(use, 3)
    statuses = [in_child(child) for _ in range(3)]
    over.set()
    assert threads.join() == ["fine"] * 3
    assert statuses == [0] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_at_the_very_moment() -> None:
    """A fork as soon as another thread's long operation has let the GIL go gives a child with a whole cache."""
    cache = filled()
    begun = threading.Lock()
    begun.acquire()

    def work() -> None:
        begun.release()
        cache.clear()

    def child() -> None:
        assert len(cache) == 0
        cache["k"] = 1
        assert cache["k"] == 1

    for _ in range(3):
        threads = Threads()
        threads.start(work)
        # The GIL comes back only once that thread is inside.
        begun.acquire()
        assert in_child(child) == 0
        assert threads.join() == [None]
        cache.set_many(NUMBERS)


# What happens while somebody is inside for ever: only with the extension does anything happen then.

INSIDE = f"""
    import os, signal, sys, threading
    from moka_wasm import Moka
    from moka_wasm._direct_channel import _FUNCTIONS
    from broken_guest import SWITCHES
    # A thread that has the GIL keeps it until it lets it go by itself.
    sys.setswitchinterval(1000)
    # Processes in the background of a shell are started with that signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cache = Moka(None)
    cache["k"] = "x" * (4 << 20)
    cache._channel._guest.memory[SWITCHES + _FUNCTIONS.index("clear")] = {NEVER_ENDS}
    begun = threading.Lock()
    begun.acquire()
    def stay():
        begun.release()
        cache.clear()
    threading.Thread(target=stay, daemon=True).start()
    # The GIL comes back only once that thread is inside.
    begun.acquire()
    turn = threading.Lock()
    turn.acquire()
    def send():
        turn.acquire()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Thread(target=send, daemon=True).start()
"""


def run(path: Path, program: str) -> tuple[int, str, str]:
    environment = {
        **os.environ,
        "MOKA_WASM_COMPONENT": str(path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INSIDE) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=GUARD * 2,
        env=environment,
    )
    return done.returncode, done.stdout, done.stderr


@extension
@pytest.mark.parametrize("how", ["get", "set", "get_many", "len", "pop"])
def test_an_interrupt_while_a_thread_waits(broken_file: Path, how: str) -> None:
    """Ctrl-C reaches the main thread while it waits for another thread's operation."""
    program = f"""
        operation = dict(
            get=lambda: cache.get("k"),
            set=lambda: cache.set("k", 1),
            get_many=lambda: cache.get_many(["k"]),
            len=lambda: len(cache),
            pop=lambda: cache.pop("k"),
        )["{how}"]
        # The signal comes as soon as this thread lets the GIL go: while it waits.
        turn.release()
        try:
            operation()
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run(broken_file, program) == (0, "interrupted\n", "")


@extension
def test_a_signal_handler_while_a_thread_waits(broken_file: Path) -> None:
    """A signal handler that runs while its thread waits uses other caches, and closes the one that is waited for."""
    program = """
        other = Moka(8)
        def handler(number, frame):
            other["k"] = 1
            assert other["k"] == 1
            cache.close()
            raise LookupError
        signal.signal(signal.SIGINT, handler)
        turn.release()
        try:
            cache.get("k")
        except LookupError:
            print("handled")
        try:
            cache.get("k")
        except Exception as error:
            print(type(error).__name__)
        print(other["k"])
    """
    assert run(broken_file, program) == (0, "handled\nClosedError\n1\n", "")


@extension
def test_an_interpreter_that_ends_meanwhile(broken_file: Path) -> None:
    """An interpreter ends although daemon threads are inside of a sandbox, and wait for it; others are still usable."""
    program = """
        import atexit, types
        sys.setswitchinterval(0.005)
        other = Moka(8)
        other["k"] = 1
        for _ in range(3):
            threading.Thread(target=lambda: cache.get("k"), daemon=True).start()
        atexit.register(lambda: print(other["k"], flush=True))

        class Late:
            def __del__(self, write=os.write, other=other):
                other["k"] = 2
                write(1, b"%d\\n" % other["k"])

        # A module that nothing else refers to is cleared.
        module = types.ModuleType("late")
        module.late = Late()
        sys.modules["late"] = module
        del module
    """
    assert run(broken_file, program) == (0, "1\n2\n", "")


@extension
def test_an_interpreter_that_ends_while_threads_come_and_go() -> None:
    """A finalizer at the very end of the interpreter uses a cache that daemon threads were in the middle of using."""
    program = """
        import os, sys, threading, types
        from moka_wasm import Moka
        cache = Moka(None)
        cache.update(dict.fromkeys(range(100_000), 1))

        class Late:
            def __del__(self, write=os.write, cache=cache):
                cache["late"] = 1
                write(1, b"%d %d\\n" % (cache["late"], len(cache)))

        module = types.ModuleType("late")
        module.late = Late()
        sys.modules["late"] = module
        del module

        begun = threading.Barrier(4)
        def use():
            begun.wait()
            while True:
                cache._channel.keys().close()
        for _ in range(3):
            threading.Thread(target=use, daemon=True).start()
        begun.wait()
    """
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=GUARD * 2
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 100001\n", "")
