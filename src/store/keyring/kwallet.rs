//! KWallet, which calls an open wallet locked until a client has asked for it, and which may ask a person then.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zbus::zvariant::OwnedObjectPath;

/// KWallet's own names and paths on the bus.
pub(super) const BUS_NAMES: &[(&str, &str)] =
    &[("org.kde.kwalletd5", "/modules/kwalletd5"), ("org.kde.kwalletd6", "/modules/kwalletd6")];

/// The name that KWallet gives to every client of its Secret Service.
const CLIENT_NAME: &str = "KDE System";

/// Why KWallet gives no access to a wallet that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalletRefusal {
    /// It asks a person, who has not answered yet.
    Asks,
    Denied,
}

/// The wallets to which KWallet gave no access, each with the connection of the KWallet that was asked. A run asks each
/// KWallet for one answer of a person at most, and each wallet once.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedWallets(Arc<Mutex<Vec<RefusedWallet>>>);

#[derive(Debug)]
struct RefusedWallet {
    owner: String,
    wallet: OwnedObjectPath,
    refusal: WalletRefusal,
}

impl RefusedWallets {
    /// Why this wallet is not asked for again, if it is not.
    pub(super) fn check(&self, owner: &str, wallet: &OwnedObjectPath) -> Result<(), WalletRefusal> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_of_it =
            |r: &&RefusedWallet| r.owner == owner && (r.refusal == WalletRefusal::Asks || r.wallet == *wallet);
        refused.iter().find(is_of_it).map_or(Ok(()), |refused| Err(refused.refusal))
    }

    pub(super) fn add(&self, owner: String, wallet: OwnedObjectPath, refusal: WalletRefusal) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(RefusedWallet { owner, wallet, refusal });
    }
}

/// Whether KWallet would ask a person before it lets a client of its Secret Service use this wallet, by its settings. The
/// last of the files counts.
pub(super) fn asks_a_person(settings: &[PathBuf], wallet: &str) -> bool {
    let (mut asks, mut is_allowed) = (false, false);
    for text in settings.iter().filter_map(|path: &PathBuf| read(path)) {
        if let Some(value) = value_of(&text, "Wallet", "Prompt on Open") {
            asks = ["true", "on", "yes", "1"].contains(&value.to_ascii_lowercase().as_str());
        }
        if let Some(value) = value_of(&text, "Auto Allow", wallet) {
            is_allowed = value.split(',').any(|name| name.trim() == CLIENT_NAME);
        }
    }
    asks && !is_allowed
}

fn read(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A value in a file of KDE's settings. Marks after a key, as in `Key[$i]=value`, do not count.
fn value_of<'t>(text: &'t str, group: &str, key: &str) -> Option<&'t str> {
    let mut current = "";
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = name;
        } else if current == group
            && let Some((name, value)) = line.split_once('=')
            && name.split('[').next().is_some_and(|name| name.trim() == key)
        {
            found = Some(value.trim());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_of_kwallet_is_known_from_its_settings() {
        let dir = tempfile::tempdir().unwrap();
        let asks = |texts: &[&str]| {
            let write = |(i, text): (usize, &&str)| {
                let path = dir.path().join(i.to_string());
                std::fs::write(&path, text).unwrap();
                path
            };
            let files: Vec<PathBuf> = texts.iter().enumerate().map(write).collect();
            asks_a_person(&files, "kdewallet")
        };
        let on = "[Wallet]\nFirst Use=false\nPrompt on Open=true\n";
        assert!(asks(&[on]));
        assert!(asks(&["[Wallet]\nPrompt on Open[$i]=yes\n[Auto Allow]\nother=KDE System\n"]));
        assert!(asks(&[on, "[Auto Allow]\nkdewallet=KMail,Kopete\n"]));
        assert!(!asks(&[]));
        assert!(!asks(&["[Wallet]\nEnabled=true\n[Other]\nPrompt on Open=true\n"]));
        assert!(!asks(&[on, "[Wallet]\nPrompt on Open=false\n"]));
        assert!(!asks(&[on, "[Auto Allow]\nkdewallet=KMail,KDE System\n"]));
        assert!(!asks_a_person(&[dir.path().join("none")], "kdewallet"));
    }
}
