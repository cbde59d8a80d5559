//! How much memory the process has held at most.

/// The largest resident set of this process so far, in bytes; `None` where the system does not say.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark_and_nothing_else() {
        assert_eq!(parse("VmPeak:\t  99 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(parse("VmRSS:\t 1 kB\n"), None);
        assert_eq!(parse("VmHWM:\t x kB\n"), None);
    }
}
