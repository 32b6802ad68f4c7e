//! Runs the cases of `tests/conformance` (its README.md says what they mean) over anything that is a [`Subject`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::Value as Json;

/// A clock that moves when it is told to, and by one tick at each reading. Its clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    time: Arc<AtomicU64>,
    tick: u64,
}

impl Clock {
    /// What it says, in nanoseconds.
    pub fn read(&self) -> u64 {
        self.time.fetch_add(self.tick, Relaxed)
    }
}

/// How a cache is to be opened.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub name: String,
    pub capacity: Option<u64>,
    pub ttl: Option<u64>,
    pub tti: Option<u64>,
    pub lru: bool,
    pub memory_limit: Option<u64>,
    pub removal_log: Option<u32>,
}

/// How one entry is to be set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub ttl: Option<u64>,
    pub tti: Option<u64>,
    pub weight: u32,
}

/// A key, a value and how they are to be set.
pub type Entry = (Vec<u8>, Vec<u8>, Options);

/// Why something was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    TooLarge { size: u64, limit: u64 },
    OutOfMemory,
    Lapsed,
}

/// What remains of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Absent,
    Unlimited,
    Limited(u64),
}

/// What a lookup found.
pub enum Lookup<L> {
    Hit(Vec<u8>),
    Lead(L),
    Busy,
}

