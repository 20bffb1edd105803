//! `[provider.NAME]`: an authorization server and our client there, the built-in ones included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::document::Document;
use super::duration;
use super::error::{ConfigError, Finding, Problem};
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::profile::{BodyForm, ClientAuth, GraceSemantics, Policy, Provider, Rotation, SecretSource};

/// The built-in providers, written like a user's own.
const BUILT_IN: &str = include_str!("providers.toml");

const ROTATIONS: &[(&str, Rotation)] = &[
    ("strict", Rotation::Strict),
    ("grace", Rotation::Grace),
    ("lenient", Rotation::Lenient),
    ("none", Rotation::None),
];
const SEMANTICS: &[(&str, GraceSemantics)] =
    &[("same", GraceSemantics::Same), ("multi", GraceSemantics::Multi), ("latest", GraceSemantics::Latest)];
const CLIENT_AUTHS: &[(&str, ClientAuth)] = &[
    ("none", ClientAuth::None),
    ("client_secret_basic", ClientAuth::ClientSecretBasic),
    ("client_secret_post", ClientAuth::ClientSecretPost),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt),
];
const BODIES: &[(&str, BodyForm)] = &[("form", BodyForm::Form), ("json", BodyForm::Json)];

/// Assumed of a token whose expiry nobody tells: short, for a refresh too early costs less than one too late.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Flights at once to one provider from one process, unless a preset cites a reason for fewer (protocol, §0).
const DEFAULT_CONCURRENCY: usize = 8;

/// The built-in providers. Some lack a client, which the user must register.
pub(super) fn built_in() -> Result<BTreeMap<String, Provider>, ConfigError> {
    let document = Document::parse(BUILT_IN, Path::new("providers.toml"), None)?;
    let mut providers = BTreeMap::new();
    for entry in document.top().entries() {
        let section = entry.section()?;
        section.only(&[keys::PROVIDER, keys::BUILT_IN])?;
        let mut provider = read(&section, blank(entry.key))?;
        let source = section.read("source", Entry::text)?.unwrap_or_default();
        provider.source = match section.read("verified", Entry::text)? {
            Some(day) => format!("{source} (verified {day})"),
            None => format!("{source} (unverified)"),
        };
        providers.insert(provider.name.clone(), provider);
    }
    Ok(providers)
}

/// A user's provider: its own keys, over those of the built-in one of that name.
pub(super) fn own(
    section: &Section<'_>,
    base: Option<&Arc<Provider>>,
    name: &str,
    warnings: &mut Vec<Finding>,
) -> Result<Provider, ConfigError> {
    section.only(&[keys::PROVIDER])?;
    if let Some(base) = base
        && base.token_endpoint.is_some()
        && section.has("issuer")
        && !section.has("token_endpoint")
    {
        let message = "issuer has no effect: the built-in provider names its endpoints";
        return Err(section.finding("issuer", message, "write token_endpoint too, or choose another name").into());
    }
    let mut base = base.map_or_else(|| blank(name), |base| Provider::clone(base));
    if section.has("issuer") {
        // Another server: what is known of the endpoints of the built-in one would lead to the wrong place.
        base.authorization_endpoint = None;
        base.device_authorization_endpoint = None;
        base.revocation_endpoint = None;
    }
    let mut provider = read(section, base)?;
    if !provider.source.is_empty() {
        let changed: Vec<&str> = section.entries().iter().map(|entry| entry.key).collect();
        provider.source = format!("{}; changed here: {}", provider.source, changed.join(", "));
    }
    if let Some(lack) = lack(&provider) {
        return Err(section.finding(lack.key, lack.message, lack.hint).into());
    }
    check_grace(section, &mut provider.policy, warnings)?;
    Ok(provider)
}

fn blank(name: &str) -> Provider {
    Provider {
        name: name.into(),
        issuer: None,
        authorization_endpoint: None,
        token_endpoint: None,
        device_authorization_endpoint: None,
        revocation_endpoint: None,
        redirect_uri: None,
        client_id: String::new(),
        client_auth: ClientAuth::None,
        client_secret: None,
        scopes: Vec::new(),
        policy: Policy::default(),
        headers: Vec::new(),
        body: BodyForm::Form,
        ca_file: None,
        margin: None,
        default_lifetime: DEFAULT_LIFETIME,
        concurrency: DEFAULT_CONCURRENCY,
        source: String::new(),
    }
}

