//! The keyring item: the published copy that other programs read, with a MAC by which we recognise our own.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::secret::RefreshToken;
use crate::credential::{Binding, Credential, Generation};
use crate::store::disk::sealed_content::{SealedGrant, SecretText};
use crate::store::keyring::{FoundItem, Keyring, KeyringError, KeyringItem};
use crate::store::keys::sealing_key::SealingKey;

/// The keyring item's value: what other programs may read, and what we need to read it back.
#[derive(Serialize, Deserialize)]
struct ItemValue {
    access_token: Option<SecretText>,
    refresh_token: SecretText,
    token_type: String,
    expires_at: Option<Timestamp>,
    scope: Option<String>,
    generation: Generation,
    provider: String,
    /// UUID of the store that published it.
    store: String,
    binding: Binding,
    grant: SealedGrant,
    /// HMAC over the profile's name and all of the above; only a holder of the sealing key can make one, and an item that
    /// was copied from another profile has another.
    #[serde(default)]
    mac: String,
}

/// What the keyring has for a profile.
#[derive(Debug)]
pub enum PublishedItem {
    Missing,
    /// Ours, by its MAC.
    Ours(Box<Credential>),
    /// Published by another state directory: two stores claim the credential.
    OtherStore {
        uuid: String,
        generation: Generation,
        /// What it holds, not proved genuine.
        claimed_refresh_token: Option<RefreshToken>,
    },
    /// Not ours, or altered: of no use. `generation` is what it claims.
    Unverified {
        generation: Option<u64>,
    },
}

/// Reads the keyring item. `duplicates` counts further items with the same attributes.
pub fn read(
    keyring: &dyn Keyring,
    item: &KeyringItem,
    store: &str,
    key: &SealingKey,
) -> Result<(PublishedItem, usize), KeyringError> {
    Ok(match keyring.read(item)? {
        None => (PublishedItem::Missing, 0),
        Some(FoundItem { value, duplicates }) => (verify(&value, item, store, key), duplicates),
    })
}

fn verify(text: &str, item: &KeyringItem, store: &str, key: &SealingKey) -> PublishedItem {
    let Ok(mut value) = serde_json::from_str::<ItemValue>(text) else {
        let claimed = serde_json::from_str::<serde_json::Value>(text).ok();
        return PublishedItem::Unverified { generation: claimed.and_then(|v| v.get("generation")?.as_u64()) };
    };
    if value.store != store {
        let refresh = RefreshToken::new(value.refresh_token.0.clone());
        return PublishedItem::OtherStore {
            uuid: value.store,
            generation: value.generation,
            claimed_refresh_token: refresh,
        };
    }
    let mac = std::mem::take(&mut value.mac);
    let refresh = RefreshToken::new(value.refresh_token.0.clone());
    match (compute_mac(&value, item, key), refresh) {
        (Some(expected), Some(refresh)) if expected == mac => PublishedItem::Ours(Box::new(Credential {
            generation: value.generation,
            binding: value.binding.clone(),
            refresh,
            grant: value.grant.to_grant(),
        })),
        _ => PublishedItem::Unverified { generation: Some(value.generation.get()) },
    }
}

/// The owner of another store's item with the token that `is_it` recognises, except that of `but`. The item is not
/// proved genuine.
pub fn find_other_holder(
    keyring: &dyn Keyring,
    service: &str,
    store: &str,
    but: &str,
    is_it: impl Fn(&RefreshToken) -> bool,
) -> Result<Option<String>, KeyringError> {
    let holds = |text: &str| {
        let value = serde_json::from_str::<ItemValue>(text).ok().filter(|value| value.store != store);
        value.and_then(|value| RefreshToken::new(value.refresh_token.0.clone())).is_some_and(|token| is_it(&token))
    };
    Ok(keyring.list(service)?.into_iter().find_map(|(user, text)| (user != but && holds(&text)).then_some(user)))
}

/// Writes the keyring item and reads it back: on `Ok` the keyring returns what was written.
pub fn write(
    keyring: &dyn Keyring,
    item: &KeyringItem,
    store: &str,
    key: &SealingKey,
    credential: &Credential,
) -> Result<(), KeyringError> {
    let text = to_json(credential, item, store, key)?;
    let written = keyring.write(item, &text);
    // A keyring may apply a write that it reported as failed, so its content decides, not its result.
    let is_there = |found: &Option<FoundItem>| found.as_ref().is_some_and(|f| *f.value == *text);
    match (keyring.read(item), written) {
        (Ok(found), _) if is_there(&found) => Ok(()),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(_), Ok(())) => Err(KeyringError::Failed("the item read back differs from the one written".into())),
    }
}

fn to_json(
    credential: &Credential,
    item: &KeyringItem,
    store: &str,
    key: &SealingKey,
) -> Result<zeroize::Zeroizing<String>, KeyringError> {
    let grant = SealedGrant::from_grant(&credential.grant);
    let mut value = ItemValue {
        access_token: grant.access_token.clone(),
        refresh_token: SecretText(credential.refresh.expose().into()),
        token_type: grant.token_type.clone(),
        expires_at: grant.validity.as_ref().map(|v| v.expires_at()),
        scope: grant.scope.clone(),
        generation: credential.generation,
        provider: credential.binding.provider.clone(),
        store: store.to_owned(),
        binding: credential.binding.clone(),
        grant,
        mac: String::new(),
    };
    let unwritable = || KeyringError::Failed("the credential cannot be written as JSON".into());
    value.mac = compute_mac(&value, item, key).ok_or_else(unwritable)?;
    serde_json::to_string(&value).map(Into::into).map_err(|_| unwritable())
}

/// The MAC of a value whose `mac` is empty. Members are written in the order of the type, so text and type agree.
fn compute_mac(value: &ItemValue, item: &KeyringItem, key: &SealingKey) -> Option<String> {
    let bytes = zeroize::Zeroizing::new(serde_json::to_vec(&(&item.user, value)).ok()?);
    Some(key.item_mac(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keyring::memory::MemoryKeyring;

    fn item(profile: &str) -> KeyringItem {
        KeyringItem { service: "keepalive".into(), user: profile.into() }
    }

    fn credential(token: &str) -> Credential {
        crate::store::test_samples::credential(3, token)
    }

    #[test]
    fn keyring_item_copied_from_another_profile_is_not_ours() {
        let (keyring, key) = (MemoryKeyring::default(), SealingKey::generate());
        for profile in ["work", "home"] {
            write(&keyring, &item(profile), "s", &key, &credential(profile)).unwrap();
        }
        let PublishedItem::Ours(found) = read(&keyring, &item("work"), "s", &key).unwrap().0 else { panic!() };
        assert_eq!(found.refresh, RefreshToken::new("work").unwrap());
        let copied = keyring.read(&item("home")).unwrap().unwrap().value;
        keyring.write(&item("work"), &copied).unwrap();
        let found = read(&keyring, &item("work"), "s", &key).unwrap().0;
        assert!(matches!(found, PublishedItem::Unverified { generation: Some(3) }), "{found:?}");
    }
}
