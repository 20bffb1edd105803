//! The keyring item: the published copy that other programs read, with a MAC by which we recognise our own.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::secret::RefreshToken;
use crate::credential::{Binding, Credential, Generation};
use crate::profile::ProfileName;
use crate::store::disk::sealed_content::{SealedGrant, SecretText};
use crate::store::keyring::{FoundItem, KeyringError, KeyringItem, KeyringService};
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
    /// It is there and holds nothing: KWallet keeps the attributes when it is killed before it has written the secret.
    Empty,
    /// Not ours, or altered: of no use. `generation` is what it claims.
    Unverified {
        generation: Option<u64>,
    },
}

/// The keyring item of one profile, as the store with this UUID publishes it.
pub(in crate::store) struct ProfileItem<'s> {
    keyring: &'s KeyringService,
    attributes: KeyringItem,
    store: String,
}

impl<'s> ProfileItem<'s> {
    pub(crate) fn new(keyring: &'s KeyringService, profile: &ProfileName, store: &str) -> Self {
        let attributes = KeyringItem { service: keyring.service().to_owned(), user: profile.to_string() };
        Self { keyring, attributes, store: store.to_owned() }
    }

    /// Whether a write could succeed now.
    pub(crate) fn check(&self) -> Result<(), KeyringError> {
        self.keyring.check()
    }

    /// Reads the item, and counts further ones with the same attributes.
    pub(crate) fn read(&self, key: &SealingKey) -> Result<(PublishedItem, usize), KeyringError> {
        Ok(match self.keyring.read(&self.attributes)? {
            None => (PublishedItem::Missing, 0),
            Some(FoundItem { value, duplicates }) => (self.verify(&value, key), duplicates),
        })
    }

    /// The UUID of the other store that published the item; `None` where none did.
    pub(crate) fn other_owner(&self) -> Result<Option<String>, KeyringError> {
        let found = self.keyring.read(&self.attributes)?;
        let owner = found.and_then(|found| Some(serde_json::from_str::<ItemValue>(&found.value).ok()?.store));
        Ok(owner.filter(|owner| *owner != self.store))
    }

    fn verify(&self, text: &str, key: &SealingKey) -> PublishedItem {
        if text.is_empty() {
            return PublishedItem::Empty;
        }
        let Ok(mut value) = serde_json::from_str::<ItemValue>(text) else {
            let claimed = serde_json::from_str::<serde_json::Value>(text).ok();
            return PublishedItem::Unverified { generation: claimed.and_then(|v| v.get("generation")?.as_u64()) };
        };
        let refresh = RefreshToken::new(value.refresh_token.0.clone());
        if value.store != self.store {
            let (uuid, generation) = (value.store, value.generation);
            return PublishedItem::OtherStore { uuid, generation, claimed_refresh_token: refresh };
        }
        let mac = std::mem::take(&mut value.mac);
        match (self.compute_mac(&value, key), refresh) {
            (Some(expected), Some(refresh)) if expected == mac => PublishedItem::Ours(Box::new(Credential {
                generation: value.generation,
                binding: value.binding.clone(),
                refresh,
                grant: value.grant.to_grant(),
            })),
            _ => PublishedItem::Unverified { generation: Some(value.generation.get()) },
        }
    }

