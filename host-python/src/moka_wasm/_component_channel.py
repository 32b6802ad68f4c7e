"""The channel over the component face, by ``wasmtime.component``.

For reference and for linking the cache to other components: a byte takes about a microsecond on its way, so the package
itself uses the direct ABI.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import wasmtime
from wasmtime import component as wit

from ._channel import CAUSES, UNLIMITED, CacheConfig, Counters, Entry, Removal, together
from ._component_file import component
from ._errors import ClosedError, ConfigError, EntryTooLargeError, GuestMemoryError, MokaError, SandboxError
from ._sandbox import CLOCK, RANDOM, engine, random_u64

INTERFACE = "moka:cache/cache@0.1.0"
_U64 = 2**64 - 1
# What the arguments or the answer of a call may take, in bytes, beside what the memory limit lets the cache hold; and
# beside as much as it lets the cache hold, for an answer that tells all of it.
_HANDED_OVER: Final = 2 << 20
# How many bytes of keys and values a batch hands over at once.
_BATCH: Final = 512 << 10


@functools.cache
def _component() -> wit.Component:
    return wit.Component(engine(), component())


def _record(**fields: object) -> SimpleNamespace:
    """A WIT record: wasmtime-py reads its fields as attributes, with the names that WIT gives them."""
    record = SimpleNamespace()
    for name, value in fields.items():
        setattr(record, name.replace("_", "-"), value)
    return record


def _options(weight: int, ttl: int | None, tti: int | None) -> SimpleNamespace:
    return _record(weight=weight, ttl=ttl, tti=tti)


def _set_error(error: Any) -> Exception:
    """A ``set-error``, which wasmtime-py lifts as its record or as None."""
    if error is None:
        return GuestMemoryError("the host gives the sandbox no more memory: store less or raise its limit")
    return EntryTooLargeError(
        f"the entry would take {error.size} bytes and may take {error.limit}: store less or raise memory_limit"
    )


class ComponentChannel:
    """See :class:`~._channel.Channel`. For one thread at a time."""

    def __init__(self, config: CacheConfig) -> None:
        self._config = config
        self._now = config.clock or time.monotonic_ns
        self._records = config.removal_log > 0
        # No entry may take as much, in bytes.
        self._most = min((config.memory_limit or 1 << 32) // 3, 1 << 30)
        self._leases: dict[int, wit.ResourceAny] = {}
        self._last_lease = 0
        # What the sandboxes before this one had counted, and how many they were; and what this one has, if known.
        self._before = self._counted = Counters(*bytes(len(Counters._fields)))
        self._cache: wit.ResourceAny | None = None
        self._open()

    def _open(self) -> None:
        config = self._config
        self._store = wasmtime.Store(engine())
        if config.memory_limit is not None:
            # The guest refuses a limit below 1 MiB by itself, but needs some memory to say so. What is handed over lies
            # in its memory before it can refuse it: on this face it cannot be asked to make room first.
            self._store.set_limits(memory_size=min(2 * max(config.memory_limit, 1 << 20) + _HANDED_OVER, 1 << 32))
        linker = wit.Linker(engine())
        # The store keeps these functions, so they must not keep the channel, which keeps the store.
        now = self._now
        with linker.root() as root:
            with root.add_instance(CLOCK[0]) as clock:
                clock.add_func(CLOCK[1], lambda _: now())
            with root.add_instance(RANDOM[0]) as random:
                random.add_func(RANDOM[1], lambda _: random_u64() & _U64)
        self._instance = linker.instantiate(self._store, _component())
        self._interface = self._instance.get_export_index(self._store, INTERFACE)
        self._functions: dict[str, wit.Func] = {}
        self._broken = False
        opened = self._enter(
            "[static]cache.open",
            _record(
                name=config.name.encode("utf-8", "replace").decode(),
                capacity=config.capacity,
                ttl=config.ttl,
                tti=config.tti,
                policy={"tiny_lfu": "tiny-lfu"}.get(config.policy, config.policy),
                memory_limit=config.memory_limit,
                removal_log=config.removal_log or None,
            ),
        )
        if not isinstance(opened, wit.ResourceAny):
            raise ConfigError(opened.reason)
        self._cache = opened

    removals_wait = False

    def _replace(self) -> None:
        """Opens another sandbox in the place of one that trapped; should it fail, the next operation tries again."""
        self._leases.clear()
        self.removals_wait = False
        self._open()
        total = together(self._before, self._counted)
        self._before = total._replace(restarts=total.restarts + 1)
        self._counted = Counters(*bytes(len(Counters._fields)))

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return self._enter(name, *arguments)
        except SandboxError as stopped:
            try:
                self._replace()
            except MokaError as failure:
                raise failure from stopped
            raise

    def _enter(self, name: str, *arguments: Any) -> Any:
        function = self._functions.get(name)
        if function is None:
            index = self._instance.get_export_index(self._store, name, self._interface)
            assert index is not None, name
            found = self._instance.get_func(self._store, index)
            assert found is not None, name
            function = self._functions[name] = found
        try:
            answer = function(self._store, *arguments)
            function.post_return(self._store)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            self._broken = True
            raise SandboxError(
                "the sandbox stopped in the middle of the operation; the cache goes on, empty"
            ) from error
        return answer

    def _method(self, name: str, *arguments: Any) -> Any:
        if self._cache is None:
            raise ClosedError("the cache is closed: open a new one")
        if self._broken:
            self._replace()
        answer = self._call(f"[method]cache.{name}", self._cache, *arguments)
        self.removals_wait = self._records
        return answer

    def _check(self, size: int) -> None:
        """Refuses so many bytes of key and value if they can never fit, before they are handed over: the guest would,
        but may have no memory to take them in."""
        if size >= self._most:
            raise EntryTooLargeError(
                f"the entry would take {size} bytes and may take {self._most - 1}: store less or raise memory_limit"
            )

    def get(self, key: bytes, /) -> bytes | None:
        self._check(len(key))
        return self._method("get", key)  # type: ignore[no-any-return]

    def contains(self, key: bytes, /) -> bool:
        self._check(len(key))
        return bool(self._method("contains", key))

    def set(self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /) -> None:
        self._check(len(key) + len(value))
        answer = self._method("set", key, value, _options(weight, ttl, tti))
        if answer.tag == "err":
            raise _set_error(answer.payload)

    def get_or_insert(
        self, key: bytes, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bytes | None:
        size = len(key) + len(value)
        if size >= self._most:
            # What is there already is answered all the same.
            found = self.get(key)
            if found is None:
                self._check(size)
            return found
        answer = self._method("get-or-insert", key, value, _options(weight, ttl, tti))
        if answer.tag == "err":
            raise _set_error(answer.payload)
        return answer.payload  # type: ignore[no-any-return]

    def expire(self, key: bytes, remaining: int | None, /) -> bool:
        self._check(len(key))
        return bool(self._method("expire", key, remaining))

    def remaining(self, key: bytes, /) -> int | None:
        self._check(len(key))
        life = self._method("remaining", key)
        return {"absent": None, "unlimited": UNLIMITED}.get(life.tag, life.payload)

    def remove(self, key: bytes, /) -> bytes | None:
        self._check(len(key))
        return self._method("remove", key)  # type: ignore[no-any-return]

    def clear(self) -> None:
        self._method("clear")

    def run_pending_tasks(self) -> None:
        self._method("run-pending-tasks")

    def counters(self) -> Counters:
        stats = self._method("stats")
        names = [name.replace("_", "-") for name in Counters._fields if name != "restarts"]
        self._counted = Counters(*(getattr(stats, name) for name in names))
        return together(self._before, self._counted)

    def _end_of_batch(self, entries: Sequence[tuple[bytes, bytes]], start: int) -> int:
        """Where the entries end that are handed over together with the one at ``start``. Without a memory limit all
        are, so that they have one point in time. With one they are no more than there is memory for, each key once:
        the values of different keys are no more than the cache holds."""
        bounded = self._config.memory_limit is not None
        keys: set[bytes] = set()
        total = 0
        for position in range(start, len(entries)):
            key, value = entries[position]
            size = len(key) + len(value)
            total += size
            if position == start:
                self._check(size)
            elif size >= self._most or (bounded and (total > _BATCH or key in keys)):
                return position
            keys.add(key)
        return len(entries)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        entries = [(key, b"") for key in keys]
        values: list[bytes | None] = []
        while len(values) < len(keys):
            start = len(values)
            values += self._method("get-many", list(keys[start : self._end_of_batch(entries, start)]))
        return values

    def set_many(self, entries: Sequence[Entry], /) -> None:
        pairs = [(key, value) for key, value, *_ in entries]
        position = 0
        while position < len(entries):
            end = self._end_of_batch(pairs, position)
            options = [_options(weight, ttl, tti) for _, _, weight, ttl, tti in entries[position:end]]
            batch = [(*pair, option) for pair, option in zip(pairs[position:end], options, strict=True)]
            failed = self._method("set-many", batch)
            if failed is None:
                position = end
            else:
                # The entries before it are stored; this one by itself, for its error.
                position += failed.index
                self.set(*entries[position])
                position += 1

    def remove_many(self, keys: Sequence[bytes], /) -> int:
        entries = [(key, b"") for key in keys]
        removed = start = 0
        while start < len(keys):
            end = self._end_of_batch(entries, start)
            removed += int(self._method("remove-many", list(keys[start:end])))
            start = end
        return removed

    def keys(self) -> _KeyCursor:
        return _KeyCursor(self, self._method("keys"))

    def drain(self, limit: int, /) -> tuple[list[Removal], int]:
        answer = self._method("drain-removals", limit)
        removals = [Removal(CAUSES.index(removal.cause), removal.key, removal.value) for removal in answer.removals]
        self.removals_wait = len(removals) == limit
        return removals, int(answer.lost)

    def lookup(self, key: bytes, lease_life: int, /) -> bytes | int | None:
        self._check(len(key))
        found = self._method("lookup", key, lease_life)
        if not isinstance(found, wit.ResourceAny):
            return found  # type: ignore[no-any-return]
        self._last_lease += 1
        self._leases[self._last_lease] = found
        return self._last_lease

    def fill(
        self, lease: int, value: bytes, weight: int = 1, ttl: int | None = None, tti: int | None = None, /
    ) -> bool:
        held = self._leases.pop(lease, None)
        if held is None:
            return False
        try:
            self._check(len(value))
        except EntryTooLargeError:
            # It is used up all the same.
            held.drop(self._store)
            raise
        answer = self._call("[static]lease.fill", held, value, _options(weight, ttl, tti))
        self.removals_wait = self._records
        if answer is None or answer.tag == "ok":
            return True
        error = answer.payload if answer.tag == "err" else answer
        if error.tag == "lapsed":
            return False
        raise _set_error(error.payload)

    def release(self, lease: int, /) -> None:
        held = self._leases.pop(lease, None)
        if held is not None:
            held.drop(self._store)

    def close(self) -> None:
        if self._cache is not None:
            self._cache.drop(self._store)
            self._cache = None


class _KeyCursor:
    """See :class:`~._channel.KeyCursor`."""

    def __init__(self, channel: ComponentChannel, cursor: wit.ResourceAny) -> None:
        self._channel = channel
        self._store = channel._store
        self._cursor: wit.ResourceAny | None = cursor

    def next(self, limit: int, /) -> list[bytes]:
        if self._store is not self._channel._store:
            return []
        return self._channel._call("[method]key-cursor.next", self._cursor, limit)  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._cursor is not None:
            if self._store is self._channel._store:
                self._cursor.drop(self._store)
            self._cursor = None
