"""Every exception that this package raises on its own account.

A caller's mistake is also a ``TypeError`` or a ``ValueError``: code that does not know this package catches it.
"""

from __future__ import annotations


class MokaError(Exception):
    """The base of all of them."""


class ConfigError(MokaError, ValueError):
    """A cache cannot be opened, or an entry set, with this argument. The message names it, its value and the remedy."""


class UnsupportedKeyError(MokaError, TypeError):
    """This object cannot be a key: it is unhashable, or nothing is known that encodes equal ones to equal bytes."""


class UnsupportedValueError(MokaError, TypeError):
    """This object cannot be a value: the cache's serializer has no bytes for it. The cache is unchanged."""


class DecodeError(MokaError, ValueError):
    """These bytes are no encoded key or value."""


class EntryTooLargeError(MokaError, ValueError):
    """The entry can never fit into the cache's memory limit. The cache is unchanged."""


class GuestMemoryError(MokaError, MemoryError):
    """The sandbox cannot get the memory for this operation, although nothing more can be evicted."""


class ClosedError(MokaError, RuntimeError):
    """The cache was closed."""


class RecursiveComputationError(MokaError, RuntimeError):
    """A computation asked, while it ran, for the very key that it computes, or waits for one that waits for it."""


class SandboxError(MokaError, RuntimeError):
    """The sandbox stopped in the middle of an operation (a trap), or answered what makes no sense.

    After a trap it is replaced by an empty one with the same configuration: its entries are gone, and the cache goes
    on. The operation that trapped raises this, as do those of other threads that were under way; later ones do not.
    ``__cause__`` is wasmtime's own exception. ``Moka(..., on_trap="retry")`` does the operation once more instead.
    """


class OperationTimeoutError(SandboxError, TimeoutError):
    """An operation took longer than the cache's ``operation_timeout``, and the sandbox was stopped: as any
    :class:`SandboxError`, it goes on, empty."""


class IncompatibleComponentError(MokaError, RuntimeError):
    """The component file is damaged, or speaks another version of the direct ABI than this package."""
