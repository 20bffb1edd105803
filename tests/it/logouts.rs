//! `logout` as a person sees it: what is revoked, what is only forgotten, and what is left when it goes wrong.

use serde_json::{Value, json};

use super::support::authserver::{AuthServer, Fault, Point};
use super::support::bus::{Bus, Keyring};
use super::support::family::Mode;
use super::support::herd::stampede;
use super::support::oidc::OidcProvider;
use super::support::sandbox::{Run, Sandbox};

const DEMO: &str = "[profile.demo]\nprovider = \"acme\"\n";

/// A sandbox signed in at a server with a revocation endpoint, and the tokens that it signed in with.
fn at(server: &AuthServer, faults: impl IntoIterator<Item = Fault>) -> (Sandbox, Value) {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}{DEMO}", server.provider_that_revokes(faults)));
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

/// Signed out: nothing is kept but the tombstone, and everybody is told so.
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
fn both_tokens_are_revoked_and_forgotten() {
    let server = AuthServer::start(Mode::Strict);
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

#[test]
fn r37_no_token_and_no_secret_is_said_or_written() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, _) = at(&server, [Fault::DropBefore, Fault::Answer(400, "", "canary-echo")]);
    for exit in [75, 1] {
        let run = sandbox.keepalive(&["-vv", "logout", "demo"]).exits(exit);
        assert!(run.stderr.contains("forgotten") == (exit == 1), "the log is on");
        assert!(!(run.stdout + &run.stderr).contains("canary"));
        let journal = sandbox.path("state/keepalive/profiles/demo/record.json");
        assert!(!std::fs::read_to_string(journal).unwrap().contains("canary"));
    }
}

#[test]
fn what_was_revoked_does_not_come_back_and_a_new_login_counts_on() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, tokens) = at(&server, []);
    sandbox.refresh(&["--force"]).exits(0);
    let newest = server.current_refresh_token(0);
    logout(&sandbox, &[]).exits(0);
    for revoked in [tokens, json!({"refresh_token": newest})] {
        sandbox.import("demo", &revoked).exits(1).says("already used or refused");
        let elsewhere = ["import", "other", "--provider", "acme"];
        sandbox.keepalive_with_input(&elsewhere, &revoked.to_string()).exits(1).says("already used or refused");
    }
    sandbox.import("demo", &server.mint()).exits(0).says("imported as generation 3");
    assert_signed_in(&sandbox);
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn the_endpoint_is_discovered_too() {
    let server = AuthServer::start(Mode::Strict);
    server.revocation_script([]);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("[provider.acme]\nissuer = \"{}\"\nclient_id = \"public\"\n{DEMO}", server.url()));
    sandbox.import("demo", &server.mint()).exits(0);
    logout(&sandbox, &[]).exits(0);
    assert!(!server.is_family_alive(0));
    assert_gone(&sandbox);
}

#[test]
fn a_client_with_a_secret_authenticates() {
    let server = AuthServer::start(Mode::Strict);
    server.require_secret("hush");
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("home/secret"), "hush").unwrap();
    let how = "client_auth = \"client_secret_basic\"\nclient_secret = { file = \"~/secret\" }\n";
    let provider = format!("{}{how}{DEMO}", server.provider_that_revokes([]));
    sandbox.file_store(&provider);
    sandbox.import("demo", &server.mint()).exits(0);
    std::fs::write(sandbox.path("home/secret"), "wrong").unwrap();
    let run = logout(&sandbox, &[]).exits(78).says("demo is still signed in: acme answered 401 invalid_client");
    let run = run.says("revocation_endpoint in [provider.acme]; or forget it here all the same");
    assert_eq!(told(&run)[0], "config_error");
    std::fs::write(sandbox.path("home/secret"), "hush").unwrap();
    assert_signed_in(&sandbox);
    logout(&sandbox, &[]).exits(0);
    assert_gone(&sandbox);
}

#[test]
fn a_provider_that_revokes_nothing_is_only_forgotten() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = logout(&sandbox, &[]).exits(1).says("acme has no revocation endpoint").says("whoever has a copy");
    assert!(run.stderr.contains("error: demo: the refresh token is not revoked"), "it is said to the quiet, too");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("left")]);
    assert_eq!(run.json()["error"]["kind"], "no_revocation_endpoint");
    assert!(server.is_family_alive(0));
    assert_gone(&sandbox);
    // Not revoked, so it may come back.
    sandbox.import("demo", &json!({"refresh_token": server.current_refresh_token(0)})).exits(0);
}

#[test]
fn a_kind_of_token_that_is_not_revoked_there_is_forgotten() {
    let server = AuthServer::start(Mode::Strict);
    let refusal = Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"unsupported_token_type"}"#);
    let (sandbox, _) = at(&server, [refusal]);
    let run = logout(&sandbox, &[]).exits(1).says("acme answered 400 unsupported_token_type");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("revoked")]);
    assert_gone(&sandbox);
}

