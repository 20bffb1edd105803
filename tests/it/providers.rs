//! The built-in providers as a user meets them, whichever they are.

use std::path::Path;

use keepalive::config::Config;
use keepalive::profile::BodyEncoding;
use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

fn providers(sandbox: &Sandbox) -> Vec<Value> {
    let run = sandbox.keepalive(&["--json", "providers"]).exits(0);
    let found = run.json()["providers"].as_array().unwrap().clone();
    assert!(found.len() >= 19, "{run:#?}");
    found
}

/// A text without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn providers_shows_every_fact_of_each_provider() {
    let sandbox = Sandbox::new();
    let list = sandbox.keepalive(&["providers"]).exits(0).stdout;
    let shown = sandbox.keepalive(&["providers", "-v"]).exits(0).stdout;
    for line in list.lines().chain(shown.lines()).filter(|line| !line.contains("://")) {
        assert!(line.chars().count() <= 80, "a terminal has room for it: {line}");
    }
    for provider in providers(&sandbox) {
        let name = provider["provider"].as_str().unwrap();
        let block = shown.split("\n\n").find(|block| block.starts_with(&format!("{name}\n"))).unwrap();
        let block = flat(block);
        for key in [
            "issuer",
            "issuer_example",
            "authorization_endpoint",
            "token_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
            "redirect_uri",
            "known",
            "source",
        ] {
            let Some(text) = provider[key].as_str() else { continue };
            assert!(block.contains(&flat(text)), "{name} {key}: {text:?} in {block}");
        }
        let rotation = provider["rotation"].as_str().unwrap();
        assert!(block.contains(&format!("rotation {rotation}; grace")), "{block}");
        assert!(block.contains(&format!("margin {}", provider["margin"].as_str().unwrap())), "{block}");
        assert!(block.contains(&format!("verified {}", provider["verified"].as_str().unwrap_or("no"))), "{block}");
    }
}

#[test]
fn too_short_reuse_grace_counts_as_strict_with_a_warning() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let write =
        |keys: &str| sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(keys)));
    let rotation = || {
        let all = providers(&sandbox);
        all.iter().find(|p| p["provider"] == "acme").unwrap()["rotation"].as_str().unwrap().to_owned()
    };
    write("rotation = \"grace\"");
    sandbox
        .keepalive(&["status"])
        .exits(78)
        .says("write reuse_grace = \"30s\", or what the provider documents, and timeout = \"6s\"");
    write("rotation = \"grace\"\nreuse_grace = \"30s\"");
    let words = "reuse_grace of 30s is too short for two attempts, which take 1m 17s: treated as strict";
    for command in ["status", "providers", "doctor"] {
        sandbox.keepalive(&[command]).exits(0).says(words).says("timeout = \"6s\"");
    }
    sandbox.daemon().wait_for_line(words);
    assert_eq!(rotation(), "strict");
    write("rotation = \"grace\"\nreuse_grace = \"30s\"\ntimeout = \"6s\"");
    let run = sandbox.keepalive(&["status"]).exits(0);
    assert!(!run.stderr.contains("reuse_grace"), "{run:#?}");
    assert_eq!(rotation(), "grace");
    write("reuse_grace = \"2m\"");
    sandbox.keepalive(&["status"]).exits(0).says("reuse_grace has no effect without rotation = \"grace\"");
}

#[test]
fn missing_provider_keys_are_named_on_use() {
    let sandbox = Sandbox::new();
    for provider in providers(&sandbox) {
        let name = provider["provider"].as_str().unwrap();
        let section = format!("in [provider.{name}], ");
        // What lacks nothing would go to the network.
        if let Some(example) = provider["issuer_example"].as_str() {
            let run = sandbox.keepalive(&["token", name]).exits(78);
            run.says("issuer is missing").says(&section).says(example);
        } else if provider["client_id"].is_null() {
            sandbox.keepalive(&["token", name]).exits(78).says("client_id is missing").says(&section);
        }
    }
}

