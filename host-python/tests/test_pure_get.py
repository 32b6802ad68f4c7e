"""``Moka.get`` in one function, as it is without the extension: it says what the whole method says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broken_guest import TRAPS, broken_component, forget_compiled, switch

from moka_wasm import ClosedError, DecodeError, Moka, SandboxError, UnsupportedKeyError
from moka_wasm import _pure_get as pure_get


class ShortMoka(Moka[Any, Any]):
    """A cache that takes the short way, with the extension and without."""

    __slots__ = ("times_whole",)

    def get(self, key: Any, default: Any = None) -> Any:
        """The whole method, counted."""
        self.times_whole = getattr(self, "times_whole", 0) + 1
        return super().get(key, default)


pure_get.install(ShortMoka)


def went_short(cache: ShortMoka) -> bool:
    """Whether the last ``get`` needed nothing but the short way."""
    times, cache.times_whole = getattr(cache, "times_whole", 0), 0
    return times == 0


@pytest.mark.parametrize(
    "value",
    [
        *("", "a", "x" * 30, "x" * 31, "x" * 32, "\u00e4" * 15, "\u00e4" * 16, "\ud800", "x" * 70_000),
        *(0, -1, 1 << 70, 1.5, None, True, b"", b"\xa1a", [], {}, {"a": [1, (2,)]}, Exception),
    ],
)
def test_every_value_comes_back(value: object) -> None:
    """Values that it decodes by itself, and all others."""
    cache = ShortMoka(10)
    cache.set("key", value)
    found = cache.get("key")
    assert found == value
    assert type(found) is type(value)
    assert went_short(cache)


@pytest.mark.parametrize("key", ["", "k", "\u00e4" * 20, "x" * 65_535])
def test_text_keys_go_the_short_way(key: str) -> None:
    """Up to the mailbox's size."""
    cache = ShortMoka(10)
    assert cache.get(key) is None
    assert cache.get(key, 7) == 7
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.get(key=key, default=7) == "value"
    assert went_short(cache)


@pytest.mark.parametrize("key", ["x" * 65_536, "x" * 1_000_000, "\ud800", 1, b"k", ("k", 1), None])
def test_other_keys_go_the_whole_way(key: object) -> None:
    """No lane is lost on the way."""
    cache = ShortMoka(10)
    lanes = len(cache._channel._lanes)  # type: ignore[attr-defined]
    assert cache.get(key, 7) == 7
    assert not went_short(cache)
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert len(cache._channel._lanes) == lanes  # type: ignore[attr-defined]


def test_what_is_no_key_is_refused() -> None:
    """As by the whole method."""
    with pytest.raises(UnsupportedKeyError):
        ShortMoka(10).get(["list"])
    with pytest.raises(TypeError):
        ShortMoka(10).get()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        {"eviction_listener": lambda *_: None},
        {"serializer": "json"},
        {"serializer": "pickle"},
        {"shards": 2},
        {"on_trap": "retry"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_caches_go_the_whole_way(options: dict[str, Any]) -> None:
    """Those that have something to do besides."""
    cache = ShortMoka(10, **options)
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert not went_short(cache)


def test_lookups_are_counted_and_are_uses() -> None:
    """For the statistics and the policy it is a look-up as any other."""
    cache = ShortMoka(2, policy="lru")
    cache.set("a", 1)
    cache.set("b", 2)
    cache.run_pending_tasks()
    assert cache.get("a") == 1
    assert cache.get("z") is None
    cache.set("c", 3)
    cache.run_pending_tasks()
    assert cache.get("a") == 1
    assert cache.get("b") is None
    assert (cache.stats().hits, cache.stats().misses) == (2, 2)


def test_deadlines_hold() -> None:
    """Also where the first of them comes late."""
    now = 0.0
    cache = ShortMoka(10, clock=lambda: now, tti=10)
    cache.set("key", "value")
    now = 9.0
    assert cache.get("key") == "value"
    now = 18.0
    assert cache.get("key") == "value"
    now = 28.0
    assert cache.get("key") is None
    assert went_short(cache)


def test_it_reads_no_clock_before_there_are_deadlines() -> None:
    """The time is read from the first entry on that has one."""
    cache = ShortMoka(10)
    cache.set("key", "value")
    channel: Any = cache._channel
    readings = []
    channel._now = lambda: readings.append(1) or 1_000_000_000 * len(readings)  # type: ignore[func-returns-value]
    assert cache.get("key") == "value"
    assert not readings
    cache.expire("key", 2)
    before = len(readings)
    assert cache.get("key") == "value"
    assert len(readings) == before + 1
    assert cache.get("key") is None


def test_a_closed_cache_says_so() -> None:
    """As by the whole method."""
    cache = ShortMoka(10)
    cache.close()
    with pytest.raises(ClosedError):
        cache.get("key")


def test_bytes_that_are_no_text_are_refused() -> None:
    """The guest is not believed: it may answer whatever it likes as a str."""
    cache = ShortMoka(10)
    cache._channel.set(b"\x10key", b"\xa1\xff")
    with pytest.raises(DecodeError):
        cache.get("key")


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A component whose ``get`` can be made to trap."""
    path = tmp_path / "broken.wasm"
    path.write_bytes(broken_component(["moka_get"]))
    monkeypatch.setenv("MOKA_WASM_COMPONENT", str(path))
    forget_compiled()
    yield
    forget_compiled()


@pytest.mark.usefixtures("traps")
def test_a_trap_is_raised_once() -> None:
    """The cache goes on, empty."""
    cache = ShortMoka(10)
    cache.set("key", "value")
    switch(cache, 0, TRAPS)
    with pytest.raises(SandboxError):
        cache.get("key")
    assert cache.get("key") is None
    assert cache.stats().restarts == 1
    cache.set("key", "again")
    assert cache.get("key") == "again"


def test_a_lookup_may_come_in_the_middle_of_another() -> None:
    """A signal handler, or a finalizer: it has a lane of its own."""
    cache = ShortMoka(10)
    cache.set("key", "value")
    cache.set("other", "thing")
    channel: Any = cache._channel
    guest = channel._guest
    call: Callable[..., int] = guest.call

    def interrupted(*arguments: Any) -> int:
        guest.call = call
        assert cache.get("other") == "thing"
        return call(*arguments)

    guest.call = interrupted
    assert cache.get("key") == "value"
