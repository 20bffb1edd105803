//! What is kept about each mirror in the state directory: what was written there, and how the last attempt ended. No secrets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::outcome::Failure;
use crate::profile::ProfileName;
use crate::sys::durable;
use crate::sys::lockfile::{LockError, LockFile, LockHolder, LockWait};

/// How a mirror stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MirrorState {
    /// It has the newest access token.
    Current,
    /// It will get the newest one.
    #[default]
    Pending,
    /// There was a sign-in, or a change, that is not overwritten. A person must decide.
    Conflict,
    /// It cannot be written for another reason.
    Failed,
}

/// The file of one mirror in the state directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct MirrorRecord {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) profile: Option<ProfileName>,
    /// The sign-in in the store of a program, as it is configured.
    #[serde(default)]
    pub(super) entry: Option<String>,
    /// The generation that it has.
    pub(super) generation: Option<Generation>,
    /// Marks of what we wrote. The last may not have got there: it is noted before it is written.
    #[serde(default)]
    written: Vec<String>,
    pub(super) state: MirrorState,
    pub(super) error: Option<Failure>,
    /// There was no file before.
    #[serde(default)]
    pub(super) is_ours_alone: bool,
    /// Settings of the program that we changed, by their pointers. They are no secrets.
    #[serde(default)]
    pub(super) before: BTreeMap<String, Value>,
    /// So many attempts in a row have waited in vain.
    #[serde(default)]
    waits_in_vain: u32,
    /// Until then no run waits for it again.
    #[serde(default)]
    pub(super) no_wait_until: Option<Timestamp>,
}

/// The pause after the first wait in vain; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The pause after so many failures. (pure)
pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

/// So many contents may be there after as many killed writes.
const MAX_MARKS: usize = 8;

impl MirrorRecord {
    /// Whether we wrote a content of this mark.
    pub(super) fn has_written(&self, mark: &str) -> bool {
        self.written.iter().any(|known| known == mark)
    }

    pub(super) fn has_written_any(&self) -> bool {
        !self.written.is_empty() || self.generation.is_some()
    }

    /// Says whose it is. What another profile wrote there is not ours.
    pub(super) fn describe(&mut self, path: &str, kind: &str, entry: Option<&str>, profile: &ProfileName) {
        if self.profile.as_ref().is_some_and(|other| other != profile) {
            (self.written, self.generation, self.state) = (Vec::new(), None, MirrorState::Pending);
        }
        (self.path, self.kind, self.profile) = (path.to_owned(), kind.to_owned(), Some(profile.clone()));
        self.entry = entry.map(str::to_owned);
    }

    /// Notes what is about to be written. What is there may be any of those before.
    pub(super) fn note_write(&mut self, mark: &str) {
        self.written.retain(|known| known != mark);
        self.written.push(mark.to_owned());
        if self.written.len() > MAX_MARKS {
            // The first one got there.
            self.written.remove(1);
        }
    }

    /// Notes that it is there, and so nothing else.
    pub(super) fn note_landed(&mut self, mark: &str, generation: Generation) {
        self.written = vec![mark.to_owned()];
        (self.generation, self.state, self.error) = (Some(generation), MirrorState::Current, None);
        (self.waits_in_vain, self.no_wait_until) = (0, None);
    }

    /// Notes that there is nothing to write yet, whatever stood in the way before.
    pub(super) fn note_pending(&mut self) {
        (self.state, self.error) = (MirrorState::Pending, None);
    }

    /// Notes that an attempt has waited in vain: the next runs do not wait.
    pub(super) fn note_wait_in_vain(&mut self, now: Timestamp) {
        self.waits_in_vain = self.waits_in_vain.saturating_add(1);
        self.no_wait_until = Some(now.plus(pause(self.waits_in_vain)));
    }

    /// Whether a run must not wait for it. A clock that was set back does not make that long.
    pub(super) fn is_pausing(&self, now: Timestamp) -> bool {
        self.no_wait_until.is_some_and(|end| end > now && end.since(now) <= LONGEST_PAUSE)
    }

    /// Notes a failure, and says whether that is news: it is told once until it changes.
    pub(super) fn note_failure(&mut self, state: MirrorState, failure: &Failure) -> bool {
        let is_news = self.state != state || self.error.as_ref().map(|e| &e.message) != Some(&failure.message);
        (self.state, self.error) = (state, Some(failure.clone()));
        is_news
    }
}

