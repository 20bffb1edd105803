//! The sealing key: its operations, and its source under `kind = "file"`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::profile::KeySource;
use crate::sys::secret_file::SecretFileError;
use crate::sys::{durable, process, secret_file};

const NONCE_LEN: usize = 24;
const FINGERPRINT_PURPOSE: &[u8] = b"keepalive fingerprint";

/// 32 bytes that seal a store, and the keys derived from them.
pub struct SealingKey {
    bytes: Zeroizing<[u8; 32]>,
    id: String,
    /// Fingerprints are made under this one.
    fingerprint_key: [u8; 32],
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealingKey({})", self.id)
    }
}

impl SealingKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let id = hex::encode(&hmac_for_purpose(bytes.as_slice(), b"keepalive key id", &[])[..8]);
        let prints = hmac_sha256(bytes.as_slice(), FINGERPRINT_PURPOSE);
        Self { bytes, id, fingerprint_key: prints }
    }

    /// The key for the store with this UUID. Its fingerprints outlive the key, which leaves the keyring with the last
    /// profile while ledger and tombstones stay.
    pub(in crate::store) fn for_store(self, uuid: &str) -> Self {
        Self { fingerprint_key: hmac_sha256(uuid.as_bytes(), FINGERPRINT_PURPOSE), ..self }
    }

    /// A new random key, from the operating system's generator.
    pub fn generate() -> Self {
        Self::new(random_bytes())
    }

    /// Names the key without giving it away.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key as text, to be kept in the keyring.
    pub(in crate::store) fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_slice()))
    }

    /// Reads 32 raw bytes, or base64 or hex of them with surrounding white space.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
            return Some(Self::new(raw));
        }
        let text = std::str::from_utf8(bytes).ok()?.trim();
        let decoded = Zeroizing::new(hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok())?);
        <[u8; 32]>::try_from(decoded.as_slice()).ok().map(Self::new)
    }

    /// Nonce, ciphertext and tag. The nonce is 192 random bits: no counter to lose, no repeat to fear.
    pub(in crate::store) fn encrypt(&self, plain: &[u8], aad: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random_bytes();
        let cipher = XChaCha20Poly1305::new((&*self.bytes).into());
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad })
            .expect("XChaCha20-Poly1305 takes any message that fits in memory");
        [nonce.as_slice(), &sealed].concat()
    }

    pub(in crate::store) fn decrypt(&self, sealed: &[u8], aad: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let cipher = XChaCha20Poly1305::new((&*self.bytes).into());
        cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad }).ok().map(Zeroizing::new)
    }

    /// What identifies a refresh token in journal and ledger.
    pub fn fingerprint(&self, token: &RefreshToken) -> Fingerprint {
        Fingerprint::from_hex(hex::encode(&hmac_sha256(&self.fingerprint_key, token.expose().as_bytes())[..16]))
    }

    /// Identifies a client's settings in a journal. The settings hold the client secret, which can be short: only who has
    /// the sealing key can try guesses against this. The key of the fingerprints would not do, it lies beside the journal.
    pub fn client_mark(&self, settings: &[u8]) -> String {
        hex::encode(&hmac_for_purpose(self.bytes.as_slice(), b"keepalive client settings", settings)[..16])
    }

    /// Marks a published item as ours.
    pub(in crate::store) fn item_mac(&self, bytes: &[u8]) -> String {
        hex::encode(hmac_for_purpose(self.bytes.as_slice(), b"keepalive published item", bytes))
    }
}

