//! Why the keyring could not serve, and what to do about it with the program that runs.

use std::fmt;

use crate::outcome::ErrorKind;

/// Why the keyring could not serve, told apart as far as the platform lets us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no session bus")]
    NoBus,
    #[error("no keyring service runs on the session bus")]
    NoService,
    #[error("the keyring has no default collection")]
    NoCollection,
    #[error("the keyring is locked")]
    Locked,
    /// It has the name of the service on the bus, and is silent.
    #[error("the keyring did not respond in time")]
    TimedOut,
    #[error("the keyring denied access")]
    Denied,
    #[error("KWallet asks a person on the screen before it gives access to the wallet")]
    AsksPerson,
    #[error("the keyring failed: {0}")]
    Failed(String),
    /// One of the above, of a program that is known: each has its own remedy.
    #[error("{error}")]
    OfProgram { program: KeyringProgram, error: Box<KeyringError> },
}

/// A program that offers the Secret Service, told by another name that it has on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringProgram {
    GnomeKeyring,
    KWallet,
    KeePassXc,
}

/// The store that needs no keyring, for every hint. A credential that is in the keyring store does not move by itself.
macro_rules! or_file_store {
    ($hint:literal) => {
        concat!(
            $hint,
            "; or set [store] kind = \"file\", where each profile has to sign in again: keepalive init --store file"
        )
    };
}

impl KeyringError {
    /// This error, as one of `program`.
    pub fn of_program(self, program: Option<KeyringProgram>) -> Self {
        match (self, program) {
            (error @ (Self::NoBus | Self::NoService | Self::OfProgram { .. }), _) | (error, None) => error,
            (error, Some(program)) => Self::OfProgram { program, error: Box::new(error) },
        }
    }

    /// The error itself, whatever program it is of.
    pub fn cause(&self) -> &Self {
        match self {
            Self::OfProgram { error, .. } => error,
            other => other,
        }
    }

    /// The word for programs.
    pub fn error_kind(&self) -> ErrorKind {
        match self {
            Self::NoBus => ErrorKind::KeyringNoBus,
            Self::NoService => ErrorKind::KeyringMissing,
            Self::NoCollection => ErrorKind::KeyringNoCollection,
            Self::Locked => ErrorKind::KeyringLocked,
            Self::TimedOut => ErrorKind::KeyringHanging,
            Self::Denied | Self::AsksPerson => ErrorKind::KeyringDenied,
            Self::Failed(_) => ErrorKind::KeyringFailed,
            Self::OfProgram { error, .. } => error.error_kind(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        if let Self::OfProgram { program, error } = self
            && let Some(hint) = program.hint(error)
        {
            return hint;
        }
        match self.cause() {
            Self::NoBus => or_file_store!("run inside the user's session, or set DBUS_SESSION_BUS_ADDRESS"),
            Self::NoService => or_file_store!("start a keyring (gnome-keyring, KWallet or KeePassXC)"),
            Self::NoCollection => or_file_store!("create a default keyring in the keyring's own program"),
            Self::Locked => or_file_store!("unlock it in the keyring's own program"),
            Self::TimedOut => or_file_store!("restart the keyring service"),
            Self::Denied => or_file_store!("allow keepalive to use the keyring"),
            Self::AsksPerson => or_file_store!(
                "answer its question with Allow Always if it is there, or turn it off in the settings of KDE Wallet \
                 (Prompt when an application accesses a wallet)"
            ),
            Self::Failed(_) | Self::OfProgram { .. } => or_file_store!("see the keyring's own log"),
        }
    }
}

impl fmt::Display for KeyringProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GnomeKeyring => "gnome-keyring",
            Self::KWallet => "KWallet",
            Self::KeePassXc => "KeePassXC",
        })
    }
}

impl KeyringProgram {
    /// Every program that is known, with a name that it alone has on the bus.
    pub const BUS_NAMES: &[(&str, Self)] = &[
        ("org.gnome.keyring", Self::GnomeKeyring),
        ("org.kde.kwalletd5", Self::KWallet),
        ("org.kde.kwalletd6", Self::KWallet),
        ("org.kde.kwalletd", Self::KWallet),
        ("org.keepassxc.KeePassXC.MainWindow", Self::KeePassXc),
    ];

