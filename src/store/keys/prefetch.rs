//! Fetches the sealing key before a run takes a profile's lock, because the key may come from a command.

use std::sync::Arc;

use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::{KeySource, ProfileName};
use crate::store::keys::sealing_key::SealingKey;
use crate::store::keys::{KeyPlace, Keys};

/// The sealing key as it was had before the lock, or why it was not.
pub type PrefetchedKey = Result<Arc<SealingKey>, Outcome>;

impl Keys {
    /// Fetches the key with this id, if the header of a sealed file names one. Also writes the store's identity again if that
    /// is gone. No lock may be held.
    pub fn prefetch(&self, name: &ProfileName, key_id: Option<&str>) -> PrefetchedKey {
        if let Err(error) = self.identity.restore() {
            tracing::warn!(event = "store.unavailable", %error, "cannot write store.json again");
        }
        self.load_for(name.as_str(), key_id).map_err(|e| e.key_outcome())
    }

    /// The key again under the profile's lock: neither a command nor a keyring that failed is asked a second time. What else
    /// may have changed meanwhile is looked at again. `key_id` is that of the sealed file under the lock.
    pub fn recheck_prefetched(
        &self,
        name: &ProfileName,
        prefetched: &PrefetchedKey,
        key_id: Option<&str>,
    ) -> PrefetchedKey {
        let is_command = matches!(&self.place, KeyPlace::File { source: KeySource::Command(_), .. });
        let loaded = match prefetched {
            Err(outcome) if is_command || outcome.kind == OutcomeKind::StoreUnavailable => return Err(outcome.clone()),
            Ok(_) if is_command => self.load(name.as_str()),
            Ok(_) | Err(_) => self.load_for(name.as_str(), key_id),
        };
        loaded.map_err(|e| e.key_outcome())
    }
}
