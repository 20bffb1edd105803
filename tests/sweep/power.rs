//! Power cuts: the state lies on a file system of its own, whose image is copied at a system call, with whatever has not
//! reached it missing, and the program killed. The file system is then mounted from the copy, and life goes on there.
//!
//! Needs root, for loop mounts.

use std::path::PathBuf;
use std::process::Command;

use super::Extent;
use super::fixture::{PointResult, StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::token_family::RotationMode;
use super::tracer::{CallFilter, Injection, TraceOrder};

/// Name, options of mkfs and of mount (such that as little as possible is written unasked), size in MiB.
const FILE_SYSTEMS: &[(&str, &str, &str, u64)] =
    &[("ext4", "-F", "noauto_da_alloc,commit=60", 64), ("xfs", "-f", "nouuid", 320), ("btrfs", "-f", "commit=60", 128)];

pub fn run(extent: Extent) -> bool {
    let systems = if extent.is_full() { FILE_SYSTEMS } else { &FILE_SYSTEMS[..1] };
    let step = if extent.is_full() { 1 } else { 3 };
    systems.iter().fold(true, |is_good, (name, mkfs, mount, size)| {
        let tally = sweep(&LoopDisk::new(name, mkfs, mount, *size), step);
        tally.print(&format!("power cut on {name} ({mount}), file store")) && is_good
    })
}

fn sweep(disk: &LoopDisk, step: u64) -> SweepReport {
    let mut stage =
        SweepFixture::prepared(StoreType::File, RotationMode::Strict, "", |sandbox| disk.mount(&sandbox.path("state")));
    let state = stage.sandbox.path("state");
    let mut tally = SweepReport::default();
    let mut at = 1;
    loop {
        let profile = stage.sign_in(TracedCommand::Refresh);
        checked(Command::new("sync").arg("-f").arg(&state));
        let before = stage.server.counts();
        let action = Injection::Cut(disk.live(), disk.crashed());
        let struck =
            stage.run_traced(TracedCommand::Refresh, &profile, &TraceOrder { at, action, calls: CallFilter::Effects });
        if struck.acted.is_none() {
            // It said that it was done: then nothing that it did may be missing.
            assert_eq!(struck.status, 0, "{struck:?}");
            checked(Command::new("cp").arg("--sparse=always").args([disk.live(), disk.crashed()]));
        }
        disk.unmount();
        std::fs::rename(disk.crashed(), disk.live()).unwrap();
        disk.mount(&state);
        match (stage.examine(&profile, &before), struck.acted) {
            (Ok(aftermath), Some(_)) => tally.add(format!("{aftermath:?}")),
            (Ok(aftermath @ (PointResult::Safe | PointResult::RolledForward)), None) => {
                tally.add(format!("after the end: {aftermath:?}"));
                return tally;
            }
            (Ok(aftermath), None) => {
                tally.fault(format!("what was reported as done is gone: {aftermath:?}"));
                return tally;
            }
            (Err(fault), call) => tally.fault(format!("{at} ({call:?}): {fault}")),
        }
        at += step;
    }
}

/// An image, mounted while this lives.
pub(super) struct LoopDisk {
    dir: tempfile::TempDir,
    options: String,
}

impl LoopDisk {
    pub(super) fn new(name: &str, mkfs: &str, options: &str, mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self { dir, options: format!("loop,{options}") };
        std::fs::File::create(disk.live()).unwrap().set_len(mib << 20).unwrap();
        checked(Command::new(format!("mkfs.{name}")).args(["-q", mkfs]).arg(disk.live()));
        disk
    }

    pub(super) fn live(&self) -> PathBuf {
        self.dir.path().join("live")
    }

    pub(super) fn crashed(&self) -> PathBuf {
        self.dir.path().join("crashed")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("at")
    }

    pub(super) fn mount(&self, at: &std::path::Path) {
        checked(Command::new("mount").args(["-o", &self.options]).arg(self.live()).arg(at));
        // Where it is, for the end.
        let _old = std::fs::remove_file(self.mounted());
        std::os::unix::fs::symlink(at, self.mounted()).unwrap();
    }

    pub(super) fn unmount(&self) {
        if let Ok(at) = std::fs::read_link(self.mounted()) {
            checked(Command::new("umount").arg(at));
            std::fs::remove_file(self.mounted()).unwrap();
        }
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Ok(at) = std::fs::read_link(self.mounted()) {
            let _best_effort = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}

fn checked(command: &mut Command) {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}
