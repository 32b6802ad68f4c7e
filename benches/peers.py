"""Measures a get that hits, a get that misses, a set over an existing key and a decorated function's hit beside other
caches, under the conditions of ``operations``. Each is used as its documentation says that threads may share it."""

from __future__ import annotations

import functools
import importlib
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from operations import (
    CAPACITY,
    LIVE,
    VALUE,
    absent_keys,
    again_and_again,
    cached_hit,
    filled,
    live_keys,
    setting,
    with_each,
)
from rounds import Inputs, Side, time_in_rounds
from section import Options, progress
from table import Goal, Row

import moka_wasm

TTL = 3600


@dataclass(frozen=True)
class Peer:
    """Another cache, filled, and how it is asked."""

    get: Callable[[Any], object]
    set: Callable[[Any, Any], object]
    found: Callable[[Any], bool] = lambda answer: answer == VALUE
    close: Callable[[], object] = lambda: None


def cachetools_ttl() -> Peer:
    cachetools = importlib.import_module("cachetools")
    cache = cachetools.TTLCache(CAPACITY, TTL)
    lock = threading.Lock()

    def get(key: str) -> object:
        with lock:
            return cache.get(key)

    def store(key: str, value: str) -> None:
        with lock:
            cache[key] = value

    return Peer(get, store)


def theine_tlfu() -> Peer:
    cache = importlib.import_module("theine").Cache(CAPACITY)
    return Peer(cache.get, cache.set, lambda answer: answer == (VALUE, True), cache.close)


def cachebox_lru() -> Peer:
    cache = importlib.import_module("cachebox").LRUCache(CAPACITY)
    return Peer(cache.get, cache.insert)


def diskcache_sqlite() -> Peer:
    diskcache = importlib.import_module("diskcache")
    folder = tempfile.TemporaryDirectory()
    cache = diskcache.Cache(folder.name)

    def close() -> None:
        cache.close()
        folder.cleanup()

    return Peer(cache.get, cache.set, close=close)


def redis_over_loopback() -> Peer:
    """A server of its own, as the distribution brings it, asked by redis-py with hiredis."""
    redis = importlib.import_module("redis")
    importlib.import_module("hiredis")
    program = shutil.which("redis-server")
    if program is None:
        raise ImportError("there is no redis-server; Debian's package of that name has one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    retry = importlib.import_module("redis.retry").Retry(
        importlib.import_module("redis.backoff").ConstantBackoff(0.1), 100
    )
    client = redis.Redis(port=port, decode_responses=True, retry=retry)

    def close() -> None:
        client.close()
        server.terminate()
        server.wait()

    try:
        client.ping()
    except redis.RedisError:
        close()
        raise
    return Peer(client.get, client.set, close=close)


# The peer's name; how to open it; whether it has a ttl, and ours beside it too; what a get that hits is to reach.
PEERS: tuple[tuple[str, Callable[[], Peer], bool, Goal], ...] = (
    ("cachetools.TTLCache, Lock", cachetools_ttl, True, Goal(native=0.5)),
    ("theine.Cache", theine_tlfu, False, Goal(native=0.3)),
    ("cachebox.LRUCache", cachebox_lru, False, Goal()),
    ("diskcache.Cache", diskcache_sqlite, False, Goal()),
    ("Redis, loopback, hiredis", redis_over_loopback, False, Goal(native=0.02)),
)


def section(options: Options) -> Iterator[Row]:
    """Ours beside other caches."""
    for name, opened, with_ttl, goal in PEERS:
        try:
            peer = opened()
        except ImportError as error:
            progress(f"skipped: {name}, as it cannot be imported: {error}")
            continue
        for key in live_keys():
            peer.set(key, VALUE)
        assert peer.found(peer.get(live_keys()[0])), name
        assert not peer.found(peer.get("absent")), name
        ours = filled(moka_wasm, ttl=TTL if with_ttl else None)
        hits, misses = again_and_again(live_keys()), again_and_again(absent_keys())
        sides = {
            "get, hit": (Side(with_each(ours.get), hits), Side(with_each(peer.get), hits)),
            "get, miss": (Side(with_each(ours.get), misses), Side(with_each(peer.get), misses)),
            "set, existing key": (Side(setting(ours.set, VALUE), hits), Side(setting(peer.set, VALUE), hits)),
        }
        for operation, (our_side, their_side) in sides.items():
            title = f"{operation}, with ttl" if with_ttl else operation
            progress(f"{title}: {name}")
            # Peers that take long need fewer operations to fill a turn.
            effort = replace(options.effort, least=20)
            times = time_in_rounds({"ours": our_side, "theirs": their_side}, effort)
            yield Row(title, name, times["ours"], times["theirs"], goal=goal if operation == "get, hit" else Goal())
        peer.close()
    yield lru_cache(options)


def lru_cache(options: Options) -> Row:
    """A decorated function's hit, beside the standard library's decorator."""
    operation, name = "cached f(int, int), hit", "functools.lru_cache"
    progress(f"{operation}: {name}")

    @functools.lru_cache(CAPACITY)
    def add(a: int, b: int) -> int:
        return a + b

    def run(inputs: Inputs) -> None:
        for a, b in inputs:
            add(a, b)

    ours = cached_hit(None)(moka_wasm)
    run(ours.inputs(LIVE))
    times = time_in_rounds({"ours": ours, "theirs": Side(run, ours.inputs)}, options.effort)
    return Row(operation, name, times["ours"], times["theirs"])
