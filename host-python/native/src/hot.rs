//! The methods that replace those of `Moka`: what is common they do by themselves, the rest they leave to those.

use std::cell::{Cell, Ref, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::Instant;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit};

use crate::batch::take_u32;
use crate::codec::{self, Writer};
use crate::gate::Gate;
use crate::lives::{Lives, lives};
use crate::raw::{self, Answer, Arguments, GilBound, Guest};

pub const NO_BYTES: u32 = 1 << 31;
pub const REMOVALS_WAIT: u32 = 1 << 30;
pub const YES: u32 = 1;
/// How many removals are told at once; as in `_listener.py`.
const REMOVALS: u32 = 256;
/// In the place of a time: it stands still.
const NOT_READ: u64 = u64::MAX;
/// Bytes of what is written elsewhere than into a mailbox: a key to be hashed, a key or a value for Python. What is longer
/// goes the long way.
const SHORT: usize = 256;

/// A channel's way into its guest, while it has one.
#[pyclass(frozen, module = "moka_wasm._native")]
pub struct Binding {
    clock: Option<Py<PyAny>>,
    started: Instant,
    /// What Python's clock said when it started.
    start: u64,
    inner: GilBound<Inner>,
}

/// A guest, its lane and its gate.
type Pending = (Guest, Py<PyAny>, Py<Gate>);

#[derive(Default)]
struct Inner {
    /// Whether the guest has to know the time.
    timed: Cell<bool>,
    bound: Cell<bool>,
    busy: Cell<bool>,
    guest: RefCell<Option<Guest>>,
    /// The lane, which keeps the guest.
    lane: RefCell<Option<Py<PyAny>>>,
    /// The guest's gate, which keeps its store.
    gate: RefCell<Option<Py<Gate>>>,
    /// What was bound and let go while an operation was under way.
    pending: RefCell<Option<Pending>>,
    retired: RefCell<Vec<Py<PyAny>>>,
}

#[pymethods]
impl Binding {
    #[new]
    fn new(clock: Option<Py<PyAny>>, start: u64, timed: bool) -> Self {
        let inner = Inner { timed: Cell::new(timed), ..Inner::default() };
        Binding { clock, started: Instant::now(), start, inner: GilBound(inner) }
    }

    /// From now on, the guest is told the time: entries may have deadlines.
    fn heed_time(&self) {
        self.inner.0.timed.set(true);
    }

    /// From now on, operations go by this lane.
    fn bind(&self, py: Python<'_>, lane: Py<PyAny>, gate: Py<Gate>, addresses: [usize; raw::NUMBERS]) -> PyResult<()> {
        let door = gate.get().door();
        door.wait(py)?;
        let Some(guest) = Guest::new(addresses.into(), door) else {
            return Err(PyValueError::new_err("these are no addresses of a guest"));
        };
        self.unbind(py);
        let inner = &self.inner.0;
        if inner.busy.get() {
            // From within an operation, which still uses the old one.
            inner.pending.replace(Some((guest, lane, gate)));
        } else {
            inner.install(guest, lane, gate);
        }
        Ok(())
    }

    /// From now on, operations are refused here, and so go the long way.
    fn unbind(&self, py: Python<'_>) {
        let inner = &self.inner.0;
        inner.bound.set(false);
        let pending = inner.pending.take();
        let old = inner.lane.take().into_iter().chain(inner.gate.take().map(Py::into_any));
        if inner.busy.get() {
            inner.retired.borrow_mut().extend(old);
        } else {
            old.for_each(|old| drop(old.into_bound(py)));
        }
        if let Some((_, lane, gate)) = pending {
            drop((lane.into_bound(py), gate.into_bound(py)));
        }
    }

    #[getter]
    fn bound(&self) -> bool {
        self.inner.0.bound.get()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.clock)?;
        visit.call(&*self.inner.0.lane.borrow())?;
        Ok(())
    }
}

impl Inner {
    /// Only when nothing is bound and no operation is under way.
    fn install(&self, guest: Guest, lane: Py<PyAny>, gate: Py<Gate>) {
        self.gate.replace(Some(gate));
        self.guest.replace(Some(guest));
        self.lane.replace(Some(lane));
        self.bound.set(true);
    }

