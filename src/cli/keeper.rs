//! Who refreshes when no person does: a daemon, or runs by a timer or cron.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::output::Output;
use super::setup::Setup;
use crate::clock::Timestamp;
use crate::scheduler::run_interval::RunHistory;
use crate::sys::durable;
use crate::sys::lockfile::{LockFile, LockHolder};

/// How long an unattended run stands for the next one: a day and an hour, for cron jobs that run daily.
const RUN_COUNTS_FOR: Duration = Duration::from_secs(25 * 3600);

/// How to make something refresh.
pub(super) const REMEDY: &str = "start it: `keepalive service install`, or `keepalive daemon`; or run `keepalive refresh` from a \
                          timer or cron";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    Daemon {
        holder: LockHolder,
    },
    /// A timer or cron, which ran at this instant.
    Runs {
        last: Timestamp,
    },
    Nobody,
}

impl Keeper {
    pub(super) fn of(setup: &Setup) -> Self {
        let layout = setup.store.layout();
        let lock = layout.daemon_lock();
        if LockFile::is_held(&lock) {
            return Self::Daemon { holder: LockHolder::of(&lock) };
        }
        let runs = read_runs(&layout.runs());
        let patience = runs.interval().map_or(RUN_COUNTS_FOR, |interval| RUN_COUNTS_FOR.max(interval * 2));
        match runs.last() {
            Some(last) if setup.clock.now().wall.since(last) <= patience => Self::Runs { last },
            Some(_) | None => Self::Nobody,
        }
    }

    /// Says that nothing will refresh `what`, if so.
    pub(super) fn warn_if_nobody(&self, what: &str, out: &Output) {
        if *self == Self::Nobody {
            out.warn(&format!("no daemon is running: nothing will refresh {what}; {REMEDY}"));
        }
    }
}

/// Notes a run that no person watches, as a timer or cron makes it. All that follows from it is advice: what cannot be
/// read or written is left alone.
pub(super) fn record_run(setup: &Setup) -> Option<RunHistory> {
    if std::io::stderr().is_terminal() {
        return None;
    }
    let path = setup.store.layout().runs();
    let mut runs = read_runs(&path);
    runs.record_run(setup.clock.now().wall);
    if let Ok(bytes) = serde_json::to_vec(&runs) {
        let _advice = durable::replace(&path, &bytes);
    }
    Some(runs)
}

fn read_runs(path: &Path) -> RunHistory {
    durable::read_foreign(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
