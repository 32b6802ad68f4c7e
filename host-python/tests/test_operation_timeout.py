"""A sandbox that never comes back: ``operation_timeout`` stops it, and the program goes on."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from broken_guest import NEVER_ENDS, TRAPS, broken_component
from test_channel import guest
from test_threads import Interrupter, everything, in_child
from test_trap import OPERATIONS, a_cache, broken, broken_file, number, stop, use_file

from moka_wasm import Moka, OperationTimeoutError, SandboxError, _guest_calls, _sandbox, cached
from moka_wasm._direct_channel import _FUNCTIONS
from moka_wasm._ticker import TICK, Ticker, ticks

__all__ = ["broken", "broken_file", "use_file"]

# Long enough for an operation that ends, on a machine that is busy otherwise, short enough to wait for.
SHORT = 0.1
LONG = 600


class User:
    """Something that needs a ticker."""


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "moka_wasm ticker"]


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_that_never_ends_is_stopped(operation: str) -> None:
    """Any operation in an endless loop is an OperationTimeoutError that names the timeout; the cache goes on, empty."""
    function, call, _ = OPERATIONS[operation]
    cache = a_cache(operation, operation_timeout=SHORT)
    channel: Any = cache._channel
    old = channel._guest
    stop(cache, function, NEVER_ENDS)
    with pytest.raises(OperationTimeoutError, match=r"operation_timeout, 0\.1 seconds,.*goes on, empty") as caught:
        call(cache)
    assert isinstance(caught.value, SandboxError)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, wasmtime.Trap)
    assert channel._guest is not old
    assert len(cache) == 0
    cache.set("k", "again")
    assert cache.get("k") == "again"
    assert cache.stats().restarts == 1


@pytest.mark.usefixtures("broken")
def test_another_trap_is_no_timeout() -> None:
    """With a timeout, too, a trap is a plain SandboxError, and ``on_trap`` counts for both."""
    cache: Moka[str, int] = Moka(8, operation_timeout=LONG)
    stop(cache, "get", TRAPS)
    with pytest.raises(SandboxError) as caught:
        cache.get("k")
    assert type(caught.value) is SandboxError
    retries: Moka[str, int] = Moka(8, operation_timeout=SHORT, on_trap="retry")
    for how in (TRAPS, NEVER_ENDS):
        stop(retries, "get", how)
        assert retries.get("k") is None
    assert retries.stats().restarts == 2


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_with_a_timeout_do_what_they_do_without(operation: str) -> None:
    """A timeout that does not strike changes no answer."""
    _, call, _ = OPERATIONS[operation]
    timed, plain = a_cache(operation, operation_timeout=LONG), a_cache(operation)
    for _ in range(3):
        answers = call(timed), call(plain)
        if operation in ("keys", "a page of keys"):
            # The order is that of a hash with a random key.
            answers = sorted(answers[0]), sorted(answers[1])
        assert answers[0] == answers[1]
    assert timed.get_many(["k", "l"]) == plain.get_many(["k", "l"])


@pytest.mark.usefixtures("broken")
def test_other_threads_run_while_one_is_stuck() -> None:
    """While one cache is stuck, other threads use other caches, with a timeout or without, and are not stopped."""
    stuck: Moka[str, int] = Moka(8, operation_timeout=0.5)
    timed: Moka[int, int] = Moka(None, operation_timeout=LONG)
    plain: Moka[int, int] = Moka(None)
    stop(stuck, "get", NEVER_ENDS)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            stuck.get("k")
        except SandboxError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    done = 0
    while thread.is_alive():
        timed[done] = plain[done] = done
        assert timed[done] == plain[done] == done
        done += 1
    assert done > 0
    assert isinstance(errors[0], OperationTimeoutError)
    assert len(timed) == len(plain) == done
    assert timed.stats().restarts == 0


@pytest.mark.usefixtures("broken")
def test_threads_that_wait_for_a_stuck_sandbox_go_on() -> None:
    """Of threads that queue for one stuck sandbox each gets an answer or a SandboxError, and it is replaced once."""
    cache: Moka[int, int] = Moka(8, operation_timeout=SHORT)
    cache[1] = 1
    stop(cache, "get", NEVER_ENDS)
    outcomes: list[Any] = []

    def ask() -> None:
        try:
            outcomes.append(cache.get(1))
        except SandboxError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sum(type(outcome) is OperationTimeoutError for outcome in outcomes) >= 1
    assert all(outcome is None or isinstance(outcome, SandboxError) for outcome in outcomes)
    assert cache.stats().restarts == 1


@pytest.mark.parametrize("function", ["abi_version", "mailbox", "open"])
def test_a_cache_that_cannot_be_opened_in_time(
    use_file: Callable[[Path], None],
    tmp_path: Path,
    function: str,
) -> None:
    """A sandbox that hangs while the cache is opened is stopped too, once."""
    path = tmp_path / "hangs.wasm"
    path.write_bytes(broken_component([f"moka_{function}"], switched_on=NEVER_ENDS))
    use_file(path)
    with pytest.raises(OperationTimeoutError, match="operation_timeout.*while the cache was being opened"):
        Moka(8, operation_timeout=SHORT)


def test_a_start_function_that_never_ends(
    use_file: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    """A module whose start function hangs is stopped while the sandbox is set up."""
    path = tmp_path / "hangs.wasm"
    path.write_bytes(guest(extra="(func $begin (loop (br 0))) (start $begin)"))
    use_file(path)
    with pytest.raises(SandboxError, match="set up"):
        Moka(8, operation_timeout=SHORT)


@pytest.mark.parametrize(
    ("wrong", "kind"), [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_the_timeout_is_checked(wrong: Any, kind: type[Exception]) -> None:
    """What is no positive duration is refused, by the argument's name."""
    with pytest.raises(kind, match="operation_timeout"):
        Moka(8, operation_timeout=wrong)


