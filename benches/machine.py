"""Where and with what a measurement was made."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import moka_wasm
from moka_wasm._component_file import component

PACKAGES = ("wasmtime", "msgpack", "moka-py", "cachetools", "theine", "cachebox", "diskcache")


def describe() -> dict[str, str]:
    """The machine, the interpreter, and the versions of everything that is measured."""
    moka_wasm.Moka(1).close()
    extension = "with" if "moka_wasm._native" in sys.modules else "without"
    guest = component()
    facts = {
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        "load average": _load(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}"
        + ("" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"),
        "moka-wasm": f"{moka_wasm.VERSION} {extension} the native extension, component of {len(guest)} bytes, "
        f"sha256 {hashlib.sha256(guest).hexdigest()[:16]}",
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _load() -> str:
    try:
        return ", ".join(f"{load:.2f}" for load in os.getloadavg())
    except (AttributeError, OSError):
        return "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
