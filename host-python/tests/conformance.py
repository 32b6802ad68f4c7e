"""The conformance suite of tests/conformance, run over a face by its channel. Its README.md documents the format."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from moka_wasm._channel import CAUSES, UNLIMITED, CacheConfig, Channel, Counters, Entry, KeyCursor
from moka_wasm._component_channel import ComponentChannel, _options, _set_error
from moka_wasm._direct_channel import DirectChannel
from moka_wasm._errors import ConfigError, EntryTooLargeError, GuestMemoryError

SUITE = Path(__file__).parents[2] / "tests" / "conformance"
TOO_LARGE = re.compile(r"the entry would take (\d+) bytes and may take (\d+): ")


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case, with a name that tells its file."""
    for file in sorted(SUITE.glob("*.json")):
        for case in json.loads(file.read_text())["cases"]:
            yield f"{file.stem}/{case['name']}", case


def number(value: Any) -> int:
    return int(value.replace("_", "")) if isinstance(value, str) else int(value)


def optional(value: Any) -> int | None:
    return None if value is None else number(value)


def to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return value["repeat"].encode() * number(value["times"])


def replace(value: Any, index: int) -> Any:
    """The value with ``{i}`` replaced in all its strings."""
    if isinstance(value, str):
        return value.replace("{i}", str(index))
    if isinstance(value, list):
        return [replace(item, index) for item in value]
    if isinstance(value, dict):
        return {name: replace(item, index) for name, item in value.items()}
    return value


def unroll(items: list[Any]) -> list[Any]:
    """The list with its loops written out."""
    result: list[Any] = []
    for item in items:
        if isinstance(item, dict) and "each" in item:
            for index in range(number(item["from"]), number(item["to"])):
                result += unroll([replace(item["each"], index)])
        else:
            result.append(item)
    return result


def in_range(expected: Any, actual: int) -> bool:
    if isinstance(expected, dict):
        assert set(expected) <= {"min", "max"}, expected
        low, high = optional(expected.get("min")), optional(expected.get("max"))
        return (low is None or low <= actual) and (high is None or actual <= high)
    return number(expected) == actual


class Clock:
    """Moves by ``advance``, and by ``tick`` after each reading."""

    def __init__(self, start: int, tick: int) -> None:
        self.now, self.tick = start, tick

    def __call__(self) -> int:
        now, self.now = self.now, self.now + self.tick
        return now


class Face(Protocol):
    """What the suite needs of a face and no channel offers, as the package has no use for it."""

    def open(self, config: CacheConfig) -> Channel: ...
    def entry_count(self, cache: Any) -> int: ...
    def weighted_size(self, cache: Any) -> int: ...
    def set_many(self, cache: Any, entries: Sequence[Entry]) -> tuple[int, Exception] | None:
        """The index at which the face says that it stopped, and why."""
        ...


class DirectFace:
    """The direct ABI, where the counts are asked for by ``stats``."""

    open = DirectChannel

    def entry_count(self, cache: DirectChannel) -> int:
        return cache.counters().entries

    def weighted_size(self, cache: DirectChannel) -> int:
        return cache.counters().weight

    def set_many(self, cache: DirectChannel, entries: Sequence[Entry]) -> tuple[int, Exception] | None:
        stored = 0
        try:
            for count in cache.store(entries):
                stored = count
        except (EntryTooLargeError, GuestMemoryError) as error:
            return stored, error
        assert stored == len(entries)
        return None


class ComponentFace:
    """The component face, each of whose functions is called by its own name."""

    open = ComponentChannel

    def entry_count(self, cache: ComponentChannel) -> int:
        return int(cache._method("entry-count"))

    def weighted_size(self, cache: ComponentChannel) -> int:
        return int(cache._method("weighted-size"))

    def set_many(self, cache: ComponentChannel, entries: Sequence[Entry]) -> tuple[int, Exception] | None:
        failed = cache._method("set-many", [(key, value, _options(*options)) for key, value, *options in entries])
        return None if failed is None else (failed.index, _set_error(failed.reason))


