//! What is kept of the hooks of a profile: what waits for the hook before it, and how each ended last. No secrets.
//!
//! There are two locks. One is held for as long as a hook runs, so that of all processes one runs a profile's hooks, one
//! after the other. The other is held to change the file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::hooks::message::HookMessage;
use crate::outcome::Failure;
use crate::profile::{HookEvent, ProfileName};
use crate::store::Layout;
use crate::sys::durable;
use crate::sys::lockfile::{LockError, LockFile, LockWait};

/// How long the lock of the file is waited for, which is held for a write.
const FILE_LOCK_WAIT: Duration = Duration::from_secs(5);
/// What waited for longer was left by a process that was killed, and is no news.
const STALE: Duration = Duration::from_secs(3600);

/// What is to be told to a hook and to a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WaitingEvent {
    pub message: HookMessage,
    /// It is shown on the desktop, too.
    pub is_shown: bool,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookResult {
    Ok,
    Failed,
    TimedOut,
}

/// How the hook of an event ended last, and how often it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastRun {
    pub at: Timestamp,
    pub result: HookResult,
    pub error: Option<Failure>,
    pub runs: u64,
    pub failures: u64,
}

/// The file of one profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct HookRecord {
    /// At most one of each event: the newest.
    #[serde(default)]
    waiting: BTreeMap<HookEvent, WaitingEvent>,
    #[serde(default)]
    pub last: BTreeMap<HookEvent, LastRun>,
}

impl HookRecord {
    /// Takes the oldest that waits. (pure)
    fn take(&mut self, now: Timestamp) -> Option<WaitingEvent> {
        self.waiting.retain(|_, waiting| now.since(waiting.message.at) <= STALE);
        let next = self.waiting.iter().min_by_key(|(event, waiting)| (waiting.message.at, **event));
        let event = next.map(|(event, _)| *event)?;
        self.waiting.remove(&event)
    }
}

/// The records of all profiles of a store.
#[derive(Clone, Debug)]
pub(super) struct HookRecords {
    layout: Layout,
}

impl HookRecords {
    pub(super) fn of(layout: &Layout) -> Self {
        Self { layout: layout.clone() }
    }

    /// A record that cannot be read is as one that was lost.
    pub(super) fn read(&self, name: &ProfileName) -> HookRecord {
        let bytes = durable::read(&self.file(name)).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    pub(super) fn has_waiting(&self, name: &ProfileName) -> bool {
        !self.read(name).waiting.is_empty()
    }

    /// Lets these wait. One of the same event that has not begun is replaced.
    pub(super) fn put(&self, name: &ProfileName, all: Vec<WaitingEvent>) -> io::Result<()> {
        self.change(name, |record| {
            record.waiting.extend(all.into_iter().map(|waiting| (waiting.message.event, waiting)));
        })
    }

    pub(super) fn take(&self, name: &ProfileName, now: Timestamp) -> io::Result<Option<WaitingEvent>> {
        if !self.has_waiting(name) {
            return Ok(None);
        }
        self.change(name, |record| record.take(now))
    }

    pub(super) fn note(&self, event: HookEvent, name: &ProfileName, run: LastRun) -> io::Result<()> {
        self.change(name, |record| {
            let before = record.last.get(&event).map_or((0, 0), |last| (last.runs, last.failures));
            let run = LastRun { runs: before.0 + run.runs, failures: before.1 + run.failures, ..run };
            record.last.insert(event, run);
        })
    }

    /// The right to run the hooks of a profile; `None`: another process or thread has it, and runs what waits.
    pub(super) fn try_lock_runs(&self, name: &ProfileName) -> io::Result<Option<LockFile>> {
        LockFile::try_acquire(&self.path(name, "run"))
    }

    fn change<T>(&self, name: &ProfileName, change: impl FnOnce(&mut HookRecord) -> T) -> io::Result<T> {
        let path = self.file(name);
        durable::create_dir(path.parent().unwrap_or(Path::new("/")))?;
        let lock = LockFile::acquire_within(&self.path(name, "lock"), LockWait::at_most(FILE_LOCK_WAIT));
        let _lock = lock.map_err(|error| match error {
            LockError::Io(error) => error,
            LockError::Held(holder) => io::Error::new(io::ErrorKind::WouldBlock, format!("{holder} has its lock")),
        })?;
        let mut record = self.read(name);
        let before = record.clone();
        let done = change(&mut record);
        if record != before {
            // A power cut may lose it, which is no harm: what must not be told twice stands in the journal.
            durable::replace_without_sync(&path, &serde_json::to_vec_pretty(&record)?)?;
        }
        Ok(done)
    }

    fn file(&self, name: &ProfileName) -> PathBuf {
        self.path(name, "json")
    }

    fn path(&self, name: &ProfileName, ending: &str) -> PathBuf {
        self.layout.hook_file(name, ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Generation;
    use crate::outcome::OutcomeKind;

    fn waiting(event: HookEvent, generation: u64, at: i64) -> WaitingEvent {
        let message = HookMessage {
            event,
            profile: "work".parse().unwrap(),
            provider: "acme".into(),
            outcome: OutcomeKind::Refreshed,
            generation: Generation::new(generation),
            expires_at: None,
            retry_at: None,
            error: None,
            host: String::new(),
            at: Timestamp::from_secs(at),
            login_by: None,
        };
        WaitingEvent { message, is_shown: false }
    }

    #[test]
    fn events_of_a_kind_collapse_to_the_newest() {
        use HookEvent::{Recovered, Refreshed};
        let dir = tempfile::tempdir().unwrap();
        let records = HookRecords::of(&Layout::new(dir.path()));
        let name: ProfileName = "Work:1".parse().unwrap();
        assert_eq!(records.take(&name, Timestamp::from_secs(0)).unwrap(), None);
        records.put(&name, vec![waiting(Refreshed, 1, 10)]).unwrap();
        records.put(&name, vec![waiting(Recovered, 2, 20), waiting(Refreshed, 2, 21)]).unwrap();
        records.put(&name, vec![waiting(Refreshed, 3, 30)]).unwrap();
        let mut taken = Vec::new();
        while let Some(waiting) = records.take(&name, Timestamp::from_secs(40)).unwrap() {
            taken.push((waiting.message.event, waiting.message.generation.get()));
        }
        assert_eq!(taken, [(Recovered, 2), (Refreshed, 3)]);
        records.put(&name, vec![waiting(Refreshed, 4, 30)]).unwrap();
        assert_eq!(records.take(&name, Timestamp::from_secs(30 + 3601)).unwrap(), None, "it is no news");
    }

    #[test]
    fn runs_are_counted_and_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let records = HookRecords::of(&Layout::new(dir.path()));
        let name: ProfileName = "work".parse().unwrap();
        let run = |failures| LastRun {
            at: Timestamp::from_secs(9),
            result: HookResult::Failed,
            error: None,
            runs: 1,
            failures,
        };
        for failures in [0, 1, 1] {
            records.note(HookEvent::Deferred, &name, run(failures)).unwrap();
        }
        let last = records.read(&name).last[&HookEvent::Deferred].clone();
        assert_eq!((last.runs, last.failures), (3, 2));
        let held = records.try_lock_runs(&name).unwrap();
        assert!(held.is_some() && records.try_lock_runs(&name).unwrap().is_none());
        drop(held);
        assert!(records.try_lock_runs(&name).unwrap().is_some());
    }
}
