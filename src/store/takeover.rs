//! `doctor --take-over`: makes this machine and this directory the home of the credentials.
//!
//! The user vouches that the former home is out of use. What the keyring has from it is taken over if the former store's
//! key is still there to prove that it is genuine.

use super::identity::Identity;
use super::key::SealingKey;
use super::keyring::Item;
use super::published::{self, Published};
use super::{Store, StoreError};
use crate::credential::{Credential, Generation};
use crate::guard::Permit;
use crate::outcome::Publication;
use crate::profile::ProfileName;
use crate::sys::lockfile::LockFile;
use crate::sys::{durable, machine};

/// What was done about one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was at home here already.
    AtHome,
    /// The keyring's copy was adopted as this generation.
    Adopted(Generation),
    /// The same, but its refresh token is known here to be spent: only a login helps.
    Spent(Generation),
    /// The copy here was newer, and was published as this generation.
    Republished(Generation),
    /// The keyring's copy is newer than what is here and cannot be proved genuine: it was left alone.
    Unproven { claimed: Generation },
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
        names.iter().map(|name| Ok((name.clone(), self.take_over_profile(name, &identity, &key)?))).collect()
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
        let (Published::OtherStore { uuid, generation }, _) = published::read(keyring, &item, &identity.uuid, key)?
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
        if let Some(ours) = &ours {
            vault.catch_up(ours, &key.fingerprint(&ours.refresh))?;
        }
        let here = ours.as_ref().map_or(vault.record.generation, |c| c.generation.max(vault.record.generation));
        let next = here.max(generation).next();
        let is_spent = match &proven {
            Published::Ours(theirs) => vault.is_consumed(&key.fingerprint(&theirs.refresh))?,
            Published::Missing | Published::OtherStore { .. } | Published::Unsigned { .. } => false,
        };
        let gives_way = |ours: &Credential, theirs: &Credential| ours.generation < theirs.generation && !is_spent;
        let (mut credential, is_adopted) = match (proven, ours) {
            (Published::Ours(theirs), ours) if ours.as_ref().is_none_or(|ours| gives_way(ours, &theirs)) => {
                (*theirs, true)
            }
            (_, Some(ours)) if ours.generation >= generation || is_spent => (ours, false),
            (_, _) => return Ok(Taken::Unproven { claimed: generation }),
        };
        self.check_custody(key, name.as_str())?;
        credential.generation = next;
        let fingerprint = key.fingerprint(&credential.refresh);
        vault.carry_doubt(&fingerprint, next)?;
        vault.seal(&credential, key)?;
        vault.write_off(Some(&fingerprint))?;
        published::write(keyring, &item, &identity.uuid, key, &credential)?;
        vault.record.adopt(&credential, fingerprint);
        vault.record.publication = Publication::Published;
        vault.record.sequence += 1;
        vault.save()?;
        Ok(match is_adopted {
            true if is_spent => Taken::Spent(next),
            true => Taken::Adopted(next),
            false => Taken::Republished(next),
        })
    }
}
