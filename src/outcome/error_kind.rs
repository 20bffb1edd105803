//! The kinds of errors: the word that programs read, the exit status that goes with it, and what the manual says of it.
//!
//! This table is the only place that has them. The manual's section ERRORS is rendered from it ([`ErrorKind::manual`]), and
//! the JSON and the journal carry the word.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where the manual lists a kind, and the exit status that a command ends with for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManualSection {
    TryAgain,
    SignIn,
    Configuration,
    Store,
    Login,
    Logout,
    Other,
    CommandLine,
    Doctor,
}

impl ManualSection {
    /// In the order of the manual.
    pub const ALL: [Self; 9] = [
        Self::TryAgain,
        Self::SignIn,
        Self::Configuration,
        Self::Store,
        Self::Login,
        Self::Logout,
        Self::Other,
        Self::CommandLine,
        Self::Doctor,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::TryAgain => "Temporary failures (75)",
            Self::SignIn => "Sign in again (77)",
            Self::Configuration => "The configuration, or the identity of this store (78)",
            Self::Store => "The store (69)",
            Self::Login => "A login (1)",
            Self::Logout => "A logout (75)",
            Self::Other => "Other errors (1)",
            Self::CommandLine => "The command line (2)",
            Self::Doctor => "Findings of keepalive doctor (1)",
        }
    }

    pub fn exit_status(self) -> u8 {
        match self {
            Self::TryAgain | Self::Logout => 75,
            Self::SignIn => 77,
            Self::Configuration => 78,
            Self::Store => 69,
            Self::Login | Self::Other | Self::Doctor => 1,
            Self::CommandLine => 2,
        }
    }
}

