"""One computation a key among threads: the first caller of a key computes, the others wait for what it found.

A flight is one running computation. It carries the encoded result, so that every follower decodes a copy of its own and
nobody shares an object with the leader.

No lock is held anywhere, because a ``__del__`` or a signal handler may call in between any two bytecodes of the same
thread. Shared state changes by single dict operations (atomic under the GIL and in free-threaded builds), and every
clean-up is idempotent and runs from two nested ``finally`` clauses: an interrupt that cuts the inner one short is
followed by the outer one, so no interrupt, wherever it arrives, leaves a key locked.

What it cannot see: a computation that waits for another thread by other means than this module (a pool, a queue), while
that thread asks for the key in computation, waits for ever, as it would with any other lock.
"""

# pyright: reportPrivateUsage=false
# The surface of a cache that a flight needs is private to the package, not to a class.

from __future__ import annotations

import os
import reprlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from ._errors import RecursiveComputationError

K = TypeVar("K")
V = TypeVar("V")
K_contra = TypeVar("K_contra", contravariant=True)


class FlightStore(Protocol[K_contra, V]):
    """What a flight needs from a cache."""

    def _get_encoded(self, key_bytes: bytes, /) -> bytes | None:
        """Answer the encoded value, as a read that counts; None if the key is absent."""
        ...

    # Properties, so that a method and an attribute that holds a function both fit.
    @property
    def _dumps(self) -> Callable[[V], bytes]: ...

    @property
    def _loads(self) -> Callable[[bytes], V]: ...

    def _set_encoded(
        self,
        key_bytes: bytes,
        key: K_contra,
        value: V,
        data: bytes,
        ttl: float | timedelta | None,
        tti: float | timedelta | None,
        /,
    ) -> None:
        """Store ``data``. The key and the value themselves are for the weigher."""
        ...


# Not frozen: it would take nearly three times as long to make, a good part of a miss.
@dataclass(slots=True, eq=False)
class Request(Generic[K, V]):
    """One caller's question to a cache; ``ttl`` and ``tti`` are in seconds and count if this caller leads."""

    store: FlightStore[K, V]
    key_bytes: bytes
    key: K
    ttl: float | timedelta | None = None
    tti: float | timedelta | None = None

    def recall(self) -> bytes | None:
        """Look the key up."""
        return self.store._get_encoded(self.key_bytes)

    def keep(self, value: V, data: bytes) -> None:
        """Store what was computed."""
        self.store._set_encoded(self.key_bytes, self.key, value, data, self.ttl, self.tti)

    def recursion(self) -> RecursiveComputationError:
        """Make the error of a computation that waits for itself."""
        return RecursiveComputationError(
            f"the computation of key {reprlib.repr(self.key)} waits for itself: it asked for this very key, directly or"
            " through the computation of another key that waits for this one. Compute without asking for the key, or"
            " use another key"
        )


class Failure(NamedTuple):
    """An exception, and its traceback as it was when it left the computation."""

    error: Exception
    traceback: TracebackType | None

    def raised(self) -> Exception:
        """Answer the exception as the computation left it.

        All followers raise one object; each starts again from the computation's own traceback, which therefore does not
        grow with their number.
        """
        return self.error.with_traceback(self.traceback)


# None: the flight was abandoned (interrupted, cancelled), and whoever still wants the value computes anew.
Outcome = bytes | Failure | None


class _Thread:
    """A thread as a node of the wait-for graph, which spans all caches."""

    __slots__ = ("waits_for",)

    def __init__(self) -> None:
        self.waits_for: _Flight | None = None


class _Flight:
    """One running computation.

    ``over`` is set before the waiters are woken, and a follower looks at it after it has entered itself, so one of the
    two always notices the other.
    """

    __slots__ = ("landed", "leader", "outcome", "over", "waiters")

    def __init__(self, leader: _Thread) -> None:
        self.leader = leader
        # Used as an ordered set: adding and removing are single operations. SimpleQueue.put neither blocks nor runs
        # Python code, so waking is safe everywhere, and waking twice does no harm.
        self.waiters: dict[SimpleQueue[Outcome], None] = {}
        self.outcome: Outcome = None
        self.over = False
        self.landed = False


_local = threading.local()


def _this_thread() -> _Thread:
    known: dict[str, _Thread] = _local.__dict__
    # setdefault, because a signal handler may get here between a test and an assignment.
    return known.get("node") or known.setdefault("node", _Thread())


