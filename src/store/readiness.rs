//! What a run gets ready before it takes a profile's lock: the sealing key, which a command may have to be asked for.

use std::sync::Arc;

use super::key::SealingKey;
use super::{Home, Store};
use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::{KeySource, ProfileName};

/// The sealing key as it was had before the lock, or why it was not.
pub type Readied = Result<Arc<SealingKey>, Outcome>;

impl Store {
    /// Fetches the key for what a profile has. Also writes the store's identity again if that is gone. No lock may be held.
    pub fn ready_key(&self, name: &ProfileName) -> Readied {
        if let Err(error) = self.restore_identity() {
            tracing::warn!(%error, "cannot write store.json again");
        }
        self.key_for(name).map_err(Outcome::from)
    }

    /// The same under the profile's lock: neither a command nor a keyring that failed is asked a second time. What else may
    /// have changed meanwhile is looked at again.
    pub fn readied_key(&self, name: &ProfileName, readied: &Readied) -> Readied {
        let is_command = matches!(&self.home, Home::File { source: KeySource::Command(_), .. });
        match readied {
            Err(outcome) if is_command || outcome.kind == OutcomeKind::StoreUnavailable => Err(outcome.clone()),
            Ok(_) if is_command => Ok(self.key(name.as_str())?),
            Ok(_) | Err(_) => Ok(self.key_for(name)?),
        }
    }
}
