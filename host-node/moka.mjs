// Makes instances of the cache component, with nothing of WASI but a clock and random numbers.
import { randomFillSync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { instantiate as instantiateComponent } from "./build/moka_cache.js";

const modules = new Map();

/** Compiles a core module of the component, once. */
function coreModule(path) {
  if (!modules.has(path)) {
    modules.set(path, readFile(new URL(`./build/${path}`, import.meta.url)).then((bytes) => WebAssembly.compile(bytes)));
  }
  return modules.get(path);
}

/**
 * Makes an instance of the component.
 *
 * @param {object} [host]
 * @param {() => bigint} [host.clock] nanoseconds on a clock that never goes backwards; by default the machine's
 * @returns the component's exports: `{ cache, types }`
 */
export async function instantiate({ clock = process.hrtime.bigint } = {}) {
  return instantiateComponent(coreModule, {
    "wasi:clocks/monotonic-clock": { now: clock },
    "wasi:random/random": { getRandomU64: () => randomFillSync(new BigUint64Array(1))[0] },
  });
}

/** Gives a cache, a lease or a cursor back, now rather than when it is garbage. */
export function drop(resource) {
  resource[Symbol.dispose]();
}
