//! A valid configuration as values: a profile, its provider, and how each refresh is made. No I/O.

mod consumer_settings;
pub mod consumers;
mod hook_settings;
pub mod mirror;
pub mod mirror_value;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use consumer_settings::{ConsumerSettings, GitAuth, is_variable_name};
pub use hook_settings::{DesktopNotices, HookEvent, HookSettings};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::credential::expiry::LifetimeBounds;
use crate::credential::freshness::Margin;
use crate::outcome::Failure;
use crate::profile::mirror::Mirror;
use crate::schedule::Schedule;

/// A profile's name: 1 to 128 of letters, digits and `._:@+-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProfileName(Arc<str>);

/// Why a text is no profile name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProfileName {
    #[error("a profile name cannot be empty")]
    Empty,
    #[error("a profile name has at most 128 characters, not {0}")]
    TooLong(usize),
    #[error("a profile name is made of letters, digits and `._:@+-`, not {0:?}")]
    BadCharacter(char),
}

impl ProfileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = BadProfileName;

    fn from_str(text: &str) -> Result<Self, BadProfileName> {
        if text.is_empty() {
            return Err(BadProfileName::Empty);
        }
        let length = text.chars().count();
        if length > 128 {
            return Err(BadProfileName::TooLong(length));
        }
        let fits = |c: &char| c.is_ascii_alphanumeric() || "._:@+-".contains(*c);
        match text.chars().find(|c| !fits(c)) {
            Some(c) => Err(BadProfileName::BadCharacter(c)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for ProfileName {
    type Error = BadProfileName;

    fn try_from(text: String) -> Result<Self, BadProfileName> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> String {
        name.0.as_ref().into()
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One account at one provider, and when to refresh it.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: ProfileName,
    pub provider: Arc<Provider>,
    pub margin: Margin,
    /// Extra looks; `None`: the margin alone decides.
    pub schedule: Option<Schedule>,
    /// Another tool holds the same credential: its store is read before each refresh, and a newer one is adopted.
    pub follow: bool,
    /// How programs are given its access token.
    pub consumers: ConsumerSettings,
    /// What is kept up to date for other programs.
    pub mirrors: Vec<Mirror>,
    /// What is run when something happens to it.
    pub hooks: HookSettings,
}

/// Finds a profile by name in the current configuration.
pub type ProfileLookup = Arc<dyn Fn(&ProfileName) -> Result<Arc<Profile>, Failure> + Send + Sync>;

/// An authorization server, the client registered there, and how the server treats refresh tokens.
#[derive(Clone, Debug)]
pub struct Provider {
    pub name: String,
    /// Where metadata is discovered (RFC 8414) if `token_endpoint` is not given.
    pub issuer: Option<Url>,
    /// The issuer as it was written. A URL does not keep that, and `iss` is compared byte for byte (RFC 9207).
    pub issuer_name: Option<String>,
    pub authorization_endpoint: Option<Url>,
    pub token_endpoint: Option<Url>,
    pub device_authorization_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    /// The redirect registered for the client: on loopback with a port, on loopback without one (any free port will do),
    /// or elsewhere (only pasting works). `None`: `http://127.0.0.1/callback` with a free port, as RFC 8252 has it.
    pub redirect_uri: Option<Url>,
    pub client_id: String,
    pub client_auth: ClientAuth,
    pub client_secret: Option<SecretSource>,
    /// The private key of `private_key_jwt`, in PEM.
    pub client_key: Option<SecretSource>,
    /// The server's name for that key (`kid`).
    pub client_key_id: Option<String>,
    pub assertion_audience: Audience,
    pub scopes: Vec<String>,
    pub policy: Policy,
    /// Extra request headers, in the order given.
    pub headers: Vec<(String, String)>,
    /// Extra members of each request to the token endpoint, in the order given.
    pub parameters: Vec<(String, String)>,
    pub body: BodyEncoding,
    /// Error codes by which this server says that the refresh token is invalid, besides the general ones.
    pub dead_codes: Vec<String>,
    /// Error codes by which this server refuses the client, besides the general ones.
    pub client_codes: Vec<String>,
    /// Discovered endpoints must be https at this host or below it.
    pub endpoint_domain: Option<String>,
    /// PEM file of further roots to trust for this provider.
    pub ca_file: Option<PathBuf>,
    /// How programs are given an access token of this provider, unless the profile says otherwise.
    pub consumers: ConsumerSettings,
    /// The margin for profiles that name none.
    pub margin: Option<Margin>,
    /// Assumed lifetime of an access token whose expiry is not told.
    pub default_lifetime: Duration,
    /// No access token is believed to live longer.
    pub max_lifetime: Option<Duration>,
    /// How many flights one process may have at once to this provider.
    pub concurrency: usize,
    /// What an issuer looks like at a built-in provider where every customer has one; empty elsewhere.
    pub issuer_example: String,
    /// The page where a person registers a client; empty if it is not known.
    pub register: String,
    /// What is known of a built-in provider; empty for a user's own.
    pub known: String,
    /// Where the facts of a built-in provider come from; empty for a user's own.
    pub source: String,
    /// The day on which they were read at the vendor; `None`: third parties say so.
    pub verified: Option<String>,
}

/// Assumed if the lifetime is unknown. It is short, because a refresh too early costs less than one too late.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Flights at once to one provider from one process, unless a preset cites a reason for fewer.
const DEFAULT_CONCURRENCY: usize = 8;

impl Provider {
    /// A provider with only a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            issuer: None,
            issuer_name: None,
            authorization_endpoint: None,
            token_endpoint: None,
            device_authorization_endpoint: None,
            revocation_endpoint: None,
            redirect_uri: None,
            client_id: String::new(),
            client_auth: ClientAuth::None,
            client_secret: None,
            client_key: None,
            client_key_id: None,
            assertion_audience: Audience::Issuer,
            scopes: Vec::new(),
            policy: Policy::default(),
            headers: Vec::new(),
            parameters: Vec::new(),
            body: BodyEncoding::Form,
            dead_codes: Vec::new(),
            client_codes: Vec::new(),
            endpoint_domain: None,
            ca_file: None,
            consumers: ConsumerSettings::default(),
            margin: None,
            default_lifetime: DEFAULT_LIFETIME,
            max_lifetime: None,
            concurrency: DEFAULT_CONCURRENCY,
            issuer_example: String::new(),
            register: String::new(),
            known: String::new(),
            source: String::new(),
            verified: None,
        }
    }

    pub fn lifetime_bounds(&self) -> LifetimeBounds {
        LifetimeBounds { default: self.default_lifetime, max: self.max_lifetime }
    }
}

/// How the token endpoint treats refresh tokens, and how long to wait for it: the provider's column of the decision
/// table in the refresh protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub rotation: Rotation,
    /// For `Rotation::Grace`: how long the server accepts the token before the current one.
    pub reuse_grace: Duration,
    pub grace_semantics: GraceSemantics,
    /// Whether one more send may be made just before the access token expires, while an attempt is in doubt.
    pub last_chance: bool,
    /// Whether a 503 certainly means "not processed".
    pub trust_503: bool,
    /// The longest time for which the server may still process a request that was abandoned (Q).
    pub settle: Duration,
    /// Bound on one exchange, from the first byte sent to the last received.
    pub timeout: Duration,
    /// Bound on name lookup, TCP and TLS together.
    pub connect_timeout: Duration,
}

/// The time that is taken off a server's deadline for the way of the request.
pub const GRACE_SAFETY_MARGIN: Duration = Duration::from_secs(2);

impl Policy {
    /// Whether a refresh uses the refresh token up, so that two holders of it sign each other out.
    pub fn rotates(&self) -> bool {
        self.rotation != Rotation::None
    }

    /// The grace that two attempts need (rule 19). A server that gives less is treated as strict.
    pub fn required_grace(&self) -> Duration {
        let pause = match self.grace_semantics {
            GraceSemantics::Same | GraceSemantics::Multi => Duration::ZERO,
            GraceSemantics::Latest => self.settle,
        };
        self.timeout * 2 + pause + GRACE_SAFETY_MARGIN
    }

    pub fn grace_fits(&self) -> bool {
        self.required_grace() <= self.reuse_grace
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rotation: Rotation::Strict,
            reuse_grace: Duration::ZERO,
            grace_semantics: GraceSemantics::Latest,
            last_chance: true,
            trust_503: false,
            settle: Duration::from_secs(15),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// How the server treats a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// Rotates; a second use of an old token revokes the family. The default for every unknown server.
    Strict,
    /// As strict, but the token before the current one is accepted for `reuse_grace`.
    Grace,
    /// Rotates, without revoking the family on reuse.
    Lenient,
    /// Does not rotate, or keeps old tokens alive.
    None,
}

/// What a second use inside the grace window returns; `Latest` also stands for "unknown".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraceSemantics {
    /// The successor that was issued before.
    Same,
    /// Another live token each time.
    Multi,
    /// A new token; the earlier successor dies.
    Latest,
}

/// How the client authenticates at the token endpoint (RFC 6749 §2.3, RFC 7523).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    None,
    ClientSecretBasic,
    /// As `ClientSecretBasic`, for servers that compare id and secret without decoding them.
    ClientSecretBasicRaw,
    ClientSecretPost,
    PrivateKeyJwt,
}

/// The audience of a client assertion (RFC 7523 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// The issuer if it is known, else the token endpoint.
    Issuer,
    TokenEndpoint,
    #[serde(untagged)]
    Other(String),
}

/// How the token request is encoded; RFC 6749 says form, some providers want JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyEncoding {
    Form,
    Json,
}

/// Where a client secret is read from, each time it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
    Command(Vec<String>),
    Keyring(String),
    /// The client is registered with an empty secret.
    Empty,
}

/// Where the sealed store's key comes from under `kind = "file"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A systemd credential of that name, in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    File(PathBuf),
    Command(Vec<String>),
}

/// The `[store]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    pub kind: StoreKind,
    /// Where the sealed files lie; `None`: the state directory.
    pub path: Option<PathBuf>,
    pub allow_network_filesystem: bool,
}

/// Where a credential is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The sealing key and the keyring item are in the OS keyring, under this service name.
    Keyring { service: String },
    /// There are only sealed files.
    File { key: KeySource },
}
