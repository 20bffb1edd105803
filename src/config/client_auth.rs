//! `client_auth` and its keys: how the client authenticates at a provider.

use crate::config::error::{ConfigError, Diagnostic, MissingKey, ValueError, quoted};
use crate::config::keys;
use crate::config::section::{Entry, Section};
use crate::config::values;
use crate::profile::{Audience, ClientAuth, Provider, SecretSource};

pub(super) const CLIENT_AUTHS: &[(&str, ClientAuth)] = &[
    ("none", ClientAuth::None),
    ("client_secret_basic", ClientAuth::ClientSecretBasic),
    ("client_secret_basic_raw", ClientAuth::ClientSecretBasicRaw),
    ("client_secret_post", ClientAuth::ClientSecretPost),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt),
];

/// Where the client secret is kept. The empty one, which some servers give to installed apps, is no secret and is written
/// as it is.
pub(super) fn client_secret(entry: &Entry<'_>) -> Result<SecretSource, ConfigError> {
    if entry.text().is_ok_and(str::is_empty) { Ok(SecretSource::Empty) } else { secret_source(entry) }
}

/// Where a secret or a private key is kept.
pub(super) fn secret_source(entry: &Entry<'_>) -> Result<SecretSource, ConfigError> {
    if entry.text().is_ok() {
        let hint = format!("put it in a separate file: {} = {{ file = \"PATH\" }}", entry.key);
        return Err(entry.value_error(ValueError::new("cannot be written in the configuration itself").hint(hint)));
    }
    let section = entry.section()?;
    let source = section.single_entry(keys::SECRET)?;
    match source.key {
        "env" => source.parse(|text| values::external_name(text, "=")).map(SecretSource::Env),
        "keyring" => source.parse(|text| values::external_name(text, "")).map(SecretSource::Keyring),
        "command" => source.command().map(SecretSource::Command),
        _ => {
            let path = |text: &str| values::path(text, section.document.path, section.document.home);
            source.parse(path).map(SecretSource::File)
        }
    }
}

/// The audience of an assertion: a word, or a URI as the server calls itself.
pub(super) fn audience(text: &str) -> Result<Audience, ValueError> {
    match text {
        "issuer" => Ok(Audience::Issuer),
        "token_endpoint" => Ok(Audience::TokenEndpoint),
        uri if uri.contains(':') => values::visible_ascii(uri).map(Audience::Other),
        _ => Err(ValueError::new(format!("must be \"issuer\", \"token_endpoint\" or a URI, not {}", quoted(text)))),
    }
}

/// What to write besides `client_id`, if `client_auth` needs a secret that is not there.
pub(super) fn missing_secret(provider: &Provider) -> Option<&'static str> {
    match provider.client_auth {
        ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretBasicRaw | ClientAuth::ClientSecretPost
            if provider.client_secret.is_none() =>
        {
            Some(" and client_secret = { file = \"PATH\" }")
        }
        ClientAuth::PrivateKeyJwt if provider.client_key.is_none() => Some(" and client_key = { file = \"PATH\" }"),
        _ => None,
    }
}

/// Keys that conflict with `client_auth`.
pub(super) fn conflicting_keys(provider: &Provider) -> Vec<MissingKey> {
    let mut found = Vec::new();
    let auth = provider.client_auth;
    let name = CLIENT_AUTHS.iter().find(|(_, value)| *value == auth).map_or("", |(name, _)| name);
    let wants_secret =
        matches!(auth, ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretBasicRaw | ClientAuth::ClientSecretPost);
    let wants_key = auth == ClientAuth::PrivateKeyJwt;
    if provider.client_secret.is_some() && !wants_secret {
        let message = format!("client_secret is set, but client_auth = {name:?} does not use it");
        let hint = match wants_key {
            true => "write client_key for the private key, and remove client_secret",
            false => "write client_auth = \"client_secret_basic\" or \"client_secret_post\", or remove client_secret",
        };
        found.push(MissingKey::new(&["client_auth", "client_secret"], "client_secret", message, hint));
    }
    if provider.client_key.is_some() && !wants_key {
        let message = format!("client_key is set, but client_auth = {name:?} does not use it");
        let hint = "write client_auth = \"private_key_jwt\", or remove client_key";
        found.push(MissingKey::new(&["client_auth", "client_key"], "client_key", message, hint));
    }
    if auth == ClientAuth::ClientSecretBasicRaw && provider.client_id.contains(':') {
        let message = "client_id has a colon, which ends the user name in Basic credentials (RFC 7617)";
        let hint = "write client_auth = \"client_secret_basic\", which encodes it";
        found.push(MissingKey::new(&["client_auth", "client_id"], "client_id", message, hint));
    }
    found
}

/// The key that `client_auth` needs and lacks. With a secret or key of the other kind, that one is the mistake.
pub(super) fn missing_key(provider: &Provider) -> Option<MissingKey> {
    if provider.client_secret.is_some() || provider.client_key.is_some() {
        return None;
    }
    missing_secret(provider)?;
    let (about, message, hint): (&[&str], _, _) = match provider.client_auth {
        ClientAuth::PrivateKeyJwt => (
            &["client_auth", "client_key"],
            "client_key is missing: client_auth = \"private_key_jwt\" requires it",
            "write client_key = { file = \"PATH\" }, a private key in PEM",
        ),
        _ => (
            &["client_auth", "client_secret"],
            "client_secret is missing: client_auth requires it",
            "write client_secret = { file = \"PATH\" }, { env = \"NAME\" }, { command = [...] } or { keyring = \"NAME\" }",
        ),
    };
    Some(MissingKey::new(about, "client_auth", message, hint))
}

/// Warns of keys about assertions where none is made.
pub(super) fn warn_of_unused_keys(section: &Section<'_>, auth: ClientAuth, warnings: &mut Vec<Diagnostic>) {
    if auth == ClientAuth::PrivateKeyJwt {
        return;
    }
    for key in ["client_key_id", "assertion_audience"].into_iter().filter(|key| section.has(key)) {
        let message = format!("{key} has no effect without client_auth = \"private_key_jwt\"");
        warnings.push(section.diagnostic(key, message, format!("write it, or remove {key}")));
    }
}
