//! Makes new fingerprints for a profile folder that was copied from another store, so that a doubt or a rejection keeps
//! its meaning.

use crate::credential::Credential;
use crate::credential::secret::Fingerprint;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, StoreError};

impl LockedProfile<'_, '_> {
    /// Says in a journal that is opened whose fingerprints it has: ours, unless it may be of another store and still has
    /// a credential to make them again from.
    pub(in crate::store) fn set_store_identity(mut self) -> Self {
        let is_live = self.journal.has_credential();
        if !self.identity.is_permanent() {
            self.journal.store_identity = None;
        } else if self.is_of_this_store() || !is_live {
            self.journal.last_ledgered = self.journal.last_ledgered.take().filter(|_| self.is_of_this_store());
            self.journal.store_identity = Some(self.identity.clone());
        }
        self
    }

    /// Whether the journal says that its fingerprints are of this store.
    fn is_of_this_store(&self) -> bool {
        self.journal.store_identity.as_ref().is_some_and(|store| store.uuid == self.identity.uuid)
    }

    /// Makes a foreign journal one of ours, durably: what it says of the token of `credential` it says from now on by the
    /// token's fingerprint here. Refuses one whose token another profile here has (rule 4). `fingerprint` is that of the
    /// credential.
    ///
    /// Not to be called by a holder of a token's lock.
    pub(in crate::store) fn rekey_fingerprints(
        &mut self,
        credential: &Credential,
        fingerprint: &Fingerprint,
        key: &SealingKey,
    ) -> Result<(), StoreError> {
        if self.is_of_this_store() || !self.identity.is_permanent() {
            return Ok(());
        }
        // What another ledger took says nothing of this one.
        self.journal.last_ledgered = None;
        let is_of_it = self.journal.generation == credential.generation;
        let foreign = self.journal.fingerprint.clone().filter(|known| known != fingerprint);
        // A journal of an older version does not say whose it is; that it knows the token shows it.
        if foreign.is_none() && is_of_it {
            self.journal.store_identity = Some(self.identity.clone());
            return Ok(());
        }
        let profile = self.permit.profile().clone();
        let token_lock = self.store.lock_token(fingerprint)?;
        if let Some(claim) = self.store.find_claim(&self.store.scan()?, fingerprint, &profile, key)? {
            return Err(StoreError::TokenClaimed { profile, claim });
        }
        if let Some(foreign) = foreign.filter(|_| is_of_it) {
            self.journal.replace_fingerprint(&foreign, fingerprint);
        }
        self.journal.store_identity = Some(self.identity.clone());
        self.save_journal()?;
        drop(token_lock);
        Ok(())
    }
}

impl Journal {
    /// Calls a token by another fingerprint, wherever it is spoken of.
    fn replace_fingerprint(&mut self, old: &Fingerprint, new: &Fingerprint) {
        let everywhere = [
            self.fingerprint.as_mut(),
            self.intent.as_mut().map(|intent| &mut intent.fingerprint),
            self.rejected.as_mut().map(|rejected| &mut rejected.fingerprint),
            self.revocation.as_mut().map(|revocation| &mut revocation.fingerprint),
        ];
        for fingerprint in everywhere.into_iter().flatten().filter(|fingerprint| *fingerprint == old) {
            fingerprint.clone_from(new);
        }
    }
}
