//! `keepalive providers`: the providers and what each is known to do.

use serde_json::{Value, json};

use super::Global;
use super::compose;
use super::output::{Output, Status, table};
use crate::profile::{Provider, Rotation};
use crate::sys::paths::Places;

pub fn run(global: &Global, out: &Output) -> Status {
    let config = match compose::load(&Places::find(global.config.as_deref())) {
        Ok(config) => config,
        Err(failure) => {
            out.error(&failure);
            return Status::Config;
        }
    };
    if out.is_json {
        let providers: Vec<Value> = config.providers.values().map(|p| to_json(p)).collect();
        out.json(&json!({ "providers": providers }));
        return Status::Ok;
    }
    let header = ["PROVIDER", "ROTATION", "GRACE", "CLIENT", "ENDPOINT"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for provider in config.providers.values() {
        cells.push(vec![
            provider.name.clone(),
            rotation(provider).into(),
            humantime::format_duration(provider.policy.reuse_grace).to_string(),
            provider.client_id.clone(),
            place(provider),
        ]);
    }
    out.data(&table(&cells));
    for provider in config.providers.values().filter(|p| !p.source.is_empty()) {
        out.line(&format!("{}: {}", provider.name, provider.source));
    }
    Status::Ok
}

fn rotation(provider: &Provider) -> &'static str {
    match provider.policy.rotation {
        Rotation::Strict => "strict",
        Rotation::Grace => "grace",
        Rotation::Lenient => "lenient",
        Rotation::None => "none",
    }
}

fn place(provider: &Provider) -> String {
    let endpoint = provider.token_endpoint.as_ref().or(provider.issuer.as_ref());
    endpoint.map_or(String::new(), ToString::to_string)
}

fn to_json(p: &Provider) -> Value {
    json!({
        "provider": p.name,
        "issuer": p.issuer,
        "token_endpoint": p.token_endpoint,
        "client_id": p.client_id,
        "client_auth": p.client_auth,
        "scopes": p.scopes,
        "rotation": p.policy.rotation,
        "reuse_grace_s": p.policy.reuse_grace.as_secs(),
        "concurrency": p.concurrency,
        "source": p.source,
    })
}