fn read(section: &Section<'_>, base: Provider) -> Result<Provider, ConfigError> {
    let endpoint = |key| section.read(key, |e| e.parse(values::endpoint));
    let path = |text: &str| values::path(text, section.document.path, section.document.home);
    Ok(Provider {
        issuer: section.read("issuer", |e| e.parse(values::issuer))?.or(base.issuer),
        authorization_endpoint: endpoint("authorization_endpoint")?.or(base.authorization_endpoint),
        token_endpoint: endpoint("token_endpoint")?.or(base.token_endpoint),
        device_authorization_endpoint: endpoint("device_authorization_endpoint")?
            .or(base.device_authorization_endpoint),
        revocation_endpoint: endpoint("revocation_endpoint")?.or(base.revocation_endpoint),
        redirect_uri: endpoint("redirect_uri")?.or(base.redirect_uri),
        client_id: section.read("client_id", |e| e.parse(values::client_id))?.unwrap_or(base.client_id),
        client_auth: section.read("client_auth", |e| e.choice(CLIENT_AUTHS))?.unwrap_or(base.client_auth),
        client_secret: section.read("client_secret", secret)?.or(base.client_secret),
        scopes: section.read("scopes", |e| e.list(values::scope))?.unwrap_or(base.scopes),
        policy: read_policy(section, base.policy)?,
        headers: section.read("headers", |e| headers(e, &base.headers))?.unwrap_or(base.headers),
        body: section.read("body", |e| e.choice(BODIES))?.unwrap_or(base.body),
        ca_file: section.read("ca_file", |e| e.parse(path))?.or(base.ca_file),
        margin: section.read("margin", |e| e.parse(duration::margin))?.or(base.margin),
        default_lifetime: section
            .read("default_lifetime", |e| e.parse(|text| duration::within(duration::LIFE, text)))?
            .unwrap_or(base.default_lifetime),
        concurrency: section.read("concurrency", |e| e.count(1..=1024))?.unwrap_or(base.concurrency),
        name: base.name,
        source: base.source,
    })
}

fn read_policy(section: &Section<'_>, base: Policy) -> Result<Policy, ConfigError> {
    let wait = |key| section.read(key, |e| e.parse(|text| duration::within(duration::WAIT, text)));
    let grace = section.read("reuse_grace", |e| e.parse(|text| duration::within(duration::GRACE, text)))?;
    Ok(Policy {
        rotation: section.read("rotation", |e| e.choice(ROTATIONS))?.unwrap_or(base.rotation),
        reuse_grace: grace.unwrap_or(base.reuse_grace),
        grace_semantics: section.read("grace_semantics", |e| e.choice(SEMANTICS))?.unwrap_or(base.grace_semantics),
        last_chance: section.read("last_chance", Entry::flag)?.unwrap_or(base.last_chance),
        trust_503: section.read("trust_503", Entry::flag)?.unwrap_or(base.trust_503),
        settle: wait("settle")?.unwrap_or(base.settle),
        timeout: wait("timeout")?.unwrap_or(base.timeout),
        connect_timeout: wait("connect_timeout")?.unwrap_or(base.connect_timeout),
    })
}

fn secret(entry: &Entry<'_>) -> Result<SecretSource, ConfigError> {
    if entry.text().is_ok() {
        let problem = Problem::new("cannot stand in the configuration itself");
        return Err(entry.wrong(problem.hint("put it into a file of its own: client_secret = { file = \"PATH\" }")));
    }
    let section = entry.section()?;
    let source = section.only_one(keys::SECRET)?;
    match source.key {
        "env" => source.parse(|text| values::outside_name(text, "=")).map(SecretSource::Env),
        "keyring" => source.parse(|text| values::outside_name(text, "")).map(SecretSource::Keyring),
        "command" => source.command().map(SecretSource::Command),
        _ => {
            let path = |text: &str| values::path(text, section.document.path, section.document.home);
            source.parse(path).map(SecretSource::File)
        }
    }
}