class Case:
    """One run of one case."""

    def __init__(self, case: dict[str, Any], face: Face, start: int) -> None:
        assert set(case) <= {"name", "rule", "config", "steps", "tick"}, case
        self.case = case
        self.face = face
        self.clock = Clock(start, number(case.get("tick", 0)))
        self.caches: dict[str, Channel] = {}
        self.cursors: dict[str, KeyCursor] = {}
        self.seen: dict[str, list[bytes]] = {}
        self.leases: dict[str, tuple[Channel, int]] = {}

    def run(self) -> None:
        if "config" in self.case:
            self.caches["main"] = self.open(self.case["config"])
        self.steps(self.case["steps"])

    def open(self, config: dict[str, Any]) -> Channel:
        assert set(config) <= {"name", "capacity", "ttl", "tti", "policy", "memory-limit", "removal-log"}, config
        return self.face.open(
            CacheConfig(
                name=config.get("name", ""),
                capacity=optional(config.get("capacity")),
                ttl=optional(config.get("ttl")),
                tti=optional(config.get("tti")),
                policy=config.get("policy", "tiny-lfu").replace("-", "_"),
                memory_limit=optional(config.get("memory-limit")),
                removal_log=optional(config.get("removal-log")) or 0,
                clock=self.clock,
            )
        )

    def steps(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            fields = dict(step)
            op = fields.pop("op")
            if op == "for":
                for index in range(number(fields["from"]), number(fields["to"])):
                    self.steps(replace(fields["steps"], index))
                continue
            expected = fields.pop("expect", ...)
            actual = getattr(self, "op_" + op.replace("-", "_"))(fields)
            assert not fields, f"unknown fields {fields} in {step}"
            if expected is ...:
                assert not (isinstance(actual, dict) and "error" in actual), (step, actual)
            else:
                self.compare(op, expected, actual, step)

    def compare(self, op: str, expected: Any, actual: Any, step: Any) -> None:
        message = f"{step}: got {actual!r}"
        if op in ("entry-count", "weighted-size", "remove-many"):
            assert in_range(expected, actual), message
        elif op == "stats":
            for name, value in expected.items():
                assert in_range(value, getattr(actual, name.replace("-", "_"))), f"{name}: {message}"
        elif op == "drain-removals":
            self.compare_removals(expected, actual, message)
        elif op in ("next", "walk"):
            if isinstance(expected, dict):
                assert set(expected) == {"count"}, expected
                assert in_range(expected["count"], len(actual)), message
            else:
                assert sorted(map(to_bytes, unroll(expected))) == sorted(actual), message
        elif op == "remaining" and isinstance(expected, dict):
            assert isinstance(actual, dict), message
            assert in_range(expected["limited"], actual["limited"]), message
        elif op in ("get", "remove"):
            assert (None if expected is None else to_bytes(expected)) == actual, message
        elif op == "get-many":
            assert [None if item is None else to_bytes(item) for item in unroll(expected)] == actual, message
        elif isinstance(expected, dict) and ({"present", "hit"} & set(expected)):
            assert isinstance(actual, dict), message
            assert {name: to_bytes(value) for name, value in expected.items()} == actual, message
        else:
            assert expected == actual, message

    def compare_removals(self, expected: dict[str, Any], actual: tuple[list[Any], int], message: str) -> None:
        removals, lost = actual
        for name, value in expected.items():
            if name == "lost":
                assert in_range(value, lost), message
            elif name == "causes":
                counts = Counter(CAUSES[removal.cause] for removal in removals)
                assert set(counts) <= set(value), message
                assert all(in_range(wanted, counts[cause]) for cause, wanted in value.items()), message
            elif isinstance(value, dict):
                assert set(value) == {"count"}, value
                assert in_range(value["count"], len(removals)), message
            else:
                wanted = [(to_bytes(key), to_bytes(data), cause) for key, data, cause in unroll(value)]
                got = [(removal.key, removal.value, CAUSES[removal.cause]) for removal in removals]
                if name == "in-any-order":
                    wanted, got = sorted(wanted), sorted(got)
                else:
                    assert name == "removals", name
                assert wanted == got, message

    def cache(self, fields: dict[str, Any]) -> Channel:
        return self.caches[fields.pop("cache", "main")]

    @staticmethod
    def options(fields: dict[str, Any]) -> tuple[int, int | None, int | None]:
        weight = number(fields.pop("weight", 1))
        return weight, optional(fields.pop("ttl", None)), optional(fields.pop("tti", None))

    @staticmethod
    def refusal(error: Exception) -> dict[str, Any]:
        if isinstance(error, GuestMemoryError):
            return {"error": "out-of-memory"}
        found = TOO_LARGE.match(str(error))
        assert found, error
        size, limit = map(int, found.groups())
        assert size > limit, error
        return {"error": "too-large"}

    def storing(self, store: Callable[[], Any]) -> Any:
        try:
            return store()
        except (EntryTooLargeError, GuestMemoryError) as error:
            return self.refusal(error)

    def op_advance(self, fields: dict[str, Any]) -> None:
        self.clock.now += number(fields.pop("by"))

    def op_open(self, fields: dict[str, Any]) -> Any:
        name = fields.pop("cache", "main")
        try:
            self.caches[name] = self.open(fields.pop("config"))
        except ConfigError as error:
            return {"error": str(error).split(" ")[0].replace("_", "-")}
        return "ok"

    def op_drop_cache(self, fields: dict[str, Any]) -> None:
        self.caches.pop(fields.pop("cache", "main")).close()

    def op_get(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).get(to_bytes(fields.pop("key")))

    def op_remove(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).remove(to_bytes(fields.pop("key")))

    def op_contains(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).contains(to_bytes(fields.pop("key")))

    def op_set(self, fields: dict[str, Any]) -> Any:
        cache, key, value = self.cache(fields), to_bytes(fields.pop("key")), to_bytes(fields.pop("value"))
        options = self.options(fields)
        return self.storing(lambda: cache.set(key, value, *options) or "ok")

    def op_get_or_insert(self, fields: dict[str, Any]) -> Any:
        cache, key, value = self.cache(fields), to_bytes(fields.pop("key")), to_bytes(fields.pop("value"))
        options = self.options(fields)
        answer = self.storing(lambda: cache.get_or_insert(key, value, *options))
        return "inserted" if answer is None else answer if isinstance(answer, dict) else {"present": answer}

    def op_expire(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).expire(to_bytes(fields.pop("key")), optional(fields.pop("remaining")))

    def op_remaining(self, fields: dict[str, Any]) -> Any:
        life = self.cache(fields).remaining(to_bytes(fields.pop("key")))
        return "absent" if life is None else "unlimited" if life == UNLIMITED else {"limited": life}

    def op_clear(self, fields: dict[str, Any]) -> None:
        self.cache(fields).clear()

    def op_run_pending_tasks(self, fields: dict[str, Any]) -> None:
        self.cache(fields).run_pending_tasks()

    def op_get_many(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).get_many([to_bytes(key) for key in unroll(fields.pop("keys"))])

    def op_set_many(self, fields: dict[str, Any]) -> Any:
        cache = self.cache(fields)
        entries = [
            Entry(to_bytes(entry["key"]), to_bytes(entry["value"]), *self.options(dict(entry)))
            for entry in unroll(fields.pop("entries"))
        ]
        stopped = self.face.set_many(cache, entries)
        return "ok" if stopped is None else {**self.refusal(stopped[1]), "index": stopped[0]}

    def op_remove_many(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).remove_many([to_bytes(key) for key in unroll(fields.pop("keys"))])

    def op_entry_count(self, fields: dict[str, Any]) -> Any:
        return self.face.entry_count(self.cache(fields))

    def op_weighted_size(self, fields: dict[str, Any]) -> Any:
        return self.face.weighted_size(self.cache(fields))

    def op_stats(self, fields: dict[str, Any]) -> Counters:
        return self.cache(fields).counters()

    def op_drain_removals(self, fields: dict[str, Any]) -> Any:
        return self.cache(fields).drain(number(fields.pop("limit")))

    def op_keys(self, fields: dict[str, Any]) -> None:
        name = fields.pop("cursor")
        self.cursors[name] = self.cache(fields).keys()
        self.seen[name] = []

    def op_next(self, fields: dict[str, Any]) -> Any:
        name, limit = fields.pop("cursor"), number(fields.pop("limit"))
        keys = self.cursors[name].next(limit)
        assert len(keys) <= max(limit, 1), "a page of more keys than its limit"
        self.seen[name] += keys
        return keys

    def op_walk(self, fields: dict[str, Any]) -> Any:
        name, limit = fields["cursor"], max(number(fields["limit"]), 1)
        while len(self.op_next({**fields})) == limit:
            pass
        assert self.op_next({**fields}) == [], "a walk that goes on after a short page"
        del fields["cursor"], fields["limit"]
        return self.seen[name]

    def op_drop_cursor(self, fields: dict[str, Any]) -> None:
        name = fields.pop("cursor")
        self.cursors.pop(name).close()

    def op_lookup(self, fields: dict[str, Any]) -> Any:
        cache, lease = self.cache(fields), fields.pop("lease", None)
        answer = cache.lookup(to_bytes(fields.pop("key")), number(fields.pop("lease-life")))
        if isinstance(answer, bytes):
            return {"hit": answer}
        if answer is None:
            return "busy"
        if lease is not None:
            self.leases[lease] = (cache, answer)
        return "lead"

    def op_fill(self, fields: dict[str, Any]) -> Any:
        cache, lease = self.leases.pop(fields.pop("lease"))
        value, options = to_bytes(fields.pop("value")), self.options(fields)
        answer = self.storing(lambda: cache.fill(lease, value, *options))
        return answer if isinstance(answer, dict) else "ok" if answer else {"error": "lapsed"}

    def op_drop_lease(self, fields: dict[str, Any]) -> None:
        cache, lease = self.leases.pop(fields.pop("lease"))
        cache.release(lease)
