//! A cached function: a call that hits is answered here, any other by functions of `_wrapping.py`.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::call_keys::CallKeys;
use crate::hot::{Found, Hot, attached, look_up, pass_on};
use crate::raw::{Arguments, callable};

/// What a cached function consists of.
pub struct Function {
    cache: Py<Hot>,
    keys: CallKeys,
    /// Does all of a call, for what is not done here.
    whole: Py<PyAny>,
    /// Does what follows a look-up that found nothing.
    missed: Py<PyAny>,
    /// Whether concurrent calls share computations. `missed` then gets the mark from before the look-up first.
    shared: bool,
}

impl Function {
    pub fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        [self.cache.as_any(), &self.whole, &self.missed].into_iter()
    }

    pub fn release(self, py: Python<'_>) {
        let Function { cache, keys: _, whole, missed, shared: _ } = self;
        drop((cache.into_bound(py), whole.into_bound(py), missed.into_bound(py)));
    }

    /// Not inlined: what it keeps on the stack must not be there during the computation, which may be recursive.
    #[inline(never)]
    fn look_up<'py>(
        &self,
        arguments: &Arguments<'_, 'py>,
        mark: &mut Option<Bound<'py, PyAny>>,
    ) -> PyResult<Found<'py>> {
        let py = arguments.myself.py();
        let arguments_of_cache = arguments.of(self.cache.as_any().bind_borrowed(py));
        let Some(attached) = attached(&arguments_of_cache) else { return Ok(Found::Unusual) };
        if self.shared {
            *mark = Some(attached.mark.bind(py).get_item(0)?);
        }
        look_up(attached, &arguments_of_cache, |out| self.keys.write(out, arguments), true)
    }
}

/// A callable that behaves as a function does, and answers what `whole` answers.
///
/// Takes the cache, the function for any call, the one for a call that missed, whether that one gets the mark of single
/// flight first, how many arguments are no part of the key, and, if types are, the frames of the six that `CallKeys` knows.
#[pyfunction]
#[allow(clippy::needless_pass_by_value, reason = "they are kept")]
pub fn cached_function<'py>(
    cache: Bound<'py, Hot>,
    whole: Py<PyAny>,
    missed: Py<PyAny>,
    shared: bool,
    skipped: usize,
    types: Option<[Vec<u8>; 6]>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = cache.py();
    let keys = CallKeys { skipped, types };
    callable::new(py, Function { cache: cache.unbind(), keys, whole, missed, shared })
}

#[allow(unsafe_code, reason = "a type check for each call would be a second one")]
#[inline]
fn function<'a>(arguments: &Arguments<'a, '_>) -> &'a Function {
    // SAFETY: the bodies below are called by slots and methods of that type only, which check it.
    unsafe { callable::function(arguments.myself) }
}

pub fn call<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let function = function(arguments);
    let mut mark = None;
    match function.look_up(arguments, &mut mark)? {
        Found::Value(value) => Ok(value),
        Found::Nothing => {
            pass_on(function.missed.bind(arguments.myself.py()), mark.as_ref().map(Bound::as_borrowed), arguments)
        }
        Found::Unusual => pass_on(function.whole.bind(arguments.myself.py()), None, arguments),
    }
}

/// `__get__`: the function itself on a class, a bound method on an instance.
pub fn bind<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match arguments.get(0).filter(|instance| !instance.is_none()) {
        Some(instance) => METHOD.import(instance.py(), "types", "MethodType")?.call1((arguments.myself, instance)),
        None => Ok(arguments.myself.to_owned()),
    }
}

pub fn repr<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let myself = arguments.myself;
    let name = myself.getattr(intern!(myself.py(), "__qualname__"))?;
    Ok(format!("<function {} at {:p}>", name.str()?.to_string_lossy(), myself.as_ptr())
        .into_pyobject(myself.py())?
        .into_any())
}

/// `__reduce__`: a function is pickled by its name.
pub fn reduce<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    none_but(arguments, 0)?;
    arguments.myself.getattr(intern!(arguments.myself.py(), "__qualname__"))
}

/// `__copy__` and `__deepcopy__`: a function is its own copy.
pub fn copy<'py>(arguments: &Arguments<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    none_but(arguments, 1)?;
    Ok(arguments.myself.to_owned())
}

fn none_but(arguments: &Arguments<'_, '_>, most: usize) -> PyResult<()> {
    if arguments.names.is_some() || arguments.positional() > most {
        return Err(PyTypeError::new_err(format!("at most {most} arguments are taken, by position")));
    }
    Ok(())
}
