//! One parser under damaged inputs: no panic, no hang, and no more memory than the input justifies.

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::counting::peak;
use crate::grammar::damage;
use crate::mutations::Random;

/// Inputs of each parser where [`COUNT`] is not set: a few seconds for all of them.
const USUAL: u64 = 1000;
/// The number of inputs of each parser.
const COUNT: &str = "TRITFORGE_MUTATIONS";
/// Seconds after which a parser has had enough, however many inputs are left.
const SECONDS: &str = "TRITFORGE_MUTATION_SECONDS";
/// Another series of inputs than the usual one.
const SEED: &str = "TRITFORGE_MUTATION_SEED";
/// Time that no input may take, on a machine that does other things too.
const HANG: Duration = Duration::from_secs(10);
/// Inputs after which another thread goes on.
const INPUTS_PER_THREAD: u64 = 2000;
/// The name of these threads.
const THREAD: &str = "damaged inputs";
/// Faults after which a parser's test ends.
const ENOUGH: usize = 10;

/// What JSON is put together with.
pub(crate) const JSON_PUNCTUATION: [&str; 6] = ["{", "}", "[", "]", ",", ":"];

/// A valid input, of which only the first bytes are damaged: what stands behind them are numbers, of which
/// none is wrong.
pub(crate) struct Seed {
    bytes: Vec<u8>,
    damaged: usize,
}

impl Seed {
    /// An input that is damaged anywhere.
    pub(crate) fn whole(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self { damaged: bytes.len(), bytes }
    }

    /// An input whose first `damaged` bytes are damaged.
    pub(crate) fn head(bytes: impl Into<Vec<u8>>, damaged: usize) -> Self {
        Self { bytes: bytes.into(), damaged }
    }
}

/// A parser's inputs and bounds.
pub(crate) struct Parser<'a> {
    /// Its name, in messages and in the names of files.
    pub(crate) name: &'a str,
    /// Inputs that it accepts.
    pub(crate) seeds: Vec<Seed>,
    /// Words of its format.
    pub(crate) words: &'a [&'a str],
    /// Bytes that it may hold for each byte of the input.
    pub(crate) times: usize,
    /// Bytes that it may hold for any input: buffers of a fixed size, tables that are made once, messages.
    pub(crate) always: usize,
}

impl Parser<'_> {
    /// Reads damaged inputs; `read` says whether one is accepted, and panics if what came of it is not sound.
    pub(crate) fn check(&self, mut read: impl FnMut(&[u8]) -> bool + Send) {
        let number = |name: &str| {
            env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} = {text}")))
        };
        let count = number(COUNT).unwrap_or(USUAL);
        let seconds = number(SECONDS).map(Duration::from_secs);
        let series = number(SEED).unwrap_or(0) ^ name_hash(self.name);
        for (i, seed) in self.seeds.iter().enumerate() {
            assert!(read(&seed.bytes), "{}: input {i} is refused without any damage", self.name);
        }
        without_backtraces();
        let others: Vec<&[u8]> = self.seeds.iter().map(|seed| &seed.bytes[..seed.damaged]).collect();
        let running = crate::memory().join(format!("tritforge-mutation-{}-running", self.name));
        let begin = Instant::now();
        let (mut done, mut accepted, mut faults) = (0u64, 0u64, Vec::new());
        let (mut most, mut slowest) = (0.0f64, Duration::ZERO);
        let going = |done: u64, faults: usize| {
            done < count && seconds.is_none_or(|seconds| begin.elapsed() < seconds) && faults < ENOUGH
        };
        while going(done, faults.len()) {
            // The BPE of `tokenizers` keeps an entry per thread for each instance that it ever had; a thread
            // takes its own with it.
            let until = done + INPUTS_PER_THREAD;
            let thread = || {
                while done < until && going(done, faults.len()) {
                    // Each input depends on its number alone, so that one can be made again.
                    let mut random = Random(series.wrapping_add(done.wrapping_mul(0x2545_f491_4f6c_dd1d)));
                    let seed = &self.seeds[random.below(self.seeds.len())];
                    let mut bytes = damage(&seed.bytes[..seed.damaged], &others, self.words, &mut random);
                    bytes.extend_from_slice(&seed.bytes[seed.damaged..]);
                    // Memory that cannot be had ends the process: what asked for it is found here.
                    fs::write(&running, &bytes).unwrap();
                    let start = Instant::now();
                    let (result, held) = peak(|| catch_unwind(AssertUnwindSafe(|| read(&bytes))));
                    let took = start.elapsed();
                    slowest = slowest.max(took);
                    most = most.max(held.saturating_sub(self.always) as f64 / bytes.len().max(1) as f64);
                    let bound = self.times * bytes.len() + self.always;
                    let fault = match result {
                        Err(panic) => Some(format!("panicked: {}", text_of(panic.as_ref()))),
                        Ok(_) if held > bound => Some(format!("held {held} bytes, expected at most {bound}")),
                        Ok(_) if took > HANG => Some(format!("took {:.1} s", took.as_secs_f64())),
                        Ok(read) => {
                            accepted += u64::from(read);
                            None
                        }
                    };
                    if let Some(fault) = fault {
                        let file = env::temp_dir().join(format!("tritforge-mutation-{}-{done}", self.name));
                        let _ = fs::write(&file, &bytes);
                        faults.push(format!("{}: {} bytes: {fault}", file.display(), bytes.len()));
                    }
                    done += 1;
                }
            };
            thread::scope(|scope| {
                let thread =
                    thread::Builder::new().name(THREAD.to_string()).spawn_scoped(scope, thread).unwrap();
                if let Err(panic) = thread.join() {
                    panic!("{}: {}", self.name, text_of(panic.as_ref()));
                }
            });
        }
        let time = begin.elapsed().as_secs_f64();
        let _ = fs::remove_file(running);
        println!(
            "{}: {done} inputs in {time:.1} s, {accepted} accepted, at most {most:.1} bytes held a byte of input beyond {}; \
             the slowest took {:.1} ms",
            self.name,
            self.always,
            slowest.as_secs_f64() * 1e3
        );
        assert!(faults.is_empty(), "{} of {done} inputs:\n{}", faults.len(), faults.join("\n"));
        // A parser that refuses everything, or nothing, would pass by itself.
        assert!(done < 500 || (accepted > 0 && accepted < done), "{accepted} of {done} accepted");
    }
}

/// Keeps panics of parsers, which are caught, from being printed: a backtrace takes a hundred megabytes of debug
/// information, which would count as the parser's.
fn without_backtraces() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(THREAD) {
                usual(info);
            }
        }));
    });
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// FNV-1a, so that each parser has inputs of its own.
fn name_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