macro_rules! error_kinds {
    ($($variant:ident, $word:literal, $section:ident, $text:literal;)*) => {
        /// What went wrong, for programs. keepalive(1) lists the kinds, and programs may rely on their words.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum ErrorKind {
            $(#[doc = $text] $variant,)*
            /// The error code of the provider, such as `invalid_grant` (RFC 6749 §5.2). Made by [`ErrorKind::of_provider`].
            Provider(String),
        }

        impl ErrorKind {
            /// All kinds but the provider's, in the order of the manual within each section.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in the JSON and in the journal.
            pub fn word(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Provider(code) => code,
                }
            }

            /// Where the manual lists it. A provider's code ends in 77 or in 78 as the code means; its outcome says which.
            pub fn section(&self) -> ManualSection {
                match self {
                    $(Self::$variant => ManualSection::$section,)*
                    Self::Provider(_) => ManualSection::SignIn,
                }
            }

            /// What the manual says of it. Words between backticks are commands, keys or files.
            pub fn text(&self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Provider(_) => "The provider's own error code.",
                }
            }

            fn of_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

impl ErrorKind {
    /// Whether it says that the sealing key could not be had.
    pub fn is_about_key(&self) -> bool {
        matches!(
            self,
            Self::KeyringNoBus
                | Self::KeyringMissing
                | Self::KeyringNoCollection
                | Self::KeyringLocked
                | Self::KeyringHanging
                | Self::KeyringDenied
                | Self::KeyringFailed
                | Self::KeyMissing
                | Self::KeyDamaged
                | Self::Key
        )
    }
}

error_kinds! {
    InDoubt, "in_doubt", TryAgain, "A request was sent, and no usable response arrived: the refresh token may have been consumed.";
    Network, "network", TryAgain, "The provider could not be reached; nothing was sent.";
    Throttled, "throttled", TryAgain, "The provider rejected the request for now (as with HTTP status 429); the refresh token is unaffected.";
    Refused, "refused", TryAgain, "The provider rejected the request for a reason that keepalive does not know, or names a condition that may pass. See `dead_codes` in keepalive.toml(5).";
    NotBefore, "not_before", TryAgain, "No request is made before `retry_at`.";
    Busy, "busy", TryAgain, "Another process or flight is at work, or no thread could be started, and this command no longer waits. The message says which process has the lock.";
    Runtime, "runtime", TryAgain, "The network runtime could not start: there is no thread or no open file to be had.";
    Interrupted, "interrupted", TryAgain, "The refresh was cancelled before anything was sent.";
    Discovery, "discovery", TryAgain, "The provider's endpoints could not be discovered (RFC 8414).";
    Source, "source", TryAgain, "The store of the tool that a profile follows cannot be read, so it is unknown whether that tool has used the refresh token. If an import cannot use the store of a tool, the exit status is 1.";
    ToolFirst, "tool_first", TryAgain, "The tool that a profile follows has the same refresh token, at a provider that rotates: the tool refreshes it, and keepalive adopts the result. See `follow` in keepalive.toml(5). Or the file of a program that the profile feeds has it still, and `keepalive feed` takes it out.";
    Expired, "expired", TryAgain, "The access token has expired and was not refreshed.";
    NoToken, "no_token", TryAgain, "There is no valid access token.";
    NoDaemon, "no_daemon", TryAgain, "No daemon runs for this configuration and state directory, and a program that uses the library asked for nothing else. No command says so.";
    Server, "server", TryAgain, "The provider's response to a login has neither a token nor an error code.";
    NoCredential, "no_credential", SignIn, "Nothing is stored for the profile.";
    UnknownProfile, "unknown_profile", SignIn, "The daemon knows no such profile. Only its socket says so; a command says no_credential.";
    Unauthorized, "unauthorized", SignIn, "The handle that a program showed to the daemon is missing, mistyped, expired or revoked. Only the daemon says so.";
    Forbidden, "forbidden", SignIn, "The handle, or the place that a request came from, is not for what was asked. Only the daemon says so.";
    Consumed, "consumed", SignIn, "The refresh token has been used or rejected before. For an import the exit status is 1. One that was only rejected is sent once more by `refresh --force` or `import --replace`, at most once a minute.";
    Lost, "lost", SignIn, "The sealed credential is missing.";
    PresumedSpent, "presumed_spent", SignIn, "The refresh token was sent for the last time, and no usable response arrived.";
    PresumedDead, "presumed_dead", SignIn, "The refresh token was rejected five times in a row without a reason, and the access token has expired.";
    LoginEnded, "login_ended", SignIn, "The refresh token has come to the end that the server told of it, and no refresh moved that end. The access token still lives; sign in before it ends.";
    ClientRefused, "client_refused", Configuration, "The provider rejects the client, not the refresh token.";
    NoRefreshToken, "no_refresh_token", Configuration, "The provider's response to a login has no refresh token.";
    AtUnusable, "at_unusable", Configuration, "The provider sent a refresh token, which is stored, but no usable access token.";
    Config, "config", Configuration, "The configuration file is invalid; the message says where.";
    ClientSecret, "client_secret", Configuration, "The client secret cannot be read.";
    ClientKey, "client_key", Configuration, "The client's private key cannot be read, or cannot be used to sign.";
    CaFile, "ca_file", Configuration, "The certificates of `ca_file` cannot be read.";
    Key, "key", Configuration, "The sealing key of the file store cannot be read.";
    Tls, "tls", Configuration, "TLS cannot be set up.";
    OtherServer, "other_server", Configuration, "The credential was issued by another server, or to another client, than the configuration has.";
    StaleCredential, "stale_credential", Configuration, "An older copy of the credential was restored; its refresh token has been consumed.";
    Conflict, "conflict", Configuration, "The stored credential is not older, or belongs to another account, server or client; or another profile has the same refresh token. For an import the exit status is 1.";
    Follow, "follow", Configuration, "The profile has `follow = true`, but its credential was not imported from another tool, or from one that does not refresh its tokens, at a provider that rotates.";
    Machine, "machine", Configuration, "The store was created on another machine, or in a container; see `keepalive doctor --take-over`.";
    Clone, "clone", Configuration, "The state directory is a copy of another one, or was restored from a backup, or a copy of it was taken over; see `keepalive doctor --take-over`.";
    DomainMismatch, "domain_mismatch", Configuration, "The keyring item belongs to another state directory; see `keepalive doctor --take-over`.";
    NetworkFilesystem, "network_filesystem", Configuration, "The store is on a network filesystem, where locks may not exclude other machines.";
    NestedCall, "nested_call", Configuration, "Recursive call: a command that keepalive runs for a profile asked for that same profile.";
    JournalMissing, "journal_missing", Store, "A sealed credential has no journal, so it is unknown whether its refresh token was sent; the next refresh checks.";
    Unsealed, "unsealed", Store, "The sealed credential is missing or damaged; the next refresh restores it from the keyring item if it can.";
    KeyringNoBus, "keyring_no_bus", Store, "There is no session bus.";
    KeyringMissing, "keyring_missing", Store, "There is no keyring service on the session bus.";
    KeyringNoCollection, "keyring_no_collection", Store, "The keyring service has no default keyring.";
    KeyringLocked, "keyring_locked", Store, "The keyring is locked.";
    KeyringHanging, "keyring_hanging", Store, "The keyring does not respond.";
    KeyringDenied, "keyring_denied", Store, "The keyring denies access.";
    KeyringFailed, "keyring_failed", Store, "The keyring failed in another way.";
    KeyMissing, "key_missing", Store, "The sealing key is not in the keyring.";
    KeyDamaged, "key_damaged", Store, "The sealing key in the keyring cannot be read.";
    IdentityLost, "identity_lost", Store, "The file `store.json` is missing and no journal has its content, so it is unknown which tokens are consumed.";
    LedgerDamaged, "ledger_damaged", Store, "The ledger lacks a consumed token that a journal records. Refreshes continue; new tokens are accepted only through a login.";
    Damaged, "damaged", Store, "A file of the store cannot be understood or decrypted.";
    Io, "io", Store, "A file of the store cannot be read or written.";
    Lock, "lock", Store, "A file of the store cannot be locked.";
    LaterVersion, "later_version", Store, "A file of the store was written by a later version of keepalive, and is not touched. Use that version, or a newer one.";
    HalfTaken, "half_taken", Store, "The credential of an import or a login is stored and will be used, but some bookkeeping failed. Do not use it elsewhere; the hint shows how to finish.";
    Timeout, "timeout", Login, "The login was not completed in time.";
    ExpiredToken, "expired_token", Login, "The device code expired before the login was completed (RFC 8628).";
    Port, "port", Login, "The port of the redirect is in use.";
    RedirectUri, "redirect_uri", Login, "keepalive cannot listen at the configured redirect URI.";
    State, "state", Login, "The redirect belongs to another login.";
    Issuer, "issuer", Login, "The redirect comes from another server (RFC 9207).";
    Redirect, "redirect", Login, "The redirect cannot be read.";
    Random, "random", Login, "The system has no random numbers.";
    Revoked, "revoked", Logout, "A logout revoked the refresh token, or found it revoked.";
    RevocationInDoubt, "revocation_in_doubt", Logout, "A logout asked the provider to revoke the refresh token, and no response was recorded.";
    NoRevocationEndpoint, "no_revocation_endpoint", Logout, "The provider has no revocation endpoint (RFC 7009); the credential was only deleted here.";
    RevocationRefused, "revocation_refused", Logout, "The provider does not revoke such tokens; the credential was only deleted here.";
    Unknown, "unknown", Logout, "The reason is unknown.";
    Mirror, "mirror", TryAgain, "A mirror was not written: its file was changed by another program, or cannot be written. The refresh itself is not affected.";
    Hook, "hook", Other, "A hook failed. What it was run for is not affected, and neither is an exit status.";
    Input, "input", Other, "The input of an import, or what was pasted into a login, cannot be read or is not what is needed.";
    Declined, "declined", Other, "A question was answered with no; nothing was changed.";
    Service, "service", Other, "The service cannot be installed, removed or examined; the message says why.";
    Output, "output", Other, "Standard output could not be written, for example on a full disk. Everything that was refreshed or stored is safe.";
    Running, "running", Other, "A daemon is already running on this store.";
    Socket, "socket", Other, "The daemon cannot listen on its socket.";
    Signals, "signals", Other, "Signal handlers cannot be installed.";
    Broken, "broken", Other, "Internal error; refreshes in progress were completed. Restart the daemon and report the error.";
    Json, "json", Other, "The result cannot be written as JSON.";
    Format, "format", Other, "The token cannot be given in the form that was asked for, or there is none of that kind.";
    Exec, "exec", Other, "The command of `keepalive exec` cannot be run: not found (127), or not executable (126).";
    Rehearsal, "rehearsal", Other, "The rehearsal found a fault on this machine.";
    Usage, "usage", CommandLine, "The command line is invalid; the message says why.";
    Clock, "clock", Doctor, "The clock is wrong.";
    Permissions, "permissions", Doctor, "Other users can access the store's directory.";
    Unproven, "unproven", Doctor, "The keyring item is newer than the sealed credential and cannot be verified.";
    Store, "store", Doctor, "The store failed for an unknown reason.";
}

impl ErrorKind {
    /// The kind of an error that the provider named. A code that is one of our own words gets a prefix, so that no server
    /// can speak for keepalive.
    pub fn of_provider(code: &str) -> Self {
        match Self::of_word(code) {
            // RFC 8628 §3.5 defines it, and it means what we say with it.
            Some(Self::ExpiredToken) => Self::ExpiredToken,
            Some(_) => Self::Provider(format!("provider_{code}")),
            None => Self::Provider(code.to_owned()),
        }
    }

    /// The exit status that goes with it where the command does not know better.
    pub fn exit_status(&self) -> u8 {
        self.section().exit_status()
    }

    /// The manual's section ERRORS, as roff.
    pub fn manual() -> String {
        let mut page = String::new();
        for section in ManualSection::ALL {
            page.push_str(&format!(".SS {}\n", section.title()));
            for kind in Self::ALL.iter().filter(|kind| kind.section() == section) {
                page.push_str(&format!(".TP\n.B {}\n{}\n", kind.word(), roff(kind.text())));
            }
        }
        page
    }
}

/// Escapes hyphens, and makes bold what stands between backticks.
fn roff(text: &str) -> String {
    let is_bold = |index: usize| index % 2 == 1;
    let part = |(index, part): (usize, &str)| match is_bold(index) {
        true => format!("\\fB{}\\fR", part.replace('-', "\\-")),
        false => part.to_owned(),
    };
    text.split('`').enumerate().map(part).collect()
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::of_word(&word).unwrap_or(Self::Provider(word)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn error_kinds_survive_the_journal() {
        let all = ErrorKind::ALL.iter().cloned().chain([ErrorKind::of_provider("invalid_grant")]);
        for kind in all {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<ErrorKind>(&text).unwrap(), kind);
        }
    }

    #[test]
    fn error_kinds_have_one_word_each() {
        let words: BTreeSet<&str> = ErrorKind::ALL.iter().map(ErrorKind::word).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn a_provider_cannot_speak_in_the_words_of_keepalive() {
        for kind in ErrorKind::ALL.iter().filter(|kind| **kind != ErrorKind::ExpiredToken) {
            let provider_kind = ErrorKind::of_provider(kind.word());
            assert_ne!(provider_kind, *kind);
            let read: ErrorKind = serde_json::from_str(&serde_json::to_string(&provider_kind).unwrap()).unwrap();
            assert_eq!(read, provider_kind);
        }
    }

    #[test]
    fn the_manual_lists_every_error_kind_once() {
        let page = ErrorKind::manual();
        for kind in ErrorKind::ALL {
            assert_eq!(page.matches(&format!(".B {}\n", kind.word())).count(), 1, "{kind}");
        }
    }
}