    /// Sees to what was bound and let go during the operation that just ended.
    #[cold]
    fn tidy(&self, py: Python<'_>) {
        if let Some((guest, lane, gate)) = self.pending.take() {
            self.install(guest, lane, gate);
        }
        // Last, because it may run Python code.
        for lane in self.retired.take() {
            drop(lane.into_bound(py));
        }
    }
}

/// The end of an operation, however it ends.
pub struct Busy<'a, 'py>(&'a Inner, Python<'py>);

impl<'a> Busy<'a, '_> {
    pub fn guest(&self) -> Ref<'a, Option<Guest>> {
        self.0.guest.borrow()
    }
}

impl Drop for Busy<'_, '_> {
    fn drop(&mut self) {
        self.0.busy.set(false);
        if !self.0.bound.get() {
            self.0.tidy(self.1);
        }
    }
}

impl Binding {
    /// Nanoseconds, of the same clock as `time.monotonic_ns` or the caller's own; or that it was not read.
    #[inline]
    pub fn now(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        if !self.inner.0.timed.get() {
            return Ok(Some(NOT_READ));
        }
        match &self.clock {
            None => {
                let elapsed = self.started.elapsed();
                let elapsed = elapsed.as_secs().wrapping_mul(1_000_000_000).wrapping_add(elapsed.subsec_nanos().into());
                Ok(Some(self.start.wrapping_add(elapsed)))
            }
            Some(clock) => Ok(clock.bind(py).call0()?.extract().ok()),
        }
    }

    /// The lane that this was answered on, which takes no other operation if that was a trap.
    fn lane_after<'py>(&self, py: Python<'py>, answer: Answer) -> Option<Bound<'py, PyAny>> {
        if answer.trapped {
            self.inner.0.bound.set(false);
        }
        self.inner.0.lane.borrow().as_ref().map(|lane| lane.bind(py).clone())
    }

    /// Nobody else has the lane until the answer is dropped.
    #[inline]
    pub fn begin<'py>(&self, py: Python<'py>) -> Option<Busy<'_, 'py>> {
        let inner = &self.inner.0;
        if !inner.bound.get() || inner.busy.replace(true) {
            return None;
        }
        Some(Busy(inner, py))
    }
}

/// What `Moka` inherits from: the place for a channel's binding.
#[pyclass(frozen, subclass, module = "moka_wasm._native")]
pub struct Hot {
    attached: OnceLock<Attached>,
}

pub struct Attached {
    /// The only one, or that of the first shard.
    binding: Py<Binding>,
    /// Those of all shards by their numbers, if there are several.
    shards: Box<[Py<Binding>]>,
    /// Whether `set` is done here.
    pub sets: bool,
    /// Whether everything is left to Python, for now.
    left: GilBound<Cell<bool>>,
    pub loads: Py<PyAny>,
    /// Its one item changes whenever a computation of single flight ends.
    pub mark: Py<PyList>,
    /// The queue of what the listener is to be told, if there is one.
    untold: Option<Py<PyAny>>,
}

