"""Shards and traps: what stops in one sandbox leaves the others, and what they hold, as they are."""

# pyright: basic
# Tests look at private state.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from broken_guest import NEVER_ENDS, TRAPS, TRAPS_AFTERWARDS
from test_shards import SEVERAL, a_channel, shard_of, shards_of
from test_trap import broken, broken_file, stop, use_file

from moka_wasm import Moka, OperationTimeoutError, SandboxError, cached

__all__ = ["broken", "broken_file", "use_file"]

pytestmark = pytest.mark.usefixtures("broken")

KEYS = range(100)

# Operations on one key, with the guest's function that each needs, and its answer on an empty shard.
OPERATIONS: dict[str, tuple[str, Callable[[Moka[Any, Any], int], Any], Any]] = {
    "get": ("get", lambda cache, key: cache.get(key), None),
    "get of an odd key": ("get", lambda cache, key: cache.get(float(key), 5), 5),
    "set": ("set", lambda cache, key: cache.set(key, "new"), None),
    "set with a ttl": ("set", lambda cache, key: cache.set(key, "new", ttl=50), None),
    "in": ("contains", lambda cache, key: key in cache, False),
    "remove": ("remove", lambda cache, key: cache.remove(key, 7), 7),
    "expire": ("expire", lambda cache, key: cache.expire(key, 5), False),
    "remaining": ("remaining", lambda cache, key: cache.remaining(key), None),
    "setdefault": ("get_or_insert", lambda cache, key: cache.setdefault(key, "default"), "default"),
    "get_with": ("get", lambda cache, key: cache.get_with(key, lambda: 8), 8),
    "get_many": ("get_many", lambda cache, key: cache.get_many([key]), {}),
    "set_many": ("set_many", lambda cache, key: cache.set_many({key: 1}), None),
    "remove_many": ("remove_many", lambda cache, key: cache.remove_many([key]), 0),
    "a large value": ("mailbox", lambda cache, key: cache.set(key, "v" * 100_000), None),
}


def a_cache(**options: Any) -> Moka[int, Any]:
    cache: Moka[int, Any] = Moka(None, shards=3, **options)
    cache.update({key: key for key in KEYS})
    return cache


def others(cache: Any, key: int) -> list[int]:
    """The keys that are in other shards."""
    return [other for other in KEYS if shard_of(cache, other) is not shard_of(cache, key)]


def keys_in(cache: Any, shard: int) -> list[int]:
    """The keys that are in this shard."""
    return [key for key in KEYS if shard_of(cache, key) is shards_of(cache)[shard]]


def assert_only_its_shard_is_empty(cache: Any, key: int) -> None:
    left = others(cache, key)
    assert 0 < len(left) < 100
    found = cache.get_many(KEYS)
    found.pop(key, None)
    assert found == {other: other for other in left}
    assert cache.stats().restarts == 1
    assert all(shard.binding is None or shard.binding.bound for shard in shards_of(cache))


@pytest.mark.parametrize("how", [TRAPS, TRAPS_AFTERWARDS])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_trap_empties_its_own_shard(operation: str, how: int) -> None:
    """Whatever traps raises once; its shard goes on, empty, with the extension if there is one; the others keep all."""
    function, call, _ = OPERATIONS[operation]
    cache = a_cache()
    stop(shard_of(cache, 5), function, how)
    with pytest.raises(SandboxError, match="goes on, empty"):
        call(cache, 5)
    assert_only_its_shard_is_empty(cache, 5)
    call(cache, 5)
    cache[5] = 5
    assert cache[5] == 5
    assert cache.stats().restarts == 1


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_trap_is_retried_in_its_own_shard(operation: str) -> None:
    """With ``on_trap="retry"`` an operation answers what it answers on an empty shard; the others keep all."""
    function, call, expected = OPERATIONS[operation]
    cache = a_cache(on_trap="retry")
    stop(shard_of(cache, 5), function)
    assert call(cache, 5) == expected
    assert_only_its_shard_is_empty(cache, 5)


def test_clear_goes_on_after_a_trap() -> None:
    """A shard that stops in ``clear`` keeps no other one from being cleared, and the error is raised at the end."""
    for stopped in range(3):
        cache = a_cache()
        stop(shards_of(cache)[stopped], "clear")
        with pytest.raises(SandboxError):
            cache.clear()
        assert len(cache) == 0
        assert cache.stats().restarts == 1
        assert cache.stats().explicit == 100 - len(keys_in(cache, stopped))


def test_pending_tasks_are_done_in_all_shards() -> None:
    """A shard that stops in ``run_pending_tasks`` keeps no other one from taking out what has expired."""
    now = [0.0]
    cache = a_cache(ttl=10, clock=lambda: now[0])
    stop(shards_of(cache)[0], "run_pending")
    now[0] = 60.0
    with pytest.raises(SandboxError):
        cache.run_pending_tasks()
    assert cache.stats().expired == 100 - len(keys_in(cache, 0))
    assert cache.count() == 0


