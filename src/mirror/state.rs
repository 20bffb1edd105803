//! What is kept about each mirror in the state directory: what was written there, and how the last attempt ended. No secrets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::credential::Generation;
use crate::outcome::Failure;
use crate::profile::ProfileName;
use crate::sys::durable;
use crate::sys::lockfile::{LockError, LockFile, LockWait};

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
}

/// So many contents may be there after as many killed writes.
const MAX_MARKS: usize = 8;

impl MirrorRecord {
    /// Whether we wrote a content of this mark.
    pub(super) fn has_written(&self, mark: &str) -> bool {
        self.written.iter().any(|known| known == mark)
    }

    /// Says whose it is. What another profile wrote there is not ours.
    pub(super) fn describe(&mut self, path: &str, kind: &str, profile: &ProfileName) {
        if self.profile.as_ref().is_some_and(|other| other != profile) {
            (self.written, self.generation, self.state) = (Vec::new(), None, MirrorState::Pending);
        }
        (self.path, self.kind, self.profile) = (path.to_owned(), kind.to_owned(), Some(profile.clone()));
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

    /// Takes the lock of a file that mirrors write. `file`: tells one file from every other.
    pub(super) fn lock(&self, file: &str, limit: Duration) -> Result<LockFile, LockError> {
        durable::create_dir(&self.dir)?;
        LockFile::acquire_within(&self.dir.join(format!("{file}.lock")), LockWait::at_most(limit))
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