    /// Writes the item and reads it back: on `Ok` the keyring returns what was written.
    pub(crate) fn write(&self, key: &SealingKey, credential: &Credential) -> Result<(), KeyringError> {
        let text = self.to_json(credential, key)?;
        let written = self.keyring.write(&self.attributes, &text);
        // A keyring may apply a write that it reported as failed, so its content decides, not its result.
        let is_there = |found: &Option<FoundItem>| found.as_ref().is_some_and(|f| *f.value == *text);
        match (self.keyring.read(&self.attributes), written) {
            (Ok(found), _) if is_there(&found) => Ok(()),
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(_), Ok(())) => Err(KeyringError::Failed("the item read back differs from the one written".into())),
        }
    }

    fn to_json(&self, credential: &Credential, key: &SealingKey) -> Result<Zeroizing<String>, KeyringError> {
        let grant = SealedGrant::from_grant(&credential.grant);
        let mut value = ItemValue {
            access_token: grant.access_token.clone(),
            refresh_token: SecretText(credential.refresh.expose().into()),
            token_type: grant.token_type.clone(),
            expires_at: grant.validity.as_ref().map(|v| v.expires_at()),
            scope: grant.scope.clone(),
            generation: credential.generation,
            provider: credential.binding.provider.clone(),
            store: self.store.clone(),
            binding: credential.binding.clone(),
            grant,
            mac: String::new(),
        };
        let unwritable = || KeyringError::Failed("the credential cannot be written as JSON".into());
        value.mac = self.compute_mac(&value, key).ok_or_else(unwritable)?;
        serde_json::to_string(&value).map(Into::into).map_err(|_| unwritable())
    }

    /// The MAC of a value whose `mac` is empty. Members are written in the order of the type, so text and type agree.
    fn compute_mac(&self, value: &ItemValue, key: &SealingKey) -> Option<String> {
        let bytes = Zeroizing::new(serde_json::to_vec(&(&self.attributes.user, value)).ok()?);
        Some(key.item_mac(&bytes))
    }

    /// Whether there is an item that this store published, and how many that others did.
    pub(crate) fn find_own(&self) -> Result<(bool, usize), KeyringError> {
        Ok(match self.keyring.read(&self.attributes)? {
            None => (false, 0),
            Some(FoundItem { value, duplicates }) if value.contains(&self.store) => (true, duplicates),
            Some(FoundItem { duplicates, .. }) => (false, duplicates + 1),
        })
    }

    /// Deletes the items that this store published; gives warnings of others.
    pub(crate) fn delete(&self) -> Result<Vec<String>, KeyringError> {
        let deleted = self.keyring.delete(&self.attributes, &self.store);
        // A keyring may do what it reports as failed, and the other way round.
        match (self.find_own(), deleted) {
            (Ok((false, 0)), _) => Ok(Vec::new()),
            (Ok((false, others)), _) => Ok(vec![format!(
                "{others} keyring items of other programs also name profile {}; they were left unchanged",
                self.attributes.user
            )]),
            (Ok((true, _)), Ok(())) => Err(KeyringError::Failed("it did not delete the item".into())),
            (Ok((true, _)), Err(e)) | (Err(e), _) => Err(e),
        }
    }

    /// The warning of an item that is left alone, because it is not known any more which store this is.
    pub(crate) fn leave(&self) -> Result<Vec<String>, KeyringError> {
        let KeyringItem { service, user } = &self.attributes;
        let warning = |_| {
            format!(
                "the keyring has an item for profile {user}, but this store can no longer tell whether it wrote that \
                 item; if it did: secret-tool clear service {service} username {user}"
            )
        };
        Ok(self.keyring.read(&self.attributes)?.map(warning).into_iter().collect())
    }
}

/// The owner of another store's item with the token that `is_it` recognises, except that of `but`. The item is not
/// proved genuine.
pub(in crate::store) fn find_other_holder(
    keyring: &KeyringService,
    store: &str,
    but: &ProfileName,
    is_it: impl Fn(&RefreshToken) -> bool,
) -> Result<Option<String>, KeyringError> {
    let holds = |text: &str| {
        let value = serde_json::from_str::<ItemValue>(text).ok().filter(|value| value.store != store);
        value.and_then(|value| RefreshToken::new(value.refresh_token.0.clone())).is_some_and(|token| is_it(&token))
    };
    let items = keyring.list(keyring.service())?;
    Ok(items.into_iter().find_map(|(user, text)| (user != but.as_str() && holds(&text)).then_some(user)))
}

/// Whether any item here was published by the store with this UUID, in whatever directory.
pub(in crate::store) fn is_published_by(keyring: &KeyringService, store: &str) -> Result<bool, KeyringError> {
    let names_store = |text: &str| {
        let value = serde_json::from_str::<serde_json::Value>(text);
        value.is_ok_and(|value| value.get("store").and_then(serde_json::Value::as_str) == Some(store))
    };
    Ok(keyring.list(keyring.service())?.iter().any(|(_, text)| names_store(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keyring::memory::MemoryKeyring;

    fn credential(token: &str) -> Credential {
        crate::store::test_samples::credential(3, token)
    }

    #[test]
    fn keyring_item_copied_from_another_profile_is_not_ours() {
        let keyring = KeyringService::new(Box::new(MemoryKeyring::default()), "keepalive".into());
        let key = SealingKey::generate();
        let item = |profile: &str| ProfileItem::new(&keyring, &profile.parse().unwrap(), "s");
        for profile in ["work", "home"] {
            item(profile).write(&key, &credential(profile)).unwrap();
        }
        let PublishedItem::Ours(found) = item("work").read(&key).unwrap().0 else { panic!() };
        assert_eq!(found.refresh, RefreshToken::new("work").unwrap());
        let copied = keyring.read(&item("home").attributes).unwrap().unwrap().value;
        keyring.write(&item("work").attributes, &copied).unwrap();
        let found = item("work").read(&key).unwrap().0;
        assert!(matches!(found, PublishedItem::Unverified { generation: Some(3) }), "{found:?}");
    }
}
