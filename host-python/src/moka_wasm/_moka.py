"""``Moka``: a cache in a sandbox, with the interface of moka-py and of a dict."""

from __future__ import annotations

import contextlib
from collections.abc import (
    Callable,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast, overload

from . import _arguments as arguments
from . import _hot as hot
from . import _pure_get as pure_get
from ._channel import UNLIMITED, CacheConfig, Channel, Entry
from ._errors import GuestMemoryError
from ._keys import decode_key, encode_key
from ._listener import Listener
from ._retrying_channel import RetryingChannel
from ._sharded_channel import ShardedChannel, open_shards
from ._single_flight import Request, ThreadFlights
from ._stats import CacheStats
from ._values import Serializer, resolve_serializer

if TYPE_CHECKING:
    from ._direct_channel import DirectChannel

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

Cause = Literal["explicit", "size", "expired", "replaced"]
Policy = Literal["tiny_lfu", "lru"]
OnTrap = Literal["raise", "retry"]
Seconds = float | timedelta

# Removals are drained after every operation, so this is never reached.
_REMOVAL_LOG = 2**32 - 1

_MISSING: Any = object()
# How many keys an iteration has handed over at once.
_KEY_PAGE = 1024


class Moka(hot.Hot, MutableMapping[K, V]):
    """A cache that lives in a WebAssembly sandbox. Keys and values go in as bytes: what comes out is a copy.

    Times are seconds, or a ``timedelta``. Threads may share a cache.

    Args:
        capacity: The most that the weights of all entries may sum up to; ``None`` for no bound. Every entry weighs 1
            unless there is a weigher.
        ttl: Time to live: how long an entry lives after it was set.
        tti: Time to idle: how long an entry lives after it was last set or read.
        eviction_listener: Called as ``listener(key, value, cause)`` for every entry that left the cache, on the thread
            whose operation found that out, after that operation. ``cause`` is one of "expired", "explicit", "replaced"
            and "size". What it raises goes to ``sys.unraisablehook``.
        policy: "tiny_lfu" keeps what is asked for often, "lru" what was used last.
        weigher: Called as ``weigher(key, value)`` on every insertion; answers the entry's weight, an int from 0 on.
        memory_limit: The most bytes of memory that the sandbox may take, at least 1 MiB; ``None`` for no limit but the
            4 GiB of its address space.
        clock: Answers the time in seconds, from any start; ``None`` for ``time.monotonic``. Only its steps forward
            count.
        serializer: How values become bytes: ``None`` (MessagePack, and pickle for what that cannot express),
            "msgpack", "json", "bytes", "pickle", or an object with ``dumps`` and ``loads``.
        name: A name for people.
        on_trap: What an operation does in which the sandbox stops (a trap: a fault of the program inside). The sandbox
            is replaced by an empty one either way, its entries are gone, and ``stats().restarts`` counts it. "raise": a
            :class:`SandboxError`. "retry": the operation is done once more, on the empty one, so that a look-up misses
            and ``set`` stores; should the sandbox stop again and again, there is the error.
        operation_timeout: How long one crossing into the sandbox may take; ``None`` for no limit. What takes longer is
            stopped, no earlier than that and usually within 40 ms after it, as if it had trapped; the error is an
            :class:`OperationTimeoutError`. Other threads run during operations of such a cache, each of which takes
            longer for it, also as the native extension is not used.
        shards: Over how many sandboxes the cache is spread, from 1 to 256, by a hash of the keys: each has up to 4 GiB
            of memory, and threads that run in parallel (in free-threaded Python, or during operations with a timeout)
            wait for those in the same shard only. Capacity, statistics, iteration and listener are those of one cache.
            But ``capacity`` and ``memory_limit`` are split evenly, at least 1 and 1 MiB for each: a shard evicts when
            its own part is full, an entry that is heavier than its shard's part is removed at once, with cause "size",
            and one that does not fit into its shard's memory is refused. A trap empties its own shard only.

    Raises:
        ValueError: An argument is out of range; the message names it.
        TypeError: An argument is of the wrong type.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_config",
        "_decode",
        "_encode",
        "_flights",
        "_get",
        "_listener",
        "_serializer",
        "_set",
        "_short",
        "_weigher",
    )

    if not TYPE_CHECKING:

        def __class_getitem__(cls, _: object) -> type:
            # As in moka-py, ``Moka[str, int]`` is ``Moka``.
            return cls

    def __init__(
        self,
        capacity: int | None,
        ttl: Seconds | None = None,
        tti: Seconds | None = None,
        eviction_listener: Callable[[K, V, Cause], object] | None = None,
        policy: Policy = "tiny_lfu",
        weigher: Callable[[K, V], int] | None = None,
        *,
        memory_limit: int | None = None,
        clock: Callable[[], float] | None = None,
        serializer: Serializer | str | None = None,
        name: str = "",
        on_trap: OnTrap = "raise",
        operation_timeout: Seconds | None = None,
        shards: int = 1,
    ) -> None:
        self._config = CacheConfig(
            name=arguments.name(name),
            capacity=arguments.capacity(capacity),
            ttl=arguments.nanoseconds("ttl", ttl),
            tti=arguments.nanoseconds("tti", tti),
            policy=arguments.policy(policy),
            memory_limit=arguments.memory_limit(memory_limit),
            removal_log=_REMOVAL_LOG if arguments.function("eviction_listener", eviction_listener) is not None else 0,
            clock=arguments.clock(clock),
            operation_timeout=arguments.nanoseconds("operation_timeout", operation_timeout),
        )
        self._weigher = arguments.function("weigher", weigher)
        self._serializer = resolve_serializer(serializer)
        self._encode: Callable[[V], bytes] = self._serializer.dumps
        self._decode: Callable[[bytes], V] = self._serializer.loads
        self._listener = (
            None if eviction_listener is None else Listener(eviction_listener, decode_key, self._serializer.loads)
        )
        self._flights = ThreadFlights()
        retries = arguments.on_trap(on_trap) == "retry"
        channels = open_shards(self._config, arguments.shards(shards, capacity, memory_limit))
        parts = [RetryingChannel(channel) if retries else channel for channel in channels]
        self._use(parts[0] if shards == 1 else ShardedChannel(parts))
        self._short = pure_get.channel_of(self._channel, self._serializer, eviction_listener)
        hot.attach(self, channels, self._serializer, sets=weigher is None)

    def _use(self, channel: Channel) -> None:
        self._channel = channel
        self._get = channel.get
        self._set = channel.set

    # What moka-py has.

    def set(self, key: K, value: V, ttl: Seconds | None = None, tti: Seconds | None = None) -> None:
        """Stores a value under a key, whether or not there is one already.

        Args:
            key: A hashable key that can be encoded.
            value: What the cache's serializer can encode.
            ttl: The entry's own time to live. The earlier of it and the cache's counts.
            tti: The entry's own time to idle, likewise.

        Raises:
            TypeError: The key or the value cannot be encoded.
            ValueError: ttl, tti or the weight is out of range, or the entry can never fit into the memory limit.
            MemoryError: The sandbox gets no memory.
        """
        if ttl is None and tti is None and self._weigher is None:
            self._set(encode_key(key), self._encode(value))
        else:
            self._store(encode_key(key), key, value, None, ttl, tti)
        if self._listener is not None:
            self._notify()

    @overload
    def get(self, key: K, default: None = None) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D) -> V | D: ...
    def get(self, key: K, default: Any = None) -> Any:
        """The value of a live entry, or the default. It is a copy, and yours to change.

        Raises:
            TypeError: The key cannot be encoded.
        """
        data = self._get(encode_key(key))
        if self._listener is not None:
            self._notify()
        return default if data is None else self._decode(data)

    def get_with(
        self, key: K, initializer: Callable[[], V], ttl: Seconds | None = None, tti: Seconds | None = None
    ) -> V:
        """The value of a live entry, or what the initializer computes, which is stored.

        One thread computes; others that ask for the key meanwhile wait for what it finds. If the initializer raises,
        all of them get the exception, and nothing is stored.

        Args:
            key: A hashable key that can be encoded.
            initializer: Called without arguments, with no lock held.
            ttl: As for :meth:`set`; that of the caller whose initializer ran counts.
            tti: Likewise.

        Raises:
            RecursiveComputationError: The initializer asks for its own key.
        """
        # Checked also where they are not needed.
        arguments.nanoseconds("ttl", ttl)
        arguments.nanoseconds("tti", tti)
        key_bytes = encode_key(key)
        mark = self._flights.mark
        data = self._get_encoded(key_bytes)
        if data is not None:
            return self._decode(data)
        return self._flights.run(Request(self, key_bytes, key, ttl, tti), initializer, mark)

    def _get_with_missed(
        self, key: K, initializer: Callable[[], V], mark: object, ttl: Seconds | None, tti: Seconds | None
    ) -> V:
        """The rest of :meth:`get_with` after a look-up that missed; ``mark`` was read before it."""
        return self._flights.run(Request(self, encode_key(key), key, ttl, tti), initializer, mark)

    @overload
    def remove(self, key: K, default: None = None) -> V | None: ...
    @overload
    def remove(self, key: K, default: V | D) -> V | D: ...
    def remove(self, key: K, default: Any = None) -> Any:
        """Takes a live entry out and answers its value, or the default if there is none."""
        data = self._channel.remove(encode_key(key))
        self._notify()
        return default if data is None else self._decode(data)

    def clear(self) -> None:
        """Takes all entries out."""
        self._channel.clear()
        self._notify()

    def count(self) -> int:
        """About how many entries there are; exact after :meth:`run_pending_tasks`."""
        return self._channel.counters().entries

    def weighted_size(self) -> int:
        """About what the weights of all entries sum up to; exact after :meth:`run_pending_tasks`."""
        return self._channel.counters().weight

    def run_pending_tasks(self) -> None:
        """Does now what is otherwise spread over later operations: takes out what has expired (but for the last 17
        milliseconds), and evicts what is too much."""
        self._channel.run_pending_tasks()
        self._notify()

    # Beyond moka-py.

    def expire(self, key: K, remaining: Seconds | None) -> bool:
        """Gives a live entry a new remaining life, in place of its time to live and its time to idle.

        Args:
            key: The entry's key.
            remaining: How long it is to live from now on, shorter or longer than before, whatever the cache's ttl;
                ``None`` for a life without end.

        Returns:
            Whether there was a live entry.
        """
        expired = self._channel.expire(encode_key(key), arguments.nanoseconds("remaining", remaining))
        self._notify()
        return expired

    def remaining(self, key: K) -> float | None:
        """How long a live entry still has to live, in seconds: ``math.inf`` if it has no deadline, ``None`` if there is
        no such entry. Extends nothing."""
        nanoseconds = self._channel.remaining(encode_key(key))
        if nanoseconds is None:
            return None
        return float("inf") if nanoseconds == UNLIMITED else nanoseconds / arguments.NANOSECONDS

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The live entries among these keys, in one crossing, or one for each shard."""
        wanted = list(keys)
        found = self._channel.get_many([encode_key(key) for key in wanted])
        self._notify()
        return {key: self._decode(data) for key, data in zip(wanted, found, strict=True) if data is not None}

    def set_many(
        self,
        entries: Mapping[K, V] | Iterable[tuple[K, V]],
        ttl: Seconds | None = None,
        tti: Seconds | None = None,
    ) -> None:
        """Stores all of these entries, in one crossing, or one for each shard, and in order.

        Everything is encoded and weighed first: a TypeError or a weigher's exception leaves the cache unchanged. If an
        entry does not fit into the memory limit, those before it are stored; of those after it, what belongs to other
        shards may be, too.
        """
        ttl_ns, tti_ns = arguments.nanoseconds("ttl", ttl), arguments.nanoseconds("tti", tti)
        mapping = isinstance(entries, Mapping)
        pairs = cast("Iterable[tuple[K, V]]", cast("Mapping[K, V]", entries).items() if mapping else entries)
        encoded = [
            Entry(encode_key(key), self._encode(value), self._weigh(key, value), ttl_ns, tti_ns) for key, value in pairs
        ]
        self._channel.set_many(encoded)
        self._notify()

    def remove_many(self, keys: Iterable[K]) -> int:
        """Takes these entries out, in one crossing; answers how many of them were live."""
        removed = self._channel.remove_many([encode_key(key) for key in keys])
        self._notify()
        return removed

    def stats(self) -> CacheStats:
        """Counters since the cache was opened, and its size."""
        return CacheStats(**self._channel.counters()._asdict())

    def close(self) -> None:
        """Gives the sandbox and its memory back. Whoever uses the cache after that gets a ClosedError. May be called
        again."""
        self._channel.close()

    def __enter__(self) -> Moka[K, V]:
        # Refused once it is closed, as by any other method.
        self._channel.counters()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a dict has.

    def __getitem__(self, key: K) -> V:
        data = self._get(encode_key(key))
        self._notify()
        if data is None:
            raise KeyError(key)
        return self._decode(data)

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def __delitem__(self, key: K) -> None:
        data = self._channel.remove(encode_key(key))
        self._notify()
        if data is None:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        found = self._channel.contains(encode_key(key))
        self._notify()
        return found

    def __len__(self) -> int:
        """How many entries there are, counted after :meth:`run_pending_tasks`."""
        self.run_pending_tasks()
        return self.count()

    def __bool__(self) -> bool:
        """Always true, so that ``cache or other`` does not throw an empty cache away."""
        return True

    def __iter__(self) -> Iterator[K]:
        """The keys of the entries that are live when the walk begins; those that leave meanwhile may be left out. The
        cache may be changed during the walk."""
        cursor = self._channel.keys()
        try:
            while page := cursor.next(_KEY_PAGE):
                for key in page:
                    yield decode_key(key)  # type: ignore[misc]
        finally:
            cursor.close()

    def values(self) -> ValuesView[V]:
        """A view of the values, each a copy. An entry that leaves during a walk is left out."""
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        """A view of keys and values, likewise."""
        return _Items(self)

    def popitem(self) -> tuple[K, V]:
        """Takes any live entry out and answers it; KeyError if there is none."""
        for key in self:
            value: Any = self.remove(key, _MISSING)
            if value is not _MISSING:
                return key, value
        raise KeyError("popitem(): the cache is empty")

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...
    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """Takes a live entry out and answers its value; without one, the default, or KeyError if that is not given."""
        value = self.remove(key, _MISSING)
        if value is not _MISSING:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def setdefault(self, key: K, default: V = None) -> V:  # type: ignore[assignment]
        """The value of a live entry; without one the default is stored and answered."""
        data = self._channel.get_or_insert(encode_key(key), self._encode(default), self._weigh(key, default))
        self._notify()
        return default if data is None else self._decode(data)

    def update(self, other: Any = (), /, **more: V) -> None:
        """Stores entries, as ``dict.update``, in one crossing."""
        pairs: Any = other
        if isinstance(other, Mapping):
            pairs = cast("Mapping[K, V]", other).items()
        elif hasattr(other, "keys"):
            pairs = [(key, other[key]) for key in other.keys()]  # noqa: SIM118 (as in dict.update)
        self.set_many([*pairs, *cast("Mapping[K, V]", more).items()])

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        config = self._config
        name = f"name={config.name!r}, " if config.name else ""
        return f"<moka_wasm.Moka {name}capacity={config.capacity}, policy={config.policy!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Moka cannot be copied or pickled: its entries live in a sandbox of this process. "
            "Copy its items: dict(cache.items())"
        )

    # What the extension uses.

    def _finish_hot(self, lane: Any, error: int) -> bytes | None:
        data = cast("DirectChannel | RetryingChannel | ShardedChannel", self._channel).finish_hot(lane, error)
        self._notify()
        return data

    def _tell(self, lane: Any, error: int) -> None:
        """Tells the listener of what the extension drained, and sees to the answer on this lane, if there is one, which
        says that more wait or what went wrong."""
        listener = self._listener
        try:
            # The short ways are open to the listener, too.
            self._leave_to_python(False)
            if lane is not None:
                channel = cast("DirectChannel | RetryingChannel | ShardedChannel", self._channel)
                with contextlib.suppress(GuestMemoryError):
                    channel.finish_hot(lane, error)
            if listener is not None:
                listener.notify(self._channel)
                listener.interrupted = False
        except BaseException:
            if listener is not None:
                listener.interrupted = bool(listener.untold)
            raise
        finally:
            # Where something is left untold, the next operation is to come here whatever its own answer is.
            self._leave_to_python(listener is not None and listener.is_due(self._channel))

    # What single flight and the decorators use.

    def _encode_key(self, key: K) -> bytes:
        return encode_key(key)

    def _dumps(self, value: V) -> bytes:
        return self._encode(value)

    def _loads(self, data: bytes) -> V:
        return self._decode(data)

    def _get_encoded(self, key_bytes: bytes) -> bytes | None:
        data = self._get(key_bytes)
        if self._listener is not None:
            self._notify()
        return data

    def _set_encoded(
        self, key_bytes: bytes, key: K, value: V, data: bytes, ttl: Seconds | None, tti: Seconds | None
    ) -> None:
        self._store(key_bytes, key, value, data, ttl, tti)
        self._notify()

    def _store(
        self, key_bytes: bytes, key: K, value: V, data: bytes | None, ttl: Seconds | None, tti: Seconds | None
    ) -> None:
        ttl_ns, tti_ns = arguments.nanoseconds("ttl", ttl), arguments.nanoseconds("tti", tti)
        weight = self._weigh(key, value)
        self._set(key_bytes, self._encode(value) if data is None else data, weight, ttl_ns, tti_ns)

    def _weigh(self, key: K, value: V) -> int:
        return 1 if self._weigher is None else arguments.weight(self._weigher(key, value))

    def _notify(self) -> None:
        listener = self._listener
        if listener is not None and (listener.is_due(self._channel) or self._left_to_python):
            # As the extension does before it calls.
            self._leave_to_python(True)
            self._tell(None, 0)


if not hot.install(Moka):
    pure_get.install(Moka)


# The views of a Mapping look each key up and take for granted that it is still there.


class _Values(ValuesView[V]):
    _mapping: Moka[Any, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class _Items(ItemsView[K, V]):
    _mapping: Moka[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for key in self._mapping:
            value: Any = self._mapping.get(key, _MISSING)
            if value is not _MISSING:
                yield key, value
