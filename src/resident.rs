//! What the operating system says that this process holds in memory.

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
