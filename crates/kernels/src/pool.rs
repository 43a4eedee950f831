//! The threads that compute: a pool whose hand-off costs about a microsecond.
//!
//! A decoding step is some two hundred products of 50 to 500 µs, one after the other. Workers therefore spin
//! for a short while after each job and only then park; a job is published with one store. Tasks are claimed
//! from a counter, so a slow thread takes fewer of them; which thread runs which task changes no result,
//! since tasks write to places of their own.
//!
//! One job runs at a time. A call from inside a task, or while another thread's job is running, runs its
//! tasks on the calling thread alone: it never waits for the pool, and never starts more threads than there
//! are.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a worker looks for the next job before it parks: longer than the serial work between two products
/// of a decoding step, and short enough not to take the core from whoever computes with threads of their own.
const SPIN: Duration = Duration::from_micros(40);

/// Calls `task(0)` … `task(tasks - 1)`, each once, on the threads of the pool and the calling one; returns
/// when all are done.
///
/// # Panics
/// If a task panics, with its message, after the tasks that were running have ended.
pub(crate) fn run(tasks: usize, task: impl Fn(usize) + Sync) {
    let pool = pool();
    let helpers = (threads() - 1).min(tasks.saturating_sub(1));
    let alone = helpers == 0 || INSIDE.get() || pool.busy.swap(true, SeqCst);
    if alone {
        return (0..tasks).for_each(task);
    }
    pool.open(&task, tasks, helpers);
    INSIDE.set(true);
    // Caught, since workers may still run `task`: the job must be closed before the panic goes on.
    let own = catch_unwind(AssertUnwindSafe(|| pool.work()));
    INSIDE.set(false);
    pool.close();
    let theirs = pool.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    pool.busy.store(false, SeqCst);
    if let Some(payload) = own.err().or(theirs) {
        resume_unwind(payload);
    }
}

/// Calls `task` once with each item, in any order, on the threads of the pool.
///
/// # Panics
/// If a task panics, with its message, after the tasks that were running have ended.
pub fn for_each<T: Send>(items: impl Iterator<Item = T>, task: impl Fn(T) + Sync) {
    struct Slot<T>(UnsafeCell<Option<T>>);
    // SAFETY: `run` gives each index to one task, so no two threads touch the same slot; `T` may be sent.
    unsafe impl<T: Send> Sync for Slot<T> {}
    let slots: Vec<Slot<T>> = items.map(|item| Slot(UnsafeCell::new(Some(item)))).collect();
    run(slots.len(), |i| {
        let slot = &slots[i];
        // SAFETY: as above, this is the only reference into slot `i`.
        if let Some(item) = unsafe { (*slot.0.get()).take() } {
            task(item);
        }
    });
}

/// Threads of the pool, the calling one included: `RAYON_NUM_THREADS` if set, as for rayon's own, else the
/// cores.
pub fn max_threads() -> usize {
    pool().workers.len() + 1
}

/// Threads that compute what the calling thread starts now.
pub fn threads() -> usize {
    pool().active.load(SeqCst).min(LIMIT.get())
}

/// For as long as it lives, at most so many threads compute what the thread that made it starts. Other
/// threads, and what [`set_threads`] says, are not affected.
#[derive(Debug)]
pub struct ThreadLimit {
    before: usize,
    /// The limit belongs to one thread: it must be dropped there.
    _not_send: PhantomData<*const ()>,
}

impl ThreadLimit {
    /// Limits the calling thread to `n` threads, at least 1.
    #[must_use = "the limit ends when it is dropped"]
    pub fn new(n: usize) -> Self {
        Self { before: LIMIT.replace(n.max(1)), _not_send: PhantomData }
    }
}

impl Drop for ThreadLimit {
    fn drop(&mut self) {
        LIMIT.set(self.before);
    }
}

/// Lets `n` threads compute from now on, at least 1 and at most [`max_threads`]: an atomic store, made
/// between steps to give decoding and prefill different numbers. Results do not depend on it.
pub fn set_threads(n: usize) {
    pool().active.store(n.clamp(1, max_threads()), SeqCst);
}