impl Attached {
    /// The binding of a key's shard; `None`: the key is left to Python.
    #[inline]
    fn binding_for(&self, write_key: &dyn Fn(&mut Writer<'_>) -> Option<()>) -> Option<&Binding> {
        if self.shards.is_empty() { Some(self.binding.get()) } else { self.binding_of_shard(write_key) }
    }

    /// The key is written here to be hashed, and into its shard's mailbox once more: so what follows is the same code with
    /// shards and without, and as fast without.
    #[inline(never)]
    fn binding_of_shard(&self, write_key: &dyn Fn(&mut Writer<'_>) -> Option<()>) -> Option<&Binding> {
        let mut room = [0; SHORT];
        let mut out = Writer::new(&mut room);
        write_key(&mut out)?;
        let length = out.length();
        Some(self.shard(self.shard_of(room.get(..length)?)))
    }

    /// Whether somebody is to be told of what is removed.
    pub fn has_listener(&self) -> bool {
        self.untold.is_some()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len().max(1)
    }

    /// The number of this key's shard.
    pub fn shard_of(&self, key: &[u8]) -> usize {
        (hash(key) % self.shards() as u64) as usize
    }

    /// The binding of the shard of this number.
    pub fn shard(&self, number: usize) -> &Binding {
        self.shards.get(number).unwrap_or(&self.binding).get()
    }

    /// Bytes of a mailbox.
    pub fn room(&self) -> Option<usize> {
        self.binding.get().inner.0.guest.borrow().as_ref().map(Guest::room)
    }
}

fn hash(key: &[u8]) -> u64 {
    static KEYED_AT_RANDOM: OnceLock<RandomState> = OnceLock::new();
    KEYED_AT_RANDOM.get_or_init(RandomState::new).hash_one(key)
}

/// What `_sharded_channel.py` takes, too. Whoever chooses keys cannot foresee it, and so not pile them up in one shard.
#[pyfunction]
pub fn shard_hash(key: &[u8]) -> u64 {
    hash(key)
}

#[pymethods]
impl Hot {
    #[new]
    #[pyo3(signature = (*_arguments, **_named))]
    fn new(_arguments: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        Hot { attached: OnceLock::new() }
    }

    /// Takes the short ways, `set` among them if `sets`; those of batches if there is no listener, whose queue `untold` is.
    fn _attach(
        &self,
        py: Python<'_>,
        bindings: Vec<Py<Binding>>,
        sets: bool,
        loads: Py<PyAny>,
        mark: Py<PyList>,
        untold: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let Some(binding) = bindings.first().map(|first| first.clone_ref(py)) else {
            return Err(PyValueError::new_err("a cache has at least one binding"));
        };
        let shards = if bindings.len() == 1 { Box::default() } else { bindings.into_boxed_slice() };
        let left = GilBound(Cell::new(false));
        drop(self.attached.set(Attached { binding, shards, sets, left, loads, mark, untold }));
        Ok(())
    }

    /// Takes the long ways for now, or the short ones again: a listener that was interrupted is to be told the rest by
    /// the next operation, whatever the guest answers that.
    fn _leave_to_python(&self, left: bool) {
        if let Some(attached) = self.attached.get() {
            attached.left.0.set(left);
        }
    }

    #[getter]
    fn _left_to_python(&self) -> bool {
        self.attached.get().is_some_and(|attached| attached.left.0.get())
    }

    #[getter]
    fn _takes_short_ways(&self) -> bool {
        self.attached.get().is_some()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(attached) = self.attached.get() {
            visit.call(&attached.binding)?;
            attached.shards.iter().try_for_each(|shard| visit.call(shard))?;
            visit.call(&attached.loads)?;
            visit.call(&attached.mark)?;
            visit.call(&attached.untold)?;
        }
        Ok(())
    }
}

/// The methods of Python that do all that is not done here.
pub struct Fallbacks {
    get: Py<PyAny>,
    get_with: Py<PyAny>,
    get_with_missed: Py<PyAny>,
    pub get_many: Py<PyAny>,
    pub set_many: Py<PyAny>,
    pub remove_many: Py<PyAny>,
    set: Py<PyAny>,
    contains: Py<PyAny>,
    remove: Py<PyAny>,
    get_item: Py<PyAny>,
    set_item: Py<PyAny>,
    del_item: Py<PyAny>,
    get_encoded: Py<PyAny>,
    set_encoded: Py<PyAny>,
    encode_key: Py<PyAny>,
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
    finish: Py<PyAny>,
    tell: Py<PyAny>,
}

static FALLBACKS: PyOnceLock<Fallbacks> = PyOnceLock::new();

/// Puts the methods of this module before those of the class.
#[pyfunction]
pub fn install(class: &Bound<'_, PyType>) -> PyResult<()> {
    let py = class.py();
    if !class.is_subclass_of::<Hot>()? {
        return Err(PyTypeError::new_err("the class must be derived from Hot"));
    }
    let method = |name| class.getattr(name).map(Bound::unbind);
    let fallbacks = Fallbacks {
        get: method("get")?,
        get_with: method("get_with")?,
        get_with_missed: method("_get_with_missed")?,
        get_many: method("get_many")?,
        set_many: method("set_many")?,
        remove_many: method("remove_many")?,
        set: method("set")?,
        contains: method("__contains__")?,
        remove: method("remove")?,
        get_item: method("__getitem__")?,
        set_item: method("__setitem__")?,
        del_item: method("__delitem__")?,
        get_encoded: method("_get_encoded")?,
        set_encoded: method("_set_encoded")?,
        encode_key: method("_encode_key")?,
        dumps: method("_dumps")?,
        loads: method("_loads")?,
        finish: method("_finish_hot")?,
        tell: method("_tell")?,
    };
    if FALLBACKS.set(py, fallbacks).is_err() {
        return Err(PyTypeError::new_err("another class was given already"));
    }
    let methods = [
        (c"get", c"($self, key, default=None)", raw::get as pyo3::ffi::PyCFunctionFastWithKeywords),
        (c"set", c"($self, key, value, ttl=None, tti=None)", raw::set),
        (c"get_with", c"($self, key, initializer, ttl=None, tti=None)", raw::get_with),
        (c"remove", c"($self, key, default=None)", raw::remove),
        (c"get_many", c"($self, keys)", raw::get_many),
        (c"set_many", c"($self, entries, ttl=None, tti=None)", raw::set_many),
        (c"remove_many", c"($self, keys)", raw::remove_many),
        (c"__getitem__", c"($self, key)", raw::get_item),
        (c"__setitem__", c"($self, key, value)", raw::set_item),
        (c"__delitem__", c"($self, key)", raw::del_item),
        (c"__contains__", c"($self, key)", raw::contains),
        (c"_get_encoded", c"($self, key_bytes)", raw::get_encoded),
        (c"_set_encoded", c"($self, key_bytes, key, value, data, ttl, tti)", raw::set_encoded),
        (c"_encode_key", c"($self, key)", raw::encode_key),
        (c"_dumps", c"($self, value)", raw::dumps),
        (c"_loads", c"($self, data)", raw::loads),
    ];
    for (name, signature, function) in methods {
        let name_text = name.to_string_lossy();
        let text = class.getattr(&*name_text)?.getattr("__doc__")?;
        let text = if text.is_none() { String::new() } else { text.extract()? };
        let doc = format!("{name_text}{}\n--\n\n{text}", signature.to_string_lossy());
        let doc = Box::leak(std::ffi::CString::new(doc)?.into_boxed_c_str());
        class.setattr(&*name_text, raw::descriptor(class, name, doc, function)?)?;
    }
    Ok(())
}

#[inline]
pub fn attached<'a>(arguments: &Arguments<'a, '_>) -> Option<&'a Attached> {
    hot(arguments.myself).attached.get().filter(|attached| !attached.left.0.get())
}

#[allow(unsafe_code, reason = "a type check for each call would be a second one")]
#[inline]
fn hot<'a>(myself: Borrowed<'a, '_, PyAny>) -> &'a Hot {
    // SAFETY: the descriptors check that it is an instance of their class, which `install` saw is derived from Hot. The
    // interpreter keeps it for the time of the call.
    unsafe { &*std::ptr::from_ref(raw::unchecked::<Hot>(myself).get()) }
}

/// What Python's method says.
#[cold]
pub fn fall_back<'py>(
    arguments: &Arguments<'_, 'py>,
    method: impl FnOnce(&Fallbacks) -> &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    let fallbacks = FALLBACKS.get(py).ok_or_else(|| PyTypeError::new_err("install was not called"))?;
    pass_on(method(fallbacks).bind(py), Some(arguments.myself), arguments)
}

/// Calls with the very same arguments, after `first`.
pub fn pass_on<'py>(
    callable: &Bound<'py, PyAny>,
    first: Option<Borrowed<'_, 'py, PyAny>>,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let positional = (0..arguments.positional()).filter_map(|index| arguments.get(index));
    let values = PyTuple::new(callable.py(), first.into_iter().chain(positional).collect::<Vec<_>>())?;
    let Some(names) = arguments.names else { return callable.call1(values) };
    let named = PyDict::new(callable.py());
    for (index, name) in names.try_iter()?.enumerate() {
        if let Some(value) = arguments.get(arguments.positional() + index) {
            named.set_item(name?, value)?;
        }
    }
    callable.call(values, Some(&named))
}

