//! The sealing key's item in the keyring.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::StoreError;
use crate::store::identity::StoreIdentity;
use crate::store::keyring::{KeyringError, KeyringItem, KeyringService, item};
use crate::store::keys::sealing_key::SealingKey;

#[derive(Serialize, Deserialize)]
struct SealingKeyItem {
    format: u32,
    store: String,
    key_id: String,
    key: Zeroizing<String>,
    generation: u64,
    /// The owner of the store, as `store.json` has it.
    #[serde(default)]
    owner: Option<String>,
}

fn attributes(keyring: &KeyringService, store: &str) -> KeyringItem {
    KeyringItem { service: format!("{}-key", keyring.service()), user: store.to_owned() }
}

/// The key of the store with this UUID.
pub(in crate::store) fn read(keyring: &KeyringService, store: &str) -> Result<Option<SealingKey>, StoreError> {
    Ok(read_owned(keyring, store)?.map(|(key, _)| key))
}

/// The key, with the owner of the store.
pub(in crate::store) fn read_owned(
    keyring: &KeyringService,
    store: &str,
) -> Result<Option<(SealingKey, Option<String>)>, StoreError> {
    // An empty one has lost its secret: KWallet keeps the attributes when it is killed before it has written that.
    let Some(found) = keyring.read(&attributes(keyring, store))?.filter(|found| !found.value.is_empty()) else {
        return Ok(None);
    };
    let item: SealingKeyItem = serde_json::from_str(&found.value).map_err(|_| StoreError::KeyDamaged)?;
    let key = SealingKey::from_bytes(item.key.as_bytes()).ok_or(StoreError::KeyDamaged)?;
    // The item of another store may have been put in its place.
    let owner = item.owner.filter(|_| item.store == store);
    if key.id() == item.key_id { Ok(Some((key, owner))) } else { Err(StoreError::KeyDamaged) }
}

pub(super) fn exists(keyring: &KeyringService, store: &str) -> Result<bool, StoreError> {
    Ok(keyring.read(&attributes(keyring, store))?.is_some())
}

pub(super) fn write(keyring: &KeyringService, store: &StoreIdentity, key: &SealingKey) -> Result<(), StoreError> {
    let item = SealingKeyItem {
        format: 1,
        store: store.uuid.clone(),
        owner: store.owner.clone(),
        key_id: key.id().to_owned(),
        key: key.to_base64(),
        generation: 1,
    };
    let text = Zeroizing::new(serde_json::to_string(&item).map_err(|_| StoreError::KeyDamaged)?);
    Ok(keyring.write(&attributes(keyring, &store.uuid), &text)?)
}

/// The error that there is no key. Where a locked collection may have it, that is said instead.
pub(super) fn missing(keyring: &KeyringService, store: &str) -> StoreError {
    match keyring.asked() {
        Ok(asked) if asked.may_hide_items => KeyringError::Locked.of_program(asked.program).into(),
        Ok(asked) => {
            let is_ours = item::is_published_by(keyring, store).unwrap_or(false);
            StoreError::KeyMissing { store: store.to_owned(), program: asked.program, is_ours }
        }
        Err(e) => e.into(),
    }
}

/// Takes back an item that nothing needs, even if it cannot be read. Returns whether there is none now.
pub(super) fn discard(keyring: &KeyringService, store: &str) -> bool {
    let item = attributes(keyring, store);
    // What is there decides.
    let _result = keyring.delete(&item, "");
    matches!(keyring.read(&item), Ok(None))
}

pub(super) fn delete(keyring: &KeyringService, store: &str) -> Result<(), StoreError> {
    let item = attributes(keyring, store);
    let deleted = keyring.delete(&item, store);
    match (keyring.read(&item), deleted) {
        (Ok(None), _) => Ok(()),
        // It names no store that could be compared.
        (Ok(Some(found)), _) if found.value.is_empty() && discard(keyring, store) => Ok(()),
        (_, Err(e)) | (Err(e), _) => Err(e.into()),
        (Ok(Some(_)), Ok(())) => Err(KeyringError::Failed("it did not delete the sealing key".into()))?,
    }
}
