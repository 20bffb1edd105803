//! `[provider.NAME]`: an authorization server and the client there, and the built-in providers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::consumers;
use super::duration;
use super::error::{ConfigError, Diagnostic, MissingKey, ValueError};
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::config::client_auth;
use crate::config::client_auth::CLIENT_AUTHS;
use crate::config::toml_document::Document;
use crate::profile::{BodyEncoding, GraceSemantics, Policy, Provider, Rotation};

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
const BODIES: &[(&str, BodyEncoding)] = &[("form", BodyEncoding::Form), ("json", BodyEncoding::Json)];

/// The built-in providers. Some lack a client, which the user must register.
pub(super) fn built_in() -> Result<BTreeMap<String, Provider>, ConfigError> {
    let document = Document::parse(BUILT_IN, Path::new("providers.toml"), None, Vec::new());
    let mut providers = BTreeMap::new();
    for entry in Section::top(&document).entries() {
        let section = entry.section()?;
        section.reject_unknown(&[keys::PROVIDER, keys::BUILT_IN, keys::CONSUMERS]);
        let text = |key| section.read(key, Entry::text).map(str::to_owned);
        let provider = Provider {
            issuer_example: text("issuer_example").unwrap_or_default(),
            register: text("register").unwrap_or_default(),
            known: text("known").unwrap_or_default(),
            source: text("source").unwrap_or_default(),
            verified: text("verified"),
            consumers: consumers::read(&section),
            ..read(&section, Provider::named(entry.key))
        };
        providers.insert(provider.name.clone(), provider);
    }
    document.into_result(providers)
}

/// A user's provider: its own keys override those of the built-in one of that name. Mistakes are noted.
pub(super) fn user_provider(
    section: &Section<'_>,
    base: Option<&Arc<Provider>>,
    name: &str,
    warnings: &mut Vec<Diagnostic>,
) -> Provider {
    section.reject_unknown(&[keys::PROVIDER]);
    let mut base = base.map_or_else(|| Provider::named(name), |base| Provider::clone(base));
    if section.has("issuer") {
        // The endpoints of the built-in provider belong to another server than this one.
        base.authorization_endpoint = None;
        base.token_endpoint = None;
        base.device_authorization_endpoint = None;
        base.revocation_endpoint = None;
        base.endpoint_domain = None;
    }
    if section.has("issuer") || section.has("token_endpoint") {
        // Tokens of another server are not for the servers of the built-in provider.
        base.consumers.hosts = None;
    }
    let mut provider = read(section, base);
    if !provider.source.is_empty() {
        let changed: Vec<&str> = section.entries().iter().map(|entry| entry.key).collect();
        provider.source = format!("{}; changed here: {}", provider.source, changed.join(", "));
    }
    let follows = |about: &[&str]| section.has_mistake_about(about, keys::PROVIDER);
    for lack in missing_keys(&provider).into_iter().filter(|lack| !follows(lack.about)) {
        section.document.note(section.diagnostic(lack.key, lack.message, lack.hint).into());
    }
    client_auth::warn_of_unused_keys(section, provider.client_auth, warnings);
    if !follows(&["rotation", "reuse_grace"])
        && let Err(mistake) = check_grace(section, &mut provider.policy, warnings)
    {
        section.document.note(mistake);
    }
    provider
}

