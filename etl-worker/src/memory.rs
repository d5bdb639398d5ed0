//! How much memory this process may use and uses, and the watchdog that ends a run before the kernel does.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Code, RunError};

/// Without a limit a run plans with this much.
const DEFAULT_BYTES: u64 = 1 << 30;
/// The watchdog ends the run at this share of the limit.
const LIMIT_SHARE: f64 = 0.9;
/// How often the watchdog looks. Decoders take up to some 500 MB/s, so that 10% of a small container last longer; a look
/// takes some 20 µs.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

static PEAK_BYTES: AtomicU64 = AtomicU64::new(0);

/// The memory limit of this process's control groups, if there is one (cgroup v2, then v1): the lowest from its own group
/// up to the root. In a container the root is the container's own group.
pub fn limit_bytes() -> Option<u64> {
    static LIMIT: std::sync::OnceLock<Option<u64>> = std::sync::OnceLock::new();
    *LIMIT.get_or_init(|| {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        limit_files(&groups)
            .iter()
            .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
            // Where version 1 has no limit it gives the largest number of pages.
            .filter(|bytes| *bytes < 1 << 50)
            .min()
    })
}

/// The files that may hold a limit, given what /proc/self/cgroup says: lines of `number:controllers:path`.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines().chain(["0::/", "0:memory:/"]) {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            files.push(Path::new(root).join(group).join(name));
        }
    }
    files
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

#[cfg(test)]
mod tests {
    use super::limit_files;

    #[test]
    fn limits_of_all_groups_above_count() {
        for (groups, want) in [
            // A container with a namespace of its own.
            ("0::/\n", "/sys/fs/cgroup/memory.max"),
            ("0::/user.slice/run-1.scope\n", "/sys/fs/cgroup/user.slice/run-1.scope/memory.max"),
            ("0::/user.slice/run-1.scope\n", "/sys/fs/cgroup/user.slice/memory.max"),
            // Version 1, where a container sees its path on the host but its own group as the root.
            (
                "4:memory:/kubepods/pod1\n1:name=systemd:/x\n",
                "/sys/fs/cgroup/memory/kubepods/pod1/memory.limit_in_bytes",
            ),
            ("4:memory:/kubepods/pod1\n", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
            ("", "/sys/fs/cgroup/memory.max"),
        ] {
            let files = limit_files(groups);
            assert!(files.iter().any(|file| file.as_os_str() == want), "{groups:?}: {files:?}");
        }
    }
}
