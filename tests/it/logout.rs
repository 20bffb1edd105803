//! `logout` as a person sees it: what is revoked, what is only forgotten, and what is left when it goes wrong.

use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::{Run, Sandbox};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::simultaneous::run_at_once;
use super::support::token_family::RotationMode;

const DEMO: &str = "[profile.demo]\nprovider = \"acme\"\n";

/// A sandbox signed in at a server with a revocation endpoint, and the tokens that it signed in with.
fn at(server: &AuthServer, faults: impl IntoIterator<Item = Fault>) -> (Sandbox, Value) {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}{DEMO}", server.provider_with_revocation(faults)));
    let tokens = server.mint();
    sandbox.import("demo", &tokens).exits(0);
    (sandbox, tokens)
}

fn logout(sandbox: &Sandbox, more: &[&str]) -> Run {
    sandbox.keepalive(&[&["--json", "logout", "demo"], more].concat())
}

/// The members of `logout --json` that tell what happened.
fn told(run: &Run) -> [Value; 3] {
    let document = run.json();
    ["outcome", "refresh_token", "access_token"].map(|member| document[member].clone())
}

fn files(sandbox: &Sandbox) -> Vec<String> {
    let dir = sandbox.path("state/keepalive/profiles/demo");
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Signed out: nothing is kept but the tombstone, and `status` and `token` report it.
fn assert_gone(sandbox: &Sandbox) {
    assert_eq!(files(sandbox), ["lock", "record.json"]);
    assert_eq!(sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(77).profile()["state"], "no_credential");
    sandbox.keepalive(&["token", "demo"]).exits(77).says("there is no credential");
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(77).says("there is no credential");
}

/// Nothing has happened.
fn assert_signed_in(sandbox: &Sandbox) {
    assert!(files(sandbox).contains(&"sealed".to_owned()));
    assert_eq!(sandbox.status()["state"], "fresh");
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn logout_revokes_and_forgets_both_tokens() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, tokens) = at(&server, []);
    let run = logout(&sandbox, &[]).exits(0).says("signed out; refresh token and access token revoked at acme");
    assert_eq!(told(&run), [json!("revoked"), json!("revoked"), json!("revoked")]);
    let sent = |kind: &str| (kind.to_owned(), tokens[kind].as_str().unwrap().to_owned());
    assert_eq!(server.revoked(), [sent("refresh_token"), sent("access_token")]);
    assert!(!server.is_family_alive(0));
    assert_gone(&sandbox);
    logout(&sandbox, &[]).exits(77).says("there is no credential");
    assert_eq!(server.revoked().len(), 2);
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 37.
#[test]
fn logout_output_and_journal_contain_no_secret() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, [Fault::DropBefore, Fault::Respond(400, "", "canary-echo")]);
    for exit in [75, 1] {
        let run = sandbox.keepalive(&["-vv", "logout", "demo"]).exits(exit);
        assert!(run.stderr.contains("logged out") == (exit == 1), "the log is on");
        assert!(!(run.stdout + &run.stderr).contains("canary"));
        let journal = sandbox.path("state/keepalive/profiles/demo/record.json");
        assert!(!std::fs::read_to_string(journal).unwrap().contains("canary"));
    }
}

#[test]
fn revoked_token_is_refused_and_generations_continue() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, tokens) = at(&server, []);
    sandbox.refresh(&["--force"]).exits(0);
    let newest = server.current_refresh_token(0);
    logout(&sandbox, &[]).exits(0);
    for revoked in [tokens, json!({"refresh_token": newest})] {
        sandbox.import("demo", &revoked).exits(1).says("been used or rejected before");
        let elsewhere = ["import", "other", "--provider", "acme"];
        sandbox.keepalive_with_input(&elsewhere, &revoked.to_string()).exits(1).says("been used or rejected before");
    }
    sandbox.import("demo", &server.mint()).exits(0).says("imported as generation 3");
    assert_signed_in(&sandbox);
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn logout_discovers_the_revocation_endpoint() {
    let server = AuthServer::start(RotationMode::Strict);
    server.revocation_script([]);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("[provider.acme]\nissuer = \"{}\"\nclient_id = \"public\"\n{DEMO}", server.url()));
    sandbox.import("demo", &server.mint()).exits(0);
    logout(&sandbox, &[]).exits(0);
    assert!(!server.is_family_alive(0));
    assert_gone(&sandbox);
}

