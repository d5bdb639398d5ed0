//! How much memory this process may use and uses, and the watchdog that ends a run before the kernel does.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Code, RunError};

/// Without a limit a run plans with this much.
const DEFAULT_BYTES: u64 = 1 << 30;
/// The watchdog ends the run at this share of the limit.
const LIMIT_SHARE: f64 = 0.9;
/// How often the watchdog looks. A run takes at most some 100 MB/s, so that 10% of a small container last longer.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

static PEAK_BYTES: AtomicU64 = AtomicU64::new(0);

/// The memory limit of this process's control group, if it has one (cgroup v2, then v1).
pub fn limit_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok()?.trim().parse::<u64>().ok();
    read("/sys/fs/cgroup/memory.max")
        .or_else(|| read("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
        .filter(|bytes| *bytes < 1 << 50)
}

/// What a run plans with: the limit, or a gigabyte.
pub fn planned_bytes() -> u64 {
    limit_bytes().unwrap_or(DEFAULT_BYTES)
}

/// What the process has in memory now, without files that the kernel can drop.
pub fn used_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().trim_end_matches(" kB").trim().parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:").unwrap_or(0)) << 10)
}

/// The most that the process had in memory so far, as far as the watchdog saw.
pub fn peak_bytes() -> Option<u64> {
    let now = used_bytes()?;
    Some(PEAK_BYTES.fetch_max(now, Ordering::Relaxed).max(now))
}

/// Ends when the process uses 90% of its limit; without a limit it never does. `doing` says what the run is at.
pub async fn watch(doing: impl Fn() -> String) -> RunError {
    loop {
        if let (Some(used), Some(limit)) = (peak_bytes().and_then(|_| used_bytes()), limit_bytes())
            && used as f64 > limit as f64 * LIMIT_SHARE
        {
            return RunError::at(
                Code::MemoryExceeded,
                "spec.worker.resources.limits.memory",
                format!(
                    "{} MiB of {} MiB are in use at {}; raise the limit, or make the step smaller: window functions, \
                     DISTINCT counts, array_agg and median hold all their rows",
                    used >> 20,
                    limit >> 20,
                    doing()
                ),
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