/// An entry that left: key, value and cause.
pub type Removal = (Vec<u8>, Vec<u8>, &'static str);

/// Caches under test, and the means to use them. The functions are those of the WIT.
pub trait Subject {
    type Cache;
    type Lease;
    type Cursor;

    /// Whether `memory-bytes` says something.
    const LINEAR_MEMORY: bool;

    /// A new instance of whatever holds the caches.
    fn new(clock: Clock) -> Self;

    /// Fails with the field at fault.
    fn open(&mut self, config: &Config) -> Result<Self::Cache, &'static str>;
    fn drop_cache(&mut self, cache: Self::Cache);
    fn get(&mut self, cache: &Self::Cache, key: &[u8]) -> Option<Vec<u8>>;
    fn contains(&mut self, cache: &Self::Cache, key: &[u8]) -> bool;
    fn set(&mut self, cache: &Self::Cache, key: &[u8], value: &[u8], options: Options) -> Result<(), Refusal>;
    /// The present value, or none if the one given was inserted.
    fn get_or_insert(
        &mut self,
        cache: &Self::Cache,
        key: &[u8],
        value: &[u8],
        options: Options,
    ) -> Result<Option<Vec<u8>>, Refusal>;
    fn expire(&mut self, cache: &Self::Cache, key: &[u8], remaining: Option<u64>) -> bool;
    fn remaining(&mut self, cache: &Self::Cache, key: &[u8]) -> Life;
    fn remove(&mut self, cache: &Self::Cache, key: &[u8]) -> Option<Vec<u8>>;
    fn clear(&mut self, cache: &Self::Cache);
    fn get_many(&mut self, cache: &Self::Cache, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>>;
    fn set_many(&mut self, cache: &Self::Cache, entries: &[Entry]) -> Result<(), (u32, Refusal)>;
    fn remove_many(&mut self, cache: &Self::Cache, keys: &[Vec<u8>]) -> u32;
    fn keys(&mut self, cache: &Self::Cache) -> Self::Cursor;
    fn next(&mut self, cursor: &mut Self::Cursor, limit: u32) -> Vec<Vec<u8>>;
    fn drop_cursor(&mut self, cursor: Self::Cursor);
    fn entry_count(&mut self, cache: &Self::Cache) -> u64;
    fn weighted_size(&mut self, cache: &Self::Cache) -> u64;
    fn run_pending_tasks(&mut self, cache: &Self::Cache);
    /// By the names of the WIT record's fields.
    fn stats(&mut self, cache: &Self::Cache) -> BTreeMap<&'static str, u64>;
    fn drain_removals(&mut self, cache: &Self::Cache, limit: u32) -> (Vec<Removal>, u64);
    fn lookup(&mut self, cache: &Self::Cache, key: &[u8], lease_life: u64) -> Lookup<Self::Lease>;
    fn fill(&mut self, lease: Self::Lease, value: &[u8], options: Options) -> Result<(), Refusal>;
    fn drop_lease(&mut self, lease: Self::Lease);
}

/// The files of the suite: the name of the test that runs each, and its own.
macro_rules! files {
    ($($test:ident $file:literal),* $(,)?) => {
        /// Name and text of each file.
        const FILES: &[(&str, &str)] =
            &[$(($file, include_str!(concat!("../conformance/", $file, ".json")))),*];

        /// Makes a test of each file of the suite, run over a [`Subject`].
        macro_rules! conformance_tests {
            ($subject:ty) => {
                $(#[test]
                fn $test() {
                    conformance::run::<$subject>($file);
                })*

                #[test]
                fn every_file_of_the_suite_is_run() {
                    conformance::assert_every_file_is_run();
                }
            };
        }
    };
}
files! {
    batches "batches", bytes "bytes", capacity "capacity", clock "clock", config "config", entries "entries",
    expire "expire", keys "keys", leases "leases", memory "memory", policy "policy", removals "removals",
    stats "stats", time_to_idle "time-to-idle", time_to_live "time-to-live",
}

/// So that a new file is not forgotten.
pub fn assert_every_file_is_run() {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = manifest.ancestors().map(|directory| directory.join("tests/conformance"));
    let directory = directories.find(|directory| directory.is_dir()).expect("the suite is there");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a plain name"))
        .filter_map(|name| name.strip_suffix(".json").map(String::from))
        .collect();
    files.sort_unstable();
    let expected: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
    assert_eq!(expected, files);
}

/// What a step answers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Null,
    Bool(bool),
    Number(u64),
    Word(&'static str),
    Bytes(Vec<u8>),
    List(Vec<Answer>),
    Record(Vec<(&'static str, Answer)>),
}

impl From<bool> for Answer {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Answer {
    fn from(value: u64) -> Self {
        Self::Number(value)
    }
}

impl From<Option<Vec<u8>>> for Answer {
    fn from(value: Option<Vec<u8>>) -> Self {
        value.map_or(Self::Null, Self::Bytes)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::TooLarge { size, limit } => {
                assert!(size > limit, "{size} is not too large for {limit}");
                "too-large"
            }
            Refusal::OutOfMemory => "out-of-memory",
            Refusal::Lapsed => "lapsed",
        };
        Self::Record(vec![("error", Self::Word(reason))])
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Word(word) => word.fmt(f),
            Self::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::List(elements) => elements.fmt(f),
            Self::Record(fields) => f.debug_map().entries(fields.iter().map(|(name, value)| (name, value))).finish(),
        }
    }
}

impl Answer {
    /// Whether it is what a case expects.
    fn matches(&self, expected: &Json) -> bool {
        match self {
            Self::Null => expected.is_null(),
            Self::Bool(value) => expected.as_bool() == Some(*value),
            Self::Number(number) => in_range(expected, *number),
            Self::Word(word) => expected.as_str() == Some(word),
            Self::Bytes(value) => is_bytes(expected) && bytes(expected) == *value,
            Self::List(elements) => {
                let expected = unroll(expected);
                expected.len() == elements.len() && elements.iter().zip(&expected).all(|(got, want)| got.matches(want))
            }
            Self::Record(fields) => expected.as_object().is_some_and(|expected| {
                expected.len() == fields.len()
                    && fields.iter().all(|(name, got)| expected.get(*name).is_some_and(|want| got.matches(want)))
            }),
        }
    }

    /// Fails unless it is what a step expects.
    fn check(&self, step: &Json) -> Result<(), String> {
        match step.get("expect") {
            None if matches!(self, Self::Record(fields) if fields[0].0 == "error") => {
                Err(format!("unexpected {self:?}"))
            }
            Some(expected) if !self.matches(expected) => Err(format!("expected {expected}, got {self:?}")),
            _ => Ok(()),
        }
    }
}

/// Where the clock starts: at zero, and at no multiple of 64.
const STARTS: [u64; 2] = [0, 1_234_567_890_123_456_789];

/// Runs all cases of one file, and panics with all that failed.
pub fn run<S: Subject>(file: &str) {
    let (_, suite) = FILES.iter().find(|(name, _)| *name == file).expect("a file of the suite");
    let suite: Json = serde_json::from_str(suite).expect("the suite is JSON");
    only(&suite, &["topic", "cases"]);
    let mut failures = Vec::new();
    for case in list(&suite["cases"]) {
        only(case, &["name", "rule", "tick", "config", "steps"]);
        assert!(case["rule"].is_string(), "{} has no rule", case["name"]);
        for start in STARTS {
            let result = on_a_thread_of_its_own(|| run_case::<S>(case, start));
            if let Err(failure) = result {
                failures.push(format!("{} (clock from {start}): {failure}", case["name"]));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// Runs a case where nothing of an earlier one can be left: the core has its clock in a thread-local variable.
fn on_a_thread_of_its_own(case: impl FnOnce() -> Result<(), String> + Send) -> Result<(), String> {
    let joined = std::thread::scope(|scope| scope.spawn(case).join());
    joined.unwrap_or_else(|_| Err("panicked, see above".into()))
}

fn run_case<S: Subject>(case: &Json, start: u64) -> Result<(), String> {
    let clock = Clock { time: Arc::new(start.into()), tick: case.get("tick").map_or(0, number) };
    let mut run = Run {
        subject: S::new(clock.clone()),
        clock,
        caches: HashMap::new(),
        leases: HashMap::new(),
        cursors: HashMap::new(),
    };
    if let Some(config) = case.get("config") {
        let cache = run.subject.open(&read_config(config)).map_err(|field| format!("not opened: {field}"))?;
        run.caches.insert("main".into(), cache);
    }
    run.steps(list(&case["steps"]))
}

struct Run<S: Subject> {
    subject: S,
    clock: Clock,
    caches: HashMap<String, S::Cache>,
    leases: HashMap<String, S::Lease>,
    /// Each with the keys that it has handed out.
    cursors: HashMap<String, (S::Cursor, Vec<Answer>)>,
}

impl<S: Subject> Run<S> {
    fn steps(&mut self, steps: &[Json]) -> Result<(), String> {
        steps.iter().enumerate().try_for_each(|(index, step)| {
            self.step(step).map_err(|failure| {
                let failure: String = failure.chars().take(600).collect();
                format!("step {index}, {}: {failure}", step["op"])
            })
        })
    }

    fn step(&mut self, step: &Json) -> Result<(), String> {
        let op = text(&step["op"]);
        check_fields(op, step);
        match op {
            "for" => {
                return range(step).try_for_each(|i| {
                    let steps: Vec<_> = list(&step["steps"]).iter().map(|step| substitute(step, i)).collect();
                    self.steps(&steps).map_err(|failure| format!("i = {i}, {failure}"))
                });
            }
            "advance" => {
                self.clock.time.fetch_add(number(&step["by"]), Relaxed);
                return Ok(());
            }
            "next" | "walk" | "drop-cursor" => return self.cursor_step(op, step),
            "fill" | "drop-lease" => {
                let lease = self.leases.remove(text(&step["lease"])).expect("a lease of that name");
                if op == "drop-lease" {
                    self.subject.drop_lease(lease);
                    return Ok(());
                }
                let filled = self.subject.fill(lease, &bytes(&step["value"]), read_options(step));
                return filled.map_or_else(Answer::from, |()| Answer::Word("ok")).check(step);
            }
            "open" => {
                let opened = self.subject.open(&read_config(&step["config"]));
                let answer = match opened {
                    Ok(cache) => {
                        self.caches.insert(cache_name(step).into(), cache);
                        Answer::Word("ok")
                    }
                    Err(field) => Answer::Record(vec![("error", Answer::Word(field))]),
                };
                return answer.check(step);
            }
            "drop-cache" => {
                let cache = self.caches.remove(cache_name(step)).expect("a cache of that name");
                self.subject.drop_cache(cache);
                return Ok(());
            }
            _ => {}
        }
        let cache = &self.caches[cache_name(step)];
        let subject = &mut self.subject;
        let key = || bytes(&step["key"]);
        let value = || bytes(&step["value"]);
        let keys = || unroll(&step["keys"]).iter().map(bytes).collect::<Vec<_>>();
        let answer: Answer = match op {
            "get" => subject.get(cache, &key()).into(),
            "remove" => subject.remove(cache, &key()).into(),
            "contains" => subject.contains(cache, &key()).into(),
            "set" => match subject.set(cache, &key(), &value(), read_options(step)) {
                Ok(()) => Answer::Word("ok"),
                Err(refusal) => refusal.into(),
            },
            "get-or-insert" => match subject.get_or_insert(cache, &key(), &value(), read_options(step)) {
                Ok(None) => Answer::Word("inserted"),
                Ok(Some(value)) => Answer::Record(vec![("present", Answer::Bytes(value))]),
                Err(refusal) => refusal.into(),
            },
            "expire" => {
                let remaining = step.get("remaining").expect("a remaining life, or null");
                subject.expire(cache, &key(), optional(remaining)).into()
            }
            "remaining" => match subject.remaining(cache, &key()) {
                Life::Absent => Answer::Word("absent"),
                Life::Unlimited => Answer::Word("unlimited"),
                Life::Limited(life) => Answer::Record(vec![("limited", life.into())]),
            },
            "clear" => {
                subject.clear(cache);
                Answer::Null
            }
            "get-many" => Answer::List(subject.get_many(cache, &keys()).into_iter().map(Answer::from).collect()),
            "set-many" => {
                let entries: Vec<_> = unroll(&step["entries"]).iter().map(read_entry).collect();
                match subject.set_many(cache, &entries) {
                    Ok(()) => Answer::Word("ok"),
                    Err((index, refusal)) => {
                        let Answer::Record(mut fields) = refusal.into() else { unreachable!("an error") };
                        fields.push(("index", u64::from(index).into()));
                        Answer::Record(fields)
                    }
                }
            }
            "remove-many" => u64::from(subject.remove_many(cache, &keys())).into(),
            "entry-count" => subject.entry_count(cache).into(),
            "weighted-size" => subject.weighted_size(cache).into(),
            "run-pending-tasks" => {
                subject.run_pending_tasks(cache);
                Answer::Null
            }
            "stats" => return check_stats(step, &subject.stats(cache), S::LINEAR_MEMORY),
            "drain-removals" => {
                let (removals, lost) = subject.drain_removals(cache, limit(step));
                return check_removals(step, &removals, lost);
            }
            "keys" => {
                let cursor = subject.keys(cache);
                self.cursors.insert(text(&step["cursor"]).into(), (cursor, Vec::new()));
                Answer::Null
            }
            "lookup" => match subject.lookup(cache, &key(), number(&step["lease-life"])) {
                Lookup::Hit(value) => Answer::Record(vec![("hit", Answer::Bytes(value))]),
                Lookup::Busy => Answer::Word("busy"),
                Lookup::Lead(lease) => {
                    let name = step.get("lease").ok_or("leads, unexpectedly")?;
                    self.leases.insert(text(name).into(), lease);
                    Answer::Word("lead")
                }
            },
            _ => panic!("no such op: {op}"),
        };
        answer.check(step)
    }

    fn cursor_step(&mut self, op: &str, step: &Json) -> Result<(), String> {
        let name = text(&step["cursor"]);
        if op == "drop-cursor" {
            let (cursor, _) = self.cursors.remove(name).expect("a cursor of that name");
            self.subject.drop_cursor(cursor);
            return Ok(());
        }
        let (cursor, seen) = self.cursors.get_mut(name).expect("a cursor of that name");
        let limit = limit(step);
        loop {
            let page = self.subject.next(cursor, limit);
            if page.len() > limit.max(1) as usize {
                return Err(format!("{} keys for a limit of {limit}", page.len()));
            }
            let last = page.len() < limit.max(1) as usize;
            let page: Vec<_> = page.into_iter().map(Answer::Bytes).collect();
            seen.extend_from_slice(&page);
            if op == "next" {
                return check_in_any_order(&step["expect"], page);
            }
            if last {
                break;
            }
        }
        if !self.subject.next(cursor, limit).is_empty() {
            return Err("the walk goes on after a short page".into());
        }
        check_in_any_order(&step["expect"], seen.clone())
    }
}

fn check_in_any_order(expected: &Json, mut answer: Vec<Answer>) -> Result<(), String> {
    if let Some(count) = expected.get("count") {
        only(expected, &["count"]);
        let matched = in_range(count, answer.len() as u64);
        return matched.then_some(()).ok_or_else(|| format!("expected {count} elements, got {}", answer.len()));
    }
    let mut wanted: Vec<_> = unroll(expected).iter().map(read_element).collect();
    wanted.sort_unstable();
    answer.sort_unstable();
    (wanted == answer).then_some(()).ok_or_else(|| format!("expected {wanted:?}, got {answer:?}"))
}

fn check_stats(step: &Json, stats: &BTreeMap<&str, u64>, linear_memory: bool) -> Result<(), String> {
    let Some(Json::Object(expected)) = step.get("expect") else { return Ok(()) };
    for (name, number) in expected {
        let actual = *stats.get(name.as_str()).expect("a field of stats");
        if (linear_memory || name != "memory-bytes") && !in_range(number, actual) {
            return Err(format!("expected {name} {number}, got {actual}"));
        }
    }
    Ok(())
}

fn check_removals(step: &Json, removals: &[Removal], lost: u64) -> Result<(), String> {
    let Some(expected) = step.get("expect") else { return Ok(()) };
    only(expected, &["removals", "in-any-order", "causes", "lost"]);
    let bytes = |bytes: &Vec<u8>| Answer::Bytes(bytes.clone());
    let listed = removals.iter().map(|(key, value, cause)| vec![bytes(key), bytes(value), Answer::Word(cause)]);
    let listed: Vec<_> = listed.map(Answer::List).collect();
    if let Some(in_any_order) = expected.get("in-any-order") {
        check_in_any_order(in_any_order, listed.clone())?;
    }
    if let Some(in_order) = expected.get("removals") {
        let wanted: Vec<_> = unroll(in_order).iter().map(read_element).collect();
        if wanted != listed {
            return Err(format!("expected {wanted:?}, got {listed:?}"));
        }
    }
    if let Some(causes) = expected.get("causes") {
        let mut tally = BTreeMap::<&str, u64>::new();
        for (_, _, cause) in removals {
            *tally.entry(cause).or_default() += 1;
        }
        let wanted: BTreeMap<&str, u64> =
            causes.as_object().expect("causes").iter().map(|(cause, count)| (cause.as_str(), number(count))).collect();
        if wanted != tally {
            return Err(format!("expected {wanted:?}, got {tally:?}"));
        }
    }
    match expected.get("lost") {
        Some(expected) if !in_range(expected, lost) => Err(format!("expected {expected} lost, got {lost}")),
        _ => Ok(()),
    }
}

fn in_range(expected: &Json, actual: u64) -> bool {
    match expected {
        Json::Object(range) => {
            only(expected, &["min", "max"]);
            range.get("min").is_none_or(|min| number(min) <= actual)
                && range.get("max").is_none_or(|max| actual <= number(max))
        }
        Json::Number(_) | Json::String(_) => number(expected) == actual,
        _ => false,
    }
}

/// An element of a list in any order: bytes, or a removal.
fn read_element(expected: &Json) -> Answer {
    match expected {
        Json::Array(removal) => {
            let [key, value, cause] = removal.as_slice() else { panic!("a removal is key, value and cause") };
            let causes = ["expired", "explicit", "replaced", "size"];
            let cause = causes.into_iter().find(|word| cause == word).expect("a cause");
            Answer::List(vec![Answer::Bytes(bytes(key)), Answer::Bytes(bytes(value)), Answer::Word(cause)])
        }
        _ => Answer::Bytes(bytes(expected)),
    }
}

fn is_bytes(value: &Json) -> bool {
    value.is_string() || value.get("hex").is_some() || value.get("repeat").is_some()
}

fn bytes(value: &Json) -> Vec<u8> {
    if let Some(digits) = value.get("hex") {
        let digits = text(digits).as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        return digits.map(|pair| u8::from_str_radix(pair, 16).expect("two hexadecimal digits")).collect();
    }
    if let Some(part) = value.get("repeat") {
        let times = number(&value["times"]).try_into().expect("a length");
        return text(part).as_bytes().repeat(times);
    }
    text(value).as_bytes().to_vec()
}

fn number(value: &Json) -> u64 {
    match value {
        Json::String(digits) => digits.replace('_', "").parse().expect("digits"),
        _ => value.as_u64().unwrap_or_else(|| panic!("not a number: {value}")),
    }
}

fn optional(value: &Json) -> Option<u64> {
    (!value.is_null()).then(|| number(value))
}

fn limit(step: &Json) -> u32 {
    number(&step["limit"]).try_into().expect("32 bits")
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

fn list(value: &Json) -> &[Json] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn cache_name(step: &Json) -> &str {
    step.get("cache").map_or("main", text)
}

fn range(value: &Json) -> std::ops::Range<u64> {
    number(&value["from"])..number(&value["to"])
}

/// A list with its loops unrolled.
fn unroll(value: &Json) -> Vec<Json> {
    let unroll = |element: &Json| match element.get("each") {
        None => vec![element.clone()],
        Some(each) => range(element).map(|i| substitute(each, i)).collect(),
    };
    list(value).iter().flat_map(unroll).collect()
}

/// Puts a number in the place of `{i}`, but not inside a further loop.
fn substitute(value: &Json, i: u64) -> Json {
    match value {
        Json::String(text) => text.replace("{i}", &i.to_string()).into(),
        Json::Array(elements) => elements.iter().map(|element| substitute(element, i)).collect(),
        Json::Object(fields) if !fields.contains_key("from") => {
            fields.iter().map(|(name, value)| (name.clone(), substitute(value, i))).collect()
        }
        _ => value.clone(),
    }
}

fn read_config(value: &Json) -> Config {
    only(value, &["name", "capacity", "ttl", "tti", "policy", "memory-limit", "removal-log"]);
    Config {
        name: value.get("name").map_or(String::new(), |name| text(name).into()),
        capacity: optional(&value["capacity"]),
        ttl: optional(&value["ttl"]),
        tti: optional(&value["tti"]),
        lru: match value.get("policy").map_or("tiny-lfu", text) {
            "lru" => true,
            "tiny-lfu" => false,
            policy => panic!("no such policy: {policy}"),
        },
        memory_limit: optional(&value["memory-limit"]),
        removal_log: optional(&value["removal-log"]).map(|size| size.try_into().expect("32 bits")),
    }
}

fn read_options(value: &Json) -> Options {
    Options {
        ttl: optional(&value["ttl"]),
        tti: optional(&value["tti"]),
        weight: optional(&value["weight"]).map_or(1, |weight| weight.try_into().expect("32 bits")),
    }
}

fn read_entry(value: &Json) -> Entry {
    only(value, &["key", "value", "ttl", "tti", "weight"]);
    (bytes(&value["key"]), bytes(&value["value"]), read_options(value))
}

/// So that a mistake in a case does not pass silently.
fn only(value: &Json, fields: &[&str]) {
    for name in value.as_object().expect("an object").keys() {
        assert!(fields.contains(&name.as_str()), "no such field: {name} in {value}");
    }
}

fn check_fields(op: &str, step: &Json) {
    let fields: &[&str] = match op {
        "for" => &["from", "to", "steps"],
        "advance" => &["by"],
        "open" => &["cache", "config", "expect"],
        "drop-cache" | "clear" | "run-pending-tasks" => &["cache"],
        "get" | "remove" | "contains" | "remaining" => &["cache", "key", "expect"],
        "set" | "get-or-insert" => &["cache", "key", "value", "ttl", "tti", "weight", "expect"],
        "expire" => &["cache", "key", "remaining", "expect"],
        "get-many" | "remove-many" => &["cache", "keys", "expect"],
        "set-many" => &["cache", "entries", "expect"],
        "entry-count" | "weighted-size" | "stats" => &["cache", "expect"],
        "drain-removals" => &["cache", "limit", "expect"],
        "keys" => &["cache", "cursor"],
        "next" | "walk" => &["cursor", "limit", "expect"],
        "drop-cursor" => &["cursor"],
        "lookup" => &["cache", "key", "lease-life", "lease", "expect"],
        "fill" => &["lease", "value", "ttl", "tti", "weight", "expect"],
        "drop-lease" => &["lease"],
        _ => panic!("no such op: {op}"),
    };
    for name in step.as_object().expect("an object").keys().filter(|name| *name != "op") {
        assert!(fields.contains(&name.as_str()), "{op} has no field {name}");
    }
}
