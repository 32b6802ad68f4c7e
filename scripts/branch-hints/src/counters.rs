//! Which counter counts what: places in the code, and branches.

use wasmparser::{BinaryReaderError, FunctionBody, Operator};

/// Bytes of a counter.
pub(crate) const SIZE: u32 = 8;

/// Hands out counters while the code of a module is gone through in its order.
#[derive(Default)]
pub(crate) struct Numbering {
    next: u32,
    depth: u32,
}

impl Numbering {
    /// How many there are up to here.
    pub(crate) fn len(&self) -> u32 {
        self.next
    }

    /// Of the entries into the function that begins here.
    pub(crate) fn entry(&mut self) -> u32 {
        self.depth = 0;
        self.take(1)
    }

    /// Of a branch: how often it was not taken, and with the counter after it, how often it was.
    pub(crate) fn branch(&mut self, operator: &Operator) -> Option<u32> {
        matches!(operator, Operator::If { .. } | Operator::BrIf { .. }).then(|| self.take(2))
    }

    /// Of the place behind a block, to which branches out of it lead.
    pub(crate) fn place_after(&mut self, operator: &Operator) -> Option<u32> {
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => self.depth += 1,
            Operator::End if self.depth > 0 => {
                self.depth -= 1;
                return Some(self.take(1));
            }
            _ => {}
        }
        None
    }

    fn take(&mut self, counters: u32) -> u32 {
        let first = self.next;
        self.next += counters;
        first
    }
}

/// A branch of a function.
pub(crate) struct Branch {
    /// In bytes from where the function's body begins.
    pub(crate) offset: u32,
    pub(crate) counter: u32,
    pub(crate) target: Target,
}

/// Where a branch leads.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Into the block that it begins, or else past it: nothing else leads into it.
    OwnBlock,
    /// Behind a block, to the place that is counted by this counter.
    Place(u32),
    /// Back to where a loop begins, or to the end of the function.
    Elsewhere,
}

/// The counter of a function's entries, and its branches.
pub(crate) fn of_function(
    body: &FunctionBody,
    numbering: &mut Numbering,
) -> Result<(u32, Vec<Branch>), BinaryReaderError> {
    /// A block that has not ended yet: whether it is a loop, and which branches lead behind it.
    struct Open {
        is_loop: bool,
        leading_behind: Vec<usize>,
    }

    let start = body.range().start;
    let entries = numbering.entry();
    let mut branches = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, at) = operators.read_with_offset()?;
        if let Some(counter) = numbering.branch(&operator) {
            let mut target = Target::OwnBlock;
            if let Operator::BrIf { relative_depth } = operator {
                target = Target::Elsewhere;
                // The outermost one is the function itself.
                let block = open.len().checked_sub(1 + relative_depth as usize);
                if let Some(block) = block.map(|block| &mut open[block])
                    && !block.is_loop
                {
                    block.leading_behind.push(branches.len());
                }
            }
            let offset = u32::try_from(at - start).expect("a module is smaller than 4 GiB");
            branches.push(Branch { offset, counter, target });
        }
        if matches!(operator, Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. }) {
            open.push(Open { is_loop: matches!(operator, Operator::Loop { .. }), leading_behind: Vec::new() });
        }
        if let Some(place) = numbering.place_after(&operator) {
            let ended = open.pop().expect("numbered by the same depth");
            for branch in ended.leading_behind {
                branches[branch].target = Target::Place(place);
            }
        }
    }
    Ok((entries, branches))
}
