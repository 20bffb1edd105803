//! `doctor --take-over`: makes this machine and this directory the owner of the credentials.
//!
//! The user vouches that the previous owner is out of use. Its keyring items are taken over if its key is still there
//! to prove that they are genuine.

use std::sync::Arc;

use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::guard::Permit;
use crate::outcome::{Outcome, Publication};
use crate::profile::ProfileName;
use crate::store::identity::StoreIdentity;
use crate::store::keyring::item::{ProfileItem, PublishedItem};
use crate::store::keys::key_item;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, PROFILE_LOCK_WAIT, STORE_LOCK_WAIT, Store, StoreError, TokenClaim};
use crate::sys::durable;
use crate::sys::lockfile::{LockHolder, LockWait};

/// What was done about one profile.
#[derive(Clone, Debug, PartialEq)]
pub enum TakeOverResult {
    /// The profile already belonged here.
    AlreadyOwned,
    /// It belongs here from now on; no other store has published it.
    TakenOver,
    /// The keyring's copy was adopted as this generation.
    Adopted(Generation),
    /// The copy here was newer, and was published as this generation.
    Republished(Generation),
    /// The keyring's copy is newer than what is here and cannot be proved genuine: it was left alone.
    Unverified { claimed: Generation },
    /// Another profile here has the token, or it is known to be consumed: it was left alone.
    Claimed(TokenClaim),
    /// The error of this profile; it does not affect the others.
    Failed(Box<Outcome>),
}

impl Store {
    /// Takes over, profile by profile. Durable on return, each profile for itself.
    pub fn take_over(&self, names: &[ProfileName]) -> Result<Vec<(ProfileName, TakeOverResult)>, StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let held = StoreError::lock(&self.layout.store_lock(), STORE_LOCK_WAIT)?;
        let (identity, is_new) = self.identity.take_over(|identity| self.keys.is_owner(identity))?;
        drop(held);
        let (key, held) = self.prepare_to_seal("")?;
        if is_new {
            // A run that dies before this has taken nothing over yet: the keyring names another owner still.
            self.keys.set_owner(&key, &identity)?;
        }
        drop(held);
        let take = |name| match self.take_over_profile(name, &identity, is_new) {
            Err(StoreError::TokenClaimed { claim, .. }) => TakeOverResult::Claimed(claim),
            Err(e) => TakeOverResult::Failed(Box::new(e.outcome())),
            Ok(taken) => taken,
        };
        Ok(names.iter().map(|name| (name.clone(), take(name))).collect())
    }

    fn take_over_profile(
        &self,
        name: &ProfileName,
        identity: &StoreIdentity,
        is_new: bool,
    ) -> Result<TakeOverResult, StoreError> {
        let locks = self.lock_to_seal(name, None, LockWait::at_most(PROFILE_LOCK_WAIT), &|_| {})?;
        let key = &locks.key;
        let mut locked = self.open_profile(Permit::from_lock(name, &locks.profile))?;
        let Some(keyring) = &self.keyring else {
            return accept_copy(&mut locked, key, is_new);
        };
        let item = ProfileItem::new(keyring, name, &identity.uuid);
        let (PublishedItem::OtherStore { uuid, generation, claimed_refresh_token: refresh }, _) = item.read(key)?
        else {
            return accept_copy(&mut locked, key, is_new);
        };
        let proven = match key_item::read(keyring, &uuid)? {
            Some(former_key) => ProfileItem::new(keyring, name, &uuid).read(&former_key)?.0,
            None => PublishedItem::Missing,
        };
        locked.promote_pending_grant(key)?;
        // The remains of a logout are not restored.
        let ours = if locked.journal.is_tombstone { None } else { locked.newest_sealed(key)? };
        let known = ours.as_ref().map(|ours| key.fingerprint(&ours.refresh));
        let sealed = ours.as_ref().map_or(generation, |ours| ours.generation);
        let next = sealed.max(locked.journal.generation).max(generation).next();
        // Each store counts for itself, so the generations cannot be compared. The keyring item was written after our
        // credential, unless ours succeeded it: then the item's token is known to be consumed, or is the one that we
        // have.
        let theirs = refresh.map(|token| key.fingerprint(&token));
        let is_known = |token: &Fingerprint| {
            Ok::<_, StoreError>(known.as_ref() == Some(token) || is_consumed_or_rejected(&locked, token)?)
        };
        let is_ours_newer = theirs.as_ref().map(is_known).transpose()?.unwrap_or(false);
        let (mut credential, is_adopted) = match (proven, ours) {
            (_, Some(ours)) if is_ours_newer => (ours, false),
            (PublishedItem::Ours(theirs), _) => (*theirs, true),
            (_, _) => return Ok(TakeOverResult::Unverified { claimed: generation }),
        };
        self.keys.check_id(key, name.as_str())?;
        credential.generation = next;
        let fingerprint = key.fingerprint(&credential.refresh);
        let Some(_token_lock) = self.try_lock_token(&fingerprint)? else {
            let path = self.layout.token_lock(&fingerprint);
            return Err(StoreError::Locked { holder: LockHolder::of(&path), path });
        };
        if known.as_ref() != Some(&fingerprint) {
            self.check_unclaimed(&locked, &fingerprint, key)?;
        }
        locked.move_intent(&fingerprint, next)?;
        locked.seal_credential(&credential, key)?;
        locked.record_forgotten_tokens(Some(&fingerprint))?;
        item.write(key, &credential)?;
        locked.journal.set_credential(&credential, fingerprint);
        locked.journal.publication = Publication::Published;
        locked.journal.sequence += 1;
        locked.save_journal()?;
        Ok(if is_adopted { TakeOverResult::Adopted(next) } else { TakeOverResult::Republished(next) })
    }

    /// Rules 3 and 4, as for an import: a consumed token is not taken, nor one that another profile here has.
    fn check_unclaimed(
        &self,
        locked: &LockedProfile<'_, '_>,
        token: &Fingerprint,
        key: &SealingKey,
    ) -> Result<(), StoreError> {
        let scan = self.scan()?;
        self.check_ledger_complete(&scan)?;
        let profile = locked.journal.profile.clone();
        let claim = match is_consumed_or_rejected(locked, token)? {
            true => Some(TokenClaim::Unusable),
            false => self.find_claim(&scan, token, &profile, key)?,
        };
        claim.map_or(Ok(()), |claim| Err(StoreError::TokenClaimed { profile, claim }))
    }
}

fn accept_copy(
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    is_new_owner: bool,
) -> Result<TakeOverResult, StoreError> {
    let is_news = locked.accept_copy(key, is_new_owner)?;
    Ok(if is_news { TakeOverResult::TakenOver } else { TakeOverResult::AlreadyOwned })
}

/// Whether a token is known here to be consumed or rejected.
fn is_consumed_or_rejected(locked: &LockedProfile<'_, '_>, token: &Fingerprint) -> Result<bool, StoreError> {
    let is_rejected = locked.journal.rejected.as_ref().is_some_and(|r| r.fingerprint == *token);
    Ok(is_rejected || locked.is_consumed(token)?)
}
