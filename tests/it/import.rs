//! `import`: what is taken, what is refused, and what it replaces.

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::Sandbox;
use super::support::simultaneous::run_at_once;
use super::support::token_family::RotationMode;

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

fn sandbox(server: &AuthServer) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox
}

#[test]
fn import_reads_a_token_response_from_a_file() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let file = sandbox.path("home/token.json");
    std::fs::write(&file, server.mint().to_string()).unwrap();
    sandbox.keepalive(&["import", "demo", file.to_str().unwrap()]).exits(0).says("imported as generation 1");
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn import_takes_the_expiry_from_any_known_member() {
    let server = AuthServer::start(RotationMode::Strict);
    let left = |answer: serde_json::Value| {
        let sandbox = sandbox(&server);
        sandbox.import("demo", &answer).exits(0);
        let at =
            sandbox.status()["expires_at"].as_str().map(|t| keepalive::clock::Timestamp::parse_rfc3339(t).unwrap());
        at.map(|at| at.as_millis() / 1000 - now())
    };
    let about = |found: Option<i64>, expected: i64| {
        let found = found.unwrap();
        assert!((expected - 5..=expected + 1).contains(&found), "{found} is not about {expected}");
    };
    let (a, r) = ("at", "rt");
    about(left(json!({"access_token": a, "refresh_token": r, "expires_in": 300})), 300);
    about(left(json!({"access_token": a, "refresh_token": r, "expires_at": now() + 500})), 500);
    about(left(json!({"access_token": a, "refresh_token": r, "expires_in": 300, "obtained_at": now() - 100})), 200);
    let claims = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        json!({"exp": now() + 700}).to_string(),
    );
    about(left(json!({"access_token": format!("e30.{claims}.x"), "refresh_token": r})), 700);
    // The shorter of two claims counts.
    about(left(json!({"access_token": format!("e30.{claims}.x"), "refresh_token": r, "expires_in": 60})), 60);
    assert_eq!(left(json!({"refresh_token": r})), None);
}

#[test]
fn import_of_no_token_response_is_refused_with_its_source() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    for (input, words) in [
        ("", "standard input is not a token response"),
        ("{\"access_token\":\"a\"}", "has no refresh_token"),
        ("{\"error\":\"invalid_grant\"}", "contains an error response: invalid_grant"),
        ("<html>", "standard input is not a token response"),
    ] {
        sandbox.keepalive_with_input(&["import", "demo"], input).exits(1).says(words);
    }
    sandbox.keepalive(&["import", "demo", "/nonexistent"]).exits(1).says("cannot read /nonexistent");
    sandbox.keepalive_with_input(&["import", "other"], "{}").exits(77).says("keepalive import other --provider NAME");
    sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
}

#[test]
fn import_keeps_a_newer_credential_without_replace() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let old = server.mint();
    sandbox.import("demo", &server.mint()).exits(0);
    let older = json!({"access_token": "a", "refresh_token": "r", "expires_in": 60});
    sandbox.import("demo", &older).exits(1).says("use --replace");
    sandbox.import("demo", &json!({"refresh_token": "r"})).exits(1).says("use --replace");
    assert_eq!(sandbox.status()["generation"], 1);
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &old.to_string()).exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
    sandbox.import("demo", &old).exits(0).says("already stored");
    assert_eq!(sandbox.status()["generation"], 2);
}

#[test]
fn import_for_another_server_is_refused_without_replace() {
    let (here, there) = (AuthServer::start(RotationMode::Strict), AuthServer::start(RotationMode::Strict));
    let sandbox = Sandbox::new();
    let other = format!("[provider.other]\ntoken_endpoint = \"{}/token\"\nclient_id = \"public\"\n", there.url());
    sandbox.file_store(&format!("{}{other}", here.provider("")));
    let import = |provider: &str, more: &[&str], response: &serde_json::Value| {
        let arguments = [&["--json", "import", "x", "--provider", provider], more].concat();
        sandbox.keepalive_with_input(&arguments, &response.to_string())
    };
    assert_eq!(import("acme", &[], &here.mint()).exits(0).json()["provider"], "acme");
    let later = json!({"access_token": "a", "refresh_token": "r", "expires_in": 864_000});
    import("other", &[], &later)
        .exits(1)
        .says("(provider acme), but this one is for client public at")
        .says("--replace");
    assert_eq!(sandbox.keepalive(&["--json", "status"]).profile()["provider"], "acme");
    import("other", &["--replace"], &later).exits(0);
}

