//! What is noted of a core module.

use std::error::Error;

use siphasher::sip128::SipHasher13;
use wasm_encoder::{BranchHint, BranchHints, Section};
use wasmparser::{Parser, Payload, TypeRef};

use crate::counters::{self, Branch, Numbering, Target};

/// Code is out of the way that runs less often than every so many times that the branch before it is reached, and that the
/// function is entered. Measured with 2 to 50: 5 and 7 come out best, by little.
const SELDOM: u64 = 5;

/// Bytes of a digest.
const DIGEST: usize = 16;

/// Branches of one module of which a side is seldom taken.
pub(crate) struct Hints {
    /// Of the module: the notes say where a branch is by its offset.
    digest: [u8; DIGEST],
    /// The custom section that is put before the code.
    section: Vec<u8>,
}

impl Hints {
    /// From what the counters of the instrumented module came to, as they lay in its memory.
    pub(crate) fn derive(module: &[u8], counts: &[u8]) -> Result<Self, Box<dyn Error>> {
        let counts = Counts(counts);
        let mut numbering = Numbering::default();
        let mut hints = BranchHints::new();
        let mut function = 0;
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        function += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let (entries, branches) = counters::of_function(&body, &mut numbering)?;
                    counts.check(numbering.len())?;
                    let found: Vec<BranchHint> = branches
                        .iter()
                        .filter_map(|branch| {
                            let taken = counts.hint(branch, counts.at(entries))?;
                            Some(BranchHint { branch_func_offset: branch.offset, branch_hint_value: taken.into() })
                        })
                        .collect();
                    if !found.is_empty() {
                        hints.function_hints(function, found);
                    }
                    function += 1;
                }
                _ => {}
            }
        }
        let mut section = Vec::new();
        hints.append_to(&mut section);
        Ok(Self { digest: digest(module), section })
    }

    /// From what [`Self::to_bytes`] made.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn Error>> {
        let (digest, section) = bytes.split_first_chunk().ok_or("the file of hints is cut short")?;
        Ok(Self { digest: *digest, section: section.to_vec() })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [&self.digest, self.section.as_slice()].concat()
    }

    /// Whether they were derived of this module, to the byte.
    pub(crate) fn are_of(&self, module: &[u8]) -> bool {
        self.digest == digest(module)
    }

    /// The module with the section, and otherwise to the byte as it was.
    pub(crate) fn add_to(&self, module: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
        // Behind the header of 8 bytes.
        let mut end_of_last = 8;
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload?;
            if matches!(payload, Payload::CodeSectionStart { .. }) {
                let (before, code) = module.split_at(end_of_last);
                return Ok([before, &self.section, code].concat());
            }
            if let Some((_, range)) = payload.as_section() {
                end_of_last = range.end;
            }
        }
        Err("the core module has no code".into())
    }
}

/// The counters as they lay in memory.
struct Counts<'a>(&'a [u8]);

impl Counts<'_> {
    fn check(&self, counters: u32) -> Result<(), String> {
        let wanted = counters as usize * counters::SIZE as usize;
        if self.0.len() < wanted {
            return Err(format!(
                "the counts are {} bytes where the module has {wanted}: they are of another one",
                self.0.len()
            ));
        }
        Ok(())
    }

    fn at(&self, counter: u32) -> u64 {
        let start = counter as usize * counters::SIZE as usize;
        u64::from_le_bytes(self.0[start..][..8].try_into().expect("eight bytes"))
    }

    /// Whether a branch of a function that was entered so often is to be noted as one that is taken; none if both sides are
    /// taken now and then, or it was never reached.
    fn hint(&self, branch: &Branch, entries: u64) -> Option<bool> {
        let (not_taken, taken) = (self.at(branch.counter), self.at(branch.counter + 1));
        let reached = not_taken + taken;
        if reached == 0 {
            return None;
        }
        let seldom = |count: u64| count.saturating_mul(SELDOM) <= reached.min(entries);
        let target_is_seldom = match branch.target {
            Target::OwnBlock => seldom(taken),
            // It is the place that compilers put out of the way, for whoever leads there.
            Target::Place(place) => seldom(taken) && seldom(self.at(place)),
            Target::Elsewhere => false,
        };
        if target_is_seldom {
            Some(false)
        } else if seldom(not_taken) {
            Some(true)
        } else {
            None
        }
    }
}