@pytest.mark.parametrize("timeout", [1e-9, 1e-3, 1, timedelta(seconds=2), timedelta(days=365 * 500), 2.0**63])
def test_timeouts_of_every_size(timeout: Any) -> None:
    """The shortest timeout still leaves an operation a tick, and the longest is no overflow."""
    cache: Moka[str, int] = Moka(8, operation_timeout=timeout, on_trap="retry")
    cache["k"] = 1
    assert cache.get("k") in (1, None)

    @cached(operation_timeout=timeout)
    def double(x: int) -> int:
        return 2 * x

    assert double(2) == 4
    assert double.cache_parameters()["operation_timeout"] == timeout


def test_a_timeout_is_never_cut_short() -> None:
    """However the first tick falls, as many whole ones come after it as the timeout is long."""
    assert [ticks(timeout) for timeout in (1, TICK - 1, TICK, TICK + 1, 10 * TICK)] == [2, 2, 2, 3, 11]
    assert all((ticks(timeout) - 1) * TICK >= timeout for timeout in range(1, 5 * TICK, 999_983))


def test_a_cache_without_a_timeout_has_the_faster_code() -> None:
    """Only caches that ask for it have an engine that looks at the time, and a thread that ticks."""
    assert _sandbox.engine() is not _sandbox.engine(True)
    cache: Any = Moka(8)
    assert cache._channel._guest.timeout is None
    assert not hasattr(cache._channel._guest.sandbox, "_ticks_for")


