//! Linux's figures about processes: processor time and resident memory.

use anyhow::{Context as _, Result};
use std::time::Duration;

/// Clock ticks per second in `/proc/<pid>/stat`: fixed at 100 on every architecture that Linux
/// shows to programs.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time of the calling thread.
pub(crate) fn thread_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")
        .context("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Processor time of a process and all its threads, in steps of 10 ms.
pub(crate) fn process_cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The second field, the name, is in brackets and may hold blanks. utime and stime are the 14th
    // and 15th.
    let (_, rest) = text.rsplit_once(')').with_context(|| path.clone())?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The peak of a process's resident memory so far, in bytes.
pub(crate) fn peak_resident_bytes(pid: u32) -> Result<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| path.clone())?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::{peak_resident_bytes, process_cpu, resident_bytes, thread_cpu};

    #[test]
    fn this_process_is_readable() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 100_000);
        assert!(peak_resident_bytes(pid).unwrap() > 100_000);
        process_cpu(pid).unwrap();
        thread_cpu().unwrap();
    }
}