/// What Python's method says to these arguments.
pub fn fall_back_with<'py>(
    myself: Borrowed<'_, 'py, PyAny>,
    values: &[Bound<'py, PyAny>],
    method: impl FnOnce(&Fallbacks) -> &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = myself.py();
    let fallbacks = FALLBACKS.get(py).ok_or_else(|| PyTypeError::new_err("install was not called"))?;
    let values = std::iter::once(myself.to_owned()).chain(values.iter().cloned()).collect::<Vec<_>>();
    method(fallbacks).bind(py).call1(PyTuple::new(py, values)?)
}

/// Leaves an unusual answer to Python, which knows what it means; its value, of bytes, or None.
#[cold]
pub fn finish<'py>(binding: &Binding, arguments: &Arguments<'_, 'py>, answer: Answer) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    let lane = binding.lane_after(py, answer);
    let fallbacks = FALLBACKS.get(py).ok_or_else(|| PyTypeError::new_err("install was not called"))?;
    fallbacks.finish.bind(py).call1((arguments.myself, lane, answer.error))
}

/// Ends an operation that removed something, and whose own answer was read already: has the listener told.
#[cold]
fn tell<'a>(
    (binding, attached): (&'a Binding, &Attached),
    arguments: &Arguments<'_, '_>,
    answer: Answer,
    borrowed: Ref<'a, Option<Guest>>,
    busy: Busy<'a, '_>,
) -> PyResult<()> {
    let py = arguments.myself.py();
    let drained = match (&attached.untold, borrowed.as_ref()) {
        (Some(untold), Some(guest)) => guest.drain(REMOVALS).map(|drained| (untold, guest, drained)),
        _ => None,
    };
    let Some((untold, guest, drained)) = drained else {
        drop(borrowed);
        return finish(binding, arguments, answer).map(drop);
    };
    let length = drained.upper & !REMOVALS_WAIT;
    let copy = (!drained.trapped && length < REMOVALS_WAIT)
        .then(|| guest.read(drained.lower as usize, length as usize, <[u8]>::to_vec))
        .flatten();
    drop(borrowed);
    let lane = (copy.is_none() || length != drained.upper).then(|| binding.lane_after(py, drained)).flatten();
    // Where Python need not look at the lane, it is free for what the listener does.
    let busy = lane.is_some().then_some(busy);
    if let Some(copy) = copy {
        let Some(removals) = removals(&copy) else {
            return Err(PyValueError::new_err("what the sandbox says was removed does not keep to its format"));
        };
        // An interrupt that comes before they are told leaves them to the next operation.
        if !removals.is_empty() {
            attached.left.0.set(true);
        }
        for (cause, key, value) in removals {
            untold.bind(py).call_method1("append", ((cause, PyBytes::new(py, key), PyBytes::new(py, value)),))?;
        }
    }
    let fallbacks = FALLBACKS.get(py).ok_or_else(|| PyTypeError::new_err("install was not called"))?;
    fallbacks.tell.bind(py).call1((arguments.myself, lane, drained.error))?;
    drop(busy);
    Ok(())
}

