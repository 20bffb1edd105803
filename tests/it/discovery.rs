//! Endpoints that are discovered: what of a server's word about itself is believed, for how long, and what it is worth while
//! the server cannot be asked.

use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, MetadataBehaviour};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

const JSON: &str = "content-type: application/json\r\n";

/// A sandbox that knows the issuer alone, and a credential that was got while it could be asked.
fn signed_in(server: &AuthServer, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    configure(&sandbox, server, more);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox
}

fn configure(sandbox: &Sandbox, server: &AuthServer, more: &str) {
    let provider = format!("[provider.acme]\nissuer = \"{}\"\nclient_id = \"public\"\n{more}", server.url());
    sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n"));
}

fn document(server: &AuthServer, members: Value) -> Value {
    let mut document = json!({"issuer": server.url(), "token_endpoint": format!("{}/token", server.url())});
    document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    document
}

/// Makes what is remembered as old as if it had been fetched then.
fn age(sandbox: &Sandbox, seconds: i64) {
    let dir = sandbox.path("state/keepalive/metadata");
    let file = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let mut remembered: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let at = remembered["fetched_at"].clone();
    let at: keepalive::clock::Timestamp = serde_json::from_value(at).unwrap();
    let at = keepalive::clock::Timestamp::from_millis(at.as_millis() - seconds * 1000);
    remembered["fetched_at"] = serde_json::to_value(at).unwrap();
    std::fs::write(&file, remembered.to_string()).unwrap();
}

#[test]
fn cached_metadata_serves_while_the_issuer_is_down() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.metadata_requests(), 1, "once for both");
    server.set_metadata(MetadataBehaviour::Down);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.metadata_requests(), 1);
    age(&sandbox, 30 * 86_400);
    let run = sandbox.keepalive(&["-v", "refresh", "-p", "demo", "--force"]).exits(0);
    run.says("using the endpoints that were discovered earlier");
    assert_eq!(server.metadata_requests(), 2);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.metadata_requests(), 2, "an issuer that is down is not asked with every refresh");
    assert_eq!(server.counts().refresh_ok, 4);
}

#[test]
fn import_fails_until_the_issuer_is_first_reachable() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_metadata(MetadataBehaviour::Down);
    let sandbox = Sandbox::new();
    configure(&sandbox, &server, "");
    sandbox.import("demo", &server.mint()).exits(75).says("cannot discover the endpoints of");
    server.set_metadata(MetadataBehaviour::Plain);
    sandbox.import("demo", &server.mint()).exits(0);
}

#[test]
fn metadata_is_cached_for_the_max_age_of_the_server() {
    let server = AuthServer::start(RotationMode::Strict);
    let headers = "content-type: application/json\r\ncache-control: public, max-age=3600\r\n";
    server.set_metadata(MetadataBehaviour::Custom(headers, document(&server, json!({}))));
    let sandbox = signed_in(&server, "");
    age(&sandbox, 3500);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.metadata_requests(), 1);
    age(&sandbox, 101);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.metadata_requests(), 2);
}

#[test]
fn metadata_of_another_issuer_is_refused_and_nothing_is_sent() {
    let server = AuthServer::start(RotationMode::Strict);
    let evil = AuthServer::start(RotationMode::Strict);
    server.set_metadata(MetadataBehaviour::Custom(JSON, document(&evil, json!({}))));
    let sandbox = Sandbox::new();
    configure(&sandbox, &server, "");
    let run = sandbox.import("demo", &server.mint()).exits(78);
    run.says("cannot be trusted").says(&format!("it is for issuer {}", evil.url())).says("nothing was sent");
    // A signed-in profile is not sent elsewhere either: the cached metadata stays in use.
    server.set_metadata(MetadataBehaviour::Plain);
    sandbox.import("demo", &server.mint()).exits(0);
    server.set_metadata(MetadataBehaviour::Custom(JSON, document(&evil, json!({}))));
    age(&sandbox, 2 * 86_400);
    sandbox.keepalive(&["-v", "refresh", "-p", "demo", "--force"]).exits(0).says("it is for issuer");
    assert_eq!((server.counts().refresh_ok, evil.counts().refresh_requests), (1, 0));
}

#[test]
fn endpoint_outside_the_domain_is_refused_and_nothing_is_sent() {
    let server = AuthServer::start(RotationMode::Strict);
    for (members, words) in [
        (
            json!({"token_endpoint": "https://login.acme.evil/token"}),
            "its token endpoint is at https://login.acme.evil",
        ),
        (json!({}), "its token endpoint is at http://127.0.0.1"),
        (
            json!({"token_endpoint": "https://login.acme.example/token", "revocation_endpoint": "https://acme.evil/"}),
            "its revocation endpoint is at https://acme.evil",
        ),
    ] {
        server.set_metadata(MetadataBehaviour::Custom(JSON, document(&server, members)));
        let sandbox = Sandbox::new();
        configure(&sandbox, &server, "endpoint_domain = \"acme.example\"\n");
        let run = sandbox.import("demo", &server.mint()).exits(78);
        run.says(words).says("not https at acme.example or a subdomain").says("nothing was sent");
        sandbox.keepalive(&["login", "demo"]).exits(78).says("cannot be trusted");
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn moved_token_endpoint_gets_no_token_of_the_old_origin() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let other = AuthServer::start(RotationMode::Strict);
    let moved = json!({"token_endpoint": format!("{}/token", other.url())});
    server.set_metadata(MetadataBehaviour::Custom(JSON, document(&server, moved)));
    age(&sandbox, 2 * 86_400);
    // Between loopback addresses http is allowed to the issuer's own origin alone.
    let run = sandbox.keepalive(&["-v", "refresh", "-p", "demo", "--force"]).exits(0);
    run.says("its token endpoint is not https");
    assert_eq!((server.counts().refresh_ok, other.counts().refresh_requests), (1, 0));
}

#[test]
fn missing_credential_is_reported_without_discovery() {
    let sandbox = Sandbox::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sandbox.file_store(&format!(
        "[provider.acme]\nissuer = \"http://{free}\"\nclient_id = \"public\"\n[profile.demo]\nprovider = \"acme\"\n"
    ));
    sandbox.keepalive(&["token", "demo"]).exits(77).says("there is no credential").says("keepalive login demo");
    sandbox.keepalive(&["refresh", "--force", "-p", "demo"]).exits(77).says("there is no credential");
    sandbox.keepalive(&["login", "demo", "--paste"]).exits(75).says("check the network");
    sandbox.keepalive(&["doctor"]).says("keepalive login demo, or keepalive import demo");
}
