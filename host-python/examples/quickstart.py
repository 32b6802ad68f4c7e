"""A moka cache in a WebAssembly sandbox, serving Python: the three examples that moka-py's README opens with.

Every line that is printed says what happened, and how the counters inside the sandbox stand after it.
"""

from __future__ import annotations

import threading
import time

from moka_wasm import Moka, cached


def inside(cache: Moka) -> str:  # type: ignore[type-arg]
    """What the cache inside the sandbox says of itself."""
    cache.run_pending_tasks()
    stats = cache.stats()
    return (
        f"[in the sandbox: {stats.entries} entries, {stats.hits} hits, {stats.misses} misses, {stats.expired} expired,"
        f" {stats.memory_bytes // 1024} KiB of wasm memory]"
    )


def time_to_live_and_time_to_idle() -> None:
    print("1. Time to live (1.2 s) and time to idle (0.5 s)")
    cache: Moka[str, list[int]] = Moka(capacity=100, ttl=1.2, tti=0.5)

    cache.set("key", [3, 2, 1])
    print("   stored [3, 2, 1] under 'key'", inside(cache))

    got = cache.get("key")
    assert got is not None
    assert got == [3, 2, 1]
    got.append(0)
    print(f"   read it, and changed what was read to {got}: it is a copy, the cache still has {cache.get('key')}")

    for _ in range(2):
        time.sleep(0.3)
        assert cache.get("key") == [3, 2, 1]
        print("   read it 0.3 s later: reading keeps it from idling", inside(cache))

    time.sleep(0.7)
    assert cache.get("key") is None
    print("   not read for 0.7 s: it is gone, by its time to idle", inside(cache))

    cache.set("key", [1])
    start = time.monotonic()
    while cache.get("key") is not None:
        time.sleep(0.1)
    print(f"   stored again and read all the time: gone after {time.monotonic() - start:.1f} s, by its time to live")
    cache.close()


def cached_function() -> None:
    print("2. @cached(maxsize=1024, ttl=10.0, tti=0.5)")
    computations = []

    @cached(maxsize=1024, ttl=10.0, tti=0.5)
    def add(x: int, y: int) -> int:
        computations.append((x, y))
        return x + y

    print(f"   add(1, 2) = {add(1, 2)}: computed", inside(add.cache))
    print(f"   add(1, 2) = {add(1, 2)}: from the cache", inside(add.cache))
    time.sleep(0.6)
    print(f"   add(1, 2) = {add(1, 2)}: 0.6 s later, computed again", inside(add.cache))
    assert len(computations) == 2, computations
    print(f"   {add.cache_info()}")


def two_threads_one_computation() -> None:
    print("3. Two threads ask for the same user at once, @cached(ttl=5, wait_concurrent=True)")
    calls = []

    @cached(ttl=5, wait_concurrent=True)
    def get_user(user_id: int) -> dict[str, object]:
        calls.append(user_id)
        time.sleep(0.3)  # stands for an HTTP request
        return {"id": user_id, "first_name": "Jack", "last_name": "Pot"}

    def work(job: str) -> None:
        user = get_user(123)
        print(f"   {job}: got {user['first_name']} {user['last_name']}\n", end="")  # one write, lest lines mix

    threads = [threading.Thread(target=work, args=(job,)) for job in ("page", "payment")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [123], calls
    print(f"   the function ran {len(calls)} time", inside(get_user.cache))


if __name__ == "__main__":
    time_to_live_and_time_to_idle()
    cached_function()
    two_threads_one_computation()
    print("All of it happened in a WebAssembly component that has no files, no environment, no network and no output.")
