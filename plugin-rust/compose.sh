#!/usr/bin/env bash
# Builds the plugin and puts the cache component under it: the plugin's import of the cache is then met inside the file.
# MOKA_CACHE_WASM says where the cache component is, if not where `cargo component build --release` puts it.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.tools/bin:$PATH"

cache=${MOKA_CACHE_WASM:-target/wasm32-wasip1/release/moka_cache.wasm}
composed=target/moka_cache_plugin_with_cache.wasm

# A target directory of its own, so that it need not wait for builds of the cache.
export CARGO_TARGET_DIR=target/plugin
cargo component build --release --locked --package moka-cache-plugin
wac plug --plug "$cache" "$CARGO_TARGET_DIR/wasm32-wasip1/release/moka_cache_plugin.wasm" -o "$composed"
echo "compose.sh: wrote $composed"
