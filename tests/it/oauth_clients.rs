//! Client libraries that refresh by themselves: each takes a handle for its refresh token, and tells a login that is needed
//! from a failure that passes.

use std::path::PathBuf;

use super::handles::Served;
use super::oauth_endpoint::{always, sign_in_late};
use super::support::api_client::free_port;
use super::support::auth_server::{AuthServer, Fault};
use super::support::root;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

/// A script below tests/agents/clients, and what it prints for a login that is needed and for a failure that passes.
struct Client {
    script: &'static str,
    dead: &'static str,
    passing: &'static str,
}

const CLIENTS: [Client; 8] = [
    Client { script: "openid_client.mjs", dead: "ResponseBodyError invalid_grant", passing: "ClientError -" },
    Client { script: "google_auth_library.mjs", dead: "400 invalid_grant", passing: "503 temporarily_unavailable" },
    Client { script: "simple_oauth2.mjs", dead: "400 invalid_grant", passing: "503 temporarily_unavailable" },
    Client {
        script: "azure_identity.mjs",
        dead: "CredentialUnavailableError needs a login",
        passing: "CredentialUnavailableError -",
    },
    Client { script: "google_auth.py", dead: "RefreshError final", passing: "RefreshError retryable" },
    Client { script: "authlib_requests.py", dead: "OAuthError invalid_grant", passing: "HTTPError 503" },
    Client {
        script: "requests_oauthlib_session.py",
        dead: "InvalidGrantError invalid_grant",
        passing: "TemporarilyUnavailableError temporarily_unavailable",
    },
    Client {
        script: "azure_identity_app_service.py",
        dead: "ClientAuthenticationError needs a login",
        passing: "ClientAuthenticationError -",
    },
];

/// What a script prints. `environment`: by which it finds the daemon.
fn printed(sandbox: &Sandbox, script: &str, environment: &[(&str, &str)]) -> String {
    let interpreter = match script.ends_with(".py") {
        true => root().join("target/python/bin/python3"),
        false => PathBuf::from("node"),
    };
    let mut command = sandbox.command(&interpreter);
    if script.ends_with(".mjs") {
        // Node 18 has it only so; later ones take the word and do nothing.
        command.arg("--experimental-global-webcrypto");
    }
    let command = command.arg(root().join("tests/agents/clients").join(script)).envs(environment.iter().copied());
    // The outside cannot be reached.
    let out = command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("NO_PROXY", "127.0.0.1").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}: {said}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What each client prints.
fn all_printed(served: &Served, handle: &str) -> Vec<(&'static str, String)> {
    let origin = format!("http://127.0.0.1:{}", served.port);
    let identity = format!("{origin}/msi/token");
    let environment =
        [("ORIGIN", &*origin), ("HANDLE", handle), ("IDENTITY_ENDPOINT", &identity), ("IDENTITY_HEADER", handle)];
    CLIENTS.iter().map(|client| (client.script, printed(&served.sandbox, client.script, &environment))).collect()
}

#[ignore = "needs node, client libraries; contrib/test runs it"]
#[test]
fn client_libraries_get_the_token_for_a_handle() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let token = served.sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    for (script, printed) in all_printed(&served, &handle) {
        assert_eq!(printed, token.trim(), "{script}");
    }
    assert_eq!(served.server.counts().refresh_requests, 0);
}

#[ignore = "needs node, client libraries; contrib/test runs it"]
#[test]
fn client_libraries_tell_a_needed_login_from_a_passing_failure() {
    let dead = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    for (fault, is_dead) in [(Fault::Respond(429, "retry-after: 60\r\n", ""), false), (dead, true)] {
        let served = Served::start();
        let handle = served.handle(&[]);
        always(&served, fault);
        sign_in_late(&served, "demo", 700);
        let expected = CLIENTS.iter().map(|client| if is_dead { client.dead } else { client.passing });
        let expected: Vec<_> = CLIENTS.iter().map(|client| client.script).zip(expected.map(str::to_owned)).collect();
        assert_eq!(all_printed(&served, &handle), expected);
    }
}

#[ignore = "needs node, client libraries; contrib/test runs it"]
#[test]
fn google_auth_gets_the_token_from_the_metadata_server() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let port = free_port();
    let section = format!("[[broker.gce]]\nlisten = \"127.0.0.1:{port}\"\nprofile = \"demo\"\n");
    sandbox.file_store(&format!("{section}{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("listening on 127.0.0.1:{port}"));
    let host = format!("127.0.0.1:{port}");
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    let environment = [("GCE_METADATA_HOST", &*host), ("GCE_METADATA_ROOT", &host), ("GCE_METADATA_IP", &host)];
    assert_eq!(printed(&sandbox, "google_compute_engine.py", &environment), token.trim());
    sandbox.keepalive(&["logout", "demo", "--forget"]);
    assert_eq!(printed(&sandbox, "google_compute_engine.py", &environment), "RefreshError");
}

#[ignore = "needs node, client libraries; contrib/test runs it"]
#[test]
fn prometheus_reads_the_page_of_metrics() {
    let served = Served::start();
    served.sandbox.refresh(&["--force"]).exits(0);
    let handle = served.sandbox.keepalive(&["handle", "create", "--metrics"]).exits(0).stdout;
    let origin = format!("http://127.0.0.1:{}", served.port);
    let environment = [("ORIGIN", &*origin), ("HANDLE", handle.trim())];
    // Of requests there are some once one was answered.
    drop(printed(&served.sandbox, "prometheus_page.py", &environment));
    let families = printed(&served.sandbox, "prometheus_page.py", &environment);
    for family in [
        "keepalive_requests counter",
        "keepalive_request_duration_seconds histogram",
        "keepalive_access_token_expiry_timestamp_seconds gauge",
        "keepalive_profile_state gauge",
    ] {
        assert!(families.lines().any(|line| line == family), "no {family} in {families}");
    }
    assert!(!families.contains("unknown") && !families.contains("untyped"), "{families}");
}
