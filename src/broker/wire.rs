//! What the daemon and its clients have to agree on: the names of headers, the shapes of JSON, and whose daemon it is.

use std::path::Path;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::engine::access_token::TokenOutput;
use crate::outcome::{Failure, OutcomeKind};
use crate::profile::ProfileName;
use crate::sys::paths::Environment;

/// Changes when a client and a daemon of different versions would misunderstand each other.
pub(super) const PROTOCOL: &str = "2";
pub(super) const PROTOCOL_HEADER: &str = "keepalive-protocol";
/// The configuration file that the client would read, percent-encoded.
pub(super) const CONFIG_HEADER: &str = "keepalive-config";
/// The state directory that the client would use, percent-encoded.
pub(super) const STATE_HEADER: &str = "keepalive-state";

/// What stays as it is in a header with a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// What tells one daemon of a user from another: its configuration file and its state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonPlaces {
    pub socket: PathBuf,
    config: PathBuf,
    state_dir: PathBuf,
}

impl DaemonPlaces {
    pub fn of(environment: &Environment) -> Self {
        Self::new(&environment.socket, &environment.config, &environment.state_dir)
    }

    fn new(socket: &Path, config: &Path, state_dir: &Path) -> Self {
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { socket: socket.to_owned(), config: whole(config), state_dir: whole(state_dir) }
    }

    /// The headers by which a client says what it would use.
    pub(super) fn headers(&self) -> [(&'static str, String); 3] {
        let encoded = |path: &Path| percent_encode(path.as_os_str().as_encoded_bytes(), PLAIN).to_string();
        [
            (PROTOCOL_HEADER, PROTOCOL.to_owned()),
            (CONFIG_HEADER, encoded(&self.config)),
            (STATE_HEADER, encoded(&self.state_dir)),
        ]
    }

    /// Whether a client that sent this header can be served by this daemon.
    pub(super) fn agrees(&self, header: &str, value: &[u8]) -> bool {
        let is_at = |path: &Path| percent_decode(value).eq(path.as_os_str().as_encoded_bytes().iter().copied());
        match header {
            PROTOCOL_HEADER => value == PROTOCOL.as_bytes(),
            CONFIG_HEADER => is_at(&self.config),
            STATE_HEADER => is_at(&self.state_dir),
            _ => true,
        }
    }
}

/// A request for a token, as the command line makes it.
#[derive(Clone, Debug)]
pub struct BrokerRequest {
    pub profile: ProfileName,
    pub min_valid_ms: u64,
    pub timeout_ms: u64,
    /// With the ID token, too.
    pub id_token: bool,
    /// An API has rejected the token of this generation.
    pub rejected: Option<Generation>,
}

/// The response to it.
#[derive(Debug)]
pub struct BrokerResponse {
    pub outcome: OutcomeKind,
    pub token: Option<TokenOutput>,
    pub error: Option<Failure>,
    pub warnings: Vec<String>,
}

/// The JSON of a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TokenBody {
    pub profile: ProfileName,
    #[serde(flatten)]
    pub token: TokenOutput,
    /// Whole seconds, rounded down.
    pub expires_in: u64,
    pub outcome: OutcomeKind,
    pub warnings: Vec<String>,
}

/// The JSON of every failure: the entry of `refresh --json`. What is not known is null.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FailureBody {
    pub profile: Option<String>,
    pub outcome: Option<OutcomeKind>,
    pub generation: Option<Generation>,
    pub retry_at: Option<Timestamp>,
    pub error: Failure,
}

#[cfg(test)]
impl DaemonPlaces {
    pub(super) fn for_test(socket: &Path) -> Self {
        Self::new(socket, Path::new("/etc/ä b.toml"), Path::new("/var/lib/keepalive"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_with_other_places_is_not_served() {
        let ours = DaemonPlaces::for_test(Path::new("/run/s"));
        for (header, value) in ours.headers() {
            assert!(value.is_ascii() && ours.agrees(header, value.as_bytes()), "{header}: {value}");
        }
        assert!(ours.agrees(CONFIG_HEADER, "/etc/ä b.toml".as_bytes()), "a client may leave it as it is");
        assert!(ours.agrees("accept", b"*/*"));
        assert!(!ours.agrees(PROTOCOL_HEADER, b"1"));
        assert!(!ours.agrees(CONFIG_HEADER, b"/etc/b.toml"));
        assert!(!ours.agrees(STATE_HEADER, b""));
    }
}