/// Cause, key and value.
type Removal<'a> = (u32, &'a [u8], &'a [u8]);

/// What `moka_drain` answered; `None`: it does not keep to its format.
fn removals(answer: &[u8]) -> Option<Vec<Removal<'_>>> {
    let (_lost, mut rest) = answer.split_first_chunk::<8>()?;
    let count = take_u32(&mut rest)?;
    let mut removals = Vec::new();
    for _ in 0..count {
        let [cause, key, value] = [take_u32(&mut rest)?, take_u32(&mut rest)?, take_u32(&mut rest)?];
        let (key, after_key) = rest.split_at_checked(key as usize)?;
        let (value, after) = after_key.split_at_checked(value as usize)?;
        removals.push((cause, key, value));
        rest = after;
    }
    Some(removals)
}

/// What was found.
pub enum Found<'py> {
    Value(Bound<'py, PyAny>),
    Nothing,
    /// It has to be done in Python.
    Unusual,
}

/// What was made of an answer while it was read.
enum Read<'py> {
    Nothing,
    Object(Bound<'py, PyAny>),
    /// It is still to be decoded.
    Copy(Vec<u8>),
}

/// Room for a [`Read::Copy`]; it is taken out while it is in use.
static SCRATCH: GilBound<Cell<Vec<u8>>> = GilBound(Cell::new(Vec::new()));
/// More bytes are given back.
const KEPT_SCRATCH: usize = 1 << 16;

#[inline]
fn read<'py>(py: Python<'py>, bytes: &[u8], decode: bool) -> Read<'py> {
    if !decode {
        return Read::Object(PyBytes::new(py, bytes).into_any());
    }
    if codec::is_leaf(bytes)
        && let Some(value) = codec::read_value(py, bytes)
    {
        return Read::Object(value);
    }
    // Copied before any object is made that the garbage collector looks after: its finalizers may run the guest.
    let mut copy = SCRATCH.0.take();
    copy.clear();
    copy.extend_from_slice(bytes);
    Read::Copy(copy)
}

