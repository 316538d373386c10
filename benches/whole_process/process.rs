//! What a child process used: CPU, by its threads too, and memory at its peak.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::process::Command;
use std::time::{Duration, Instant};

use super::setup;

/// What a process used, from its start to its end.
pub struct Used {
    /// Wall-clock time.
    pub seconds: f64,
    /// CPU time of all its threads, in user and kernel mode.
    pub cpu_s: f64,
    /// Resident memory at its peak.
    pub peak_kib: u64,
    /// Threads at the most.
    pub threads: usize,
    /// CPU seconds by the name of the thread, as last seen, largest first; threads of one name together. In steps of
    /// 10 ms, and a thread that ended between two looks counts only as far as the first.
    pub by_thread: Vec<(String, f64)>,
}

/// Runs a command to its end.
///
/// # Panics
/// If it doesn't start, or doesn't end with exit code 0: then nothing is measured.
pub fn run(command: Command) -> Used {
    let name = format!("{command:?}");
    let start = Instant::now();
    let id = setup::spawn(command).id();
    let sampler = std::thread::spawn(move || watch(id));
    let (status, usage) = wait_with_usage(id).expect("the child can be waited for");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(status, 0, "the wait status of {name}");
    let seen = sampler.join().expect("the sampler doesn't panic");
    let mut by_thread: Vec<(String, f64)> = seen.by_thread().into_iter().collect();
    by_thread.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Used {
        seconds,
        cpu_s: time_s(usage.ru_utime) + time_s(usage.ru_stime),
        peak_kib: seen.peak_kib,
        threads: seen.threads,
        by_thread,
    }
}

#[derive(Default)]
struct Seen {
    peak_kib: u64,
    threads: usize,
    /// By thread id: name and CPU ticks.
    ticks: BTreeMap<String, (String, u64)>,
}

impl Seen {
    fn by_thread(&self) -> BTreeMap<String, f64> {
        // SAFETY: no memory is involved.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let mut by_thread = BTreeMap::new();
        for (name, ticks) in self.ticks.values() {
            *by_thread.entry(name.clone()).or_insert(0.0) += *ticks as f64 / per_second;
        }
        by_thread
    }
}

/// Looks at a process every 20 ms until it ends.
///
/// The peak isn't `ru_maxrss`: that counts what the forked child shared with this process before it became another.
fn watch(id: u32) -> Seen {
    let mut seen = Seen::default();
    // Ends with the process: one that is gone has no file, one that is dead but not reaped no such line.
    while let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) {
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(kib) = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()) else {
            break;
        };
        seen.peak_kib = kib;
        let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let mut count = 0;
        for thread in threads {
            count += 1;
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // proc(5): `id (name) state …`; CPU ticks in user and kernel mode are the 12th and 13th after the name.
            if let Some((head, rest)) = stat.rsplit_once(") ") {
                let name = head.split_once(" (").map_or("", |(_, name)| name).to_owned();
                let ticks = rest
                    .split(' ')
                    .skip(11)
                    .take(2)
                    .filter_map(|field| field.parse::<u64>().ok());
                let id = thread.file_name().to_string_lossy().into_owned();
                seen.ticks.insert(id, (name, ticks.sum()));
            }
        }
        seen.threads = seen.threads.max(count);
        std::thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// Waits for a child and says what it used: `getrusage` for exactly that one.
fn wait_with_usage(id: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::zeroed();
    // SAFETY: both pointers are to live values of the right types; rusage is plain integers, valid when zeroed.
    let (waited, usage) = unsafe {
        let waited = libc::wait4(
            i32::try_from(id).expect("process ids are small"),
            &mut status,
            0,
            usage.as_mut_ptr(),
        );
        (waited, usage.assume_init())
    };
    if waited < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok((status, usage))
    }
}

fn time_s(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}