/// The headers of the built-in provider with those of the user over them; header names ignore case.
fn headers(entry: &Entry<'_>, base: &[(String, String)]) -> Result<Vec<(String, String)>, ConfigError> {
    let section = entry.section()?;
    let mut own: Vec<(String, String)> = Vec::new();
    for header in section.entries() {
        values::header_name(header.key).map_err(|problem| entry.wrong(problem))?;
        let value = header.text()?;
        values::header_value(header.key, value).map_err(|problem| entry.wrong(problem))?;
        if own.iter().any(|(name, _)| name.eq_ignore_ascii_case(header.key)) {
            return Err(entry.wrong(Problem::new(format!("names {} twice", header.key)).hint("remove one of the two")));
        }
        own.push((header.key.into(), value.into()));
    }
    let is_kept = |kept: &&(String, String)| !own.iter().any(|(name, _)| name.eq_ignore_ascii_case(&kept.0));
    Ok(base.iter().filter(is_kept).chain(&own).cloned().collect())
}

/// What keeps a provider from being used.
pub(super) struct Lack {
    pub key: &'static str,
    pub message: &'static str,
    pub hint: &'static str,
}

pub(super) fn lack(provider: &Provider) -> Option<Lack> {
    let lack = |key, message, hint| Some(Lack { key, message, hint });
    if provider.issuer.is_none() && provider.token_endpoint.is_none() {
        let hint = "write issuer = \"https://...\", or name the endpoints";
        return lack("issuer", "issuer or token_endpoint is missing", hint);
    }
    if provider.client_id.is_empty() {
        let hint = "register a client with the provider and write client_id = \"...\"";
        return lack("client_id", "client_id is missing", hint);
    }
    match (provider.client_auth, &provider.client_secret) {
        (ClientAuth::None, Some(_)) => lack(
            "client_secret",
            "client_secret is given, but client_auth = \"none\" sends none",
            "write client_auth = \"client_secret_basic\" or \"client_secret_post\", or remove client_secret",
        ),
        (ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost, None) => lack(
            "client_auth",
            "client_secret is missing: client_auth asks for it",
            "write client_secret = { file = \"PATH\" }, { env = \"NAME\" }, { command = [...] } or { keyring = \"NAME\" }",
        ),
        (ClientAuth::PrivateKeyJwt, None) => lack(
            "client_auth",
            "client_secret is missing: client_auth = \"private_key_jwt\" reads its private key there",
            "write client_secret = { file = \"PATH\" }, a private key in PEM",
        ),
        (ClientAuth::None, None) | (_, Some(_)) => None,
    }
}

/// A grace that is too short for two attempts is no grace: the provider is treated as strict (protocol, §4).
fn check_grace(section: &Section<'_>, policy: &mut Policy, warnings: &mut Vec<Finding>) -> Result<(), ConfigError> {
    if policy.rotation != Rotation::Grace {
        for key in ["reuse_grace", "grace_semantics"].into_iter().filter(|key| section.has(key)) {
            let message = format!("{key} has no effect without rotation = \"grace\"");
            warnings.push(section.finding(key, message, format!("write rotation = \"grace\", or remove {key}")));
        }
        return Ok(());
    }
    if policy.reuse_grace.is_zero() {
        let message = "rotation = \"grace\" needs reuse_grace";
        return Err(section.finding("rotation", message, "write reuse_grace = \"30s\", as the provider says").into());
    }
    let needed = policy.shortest_grace();
    if needed > policy.reuse_grace {
        let [grace, needed] = [policy.reuse_grace, needed].map(humantime::format_duration);
        let message =
            format!("reuse_grace of {grace} is too short for two attempts, which take {needed}: treated as strict");
        let hint = "shorten timeout or settle, or write rotation = \"strict\"";
        warnings.push(section.finding("reuse_grace", message, hint));
        policy.rotation = Rotation::Strict;
    }
    Ok(())
}
