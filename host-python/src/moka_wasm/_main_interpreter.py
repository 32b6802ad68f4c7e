"""Refuses subinterpreters, where the guest's call for a random number would wait for ever.

ctypes runs a callback in the main interpreter, whose lock the calling thread of another one waits for.
"""

from __future__ import annotations

import importlib

for _name in ("_interpreters", "_xxsubinterpreters"):
    try:
        _interpreters = importlib.import_module(_name)
    except ImportError:
        continue
    _current, _main = _interpreters.get_current(), _interpreters.get_main()
    # From 3.13 on each is a tuple of an id and of how the interpreter came to be.
    if (_current[0] != _main[0]) if isinstance(_current, tuple) else (_current != _main):
        raise ImportError("moka_wasm cannot be used in a subinterpreter: use it in the main one, or a process")
    break