#[test]
fn logout_authenticates_a_confidential_client() {
    let server = AuthServer::start(RotationMode::Strict);
    server.require_secret("hush");
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("home/secret"), "hush").unwrap();
    let how = "client_auth = \"client_secret_basic\"\nclient_secret = { file = \"~/secret\" }\n";
    let provider = format!("{}{how}{DEMO}", server.provider_with_revocation([]));
    sandbox.file_store(&provider);
    sandbox.import("demo", &server.mint()).exits(0);
    std::fs::write(sandbox.path("home/secret"), "wrong").unwrap();
    let run = logout(&sandbox, &[]).exits(78).says("demo is still signed in: acme returned 401 invalid_client");
    let run = run.says("revocation_endpoint in [provider.acme]; or delete it here anyway");
    assert_eq!(told(&run)[0], "config_error");
    std::fs::write(sandbox.path("home/secret"), "hush").unwrap();
    assert_signed_in(&sandbox);
    logout(&sandbox, &[]).exits(0);
    assert_gone(&sandbox);
}

#[test]
fn logout_without_a_revocation_endpoint_only_forgets() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run =
        logout(&sandbox, &[]).exits(1).says("acme has no revocation endpoint").says("the token stays valid there");
    assert!(run.stderr.contains("error: demo: the refresh token was not revoked"), "it is said to the quiet, too");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("left")]);
    assert_eq!(run.json()["error"]["kind"], "no_revocation_endpoint");
    assert!(server.is_family_alive(0));
    assert_gone(&sandbox);
    // Not revoked, so it may come back.
    sandbox.import("demo", &json!({"refresh_token": server.current_refresh_token(0)})).exits(0);
}

#[test]
fn logout_forgets_a_token_type_the_server_cannot_revoke() {
    let server = AuthServer::start(RotationMode::Strict);
    let refusal = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"unsupported_token_type"}"#);
    let (sandbox, _) = at(&server, [refusal]);
    let run = logout(&sandbox, &[]).exits(1).says("acme returned 400 unsupported_token_type");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("revoked")]);
    assert_gone(&sandbox);
}

#[test]
fn logout_reports_an_access_token_left_unrevoked() {
    let server = AuthServer::start(RotationMode::Strict);
    let as_it_should = Fault::ReplaceMembers(json!({}));
    let (sandbox, tokens) = at(&server, [as_it_should, Fault::Respond(503, "", "")]);
    let run = logout(&sandbox, &[]).exits(0).says("the access token was not revoked, and may stay valid");
    assert_eq!(told(&run), [json!("revoked"), json!("revoked"), json!("left")]);
    assert_eq!(server.revoked(), [("refresh_token".to_owned(), tokens["refresh_token"].as_str().unwrap().to_owned())]);
    assert_gone(&sandbox);
}

#[test]
fn failed_revocation_keeps_the_profile_without_forget() {
    let server = AuthServer::start(RotationMode::Strict);
    let busy = Fault::Respond(429, "retry-after: 7\r\n", "");
    let (sandbox, _) = at(&server, [busy.clone(), busy]);
    let run = logout(&sandbox, &[]).exits(75).says("demo is still signed in").says("keepalive logout demo --forget");
    assert_eq!(told(&run), [json!("deferred"), Value::Null, Value::Null]);
    assert!(run.json()["retry_at"].is_string());
    assert_signed_in(&sandbox);
    let run = logout(&sandbox, &["--forget"]).exits(1).says("acme returned 429");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("left")]);
    assert_gone(&sandbox);
    assert!(server.is_family_alive(0));
}

#[test]
fn logout_changes_nothing_when_the_server_is_unreachable() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at_closed = |tail: &str| {
        format!(
            "[provider.acme]\ntoken_endpoint = \"http://{closed}/token\"\nrevocation_endpoint = \"http://{closed}/revoke\"\n\
             client_id = \"public\"\n{DEMO}{tail}"
        )
    };
    sandbox.file_store(&at_closed(""));
    sandbox.import("demo", &server.mint()).exits(0);
    let journal = || std::fs::read(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
    let before = journal();
    logout(&sandbox, &[]).exits(75).says("cannot reach http://127.0.0.1");
    assert_eq!(journal(), before);
    logout(&sandbox, &["--forget"]).exits(1);
    assert_gone(&sandbox);
}