class ThreadFlights:
    """The computations that run for one cache now, at most one a key."""

    __slots__ = ("__weakref__", "_flights", "latest")

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight] = {}
        self.latest = [object()]
        """The mark, in a list: the native extension reads it without looking up attributes."""
        forget_after_fork(self)

    @property
    def mark(self) -> object:
        """Something that changes whenever a flight lands.

        Who read it before a look-up of his own that missed, and passes it to ``run``, saves the first look-up there.
        """
        return self.latest[0]

    def waiting(self, key_bytes: bytes) -> int:
        """Answer how many callers wait for this key's computation."""
        flight = self._flights.get(key_bytes)
        return 0 if flight is None else len(flight.waiters)

    def run(self, request: Request[K, V], compute: Callable[[], V], mark: object | None = None) -> V:
        """Answer the key's value from the cache, from a computation that is running, or from ``compute``.

        A failure is not stored: it reaches the callers that wait for it, and the next one computes again. An interrupt
        (a BaseException that is no Exception) reaches only the thread that it interrupted; of the others, one computes.

        Args:
            request: The cache and the key.
            compute: Called without arguments, by one caller at a time for one key. Its result is stored before the
                flight ends.
            mark: See the property; None looks the key up first.

        Returns:
            For the leader the very object that it computed, for everybody else a decoded copy.

        Raises:
            RecursiveComputationError: If waiting here could never end.
        """
        store, key_bytes = request.store, request.key_bytes
        thread = _this_thread()
        # Not None if a signal handler or a __del__ interrupts a wait: that wait is suspended while this one lasts.
        suspended = thread.waits_for
        while True:
            if mark is None:
                mark = self.latest[0]
                data = request.recall()
                if data is not None:
                    return store._loads(data)
            mine = _Flight(thread)
            try:
                try:
                    thread.waits_for = None
                    flight = self._flights.setdefault(key_bytes, mine)
                    if flight is mine:
                        return self._lead(mine, request, compute, mark)
                    outcome = _follow(flight, thread, request)
                finally:
                    self._land(key_bytes, mine)
                    thread.waits_for = suspended
            finally:
                self._land(key_bytes, mine)
                thread.waits_for = suspended
            if isinstance(outcome, bytes):
                return store._loads(outcome)
            if outcome is not None:
                try:
                    raise outcome.raised()
                finally:
                    del outcome  # or this frame and the exception keep each other alive
            mark = None

    def _lead(self, flight: _Flight, request: Request[K, V], compute: Callable[[], V], mark: object) -> V:
        try:
            # Another flight may have landed between this caller's look-up and its own take-off.
            if self.latest[0] is not mark:
                data = request.recall()
                if data is not None:
                    flight.outcome = data
                    return request.store._loads(data)
            value = compute()
            data = request.store._dumps(value)
        except Exception as error:
            flight.outcome = Failure(error, error.__traceback__)
            raise
        # From here on the followers have a result, whatever the weigher or the capacity say to this caller.
        flight.outcome = data
        request.keep(value, data)
        return value

    def _land(self, key_bytes: bytes, flight: _Flight) -> None:
        if flight.landed:
            return
        if self._flights.get(key_bytes) is flight:
            self.latest[0] = object()
            self._flights.pop(key_bytes, None)
        flight.over = True
        for inbox in list(flight.waiters):
            inbox.put(flight.outcome)
        flight.outcome = None  # or the exception, its traceback, the leader's frame and the flight form a cycle
        flight.landed = True

    def after_fork_in_child(self) -> None:
        """Abandon the flights of threads that exist in the parent process only."""
        thread = _this_thread()
        for key_bytes in list(self._flights):
            flight = self._flights[key_bytes]
            if flight.leader is not thread:
                flight.outcome = None
                self._land(key_bytes, flight)


def _follow(flight: _Flight, thread: _Thread, request: Request[K, V]) -> Outcome:
    inbox: SimpleQueue[Outcome] = SimpleQueue()
    try:
        flight.waiters[inbox] = None
        thread.waits_for = flight
        if flight.over:
            return None
        if _closes_cycle(thread, flight):
            raise request.recursion()
        return inbox.get()
    finally:
        flight.waiters.pop(inbox, None)


def _closes_cycle(thread: _Thread, flight: _Flight) -> bool:
    """Answer whether ``flight``, for which ``thread`` is about to wait, waits for ``thread``.

    Every thread publishes its own edge before it looks, so of those that close a cycle together at least one sees it.
    """
    path = [(thread, flight)]
    visited = {thread}
    while flight.leader is not thread:
        leader = flight.leader
        onward = leader.waits_for
        if onward is None or onward.over or leader in visited:
            return False  # the leader is at work, or in a cycle without this thread, which its own members break
        visited.add(leader)
        path.append((leader, onward))
        flight = onward
    # The edges were read one after another. An edge that still stands has stood all the while, as a flight never takes
    # off twice; so if all still stand, all stood at one moment, and the cycle is real.
    return all(waiter.waits_for is awaited and not awaited.over for waiter, awaited in path)


class _Forgets(Protocol):
    """Something that a fork leaves with flights whose threads are gone."""

    def after_fork_in_child(self) -> None: ...


_all_flights: WeakSet[_Forgets] = WeakSet()


def forget_after_fork(flights: _Forgets) -> None:
    """Have ``flights.after_fork_in_child`` called in every child process while ``flights`` lives."""
    _all_flights.add(flights)


def _after_fork_in_child() -> None:
    for flights in list(_all_flights):
        flights.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