#[test]
fn an_access_token_that_is_left_is_told_of() {
    let server = AuthServer::start(Mode::Strict);
    let as_it_should = Fault::Members(json!({}));
    let (sandbox, tokens) = at(&server, [as_it_should, Fault::Answer(503, "", "")]);
    let run = logout(&sandbox, &[]).exits(0).says("the access token was not revoked, and may be accepted");
    assert_eq!(told(&run), [json!("revoked"), json!("revoked"), json!("left")]);
    assert_eq!(server.revoked(), [("refresh_token".to_owned(), tokens["refresh_token"].as_str().unwrap().to_owned())]);
    assert_gone(&sandbox);
}

#[test]
fn what_cannot_be_revoked_now_is_kept_unless_the_person_says_otherwise() {
    let server = AuthServer::start(Mode::Strict);
    let busy = Fault::Answer(429, "retry-after: 7\r\n", "");
    let (sandbox, _) = at(&server, [busy.clone(), busy]);
    let run = logout(&sandbox, &[]).exits(75).says("demo is still signed in").says("keepalive logout demo --forget");
    assert_eq!(told(&run), [json!("deferred"), Value::Null, Value::Null]);
    assert!(run.json()["retry_at"].is_string());
    assert_signed_in(&sandbox);
    let run = logout(&sandbox, &["--forget"]).exits(1).says("acme answered 429");
    assert_eq!(told(&run), [json!("forgotten"), json!("left"), json!("left")]);
    assert_gone(&sandbox);
    assert!(server.is_family_alive(0));
}

#[test]
fn a_provider_that_cannot_be_reached_changes_nothing() {
    let server = AuthServer::start(Mode::Strict);
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
fn an_answer_that_is_lost_leaves_a_doubt_that_the_next_logout_or_refresh_settles() {
    let server = AuthServer::start(Mode::Strict);
    for is_revoked in [true, false] {
        let fault = if is_revoked { Fault::DropAfter } else { Fault::DropBefore };
        let (sandbox, tokens) = at(&server, [fault.clone(), fault]);
        let run = logout(&sandbox, &[]).exits(75).says("the refresh token may be revoked, or not");
        assert_eq!(run.json()["error"]["kind"], "revocation_in_doubt");
        let status = sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(75).profile();
        assert_eq!((&status["state"], &status["error"]["kind"]), (&json!("in_doubt"), &json!("revocation_in_doubt")));
        // Whoever asks for a refresh is told the truth by the server.
        sandbox.keepalive(&["refresh", "-p", "demo"]).exits(if is_revoked { 77 } else { 0 });
        let state = sandbox.status()["state"].clone();
        assert_eq!(state, if is_revoked { "needs_login" } else { "fresh" });
        if !is_revoked {
            logout(&sandbox, &[]).exits(75);
        }
        logout(&sandbox, &[]).exits(0);
        assert_gone(&sandbox);
        sandbox.import("demo", &tokens).exits(1).says("already used or refused");
    }
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn a_dead_credential_and_one_in_doubt_are_signed_out_as_well() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, tokens) = at(&server, [Fault::Answer(502, "", "")]);
    let dead = Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    server.script([dead]);
    sandbox.refresh(&["--force"]).exits(77);
    // A dead token needs no revocation, so that nobody answers is no reason to keep it.
    let run = logout(&sandbox, &[]).exits(0).says("its refresh token was dead");
    assert_eq!(told(&run), [json!("revoked"), json!("dead"), json!("left")]);
    assert_gone(&sandbox);
    sandbox.import("demo", &tokens).exits(1).says("already used or refused");

    // Nor does it need a configuration that can be asked anything.
    let (sandbox, _) = at(&server, []);
    server.script([Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    sandbox.file_store(&format!("[provider.acme]\nissuer = \"http://127.0.0.1:9\"\nclient_id = \"public\"\n{DEMO}"));
    logout(&sandbox, &[]).exits(0).says("its refresh token was dead");
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
fn nothing_is_sent_to_another_server_or_for_another_client() {
    let (server, other) = (AuthServer::start(Mode::Strict), AuthServer::start(Mode::Strict));
    let (sandbox, _) = at(&server, []);
    sandbox.file_store(&format!("{}{DEMO}", other.provider_that_revokes([])));
    let run = logout(&sandbox, &[]).exits(78).says("belongs to client public at").says("restore [provider.acme]");
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
fn a_profile_whose_configuration_is_broken_can_be_forgotten() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, _) = at(&server, []);
    sandbox.file_store(&server.provider("").replace("acme", "emca"));
    logout(&sandbox, &[]).exits(78).says("--forget");
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    sandbox.config(&format!("[store]\nkind = \"file\"\nkey = {{ file = \"~/key\" }}\n{}{DEMO}", server.provider("")));
    logout(&sandbox, &[]).exits(78).says("the key file").says("--forget");
    logout(&sandbox, &["--forget"]).exits(1).says("the key file");
    assert_eq!(files(&sandbox), ["lock", "record.json"]);
}

#[test]
fn r01_a_refresh_in_the_air_is_waited_for_and_its_successor_is_revoked() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, _) = at(&server, []);
    let gate = server.hold(Point::AfterCommit);
    let refresh = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    let leaving = sandbox.spawn(&["logout", "demo"]);
    leaving.wait_for_line("a refresh is under way; waiting until it is over");
    assert!(server.revoked().is_empty());
    let impatient = sandbox.spawn(&["logout", "demo"]);
    impatient.wait_for_line("a refresh is under way");
    impatient.terminate();
    impatient.finish().exits(-15);
    drop(gate);
    refresh.finish().exits(0);
    leaving.finish().exits(0).says("signed out");
    assert_eq!(server.revoked()[0].1, server.current_refresh_token(0));
    assert_gone(&sandbox);
}

