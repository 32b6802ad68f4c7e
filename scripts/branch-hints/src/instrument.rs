//! A module that counts its branches.

use std::convert::Infallible;
use std::error::Error;

use wasm_encoder::reencode::{Error as ReencodeError, Reencode, utils};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemArg, MemorySection, MemoryType,
    Module, TypeSection, ValType,
};
use wasmparser::{FunctionBody, Parser, Payload, TypeRef};

use crate::counters::{self, Numbering};

/// The name by which the counters' memory is exported: little-endian numbers of 64 bits.
const EXPORT: &str = "branch_counts";
const PAGE: u64 = 1 << 16;

/// The core module with the counters, and otherwise as it was, without its custom sections.
pub(crate) fn instrument(module: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut counting = Counting { before: Contents::of(module)?, numbering: Numbering::default() };
    let mut instrumented = Module::new();
    counting.parse_core_module(&mut instrumented, Parser::new(0), module)?;
    Ok(instrumented.finish())
}

/// How much of each kind the module had: what is added comes after it.
#[derive(Default)]
struct Contents {
    types: u32,
    functions: u32,
    memories: u32,
    counters: u32,
}

impl Contents {
    fn of(module: &[u8]) -> Result<Self, Box<dyn Error>> {
        let mut found = Self::default();
        let mut numbering = Numbering::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(types) => found.types = types.count(),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        match import?.ty {
                            TypeRef::Func(_) => found.functions += 1,
                            TypeRef::Memory(_) => found.memories += 1,
                            _ => {}
                        }
                    }
                }
                Payload::FunctionSection(functions) => found.functions += functions.count(),
                Payload::MemorySection(memories) => found.memories += memories.count(),
                Payload::CodeSectionEntry(body) => {
                    counters::of_function(&body, &mut numbering)?;
                }
                _ => {}
            }
        }
        found.counters = numbering.len();
        Ok(found)
    }
}

struct Counting {
    before: Contents,
    numbering: Numbering,
}

impl Counting {
    /// A call that counts a place.
    fn count_place(&self, function: &mut Function, counter: u32) {
        function.instruction(&address(counter)).instruction(&Instruction::Call(self.before.functions));
    }

    /// A call that counts a branch, by what decides it, and answers that.
    fn count_branch(&self, function: &mut Function, counter: u32) {
        function.instruction(&address(counter)).instruction(&Instruction::Call(self.before.functions + 1));
    }

    fn counting_functions(&self) -> [Function; 2] {
        let counter = MemArg { offset: 0, align: 3, memory_index: self.before.memories };
        let increment = |function: &mut Function, scratch| {
            for step in [
                Instruction::LocalTee(scratch),
                Instruction::LocalGet(scratch),
                Instruction::I64Load(counter),
                Instruction::I64Const(1),
                Instruction::I64Add,
                Instruction::I64Store(counter),
            ] {
                function.instruction(&step);
            }
        };
        let mut place = Function::new([(1, ValType::I32)]);
        place.instruction(&Instruction::LocalGet(0));
        increment(&mut place, 1);
        place.instruction(&Instruction::End);

        let mut branch = Function::new([(1, ValType::I32)]);
        // The second counter where the condition holds.
        for step in [
            Instruction::LocalGet(1),
            Instruction::LocalGet(0),
            Instruction::I32Const(0),
            Instruction::I32Ne,
            Instruction::I32Const(counters::SIZE.cast_signed()),
            Instruction::I32Mul,
            Instruction::I32Add,
        ] {
            branch.instruction(&step);
        }
        increment(&mut branch, 2);
        branch.instruction(&Instruction::LocalGet(0)).instruction(&Instruction::End);
        [place, branch]
    }
}

/// Where a counter lies in its memory.
fn address(counter: u32) -> Instruction<'static> {
    Instruction::I32Const((counter * counters::SIZE).cast_signed())
}

impl Reencode for Counting {
    type Error = Infallible;

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([ValType::I32], []);
        types.ty().function([ValType::I32, ValType::I32], [ValType::I32]);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        utils::parse_function_section(self, functions, section)?;
        functions.function(self.before.types).function(self.before.types + 1);
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        utils::parse_memory_section(self, memories, section)?;
        let pages = u64::from(self.before.counters * counters::SIZE).div_ceil(PAGE);
        memories.memory(MemoryType {
            minimum: pages,
            maximum: Some(pages),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(EXPORT, ExportKind::Memory, self.before.memories);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        utils::parse_code_section(self, code, section)?;
        for function in self.counting_functions() {
            code.function(&function);
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), ReencodeError> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let entries = self.numbering.entry();
        self.count_place(&mut function, entries);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            let branch = self.numbering.branch(&operator);
            let place = self.numbering.place_after(&operator);
            if let Some(counter) = branch {
                self.count_branch(&mut function, counter);
            }
            function.instruction(&self.instruction(operator)?);
            if let Some(counter) = place {
                self.count_place(&mut function, counter);
            }
        }
        code.function(&function);
        Ok(())
    }

    fn parse_custom_section(
        &mut self,
        _: &mut Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), ReencodeError> {
        Ok(())
    }
}
