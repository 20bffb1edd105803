//! `token`: what is printed, when it refreshes, and what it does when that fails.

use std::time::Duration;

use super::support::api_client::ApiClient;
use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::sandbox::{Sandbox, just_granted};
use super::support::token_family::RotationMode;

#[test]
fn a_token_that_lives_long_enough_is_printed_without_a_request() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = sandbox.keepalive(&["token", "demo"]).exits(0);
    assert!(server.is_live(run.stdout.trim()) && run.stderr.is_empty(), "{run:?}");
    let run = sandbox.keepalive(&["token", "demo", "--format", "header"]).exits(0);
    assert!(run.stdout.starts_with("Authorization: Bearer canary-at-"));
    let json = sandbox.keepalive(&["token", "demo", "--json"]).exits(0).json();
    assert_eq!(
        (json["token_type"].as_str(), json["generation"].as_u64(), json["scope"].as_str()),
        (Some("Bearer"), Some(1), Some("a b"))
    );
    assert!(json["expires_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn a_token_below_min_valid_is_refreshed_first() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(30));
    let sandbox = Sandbox::signed_in(&server);
    server.set_access_life(Duration::from_secs(600));
    let run = sandbox.keepalive(&["token", "demo", "--min-valid", "20s"]).exits(0);
    assert_eq!(server.counts().refresh_requests, 0, "{run:?}");
    let run = sandbox.keepalive(&["token", "demo", "--min-valid", "28s"]).exits(0);
    assert_eq!(server.counts().refresh_requests, 0, "no token of 30 s can promise 28 s to its caller: {run:?}");
    sandbox.refresh(&["--force"]).exits(0);
    let run = sandbox.keepalive(&["token", "demo", "--min-valid", "9m"]).exits(0);
    assert!(server.is_live(run.stdout.trim()));
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn failed_refresh_prints_the_token_that_is_still_valid() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(60));
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 60\r\n", "")]);
    // 56 s are within reach of a 60 s token, and gone as soon as it is a second old.
    super::support::eventually("it is too old for the wish", || {
        let run = sandbox.keepalive(&["token", "demo", "--min-valid", "56s"]).exits(0);
        assert!(server.is_live(run.stdout.trim()));
        run.stderr.contains("warning: demo: not refreshed: acme returned 429").then_some(())
    });
}

#[test]
fn token_prints_nothing_without_a_valid_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.keepalive(&["token", "nobody"]).exits(77);
    let only_refresh = serde_json::json!({"refresh_token": server.mint()["refresh_token"]});
    sandbox.keepalive_with_input(&["import", "bare", "--provider", "acme"], &only_refresh.to_string()).exits(0);
    server.script([Fault::Respond(429, "", "")]);
    let run = sandbox.keepalive(&["token", "bare"]).exits(75);
    assert_eq!(run.stdout, "");
    let run = sandbox.keepalive(&["token", "bare"]).exits(75);
    assert_eq!(run.stdout, "");
}

/// Rule 27.
#[test]
fn callers_deadline_does_not_end_the_flight() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(8));
    let sandbox = Sandbox::signed_in(&server);
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\nmargin = \"50%\"\n", server.provider("")));
    super::support::eventually("half of the life is over", || (sandbox.status()["state"] == "due").then_some(()));
    let gate = server.hold(HoldPoint::AfterCommit);
    let leader = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    let run =
        sandbox.keepalive(&["token", "demo", "--min-valid", "5s", "--timeout", "100ms"]).exits(0).says("not refreshed");
    assert_eq!(sandbox.status()["generation"], 1, "it returned while the refresh was under way");
    assert!(run.stdout.starts_with("canary-at-"), "{run:?}");
    drop(gate);
    leader.finish().exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
    let counts = server.counts();
    assert_eq!((counts.refresh_ok, counts.presented_again), (1, 0));
}

