//! The type of a cached function: what CPython's own functions are to the interpreter (called by vectorcall, bound by the
//! instance that they are looked up on, with a `__dict__` and weak references), around a `Function`.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::{ManuallyDrop, offset_of};
use std::ptr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{Borrowed, ffi};

use super::{Arguments, enter};
use crate::cached::{self, Function};

#[repr(C)]
struct Object {
    head: ffi::PyObject,
    call: Cell<Option<ffi::vectorcallfunc>>,
    dict: Cell<*mut ffi::PyObject>,
    weak_references: *mut ffi::PyObject,
    function: ManuallyDrop<Function>,
}

/// The same bit in all versions of CPython since 3.9; its name is part of the limited API since 3.12 only.
const HAVE_VECTORCALL: u64 = 1 << 11;
#[allow(clippy::unnecessary_cast, reason = "they are c_ulong, which has 32 bits on Windows")]
const FLAGS: u64 = ffi::Py_TPFLAGS_DEFAULT as u64
    | ffi::Py_TPFLAGS_HAVE_GC as u64
    | ffi::Py_TPFLAGS_IMMUTABLETYPE as u64
    | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION as u64
    | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR as u64
    | HAVE_VECTORCALL;

/// In front of the number of positional arguments: whether the caller lends the place before them.
const OFFSET: usize = 1 << (usize::BITS - 1);

static TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A new callable.
pub fn new(py: Python<'_>, function: Function) -> PyResult<Bound<'_, PyAny>> {
    let class = TYPE.get_or_try_init(py, || make_type(py))?;
    // SAFETY: it is a type, whose instances are `Object`s. The garbage collector may look at a new one as soon as
    // anything is allocated, which nothing does before its last field is written.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_ptr().cast(), 0);
        let bound = Bound::from_owned_ptr_or_err(py, object)?;
        let object = object.cast::<Object>();
        (&raw mut (*object).function).write(ManuallyDrop::new(function));
        (*object).call.set(Some(call));
        Ok(bound)
    }
}

/// What a callable of this type holds.
///
/// # Safety
/// `myself` must be one.
#[inline]
pub unsafe fn function<'a>(myself: Borrowed<'a, '_, PyAny>) -> &'a Function {
    // SAFETY: the caller's promise; nobody changes it as long as it lives.
    unsafe { &(*myself.as_ptr().cast::<Object>()).function }
}

fn make_type(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let member = |name: *const c_char, offset: usize| ffi::PyMemberDef {
        name,
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let members = [
        member(c"__vectorcalloffset__".as_ptr(), offset_of!(Object, call)),
        member(c"__dictoffset__".as_ptr(), offset_of!(Object, dict)),
        member(c"__weaklistoffset__".as_ptr(), offset_of!(Object, weak_references)),
        ffi::PyMemberDef::default(),
    ];
    let dict = ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(ffi::PyObject_GenericGetDict),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: ptr::null(),
        closure: ptr::null_mut(),
    };
    let method = |name: *const c_char, function: ffi::PyCFunctionFastWithKeywords| ffi::PyMethodDef {
        ml_name: name,
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: ptr::null(),
    };
    let methods = [
        method(c"__reduce__".as_ptr(), reduce),
        method(c"__copy__".as_ptr(), copy),
        method(c"__deepcopy__".as_ptr(), copy),
        ffi::PyMethodDef::zeroed(),
    ];
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    let mut slots = [
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_call, call_slot as *mut c_void),
        slot(ffi::Py_tp_descr_get, descr_get as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        // The interpreter goes on using these.
        slot(ffi::Py_tp_members, Box::leak(Box::new(members)).as_mut_ptr().cast()),
        slot(ffi::Py_tp_methods, Box::leak(Box::new(methods)).as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, Box::leak(Box::new([dict, ffi::PyGetSetDef::default()])).as_mut_ptr().cast()),
        slot(0, ptr::null_mut()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"moka_wasm._native.CachedFunction".as_ptr(),
        basicsize: size_of::<Object>() as c_int,
        itemsize: 0,
        flags: FLAGS as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the slots hold functions of their types, every list ends with an empty element, and the offsets are those
    // of pointers.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec)).map(Bound::unbind) }
}

unsafe extern "C" fn call(
    myself: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    positional: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: this is what the interpreter called; but for the bit, the arguments are those of a method.
    unsafe { enter(cached::call, myself, values, (positional & !OFFSET) as ffi::Py_ssize_t, names) }
}

/// `__call__` as a method, which the interpreter itself goes past.
unsafe extern "C" fn call_slot(
    myself: *mut ffi::PyObject,
    values: *mut ffi::PyObject,
    named: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a tuple, and a dict or null. It takes the vectorcall, so that it does not come back here.
    unsafe { ffi::PyObject_Call(myself, values, named) }
}

unsafe extern "C" fn descr_get(
    myself: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _owner: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for a method with one argument, or, on a class, with none.
    unsafe { enter(cached::bind, myself, &raw const instance, (!instance.is_null()).into(), ptr::null_mut()) }
}

unsafe extern "C" fn repr(myself: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as for a method without arguments.
    unsafe { enter(cached::repr, myself, ptr::null(), 0, ptr::null_mut()) }
}

method!(reduce, cached::reduce);
method!(copy, cached::copy);

unsafe extern "C" fn traverse(myself: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the garbage collector asks a living `Object`, whose type it is to count too.
    unsafe {
        let object = &*myself.cast::<Object>();
        let mut seen = 0;
        let mut visit_one = |held: *mut ffi::PyObject| {
            if seen == 0 && !held.is_null() {
                seen = visit(held, arg);
            }
        };
        visit_one(ffi::Py_TYPE(myself).cast());
        visit_one(object.dict.get());
        for held in object.function.held() {
            visit_one(held.as_ptr());
        }
        seen
    }
}

/// Breaks cycles that go through an attribute. Those that go through the rest have functions of Python in them, which
/// break them.
unsafe extern "C" fn clear(myself: *mut ffi::PyObject) -> c_int {
    // SAFETY: as in `traverse`. The reference is taken out before what it frees may run.
    unsafe { ffi::Py_XDECREF((*myself.cast::<Object>()).dict.replace(ptr::null_mut())) };
    0
}

unsafe extern "C" fn dealloc(myself: *mut ffi::PyObject) {
    // SAFETY: nothing refers to it any more. The type's reference is given back last, as for every object of a type that
    // was made at run time; the function is taken out once.
    unsafe {
        ffi::PyObject_GC_UnTrack(myself.cast());
        let object = myself.cast::<Object>();
        if !(*object).weak_references.is_null() {
            ffi::PyObject_ClearWeakRefs(myself);
        }
        clear(myself);
        ManuallyDrop::take(&mut (*object).function).release(Python::assume_attached());
        let class = ffi::Py_TYPE(myself);
        ffi::PyObject_GC_Del(myself.cast());
        ffi::Py_DECREF(class.cast());
    }
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// The same arguments, of another object's method.
    #[inline]
    pub fn of(&self, myself: Borrowed<'a, 'py, PyAny>) -> Self {
        Arguments { myself, names: self.names, values: self.values, positional: self.positional }
    }
}
