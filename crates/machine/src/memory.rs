//! Memory of this process and of the machine.

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Pages in memory now.
    pub now: u64,
    /// The most there ever were.
    pub peak: u64,
}

/// What this process holds in memory; none where the system does not say (it is Linux that does).
pub fn resident() -> Option<Resident> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident { now: kilobytes(&status, "VmRSS:")? << 10, peak: kilobytes(&status, "VmHWM:")? << 10 })
}

/// Memory of the machine that processes could have, in bytes; none where the system does not say.
pub fn available_memory() -> Option<u64> {
    Some(kilobytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? << 10)
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_system_are_read() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kilobytes(status, "VmHWM:"), Some(2048));
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1024));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
        assert_eq!(kilobytes("VmHWM: many kB", "VmHWM:"), None);
    }
}
