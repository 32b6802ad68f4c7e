"""The eviction listener: told after an operation, on the thread that did it, what left the cache."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ._channel import CAUSES, Channel
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
        self.untold: deque[tuple[int, bytes, bytes]] = deque()
        """Cause, key and value of what was drained, by the extension too, and not told yet."""
        self.interrupted = False
        """Whether an interrupt (Ctrl-C, say) left something there."""

    def is_due(self, channel: Channel) -> bool:
        """Whether there is something to tell, and it is not told already, further up on this thread."""
        return (channel.removals_wait or self.interrupted) and not self._is_telling()

    def _is_telling(self) -> bool:
        return getattr(self._thread, "telling", False)

    def notify(self, channel: Channel) -> None:
        """Tells the listener of everything that waits. No lock is held, so it may use the cache; what that removes is
        told once it has returned."""
        if self._is_telling():
            return
        self._thread.telling = True
        try:
            self._tell_all(channel)
        finally:
            self._thread.telling = False

    def _tell_all(self, channel: Channel) -> None:
        untold = self.untold
        while True:
            while untold:
                try:
                    removal = untold.popleft()
                except IndexError:
                    # Another thread told the last one.
                    break
                self._tell(removal)
            if not channel.removals_wait:
                return
            try:
                untold += channel.drain(_BATCH)[0]
            except (ClosedError, GuestMemoryError):
                # Closed by the listener, or by another thread. What there is no memory to hand over is told later.
                return

    def _tell(self, removal: tuple[int, bytes, bytes]) -> None:
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
