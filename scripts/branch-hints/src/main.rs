//! Notes which branches of the component's core module are seldom taken, so that compilers of WebAssembly can put the code
//! behind them out of the way: LLVM knows it from a profile, and does not pass it on.
//!
//! The notes are a custom section of the branch-hinting proposal
//! (<https://github.com/WebAssembly/branch-hinting>). Compilers may look at it; what the code does, it never changes.
//!
//! ```text
//! branch-hints instrument COMPONENT MODULE         the core module, with counters in a memory of their own
//! branch-hints derive COMPONENT COUNTS HINTS       what is to be noted, of what the counters came to
//! branch-hints add COMPONENT HINTS HINTED          the component with it; status 3 if the hints are of another one
//! ```

mod component;
mod counters;
mod hints;
mod instrument;

use std::error::Error;
use std::process::ExitCode;
use std::{env, fs};

use crate::component::Parts;
use crate::hints::Hints;

/// The status of `add` where the hints are of another component.
const OTHER_COMPONENT: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("branch-hints: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let component = fs::read(arguments.get(1).ok_or("which command, and of which component? See main.rs")?)?;
    let parts = Parts::of(&component)?;
    match arguments {
        ["instrument", _, module] => fs::write(module, instrument::instrument(parts.module)?)?,
        ["derive", _, counts, hints] => {
            let found = Hints::derive(parts.module, &fs::read(counts)?)?;
            fs::write(hints, found.to_bytes())?;
        }
        ["add", _, hints, hinted] => {
            let hints = Hints::from_bytes(&fs::read(hints)?)?;
            if !hints.are_of(parts.module) {
                return Ok(ExitCode::from(OTHER_COMPONENT));
            }
            fs::write(hinted, parts.with_module(&hints.add_to(parts.module)?))?;
        }
        _ => return Err(format!("{arguments:?} are none of the commands of main.rs").into()),
    }
    Ok(ExitCode::SUCCESS)
}
