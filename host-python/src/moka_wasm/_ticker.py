"""The clock by which an operation that takes too long is stopped: a thread that ticks while anybody needs it.

The guest of a cache with an ``operation_timeout`` is compiled such that it looks, in every loop and function, whether
its engine has ticked so many times since the operation began. The thread does nothing but tick; it ends with the last
user, and a forked child, which does not inherit it, gets its own.

No lock is held, as a finalizer may end a use, and a signal handler begin one, between any two bytecodes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

TICK: Final = 20_000_000
"""Nanoseconds between two ticks, at least."""


def ticks(timeout: int) -> int:
    """How many ticks an operation may see that may take so many nanoseconds: never too few, as the first may come at
    once."""
    return -(-timeout // TICK) + 1


class Ticker:
    """Ticks while it is used.

    Args:
        tick: Called at each tick, on a thread of the ticker's own.
    """

    def __init__(self, tick: Callable[[], object]) -> None:
        self._tick = tick
        # Weakly, as an interrupt may cut a finalizer short that was about to end its use.
        self._users: dict[int, weakref.ref[object]] = {}
        # At most one thread, put there by setdefault, so that two who start one agree.
        self._running: dict[str, threading.Thread] = {}
        # Not an Event, whose lock a finalizer that ends a use might ask for twice.
        self._stop: SimpleQueue[None] = SimpleQueue()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork_in_child)

    def begin(self, user: object) -> None:
        """Somebody needs the ticks, until the end or its own."""
        self._users[id(user)] = weakref.ref(user)
        self._start()

    def end(self, user: object) -> None:
        """Needs them no longer. May be told more than once, and by a finalizer."""
        if self._users.pop(id(user), None) is not None and not self._users:
            self._stop.put(None)

    def _is_used(self) -> bool:
        for number, user in list(self._users.items()):
            if user() is not None:
                return True
            # Unless another has begun since, which happens to have its number.
            if self._users.get(number) is user:
                self._users.pop(number, None)
        return False

    def _start(self) -> None:
        if self._running:
            return
        thread = threading.Thread(target=self._run, name="moka_wasm ticker", daemon=True)
        try:
            if self._running.setdefault("thread", thread) is thread:
                thread.start()
        finally:
            if thread.ident is None and self._running.get("thread") is thread:
                # It could not be started, or this was interrupted.
                del self._running["thread"]

    def _run(self) -> None:
        while self._is_used():
            try:
                self._stop.get(timeout=TICK / 1_000_000_000)
            except Empty:
                self._tick()
        self._running.pop("thread", None)
        if self._users:
            # Begun since the loop looked.
            self._start()

    def _after_fork_in_child(self) -> None:
        self._stop = SimpleQueue()
        self._running = {}
        if self._users:
            self._start()
