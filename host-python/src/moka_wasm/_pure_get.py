"""``Moka.get`` where there is no extension: key, crossing and value in one function, as calls between functions would
take longer than the sandbox.

What is common it does by itself: a ``str`` key, and a cache that has MessagePack values, one shard and no listener. All
else is left to the method of ``Moka``.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from ._direct_channel import NO_BYTES, REMOVALS_WAIT, DirectChannel
from ._msgpack import MessagePackSerializer

if TYPE_CHECKING:
    from ._moka import Moka


def channel_of(channel: object, serializer: object, listener: object) -> DirectChannel | None:
    """The channel, if a cache that has these can take the short way."""
    if listener is None and type(serializer) is MessagePackSerializer and isinstance(channel, DirectChannel):
        return channel
    return None


def install(cache_class: type[Moka[Any, Any]]) -> None:
    """Puts the short way before the method of the class."""
    whole = cache_class.get

    @wraps(whole)
    def get(self: Moka[Any, Any], key: Any, default: Any = None) -> Any:
        channel = self._short
        if channel is None or type(key) is not str:
            return whole(self, key, default)
        lanes = channel._lanes
        try:
            data = b"\x10" + key.encode()
            lane = lanes.pop()
        except (UnicodeEncodeError, IndexError):
            return whole(self, key, default)
        try:
            lane.mailbox.value = data
        except ValueError:
            # It does not fit.
            lanes.append(lane)
            return whole(self, key, default)
        # From here on as DirectChannel.get.
        args = lane.get_args
        args[0] = lane.number
        args[4] = len(data)
        if channel.timed:
            args[6] = channel._now()
        guest = lane.guest
        error = guest.call(*lane.get_parameters)
        words = lane.get_words
        upper = words[1]
        if 0 < upper < REMOVALS_WAIT:
            start = words[0]
            end = start + upper
            if end > guest.size:
                guest.check(end)
            data = guest.address_space[start:end]
            lanes.append(lane)
            head = data[0]
            # A short str, as MessagePackSerializer.loads has it.
            if 0xA0 <= head <= 0xBF and upper == head - 0x9F:
                try:
                    return data[1:].decode()
                except UnicodeDecodeError:
                    pass
            return self._decode(data)
        if upper == NO_BYTES:
            lanes.append(lane)
            return default
        found = channel.finish_get(lanes, lane, error)
        return default if found is None else self._decode(found)

    cache_class.get = get  # type: ignore[method-assign]