/// HMAC-SHA-256 under a key derived for one purpose.
fn hmac_for_purpose(key: &[u8], purpose: &[u8], message: &[u8]) -> [u8; 32] {
    hmac_sha256(&hmac_sha256(key, purpose), message)
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

/// Why the key of a file store cannot be had. Always a matter of configuration: nothing is tried without it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {0} does not exist")]
    FileMissing(PathBuf),
    #[error("cannot read the key file {}: {error}", path.display())]
    FileUnreadable { path: PathBuf, error: std::io::Error, is_ours: bool },
    #[error("the key file {} has mode {mode:04o}: {access}", path.display())]
    FileOpenToOthers { path: PathBuf, mode: u32, access: String, is_ours: bool },
    #[error("there is no systemd credential `{0}`: CREDENTIALS_DIRECTORY is not set")]
    NoCredentialsDirectory(String),
    #[error("there is no systemd credential `{0}` in CREDENTIALS_DIRECTORY")]
    CredentialMissing(String),
    #[error("the key command failed: {0}")]
    Command(#[from] process::CommandError),
    #[error("the key from {0} is not 32 bytes, raw, in base64 or in hex")]
    Malformed(String),
}

/// For a file that this user cannot change: its mode is set where the volume is described.
const PROVIDED_FILE_HINT: &str = "let only this user or a group of this process read it (Kubernetes: defaultMode: 0440 with \
                                  fsGroup; Docker: uid and mode: 0400)";

impl KeyError {
    /// What to do about it where nothing is sealed yet.
    pub fn hint(&self) -> String {
        self.repair_hint().unwrap_or_else(|| match self {
            Self::FileMissing(path) => {
                format!(
                    "create one: (umask 077; set -C; head -c 32 /dev/urandom > {}), or: keepalive init",
                    path.display()
                )
            }
            _ => "create one: head -c 32 /dev/urandom".into(),
        })
    }

    /// What to do about it that gives the same key again; `None`: there is no key.
    pub(in crate::store) fn repair_hint(&self) -> Option<String> {
        match self {
            Self::FileMissing(_) | Self::Malformed(_) => None,
            Self::FileUnreadable { path, is_ours: true, .. } => {
                Some(format!("check the owner and the permissions of {}", path.display()))
            }
            Self::FileOpenToOthers { path, is_ours: true, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::FileUnreadable { is_ours: false, .. } => Some(PROVIDED_FILE_HINT.to_owned()),
            Self::FileOpenToOthers { path, is_ours: false, .. } => Some(format!(
                "{PROVIDED_FILE_HINT}; or key = {{ command = [\"cat\", {:?}] }}",
                path.display().to_string()
            )),
            Self::NoCredentialsDirectory(name) | Self::CredentialMissing(name) => {
                Some(format!("run as a unit with LoadCredentialEncrypted={name}"))
            }
            Self::Command(_) => Some("run the command of [store] key by hand to see what it prints".into()),
        }
    }
}

/// Reads the key of a file store. `credentials` is `$CREDENTIALS_DIRECTORY`.
pub fn read_key(source: &KeySource, credentials: Option<&Path>, within: &str) -> Result<SealingKey, KeyError> {
    let bytes = match source {
        KeySource::File(path) => read_key_file(path)?,
        KeySource::Credential(name) => {
            let dir = credentials.ok_or_else(|| KeyError::NoCredentialsDirectory(name.clone()))?;
            let path = dir.join(name);
            let unreadable = |error| KeyError::FileUnreadable { path: path.clone(), error, is_ours: true };
            let bytes = durable::read(&path).map_err(unreadable)?;
            let bytes = bytes.ok_or_else(|| KeyError::CredentialMissing(name.clone()))?;
            Zeroizing::new(bytes)
        }
        KeySource::Command(argv) => process::capture_output(argv, within)?,
    };
    SealingKey::from_bytes(&bytes).ok_or_else(|| KeyError::Malformed(source_text(source)))
}

/// Where a source says that the key is, in words.
pub fn source_text(source: &KeySource) -> String {
    match source {
        KeySource::File(path) => path.display().to_string(),
        KeySource::Credential(name) => format!("the credential `{name}`"),
        KeySource::Command(argv) => format!("the output of `{}`", argv.first().map_or("", |a| a.as_str())),
    }
}

fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    secret_file::read(path).map_err(|e| {
        let path = path.to_owned();
        match e {
            SecretFileError::Missing => KeyError::FileMissing(path),
            SecretFileError::Unreadable { error, is_ours } => KeyError::FileUnreadable { path, error, is_ours },
            SecretFileError::OpenToOthers { mode, access, is_ours } => {
                KeyError::FileOpenToOthers { path, mode, access, is_ours }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_raw_in_hex_and_in_base64() {
        let raw = [0xab_u8; 32];
        let id = SealingKey::new(raw).id().to_owned();
        let texts = ["ab".repeat(32), format!("{}\n", "AB".repeat(32)), format!(" {}\n", STANDARD.encode(raw))];
        for form in texts.iter().map(String::as_bytes).chain([raw.as_slice()]) {
            assert_eq!(SealingKey::from_bytes(form).unwrap().id(), id);
        }
        for bad in [&b""[..], b"short", &[0; 31], &[0xff; 33], "zz".repeat(32).as_bytes()] {
            assert!(SealingKey::from_bytes(bad).is_none());
        }
    }

    #[test]
    fn fingerprints_tell_tokens_apart_and_differ_between_stores() {
        let token = |text| RefreshToken::new(text).unwrap();
        let (a, b) = (SealingKey::generate(), SealingKey::generate());
        assert_eq!(a.fingerprint(&token("x")), a.fingerprint(&token("x")));
        assert_ne!(a.fingerprint(&token("x")), a.fingerprint(&token("y")));
        assert_ne!(a.fingerprint(&token("x")), b.fingerprint(&token("x")));
        assert_eq!(a.fingerprint(&token("x")).as_str().len(), 32);
    }

    #[test]
    fn client_marks_differ_between_sealing_keys_of_one_store() {
        let [a, b] = [1, 2].map(|byte| SealingKey::new([byte; 32]).for_store("uuid"));
        assert_eq!(a.client_mark(b"settings"), a.client_mark(b"settings"));
        assert_ne!(a.client_mark(b"settings"), b.client_mark(b"settings"));
        assert_ne!(a.client_mark(b"settings"), a.client_mark(b"others"));
        assert_eq!(a.client_mark(b"settings").len(), 32);
    }

    #[test]
    fn encrypting_the_same_text_twice_gives_different_bytes() {
        let key = SealingKey::generate();
        assert_ne!(key.encrypt(b"x", b""), key.encrypt(b"x", b""));
        assert!(key.decrypt(&key.encrypt(b"x", b"a"), b"b").is_none());
        assert!(key.decrypt(b"short", b"").is_none());
    }

    #[cfg(unix)]
    #[test]
    fn key_file_open_to_others_is_refused_by_its_bits() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let source = KeySource::File(path.clone());
        let error = read_key(&source, None, "").unwrap_err();
        assert!(error.hint().starts_with("create one: (umask 077; set -C; head -c 32"), "{}", error.hint());
        std::fs::write(&path, [1; 32]).unwrap();
        for (mode, words) in [
            (0o640, "has mode 0640: its group may read"),
            (0o460, "has mode 0460: its group may read and write"),
            (0o602, "has mode 0602: others may write"),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_key(&source, None, "").unwrap_err();
            assert!(matches!(error, KeyError::FileOpenToOthers { is_ours: true, .. }), "{error}");
            assert!(error.to_string().ends_with(words), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_key(&source, None, "").is_ok());
    }
}
