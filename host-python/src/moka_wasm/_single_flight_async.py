"""One computation a key among asyncio tasks, also when they run in event loops of several threads.

The computation is a task of its own, started in the context (contextvars) of the caller that leads. Callers only wait
for it: cancelling one of them takes nobody else with it, and the computation itself is cancelled when nobody is left
who waits. What a flight is, how it ends, and why nothing here holds a lock is told in ``_single_flight``.
"""

# pyright: reportPrivateUsage=false
# The surface of a cache that a flight needs is private to the package, not to a class.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

from ._single_flight import Failure, K, Outcome, Request, V, forget_after_fork

# How often, in seconds, a follower makes sure that the leader's event loop, if it is another, still runs. A loop that
# is stopped and never run again would otherwise keep its followers for ever; no wake-up can tell them.
_PULSE = 1.0


class _Own(NamedTuple):
    """What the caller that started a computation gets: the object itself, or why it could not be stored."""

    value: Any
    refusal: Exception | None


_Ticket = asyncio.Future["Outcome | _Own"]


class _TaskFlight:
    """One running computation.

    Attributes:
        waiters: Used as an ordered set: a ticket for each caller that waits, the first caller's among them.
        awaits: The flights for which this one's computation, or a task that it started, waits now, by ticket: its
            edges in the wait-for graph.
        parent: The flight in whose computation this one was asked for.
    """

    __slots__ = (
        "awaits",
        "cancelling",
        "landed",
        "loop",
        "outcome",
        "over",
        "own",
        "parent",
        "starter",
        "task",
        "waiters",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, starter: _Ticket, parent: _TaskFlight | None) -> None:
        self.loop = loop
        self.starter = starter
        self.parent = parent
        self.waiters: dict[_Ticket, None] = {starter: None}
        self.awaits: dict[_Ticket, _TaskFlight] = {}
        self.task: asyncio.Task[None] | None = None
        self.outcome: Outcome = None
        self.own: _Own | None = None
        self.cancelling = False
        self.over = False
        self.landed = False

    def is_lost(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Answer whether this flight, seen from ``loop``, will never land by itself."""
        if self.loop is not loop:
            return not self.loop.is_running()
        return self.task is not None and self.task.done()


_computation: ContextVar[_TaskFlight | None] = ContextVar("moka_wasm_computation", default=None)


class TaskFlights:
    """The asynchronous computations that run for one cache now, at most one a key."""

    __slots__ = ("__weakref__", "_flights", "_mark")

    def __init__(self) -> None:
        self._flights: dict[bytes, _TaskFlight] = {}
        self._mark = object()
        forget_after_fork(self)

    @property
    def mark(self) -> object:
        """See ``ThreadFlights.mark``."""
        return self._mark

    def waiting(self, key_bytes: bytes) -> int:
        """Answer how many callers wait for this key's computation, the one that started it among them."""
        flight = self._flights.get(key_bytes)
        return 0 if flight is None else len(flight.waiters)

    async def run(self, request: Request[K, V], compute: Callable[[], Awaitable[V]], mark: object | None = None) -> V:
        """Answer the key's value from the cache, from a computation that is running, or from ``compute``.

        A failure is not stored: it reaches the callers that wait for it, and the next one computes again.

        Args:
            request: The cache and the key.
            compute: Called without arguments and awaited in a task of its own, which is cancelled when all callers
                that waited for it were. Its result is stored before the flight ends.
            mark: See ``ThreadFlights.mark``; None looks the key up first.

        Returns:
            For the caller that started the computation the very object, for everybody else a decoded copy.

        Raises:
            RecursiveComputationError: If the computation, or a task that it started, waits for itself.
        """
        store = request.store
        while True:
            if mark is None:
                mark = self._mark
                data = request.recall()
                if data is not None:
                    return store._loads(data)
            outcome = await self._join(request, compute, mark)
            try:
                if isinstance(outcome, Failure):
                    raise outcome.raised()
                if isinstance(outcome, _Own):
                    if outcome.refusal is not None:
                        raise outcome.refusal
                    value: V = outcome.value
                    return value
                if outcome is not None:
                    return store._loads(outcome)
            finally:
                del outcome  # or this frame and the exception keep each other alive
            mark = None

    async def _join(self, request: Request[K, V], compute: Callable[[], Awaitable[V]], mark: object) -> Outcome | _Own:
        loop = asyncio.get_running_loop()
        asker = _current()
        ticket: _Ticket = loop.create_future()
        # The starter's ticket is in the flight from the beginning: with eager tasks the computation may be over before
        # create_task returns.
        flight = mine = _TaskFlight(loop, ticket, asker)
        try:
            try:
                flight = self._flights.setdefault(request.key_bytes, mine)
                if asker is not None:
                    asker.awaits[ticket] = flight
                if flight is mine:
                    task = loop.create_task(self._fly(mine, request, compute, mark))
                    task.add_done_callback(lambda task: self._finish(request.key_bytes, mine, task))
                    # Only now: a task that is cancelled before its first step never gets to its own clean-up.
                    mine.task = task
                else:
                    flight.waiters[ticket] = None
                    if flight.over:
                        return None
                    if asker is not None and _closes_cycle(asker, flight):
                        raise request.recursion()
                return await self._outcome(request.key_bytes, flight, ticket, loop)
            finally:
                self._leave(request.key_bytes, flight, ticket, asker)
        finally:
            self._leave(request.key_bytes, flight, ticket, asker)

    async def _outcome(
        self, key_bytes: bytes, flight: _TaskFlight, ticket: _Ticket, loop: asyncio.AbstractEventLoop
    ) -> Outcome | _Own:
        if flight.loop is loop and not flight.is_lost(loop):
            return await ticket
        while not (ticket.done() or flight.is_lost(loop)):
            await asyncio.wait((ticket,), timeout=_PULSE)
        if ticket.done():
            return ticket.result()
        if flight.loop is loop:
            self._land(key_bytes, flight)
        elif self._flights.get(key_bytes) is flight:
            # Should its loop run again, the flight lands for its own callers; nobody else waits for that.
            self._flights.pop(key_bytes, None)
        return None

    async def _fly(
        self, flight: _TaskFlight, request: Request[K, V], compute: Callable[[], Awaitable[V]], mark: object
    ) -> None:
        """Compute and land. Whatever interrupts this, ``_finish`` lands it too."""
        try:
            _computation.set(flight)
            if not flight.over:
                await self._compute(flight, request, compute, mark)
        finally:
            self._land(request.key_bytes, flight)

    async def _compute(
        self, flight: _TaskFlight, request: Request[K, V], compute: Callable[[], Awaitable[V]], mark: object
    ) -> None:
        try:
            # Another flight may have landed between the starter's look-up and this take-off.
            if self._mark is not mark:
                data = request.recall()
                if data is not None:
                    flight.outcome = data
                    return
            value = await compute()
            data = request.store._dumps(value)
        except Exception as error:
            flight.outcome = Failure(error, error.__traceback__)
            if not flight.waiters:
                _report(flight, error, "a computation failed after all its callers were cancelled")
            return
        # From here on the followers have a result, whatever the weigher or the capacity say to the starter.
        flight.outcome, flight.own = data, _Own(value, None)
        try:
            request.keep(value, data)
        except Exception as error:
            flight.own = _Own(value, error)
            if flight.starter not in flight.waiters:
                _report(flight, error, "a result could not be stored, and the caller that started it was cancelled")

    def _finish(self, key_bytes: bytes, flight: _TaskFlight, task: asyncio.Task[None]) -> None:
        self._land(key_bytes, flight)
        if not task.cancelled():
            task.exception()  # an interrupt has left through the event loop; asyncio need not log it as lost

    def _land(self, key_bytes: bytes, flight: _TaskFlight) -> None:
        if flight.landed:
            return
        if self._flights.get(key_bytes) is flight:
            self._mark = object()
            self._flights.pop(key_bytes, None)
        flight.over = True
        for ticket in list(flight.waiters):
            own = flight.own if ticket is flight.starter else None
            _deliver(ticket, flight.outcome if own is None else own)
        flight.outcome = flight.own = None
        flight.landed = True

    def _leave(self, key_bytes: bytes, flight: _TaskFlight, ticket: _Ticket, asker: _TaskFlight | None) -> None:
        """Take one caller out of a flight, and cancel the flight if it was the last one."""
        if asker is not None:
            asker.awaits.pop(ticket, None)
        flight.waiters.pop(ticket, None)
        if flight.over or flight.waiters:
            return
        if flight.task is None or flight.loop.is_closed():
            self._land(key_bytes, flight)
        elif flight.loop is _running_loop():
            _cancel_if_unused(flight)
        else:
            try:
                flight.loop.call_soon_threadsafe(_cancel_if_unused, flight)
            except RuntimeError:  # it was closed meanwhile
                self._land(key_bytes, flight)

    def after_fork_in_child(self) -> None:
        """Forget all flights: no event loop of the parent process runs in the child."""
        self._flights.clear()


def _current() -> _TaskFlight | None:
    """Answer the innermost running computation that this code is part of."""
    flight = _computation.get()
    while flight is not None and flight.over:  # a task that outlives the computation in which it was started
        flight = flight.parent
    return flight


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _cancel_if_unused(flight: _TaskFlight) -> None:
    if flight.over or flight.waiters or flight.cancelling or flight.task is None:
        return
    flight.task.cancel()
    flight.cancelling = True  # a second request would confuse asyncio.timeout() in the computation's own clean-up


def _settle(ticket: _Ticket, outcome: Outcome | _Own) -> None:
    if not ticket.done():
        ticket.set_result(outcome)


def _deliver(ticket: _Ticket, outcome: Outcome | _Own) -> None:
    loop = ticket.get_loop()
    if loop is _running_loop():
        _settle(ticket, outcome)
        return
    with suppress(RuntimeError):  # that loop was closed, so nobody waits there
        loop.call_soon_threadsafe(_settle, ticket, outcome)


def _report(flight: _TaskFlight, error: Exception, message: str) -> None:
    # Without "task": asyncio would run the handler in the task's context, which is entered now.
    flight.loop.call_exception_handler({"message": f"moka_wasm: {message}", "exception": error})


def _closes_cycle(asker: _TaskFlight, flight: _TaskFlight) -> bool:
    """Answer whether ``flight``, for which ``asker``'s computation is about to wait, waits for ``asker``.

    Every caller publishes its own edge before it looks, so of those that close a cycle together at least one sees it.
    """
    reached_by: dict[_TaskFlight, tuple[_TaskFlight, _Ticket]] = {}
    open_ends = [flight]
    while open_ends:
        here = open_ends.pop()
        if here is asker:
            break
        for ticket in list(here.awaits):
            onward = here.awaits.get(ticket)
            if onward is not None and not onward.over and onward is not flight and onward not in reached_by:
                reached_by[onward] = (here, ticket)
                open_ends.append(onward)
    else:
        return False
    # With several loops the edges were read while others changed. A ticket is used once, so if all edges of the path
    # still stand, all stood at one moment, and the cycle is real.
    while here is not flight:
        before, ticket = reached_by[here]
        if here.over or before.awaits.get(ticket) is not here:
            return _closes_cycle(asker, flight)
        here = before
    return True