#[inline]
fn decoded<'py>(attached: &Attached, py: Python<'py>, copy: Vec<u8>) -> PyResult<Bound<'py, PyAny>> {
    let value = match codec::read_value(py, &copy) {
        Some(value) => Ok(value),
        None => attached.loads.bind(py).call1((PyBytes::new(py, &copy),)),
    };
    if copy.capacity() <= KEPT_SCRATCH {
        SCRATCH.0.set(copy);
    }
    value
}

/// A look-up.
#[inline]
pub fn look_up<'py>(
    attached: &Attached,
    arguments: &Arguments<'_, 'py>,
    write_key: impl Fn(&mut Writer<'_>) -> Option<()>,
    decode: bool,
) -> PyResult<Found<'py>> {
    find(attached, arguments, write_key, decode, Guest::get)
}

/// An operation with a key that answers its value, if it is there. What is no container is made of the answered bytes at
/// once, as that runs no Python code; else they are copied first.
#[inline]
fn find<'py>(
    attached: &Attached,
    arguments: &Arguments<'_, 'py>,
    write_key: impl Fn(&mut Writer<'_>) -> Option<()>,
    decode: bool,
    call: impl FnOnce(&Guest, usize, u64) -> Option<Answer>,
) -> PyResult<Found<'py>> {
    let py = arguments.myself.py();
    let Some(binding) = attached.binding_for(&write_key) else { return Ok(Found::Unusual) };
    let Some(now) = binding.now(py)? else { return Ok(Found::Unusual) };
    let Some(busy) = binding.begin(py) else { return Ok(Found::Unusual) };
    let borrowed = busy.guest();
    let Some(guest) = borrowed.as_ref() else { return Ok(Found::Unusual) };
    let written = guest.fill(|room| {
        let mut out = Writer::new(room);
        write_key(&mut out).map(|()| out.length())
    });
    let Some(length) = written else { return Ok(Found::Unusual) };
    let Some(answer) = call(guest, length, now) else { return Ok(Found::Unusual) };
    let told = answer.upper & !REMOVALS_WAIT;
    if !answer.trapped && (told == NO_BYTES || told < REMOVALS_WAIT) {
        let read = if told == NO_BYTES {
            Some(Read::Nothing)
        } else {
            guest.read(answer.lower as usize, told as usize, |bytes| read(py, bytes, decode))
        };
        if let Some(read) = read {
            if told == answer.upper {
                drop(borrowed);
                drop(busy);
            } else {
                tell((binding, attached), arguments, answer, borrowed, busy)?;
            }
            return match read {
                Read::Nothing => Ok(Found::Nothing),
                Read::Object(value) => Ok(Found::Value(value)),
                Read::Copy(copy) => decoded(attached, py, copy).map(Found::Value),
            };
        }
    }
    drop(borrowed);
    let data = finish(binding, arguments, answer)?;
    drop(busy);
    if answer.trapped {
        // No exception: it is to be done once more.
        return Ok(Found::Unusual);
    }
    if data.is_none() {
        Ok(Found::Nothing)
    } else if decode {
        attached.loads.bind(py).call1((data,)).map(Found::Value)
    } else {
        Ok(Found::Value(data))
    }
}

pub fn get<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(attached), None, Some(key), 1 | 2) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
    {
        match look_up(attached, arguments, |out| codec::write_key(out, key), true)? {
            Found::Value(value) => return Ok(value),
            Found::Nothing => return Ok(default(arguments)),
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.get)
}

pub fn get_with<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // How long it is to live does not matter where it is found; whether that can be is checked all the same.
    if let (Some(attached), Some(key), Some(initializer), Some(lives)) =
        (attached(arguments), arguments.get(0), arguments.get(1), lives(arguments, 2))
        && let Ok(mark) = attached.mark.bind(key.py()).get_item(0)
    {
        match look_up(attached, arguments, |out| codec::write_key(out, key), true)? {
            Found::Value(value) => return Ok(value),
            Found::Nothing => {
                let none = || key.py().None().into_bound(key.py());
                let [ttl, tti] = lives.given.map(|life| life.map_or_else(none, |life| life.to_owned()));
                let values = [key.to_owned(), initializer.to_owned(), mark, ttl, tti];
                return fall_back_with(arguments.myself, &values, |fallbacks| &fallbacks.get_with_missed);
            }
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.get_with)
}

