"""The channel over the direct ABI, in pure Python: the one place of this package that knows the ABI.

The ABI is documented beside the guest's source, in ``src/direct/ABI.md``. Every operation takes a lane of the guest
for itself, writes its bytes into the lane's mailbox, calls ``wasmtime_func_call_unchecked`` once and reads the answer.

No two threads are inside the sandbox at once (``_guest_calls``); whatever runs between the bytecodes of an operation
(another thread, a signal handler, a finalizer) uses another lane, and a fork finds nobody inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from . import _guest_calls as guest_calls
from . import _hot as hot
from ._channel import UNLIMITED, CacheConfig, Counters, Entry, KeyCursor, Removal, together, totals
from ._errors import (
    ClosedError,
    ConfigError,
    EntryTooLargeError,
    GuestMemoryError,
    IncompatibleComponentError,
    MokaError,
    OperationTimeoutError,
    SandboxError,
)
from ._sandbox import Sandbox, is_timeout, take_error
from ._ticker import ticks

ABI_VERSION: Final = 1

_NONE: Final = 2**64 - 1
_LANES: Final = 256

# The upper half of an answer: flags, and a length or a kind.
NO_BYTES: Final = 1 << 31
REMOVALS_WAIT: Final = 1 << 30
_LENGTH: Final = REMOVALS_WAIT - 1
_NO, _YES, _ERROR = 0, 1, 2

_LENGTH_LIMIT: Final = 1 << 30
# An answer of several entries ends once it is longer than this.
_LONG_ANSWER: Final = 32 << 10
_LEAST_MEMORY: Final = 1 << 20
# A mailbox of this size is kept; a larger one is given back after use.
_MAILBOX: Final = 65536
_TRAP: Final = guest_calls.TRAP

_CONFIG = struct.Struct("<QQQQII")
_COUNT = struct.Struct("<I")
_SET = struct.Struct("<IIIIQQ")
_STORED = struct.Struct("<II")
_DRAINED = struct.Struct("<QI")
_REMOVAL = struct.Struct("<III")
_STATS = struct.Struct("<11Q")
_LIFE = struct.Struct("<Q")

_ERRORS: Final[dict[int, type[MokaError]]] = {
    3: ConfigError,
    4: EntryTooLargeError,
    5: GuestMemoryError,
}
_CONFIG_ERROR, _LAPSED = 3, 6
_ABSENT: Final = 2**32 - 1
# No counter of a guest that works gets so far.
_PLAUSIBLE: Final = 2**63
# A lease's number in its guest is in the lower half, which guest that was in the upper.
_LEASE_BITS: Final = 32

_FUNCTIONS: Final = (
    "abi_version",
    "clear",
    "close",
    "contains",
    "drain",
    "error",
    "expire",
    "fill",
    "get",
    "get_many",
    "get_or_insert",
    "keys",
    "keys_close",
    "keys_next",
    "lookup",
    "mailbox",
    "make_room",
    "open",
    "release",
    "remaining",
    "remove",
    "remove_many",
    "run_pending",
    "set",
    "set_many",
    "stats",
)

# Another name for "keys_next": the GIL is kept.
_KEYS_NEXT_SOON: Final = "keys_next_soon"
# A page takes long only for keys that were taken out since the page before, which took longer than to pass over them.
# So it keeps the GIL if that page is no older than this, in nanoseconds: to get the GIL back takes up to 5 ms while
# other threads compute, and would make a walk over 200,000 keys 2.4 times as long.
_SOON: Final = 20_000_000

_Answer = bytes | int | None
"""Bytes; the number that came with *yes*; ``None`` for *no*."""


def _refused() -> SandboxError:
    return SandboxError("the sandbox stopped in the middle of another operation; it goes on, empty")


def _refuse_call(*_: object) -> int:
    raise _refused()


class _Guest:
    """A sandbox, and the handle of the one cache in it."""

    def __init__(self, memory_cap: int | None, now: Callable[[], int], timeout: int | None) -> None:
        self.limited = memory_cap is not None
        self.now = now
        # The guest refuses a limit below 1 MiB by itself, but needs some memory to say so.
        limit = None if memory_cap is None else max(memory_cap, _LEAST_MEMORY)
        self.timeout = timeout
        if timeout is None:
            self.sandbox = Sandbox(limit)
            self.calls = guest_calls.untimed(self.sandbox)
        else:
            self.sandbox = Sandbox(limit, ticks(timeout))
            self.calls = guest_calls.timed(self.sandbox, ticks(timeout))
        self.call = self.calls.call
        self.memory = self.sandbox.memory
        self.address_space = self.sandbox.address_space
        self.size = self.sandbox.memory_size()
        self._functions = {name: self.sandbox.function(f"moka_{name}") for name in _FUNCTIONS}
        self.functions = {name: ctypes.addressof(function) for name, function in self._functions.items()}
        self.functions[_KEYS_NEXT_SOON] = self.functions["keys_next"]
        self.cache = 0
        self.owner: weakref.ref[DirectChannel] | None = None
        """The channel that sees to another guest once this one has trapped."""
        self.before = Counters(*bytes(len(Counters._fields)))
        """What the guests before this one had counted, and how many they were."""
        self.counted = self.before
        """What this guest is known to have counted."""
        self.free_lanes = list(range(_LANES - 1, -1, -1))

    def check(self, end: int) -> None:
        """Makes certain that bytes up to this address are the guest's."""
        if end > self.size:
            self.size = self.calls.memory_size()
            if end > self.size:
                raise SandboxError(f"the guest answered bytes up to {end}, but has memory up to {self.size} only")


