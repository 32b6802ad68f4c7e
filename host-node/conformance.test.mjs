// The conformance suite over the component; ../tests/conformance/README.md says what the cases mean.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { drop, instantiate } from "./moka.mjs";

const SUITE = new URL("../tests/conformance/", import.meta.url);
// Where the clock starts: at zero, and at no multiple of 64.
const STARTS = [0n, 1_234_567_890_123_456_789n];

const number = (value) => BigInt(typeof value === "string" ? value.replaceAll("_", "") : value);
const optional = (value) => (value == null ? undefined : number(value));

function bytes(value) {
  if (typeof value === "string") return Buffer.from(value);
  if (value?.hex !== undefined) return Buffer.from(value.hex, "hex");
  assert.equal(typeof value?.repeat, "string", `${JSON.stringify(value)} is no bytes`);
  return Buffer.from(value.repeat.repeat(Number(number(value.times))));
}

/** Puts a number in the place of {i}, but not inside a further loop. */
function substitute(value, i) {
  if (typeof value === "string") return value.replaceAll("{i}", i);
  if (Array.isArray(value)) return value.map((element) => substitute(element, i));
  if (value === null || typeof value !== "object" || "from" in value) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, substitute(field, i)]));
}

function* range({ from, to }) {
  for (let i = number(from); i < number(to); i++) yield i;
}

/** A list with its loops unrolled. */
function unroll(list) {
  return list.flatMap((element) =>
    element?.each === undefined ? [element] : [...range(element)].map((i) => substitute(element.each, i)),
  );
}

/** So that a mistake in a case does not pass silently. */
function only(value, ...names) {
  for (const name of Object.keys(value)) assert(names.includes(name), `no such field: ${name}`);
}

const OPTIONS = ["ttl", "tti", "weight"];
const options = ({ ttl, tti, weight = 1 }) => ({
  ttl: optional(ttl),
  tti: optional(tti),
  weight: Number(number(weight)),
});

function config(value) {
  only(value, "name", "capacity", "ttl", "tti", "policy", "memory-limit", "removal-log");
  return {
    name: value.name ?? "",
    capacity: optional(value.capacity),
    ttl: optional(value.ttl),
    tti: optional(value.tti),
    policy: value.policy ?? "tiny-lfu",
    memoryLimit: optional(value["memory-limit"]),
    removalLog: value["removal-log"] === undefined ? undefined : Number(number(value["removal-log"])),
  };
}

function entry(value) {
  only(value, "key", "value", ...OPTIONS);
  return [bytes(value.key), bytes(value.value), options(value)];
}

/** An answer with numbers as BigInt, bytes as Buffer and "none" as null. */
function normal(value) {
  if (value === undefined) return null;
  if (typeof value === "number") return BigInt(value);
  if (value instanceof Uint8Array) return Buffer.from(value);
  return Array.isArray(value) ? value.map(normal) : value;
}

/** What an operation answers; an error of the component as an object. */
function attempt(operation, answer = () => "ok") {
  try {
    return answer(operation());
  } catch (error) {
    if (error.payload === undefined) throw error;
    return refusal(error.payload);
  }
}

function refusal(payload) {
  if (payload.field !== undefined) {
    assert(payload.reason.length > 0, "a person is to read why");
    return { error: payload.field };
  }
  if (payload.reason !== undefined) return { ...refusal(payload.reason), index: BigInt(payload.index) };
  if (payload.tag === "refused") return refusal(payload.val);
  if (payload.tag === "too-large") assert(payload.val.size > payload.val.limit);
  return { error: payload.tag };
}

function check(expected, answer) {
  if (Buffer.isBuffer(answer)) {
    const wanted = bytes(expected);
    if (!wanted.equals(answer)) assert.fail(`expected ${wanted.subarray(0, 99)}, got ${answer.subarray(0, 99)}`);
  } else if (typeof answer === "bigint") {
    if (expected !== null && typeof expected === "object") {
      only(expected, "min", "max");
      assert(answer >= number(expected.min ?? 0), `expected at least ${expected.min}, got ${answer}`);
      assert(expected.max === undefined || answer <= number(expected.max), `expected at most ${expected.max}, got ${answer}`);
    } else {
      assert.equal(answer, number(expected));
    }
  } else if (Array.isArray(answer)) {
    const wanted = unroll(expected);
    assert.equal(answer.length, wanted.length);
    answer.forEach((element, i) => check(wanted[i], element));
  } else if (answer !== null && typeof answer === "object") {
    assert.deepEqual(Object.keys(answer).sort(), Object.keys(expected).sort());
    for (const [name, field] of Object.entries(answer)) check(expected[name], field);
  } else {
    assert.equal(answer, expected);
  }
}