    /// The remedy that this program has for an error.
    fn hint(self, error: &KeyringError) -> Option<&'static str> {
        Some(match (self, error) {
            (Self::GnomeKeyring, KeyringError::Locked) => or_file_store!(
                "unlock it by logging in to the desktop, or: \
                 printf %s PASSWORD | gnome-keyring-daemon --replace --unlock"
            ),
            (Self::GnomeKeyring, KeyringError::NoCollection) => or_file_store!(
                "create a default keyring: log in to the desktop once, or: \
                 printf %s PASSWORD | gnome-keyring-daemon --replace --unlock"
            ),
            (Self::KWallet, KeyringError::Locked) => or_file_store!(
                "open the wallet in KWalletManager, or log in to the desktop with the password of the wallet"
            ),
            (Self::KWallet, KeyringError::NoCollection) => {
                or_file_store!("create a wallet in KWalletManager, then restart kwalletd")
            }
            (Self::KeePassXc, KeyringError::Locked) => or_file_store!(
                "unlock the database in KeePassXC, and let clients read without confirmation \
                 (Settings, Secret Service Integration)"
            ),
            (Self::KeePassXc, KeyringError::NoCollection) => or_file_store!(
                "open a database in KeePassXC, and expose one of its groups \
                 (Database Settings, Secret Service Integration)"
            ),
            (Self::KWallet, KeyringError::Denied) => or_file_store!(
                "let the application KDE System use the wallet: in the access control of KWalletManager, or by taking it \
                 out of [Auto Deny] in kwalletrc"
            ),
            (Self::KeePassXc, KeyringError::Denied) => {
                or_file_store!("let clients of KeePassXC's Secret Service read, write and delete without confirmation")
            }
            (Self::GnomeKeyring, KeyringError::TimedOut) => or_file_store!("restart gnome-keyring-daemon"),
            (Self::KWallet, KeyringError::TimedOut) => {
                or_file_store!("restart kwalletd; a question of it may wait on the screen")
            }
            (Self::KeePassXc, KeyringError::TimedOut) => {
                or_file_store!("restart KeePassXC; a question of it may wait on the screen")
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_fits_the_keyring_program_that_runs() {
        for (program, word) in [
            (Some(KeyringProgram::GnomeKeyring), "| gnome-keyring-daemon --replace --unlock"),
            (Some(KeyringProgram::KWallet), "KWalletManager"),
            (Some(KeyringProgram::KeePassXc), "the database in KeePassXC"),
            (None, "own program"),
        ] {
            for error in [KeyringError::Locked, KeyringError::NoCollection] {
                let kind = error.error_kind();
                let error = error.of_program(program);
                assert_eq!(error.error_kind(), kind);
                let hint = error.hint();
                assert!(hint.contains("kind = \"file\", where each profile has to sign in again"), "{hint}");
                assert_eq!(hint.contains("gnome-keyring"), program == Some(KeyringProgram::GnomeKeyring), "{hint}");
                assert!(hint.contains(word) || *error.cause() == KeyringError::NoCollection, "{hint}");
            }
        }
    }

    #[test]
    fn every_hint_of_a_keyring_names_the_file_store() {
        let programs = [KeyringProgram::GnomeKeyring, KeyringProgram::KWallet, KeyringProgram::KeePassXc];
        for program in programs.map(Some).into_iter().chain([None]) {
            for error in [
                KeyringError::NoBus,
                KeyringError::NoService,
                KeyringError::NoCollection,
                KeyringError::Locked,
                KeyringError::TimedOut,
                KeyringError::Denied,
                KeyringError::AsksPerson,
                KeyringError::Failed("x".into()),
            ] {
                let hint = error.of_program(program).hint();
                assert!(hint.ends_with("keepalive init --store file"), "{hint}");
            }
        }
    }
}
