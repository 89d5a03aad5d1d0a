//! The process's own metrics, under the names that Prometheus' client libraries
//! use. Read from `/proc` when somebody asks; absent where there is none.

use std::fs;

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// In which the kernel counts processor time towards programs: USER_HZ, 100 on
/// every architecture that Linux supports today (time(7)).
const TICKS_PER_SECOND: u64 = 100;

const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";
const FILES: &str = "process_open_fds";
const STARTED: &str = "process_start_time_seconds";

pub(super) fn describe() {
    describe_counter!(CPU, Unit::Seconds, "Processor time used, user and system.");
    describe_gauge!(MEMORY, Unit::Bytes, "Memory resident.");
    describe_gauge!(FILES, "File descriptors open.");
    describe_gauge!(STARTED, Unit::Seconds, "When metrics began, in seconds since 1970.");
    gauge!(STARTED).set(jiff::Timestamp::now().as_duration().as_secs_f64());
}

pub(super) fn record() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = cpu_ticks(&stat) {
        counter!(CPU).absolute(ticks / TICKS_PER_SECOND);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = resident_kibibytes(&status) {
        gauge!(MEMORY).set(kibibytes * 1024.0);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // As many as there are without the one that reads the directory.
        gauge!(FILES).set(f64::from(u32::try_from(files.count()).unwrap_or(u32::MAX)) - 1.0);
    }
}

/// utime and stime, fields 14 and 15; the program's name in field 2 may hold
/// spaces, hence counted from behind its bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn resident_kibibytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194304 1 0 0 0 250 31 0 0 20 0 1 0 987 0 0";
        assert_eq!(cpu_ticks(stat), Some(281));
        assert_eq!(cpu_ticks(""), None);
        let status = "Name:\tx\nVmRSS:\t   12345 kB\n";
        assert_eq!(resident_kibibytes(status), Some(12345.0));
        assert_eq!(resident_kibibytes("Name:\tx\n"), None);
    }
}