def test_the_thread_ends_with_the_last_cache() -> None:
    """One thread ticks for all caches, and none once they are closed or gone.

    In a process of its own: interrupts in other tests leave CPython with exceptions that it takes for handled still,
    and with their frames and the caches in them.
    """
    program = """
        import gc, threading
        from moka_wasm import Moka

        def timers():
            return [thread for thread in threading.enumerate() if thread.name == "moka_wasm ticker"]

        caches = [Moka(8, operation_timeout=600) for _ in range(3)]
        (thread,) = timers()
        assert thread.daemon
        caches.pop().close()
        caches.pop()
        gc.collect()
        assert timers() == [thread]
        caches[0].close()
        thread.join(60)
        assert not thread.is_alive()
        with Moka(8, operation_timeout=600) as again:
            again["k"] = 1
            (thread,) = timers()
        thread.join(60)
        assert timers() == []
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=300)


def test_a_ticker_that_is_used_again_while_it_ends() -> None:
    """Uses that begin while the thread ends find a thread, and never two."""
    ticked = threading.Event()
    ticker = Ticker(ticked.set)
    for user in [User() for _ in range(2000)]:
        ticker.begin(user)
        ticker.end(user)
        ticker.end(user)
    ticker.begin(user)
    ticked.clear()
    assert ticked.wait(60)
    ticker.end(user)
    for thread in list(ticker._running.values()):
        thread.join(60)
    assert ticker._running == {}


def test_a_ticker_whose_users_are_gone() -> None:
    """A user that is gone without a word, as its finalizer was interrupted, is no user any more."""
    ticker = Ticker(lambda: None)
    users = [User() for _ in range(3)]
    for user in users:
        ticker.begin(user)
    (thread,) = ticker._running.values()
    ticker.end(users.pop())
    del user, users
    thread.join(60)
    assert not thread.is_alive()
    assert ticker._users == ticker._running == {}


def test_a_thread_that_cannot_be_started_is_started_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread to give, opening the cache says so, and the next one tries again."""
    ticker = Ticker(lambda: None)
    first, second = User(), User()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start"):
            ticker.begin(first)
    assert ticker._running == {}
    ticker.begin(second)
    assert len(ticker._running) == 1
    ticker.end(first)
    ticker.end(second)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.usefixtures("broken")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_timeouts_too() -> None:
    """In a child that was forked while other threads were inside of the sandbox the cache works, and is stopped."""
    cache: Moka[int, int] = Moka(None, operation_timeout=SHORT)
    cache.update({key: key for key in range(100)})
    over = threading.Event()
    faults: list[BaseException] = []

    def use() -> None:
        try:
            while not over.is_set():
                assert cache.get_many(range(100)) == {key: key for key in range(100)}
        except BaseException as fault:
            faults.append(fault)

    def child() -> None:
        assert len(timers()) == 1
        assert cache.get_many(range(100)) == {key: key for key in range(100)}
        stop(cache, "get", NEVER_ENDS)
        try:
            cache.get(1)
        except OperationTimeoutError:
            pass
        else:
            raise AssertionError("it was not stopped")
        cache[1] = 2
        assert cache[1] == 2
        cache.close()

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    statuses = [in_child(child) for _ in range(5)]
    over.set()
    for thread in threads:
        thread.join()
    assert (statuses, faults) == ([0] * 5, [])
    assert cache.get(1) == 1


def test_whatever_comes_between_may_use_the_cache() -> None:
    """A signal handler between taking the sandbox's lock and calling it uses the cache without a deadlock."""
    cache: Moka[Any, Any] = Moka(None, operation_timeout=LONG)
    cache.set("k", "value")

    def check(result: Any) -> None:
        assert result == "value"

    assert Interrupter(lambda: everything(cache)).run(lambda: cache.get("k"), check) > 20
    assert cache.stats().restarts == 0


def test_where_calls_do_not_exclude_each_other_they_take_the_same_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without a GIL locks each call, and its handlers may use the cache all the same."""
    monkeypatch.setattr(_guest_calls, "CALLS_EXCLUDE_EACH_OTHER", False)
    cache: Moka[Any, Any] = Moka(None, clock=lambda: 1.0, serializer="pickle")
    cache.set("k", "value")
    assert Interrupter(lambda: everything(cache)).run(lambda: cache.get("k"), lambda _: None) > 20
    assert cache.get("k") == "value"


def test_an_interpreter_that_ends_with_a_cache_open() -> None:
    """The ticking thread keeps no interpreter from ending, with operations under way in a daemon thread or without."""
    program = """
        import threading
        from moka_wasm import Moka
        cache = Moka(100, operation_timeout=50)
        cache["k"] = 1
        threading.Thread(target=lambda: [cache.get("k") for _ in iter(int, 1)], daemon=True).start()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_function_has_a_switch() -> None:
    """The tests above name functions of the ABI as they are."""
    assert {function for function, _, _ in OPERATIONS.values()} <= set(_FUNCTIONS)
    assert number("get") == _FUNCTIONS.index("get")