#[test]
fn import_for_a_provider_other_than_configured_is_refused() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    sandbox
        .keepalive_with_input(&["import", "demo", "--provider", "xai"], &server.mint().to_string())
        .exits(78)
        .says("profile demo is configured for acme, not for xai");
    assert_eq!(sandbox.status()["state"], "no_credential");
}

/// Rule 3.
#[test]
fn import_of_a_consumed_token_is_refused_even_with_replace() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let first = server.mint();
    sandbox.import("demo", &first).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    sandbox
        .keepalive_with_input(&["import", "demo", "--replace"], &first.to_string())
        .exits(1)
        .says("been used or rejected before");
    sandbox
        .keepalive_with_input(&["import", "copy", "--provider", "acme"], &first.to_string())
        .exits(1)
        .says("been used or rejected before");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 4.
#[test]
fn import_of_a_token_another_profile_holds_is_refused() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let answer = server.mint();
    sandbox.import("demo", &answer).exits(0);
    for more in [&[] as &[&str], &["--replace"]] {
        let arguments = [&["--json", "import", "copy", "--provider", "acme"], more].concat();
        let run = sandbox.keepalive_with_input(&arguments, &answer.to_string()).exits(1);
        assert_eq!(run.json()["error"]["kind"], "conflict");
        run.says("profile demo already has this refresh token").says("keepalive login copy");
    }
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1);
    sandbox.keepalive_with_input(&["import", "copy", "--provider", "acme"], &answer.to_string()).exits(0);
}

#[test]
fn concurrent_imports_of_one_token_store_it_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let file = sandbox.path("home/token.json");
    std::fs::write(&file, server.mint().to_string()).unwrap();
    let import = |name| vec!["import", name, file.to_str().unwrap(), "--provider", "acme"];
    let mut codes: Vec<i32> =
        run_at_once(&sandbox, &[import("demo"), import("copy")]).iter().map(|run| run.status).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 1]);
}

#[test]
fn reimport_of_the_current_token_changes_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let mut answer = server.mint();
    sandbox.import("demo", &answer).exits(0);
    // When it is refreshed next is told by two clocks, which drift by milliseconds.
    let shown = || {
        let mut status = sandbox.status();
        status.as_object_mut().unwrap().remove("refresh_at");
        status
    };
    let before = shown();
    // A copy that claims to live longer is the same refresh token still.
    answer["expires_in"] = json!(86400);
    let run = sandbox.keepalive_with_input(&["--json", "import", "demo"], &answer.to_string()).exits(0);
    let (told, after) = (run.json(), shown());
    assert_eq!((&told["outcome"], &told["generation"]), (&json!("fresh"), &json!(1)), "{run:#?}");
    assert_eq!((&told["expires_at"], &before), (&before["expires_at"], &after));
    run.says("demo: this credential is already stored as generation 1; nothing to do");
}

#[test]
fn dead_token_of_an_import_is_never_handed_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let dead = json!({"access_token": "DEAD", "refresh_token": "rt", "expiry": "2024-05-07T10:00:00.123456789+02:00"});
    sandbox.import_as_is("demo", &dead).exits(0).says("expired 2024-05-07T08:00:00Z");
    server.script([Fault::Respond(503, "", "")]);
    let run = sandbox.keepalive(&["token", "demo"]);
    assert!(!run.stdout.contains("DEAD"), "{run:?}");
    assert_eq!(sandbox.status()["expires_at"], "2024-05-07T08:00:00.123Z");
}

#[test]
fn token_of_unknown_age_is_refreshed_before_it_is_handed_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server);
    let unknown = json!({"access_token": "MAYBE", "refresh_token": "rt", "expires_at": "soon"});
    sandbox.import_as_is("demo", &unknown).exits(0).says("assumed valid until").says("\"expires_at\" is no time");
    let status = sandbox.status();
    assert_eq!((&status["state"], &status["assumed"]), (&json!("due"), &json!(true)), "{status}");
    // The reason passes, so a token that may live is better than none.
    server.script([Fault::Respond(429, "", "")]);
    let run = sandbox.keepalive(&["--json", "token", "demo"]).exits(0).says("is assumed");
    assert_eq!((&run.json()["access_token"], &run.json()["assumed"]), (&json!("MAYBE"), &json!(true)));
    // The refresh token is refused, and so nothing speaks for the access token.
    let sandbox = self::sandbox(&server);
    sandbox.import_as_is("demo", &json!({"access_token": "MAYBE", "refresh_token": "gone"})).exits(0);
    let run = sandbox.keepalive(&["token", "demo"]).exits(77);
    assert!(!run.stdout.contains("MAYBE"), "{run:?}");
}