@pytest.mark.parametrize("stopped", range(3))
def test_batches_go_on_after_a_trap(stopped: int) -> None:
    """What a batch stores in, or removes from, the other shards it does all the same, and then raises."""
    cache = a_cache()
    lost = keys_in(cache, stopped)
    kept = [key for key in KEYS if key not in lost]
    stop(shards_of(cache)[stopped], "set_many")
    with pytest.raises(SandboxError):
        cache.set_many(dict.fromkeys(KEYS, "new"))
    assert cache.get_many(KEYS) == dict.fromkeys(kept, "new")
    stop(shards_of(cache)[stopped], "get_many")
    with pytest.raises(SandboxError):
        cache.get_many(KEYS)
    assert cache.get_many(KEYS) == dict.fromkeys(kept, "new")
    stop(shards_of(cache)[stopped], "remove_many")
    with pytest.raises(SandboxError):
        cache.remove_many(KEYS)
    assert list(cache) == []
    assert cache.stats().restarts == 3


def test_batches_are_retried_in_the_shard_that_stopped() -> None:
    """With ``on_trap="retry"`` a batch does all that it is to do."""
    cache = a_cache(on_trap="retry")
    stop(shards_of(cache)[1], "set_many")
    cache.set_many(dict.fromkeys(KEYS, "new"))
    assert cache.get_many(KEYS) == dict.fromkeys(KEYS, "new")
    stop(shards_of(cache)[1], "get_many")
    kept = [*keys_in(cache, 0), *keys_in(cache, 2)]
    assert cache.get_many(KEYS) == dict.fromkeys(kept, "new")
    stop(shards_of(cache)[2], "remove_many")
    assert cache.remove_many(KEYS) == len(keys_in(cache, 0))
    assert cache.stats().restarts == 3


def test_a_walk_leaves_out_what_a_trap_took() -> None:
    """A walk that is under way meets every key of the shards that did not stop."""
    cache = a_cache()
    walk = iter(cache)
    met = [next(walk)]
    last = shards_of(cache)[2]
    lost = set(keys_in(cache, 2))
    stop(last, "contains")
    with pytest.raises(SandboxError):
        assert next(iter(lost)) in cache
    met += walk
    assert sorted(met) == sorted(set(KEYS) - lost)


def test_a_walk_that_cannot_begin_leaves_no_cursor() -> None:
    """If a shard stops when a walk begins, the error is raised, and the others' cursors are closed."""
    cache = a_cache()
    closed: list[int] = []
    for number, shard in enumerate(shards_of(cache)[:2]):
        shard.close_keys = lambda *_, number=number: closed.append(number)
    stop(shards_of(cache)[2], "keys")
    with pytest.raises(SandboxError):
        list(cache)
    assert closed == [0, 1]


def test_removals_of_a_shard_that_stops_are_not_told() -> None:
    """What the other shards had to tell is told, once."""
    told: list[int] = []
    cache = a_cache(eviction_listener=lambda key, *_: told.append(key))
    lost = set(keys_in(cache, 0))
    # Removed without being told, as by a thread that is about to tell.
    cache._channel.clear()
    stop(shards_of(cache)[0], "drain")
    with pytest.raises(SandboxError):
        cache.run_pending_tasks()
    cache.run_pending_tasks()
    assert sorted(told) == sorted(set(KEYS) - lost)


def test_leases_of_other_shards_hold() -> None:
    """A trap ends the leases of its own shard only."""
    channel = a_channel(3)
    keys = [b"%d" % key for key in KEYS]
    leases: dict[bytes, Any] = {key: channel.lookup(key, 10**15) for key in keys}
    stop(channel._shards[1], "get")
    with pytest.raises(SandboxError):
        channel.get(next(key for key in keys if channel._shard(key) is channel._shards[1]))
    for key in keys:
        assert channel.fill(leases[key], b"v") == (channel._shard(key) is not channel._shards[1])


@SEVERAL
def test_closing_calls_nothing(shards: int) -> None:
    """To close a cache lets all sandboxes go without a call into them: a trap there harms nobody."""
    cache: Moka[int, int] = Moka(8, shards=shards)
    for shard in shards_of(cache):
        stop(shard, "close")
    cache.close()
    assert [shard._guest for shard in shards_of(cache)] == [None] * shards


def test_close_goes_on_after_an_error() -> None:
    """A shard that cannot be closed keeps no other one open."""
    channel = a_channel(3)

    def refuse() -> None:
        raise RuntimeError("not now")

    channel._shards[0].close = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="not now"):
        channel.close()
    assert [shard._guest is None for shard in channel._shards] == [False, True, True]  # type: ignore[union-attr]


def test_an_operation_that_never_ends_is_stopped_in_its_shard() -> None:
    """``operation_timeout`` stops one shard; the others keep all."""
    cache = a_cache(operation_timeout=0.1)
    stop(shard_of(cache, 5), "get", NEVER_ENDS)
    with pytest.raises(OperationTimeoutError, match=r"0\.1 seconds,.*goes on, empty"):
        cache.get(5)
    assert_only_its_shard_is_empty(cache, 5)


def test_cached_functions_compute_what_a_trap_took() -> None:
    """``cached(on_trap="retry")`` computes anew what was in the shard that stopped, and nothing else."""
    calls: list[int] = []

    @cached(maxsize=None, on_trap="retry", shards=3)
    def compute(number: int) -> int:
        calls.append(number)
        return number

    for number in KEYS:
        compute(number)
    stopped = shards_of(compute.cache)[1]
    lost = [number for number in KEYS if shard_of(compute.cache, compute.cache_key(number)) is stopped]
    calls.clear()
    stop(stopped, "get")
    assert [compute(number) for number in KEYS] == list(KEYS)
    assert calls == lost
