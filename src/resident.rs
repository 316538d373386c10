//! What the operating system says that this process holds in memory.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often memory is given back at most: all heaps are walked through, some ms with hundreds of MiB.
const GIVE_BACK_PERIOD: Duration = Duration::from_secs(1);

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most there was at once since the process started.
    pub peak: u64,
}

/// Asks the operating system; `None` where it has no `/proc`.
///
/// The peak isn't `ru_maxrss`: that counts what a forked child shared with its parent before it became another program.
///
/// Source: proc_pid_status(5), `VmRSS` and `VmHWM`, in KiB.
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident {
        now: bytes(&status, "VmRSS:")?,
        peak: bytes(&status, "VmHWM:")?,
    })
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Gives back to the operating system what the allocator keeps of memory that was freed, if it is glibc's; does nothing within a
/// second of the last time.
///
/// Its heaps only shrink from their ends, and librdkafka's threads free batches in another order than they unpacked them.
pub fn give_back() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.is_some_and(|last| last.elapsed() < GIVE_BACK_PERIOD) {
        return;
    }
    *last = Some(Instant::now());
    drop(last);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            /// Source: malloc_trim(3); 0 if nothing could be given back.
            safe fn malloc_trim(pad: usize) -> std::os::raw::c_int;
        }
        malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_file_is_read() {
        let status = "Name:\taperio\nVmPeak:\t  999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(bytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(bytes(status, "VmSwap:"), None);
    }
}
