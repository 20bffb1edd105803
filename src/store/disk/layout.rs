//! The paths of all files of a store. Names only, no I/O.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::credential::secret::Fingerprint;
use crate::profile::ProfileName;

/// The files of one store directory.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

/// The files of one profile.
#[derive(Clone, Debug)]
pub struct ProfileFolder {
    dir: PathBuf,
}

impl Layout {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's identity.
    pub fn identity(&self) -> PathBuf {
        self.dir.join("store.json")
    }

    /// Held while the identity or the key is created; taken before any profile lock.
    pub fn store_lock(&self) -> PathBuf {
        self.dir.join("store.lock")
    }

    /// Held by the one daemon.
    pub fn daemon_lock(&self) -> PathBuf {
        self.dir.join("daemon.lock")
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    pub fn ledger_lock(&self) -> PathBuf {
        self.dir.join("ledger.lock")
    }

    /// The handles that were made, by their hashes.
    pub fn handles(&self) -> PathBuf {
        self.dir.join("handles.json")
    }

    /// How the daemon's TCP listener stands, for those who look at the store.
    pub fn listener(&self) -> PathBuf {
        self.dir.join("listener.json")
    }

    /// When one-shot runs over all profiles were made.
    pub fn runs(&self) -> PathBuf {
        self.dir.join("runs.json")
    }

    /// Discovered metadata of providers.
    pub fn metadata(&self) -> PathBuf {
        self.dir.join("metadata")
    }

    pub fn profiles(&self) -> PathBuf {
        self.dir.join("profiles")
    }

    /// What is kept of the hooks of a profile.
    pub fn hook_file(&self, name: &ProfileName, ending: &str) -> PathBuf {
        self.dir.join("hooks").join(format!("{}.{ending}", folder_name(name)))
    }

    pub fn token_locks(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    /// The lock file of a token: two profiles that hold the same token meet here.
    pub fn token_lock(&self, token: &Fingerprint) -> PathBuf {
        self.token_locks().join(token.as_str())
    }

    pub fn profile_folder(&self, name: &ProfileName) -> ProfileFolder {
        ProfileFolder { dir: self.profiles().join(folder_name(name)) }
    }
}

impl ProfileFolder {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The journal of a profile, which has no secrets.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("record.json")
    }

    /// The sealed credential: the newest generation, encrypted. It is the commit point.
    pub fn sealed(&self) -> PathBuf {
        self.dir.join("sealed")
    }

    /// The received response, sealed before anything has read it.
    pub fn received(&self) -> PathBuf {
        self.dir.join("received")
    }
}

/// A file name for a profile, the same on every filesystem: what a case-insensitive or a Windows one would confuse is
/// percent-encoded, and a name too long for a file system ends in a hash.
fn folder_name(name: &ProfileName) -> String {
    let mut encoded = String::new();
    for (i, c) in name.as_str().chars().enumerate() {
        let is_plain = c.is_ascii_lowercase() || c.is_ascii_digit() || "_@+-".contains(c) || (c == '.' && i > 0);
        if is_plain {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{:02x}", u32::from(c)));
        }
    }
    if encoded.len() > 200 {
        let hash: [u8; 32] = Sha256::digest(name.as_str().as_bytes()).into();
        encoded.truncate(160);
        encoded.push_str("%%");
        encoded.push_str(&hex::encode(&hash[..16]));
    }
    encoded
}

/// The profile whose folder has this name; `None` when the name is cut, or is none of ours.
pub fn profile_name(folder: &str) -> Option<ProfileName> {
    let mut decoded = String::new();
    let mut rest = folder.chars();
    while let Some(c) = rest.next() {
        if c == '%' {
            let digits: String = rest.by_ref().take(2).collect();
            decoded.push(char::from(u8::from_str_radix(&digits, 16).ok()?));
        } else {
            decoded.push(c);
        }
    }
    let name: ProfileName = decoded.parse().ok()?;
    (folder_name(&name) == folder).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_name_gives_its_profile_unless_it_was_shortened() {
        for name in ["work-mail", "xai:default", "Xai", "..", "a@b.example"] {
            assert_eq!(profile_name(&encoded(name)), Some(name.parse().unwrap()));
        }
        assert_eq!(profile_name(&encoded(&"A".repeat(128))), None);
        for foreign in ["Xai", "a%", "a%zz", "%61", ".x", ""] {
            assert_eq!(profile_name(foreign), None, "{foreign}");
        }
    }

    fn encoded(text: &str) -> String {
        folder_name(&text.parse().unwrap())
    }

    #[test]
    fn profile_file_names_are_distinct_and_safe() {
        assert_eq!(encoded("work-mail"), "work-mail");
        assert_eq!(encoded("xai:default"), "xai%3adefault");
        assert_eq!(encoded("Xai"), "%58ai");
        assert_eq!(encoded(".."), "%2e.");
        let (a, b) = ("A".repeat(128), format!("{}B", "A".repeat(127)));
        assert_ne!(encoded(&a), encoded(&b));
        assert!(encoded(&a).len() < 250);
    }
}
