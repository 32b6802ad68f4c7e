// Transpiles the cache component to JavaScript: build/moka_cache.js, and the core modules beside it.
// MOKA_CACHE_WASM says where the component is, if not where `cargo component build --release` puts it.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { transpile } from "@bytecodealliance/jco";

const here = dirname(fileURLToPath(import.meta.url));
const component =
  process.env.MOKA_CACHE_WASM ?? join(here, "../target/wasm32-wasip1/release/moka_cache.wasm");
if (!existsSync(component)) {
  console.error(`${component} is not there: build it with \`cargo component build --release\`, or set MOKA_CACHE_WASM`);
  process.exit(1);
}

// "instantiation" makes a function that takes the imports, in place of a module that has them built in: a program can
// have several instances, each with a clock of its own, and none of WASI but what it is given.
const { files } = await transpile(readFileSync(component), {
  name: "moka_cache",
  instantiation: "async",
  wasiShim: false,
});
for (const [name, content] of Object.entries(files)) {
  const path = join(here, "build", name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}
