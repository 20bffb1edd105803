//! Who refreshes when no person does: a daemon, or runs by a timer or cron.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::output::Output;
use crate::access::setup::Setup;
use crate::clock::Timestamp;
use crate::scheduler::run_interval::RunHistory;
use crate::sys::durable;
use crate::sys::lockfile::{LockFile, LockHolder};

/// How long an unattended run stands for the next one while it is not known how often they come: a day and an hour, for
/// cron jobs that run daily.
const RUN_COUNTS_FOR: Duration = Duration::from_secs(25 * 3600);
/// How long it does so at least: a machine may sleep, or a run be missed.
const RUN_COUNTS_AT_LEAST: Duration = Duration::from_secs(3600);

/// How to make something refresh.
pub(super) const REMEDY: &str = "start it: `keepalive service install`, or `keepalive daemon`; or run `keepalive refresh` from a \
                          timer or cron";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refresher {
    Daemon {
        holder: LockHolder,
    },
    /// A timer or cron, which ran at this instant; `None`: it was installed, and has not run yet.
    Runs {
        last: Option<Timestamp>,
    },
    Nobody,
}

impl Refresher {
    pub(super) fn of(setup: &Setup) -> Self {
        let layout = setup.store.layout();
        let lock = layout.daemon_lock();
        if LockFile::is_held(&lock) {
            return Self::Daemon { holder: LockHolder::of(&lock) };
        }
        let runs = read_runs(&layout.runs());
        let now = setup.clock.now().wall;
        match runs.since() {
            Some(since) if now.since(since) <= patience(&runs) => Self::Runs { last: runs.last() },
            Some(_) | None => Self::Nobody,
        }
    }

    /// Says that nothing will refresh `what`, if so.
    pub(super) fn warn_if_nobody(&self, what: &str, out: &Output) {
        match self {
            Self::Nobody => out.warn(&format!("no daemon is running: nothing will refresh {what}; {REMEDY}")),
            Self::Daemon { holder } if holder.is_stopped => {
                out.warn(&format!(
                    "the daemon, {holder}, does not run on: nothing will refresh {what}; {}",
                    holder.hint()
                ));
            }
            Self::Daemon { .. } | Self::Runs { .. } => {}
        }
    }
}

/// How long the last run stands for the next one. A timer that was just installed runs within minutes.
fn patience(runs: &RunHistory) -> Duration {
    match (runs.last(), runs.longest_gap()) {
        (None, _) => RUN_COUNTS_AT_LEAST,
        (Some(_), Some(gap)) => RUN_COUNTS_AT_LEAST.max(gap * 2),
        (Some(_), None) => RUN_COUNTS_FOR,
    }
}

/// Notes that a timer or cron was installed and will run, or was removed. It is advice, as [`record_run`] is.
pub(super) fn record_timer(setup: &Setup, is_installed: bool) {
    let path = setup.store.layout().runs();
    let history = RunHistory::installed(setup.clock.now().wall);
    let _advice = match (is_installed, serde_json::to_vec(&history)) {
        (true, Ok(bytes)) => {
            durable::create_dir(setup.store.layout().dir()).and_then(|()| durable::replace(&path, &bytes))
        }
        (true, Err(_)) => Ok(()),
        (false, _) => durable::remove(&path).map(drop),
    };
}

/// Notes an unattended run, as a timer or cron makes it. All that follows from it is advice: what cannot be
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
