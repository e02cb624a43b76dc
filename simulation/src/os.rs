//! The three ways by which the world gets into a process: clocks, randomness, and what ran in it before.
//!
//! Hash maps, UUIDs, jitter and `select!` draw on the system's randomness, and everything that asks for the time on its clocks. This program
//! defines the C functions behind both, so that a seed decides what they say; no service knows. Each seed runs in a forked process of
//! its own, so that no counter or cache of a seed before has any influence.

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};
use std::{
    cell::Cell,
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// What simulated clocks show at the start: 2026-03-14 09:00:00 UTC, and a machine that has been up for eleven days.
const WALL_AT_START: i64 = 1_773_478_800_000_000_000;
const UP_AT_START: i64 = 1_000_000_000_000_000;

static SIMULATED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since the start, as they were last read.
static ELAPSED: AtomicI64 = AtomicI64::new(0);
/// Nanoseconds by which the wall clock was set forward.
static WALL_SET: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// When the simulation began, on the thread that runs it.
    static BEGUN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// From now on this process's clocks stand and its randomness comes from the seed.
pub(crate) fn simulate(seed: u64) {
    RANDOM.store(seed, SeqCst);
    SIMULATED.store(true, SeqCst);
}

/// From now on its clocks show the paused time of the runtime on this thread.
pub(crate) fn follow_runtime() {
    let now = tokio::time::Instant::now();
    BEGUN.set(Some(now));
}

/// The runtime is about to go.
pub(crate) fn stand() {
    BEGUN.set(None);
}

/// Sets the wall clock, relative to what it shows.
pub(crate) fn set_wall(by: Duration, forward: bool) {
    let by = i64::try_from(by.as_nanos()).unwrap_or(0);
    WALL_SET.fetch_add(if forward { by } else { -by }, SeqCst);
}

/// SplitMix64: every state gives a good number, and the next one.
pub(crate) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn elapsed() -> i64 {
    // Taken out meanwhile: outside a runtime tokio asks the system's clock, which is us.
    if let Ok(Some(begun)) = BEGUN.try_with(Cell::take) {
        let passed = i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
        BEGUN.set(Some(begun));
        ELAPSED.store(passed, SeqCst);
    }
    ELAPSED.load(SeqCst)
}

/// In place of the C library's.
///
/// # Safety
/// As the C library says: `buffer` has room for `length` bytes.
#[expect(unsafe_code, reason = "this is how randomness comes into a process")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if !SIMULATED.load(SeqCst) {
        // SAFETY: the arguments are the caller's.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return ssize_t::try_from(got).unwrap_or(-1);
    }
    let mut state = RANDOM.load(SeqCst);
    for at in 0..length {
        let byte = split_mix(&mut state).to_le_bytes()[0];
        // SAFETY: `at` is within the caller's `length`.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    RANDOM.store(state, SeqCst);
    ssize_t::try_from(length).unwrap_or(-1)
}

/// In place of the C library's.
///
/// # Safety
/// As the C library says: `out` may be written.
#[expect(unsafe_code, reason = "this is how time comes into a process")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    let nanos = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE if SIMULATED.load(SeqCst) => WALL_AT_START + WALL_SET.load(SeqCst) + elapsed(),
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME
            if SIMULATED.load(SeqCst) =>
        {
            UP_AT_START + elapsed()
        }
        _ => {
            // SAFETY: the arguments are the caller's.
            let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) };
            return c_int::try_from(done).unwrap_or(-1);
        }
    };
    // SAFETY: the caller lets us write there.
    unsafe { out.write(timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 }) };
    0
}

/// A process that was forked from this one.
#[derive(Debug)]
pub(crate) struct Child {
    id: c_int,
    /// What it writes can be read here, until it has ended.
    pub(crate) output: File,
}

impl Child {
    /// Whether there is something to read, or the child has ended; waits so long at most.
    pub(crate) fn ready(children: &[&Self], limit: Duration) -> Vec<bool> {
        let poll = |child: &&Self| libc::pollfd { fd: child.output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut all: Vec<libc::pollfd> = children.iter().map(poll).collect();
        let count = libc::nfds_t::try_from(all.len()).unwrap_or(0);
        let limit = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the array lives through the call and has that many members.
        #[expect(unsafe_code, reason = "the standard library waits for one pipe only")]
        unsafe {
            libc::poll(all.as_mut_ptr(), count, limit)
        };
        all.iter().map(|one| one.revents != 0).collect()
    }

    /// Waits for its end; kills it first if asked to. Answers whether it ended well.
    pub(crate) fn end(self, kill: bool) -> bool {
        let mut status = 0;
        // SAFETY: it is our own child, which nobody has waited for.
        #[expect(unsafe_code, reason = "the standard library knows no forked children")]
        unsafe {
            if kill {
                libc::kill(self.id, libc::SIGKILL);
            }
            libc::waitpid(self.id, &raw mut status, 0);
        }
        status == 0
    }
}

/// Runs `work` in a forked process. Must be called while this process has one thread.
pub(crate) fn fork(work: impl FnOnce(&mut File)) -> io::Result<Child> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors, which then belong to the two files; with one thread, the child is whole after a fork.
    #[expect(unsafe_code, reason = "the standard library does not fork")]
    unsafe {
        if libc::pipe(ends.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let (output, mut input) = (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]));
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut input))).is_ok();
                libc::_exit(i32::from(!fine))
            }
            id => Ok(Child { id, output }),
        }
    }
}