#[test]
fn lost_revocation_response_is_in_doubt_until_settled() {
    let server = AuthServer::start(RotationMode::Strict);
    for is_revoked in [true, false] {
        let fault = if is_revoked { Fault::DropAfter } else { Fault::DropBefore };
        let (sandbox, tokens) = at(&server, [fault.clone(), fault]);
        let run = logout(&sandbox, &[]).exits(75).says("the refresh token may or may not be revoked");
        assert_eq!(run.json()["error"]["kind"], "revocation_in_doubt");
        let status = sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(75).profile();
        assert_eq!((&status["state"], &status["error"]["kind"]), (&json!("in_doubt"), &json!("revocation_in_doubt")));
        // A refresh asked for by the user shows from the server's response whether the token was revoked.
        sandbox.keepalive(&["refresh", "-p", "demo"]).exits(if is_revoked { 77 } else { 0 });
        let state = sandbox.status()["state"].clone();
        assert_eq!(state, if is_revoked { "needs_login" } else { "fresh" });
        if !is_revoked {
            logout(&sandbox, &[]).exits(75);
        }
        logout(&sandbox, &[]).exits(0);
        assert_gone(&sandbox);
        sandbox.import("demo", &tokens).exits(1).says("been used or rejected before");
    }
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn logout_removes_rejected_and_in_doubt_credentials() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, tokens) = at(&server, [Fault::Respond(502, "", "")]);
    let dead = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    server.script([dead]);
    sandbox.refresh(&["--force"]).exits(77);
    // A rejected token needs no revocation, so a silent server is no reason to keep it.
    let run = logout(&sandbox, &[]).exits(0).says("refresh token was already invalid");
    assert_eq!(told(&run), [json!("revoked"), json!("dead"), json!("left")]);
    assert_gone(&sandbox);
    sandbox.import("demo", &tokens).exits(1).says("been used or rejected before");

    // Nor does it need a configuration that can be asked anything.
    let (sandbox, _) = at(&server, []);
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    sandbox.file_store(&format!("[provider.acme]\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"public\"\n{DEMO}"));
    logout(&sandbox, &[]).exits(0).says("refresh token was already invalid");
    sandbox.file_store(&format!("{}{DEMO}", server.provider("")));
    assert_gone(&sandbox);

    let (sandbox, _) = at(&server, []);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(sandbox.status()["state"], "in_doubt");
    logout(&sandbox, &[]).exits(0).says("refresh token");
    assert!(!server.is_family_alive(2), "its successor, which never arrived, is revoked with it");
    assert_gone(&sandbox);
    sandbox.import("demo", &server.mint()).exits(0);
    assert_signed_in(&sandbox);
}

#[test]
fn logout_sends_nothing_to_another_server() {
    let (server, other) = (AuthServer::start(RotationMode::Strict), AuthServer::start(RotationMode::Strict));
    let (sandbox, _) = at(&server, []);
    sandbox.file_store(&format!("{}{DEMO}", other.provider_with_revocation([])));
    let run = logout(&sandbox, &[]).exits(78).says("was issued to client public at").says("restore [provider.acme]");
    assert_eq!(run.json()["error"]["kind"], "other_server");
    let elsewhere = format!("revocation_endpoint = \"{}/revoke\"\n{DEMO}", other.url());
    sandbox.file_store(&server.provider(&elsewhere));
    logout(&sandbox, &[]).exits(78).says("the revocation endpoint is at").says("check revocation_endpoint");
    assert!(server.revoked().is_empty() && other.revoked().is_empty());
    assert_signed_in(&sandbox);
    logout(&sandbox, &["--forget"]).exits(1);
    assert!(server.revoked().is_empty() && other.revoked().is_empty());
    assert_gone(&sandbox);
}

#[test]
fn logout_forgets_a_profile_with_broken_configuration() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, []);
    sandbox.file_store(&server.provider("").replace("acme", "emca"));
    logout(&sandbox, &[]).exits(78).says("--forget");
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    sandbox.config(&format!("[store]\nkind = \"file\"\nkey = {{ file = \"~/key\" }}\n{}{DEMO}", server.provider("")));
    logout(&sandbox, &[]).exits(78).says("the key file").says("--forget");
    logout(&sandbox, &["--forget"]).exits(1).says("the key file");
    assert_eq!(files(&sandbox), ["lock", "record.json"]);
}

