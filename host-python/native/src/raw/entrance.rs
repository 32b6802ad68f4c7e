//! The call into a guest, for the functions that the package calls by itself.

use super::{CallUnchecked, MemorySize, SLOTS, TRAP};

/// The addresses that `_guest_calls.py` hands over: functions of the loaded library, a store and its memory, which stay good
/// as long as the store.
#[derive(Clone, Copy)]
pub struct Entrance {
    call: usize,
    memory_size: usize,
    context: usize,
    memory: usize,
}

/// What a call came to.
pub struct Outcome {
    /// wasmtime's error, or 0.
    pub error: isize,
    pub trapped: bool,
}

impl Entrance {
    /// `None`: they cannot be addresses.
    pub fn new(addresses: [usize; 4]) -> Option<Self> {
        let [call, memory_size, context, memory] = addresses;
        addresses.iter().all(|&address| address != 0).then_some(Entrance { call, memory_size, context, memory })
    }

    /// Calls a function. Nobody else may be inside of the guest.
    pub fn call(&self, function: usize, slots: usize) -> Outcome {
        // SAFETY: the address is that of `wasmtime_func_call_unchecked`.
        let call = unsafe { std::mem::transmute::<usize, CallUnchecked>(self.call) };
        let slots = slots as *mut u64;
        // SAFETY: `function` is one of the store's, and `slots` a lane's array of TRAP + 1 numbers: both are kept by the
        // lane, which the caller in `_direct_channel.py` keeps during the call. The callers here see to it that nobody
        // else is inside, by the GIL or by the door's mark.
        unsafe {
            let trap = slots.add(TRAP);
            let error = call(self.context, function, slots, SLOTS, trap.cast());
            Outcome { error: error.cast_signed(), trapped: error != 0 || trap.read() != 0 }
        }
    }

    /// Bytes of the guest's memory. Nobody else may be inside.
    pub fn memory_size(&self) -> usize {
        // SAFETY: the address is that of `wasmtime_memory_data_size`.
        let size = unsafe { std::mem::transmute::<usize, MemorySize>(self.memory_size) };
        // SAFETY: the context and the memory are those of the store that the gate keeps.
        unsafe { size(self.context, self.memory) }
    }
}
