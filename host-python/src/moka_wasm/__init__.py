"""The moka cache in a WebAssembly sandbox: ``Moka`` and ``cached``, a drop-in for moka-py."""

from . import _main_interpreter as _main_interpreter  # first: it refuses others
from ._cached import cached
from ._cached_method import cached_method
from ._call_keys import hashkey, methodkey, typedkey, typedmethodkey
from ._errors import (
    ClosedError,
    ConfigError,
    DecodeError,
    EntryTooLargeError,
    GuestMemoryError,
    IncompatibleComponentError,
    MokaError,
    OperationTimeoutError,
    RecursiveComputationError,
    SandboxError,
    UnsupportedKeyError,
    UnsupportedValueError,
)
from ._moka import Moka
from ._stats import CacheStats
from ._values import Serializer
from ._version import VERSION

__all__ = [
    "VERSION",
    "CacheStats",
    "ClosedError",
    "ConfigError",
    "DecodeError",
    "EntryTooLargeError",
    "GuestMemoryError",
    "IncompatibleComponentError",
    "Moka",
    "MokaError",
    "OperationTimeoutError",
    "RecursiveComputationError",
    "SandboxError",
    "Serializer",
    "UnsupportedKeyError",
    "UnsupportedValueError",
    "cached",
    "cached_method",
    "hashkey",
    "methodkey",
    "typedkey",
    "typedmethodkey",
]
