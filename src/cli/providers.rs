//! `keepalive providers`: lists the providers and how each behaves.

use std::sync::Arc;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use super::layout::table;
use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::access::setup;
use crate::cli::warnings::report_warnings;
use crate::config;
use crate::config::Config;
use crate::credential::freshness::Margin;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{BodyEncoding, ClientAuth, Provider, Rotation};

/// List the providers, or show how one behaves
///
/// Lists the built-in providers, with your changes to them, and your own. For a NAME, shows its endpoints, what the server
/// does to used refresh tokens (rotation), how long it still accepts the previous one (grace), how long before expiry a
/// token is refreshed (margin), the client that it needs, the source of these facts, and when this was last checked
/// against the vendor's documentation ("no": third-party information only).
#[derive(Debug, Args)]
pub struct ProvidersArgs {
    /// Show everything about this provider; several can be named
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::providers))]
    names: Vec<String>,
}

pub(super) fn run(args: &ProvidersArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let config = match setup::load(&global.places()) {
        Ok(config) => config,
        Err(failure) => {
            out.fail(&failure);
            return CommandStatus::Config;
        }
    };
    report_warnings(&config, out);
    let strangers: Vec<&String> = args.names.iter().filter(|name| !config.providers.contains_key(*name)).collect();
    if let [others @ .., last] = &strangers[..] {
        others.iter().for_each(|name| out.error(&unknown_provider(name, &config)));
        out.fail(&unknown_provider(last, &config));
        return CommandStatus::Config;
    }
    let is_shown = |p: &&Arc<Provider>| args.names.is_empty() || args.names.contains(&p.name);
    let shown: Vec<&Arc<Provider>> = config.providers.values().filter(is_shown).collect();
    let margin = |p: &Provider| format_margin(p.margin.unwrap_or(config.default_margin()));
    if out.is_json {
        let providers: Vec<Value> = shown.iter().map(|p| to_json(p, &margin(p))).collect();
        out.json(&json!({ "providers": providers }));
    } else if args.names.is_empty() && out.verbosity == 0 {
        print_list(&shown, &config, &margin, out);
    } else {
        let blocks: Vec<String> = shown.iter().map(|p| details(p, &margin(p))).collect();
        out.data(&blocks.join("\n"));
    }
    CommandStatus::Ok
}

fn unknown_provider(name: &str, config: &Config) -> Failure {
    let meant = config::nearest_provider(name, config.providers.keys().map(String::as_str));
    let meant = meant.map_or(String::new(), |meant| format!("; did you mean \"{meant}\"?"));
    Failure::new(ErrorKind::Config, format!("no provider {name:?}{meant}")).with_hint(format!(
        "`keepalive providers` lists the names; a new one needs a section [provider.{}]",
        config::section_key(name)
    ))
}