#[test]
fn rest_of_an_imported_token_is_not_its_full_lifetime() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(3600));
    let sandbox = Sandbox::signed_in(&server);
    for profile in ["near", "later"] {
        let mut answer = server.mint();
        answer["expires_at"] = (chrono::Utc::now().timestamp() + 40).into();
        sandbox.keepalive_with_input(&["import", profile, "--provider", "acme"], &answer.to_string()).exits(0);
    }
    let run = sandbox.keepalive(&["token", "near"]).exits(0);
    assert!(run.stderr.is_empty() && server.is_live(run.stdout.trim()), "{run:?}");
    assert_eq!(server.counts().refresh_requests, 1);
    // The new one tells how long they live.
    let run = sandbox.keepalive(&["token", "near", "--min-valid", "2h"]).exits(0);
    assert!(run.stderr.contains("no token of this provider lasts that long"), "{run:?}");
    assert_eq!(server.counts().refresh_requests, 1);
    sandbox.keepalive(&["token", "later", "--min-valid", "30s"]).exits(0);
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn margin_applies_to_an_imported_token_near_its_expiry() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(3600));
    let sandbox = Sandbox::signed_in(&server);
    let section = "[profile.demo]\nprovider = \"acme\"\nmargin = \"20m\"\n";
    sandbox.file_store(&format!("{}{section}", server.provider("")));
    let mut answer = server.mint();
    answer["expires_at"] = (chrono::Utc::now().timestamp() + 900).into();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer.to_string()).exits(0);
    assert_eq!(sandbox.status()["state"], "due");
    sandbox.refresh(&[]).exits(0);
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn lost_or_damaged_sealed_credential_is_not_fresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let sealed = sandbox.path("state/keepalive/profiles/demo/sealed");
    let kept = std::fs::read(&sealed).unwrap();
    for damage in [None, Some("dust")] {
        match damage {
            None => std::fs::remove_file(&sealed).unwrap(),
            Some(dust) => std::fs::write(&sealed, dust).unwrap(),
        }
        let (status, kind, state) = match damage {
            None => (77, "lost", "needs_login"),
            Some(_) => (69, "damaged", "store_unavailable"),
        };
        for call in [vec!["token", "demo"], vec!["refresh", "-p", "demo"], vec!["refresh", "-p", "demo", "--force"]] {
            let run = sandbox.keepalive(&[&["--json"], &call[..]].concat()).exits(status);
            assert!(run.stdout.contains(&format!("\"kind\":\"{kind}\"")), "{run:?}");
        }
        let shown = sandbox.status();
        assert_eq!((&shown["state"], &shown["error"]["kind"]), (&state.into(), &kind.into()), "{shown}");
        sandbox.keepalive(&["doctor"]).says(if damage.is_none() { "is missing" } else { "cannot be opened" });
    }
    std::fs::write(&sealed, kept).unwrap();
    sandbox.keepalive(&["token", "demo"]).exits(0);
    std::fs::remove_file(&sealed).unwrap();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &just_granted(&server.mint()).to_string()).exits(0);
    sandbox.keepalive(&["token", "demo"]).exits(0);
    assert_eq!((server.counts().refresh_requests, sandbox.status()["state"].as_str()), (0, Some("fresh")));
}

#[test]
fn token_finishes_its_own_flight_beyond_the_timeout() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.set_response_delay(Duration::from_secs(2));
    let run = sandbox.keepalive(&["token", "demo", "--min-valid", "595s", "--timeout", "1s"]).exits(0);
    assert!(server.is_live(run.stdout.trim()), "{run:?}");
    let only_refresh = serde_json::json!({"refresh_token": server.mint()["refresh_token"]});
    sandbox.keepalive_with_input(&["import", "bare", "--provider", "acme"], &only_refresh.to_string()).exits(0);
    let run = sandbox.keepalive(&["token", "bare", "--timeout", "1s"]).exits(0);
    assert!(server.is_live(run.stdout.trim()) && run.stderr.is_empty(), "{run:?}");
}

