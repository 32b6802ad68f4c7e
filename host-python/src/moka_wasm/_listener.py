"""The eviction listener: told after an operation, on the thread that did it, what left the cache."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ._channel import CAUSES, Channel

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

    def notify(self, channel: Channel) -> None:
        """Tells the listener of everything that waits. No lock is held, so it may use the cache; what that removes is
        told once it has returned."""
        if getattr(self._thread, "notifying", False):
            return
        self._thread.notifying = True
        try:
            while channel.removals_wait:
                removals, _ = channel.drain(_BATCH)
                for cause, key, value in removals:
                    self._tell(key, value, CAUSES[cause])
        finally:
            self._thread.notifying = False

    def _tell(self, key: bytes, value: bytes, cause: str) -> None:
        try:
            self._listener(self._decode_key(key), self._decode_value(value), cause)
        except Exception as error:
            sys.unraisablehook(
                SimpleNamespace(  # type: ignore[arg-type]
                    exc_type=type(error),
                    exc_value=error,
                    exc_traceback=error.__traceback__,
                    err_msg="Exception ignored in an eviction listener",
                    object=self._listener,
                )
            )
