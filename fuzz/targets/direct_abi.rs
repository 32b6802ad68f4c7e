//! The direct ABI: any export with any arguments and any bytes in the mailbox is answered, by bytes that are the guest's
//! or by an error with a text.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use moka_cache::direct_calls::{self, FUNCTIONS};

#[path = "../../tests/support/clock.rs"]
mod test_clock;

#[derive(Arbitrary, Debug)]
struct Call {
    function: u8,
    lane: Lane,
    /// Put into the lane's mailbox before the call.
    mailbox: Option<Vec<u8>>,
    arguments: [Argument; 7],
    time: u16,
}

#[derive(Arbitrary, Debug)]
enum Lane {
    First,
    Few(bool),
    Any(u32),
}

#[derive(Arbitrary, Debug)]
enum Argument {
    /// The handle, cursor or lease that was answered last.
    Handle,
    /// As many bytes as there are in the mailbox, or a little more or less.
    Length(i8),
    Small(u8),
    Any(u64),
    None,
}

// Each run on a thread of its own: the guest is a variable of the thread.
fuzz_target!(|calls: Vec<Call>| {
    std::thread::scope(|scope| scope.spawn(|| run(calls)).join().expect("no panic"));
});

fn run(calls: Vec<Call>) {
    let mut handles = [1_u64; 2];
    let mut now = 0;
    test_clock::step_to(now);
    for call in calls {
        let lane = match call.lane {
            Lane::First => 0,
            Lane::Few(second) => u32::from(second),
            Lane::Any(lane) => lane,
        };
        let length = call.mailbox.as_ref().map_or(8, Vec::len);
        if let Some(bytes) = &call.mailbox {
            direct_calls::write(lane, bytes);
        }
        now += u64::from(call.time) << 20;
        let index = usize::from(call.function) % FUNCTIONS.len();
        let mut first = true;
        let arguments = call.arguments.map(|argument| {
            let value = match argument {
                // The cache comes first, then a cursor or a lease.
                Argument::Handle if first => handles[0],
                Argument::Handle => handles[1],
                Argument::Length(off) => (length as u64).saturating_add_signed(off.into()),
                Argument::Small(number) => number.into(),
                Argument::Any(number) => number,
                Argument::None => u64::MAX,
            };
            first = false;
            value
        });
        let (name, answer) = direct_calls::call(index, lane, arguments, now);
        let Some(answer) = answer else { continue };
        if answer >> 63 == 0 {
            assert_eq!(direct_calls::answered(lane).len() as u64, answer >> 32 & 0x3fff_ffff, "{name}");
            continue;
        }
        match answer >> 32 & 0x3fff_ffff {
            0 => {}
            1 if name == "open" => handles[0] = answer & 0xffff_ffff,
            1 => handles[1] = answer & 0xffff_ffff,
            2 => {
                assert!((1..=7).contains(&(answer & 0xffff_ffff)), "{name}: an unknown error {answer:x}");
                let text = direct_calls::error(lane);
                assert!(!text.is_empty(), "{name}: an error without a text");
            }
            kind => panic!("{name}: an unknown kind of answer {kind}"),
        }
    }
}