thread_local! {
    /// Whether this thread runs a task now.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Most threads that compute what this thread starts.
    static LIMIT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A task of the running job, its lifetime erased.
type Task = *const (dyn Fn(usize) + Sync);

/// On a cache line of its own, so that polling does not slow its neighbours down.
#[repr(align(128))]
struct Line<T>(T);

struct Pool {
    workers: Vec<Worker>,
    /// Threads that may compute.
    active: AtomicUsize,
    /// Whether a job is running.
    busy: AtomicBool,
    /// Number of the newest job (upper bits), whether it is open ([`OPEN`]), and how many workers are inside
    /// it (lower bits).
    gate: Line<AtomicUsize>,
    /// The next task to claim.
    next: Line<AtomicUsize>,
    /// Workers with a lower index take part in the job.
    helpers: AtomicUsize,
    /// What the job does and how many tasks it has. Written by the owner of `busy` while the gate is closed
    /// and no worker inside.
    job: UnsafeCell<Option<(Task, usize)>>,
    /// The first panic of a worker's task.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the owner of `busy`, while the gate is closed and nobody is inside, and
// read only by workers inside the gate and by that owner. The task behind the pointer is `Sync`, and `run`
// does not return before every worker has left. Everything else is atomic or behind a lock.
unsafe impl Sync for Pool {}
// SAFETY: as above; the pointer is dangling outside of a job and never followed then.
unsafe impl Send for Pool {}

#[derive(Default)]
struct Worker {
    thread: OnceLock<Thread>,
    parked: AtomicBool,
}

/// The job lets workers in.
const OPEN: usize = 1 << 15;
/// One more job.
const JOB: usize = 1 << 16;
/// Mask of the number of workers inside.
const INSIDE_MASK: usize = OPEN - 1;

fn pool() -> &'static Pool {
    static POOL: OnceLock<&'static Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let wanted = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        let threads = wanted
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
            .min(INSIDE_MASK);
        let pool: &'static Pool = Box::leak(Box::new(Pool {
            workers: (1..threads).map(|_| Worker::default()).collect(),
            active: AtomicUsize::new(threads),
            busy: AtomicBool::new(false),
            gate: Line(AtomicUsize::new(0)),
            next: Line(AtomicUsize::new(0)),
            helpers: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
        }));
        for (index, worker) in pool.workers.iter().enumerate() {
            // A thread that cannot be started is one that does not help.
            if let Ok(handle) = std::thread::Builder::new()
                .name(format!("tritforge-{}", index + 1))
                .spawn(move || pool.serve(index))
            {
                let _ = worker.thread.set(handle.thread().clone());
            }
        }
        pool
    })
}