/** Something to sort by, and to compare where the order says nothing. */
const hex = (value) => (Array.isArray(value) ? value.map(hex).join() : Buffer.isBuffer(value) ? value.toString("hex") : value);
const wantedHex = (value) => (Array.isArray(value) ? [bytes(value[0]), bytes(value[1]), value[2]] : bytes(value));

function checkInAnyOrder(expected, answer) {
  if (expected?.count !== undefined) {
    only(expected, "count");
    return check(expected.count, BigInt(answer.length));
  }
  assert.deepEqual(answer.map(hex).sort(), unroll(expected).map(wantedHex).map(hex).sort());
}

/** Runs the steps of one case. */
class Run {
  named = { cache: new Map(), lease: new Map(), cursor: new Map() };

  constructor(component, clock) {
    this.component = component;
    this.clock = clock;
  }

  /** Takes a resource out of those that have a name. */
  take(kind, name) {
    const resource = this.named[kind].get(name);
    assert(resource !== undefined, `no ${kind} ${name}`);
    this.named[kind].delete(name);
    return resource;
  }

  steps(steps) {
    for (const [index, step] of steps.entries()) {
      try {
        this.step(step);
      } catch (error) {
        error.message = `step ${index}, ${step.op}: ${error.message}`;
        throw error;
      }
    }
  }

  step({ op, expect, ...fields }) {
    const operation = OPERATIONS[op];
    assert(operation !== undefined, `no such op: ${op}`);
    const [names, run] = operation;
    only(fields, "cache", ...names);
    const { cache: name = "main", ...rest } = fields;
    const answer = normal(run.call(this, this.named.cache.get(name), rest, { expect, name }));
    if (answer === DONE) return;
    if (expect !== undefined) check(expect, answer);
    else assert.equal(answer?.error, undefined);
  }

  page(cursor, limit) {
    const page = cursor.resource.next(limit).map(normal);
    assert(page.length <= Math.max(limit, 1), `${page.length} keys for a limit of ${limit}`);
    cursor.seen.push(...page);
    return page;
  }
}

/** The answer of an operation that has compared by itself. */
const DONE = Symbol("done");
const ENTRY = ["key", "value", ...OPTIONS];
const limit = (value) => Number(number(value));

