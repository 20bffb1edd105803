//! What a scan keeps of a journal. A whole one takes ten times the space, and a scan may meet thousands.

use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::store::journal::Journal;

/// What a journal tells those who take a token from elsewhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::store) struct JournalFacts {
    pub generation: Generation,
    pub is_tombstone: bool,
    pub is_rejected: bool,
    /// The store that the fingerprints belong to.
    pub store_uuid: Option<String>,
    pub fingerprint: Option<Fingerprint>,
    pub last_ledgered: Option<Fingerprint>,
    /// See [`Journal::unusable_tokens`].
    pub unusable_tokens: Vec<Fingerprint>,
}

impl From<Journal> for JournalFacts {
    fn from(journal: Journal) -> Self {
        Self {
            generation: journal.generation,
            is_tombstone: journal.is_tombstone,
            is_rejected: journal.is_rejected(),
            unusable_tokens: journal.unusable_tokens().cloned().collect(),
            store_uuid: journal.store_identity.map(|store| store.uuid),
            fingerprint: journal.fingerprint,
            last_ledgered: journal.last_ledgered,
        }
    }
}

impl JournalFacts {
    /// See [`Journal::is_of`].
    pub(crate) fn is_of(&self, store: &str) -> bool {
        self.store_uuid.as_deref() == Some(store)
    }
}
