//! The core module inside the component, which is a list of sections
//! (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).

use std::error::Error;

use wasm_encoder::{ComponentSectionId, Encode};
use wasmparser::{Parser, Payload};

/// Which every core module exports that speaks the direct ABI, and none that wit-component adds.
const MARK: &str = "moka_abi_version";

/// A component, taken apart where its core module lies.
pub(crate) struct Parts<'a> {
    before: &'a [u8],
    pub(crate) module: &'a [u8],
    after: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(crate) fn of(component: &'a [u8]) -> Result<Self, Box<dyn Error>> {
        let mut end_of_last = 8;
        let mut parts = None;
        let mut depth = 0;
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::ModuleSection { unchecked_range: range, .. } if depth == 0 => {
                    let module = &component[range.clone()];
                    if speaks_the_direct_abi(module)? {
                        parts =
                            Some(Self { before: &component[..end_of_last], module, after: &component[range.end..] });
                    }
                    end_of_last = range.end;
                    depth += 1;
                }
                Payload::ComponentSection { unchecked_range: range, .. } => {
                    if depth == 0 {
                        end_of_last = range.end;
                    }
                    depth += 1;
                }
                Payload::End(_) => depth -= 1,
                other if depth == 0 => {
                    if let Some((_, range)) = other.as_section() {
                        end_of_last = range.end;
                    }
                }
                _ => {}
            }
        }
        parts.ok_or_else(|| format!("no core module of the component exports {MARK}").into())
    }

    /// The component with another core module.
    pub(crate) fn with_module(&self, module: &[u8]) -> Vec<u8> {
        let mut component = self.before.to_vec();
        component.push(ComponentSectionId::CoreModule.into());
        module.encode(&mut component);
        component.extend_from_slice(self.after);
        component
    }
}

fn speaks_the_direct_abi(module: &[u8]) -> Result<bool, Box<dyn Error>> {
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                if export?.name == MARK {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
