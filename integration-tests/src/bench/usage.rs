//! What processes have cost, as `/proc` tells it.

use std::fs;

use crate::stack::Service;

/// The unit in which Linux counts processor time: USER_HZ, 100 on every
/// architecture that matters.
const TICKS_PER_S: f64 = 100.0;

/// Processor seconds so far of a process and of its children that have ended.
pub(super) fn cpu_s(pid: u32) -> f64 {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; user and system time, and those
    // of ended children, are the fields 14 to 17.
    let fields = line.rsplit_once(')').map_or("", |(_, fields)| fields);
    let times = fields.split_ascii_whitespace().skip(11).take(4);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// The same of a service with all its processes; 0 for a container.
pub(super) fn service_cpu_s(service: &Service) -> f64 {
    service.pids().into_iter().filter_map(|pid| u32::try_from(pid).ok()).map(cpu_s).sum()
}

/// Peak resident memory of a process in MiB.
pub(super) fn peak_rss_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_can_use_time() {
        let me = std::process::id();
        let (mut x, before) = (1_u64, cpu_s(me));
        while cpu_s(me) <= before {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        }
        assert!(peak_rss_mib(me) > 1.0, "{x}");
    }
}
