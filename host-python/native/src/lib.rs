//! The hot paths of the Python package `moka_wasm`: wasmtime-py compiles, instantiates, limits and owns the sandbox,
//! this calls it. `_hot.py` says when; everything works without it.

mod batch;
mod cached;
mod call_keys;
mod codec;
mod hot;
mod raw;

#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::cached::cached_function;
    #[pymodule_export]
    use crate::hot::{Binding, Hot, install};
}
