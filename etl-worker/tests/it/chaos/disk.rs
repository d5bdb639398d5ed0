//! A small disk that can be full.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for the files of a round, and soon full.
const SIZE: &str = "8m";
const BALLAST: &str = "ballast";

pub(super) struct Disk {
    pub(super) path: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// A file system of its own at this path, where that may be mounted; else a folder, which is never full.
    pub(super) fn new(path: PathBuf, small: bool) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "tmpfs"]).arg(&path);
        let is_mounted = small && mount.output().is_ok_and(|output| output.status.success());
        Self { path, is_mounted }
    }

    /// Leaves so much room. False where it can't be full.
    pub(super) fn fill(&self, left_kib: u64) -> bool {
        if !self.is_mounted {
            return false;
        }
        let path = self.path.join(BALLAST);
        let mut file = std::fs::File::create(&path).unwrap();
        let piece = [0; 1024];
        while file.write_all(&piece).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left_kib * 1024)).unwrap();
        true
    }

    pub(super) fn free(&self) {
        let _ = std::fs::remove_file(self.path.join(BALLAST));
    }

    /// A pod's scratch volume, which ends with it.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    pub(super) fn clear_scratch(path: &Path) {
        if path.exists() {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        }
    }
}