#[test]
fn token_comes_from_the_daemon_when_the_key_is_missing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    // Only the daemon has the key now.
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    let run = sandbox.keepalive(&["token", "demo"]).exits(0);
    assert!(server.is_live(run.stdout.trim()));
    daemon.pause();
    sandbox.keepalive(&["token", "demo", "--timeout", "1s"]).exits(78).says("the key file");
    daemon.signal(rustix::process::Signal::CONT);
    drop(daemon);
    sandbox.keepalive(&["token", "demo"]).exits(78).says("the key file");
}

#[test]
fn daemon_error_is_reported_when_the_caller_has_no_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let only_refresh = serde_json::json!({"refresh_token": server.mint()["refresh_token"]});
    server.script(vec![Fault::Respond(401, "", r#"{"error":"invalid_client"}"#); 3]);
    sandbox.keepalive_with_input(&["import", "bare", "--provider", "acme"], &only_refresh.to_string()).exits(0);
    let _daemon = sandbox.daemon();
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    let run = sandbox.keepalive(&["token", "bare"]).exits(78).says("invalid_client");
    assert!(!run.stderr.contains("key file"), "{run:?}");
    let run = sandbox.keepalive(&["token", "nobody"]).exits(77);
    assert!(!run.stderr.contains("key file"), "{run:?}");
}

#[test]
fn silent_daemon_does_not_delay_a_token_from_the_store() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    daemon.pause();
    let run = sandbox.spawn(&["token", "demo", "--timeout", "1h"]).finish().exits(0);
    assert!(server.is_live(run.stdout.trim()), "{run:?}");
    daemon.signal(rustix::process::Signal::CONT);
}

#[test]
fn token_uses_the_callers_configuration_over_the_daemons() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let ours = sandbox.path("home/ours.toml");
    std::fs::copy(sandbox.path("config/keepalive/config.toml"), &ours).unwrap();
    sandbox.file_store("");
    let daemon = sandbox.daemon();
    sandbox.keepalive(&["token", "demo"]).exits(78);
    sandbox.set_env("KEEPALIVE_CONFIG", ours.to_str().unwrap());
    let run = sandbox.keepalive(&["token", "demo"]).exits(0);
    assert!(server.is_live(run.stdout.trim()), "{run:?}");
    drop(daemon);
}

#[test]
fn failure_with_json_is_one_document() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for (call, status, kind) in [
        (vec!["token", "nobody"], 77, "no_credential"),
        (vec!["import", "demo", "no-such-file"], 1, "input"),
        (vec!["login", "demo", "--device"], 78, "config"),
    ] {
        let run = sandbox.keepalive(&[&["--json"], &call[..]].concat()).exits(status);
        assert_eq!(run.json()["error"]["kind"], kind, "{run:?}");
    }
    sandbox.file_store("[provider.acme]\nclient = 1\n");
    for call in ["status", "refresh", "providers", "rehearse"] {
        let run = sandbox.keepalive(&["--json", call]).exits(78);
        assert_eq!(run.json()["error"]["kind"], "config", "{run:?}");
    }
}

/// What was lost: the login, as nothing beside the living token told what to do.
#[test]
fn trouble_beside_a_living_token_is_told_with_its_remedy() {
    let server = AuthServer::start(RotationMode::Strict);
    let dead = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    for (fault, words) in [(Fault::DropAfter, "refresh is in doubt: "), (dead, "refresh is failing: ")] {
        let sandbox = Sandbox::signed_in(&server);
        server.script([fault]);
        sandbox.refresh(&["--force"]);
        let _daemon = sandbox.daemon();
        let reply = ApiClient::get(&sandbox, "/v1/profiles/demo/token").expect(200).json();
        let warning = reply["warnings"][0].as_str().unwrap_or_default().to_owned();
        assert!(warning.starts_with(words) && warning.contains("keepalive login demo"), "{reply}");
        sandbox.keepalive(&["token", "demo"]).exits(0).says(words).says("keepalive login demo");
    }
}

#[test]
fn daemon_is_asked_for_a_token_that_lives_for_ever() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let asked = sandbox.keepalive(&["-v", "token", "demo", "--min-valid", "9000000000000000s"]);
    asked.exits(0).says("no token of this provider lasts that long").says("the daemon");
}
