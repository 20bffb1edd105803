//! What can be seen to be wrong with a sealed copy without its key: so that a profile is not called fresh that has none.

use super::record::Record;
use super::{Home, Store, StoreError, envelope};
use crate::credential::Generation;
use crate::outcome::{Failure, OutcomeKind, State};
use crate::profile::ProfileName;
use crate::sys::durable;

impl Store {
    /// What `status` must say of a profile whose sealed copy is missing, damaged or older than its journal, and how the
    /// profile stands then. Where there is a keyring, it may have what makes the copy whole again: the next flight tells.
    pub(super) fn flaw(&self, name: &ProfileName, record: &Record) -> Option<(State, Failure)> {
        let error = self.defect(name, record)?;
        if let Home::Keyring { .. } = self.home {
            let hint = format!("the next run makes it again from the keyring: keepalive refresh -p {name}");
            return Some((State::Due, Failure::new("unsealed", error.to_string()).hint(hint)));
        }
        let outcome = error.outcome();
        let state = match outcome.kind {
            OutcomeKind::NeedsLogin => State::NeedsLogin,
            _ => State::ConfigError,
        };
        outcome.error.map(|failure| (state, failure))
    }

    fn defect(&self, name: &ProfileName, record: &Record) -> Option<StoreError> {
        if !record.has_credential() {
            return None;
        }
        let folder = self.layout.folder(name);
        let read = |path: std::path::PathBuf| durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let header = |bytes: &[u8]| envelope::header(bytes).map(|header| header.generation);
        let is_newest = |generation: Generation| generation >= record.generation;
        let error = match read(folder.sealed()) {
            Err(error) => return Some(error),
            Ok(None) => StoreError::Lost { profile: name.to_string() },
            Ok(Some(bytes)) => match header(&bytes) {
                Err(damage) => StoreError::Damaged { path: folder.sealed(), damage },
                Ok(generation) if is_newest(generation) => return None,
                Ok(older) => StoreError::Stale { found: older.get(), known: record.generation.get() },
            },
        };
        // The newest answer did not get its final name yet; the next run gives it that.
        let received = read(folder.received()).ok().flatten().and_then(|bytes| header(&bytes).ok());
        (!received.is_some_and(is_newest)).then_some(error)
    }
}