#[test]
fn an_answer_that_a_dead_run_left_sealed_is_what_is_revoked() {
    let server = AuthServer::start(Mode::Strict);
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
fn what_an_interrupted_run_left_behind_is_told_and_removed() {
    let server = AuthServer::start(Mode::Strict);
    for (provider, exit) in [(server.provider_that_revokes([]), 0), (server.provider(""), 1)] {
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
        sandbox.keepalive(&["doctor"]).exits(0).says("demo is signed out, but the logout was interrupted");
        let sent = server.revoked().len();
        logout(&sandbox, &[]).exits(exit).says("the logout that was interrupted is complete");
        assert_eq!(server.revoked().len(), sent, "nothing is sent again");
        assert_gone(&sandbox);
    }
}

#[test]
fn a_profile_that_never_was_is_not_signed_out() {
    let sandbox = Sandbox::new();
    sandbox.file_store("");
    let run = logout(&sandbox, &[]).exits(77).says("there is no credential for profile demo");
    assert_eq!(told(&run), [json!("no_credential"), Value::Null, Value::Null]);
    assert!(!sandbox.path("state/keepalive").exists(), "nothing was made for it");
}

#[test]
fn a_daemon_sees_it_and_the_login_after_it() {
    let server = AuthServer::start(Mode::Strict);
    server.set_access_life(std::time::Duration::from_secs(3));
    let (sandbox, _) = at(&server, []);
    let daemon = sandbox.daemon();
    server.wait_for("a refresh", |c| c.refresh_ok >= 1);
    logout(&sandbox, &[]).exits(0);
    let made = server.counts().refresh_requests;
    sandbox.keepalive(&["token", "demo"]).exits(77).says("there is no credential");
    daemon.wait_for_line("is signed out");
    assert_eq!(server.counts().refresh_requests, made);
    sandbox.import("demo", &server.mint()).exits(0);
    server.wait_for("a refresh of the new one", |c| c.refresh_requests > made);
    assert_eq!(server.counts().presented_again, 0);
    daemon.terminate();
    daemon.finish().exits(0);
}

#[test]
fn r01_of_many_at_once_one_signs_out_and_nothing_is_presented_again() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, _) = at(&server, []);
    let calls = [vec![vec!["logout", "demo"]; 6], vec![vec!["refresh", "-p", "demo", "--force"]; 4]].concat();
    let runs = stampede(&sandbox, &calls);
    let of = |status: i32| runs.iter().take(6).filter(|run| run.status == status).count();
    assert_eq!((of(0), of(77)), (1, 5), "{runs:#?}");
    assert!(runs.iter().skip(6).all(|run| matches!(run.status, 0 | 77)), "{runs:#?}");
    assert_eq!((server.revoked().len(), server.counts().presented_again), (2, 0));
    assert_gone(&sandbox);
}

#[test]
fn r28_a_run_that_is_told_to_stop_finishes_what_it_has_sent() {
    let server = AuthServer::start(Mode::Strict);
    let (sandbox, _) = at(&server, []);
    let gate = server.hold(Point::AfterCommit);
    let leaving = sandbox.spawn(&["logout", "demo"]);
    gate.wait_reached();
    leaving.terminate();
    drop(gate);
    leaving.finish().exits(0).says("signed out");
    assert_gone(&sandbox);
}

fn keyring_items(bus: &Bus, service: &str) -> usize {
    let found = bus.secret_tool(&["search", "--all", "service", service], "");
    (found.stdout + &found.stderr).matches("attribute.username").count()
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn the_keyring_loses_the_item_and_with_the_last_profile_the_key() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_that_revokes([])));
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
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
    sandbox.keepalive(&["doctor"]).says("will be made with the first credential");
    sandbox.import("demo", &server.mint()).exits(0).says("imported as generation 2");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(keyring_items(&bus, "keepalive-key"), 1);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn what_was_published_before_the_kind_of_the_store_was_changed_is_told_of() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    let rest = format!("{}{DEMO}", server.provider_that_revokes([]));
    sandbox.config(&rest);
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
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
fn a_daemon_takes_up_the_key_that_came_after_the_last_profile_left() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_that_revokes([])));
    let _bus = Bus::start(&mut sandbox, Keyring::Unlocked);
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
fn a_keyring_that_is_locked_or_gone_changes_nothing() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}{DEMO}", server.provider_that_revokes([])));
    let mut bus = Bus::start(&mut sandbox, Keyring::Unlocked);
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
fn a_certified_server_revokes() {
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