fn read(section: &Section<'_>, base: Provider) -> Provider {
    let endpoint = |key| section.read(key, |e| e.parse(values::endpoint));
    let path = |text: &str| values::path(text, section.document.path, section.document.home);
    let lifetime = |key| section.read(key, |e| e.parse(|text| duration::parse_within(duration::LIFETIME_LIMITS, text)));
    Provider {
        issuer: section.read("issuer", |e| e.parse(values::issuer)).or(base.issuer),
        issuer_name: section.get("issuer").and_then(|e| e.text().ok().map(str::to_owned)).or(base.issuer_name),
        authorization_endpoint: endpoint("authorization_endpoint").or(base.authorization_endpoint),
        token_endpoint: endpoint("token_endpoint").or(base.token_endpoint),
        device_authorization_endpoint: endpoint("device_authorization_endpoint").or(base.device_authorization_endpoint),
        revocation_endpoint: endpoint("revocation_endpoint").or(base.revocation_endpoint),
        redirect_uri: endpoint("redirect_uri").or(base.redirect_uri),
        client_id: section.read("client_id", |e| e.parse(values::client_id)).unwrap_or(base.client_id),
        client_auth: section.read("client_auth", |e| e.choice(CLIENT_AUTHS)).unwrap_or(base.client_auth),
        client_secret: section.read("client_secret", client_auth::client_secret).or(base.client_secret),
        client_key: section.read("client_key", client_auth::secret_source).or(base.client_key),
        client_key_id: section.read("client_key_id", |e| e.parse(values::visible_ascii)).or(base.client_key_id),
        assertion_audience: section
            .read("assertion_audience", |e| e.parse(client_auth::audience))
            .unwrap_or(base.assertion_audience),
        scopes: section.read("scopes", |e| e.list(values::scope)).unwrap_or(base.scopes),
        policy: read_policy(section, base.policy),
        headers: section.read("headers", |e| headers(e, &base.headers)).unwrap_or(base.headers),
        parameters: section.read("parameters", |e| parameters(e, &base.parameters)).unwrap_or(base.parameters),
        body: section.read("body", |e| e.choice(BODIES)).unwrap_or(base.body),
        dead_codes: section.read("dead_codes", |e| e.list(values::visible_ascii)).unwrap_or(base.dead_codes),
        client_codes: section.read("client_codes", |e| e.list(values::visible_ascii)).unwrap_or(base.client_codes),
        endpoint_domain: section.read("endpoint_domain", |e| e.parse(values::domain)).or(base.endpoint_domain),
        ca_file: section.read("ca_file", |e| e.parse(path)).or(base.ca_file),
        margin: section.read("margin", |e| e.parse(duration::margin)).or(base.margin),
        consumers: base.consumers,
        default_lifetime: lifetime("default_lifetime").unwrap_or(base.default_lifetime),
        max_lifetime: lifetime("max_lifetime").or(base.max_lifetime),
        concurrency: section.read("concurrency", |e| e.integer(1..=1024)).unwrap_or(base.concurrency),
        name: base.name,
        issuer_example: base.issuer_example,
        register: base.register,
        known: base.known,
        source: base.source,
        verified: base.verified,
    }
}

fn read_policy(section: &Section<'_>, base: Policy) -> Policy {
    let wait = |key| section.read(key, |e| e.parse(|text| duration::parse_within(duration::WAIT_LIMITS, text)));
    let grace = section.read("reuse_grace", |e| e.parse(|text| duration::parse_within(duration::GRACE_LIMITS, text)));
    Policy {
        rotation: section.read("rotation", |e| e.choice(ROTATIONS)).unwrap_or(base.rotation),
        reuse_grace: grace.unwrap_or(base.reuse_grace),
        grace_semantics: section.read("grace_semantics", |e| e.choice(SEMANTICS)).unwrap_or(base.grace_semantics),
        last_chance: section.read("last_chance", Entry::flag).unwrap_or(base.last_chance),
        trust_503: section.read("trust_503", Entry::flag).unwrap_or(base.trust_503),
        settle: wait("settle").unwrap_or(base.settle),
        timeout: wait("timeout").unwrap_or(base.timeout),
        connect_timeout: wait("connect_timeout").unwrap_or(base.connect_timeout),
    }
}

/// The headers of the built-in provider with those of the user over them; header names ignore case.
fn headers(entry: &Entry<'_>, base: &[(String, String)]) -> Result<Vec<(String, String)>, ConfigError> {
    let section = entry.section()?;
    let mut own: Vec<(String, String)> = Vec::new();
    for header in section.entries() {
        let read = header_value(entry, &header).and_then(|value| {
            let is_twice = own.iter().any(|(name, _)| name.eq_ignore_ascii_case(header.key));
            let twice = || ValueError::new(format!("has {} twice", header.key)).hint("remove one of the two");
            if is_twice { Err(entry.value_error(twice())) } else { Ok((header.key.to_owned(), value)) }
        });
        own.extend(section.document.noted(read));
    }
    let is_kept = |kept: &&(String, String)| !own.iter().any(|(name, _)| name.eq_ignore_ascii_case(&kept.0));
    Ok(base.iter().filter(is_kept).chain(&own).cloned().collect())
}

fn header_value(entry: &Entry<'_>, header: &Entry<'_>) -> Result<String, ConfigError> {
    values::header_name(header.key).map_err(|problem| entry.value_error(problem))?;
    let value = header.text()?;
    values::header_value(header.key, value).map_err(|problem| entry.value_error(problem))?;
    Ok(value.to_owned())
}

/// The parameters of the built-in provider with those of the user over them.
fn parameters(entry: &Entry<'_>, base: &[(String, String)]) -> Result<Vec<(String, String)>, ConfigError> {
    let section = entry.section()?;
    let mut own: Vec<(String, String)> = Vec::new();
    for parameter in section.entries() {
        let name = values::parameter_name(parameter.key).map_err(|problem| entry.value_error(problem));
        let read = name.and_then(|()| parameter.parse(values::visible_ascii));
        own.extend(section.document.noted(read).map(|value| (parameter.key.to_owned(), value)));
    }
    let is_kept = |kept: &&(String, String)| !own.iter().any(|(name, _)| *name == kept.0);
    Ok(base.iter().filter(is_kept).chain(&own).cloned().collect())
}