/// Spins; from time to time lets other threads of the machine run.
fn wait_a_little(spins: &mut u32) {
    *spins = spins.wrapping_add(1);
    if spins.is_multiple_of(1 << 12) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

impl Pool {
    /// Publishes a job. Only for the owner of `busy`.
    fn open(&self, task: &(impl Fn(usize) + Sync), tasks: usize, helpers: usize) {
        let task: *const (dyn Fn(usize) + Sync + '_) = &raw const *task;
        // SAFETY: only the lifetime of the trait object changes; `close` ends the job before the task is
        // dropped.
        let task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: the caller owns `busy`, the gate is closed and the last job's workers have left: nobody
        // reads.
        unsafe { *self.job.get() = Some((task, tasks)) };
        self.next.0.store(0, SeqCst);
        self.helpers.store(helpers, SeqCst);
        let last = self.gate.0.load(SeqCst);
        self.gate.0.store((last & !(JOB - 1)).wrapping_add(JOB) | OPEN, SeqCst);
        for worker in &self.workers[..helpers] {
            // The worker sets `parked` before it looks at the gate a last time: one of the two sees the
            // other.
            if worker.parked.swap(false, SeqCst)
                && let Some(thread) = worker.thread.get()
            {
                thread.unpark();
            }
        }
    }

    /// Ends the job: no more tasks are claimed (after a panic some may be left), and every worker has left
    /// when this returns.
    fn close(&self) {
        self.next.0.store(usize::MAX / 2, SeqCst);
        self.gate.0.fetch_and(!OPEN, SeqCst);
        let mut spins = 0u32;
        while self.gate.0.load(SeqCst) & INSIDE_MASK != 0 {
            wait_a_little(&mut spins);
        }
    }

    /// Claims and runs tasks until none is left. Only inside a job.
    fn work(&self) {
        // SAFETY: the caller is the job's owner or a worker inside the gate: nobody writes, the task is
        // alive.
        let Some((task, tasks)) = (unsafe { *self.job.get() }) else { return };
        loop {
            let i = self.next.0.fetch_add(1, SeqCst);
            if i >= tasks {
                return;
            }
            // SAFETY: as above.
            unsafe { (*task)(i) };
        }
    }

    /// A worker's life.
    fn serve(&self, index: usize) {
        INSIDE.set(true); // a task's own calls stay on this thread
        let mut seen = 0;
        loop {
            seen = self.wait(index, seen);
            if index >= self.helpers.load(SeqCst) || !self.enter(seen) {
                continue;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.work())) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
            }
            self.gate.0.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for a job other than number `seen` and returns its number.
    fn wait(&self, index: usize, seen: usize) -> usize {
        let job = || self.gate.0.load(SeqCst) & !(JOB - 1);
        let begin = Instant::now();
        loop {
            for _ in 0..64 {
                if job() != seen {
                    return job();
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() < SPIN {
                continue;
            }
            let parked = &self.workers[index].parked;
            parked.store(true, SeqCst);
            while job() == seen {
                std::thread::park();
            }
            parked.store(false, SeqCst);
            return job();
        }
    }

    /// Goes inside job `number`, unless it has been closed.
    fn enter(&self, number: usize) -> bool {
        self.gate
            .0
            .fetch_update(SeqCst, SeqCst, |gate| {
                (gate & !(JOB - 1) == number && gate & OPEN != 0).then_some(gate + 1)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Miri interprets each step, on each of many schedules (CONTRIBUTING.md): it needs fewer of them.
    const fn times(n: usize, under_miri: usize) -> usize {
        if cfg!(miri) { under_miri } else { n }
    }

    #[test]
    fn every_task_runs_once() {
        let rounds = times(200, 3);
        for tasks in [0, 1, 2, 3, 17, times(1000, 40)] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..rounds {
                run(tasks, |i| {
                    counts[i].fetch_add(1, SeqCst);
                });
            }
            assert!(counts.iter().all(|count| count.load(SeqCst) == rounds), "{tasks} tasks");
        }
    }

    #[test]
    fn items_are_handed_out_once_each_and_may_hold_slices() {
        let mut numbers = vec![0u32; times(1003, 53)];
        for_each(numbers.chunks_mut(10).enumerate(), |(i, chunk)| {
            chunk.iter_mut().for_each(|n| *n += i as u32 + 1);
        });
        assert!(numbers.iter().enumerate().all(|(i, n)| *n == i as u32 / 10 + 1));
    }

    #[test]
    fn calls_inside_tasks_and_from_several_threads_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..times(300, 3) {
                        let sum = AtomicUsize::new(0);
                        run(8, |i| {
                            run(3, |j| {
                                sum.fetch_add(10 * i + j, SeqCst);
                            });
                        });
                        assert_eq!(sum.load(SeqCst), 3 * 10 * 28 + 8 * 3);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        for victim in [0, 5, 63] {
            let result = catch_unwind(|| {
                run(64, |i| {
                    std::thread::sleep(Duration::from_micros(20));
                    assert!(i != victim, "task {victim} fails");
                });
            });
            let message = *result.expect_err("it panicked").downcast::<String>().expect("a message");
            assert_eq!(message, format!("task {victim} fails"));
            let count = AtomicUsize::new(0);
            run(64, |_| {
                count.fetch_add(1, SeqCst);
            });
            assert_eq!(count.load(SeqCst), 64);
        }
    }

    #[test]
    fn workers_wake_from_their_sleep() {
        for _ in 0..times(20, 3) {
            std::thread::sleep(Duration::from_millis(1));
            let count = AtomicUsize::new(0);
            run(10, |_| {
                count.fetch_add(1, SeqCst);
            });
            assert_eq!(count.load(SeqCst), 10);
        }
    }
}
