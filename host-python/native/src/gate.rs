//! Who may be inside a guest. A `Store` of wasmtime takes one thread at a time.
//!
//! A short call keeps the GIL, so that nobody else comes in. A long one marks the guest as entered and lets the GIL go;
//! whoever finds the mark waits without the GIL. The mark is set by a thread that holds the GIL, and taken away without
//! it as soon as the guest is left: a thread that never gets the GIL again, as daemon threads when the interpreter ends,
//! holds nobody up. The guest calls nobody back, so that no Python code runs on the thread inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::fork;
use crate::raw::Entrance;

/// How long a thread waits before it looks after signals, which Python's handlers of are to run meanwhile.
const WAKE_UP: Duration = Duration::from_millis(50);
/// How often, and how long, a long call gives way to those who wait. There is an end to it because one of them may be
/// further up on the same thread (a signal handler runs while it waits), or be a daemon thread that never comes back.
const GIVE_WAY: (usize, Duration) = (1000, Duration::from_micros(50));
/// What goes through less memory than this takes less time than it may take to get the GIL back, which is the interpreter's
/// switch interval of 5 ms: a million bytes of entries are cleared, or their keys collected, in 0.2 to 0.4 ms.
const LONG: usize = 2 << 20;

/// Whether somebody is inside a guest without the GIL, and how many wait.
#[derive(Default)]
pub struct Door {
    entered: AtomicBool,
    waiting: AtomicUsize,
    /// The forks before those who wait came: it is not them who wait in a child.
    forks: AtomicU32,
}

impl Door {
    /// Whether the guest may be called by whoever holds the GIL, as long as they hold it.
    #[inline]
    pub fn is_free(&self) -> bool {
        !self.entered.load(Ordering::Acquire)
    }

    /// Returns when the guest is free; whether it was not.
    ///
    /// # Errors
    /// What a signal handler raised meanwhile.
    #[inline]
    pub fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_free() {
            return Ok(false);
        }
        self.wait_outside(py)?;
        Ok(true)
    }

    #[cold]
    fn wait_outside(&self, py: Python<'_>) -> PyResult<()> {
        self.count(1);
        let mut result = Ok(());
        while result.is_ok() && !self.is_free() {
            py.detach(|| fork::LEAVING.wait(WAKE_UP, || !self.is_free()));
            result = py.check_signals();
        }
        self.count(-1);
        result
    }

    /// How many wait, after so many more do. With the GIL only.
    fn count(&self, change: isize) -> usize {
        let forks = fork::number();
        if self.forks.swap(forks, Ordering::Relaxed) != forks {
            self.waiting.store(0, Ordering::Relaxed);
        }
        let waiting = self.waiting.load(Ordering::Relaxed).saturating_add_signed(change);
        self.waiting.store(waiting, Ordering::Relaxed);
        waiting
    }

    /// Lets those in who wait: while the guest is called again and again, the GIL is only ever let go with somebody inside.
    fn give_way(&self, py: Python<'_>) {
        if self.count(0) == 0 {
            return;
        }
        let came_in = py.detach(|| {
            let (times, pause) = GIVE_WAY;
            (0..times).any(|_| {
                thread::sleep(pause);
                self.waiting.load(Ordering::Relaxed) == 0
            })
        });
        if !came_in {
            // So that the next call need not give way to them in vain.
            self.waiting.store(0, Ordering::Relaxed);
        }
    }

    fn enter(&self, py: Python<'_>, call: impl FnOnce() -> usize + Send) -> usize {
        self.entered.store(true, Ordering::Relaxed);
        fork::LEAVING.begin();
        py.detach(|| {
            let error = call();
            fork::LEAVING.end(|| self.entered.store(false, Ordering::Release));
            error
        })
    }
}

/// The way into one guest.
#[pyclass(frozen, module = "moka_wasm._native")]
pub struct Gate {
    door: Arc<Door>,
    entrance: Entrance,
    /// The garbage collector is not told of it: else it might have the store freed before a finalizer of the same garbage
    /// uses the cache.
    _store: Py<PyAny>,
}

impl Gate {
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }
}

#[pymethods]
impl Gate {
    /// The guest of a store, and the addresses that `_guest_calls.py` hands over.
    #[new]
    fn new(store: Py<PyAny>, addresses: [usize; 4]) -> PyResult<Self> {
        let Some(entrance) = Entrance::new(addresses) else {
            return Err(pyo3::exceptions::PyValueError::new_err("these are no addresses of a guest"));
        };
        Ok(Gate { door: Arc::default(), entrance, _store: store })
    }

    /// Calls a function of the guest with the arguments in these slots, which get the answer; answers wasmtime's error.
    fn call(&self, py: Python<'_>, function: usize, slots: usize, may_be_long: bool) -> PyResult<usize> {
        let waited = self.door.wait(py)?;
        if !may_be_long || self.entrance.memory_size() < LONG || fork::is_near() {
            return Ok(self.entrance.call(function, slots));
        }
        if !waited {
            self.door.give_way(py);
            self.door.wait(py)?;
            if fork::is_near() {
                return Ok(self.entrance.call(function, slots));
            }
        }
        Ok(self.door.enter(py, || self.entrance.call(function, slots)))
    }

    /// Bytes of the guest's memory.
    fn memory_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.door.wait(py)?;
        Ok(self.entrance.memory_size())
    }
}