pub fn get_item<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(attached), None, Some(key), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
    {
        match look_up(attached, arguments, |out| codec::write_key(out, key), true)? {
            Found::Value(value) => return Ok(value),
            Found::Nothing => return Err(key_error(key)),
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.get_item)
}

pub fn get_encoded<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(attached), None, Some(key), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
        && let Ok(bytes) = key.cast_exact::<PyBytes>()
    {
        match look_up(attached, arguments, |out| out.put(bytes.as_bytes()), false)? {
            Found::Value(value) => return Ok(value),
            Found::Nothing => return Ok(key.py().None().into_bound(key.py())),
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.get_encoded)
}

pub fn encode_key<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (None, Some(key), 1) = (arguments.names, arguments.get(0), arguments.positional())
        && let Some(bytes) = written(key, codec::write_key)
    {
        return Ok(bytes);
    }
    fall_back(arguments, |fallbacks| &fallbacks.encode_key)
}

pub fn dumps<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(_), None, Some(value), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
        && let Some(bytes) = written(value, |out, value| codec::write_value(out, value, 0))
    {
        return Ok(bytes);
    }
    fall_back(arguments, |fallbacks| &fallbacks.dumps)
}

/// What this writes, as bytes, if it is short.
#[inline]
fn written<'a, 'py>(
    object: Borrowed<'a, 'py, PyAny>,
    write: impl FnOnce(&mut Writer<'_>, Borrowed<'a, 'py, PyAny>) -> Option<()>,
) -> Option<Bound<'py, PyAny>> {
    let mut room = [0; SHORT];
    let mut out = Writer::new(&mut room);
    write(&mut out, object)?;
    let length = out.length();
    Some(PyBytes::new(object.py(), room.get(..length)?).into_any())
}

pub fn loads<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(_), None, Some(data), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
        && let Ok(bytes) = data.cast_exact::<PyBytes>()
        && let Some(value) = codec::read_value(data.py(), bytes.as_bytes())
    {
        return Ok(value);
    }
    fall_back(arguments, |fallbacks| &fallbacks.loads)
}

pub fn set<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    if let Some(lives) = lives(arguments, 2)
        && store(arguments, lives)?
    {
        return Ok(py.None().into_bound(py));
    }
    fall_back(arguments, |fallbacks| &fallbacks.set)
}

pub fn set_item<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    if arguments.names.is_none() && arguments.positional() == 2 && store(arguments, Lives::NONE)? {
        return Ok(py.None().into_bound(py));
    }
    fall_back(arguments, |fallbacks| &fallbacks.set_item)
}

/// Stores the first two arguments; false: it has to be done in Python.
#[inline]
fn store(arguments: &Arguments<'_, '_>, lives: Lives<'_, '_>) -> PyResult<bool> {
    let (Some(attached), Some(key), Some(value)) = (attached(arguments), arguments.get(0), arguments.get(1)) else {
        return Ok(false);
    };
    if !attached.sets {
        return Ok(false);
    }
    put(attached, arguments, |out| codec::write_key(out, key), |out| codec::write_value(out, value, 0), lives)
}

/// Stores what these write; false: it has to be done in Python.
#[inline]
fn put(
    attached: &Attached,
    arguments: &Arguments<'_, '_>,
    write_key: impl Fn(&mut Writer<'_>) -> Option<()>,
    write_value: impl FnOnce(&mut Writer<'_>) -> Option<()>,
    lives: Lives<'_, '_>,
) -> PyResult<bool> {
    let write = |out: &mut Writer<'_>| {
        write_key(out)?;
        let length = out.length();
        write_value(out)?;
        Some((length, out.length() - length))
    };
    let deadline = lives.nanoseconds != Lives::NONE.nanoseconds;
    let told = ask(attached, arguments, &write_key, deadline, write, |guest, (key, value), now| {
        guest.set(key, value, lives.nanoseconds, now)
    })?;
    Ok(!matches!(told, Told::Unusual))
}

pub fn set_encoded<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    if let (Some(attached), Some(key), Some(data), Some(lives)) =
        (attached(arguments).filter(|attached| attached.sets), arguments.get(0), arguments.get(3), lives(arguments, 4))
        && let (Ok(key), Ok(data)) = (key.cast_exact::<PyBytes>(), data.cast_exact::<PyBytes>())
        && put(attached, arguments, |out| out.put(key.as_bytes()), |out| out.put(data.as_bytes()), lives)?
    {
        return Ok(py.None().into_bound(py));
    }
    fall_back(arguments, |fallbacks| &fallbacks.set_encoded)
}

