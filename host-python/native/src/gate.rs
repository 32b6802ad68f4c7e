//! Who may be inside a guest. A `Store` of wasmtime takes one thread at a time.
//!
//! A short call keeps the GIL, so that nobody else comes in. A long one marks the guest as entered and lets the GIL go;
//! whoever finds the mark waits without the GIL. The mark is set by a thread that holds the GIL, and taken away without
//! it as soon as the guest is left: a thread that never gets the GIL again, as daemon threads when the interpreter ends,
//! holds nobody up. The guest calls nobody back, so that no Python code runs on the thread inside.
//!
//! A guest that trapped is marked before anybody else can come in, and is not called again but for its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::fork;
use crate::raw::{Entrance, Outcome};

/// How long a thread waits before it has Python run the handlers of signals that have come.
const WAKE_UP: Duration = Duration::from_millis(50);
/// How often, and how long, a long call gives way to those who wait. There is an end to it because one of them may be
/// further up on the same thread (a signal handler runs while it waits), or be a daemon thread that never comes back.
const GIVE_WAY: (usize, Duration) = (1000, Duration::from_micros(50));
/// With less memory than this no call is long: the 5,000 small entries that it holds are cleared in 0.3 ms and their keys
/// collected in 0.7 ms, while getting the GIL back from threads that compute takes the interpreter's switch interval, 5 ms.
const LONG: usize = 2 << 20;

/// In the place of wasmtime's error, for `_guest_calls.py`: the guest was not called, as it has trapped.
const REFUSED: isize = -1;

const FREE: u8 = 0;
const ENTERED: u8 = 1;
const TRAPPED: u8 = 2;

/// Whether somebody is inside a guest without the GIL or it has trapped, and how many wait.
#[derive(Default)]
pub struct Door {
    state: AtomicU8,
    waiting: AtomicUsize,
    /// The forks before those who wait came: it is not them who wait in a child.
    forks: AtomicU32,
}

impl Door {
    /// Whether the guest may be called by whoever holds the GIL, as long as they hold it.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.state.load(Ordering::Acquire) == FREE
    }

    fn is_entered(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENTERED
    }

    /// Lets nobody in again. For whoever was inside.
    #[cold]
    pub fn mark_as_trapped(&self) {
        self.state.store(TRAPPED, Ordering::Release);
    }

    /// Returns when nobody is inside; whether somebody was.
    ///
    /// # Errors
    /// What a signal handler raised meanwhile.
    #[inline]
    pub fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.is_entered() {
            return Ok(false);
        }
        self.wait_outside(py)?;
        Ok(true)
    }

    #[cold]
    fn wait_outside(&self, py: Python<'_>) -> PyResult<()> {
        self.count(1);
        let mut result = Ok(());
        while result.is_ok() && self.is_entered() {
            py.detach(|| fork::LEAVING.wait(WAKE_UP, || self.is_entered()));
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

    fn enter(&self, py: Python<'_>, call: impl FnOnce() -> Outcome + Send) -> isize {
        self.state.store(ENTERED, Ordering::Relaxed);
        fork::LEAVING.begin();
        py.detach(|| {
            let outcome = call();
            let state = if outcome.trapped { TRAPPED } else { FREE };
            fork::LEAVING.end(|| self.state.store(state, Ordering::Release));
            outcome.error
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
    fn call(&self, py: Python<'_>, function: usize, slots: usize, may_be_long: bool) -> PyResult<isize> {
        let waited = self.door.wait(py)?;
        let long = may_be_long && self.entrance.memory_size() >= LONG;
        if long && !waited && !fork::is_near() {
            self.door.give_way(py);
            self.door.wait(py)?;
        }
        if !self.door.is_free() {
            return Ok(REFUSED);
        }
        if long && !fork::is_near() {
            return Ok(self.door.enter(py, || self.entrance.call(function, slots)));
        }
        let outcome = self.entrance.call(function, slots);
        if outcome.trapped {
            self.door.mark_as_trapped();
        }
        Ok(outcome.error)
    }

    /// Likewise, of a guest that has trapped, with the GIL.
    fn call_trapped(&self, py: Python<'_>, function: usize, slots: usize, _may_be_long: bool) -> PyResult<isize> {
        self.door.wait(py)?;
        Ok(self.entrance.call(function, slots).error)
    }

    /// Bytes of the guest's memory.
    fn memory_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.door.wait(py)?;
        Ok(self.entrance.memory_size())
    }
}