/// The keys that a provider lacks, or that conflict with each other.
pub(super) fn missing_keys(provider: &Provider) -> Vec<MissingKey> {
    let mut lacks = Vec::from_iter(missing_server(provider));
    let has_client = !provider.client_id.is_empty();
    // A provider of which each customer has a server of their own says what to write for both.
    let is_client_told = !lacks.is_empty() && !provider.issuer_example.is_empty();
    if !has_client && !is_client_told {
        let place = Some(&provider.register).filter(|page| !page.is_empty());
        let place = place.map_or(String::new(), |page| format!(" ({page})"));
        let secret = client_auth::missing_secret(provider).unwrap_or_default();
        let hint = format!("register a client with the provider{place} and write client_id = \"...\"{secret}");
        lacks.push(MissingKey::new(&["client_id"], "client_id", "client_id is missing", hint));
    }
    lacks.extend(client_auth::conflicting_keys(provider));
    lacks.extend(client_auth::missing_key(provider).filter(|_| has_client));
    lacks
}

fn missing_server(provider: &Provider) -> Option<MissingKey> {
    if provider.issuer.is_some() || provider.token_endpoint.is_some() {
        return None;
    }
    let example = provider.issuer_example.as_str();
    let (message, hint) = if example.is_empty() {
        ("issuer or token_endpoint is missing", "write issuer = \"https://...\", or set the endpoints".to_owned())
    } else {
        let client = if provider.client_id.is_empty() { " and client_id = \"...\"" } else { "" };
        let hint = format!("write issuer = {example:?} with your own values{client}");
        ("issuer is missing: each customer of this provider has a different one", hint)
    };
    Some(MissingKey::new(&["issuer", "token_endpoint"], "issuer", message, hint))
}

/// A grace that is too short for two attempts is no grace: the provider is treated as strict (rule 19).
fn check_grace(section: &Section<'_>, policy: &mut Policy, warnings: &mut Vec<Diagnostic>) -> Result<(), ConfigError> {
    if policy.rotation != Rotation::Grace {
        for key in ["reuse_grace", "grace_semantics"].into_iter().filter(|key| section.has(key)) {
            let message = format!("{key} has no effect without rotation = \"grace\"");
            warnings.push(section.diagnostic(key, message, format!("write rotation = \"grace\", or remove {key}")));
        }
        return Ok(());
    }
    if policy.reuse_grace.is_zero() {
        let message = "rotation = \"grace\" needs reuse_grace";
        let example = Policy { reuse_grace: GRACE_EXAMPLE, ..*policy };
        let mut hint = "write reuse_grace = \"30s\", or what the provider documents".to_owned();
        if let Some(keys) = fitting_timeouts(&example).filter(|_| !example.grace_fits()) {
            hint.push_str(&format!(", and {keys}, so that two attempts fit into it"));
        }
        return Err(section.diagnostic("rotation", message, hint).into());
    }
    let needed = policy.required_grace();
    if needed > policy.reuse_grace {
        let [grace, needed] = [policy.reuse_grace, needed].map(humantime::format_duration);
        let message =
            format!("reuse_grace of {grace} is too short for two attempts, which take {needed}: treated as strict");
        let hint = match fitting_timeouts(policy) {
            Some(keys) => format!("write {keys}, or rotation = \"strict\""),
            None => "write rotation = \"strict\"".to_owned(),
        };
        warnings.push(section.diagnostic("reuse_grace", message, hint));
        policy.rotation = Rotation::Strict;
    }
    Ok(())
}

/// A typical grace, for a hint.
const GRACE_EXAMPLE: Duration = Duration::from_secs(30);

/// What to write so that two attempts fit into the grace: a shorter `timeout`, and a shorter `settle` where that alone
/// would leave no time for an answer. `None`: whole seconds do not fit.
fn fitting_timeouts(policy: &Policy) -> Option<String> {
    let fits = |timeout, settle| Policy { timeout, settle, ..*policy }.grace_fits();
    let longest =
        |least: u64, settle| (least..=policy.timeout.as_secs()).rev().find(|s| fits(Duration::from_secs(*s), settle));
    if let Some(timeout) = longest(3, policy.settle) {
        return Some(format!("timeout = \"{timeout}s\""));
    }
    let settle = policy.reuse_grace.as_secs() / 4;
    let timeout = longest(1, Duration::from_secs(settle)).filter(|_| settle > 0)?;
    Some(format!("timeout = \"{timeout}s\" and settle = \"{settle}s\""))
}