#[test]
fn providers_shows_own_and_changed_settings_without_secrets() {
    let sandbox = Sandbox::new();
    let changed =
        "margin = \"30%\"\n[provider.github]\nclient_id = \"Iv1.me\"\nheaders = { X-Api-Key = \"hunter2\" }\n";
    sandbox.config(&format!(
        "{changed}[provider.acme]\nissuer = \"https://acme.example\"\nclient_id = \"me\"\n\
         endpoint_domain = \"acme.example\"\nparameters = {{ key = \"hunter2\" }}\n"
    ));
    let shown = sandbox.keepalive(&["providers", "-v"]).exits(0).stdout;
    assert!(flat(&shown).contains("changed here: client_id, headers verified"), "{shown}");
    assert!(flat(&shown).contains(
        "acme issuer https://acme.example/ token discovered from the issuer, only at acme.example or a subdomain"
    ));
    let listed = providers(&sandbox);
    let acme = listed.iter().find(|p| p["provider"] == "acme").unwrap();
    assert_eq!((&acme["margin"], &acme["verified"], &acme["source"]), (&json!("30%"), &Value::Null, &json!("")));
    let document = serde_json::to_string(&listed).unwrap();
    assert!(!shown.contains("hunter2") && !document.contains("hunter2"), "a header may be a secret");
}

/// A provider as it is built in, but at a server of ours.
fn moved(name: &str, server: &AuthServer) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!(
        "[provider.{name}]\ntoken_endpoint = \"{}/token\"\nclient_id = \"public\"\nclient_auth = \"none\"\n",
        server.url()
    ));
    sandbox
}

fn import(sandbox: &Sandbox, server: &AuthServer, profile: &str, provider: &str) {
    let answer = server.mint().to_string();
    sandbox.keepalive_with_input(&["import", profile, "--provider", provider], &answer).exits(0);
}

#[test]
fn each_built_in_provider_sends_its_body_form_and_headers() {
    let config = Config::load(Path::new("/nowhere/config.toml"), false, None).unwrap();
    for (name, provider) in &config.providers {
        let server = AuthServer::start(RotationMode::Strict);
        let sandbox = moved(name, &server);
        import(&sandbox, &server, "a", name);
        let run = sandbox.keepalive(&["--json", "refresh", "-p", "a", "--force"]).exits(0);
        assert_eq!(run.result()["outcome"], "refreshed", "{name}");
        let headers = server.last_headers();
        let sent = |wanted: &str| headers.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
        let kind = match provider.body {
            BodyEncoding::Json => "application/json",
            BodyEncoding::Form => "application/x-www-form-urlencoded",
        };
        assert_eq!(sent("content-type").as_deref(), Some(kind), "{name}");
        for (key, value) in &provider.headers {
            assert_eq!(sent(&key.to_ascii_lowercase()).as_ref(), Some(value), "{name}");
        }
        for parameter in &provider.parameters {
            assert!(server.last_form().contains(parameter), "{name}: {parameter:?}");
        }
    }
}

#[test]
fn each_built_in_provider_classifies_its_error_codes() {
    for provider in providers(&Sandbox::new()) {
        let name = provider["provider"].as_str().unwrap();
        let server = AuthServer::start(RotationMode::Strict);
        let sandbox = moved(name, &server);
        let codes = |key: &str, exit: i32| {
            let list: Vec<_> = provider[key].as_array().unwrap().iter().map(|code| (code.clone(), exit)).collect();
            list
        };
        let all = [codes("dead_codes", 77), codes("client_codes", 78), vec![(json!("invalid_grant"), 77)]].concat();
        for (n, (code, exit)) in all.into_iter().enumerate() {
            let profile = format!("p{n}");
            import(&sandbox, &server, &profile, name);
            let body = json!({"ok": false, "error": code}).to_string().leak();
            server.script([Fault::Respond(400, "content-type: application/json\r\n", body)]);
            sandbox.keepalive(&["refresh", "-p", &profile, "--force"]).exits(exit);
        }
    }
}