fn digest(module: &[u8]) -> [u8; DIGEST] {
    SipHasher13::new().hash(module).as_bytes()
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, MemorySection,
        MemoryType, Module, TypeSection, ValType,
    };
    use wasmparser::{KnownCustom, Validator};

    use super::*;
    use crate::instrument::instrument;

    /// Of one function: behind the inner block lead a branch (counters 1, 2) and the code itself (3); the `if` (4, 5) begins
    /// a block of its own (6); the loop is repeated by its branch (7, 8) and left (9); the outer block ends (10).
    fn module() -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([ValType::I32], []);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let mut exports = ExportSection::new();
        exports.export("f", ExportKind::Func, 0);
        let mut body = Function::new([]);
        for instruction in [
            Instruction::Block(BlockType::Empty),
            Instruction::Block(BlockType::Empty),
            Instruction::LocalGet(0),
            Instruction::BrIf(0),
            Instruction::End,
            Instruction::LocalGet(0),
            Instruction::If(BlockType::Empty),
            Instruction::Nop,
            Instruction::End,
            Instruction::Loop(BlockType::Empty),
            Instruction::LocalGet(0),
            Instruction::BrIf(0),
            Instruction::End,
            Instruction::End,
            Instruction::End,
        ] {
            body.instruction(&instruction);
        }
        let mut code = CodeSection::new();
        code.function(&body);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
        module.finish()
    }

    const COUNTERS: usize = 11;

    fn derived(counts: [u64; COUNTERS]) -> Hints {
        Hints::derive(&module(), &counts.map(u64::to_le_bytes).concat()).unwrap()
    }

    /// The offset of each hint, and whether its branch is taken, as a compiler reads them.
    fn hinted(counts: [u64; COUNTERS]) -> Vec<(u32, bool)> {
        let with_hints = derived(counts).add_to(&module()).unwrap();
        Validator::new().validate_all(&with_hints).unwrap();
        let mut found = Vec::new();
        for payload in Parser::new(0).parse_all(&with_hints) {
            if let Payload::CustomSection(custom) = payload.unwrap()
                && let KnownCustom::BranchHints(functions) = custom.as_known()
            {
                for function in functions {
                    let function = function.unwrap();
                    assert_eq!(function.func, 0);
                    found.extend(
                        function.hints.into_iter().map(|hint| hint.unwrap()).map(|hint| (hint.func_offset, hint.taken)),
                    );
                }
            }
        }
        found
    }

    /// Where the three branches are: behind the number of locals, and what stands before each.
    const OFFSETS: [u32; 3] = [7, 12, 20];

    #[test]
    fn a_branch_is_noted_of_which_a_side_is_seldom_taken() {
        let [first, second, third] = OFFSETS;
        // Both sides of each.
        assert_eq!(hinted([100, 50, 50, 100, 50, 50, 100, 50, 50, 100, 100]), []);
        // The first is always taken, the second never, the third repeats a loop ten times.
        assert_eq!(
            hinted([100, 0, 100, 100, 100, 0, 100, 100, 1000, 100, 100]),
            [(first, true), (second, false)],
            "where a loop is left the function goes on"
        );
        // The loop is never left but by a trap.
        assert_eq!(hinted([100, 50, 50, 100, 0, 100, 100, 0, 1000, 0, 0]), [(second, true), (third, true)]);
    }

    #[test]
    fn a_place_where_the_code_itself_leads_is_not_seldom_reached() {
        assert_eq!(hinted([100, 100, 0, 100, 50, 50, 100, 50, 50, 100, 100]), []);
        // As if what is before its end trapped.
        assert_eq!(hinted([100, 100, 0, 0, 50, 50, 100, 50, 50, 100, 100]), [(OFFSETS[0], false)]);
    }

    #[test]
    fn what_was_never_reached_is_not_noted() {
        assert_eq!(hinted([0; COUNTERS]), []);
    }

    #[test]
    fn hints_are_of_one_module() {
        let hints = Hints::from_bytes(&derived([100; COUNTERS]).to_bytes()).unwrap();
        assert!(hints.are_of(&module()));
        let mut other = module();
        *other.last_mut().unwrap() ^= 1;
        assert!(!hints.are_of(&other));
        assert!(Hints::from_bytes(&[0; DIGEST - 1]).is_err());
    }

    #[test]
    fn counts_of_another_module_are_refused() {
        let counts = [0; COUNTERS * 8 - 1];
        assert!(Hints::derive(&module(), &counts).is_err());
    }

    #[test]
    fn an_instrumented_module_is_valid_and_has_the_counters() {
        let instrumented = instrument(&module()).unwrap();
        Validator::new().validate_all(&instrumented).unwrap();
        let memories = Parser::new(0).parse_all(&instrumented).find_map(|payload| match payload.unwrap() {
            Payload::MemorySection(memories) => {
                Some(memories.into_iter().map(|memory| memory.unwrap().initial).collect())
            }
            _ => None,
        });
        assert_eq!(memories, Some(vec![0, 1]));
    }
}
