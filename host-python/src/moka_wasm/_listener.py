"""The eviction listener: told after an operation, on the thread that did it, what left the cache."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ._channel import CAUSES, Channel, Removal
from ._errors import ClosedError, GuestMemoryError

_BATCH = 256


class Listener:
    """Hands what a channel reports to a listener.

    Args:
        listener: Called as ``listener(key, value, cause)``.
        decode_key: Bytes to a key.
        decode_value: Bytes to a value.
    """

    def __init__(
        self,
        listener: Callable[[Any, Any, Any], object],
        decode_key: Callable[[bytes], Any],
        decode_value: Callable[[bytes], Any],
    ) -> None:
        self._listener = listener
        self._decode_key = decode_key
        self._decode_value = decode_value
        self._thread = threading.local()
        # Drained, and not told yet. An interrupt that leaves a listener (Ctrl-C, say) leaves the rest here.
        self._untold: deque[Removal] = deque()

    def notify(self, channel: Channel) -> None:
        """Tells the listener of everything that waits. No lock is held, so it may use the cache; what that removes is
        told once it has returned."""
        if getattr(self._thread, "notifying", False):
            return
        self._thread.notifying = True
        try:
            while removal := self._next(channel):
                self._tell(removal)
        finally:
            self._thread.notifying = False
            if self._untold:
                channel.removals_wait = True

    def _next(self, channel: Channel) -> Removal | None:
        while True:
            try:
                return self._untold.popleft()
            except IndexError:
                if not channel.removals_wait:
                    return None
            try:
                self._untold += channel.drain(_BATCH)[0]
            except (ClosedError, GuestMemoryError):
                # Closed by the listener, or by another thread. What there is no memory to hand over is told later.
                return None

    def _tell(self, removal: Removal) -> None:
        cause, key, value = removal
        try:
            self._listener(self._decode_key(key), self._decode_value(value), CAUSES[cause])
        except Exception as error:
            sys.unraisablehook(
                SimpleNamespace(  # pyright: ignore[reportArgumentType]
                    exc_type=type(error),
                    exc_value=error,
                    exc_traceback=error.__traceback__,
                    err_msg="Exception ignored in an eviction listener",
                    object=self._listener,
                )
            )
