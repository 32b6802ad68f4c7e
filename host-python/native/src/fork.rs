//! A fork finds nobody inside any guest: the child would inherit it in the middle of an operation.
//!
//! While a fork is near, long calls keep the GIL, as short ones do. The thread that forks holds the lock that waiting
//! needs, so that the child does not inherit it in the hands of a thread that is not there.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

/// Those who are inside a guest without the GIL, in any cache: they are few, and one lock for all of them is easily held
/// during a fork.
pub struct Leaving {
    inside: AtomicUsize,
    /// Taken by threads without the GIL only: they may hold it while they wait for the GIL.
    lock: Mutex<()>,
    left: Condvar,
}

pub static LEAVING: Leaving = Leaving { inside: AtomicUsize::new(0), lock: Mutex::new(()), left: Condvar::new() };

impl Leaving {
    /// Somebody goes inside.
    pub fn begin(&self) {
        self.inside.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody has left a guest, which `mark` says; wakes those who wait.
    pub fn end(&self, mark: impl FnOnce()) {
        let lock = self.lock();
        mark();
        self.inside.fetch_sub(1, Ordering::Release);
        drop(lock);
        self.left.notify_all();
    }

    /// Waits as long as that holds, or so long.
    pub fn wait(&self, most: Duration, condition: impl Fn() -> bool) {
        drop(self.left.wait_timeout_while(self.lock(), most, |()| condition()));
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody is inside; nobody leaves or waits as long as the lock is held.
    fn wait_for_all(&self) -> MutexGuard<'_, ()> {
        let inside = |(): &mut ()| self.inside.load(Ordering::Acquire) > 0;
        self.left.wait_while(self.lock(), inside).unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many threads are about to fork.
static NEAR: AtomicUsize = AtomicUsize::new(0);
/// How many forks this process is away from the first one.
static NUMBER: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Forks that this thread has begun: a signal handler may begin one before another.
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Whether nobody must let the GIL go inside a guest.
pub fn is_near() -> bool {
    NEAR.load(Ordering::Relaxed) > 0
}

/// Tells a forked child from its parent.
pub fn number() -> u32 {
    NUMBER.load(Ordering::Relaxed)
}

/// Before a fork. Signal handlers do not run meanwhile: what they raised would not keep the fork from going on.
#[pyfunction]
pub fn before_fork(py: Python<'_>) {
    if BEGUN.replace(BEGUN.get() + 1) > 0 {
        return;
    }
    NEAR.fetch_add(1, Ordering::Relaxed);
    // Others may hold the lock while they are kept waiting by the GIL's, if not by this thread.
    py.detach(|| HELD.set(Some(LEAVING.wait_for_all())));
}

/// After it, in the parent.
#[pyfunction]
pub fn after_fork_in_parent() {
    if open() {
        NEAR.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After it, in the child, which has this thread only.
#[pyfunction]
pub fn after_fork_in_child() {
    NUMBER.fetch_add(1, Ordering::Relaxed);
    NEAR.store(usize::from(!open()), Ordering::Relaxed);
}

/// Whether that was the last fork that this thread had begun, or it had begun none.
fn open() -> bool {
    let begun = BEGUN.get();
    BEGUN.set(begun.saturating_sub(1));
    if begun == 1 {
        HELD.take();
    }
    begun == 1
}
