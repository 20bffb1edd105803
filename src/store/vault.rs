//! One profile's durable objects, opened under a permit: journal J, sealed copy S, received answer, published copy K.

use std::io;
use std::sync::Arc;

use super::content::{Answer, Content, ContentRef};
use super::envelope::{self, Header};
use super::error::OTHER_STORE;
use super::identity::Identity;
use super::key::SealingKey;
use super::keyring::{Item, KeyringError};
use super::layout::Folder;
use super::published::{self, Published};
use super::record::{Intent, Record};
use super::recovery::Unsealed;
use super::{Home, Store, StoreError};
use crate::credential::secret::Fingerprint;
use crate::credential::{Credential, Generation};
use crate::guard::{Held, Permit};
use crate::outcome::Publication;
use crate::sys::durable::{self, Staged};

/// Space taken before a request for the answer to it: the largest answer in base64, and beside it the tokens of the
/// generation before, which it may leave unchanged and which may be as large.
const ANSWER_SPACE: u64 = 4 * 1024 * 1024;

/// One profile's files, the lock held.
#[derive(Debug)]
pub struct Vault<'s, 'l> {
    pub(super) store: &'s Store,
    pub(super) permit: Permit<'l>,
    pub(super) folder: Folder,
    pub(super) identity: Identity,
    /// The journal as it stands on disk, or as it will after the next [`Vault::save`].
    pub record: Record,
}

/// The newest credential, and how the keyring fared meanwhile.
#[derive(Debug)]
pub struct Loaded<'l> {
    pub held: Held<'l>,
    pub fingerprint: Fingerprint,
    /// The keyring could not be read. Only given where the caller can go on without it.
    pub keyring_error: Option<KeyringError>,
    pub warnings: Vec<String>,
}

impl Store {
    /// Opens a profile's files: reads the journal under the lock, and makes sure that this is their home.
    pub fn vault<'s, 'l>(&'s self, permit: Permit<'l>) -> Result<Vault<'s, 'l>, StoreError> {
        let identity = self.identity()?;
        self.vault_as(permit, identity)
    }

    pub(super) fn vault_as<'s, 'l>(
        &'s self,
        permit: Permit<'l>,
        identity: Identity,
    ) -> Result<Vault<'s, 'l>, StoreError> {
        self.check_filesystem()?;
        let folder = self.layout.folder(permit.profile());
        let mut record =
            Record::read(&folder.record(), permit.profile())?.unwrap_or_else(|| Record::new(permit.profile().clone()));
        match self.sealed_generation(permit.profile()) {
            Ok(sealed) if record.is_tombstone => record.lift(sealed),
            // What a later version sealed is not to be replaced. Any other trouble is for whoever opens it.
            Err(e) if record.is_tombstone || matches!(e, StoreError::LaterVersion { .. }) => return Err(e),
            Ok(_) | Err(_) => {}
        }
        Ok(Vault { store: self, permit, folder, identity, record }.sign())
    }
}

