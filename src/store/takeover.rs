//! `doctor --take-over`: makes this machine and this directory the home of the credentials.
//!
//! The user vouches that the former home is out of use. What the keyring has from it is taken over if the former store's
//! key is still there to prove that it is genuine.

use super::identity::Identity;
use super::key::SealingKey;
use super::keyring::Item;
use super::published::{self, Published};
use super::{Claim, Store, StoreError, Vault};
use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::guard::Permit;
use crate::outcome::{Outcome, Publication};
use crate::profile::ProfileName;
use crate::sys::lockfile::LockFile;
use crate::sys::{durable, machine};

/// What was done about one profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It was at home here already.
    AtHome,
    /// The keyring's copy was adopted as this generation.
    Adopted(Generation),
    /// The copy here was newer, and was published as this generation.
    Republished(Generation),
    /// The keyring's copy is newer than what is here and cannot be proved genuine: it was left alone.
    Unproven { claimed: Generation },
    /// Another profile here has the token, or it is known to be spent: it was left alone.
    Claimed(Claim),
    /// Why nothing could be done about it; the others are not held up by that.
    Failed(Box<Outcome>),
}

impl Store {
    /// Takes over, profile by profile. Durable on return, each profile for itself.
    pub fn take_over(&self, names: &[ProfileName]) -> Result<Vec<(ProfileName, Taken)>, StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let path = self.layout.store_lock();
        let held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let mut identity = Identity::read_or_create(&self.layout)?;
        identity.machine = machine::machine_id();
        identity.write(&self.layout.identity())?;
        drop(held);
        let (key, _kept) = self.key_to_seal("")?;
        let take = |name| match self.take_over_profile(name, &identity, &key) {
            Err(StoreError::Claimed { claim, .. }) => Taken::Claimed(claim),
            Err(e) => Taken::Failed(Box::new(e.outcome())),
            Ok(taken) => taken,
        };
        Ok(names.iter().map(|name| (name.clone(), take(name))).collect())
    }

    fn take_over_profile(
        &self,
        name: &ProfileName,
        identity: &Identity,
        key: &std::sync::Arc<SealingKey>,
    ) -> Result<Taken, StoreError> {
        let path = self.lock_file(name)?;
        let lock = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let mut vault = self.vault(Permit::for_writer(name, &lock))?;
        let Some((keyring, service)) = self.keyring() else {
            return Ok(Taken::AtHome);
        };
        let item = Item { service: service.to_owned(), user: name.to_string() };
        let (Published::OtherStore { uuid, generation, refresh }, _) =
            published::read(keyring, &item, &identity.uuid, key)?
        else {
            return Ok(Taken::AtHome);
        };
        let former = Identity { uuid: uuid.clone(), ..identity.clone() };
        let proven = match self.key_in_keyring(&former)? {
            Some(former_key) => published::read(keyring, &item, &uuid, &former_key)?.0,
            None => Published::Missing,
        };
        vault.take_up_answer(key)?;
        // What a logout left behind does not come back.
        let ours = if vault.record.is_tombstone { None } else { vault.newest_sealed(key)? };
        let known = ours.as_ref().map(|ours| key.fingerprint(&ours.refresh));
        let here = ours.as_ref().map_or(vault.record.generation, |c| c.generation.max(vault.record.generation));
        let next = here.max(generation).next();
        // The two stores count each for itself, so no generation tells which is newer. What stands in the keyring was
        // written after ours, unless ours is its successor: then its token is spent, as we know, or the very same.
        let theirs = refresh.map(|token| key.fingerprint(&token));
        let is_known =
            |token: &Fingerprint| Ok::<_, StoreError>(known.as_ref() == Some(token) || vault.is_dead(token)?);
        let is_ours_newer = theirs.as_ref().map(is_known).transpose()?.unwrap_or(false);
        let (mut credential, is_adopted) = match (proven, ours) {
            (_, Some(ours)) if is_ours_newer => (ours, false),
            (Published::Ours(theirs), _) => (*theirs, true),
            (_, _) => return Ok(Taken::Unproven { claimed: generation }),
        };
        self.check_custody(key, name.as_str())?;
        credential.generation = next;
        let fingerprint = key.fingerprint(&credential.refresh);
        let _token_lock = self.lock_token(&fingerprint)?;
        if known.as_ref() != Some(&fingerprint) {
            vault.refuse_claimed(&fingerprint, key)?;
        }
        vault.carry_doubt(&fingerprint, next)?;
        vault.seal(&credential, key)?;
        vault.write_off(Some(&fingerprint))?;
        published::write(keyring, &item, &identity.uuid, key, &credential)?;
        vault.record.adopt(&credential, fingerprint);
        vault.record.publication = Publication::Published;
        vault.record.sequence += 1;
        vault.save()?;
        Ok(if is_adopted { Taken::Adopted(next) } else { Taken::Republished(next) })
    }
}

impl Vault<'_, '_> {
    /// Rules 3 and 4, as of an import: a token that is spent is not taken, nor one that another profile here has.
    fn refuse_claimed(&self, token: &Fingerprint, key: &SealingKey) -> Result<(), StoreError> {
        self.store.check_ledger()?;
        let profile = self.permit.profile().clone();
        let claim = match self.is_dead(token)? {
            true => Some(Claim::Dead),
            false => self.store.claim(token, &profile, key)?,
        };
        claim.map_or(Ok(()), |claim| Err(StoreError::Claimed { profile, claim }))
    }

    /// Whether a token is known here to be spent or refused.
    fn is_dead(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let is_rejected = self.record.rejected.as_ref().is_some_and(|r| r.fingerprint == *token);
        Ok(is_rejected || self.is_consumed(token)?)
    }
}