def _slots() -> tuple[ctypes.Array[ctypes.c_uint64], memoryview, memoryview]:
    """Slots for arguments, answer and trap, which the views keep: as numbers of 64 bits, and of 32."""
    # wasmtime_val_raw_t is 16 bytes wide, the value in its lower half.
    raw = (ctypes.c_uint64 * (_TRAP + 1))()
    view = memoryview(raw).cast("B")
    return raw, view.cast("Q"), view.cast("I")


class _Lane:
    """One operation's own way in and out: a mailbox, argument slots, and prepared arguments for each function.

    ``get`` has slots of its own, in which the cache's handle stays, and as its time that the clock was not read.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "args",
        "get_args",
        "get_parameters",
        "get_words",
        "guest",
        "kept",
        "mailbox",
        "number",
        "parameters",
        "raw",
        "room",
        "words",
    )

    def __init__(self, guest: _Guest, room: int = _MAILBOX) -> None:
        try:
            self.number = guest.free_lanes.pop()
        except IndexError:
            raise SandboxError(f"more than {_LANES} operations of one cache are under way at once") from None
        self.guest = guest
        prepare = guest.calls.parameters
        self.raw, self.args, self.words = _slots()
        where = ctypes.addressof(self.raw)
        self.parameters = {name: prepare(name, function, where) for name, function in guest.functions.items()}
        get_raw, self.get_args, self.get_words = _slots()
        self.get_parameters = prepare("get", guest.functions["get"], ctypes.addressof(get_raw))
        self.get_args[6] = _NONE
        self.get_args[2] = guest.cache
        self.address = 0
        self.room = 0
        # The extension keeps the address of its lane's mailbox, however large that is: it must not be given back.
        self.kept = max(room, _MAILBOX)
        self.mailbox: Any = (ctypes.c_char * 0)()
        # An operation that was interrupted on the lane of this number may have left a large mailbox behind.
        self.resize(0)
        self.resize(room)

    def __del__(self) -> None:
        # Also the lane of an operation that was interrupted comes back this way.
        if hasattr(self, "guest"):
            self.guest.free_lanes.append(self.number)

    def call(self, name: str, *arguments: int) -> int:
        """Calls a function, answers the upper half of its answer; the lower half is in ``words[0]``.

        Raises:
            SandboxError: It trapped; the guest has been replaced.
        """
        args = self.args
        args[0] = self.number
        for index, argument in enumerate(arguments, 1):
            args[2 * index] = argument
        error = self.guest.call(*self.parameters[name])
        if error or args[_TRAP]:
            raise self.trapped(error)
        return self.words[1]

    def trapped(self, error: int) -> BaseException:
        """Marks the guest as broken and has it replaced; answers the exception to raise."""
        guest = self.guest
        guest.call = _refuse_call
        owner = None if guest.owner is None else guest.owner()
        if owner is not None:
            owner.give_up(guest)
        if error == guest_calls.REFUSED:
            # Before the thread whose operation trapped has come back.
            return _refused()
        trap, self.args[_TRAP] = self.args[_TRAP], 0
        cause = take_error(error, trap)
        if owner is None and not isinstance(cause, Exception):
            return cause  # an interrupt, which came while the guest asked for random numbers
        kind: type[SandboxError] = SandboxError
        why = "the sandbox stopped"
        if is_timeout(cause) and guest.timeout is not None:
            kind = OperationTimeoutError
            why = f"the sandbox was stopped after operation_timeout, {guest.timeout / 1_000_000_000:g} seconds,"
        if owner is None:
            exception = kind(f"{why} while the cache was being opened")
            exception.__cause__ = cause
            return exception
        exception = kind(f"{why} in the middle of the operation; it goes on, empty")
        exception.__cause__ = cause
        self._save_counters()
        try:
            owner.replace(guest)
        except MokaError as failure:
            raise failure from exception
        return exception

    def _save_counters(self) -> None:
        """Notes what a guest that trapped has counted. Its counters are plain numbers, each of which is right whatever
        else was half done; what it says is believed only if no counter went back."""
        guest, args = self.guest, self.args
        args[0], args[2] = self.number, guest.cache
        error = guest.calls.call_trapped(*self.parameters["stats"])
        trap, args[_TRAP] = args[_TRAP], 0
        if error or trap:
            take_error(error, trap)
        elif self.words[1] & ~REMOVALS_WAIT == _STATS.size:
            with contextlib.suppress(SandboxError):
                counted = Counters(*_STATS.unpack(self.read(_STATS.size)))
                pairs = zip(totals(guest.counted), totals(counted), strict=True)
                if all(before <= now < _PLAUSIBLE for before, now in pairs):
                    guest.counted = counted

    def resize(self, size: int) -> None:
        """Sees to a mailbox of at least this size; 0 frees a large one."""
        if size >= _LENGTH_LIMIT:
            raise EntryTooLargeError(f"key and value must be shorter than {_LENGTH_LIMIT} bytes together, got {size}")
        self.room = 0
        self.call("mailbox", size)
        address = self.words[0]
        if not address:
            raise GuestMemoryError(f"the sandbox has no memory for {size} bytes of key and value: store less")
        self.guest.check(address + size)
        # Its `value` takes bytes without a slice being made.
        self.mailbox = (ctypes.c_char * size).from_buffer(self.guest.address_space, address)
        self.address = address
        self.room = size

    def shrink(self) -> None:
        """Gives an enlarged mailbox back; what there is no memory for now, the next operation asks for again."""
        if self.room > self.kept:
            with contextlib.suppress(GuestMemoryError):
                self.resize(0)
                self.resize(self.kept)

    def write(self, data: bytes, lanes: list[_Lane]) -> int:
        """Puts bytes into the mailbox, answers how many. Where that cannot be, the lane goes to these lanes."""
        length = len(data)
        if length > self.room:
            self.expand(length, lanes)
        self.mailbox.value = data
        return length

    def expand(self, size: int, lanes: list[_Lane]) -> None:
        """Sees to a mailbox of at least this size, after the guest has made room for the entry that it will hold. Where
        that cannot be, the lane goes to these lanes."""
        guest = self.guest
        try:
            if guest.cache and guest.limited:
                upper = self.call("make_room", guest.cache, size, guest.now())
                if upper & _LENGTH == _ERROR:
                    raise self.failure()
            self.resize(size)
        except (EntryTooLargeError, GuestMemoryError):
            lanes.append(self)
            raise

    def read(self, length: int) -> bytes:
        """That many answered bytes."""
        start = self.words[0]
        end = start + length
        if end > self.guest.size:
            self.guest.check(end)
        answered: bytes = self.guest.address_space[start:end]
        return answered

    def failure(self) -> Exception:
        """The exception for the error that the last call answered."""
        code = self.words[0]
        text = self.read(self.call("error")).decode("utf-8", "replace")
        if code == _CONFIG_ERROR:
            text = text.partition(": ")[2]
        return _ERRORS.get(code, SandboxError)(text)


def _or_none(number: int | None) -> int:
    return _NONE if number is None else number


def _open_guest(config: CacheConfig, now: Callable[[], int]) -> tuple[_Guest, _Lane]:
    guest = _Guest(config.memory_limit, now, config.operation_timeout)
    lane = _Lane(guest)
    lane.call("abi_version")
    if lane.words[0] != ABI_VERSION:
        raise IncompatibleComponentError(
            f"the component speaks version {lane.words[0]} of the direct ABI, this package version {ABI_VERSION}: "
            "install both from one release"
        )
    numbers = (config.capacity, config.ttl, config.tti, config.memory_limit)
    policy = ("tiny_lfu", "lru").index(config.policy)
    fields = _CONFIG.pack(*map(_or_none, numbers), policy, config.removal_log)
    if lane.call("open", lane.write(fields + config.name.encode("utf-8", "replace"), []), now()) != NO_BYTES | _YES:
        raise lane.failure()
    guest.cache = lane.get_args[2] = lane.words[0]
    return guest, lane


class DirectChannel:
    """See :class:`~._channel.Channel`."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self._now: Callable[[], int] = config.clock or time.monotonic_ns
        self.removals_wait = False
        self._guest: _Guest | None = None
        self._lanes: list[_Lane] = []
        self._closed = False
        # The extension's calls keep the GIL, and no tick would get through.
        self.timed = config.ttl is not None or config.tti is not None or config.clock is not None
        """Whether ``get`` has to tell the guest the time: as long as no entry has a deadline, no clock is read."""
        self.binding = hot.binding(config.clock, self.timed) if config.operation_timeout is None else None
        """The extension's way into the guest, if there is the extension."""
        guest, lane = _open_guest(self._config, self._now)
        self._begin(guest, [lane])

    def _expect_deadlines(self) -> None:
        """An entry is about to get one of its own: from now on the guest is told the time."""
        self.timed = True
        if self.binding is not None:
            self.binding.heed_time()

    def give_up(self, old: _Guest) -> None:
        """Lets no operation begin on a guest that trapped: the next one finds no lane, and replaces it."""
        if self._guest is old:
            if self.binding is not None:
                self.binding.unbind()
            self._lanes = []

    def replace(self, old: _Guest) -> None:
        """Puts a new, empty guest in the place of one that trapped.

        Several threads may do so at once, and each be interrupted anywhere: all of them put the same guest there, that
        of the first who had one.
        """
        self.give_up(old)
        lanes: list[_Lane] = []
        if "successor" not in vars(old):
            mine, lane = _open_guest(self._config, self._now)
            total = together(old.before, old.counted)
            mine.before = total._replace(restarts=total.restarts + 1)
            if vars(old).setdefault("successor", mine) is mine:
                lanes = [lane]
        if self._guest is old:
            self._begin(vars(old)["successor"], lanes)

    def _begin(self, guest: _Guest, lanes: list[_Lane]) -> None:
        """Has operations go to this guest."""
        self._guest = guest
        # A new list: an operation that is still under way gives its lane back to the old one.
        self._lanes = lanes
        # What the guest before had to tell is gone with it.
        self.removals_wait = False
        if self._closed:
            # By another thread, meanwhile.
            self.close()
            return
        if self.binding is not None:
            self._bind(self.binding)
        # Only now: a guest that traps even before that is not replaced at once, which might never end.
        guest.owner = weakref.ref(self)

    def goes_to(self, guest: _Guest) -> bool:
        """Whether operations go to this guest; else it was replaced."""
        return guest is self._guest

    def _bind(self, binding: Any) -> None:
        """Binds the extension to the guest that is there, also if it is replaced meanwhile."""
        while True:
            guest = self._guest
            if guest is None or guest.call is _refuse_call or guest.calls.gate is None:
                binding.unbind()
                return
            lane = _Lane(guest, hot.mailbox(self._config.memory_limit))
            try:
                hot.bind(binding, guest, lane)
            except ValueError:
                # Perhaps it has trapped in another thread's operation, which has not come back yet: that is told here.
                self.give_up(guest)
                lane.call("mailbox", lane.room)
                raise
            if guest is self._guest and guest.call is not _refuse_call:
                return

    def close(self) -> None:
        self._closed = True
        self._guest = None
        self._lanes = []
        self.removals_wait = False
        if self.binding is not None:
            self.binding.unbind()

    def _lane(self, lanes: list[_Lane]) -> _Lane:
        try:
            return lanes.pop()
        except IndexError:
            guest = self._guest
        if guest is None:
            raise ClosedError("the cache is closed: open a new one")
        if guest.call is _refuse_call:
            self.replace(guest)
            return self._lane(self._lanes)
        try:
            return _Lane(guest)
        except GuestMemoryError:
            # The operation asks for the mailbox that it needs itself, and has room made for it.
            return _Lane(guest, 0)

    def _finish(self, lanes: list[_Lane], lane: _Lane, upper: int) -> _Answer:
        """The answer whose upper half this is; gives the lane back."""
        answer: _Answer = None
        if upper & REMOVALS_WAIT:
            self.removals_wait = True
        if not upper & NO_BYTES:
            answer = lane.read(upper & _LENGTH)
        elif upper & _LENGTH == _YES:
            answer = lane.words[0]
        elif upper & _LENGTH == _ERROR:
            try:
                # Not by a variable: exception, traceback and frame would hold each other, and the frame the lane.
                raise lane.failure()
            finally:
                lane.shrink()
                lanes.append(lane)
        lane.shrink()
        lanes.append(lane)
        return answer

    def finish_hot(self, lane: _Lane, error: int) -> bytes | None:
        """Ends an operation of the extension's, whose answer, on the extension's own lane, is not one that it knows."""
        if error or lane.args[_TRAP]:
            raise lane.trapped(error)
        return self._bytes(self._finish([], lane, lane.words[1]))

    def _operate(self, name: str, data: bytes | None, *arguments: int) -> _Answer:
        """One operation: the bytes, if it takes some, go into the mailbox and their length before the arguments."""
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        if data is not None:
            arguments = (lane.write(data, lanes), *arguments)
        return self._finish(lanes, lane, lane.call(name, guest.cache, *arguments))

    def _operate_in(self, guest: _Guest, name: str, *arguments: int) -> _Answer:
        """An operation on something that this very guest handed out; ``None`` if there is another by now."""
        lanes = self._lanes
        lane = self._lane(lanes)
        if lane.guest is not guest:
            lanes.append(lane)
            return None
        return self._finish(lanes, lane, lane.call(name, guest.cache, *arguments))

    def get(self, key: bytes, /) -> bytes | None:
        # The hot path: _operate written out.
        lanes = self._lanes
        try:
            lane = lanes.pop()
        except IndexError:
            lane = self._lane(lanes)
        length = len(key)
        if length > lane.room:
            lane.expand(length, lanes)
        lane.mailbox.value = key
        guest = lane.guest
        args = lane.get_args
        args[0] = lane.number
        args[4] = length
        if self.timed:
            args[6] = self._now()
        error = guest.call(*lane.get_parameters)
        words = lane.get_words
        upper = words[1]
        if 0 < upper < REMOVALS_WAIT:
            start = words[0]
            end = start + upper
            if end > guest.size:
                guest.check(end)
            value: bytes = guest.address_space[start:end]
            lanes.append(lane)
            return value
        return self.finish_get(lanes, lane, error)

    def finish_get(self, lanes: list[_Lane], lane: _Lane, error: int) -> bytes | None:
        """Ends a ``get`` whose answer is not just a value."""
        args = lane.get_args
        lane.args[0] = args[0]
        lane.args[_TRAP], args[_TRAP] = args[_TRAP], 0
        upper = lane.words[1]
        # A trap leaves the lane's number in the slot of the answer, whose upper half is 0.
        if error or (not upper and lane.args[_TRAP]):
            raise lane.trapped(error)
        return self._bytes(self._finish(lanes, lane, upper))

    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /) -> None:
        # The other hot path.
        if ttl is not None or tti is not None:
            self._expect_deadlines()
        lanes = self._lanes
        try:
            lane = lanes.pop()
        except IndexError:
            lane = self._lane(lanes)
        data = key + value
        total = len(data)
        length = len(key)
        if total > lane.room:
            lane.expand(total, lanes)
        lane.mailbox.value = data
        guest = lane.guest
        args = lane.args
        args[0] = lane.number
        args[2] = guest.cache
        args[4] = length
        args[6] = total - length
        args[8] = weight
        args[10] = _NONE if ttl is None else ttl
        args[12] = _NONE if tti is None else tti
        args[14] = self._now()
        error = guest.call(*lane.parameters["set"])
        upper = lane.words[1]
        if error or (not upper and args[_TRAP]):
            raise lane.trapped(error)
        if upper == NO_BYTES | _YES and total <= _MAILBOX:
            lanes.append(lane)
        else:
            self._finish(lanes, lane, upper)

    def contains(self, key: bytes, /) -> bool:
        return self._operate("contains", key, self._now()) is not None

    def get_or_insert(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bytes | None:
        if len(key) + len(value) > _MAILBOX and self.contains(key):
            # The value is not needed, so that it need not fit.
            return self.get(key)
        answer = self._operate_entry("get_or_insert", key, value, weight, ttl, tti)
        return answer if isinstance(answer, bytes) else None

    def _operate_entry(
        self, name: str, key: bytes, value: bytes, weight: int, ttl: int | None, tti: int | None
    ) -> _Answer:
        self._expect_deadlines()
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        lane.write(key + value, lanes)
        lengths = (len(key), len(value))
        upper = lane.call(name, guest.cache, *lengths, weight, _or_none(ttl), _or_none(tti), self._now())
        return self._finish(lanes, lane, upper)

    def expire(self, key: bytes, remaining: int | None, /) -> bool:
        self._expect_deadlines()
        return self._operate("expire", key, _or_none(remaining), self._now()) is not None

    def remaining(self, key: bytes, /) -> int | None:
        answer = self._operate("remaining", key, self._now())
        if isinstance(answer, bytes):
            return int(_LIFE.unpack(answer)[0])
        return None if answer is None else UNLIMITED

    def remove(self, key: bytes, /) -> bytes | None:
        return self._bytes(self._operate("remove", key, self._now()))

    @staticmethod
    def _bytes(answer: _Answer) -> bytes | None:
        return answer if isinstance(answer, bytes) else None

    def clear(self) -> None:
        self._operate("clear", None, self._now())

    def run_pending_tasks(self) -> None:
        self._operate("run_pending", None, self._now())

    def counters(self) -> Counters:
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        answer = self._bytes(self._finish(lanes, lane, lane.call("stats", guest.cache)))
        guest.counted = Counters(*_STATS.unpack(answer or b""))
        return together(guest.before, guest.counted)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        values: list[bytes | None] = []
        for request, count in _pack_keys(keys):
            wanted = len(values) + count
            values += _unpack_values(self._bytes(self._operate("get_many", request, self._now())) or b"")
            while len(values) < wanted:
                # The guest ended the answer early. The next value may be too large to be copied once more: by itself.
                values.append(self.get(keys[len(values)]))
                for rest, _ in _pack_keys(keys[len(values) : wanted]):
                    values += _unpack_values(self._bytes(self._operate("get_many", rest, self._now())) or b"")
        return values

    def set_many(self, entries: Sequence[Entry], /) -> None:
        for _ in self.store(entries):
            pass

    def store(self, entries: Sequence[Entry]) -> Iterator[int]:
        """As :meth:`set_many`; tells after each crossing how many of them are stored."""
        if any(entry.ttl is not None or entry.tti is not None for entry in entries):
            self._expect_deadlines()
        position = 0
        while position < len(entries):
            request, count = _pack_entries(entries, position)
            if count == 0:
                self.set(*entries[position])
                position += 1
                yield position
                continue
            stored, code = _STORED.unpack(self._bytes(self._operate("set_many", request, self._now())) or b"")
            position += stored
            yield position
            if code:
                # Once more by itself, for the error and its text.
                self.set(*entries[position])
                position += 1
                yield position

    def remove_many(self, keys: Sequence[bytes], /) -> int:
        removed = 0
        for request, _ in _pack_keys(keys):
            answer = self._operate("remove_many", request, self._now())
            assert isinstance(answer, int)
            removed += answer
        return removed

    def keys(self) -> KeyCursor:
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        return _KeyCursor(self, guest, self._finish(lanes, lane, lane.call("keys", guest.cache, self._now())))

    def next_keys(self, guest: _Guest, cursor: int, limit: int, soon: bool) -> list[bytes]:
        """For :class:`_KeyCursor`; a guest that is no longer there has no more keys."""
        if guest is not self._guest:
            return []
        page = self._bytes(
            self._operate_in(guest, _KEYS_NEXT_SOON if soon else "keys_next", cursor, limit, self._now())
        )
        return [] if page is None else _unpack_keys(page)

    def close_keys(self, guest: _Guest, cursor: int) -> None:
        """For :class:`_KeyCursor`."""
        if guest is self._guest:
            self._operate_in(guest, "keys_close", cursor)

    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        # The answer says whether more wait.
        self.removals_wait = False
        answer = self._bytes(self._operate("drain", None, limit)) or b""
        lost, count = _DRAINED.unpack_from(answer)
        removals: list[Removal] = []
        position = _DRAINED.size
        for _ in range(count):
            cause, key, value = _REMOVAL.unpack_from(answer, position)
            position += _REMOVAL.size
            middle, end = position + key, position + key + value
            removals.append(Removal(cause, answer[position:middle], answer[middle:end]))
            position = end
        if len(answer) > _LONG_ANSWER and count < limit:
            # It ended early.
            further, further_lost = self.drain(limit - count)
            return removals + further, lost + further_lost
        return removals, lost

    def lookup(self, key: bytes, lease_life: int, /) -> bytes | int | None:
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        answer = self._finish(
            lanes, lane, lane.call("lookup", guest.cache, lane.write(key, lanes), lease_life, self._now())
        )
        return guest.before.restarts << _LEASE_BITS | answer if isinstance(answer, int) else answer

    def fill(
        self, lease: int, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bool:
        if self._guest is None:
            return False
        lanes = self._lanes
        lane = self._lane(lanes)
        guest = lane.guest
        restarts, number = divmod(lease, 1 << _LEASE_BITS)
        if restarts != guest.before.restarts:
            # Of a guest that trapped: this one may have given the same number to another's lease.
            lanes.append(lane)
            return False
        try:
            length = lane.write(value, lanes)
        except (EntryTooLargeError, GuestMemoryError):
            # A lease is used up, whatever comes of it.
            self.release(lease)
            raise
        upper = lane.call("fill", guest.cache, number, length, weight, _or_none(ttl), _or_none(tti), self._now())
        if upper & ~REMOVALS_WAIT == NO_BYTES | _ERROR and lane.words[0] == _LAPSED:
            lanes.append(lane)
            return False
        self._finish(lanes, lane, upper)
        return True

    def release(self, lease: int, /) -> None:
        guest = self._guest
        if guest is not None:
            restarts, number = divmod(lease, 1 << _LEASE_BITS)
            if restarts == guest.before.restarts:
                self._operate_in(guest, "release", number)


class _KeyCursor:
    """See :class:`~._channel.KeyCursor`."""

    def __init__(self, channel: DirectChannel, guest: _Guest, cursor: _Answer) -> None:
        assert isinstance(cursor, int)
        self._channel, self._guest, self._cursor = channel, guest, cursor
        self._over = False
        self._paged = -_SOON

    def next(self, limit: int, /) -> list[bytes]:
        if self._over:
            return []
        soon = time.monotonic_ns() - self._paged < _SOON
        keys = self._channel.next_keys(self._guest, self._cursor, max(limit, 1), soon)
        self._paged = time.monotonic_ns()
        # The guest closes a cursor with the first empty page.
        self._over = not keys
        return keys

    def close(self) -> None:
        if not self._over:
            self._over = True
            # An interrupt may have kept us from noticing that the guest has closed it.
            with contextlib.suppress(SandboxError):
                self._channel.close_keys(self._guest, self._cursor)


def _pack_keys(keys: Sequence[bytes]) -> Iterator[tuple[bytes, int]]:
    """The requests for these keys, each with their number: as few as fit into mailboxes of the usual size, or larger
    ones for larger keys."""
    parts: list[bytes] = []
    size = 0
    for key in keys:
        if parts and size + len(key) + 8 > _MAILBOX:
            yield b"".join((_COUNT.pack(len(parts) // 2), *parts)), len(parts) // 2
            parts, size = [], 0
        parts += (_COUNT.pack(len(key)), key)
        size += 4 + len(key)
    if parts:
        yield b"".join((_COUNT.pack(len(parts) // 2), *parts)), len(parts) // 2


def _pack_entries(entries: Sequence[Entry], position: int) -> tuple[bytes, int]:
    """The request for as many entries from this position on as fit into a mailbox of the usual size, and their number:
    0 if the first does not."""
    parts: list[bytes] = []
    size = _COUNT.size
    count = 0
    for key, value, weight, ttl, tti in entries[position:]:
        size += _SET.size + len(key) + len(value)
        if size > _MAILBOX:
            break
        parts += (_SET.pack(len(key), len(value), weight, 0, _or_none(ttl), _or_none(tti)), key, value)
        count += 1
    return b"".join((_COUNT.pack(count), *parts)), count


def _unpack_values(answer: bytes) -> Iterator[bytes | None]:
    position = _COUNT.size
    for _ in range(_COUNT.unpack_from(answer)[0]):
        (length,) = _COUNT.unpack_from(answer, position)
        position += _COUNT.size
        if length == _ABSENT:
            yield None
        else:
            yield answer[position : position + length]
            position += length


def _unpack_keys(page: bytes) -> list[bytes]:
    return [key for key in _unpack_values(page) if key is not None]