fn print_list(shown: &[&Arc<Provider>], config: &Config, margin: &impl Fn(&Provider) -> String, out: &Output) {
    let header = ["PROVIDER", "ROTATION", "GRACE", "MARGIN", "CHECKED", "CLIENT"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for p in shown {
        let client = match p.client_id.as_str() {
            "" => "you register one",
            _ if config.has_built_in_client(&p.name) => "built in",
            _ => "configured",
        };
        cells.push(vec![p.name.clone(), rotation(p).into(), grace(p), margin(p), verified(p), client.into()]);
    }
    out.data(&table(&cells));
    out.paragraph("more about one: keepalive providers NAME", 2);
}

/// The facts about a provider, for a person.
fn details(p: &Provider, margin: &str) -> String {
    let mut lines = vec![p.name.clone()];
    let mut line = |what: &str, text: &str| {
        for (n, part) in wrap_text(text).iter().enumerate() {
            lines.push(format!("  {:<9} {part}", if n == 0 { what } else { "" }));
        }
    };
    for (what, url) in endpoints(p) {
        line(what, url);
    }
    if p.token_endpoint.is_none() {
        let below =
            p.endpoint_domain.as_ref().map_or(String::new(), |domain| format!(", only at {domain} or a subdomain"));
        line("token", &format!("discovered from the issuer{below}"));
    }
    line("client", &client(p));
    if !p.register.is_empty() && p.client_id.is_empty() {
        line("register", &p.register);
    }
    line("request", &request(p));
    line("refresh", &format!("rotation {}; grace {}; margin {margin}", rotation(p), grace(p)));
    if !p.consumers.hosts().is_empty() {
        let hosts: Vec<_> = p.consumers.hosts().iter().map(ToString::to_string).collect();
        line("hosts", &hosts.join(", "));
    }
    if let Some(variable) = &p.consumers.env {
        line("env", variable);
    }
    line("known", &p.known);
    line("source", &p.source);
    if !p.source.is_empty() {
        line("verified", &verified(p));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The width beside the title, which takes 12 of a terminal's 80 columns.
const WIDTH: usize = 68;

/// Wraps a text to that width; a word is never cut.
fn wrap_text(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The endpoints that are known without asking the server.
fn endpoints(p: &Provider) -> impl Iterator<Item = (&'static str, &str)> {
    let example = (!p.issuer_example.is_empty() && p.issuer.is_none()).then_some(p.issuer_example.as_str());
    let named = [
        ("issuer", &p.issuer),
        ("sign-in", &p.authorization_endpoint),
        ("token", &p.token_endpoint),
        ("device", &p.device_authorization_endpoint),
        ("revoke", &p.revocation_endpoint),
        ("redirect", &p.redirect_uri),
    ];
    let known = named.into_iter().filter_map(|(what, url)| Some((what, url.as_ref()?.as_str())));
    example.map(|url| ("issuer", url)).into_iter().chain(known)
}

/// The particulars of a request, without values: those may be the user's secrets.
fn request(p: &Provider) -> String {
    let client = match p.client_auth {
        ClientAuth::None => "",
        ClientAuth::ClientSecretBasic => "client_secret_basic",
        ClientAuth::ClientSecretBasicRaw => "client_secret_basic_raw",
        ClientAuth::ClientSecretPost => "client_secret_post",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    };
    let body = match p.body {
        BodyEncoding::Form => "",
        BodyEncoding::Json => "body in JSON",
    };
    let listed = |what: &str, pairs: &[(String, String)]| match pairs {
        [] => String::new(),
        pairs => format!("{what} {}", names(pairs).join(", ")),
    };
    let parts = [client.into(), body.into(), listed("headers", &p.headers), listed("parameters", &p.parameters)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn names(pairs: &[(String, String)]) -> Vec<&str> {
    pairs.iter().map(|(name, _)| name.as_str()).collect()
}

fn rotation(p: &Provider) -> &'static str {
    match p.policy.rotation {
        Rotation::Strict => "strict",
        Rotation::Grace => "grace",
        Rotation::Lenient => "lenient",
        Rotation::None => "none",
    }
}

fn grace(p: &Provider) -> String {
    match p.policy.rotation {
        Rotation::Grace => humantime::format_duration(p.policy.reuse_grace).to_string(),
        Rotation::Strict | Rotation::Lenient | Rotation::None => "none".into(),
    }
}

fn format_margin(margin: Margin) -> String {
    match margin {
        Margin::Fixed(margin) => humantime::format_duration(margin).to_string(),
        Margin::Share(thousandths) | Margin::ShareAtLeast(thousandths, _) => {
            format!("{}%", f64::from(thousandths) / 10.0)
        }
    }
}

fn verified(p: &Provider) -> String {
    match &p.verified {
        Some(day) => day.clone(),
        None if p.source.is_empty() => "yours".into(),
        None => "no".into(),
    }
}

fn client(p: &Provider) -> String {
    if !p.client_id.is_empty() {
        return p.client_id.clone();
    }
    let secret = match p.client_auth {
        ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretBasicRaw | ClientAuth::ClientSecretPost => {
            " and client_secret"
        }
        ClientAuth::PrivateKeyJwt => " and client_key",
        ClientAuth::None => "",
    };
    format!("your own: register one, and write client_id{secret} in [provider.{}]", p.name)
}

fn to_json(p: &Provider, margin: &str) -> Value {
    json!({
        "provider": p.name,
        "issuer": p.issuer,
        "issuer_example": (!p.issuer_example.is_empty()).then_some(&p.issuer_example),
        "authorization_endpoint": p.authorization_endpoint,
        "token_endpoint": p.token_endpoint,
        "device_authorization_endpoint": p.device_authorization_endpoint,
        "revocation_endpoint": p.revocation_endpoint,
        "endpoint_domain": p.endpoint_domain,
        "redirect_uri": p.redirect_uri,
        "register": (!p.register.is_empty()).then_some(&p.register),
        "client_id": (!p.client_id.is_empty()).then_some(&p.client_id),
        "client_auth": p.client_auth,
        "scopes": p.scopes,
        "body": p.body,
        // Their values may be the user's secrets.
        "headers": names(&p.headers),
        "parameters": names(&p.parameters),
        "rotation": p.policy.rotation,
        "reuse_grace_s": p.policy.reuse_grace.as_secs(),
        "grace_semantics": p.policy.grace_semantics,
        "margin": margin,
        "default_lifetime_s": p.default_lifetime.as_secs(),
        "max_lifetime_s": p.max_lifetime.map(|max| max.as_secs()),
        "concurrency": p.concurrency,
        "dead_codes": p.dead_codes,
        "client_codes": p.client_codes,
        "hosts": p.consumers.hosts(),
        "git_username": p.consumers.git_username,
        "docker_username": p.consumers.docker_username,
        "env": p.consumers.env,
        "known": p.known,
        "source": p.source,
        "verified": p.verified,
    })
}