/// Rule 1.
#[test]
fn logout_waits_for_a_flight_and_revokes_its_new_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, []);
    let gate = server.hold(HoldPoint::AfterCommit);
    let refresh = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    let leaving = sandbox.spawn(&["logout", "demo"]);
    leaving.wait_for_line("waiting for a refresh in progress");
    assert!(server.revoked().is_empty());
    let impatient = sandbox.spawn(&["logout", "demo"]);
    impatient.wait_for_line("waiting for a refresh");
    impatient.terminate();
    impatient.finish().exits(-15);
    drop(gate);
    refresh.finish().exits(0);
    leaving.finish().exits(0).says("signed out");
    assert_eq!(server.revoked()[0].1, server.current_refresh_token(0));
    assert_gone(&sandbox);
}

#[test]
fn logout_revokes_the_token_of_a_recovered_response() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, []);
    let folder = sandbox.path("state/keepalive/profiles/demo");
    let before = ["record.json", "sealed"].map(|file| (file, std::fs::read(folder.join(file)).unwrap()));
    sandbox.refresh(&["--force"]).exits(0);
    // As if it had been killed between the seal and all that follows from it.
    std::fs::rename(folder.join("sealed"), folder.join("received")).unwrap();
    for (file, bytes) in before {
        std::fs::write(folder.join(file), bytes).unwrap();
    }
    logout(&sandbox, &[]).exits(0);
    assert_eq!(server.revoked()[0].1, server.current_refresh_token(0));
    assert_gone(&sandbox);
    sandbox.import("demo", &server.mint()).exits(0).says("imported as generation 3");
}

#[test]
fn logout_completes_an_interrupted_logout() {
    let server = AuthServer::start(RotationMode::Strict);
    for (provider, exit) in [(server.provider_with_revocation([]), 0), (server.provider(""), 1)] {
        let sandbox = Sandbox::new();
        sandbox.file_store(&format!("{provider}{DEMO}"));
        sandbox.import("demo", &server.mint()).exits(0);
        let sealed = sandbox.path("state/keepalive/profiles/demo/sealed");
        let before = std::fs::read(&sealed).unwrap();
        logout(&sandbox, &[]).exits(exit);
        // As if it had been killed right behind the tombstone.
        std::fs::write(&sealed, before).unwrap();
        let run = sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
        assert!(run.stdout.contains("no credential"), "{run:?}");
        sandbox.keepalive(&["token", "demo"]).exits(77);
        sandbox.keepalive(&["doctor"]).exits(77).says("demo is signed out, but the logout was interrupted");
        let sent = server.revoked().len();
        logout(&sandbox, &[]).exits(exit).says("the interrupted logout is now complete");
        assert_eq!(server.revoked().len(), sent, "nothing is sent again");
        assert_gone(&sandbox);
    }
}

#[test]
fn logout_of_an_unknown_profile_creates_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file_store("");
    let run = logout(&sandbox, &[]).exits(77).says("no profile \"demo\"");
    assert_eq!(told(&run), [json!("no_credential"), Value::Null, Value::Null]);
    assert!(!sandbox.path("state/keepalive").exists(), "nothing was made for it");
}

#[test]
fn daemon_notices_a_logout_and_a_later_import() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(std::time::Duration::from_secs(3));
    let (sandbox, _) = at(&server, []);
    let daemon = sandbox.daemon();
    server.wait_for("a refresh", |c| c.refresh_ok >= 1);
    logout(&sandbox, &[]).exits(0);
    let made = server.counts().refresh_requests;
    sandbox.keepalive(&["token", "demo"]).exits(77).says("there is no credential");
    daemon.wait_for_line("signed out");
    assert_eq!(server.counts().refresh_requests, made);
    sandbox.import("demo", &server.mint()).exits(0);
    server.wait_for("a refresh of the new one", |c| c.refresh_requests > made);
    assert_eq!(server.counts().presented_again, 0);
    daemon.terminate();
    daemon.finish().exits(0);
}

/// Rule 1.
#[test]
fn concurrent_logouts_sign_out_once_and_replay_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, []);
    let calls = [vec![vec!["logout", "demo"]; 6], vec![vec!["refresh", "-p", "demo", "--force"]; 4]].concat();
    let runs = run_at_once(&sandbox, &calls);
    let of = |status: i32| runs.iter().take(6).filter(|run| run.status == status).count();
    assert_eq!((of(0), of(77)), (1, 5), "{runs:#?}");
    assert!(runs.iter().skip(6).all(|run| matches!(run.status, 0 | 77)), "{runs:#?}");
    assert_eq!((server.revoked().len(), server.counts().presented_again), (2, 0));
    assert_gone(&sandbox);
}