pub fn contains<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.myself.py();
    if let (Some(attached), None, Some(key), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
    {
        let write_key = |out: &mut Writer<'_>| codec::write_key(out, key);
        let write = |out: &mut Writer<'_>| write_key(out).map(|()| out.length());
        match ask(attached, arguments, &write_key, false, write, Guest::contains)? {
            Told::Unusual => {}
            told => return Ok(PyBool::new(py, matches!(told, Told::Yes)).to_owned().into_any()),
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.contains)
}

/// What an operation answered that answers no value.
enum Told {
    Yes,
    No,
    /// It has to be done in Python.
    Unusual,
}

/// An operation with a key that answers yes or no. `write` fills the mailbox, from the key on; with a `deadline` the guest
/// has to know the time.
#[inline]
fn ask<T>(
    attached: &Attached,
    arguments: &Arguments<'_, '_>,
    write_key: &dyn Fn(&mut Writer<'_>) -> Option<()>,
    deadline: bool,
    write: impl FnOnce(&mut Writer<'_>) -> Option<T>,
    call: impl FnOnce(&Guest, T, u64) -> Option<Answer>,
) -> PyResult<Told> {
    let py = arguments.myself.py();
    let Some(binding) = attached.binding_for(write_key) else { return Ok(Told::Unusual) };
    if deadline && !binding.inner.0.timed.get() {
        // Python notes that there are deadlines from now on.
        return Ok(Told::Unusual);
    }
    let Some(now) = binding.now(py)? else { return Ok(Told::Unusual) };
    let Some(busy) = binding.begin(py) else { return Ok(Told::Unusual) };
    let borrowed = busy.guest();
    let Some(guest) = borrowed.as_ref() else { return Ok(Told::Unusual) };
    let Some(written) = guest.fill(|room| write(&mut Writer::new(room))) else { return Ok(Told::Unusual) };
    let Some(answer) = call(guest, written, now) else { return Ok(Told::Unusual) };
    let upper = answer.upper & !REMOVALS_WAIT;
    let told = if upper == NO_BYTES { Told::No } else { Told::Yes };
    if !answer.trapped && (upper == NO_BYTES || upper == NO_BYTES | YES) {
        if upper != answer.upper {
            tell((binding, attached), arguments, answer, borrowed, busy)?;
        }
        return Ok(told);
    }
    drop(borrowed);
    finish(binding, arguments, answer)?;
    // After a trap without an exception it is to be done once more.
    Ok(if answer.trapped { Told::Unusual } else { told })
}

pub fn remove<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(attached), None, Some(key), 1 | 2) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
    {
        match find(attached, arguments, |out| codec::write_key(out, key), true, Guest::remove)? {
            Found::Value(value) => return Ok(value),
            Found::Nothing => return Ok(default(arguments)),
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.remove)
}

pub fn del_item<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let (Some(attached), None, Some(key), 1) =
        (attached(arguments), arguments.names, arguments.get(0), arguments.positional())
    {
        match find(attached, arguments, |out| codec::write_key(out, key), false, Guest::remove)? {
            Found::Value(_) => return Ok(key.py().None().into_bound(key.py())),
            Found::Nothing => return Err(key_error(key)),
            Found::Unusual => {}
        }
    }
    fall_back(arguments, |fallbacks| &fallbacks.del_item)
}

/// The second argument, or else None.
#[inline]
fn default<'py>(arguments: &Arguments<'_, 'py>) -> Bound<'py, PyAny> {
    let py = arguments.myself.py();
    arguments.get(1).map_or_else(|| py.None().into_bound(py), |default| default.to_owned())
}

#[cold]
fn key_error(key: Borrowed<'_, '_, PyAny>) -> PyErr {
    pyo3::exceptions::PyKeyError::new_err((key.to_owned().unbind(),))
}
