//! `keepalive providers`: lists the providers and how each behaves.

use serde_json::{Value, json};

use super::GlobalArgs;
use super::output::{CommandStatus, Output, table};
use crate::cli::setup;
use crate::credential::freshness::Margin;
use crate::profile::{BodyEncoding, ClientAuth, Provider, Rotation};
use crate::sys::paths::Environment;

pub fn run(global: &GlobalArgs, out: &Output) -> CommandStatus {
    let config = match setup::load(&Environment::from_env(global.config.as_deref())) {
        Ok(config) => config,
        Err(failure) => {
            out.fail(&failure);
            return CommandStatus::Config;
        }
    };
    setup::report_warnings(&config, out);
    let margin = |p: &Provider| format_margin(p.margin.unwrap_or(config.default_margin()));
    if out.is_json {
        let providers: Vec<Value> = config.providers.values().map(|p| to_json(p, &margin(p))).collect();
        out.json(&json!({ "providers": providers }));
        return CommandStatus::Ok;
    }
    let header = ["PROVIDER", "ROTATION", "GRACE", "MARGIN", "VERIFIED", "CLIENT"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for p in config.providers.values() {
        cells.push(vec![p.name.clone(), rotation(p).into(), grace(p), margin(p), verified(p), client_cell(p)]);
    }
    out.data(&table(&cells));
    for provider in config.providers.values() {
        out.data(&details(provider, &margin(provider)));
    }
    CommandStatus::Ok
}

/// The facts about a provider, for a person.
fn details(p: &Provider, margin: &str) -> String {
    let mut lines = vec![format!("\n{}", p.name)];
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
    line("request", &request(p));
    line("refresh", &format!("rotation {}; grace {}; margin {margin}", rotation(p), grace(p)));
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
        Margin::Share(thousandths) => format!("{}%", f64::from(thousandths) / 10.0),
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
    if p.client_id.is_empty() { "your own".into() } else { p.client_id.clone() }
}

/// The client in a table cell; the block below has all of it.
fn client_cell(p: &Provider) -> String {
    const ROOM: usize = 30;
    let client = client(p);
    if client.chars().count() <= ROOM {
        client
    } else {
        format!("{}…", client.chars().take(ROOM - 1).collect::<String>())
    }
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
        "known": p.known,
        "source": p.source,
        "verified": p.verified,
    })
}