impl<'l> Vault<'_, 'l> {
    /// Writes the journal; durable on return.
    pub fn save(&self) -> Result<(), StoreError> {
        let path = self.folder.record();
        self.record.write(&path).map_err(|e| StoreError::io("write", &path, e))
    }

    /// Reads S and K, settles which is newest, and brings the other and the journal up to it.
    ///
    /// `is_keyring_optional`: whether a keyring that cannot be reached is reported in the result instead of as an error.
    /// `Ok(None)`: there is no credential.
    pub fn load(&mut self, key: &Arc<SealingKey>, is_keyring_optional: bool) -> Result<Option<Loaded<'l>>, StoreError> {
        let mut warnings = Vec::new();
        self.catch_up_ledger(&mut warnings)?;
        let sealed = if self.record.is_tombstone { None } else { self.open_sealed(key) };
        let (published, keyring_error) = match self.read_published(key, &mut warnings) {
            Ok(published) => (published, None),
            Err(StoreError::Keyring(e)) if is_keyring_optional && self.may_go_on(sealed.as_ref()) => (None, Some(e)),
            Err(e) => return Err(e),
        };
        let newest = match (sealed, published) {
            (Some(Ok(s)), Some(k)) if k.generation <= s.credential.generation => {
                self.remember_consumed(&k, &s.credential, key)?;
                if k.generation < s.credential.generation {
                    // Somebody brought an old one back; whoever reads it has a token that is spent.
                    self.publication_is_lost();
                }
                s
            }
            (Some(Ok(s)), None) => s,
            // It may be the newest, and readable the next time: nothing is put in its place.
            (Some(Err(unread @ StoreError::Io { .. })), _) => return Err(unread),
            (Some(Err(damage)), Some(k)) if !self.is_newest(&k)? => return Err(damage),
            (sealed, Some(k)) if !self.record.is_tombstone && k.generation >= self.record.generation => {
                if let Some(Ok(s)) = &sealed {
                    self.remember_consumed(&s.credential, &k, key)?;
                }
                warnings.push(format!("adopted generation {} from the keyring", k.generation));
                self.seal(&k, key)?;
                k.into()
            }
            (Some(Err(damage)), _) => return Err(damage),
            (None, _) if self.record.has_credential() => {
                return Err(StoreError::Lost { profile: self.permit.profile().to_string() });
            }
            (None, _) => return Ok(None),
            (Some(Ok(s)), Some(_)) => s,
        };
        let (found, known) = (newest.credential.generation, self.record.generation);
        if found < known {
            return Err(StoreError::Stale { found: found.get(), known: known.get() });
        }
        let fingerprint = key.fingerprint(&newest.credential.refresh);
        self.naturalise(&newest.credential, &fingerprint, key)?;
        self.catch_up(&newest, &fingerprint)?;
        self.compare_notes(&mut warnings)?;
        self.end_trouble()?;
        Ok(Some(Loaded { held: self.permit.hold(newest.credential), fingerprint, keyring_error, warnings }))
    }

    /// Whether S is enough where the keyring cannot be read, and not what only K may mend; nor is it where K was last seen
    /// to be another store's.
    fn may_go_on(&self, sealed: Option<&Result<Unsealed, StoreError>>) -> bool {
        let is_newest = |s: &Unsealed| s.credential.generation >= self.record.generation;
        let is_ours = self.record.trouble.as_ref().is_none_or(|trouble| trouble.failure.kind != OTHER_STORE);
        let is_enough = match sealed {
            Some(sealed) => sealed.as_ref().is_ok_and(is_newest),
            None => !self.record.has_credential(),
        };
        is_enough && is_ours
    }

    /// K, if it is ours.
    fn read_published(
        &mut self,
        key: &Arc<SealingKey>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Credential>, StoreError> {
        let Home::Keyring { keyring, service } = &self.store.home else {
            return Ok(None);
        };
        let item = self.item(service);
        let (published, duplicates) = published::read(keyring.as_ref(), &item, &self.identity.uuid, key)?;
        if duplicates > 0 {
            warnings.push(format!("{duplicates} more keyring items claim to be profile {}", item.user));
        }
        self.keep_key_in_keyring(key, warnings)?;
        match published {
            Published::Ours(credential) => Ok(Some(*credential)),
            Published::OtherStore { uuid, .. } => Err(StoreError::OtherStore { profile: item.user, other: uuid }),
            Published::Missing => {
                self.publication_is_lost();
                Ok(None)
            }
            Published::Unsigned { generation } => {
                let claim = generation.map_or(String::new(), |g| format!(" (it claims generation {g})"));
                warnings
                    .push(format!("the keyring item of {} was written by another program{claim}: not used", item.user));
                self.publication_is_lost();
                Ok(None)
            }
        }
    }

    pub(super) fn publication_is_lost(&mut self) {
        if let Home::Keyring { .. } = self.store.home {
            self.record.publication = Publication::PublishPending;
        }
    }

    /// A keyring that was wiped under a running daemon gets the key back; another key in its place is an error.
    fn keep_key_in_keyring(&self, key: &SealingKey, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        match self.store.key_in_keyring(&self.identity)? {
            Some(there) if there.id() == key.id() => Ok(()),
            Some(_) => Err(StoreError::KeyMissing { store: self.identity.uuid.clone() }),
            None => {
                warnings.push("the sealing key was missing from the keyring and was put back".into());
                self.store.write_key(&self.identity, key)
            }
        }
    }

    /// The older of two generations holds a token that is spent, if its successor has another.
    fn remember_consumed(&mut self, old: &Credential, new: &Credential, key: &SealingKey) -> Result<(), StoreError> {
        if old.generation < new.generation && old.refresh != new.refresh {
            self.mark_consumed(&key.fingerprint(&old.refresh))?;
        }
        Ok(())
    }

    /// Takes the space for an answer, durably: running out of disk is noticed now (rule 8).
    pub fn reserve_answer(&self) -> Result<Staged, StoreError> {
        let path = self.folder.received();
        Staged::create(&path, ANSWER_SPACE).map_err(|e| StoreError::io("reserve", &path, e))
    }

    /// What the fence runs before it lets the request body go: journals the intent; durable on return.
    pub fn intent_writer(&self, intent: Intent) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let mut record = self.record.clone();
        record.intent = Some(intent);
        let path = self.folder.record();
        move || record.write(&path)
    }

    /// Seals an answer that nobody has read yet; durable on return (rule 9).
    pub fn seal_answer(
        &self,
        space: Staged,
        answer: &Answer,
        generation: Generation,
        attempt: &str,
        key: &SealingKey,
    ) -> Result<(), StoreError> {
        let header = self.header(generation, Some(attempt), key);
        let path = self.folder.received();
        let bytes = envelope::seal(&header, &ContentRef::Answer(answer), key)
            .map_err(|damage| StoreError::Damaged { path: path.clone(), damage })?;
        space.commit(&bytes).map_err(|e| StoreError::io("write", &path, e))
    }

    /// Makes the received answer S, the newest generation. The answer is durable under its first name, from which
    /// recovery takes it as well; the new name is durable once [`Vault::save`] has synced the folder that both share.
    #[expect(clippy::disallowed_methods, reason = "synced with the journal, by Vault::save")]
    pub fn promote_answer(&self) -> Result<(), StoreError> {
        let path = self.folder.sealed();
        std::fs::rename(self.folder.received(), &path).map_err(|e| StoreError::io("write", &path, e))
    }

    /// Removes an answer that brought no tokens and is settled.
    pub fn discard_answer(&self) -> Result<(), StoreError> {
        let path = self.folder.received();
        durable::remove(&path).map_err(|e| StoreError::io("remove", &path, e))
    }

    /// Seals a credential that did not come as an answer to a refresh: login, import, adoption. Durable on return.
    pub fn seal(&self, credential: &Credential, key: &SealingKey) -> Result<(), StoreError> {
        let header = self.header(credential.generation, None, key);
        let path = self.folder.sealed();
        let bytes = envelope::seal(&header, &Content::of(credential), key)
            .map_err(|damage| StoreError::Damaged { path: path.clone(), damage })?;
        durable::replace(&path, &bytes).map_err(|e| StoreError::io("write", &path, e))
    }

    /// Notes in the ledger that a token was consumed, and in the journal (not saved) that the ledger has it.
    pub fn mark_consumed(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        self.store.ledger.add(token).map_err(|e| StoreError::io("write", &self.store.layout.ledger(), e))?;
        self.record.ledgered = Some(token.clone());
        Ok(())
    }

    /// Whether a token is known to be consumed.
    pub fn is_consumed(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let ledger = self.store.layout.ledger();
        self.store.ledger.contains(token).map_err(|e| StoreError::io("read", &ledger, e))
    }

    /// Whether a publication could succeed now. Always, where there is no keyring.
    pub fn check_keyring(&self) -> Result<(), KeyringError> {
        match &self.store.home {
            Home::Keyring { keyring, .. } => keyring.check(),
            Home::File { .. } => Ok(()),
        }
    }

    /// Writes K and reads it back, and notes in the record (not saved yet) whether that worked.
    pub fn publish(&mut self, credential: &Credential, key: &SealingKey) -> Result<(), KeyringError> {
        let Home::Keyring { keyring, service } = &self.store.home else {
            self.record.publication = Publication::None;
            return Ok(());
        };
        let item = self.item(service);
        self.record.publication = Publication::PublishPending;
        // No store moves to a lower generation (rule 13), not even one that we do not trust.
        let newer = |g: u64| g > credential.generation.get();
        match published::read(keyring.as_ref(), &item, &self.identity.uuid, key)?.0 {
            Published::Unsigned { generation: Some(g) } if newer(g) => {
                return Err(KeyringError::Failed(format!(
                    "another program wrote a newer item (generation {g}) for this profile; remove it with secret-tool clear"
                )));
            }
            Published::Ours(k) if newer(k.generation.get()) => {
                let g = k.generation;
                return Err(KeyringError::Failed(format!(
                    "it has a newer credential (generation {g}) of this profile"
                )));
            }
            Published::Missing | Published::Ours(_) | Published::OtherStore { .. } | Published::Unsigned { .. } => {}
        }
        published::write(keyring.as_ref(), &item, &self.identity.uuid, key, credential)?;
        self.record.publication = Publication::Published;
        Ok(())
    }

    /// The same of what did not come as an answer: unless another state directory has published this profile meanwhile, which
    /// then is its home. An answer that is here is published all the same, so that the other one stops.
    pub fn publish_arrival(&mut self, credential: &Credential, key: &SealingKey) -> Result<(), KeyringError> {
        if let Home::Keyring { keyring, service } = &self.store.home {
            let there = published::read(keyring.as_ref(), &self.item(service), &self.identity.uuid, key);
            if let Ok((Published::OtherStore { .. }, _)) = there {
                self.record.publication = Publication::PublishPending;
                let why = "another state directory has published this profile meanwhile: keepalive doctor --take-over";
                return Err(KeyringError::Failed(why.into()));
            }
        }
        self.publish(credential, key)
    }

    pub(super) fn item(&self, service: &str) -> Item {
        Item { service: service.to_owned(), user: self.permit.profile().to_string() }
    }

    fn header(&self, generation: Generation, attempt: Option<&str>, key: &SealingKey) -> Header {
        Header {
            profile: self.permit.profile().clone(),
            generation,
            attempt: attempt.map(str::to_owned),
            key_id: key.id().to_owned(),
        }
    }
}
