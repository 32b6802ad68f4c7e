// A cache in a sandbox: opens one, sets, gets, lets a minute go by, and shares one computation among callers.
//
//   npm install && npm run build && node embed.mjs
import assert from "node:assert/strict";
import { drop, instantiate } from "./moka.mjs";

const SECOND = 1_000_000_000n;
const DEFAULTS = { weight: 1 };
const bytes = (text) => new TextEncoder().encode(text);
const text = (bytes) => bytes && new TextDecoder().decode(bytes);

// The clock is ours: it moves when we say so. `instantiate()` takes the machine's.
let time = 0n;
const { cache: { Cache, Lease } } = await instantiate({ clock: () => time });

const cache = Cache.open({
  name: "sessions",
  capacity: 10_000n,
  ttl: 3600n * SECOND,
  policy: "tiny-lfu",
  memoryLimit: 64n << 20n,
});

cache.set(bytes("ann"), bytes("admin"), DEFAULTS);
assert.equal(text(cache.get(bytes("ann"))), "admin");

// An entry may live shorter than the cache says.
cache.set(bytes("guest"), bytes("reader"), { ...DEFAULTS, ttl: 60n * SECOND });
time += 60n * SECOND;
assert.equal(cache.get(bytes("guest")), undefined);
assert.equal(cache.contains(bytes("ann")), true);

// Of all who look a missing value up, one leads: it finds the value out and fills it in.
const found = cache.lookup(bytes("bob"), 5n * SECOND);
assert.equal(found.tag, "lead");
assert.equal(cache.lookup(bytes("bob"), 5n * SECOND).tag, "busy");
Lease.fill(found.val, bytes("writer"), DEFAULTS);
assert.equal(text(cache.lookup(bytes("bob"), 5n * SECOND).val), "writer");

const { hits, misses, memoryBytes } = cache.stats();
console.log(`${hits} hits, ${misses} misses, ${memoryBytes} bytes of memory`);
drop(cache);