/** For each op its fields, and what it does with a cache and them. */
const OPERATIONS = {
  advance: [["by"], function (_, { by }) {
    this.clock.time += number(by);
  }],
  for: [["from", "to", "steps"], function (_, loop) {
    for (const i of range(loop)) this.steps(loop.steps.map((step) => substitute(step, i)));
  }],
  open: [["config"], function (_, fields, { name }) {
    const open = () => this.named.cache.set(name, this.component.cache.Cache.open(config(fields.config)));
    return attempt(open);
  }],
  "drop-cache": [[], function (_, __, { name }) {
    drop(this.take("cache", name));
  }],
  get: [["key"], (cache, { key }) => cache.get(bytes(key))],
  contains: [["key"], (cache, { key }) => cache.contains(bytes(key))],
  remove: [["key"], (cache, { key }) => cache.remove(bytes(key))],
  set: [ENTRY, (cache, fields) => attempt(() => cache.set(...entry(fields)))],
  "get-or-insert": [ENTRY, (cache, fields) =>
    attempt(() => cache.getOrInsert(...entry(fields)), ({ tag, val }) =>
      tag === "present" ? { present: normal(val) } : tag)],
  expire: [["key", "remaining"], (cache, { key, remaining }) => cache.expire(bytes(key), optional(remaining))],
  remaining: [["key"], (cache, { key }) => {
    const { tag, val } = cache.remaining(bytes(key));
    return tag === "limited" ? { limited: val } : tag;
  }],
  clear: [[], (cache) => cache.clear()],
  "run-pending-tasks": [[], (cache) => cache.runPendingTasks()],
  "get-many": [["keys"], (cache, { keys }) => cache.getMany(unroll(keys).map(bytes))],
  "set-many": [["entries"], (cache, { entries }) => attempt(() => cache.setMany(unroll(entries).map(entry)))],
  "remove-many": [["keys"], (cache, { keys }) => cache.removeMany(unroll(keys).map(bytes))],
  "entry-count": [[], (cache) => cache.entryCount()],
  "weighted-size": [[], (cache) => cache.weightedSize()],
  stats: [[], (cache, _, { expect = {} }) => {
    const stats = cache.stats();
    for (const [name, expected] of Object.entries(expect)) {
      check(expected, stats[name.replace(/-./g, ([, letter]) => letter.toUpperCase())]);
    }
    return DONE;
  }],
  "drain-removals": [["limit"], (cache, fields, { expect = {} }) => {
    only(expect, "removals", "in-any-order", "causes", "lost");
    const { removals, lost } = cache.drainRemovals(limit(fields.limit));
    const listed = removals.map(({ key, value, cause }) => [normal(key), normal(value), cause]);
    if (expect.removals) check(expect.removals, listed);
    if (expect["in-any-order"]) checkInAnyOrder(expect["in-any-order"], listed);
    if (expect.causes) {
      const tally = {};
      for (const { cause } of removals) tally[cause] = (tally[cause] ?? 0) + 1;
      assert.deepEqual(tally, expect.causes);
    }
    if (expect.lost !== undefined) check(expect.lost, lost);
    return DONE;
  }],
  keys: [["cursor"], function (cache, { cursor }) {
    this.named.cursor.set(cursor, { resource: cache.keys(), seen: [] });
  }],
  next: [["cursor", "limit"], function (_, { cursor, limit: most }, { expect }) {
    checkInAnyOrder(expect, this.page(this.named.cursor.get(cursor), limit(most)));
    return DONE;
  }],
  walk: [["cursor", "limit"], function (_, { cursor: name, limit: most }, { expect }) {
    const cursor = this.named.cursor.get(name);
    while (this.page(cursor, limit(most)).length === Math.max(limit(most), 1));
    assert.equal(this.page(cursor, limit(most)).length, 0, "the walk goes on after a short page");
    checkInAnyOrder(expect, cursor.seen);
    return DONE;
  }],
  "drop-cursor": [["cursor"], function (_, { cursor }) {
    drop(this.take("cursor", cursor).resource);
  }],
  lookup: [["key", "lease-life", "lease"], function (cache, { key, lease, "lease-life": life }) {
    const { tag, val } = cache.lookup(bytes(key), number(life));
    if (tag === "hit") return { hit: normal(val) };
    if (tag === "lead") {
      assert(lease !== undefined, "leads, unexpectedly");
      this.named.lease.set(lease, val);
    }
    return tag;
  }],
  fill: [["lease", "value", ...OPTIONS], function (_, fields) {
    const lease = this.take("lease", fields.lease);
    return attempt(() => this.component.cache.Lease.fill(lease, bytes(fields.value), options(fields)));
  }],
  "drop-lease": [["lease"], function (_, { lease }) {
    drop(this.take("lease", lease));
  }],
};

for (const file of readdirSync(SUITE).filter((name) => name.endsWith(".json"))) {
  const suite = JSON.parse(readFileSync(new URL(file, SUITE), "utf8"));
  only(suite, "topic", "cases");
  test(suite.topic, async (topic) => {
    for (const { name, rule, tick = 0, config: main, steps, ...unknown } of suite.cases) {
      await topic.test(`${name}: ${rule}`, async () => {
        only(unknown);
        for (const start of STARTS) {
          const clock = { time: start };
          const read = () => {
            const now = clock.time;
            clock.time += number(tick);
            return now;
          };
          const run = new Run(await instantiate({ clock: read }), clock);
          if (main) run.step({ op: "open", config: main, expect: "ok" });
          run.steps(steps);
        }
      });
    }
  });
}