/// Where the records and the locks of mirrors are.
#[derive(Clone, Debug)]
pub(super) struct MirrorRecords {
    dir: PathBuf,
}

impl MirrorRecords {
    pub(super) fn below(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("mirrors") }
    }

    /// `key`: tells one mirror from every other.
    pub(super) fn read(&self, key: &str) -> io::Result<Option<MirrorRecord>> {
        let bytes = durable::read(&self.record_path(key))?;
        // A record that cannot be read is as one that was lost: what is there then counts as not ours.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub(super) fn write(&self, key: &str, record: &MirrorRecord) -> io::Result<()> {
        durable::replace(&self.record_path(key), &serde_json::to_vec_pretty(record)?)
    }

    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        durable::remove(&self.record_path(key))
    }

    /// All that is kept, of every profile, with its key.
    pub(super) fn all(&self) -> Vec<(String, MirrorRecord)> {
        let names = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let keys = names.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
        keys.filter_map(|key| self.read(&key).ok().flatten().map(|record| (key, record))).collect()
    }

    /// Where a directory is noted that we made as the lock of a program. `file`: as for [`MirrorRecords::lock`].
    pub(super) fn lock_note(&self, file: &str) -> PathBuf {
        self.dir.join(format!("{file}.program-lock"))
    }

    /// Whether another run has the lock of a file at this moment.
    pub(super) fn is_locked(&self, file: &str) -> bool {
        LockFile::is_held(&self.dir.join(format!("{file}.lock")))
    }

    /// Takes the lock of a file that mirrors write. `file`: tells one file from every other.
    pub(super) fn lock(&self, file: &str, limit: Duration) -> Result<LockFile, LockError> {
        durable::create_dir(&self.dir)?;
        let path = self.dir.join(format!("{file}.lock"));
        if limit.is_zero() {
            return LockFile::try_acquire(&path)?.ok_or_else(|| LockError::Held(LockHolder::of(&path)));
        }
        LockFile::acquire_within(&path, LockWait::at_most(limit))
    }

    fn record_path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ErrorKind;

    #[test]
    fn content_of_a_killed_write_is_known_as_ours() {
        let mut record = MirrorRecord::default();
        record.note_landed("one", Generation::FIRST);
        record.note_write("two");
        record.note_write("three");
        assert!(["one", "two", "three"].iter().all(|mark| record.has_written(mark)));
        record.note_landed("three", Generation::new(3));
        assert!(record.has_written("three") && !record.has_written("one"));
        (0..20).for_each(|n| record.note_write(&n.to_string()));
        assert!(record.written.len() == MAX_MARKS && record.has_written("three") && record.has_written("19"));
    }

    /// What was lost: five seconds of every run, for the lock of a program that hangs.
    #[test]
    fn wait_in_vain_is_not_repeated_by_the_next_runs() {
        let mut record = MirrorRecord::default();
        let at = |second: i64| Timestamp::from_secs(1_000_000 + second);
        record.note_wait_in_vain(at(1000));
        assert!(record.is_pausing(at(1029)) && !record.is_pausing(at(1030)));
        record.note_wait_in_vain(at(1030));
        assert!(record.is_pausing(at(1089)) && !record.is_pausing(at(1090)));
        assert!(!record.is_pausing(at(-100_000)), "the clock was set back");
        record.note_landed("a", Generation::FIRST);
        assert!(!record.is_pausing(at(1031)));
        assert_eq!([1, 2, 40, u32::MAX].map(|n| pause(n).as_secs()), [30, 60, 3600, 3600]);
    }

    /// What was lost: the way on after a failure that was mended.
    #[test]
    fn mended_failure_is_not_told_again() {
        let mut record = MirrorRecord::default();
        record.note_failure(MirrorState::Failed, &Failure::new(ErrorKind::Mirror, "can be written by others"));
        record.note_pending();
        assert_eq!((record.state, record.error), (MirrorState::Pending, None));
    }

    #[test]
    fn failure_is_news_until_it_changes() {
        let mut record = MirrorRecord::default();
        let failure = |words: &str| Failure::new(ErrorKind::Mirror, words);
        assert!(record.note_failure(MirrorState::Failed, &failure("full")));
        assert!(!record.note_failure(MirrorState::Failed, &failure("full")));
        assert!(record.note_failure(MirrorState::Conflict, &failure("theirs")));
        record.note_landed("a", Generation::FIRST);
        assert!(record.note_failure(MirrorState::Failed, &failure("full")));
    }
}