/// Rule 28.
#[test]
fn logout_finishes_a_sent_revocation_on_sigterm() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _) = at(&server, []);
    let gate = server.hold(HoldPoint::AfterCommit);
    let leaving = sandbox.spawn(&["logout", "demo"]);
    gate.wait_reached();
    leaving.terminate();
    drop(gate);
    leaving.finish().exits(0).says("signed out");
    assert_gone(&sandbox);
}

fn keyring_items(bus: &SessionBus, service: &str) -> usize {
    let found = bus.secret_tool(&["search", "--all", "service", service], "");
    (found.stdout + &found.stderr).matches("attribute.username").count()
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn logout_removes_the_keyring_item_and_the_last_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_with_revocation([])));
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.keepalive_with_input(&["import", "two", "--provider", "acme"], &server.mint().to_string()).exits(0);
    let twin = ["store", "--label=twin", "service", "keepalive", "username", "demo", "extra", "1"];
    bus.secret_tool(&twin, r#"{"generation":0}"#).exits(0);
    assert_eq!((keyring_items(&bus, "keepalive"), keyring_items(&bus, "keepalive-key")), (3, 1));
    logout(&sandbox, &[]).exits(0).says("1 keyring items of other programs");
    assert_eq!((keyring_items(&bus, "keepalive"), keyring_items(&bus, "keepalive-key")), (2, 1));
    assert_gone(&sandbox);
    sandbox.keepalive(&["refresh", "-p", "two", "--force"]).exits(0);
    sandbox.keepalive(&["logout", "two"]).exits(0);
    assert_eq!((keyring_items(&bus, "keepalive"), keyring_items(&bus, "keepalive-key")), (1, 0));
    assert_gone(&sandbox);
    bus.secret_tool(&["clear", "service", "keepalive", "username", "demo"], "").exits(0);
    sandbox.keepalive(&["-v", "doctor"]).says("will be created with the first credential");
    sandbox.import("demo", &server.mint()).exits(0).says("imported as generation 2");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(keyring_items(&bus, "keepalive-key"), 1);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn logout_reports_a_keyring_item_of_a_former_store_kind() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    let rest = format!("{}{DEMO}", server.provider_with_revocation([]));
    sandbox.config(&rest);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.file_store(&rest);
    let clear = "secret-tool clear service keepalive username demo";
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1).says("the keyring may still have a copy").says(clear);
    assert_eq!(keyring_items(&bus, "keepalive"), 1);
    // Where nothing was ever published there is nothing to tell.
    sandbox.import("demo", &server.mint()).exits(0);
    let told = sandbox.keepalive(&["logout", "demo"]).exits(0);
    assert!(!told.stderr.contains("keyring"), "{told:#?}");
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn daemon_uses_the_key_created_after_the_last_logout() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_with_revocation([])));
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let daemon = sandbox.daemon();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0);
    sandbox.keepalive(&["token", "demo"]).exits(0);
    logout(&sandbox, &[]).exits(0);
    sandbox.keepalive(&["token", "demo"]).exits(77);
    let second = server.mint();
    sandbox.import("demo", &second).exits(0);
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    assert_eq!(token.trim(), second["access_token"]);
    daemon.terminate();
    daemon.finish().exits(0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn logout_changes_nothing_when_the_keyring_is_unavailable() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_with_revocation([])));
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    bus.lock();
    for more in [&[][..], &["--forget"]] {
        let run = logout(&sandbox, more).exits(69).says("the keyring is locked");
        assert_eq!(told(&run)[0], "store_unavailable");
    }
    bus.kill_keyring();
    logout(&sandbox, &["--forget"]).exits(69).says("no keyring service runs");
    bus.start_keyring();
    assert!(server.revoked().is_empty());
    assert_signed_in(&sandbox);
    logout(&sandbox, &[]).exits(0);
    assert_eq!(keyring_items(&bus, "keepalive"), 0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn logout_revokes_both_tokens_at_oidc_provider() {
    let server = OidcProvider::start(60, 0);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"oidc\"\n", server.provider()));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let token = sandbox.keepalive(&["token", "demo", "--min-valid", "1s"]).exits(0).stdout;
    assert!(server.accepts(token.trim()));
    let run = logout(&sandbox, &[]).exits(0).says("refresh token and access token revoked at oidc");
    assert_eq!(told(&run), [json!("revoked"), json!("revoked"), json!("revoked")]);
    assert!(!server.accepts(token.trim()));
    assert_gone(&sandbox);
    assert_eq!(server.counts().presented_again, 0);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}
