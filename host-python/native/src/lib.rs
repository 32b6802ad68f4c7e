//! The hot paths of the Python package `moka_wasm`: wasmtime-py compiles, instantiates, limits and owns the sandbox,
//! this calls it. `_hot.py` says when; everything works without it.

mod batch;
mod cached;
mod call_keys;
mod codec;
mod fork;
mod gate;
mod hot;
mod lives;
mod raw;
mod sharded_batch;

#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::cached::cached_function;
    #[pymodule_export]
    use crate::fork::{after_fork_in_child, after_fork_in_parent, before_fork};
    #[pymodule_export]
    use crate::gate::Gate;
    #[pymodule_export]
    use crate::hot::{Binding, Hot, install, shard_hash};
}
