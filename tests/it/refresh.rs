//! `refresh` and `status` against the embedded server, on the sealed file store.

use std::time::Duration;

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::{Sandbox, just_granted};
use super::support::token_family::RotationMode;

#[test]
fn status_shows_a_failed_refresh_while_the_token_is_fresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 1\r\n", "")]);
    sandbox.refresh(&["--force"]).exits(75);
    let told =
        sandbox.keepalive(&["status"]).exits(0).says("demo: fresh, but the last refresh failed: acme returned 429");
    assert!(told.stdout.contains(", next try in "), "{told:#?}");
    let row = sandbox.status();
    assert_eq!((&row["state"], &row["last_attempt"]["error"]["kind"]), (&"fresh".into(), &"throttled".into()));
    sandbox.keepalive(&["doctor"]).exits(0).says("demo: the last refresh failed: acme returned 429");
}

#[test]
fn a_credential_is_refreshed_when_it_is_due_and_not_before() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let fresh = sandbox.refresh(&[]).exits(0).result();
    assert_eq!((fresh["outcome"].as_str(), fresh["generation"].as_u64()), (Some("fresh"), Some(1)));
    assert_eq!(server.counts().refresh_requests, 0);
    let due = sandbox.refresh(&["--lookahead", "9m"]).exits(0).result();
    assert_eq!((due["outcome"].as_str(), due["generation"].as_u64()), (Some("refreshed"), Some(2)));
    assert_eq!(due["publication"], "none");
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn force_refreshes_now_and_each_time_anew() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for generation in 2..6 {
        let result = sandbox.refresh(&["--force"]).exits(0).result();
        assert_eq!((result["outcome"].as_str(), result["generation"].as_u64()), (Some("refreshed"), Some(generation)));
        assert_eq!(result["joined"], false);
    }
    let counts = server.counts();
    assert_eq!((counts.refresh_ok, counts.presented_again, counts.families_revoked), (4, 0, 0));
}

/// Rule 15.
#[test]
fn three_refreshes_succeed_at_a_server_without_rotation() {
    for echo in [true, false] {
        let server = AuthServer::start(RotationMode::NoRotation { echo });
        let sandbox = Sandbox::signed_in_with(&server, "rotation = \"none\"");
        for _ in 0..3 {
            assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["outcome"], "refreshed");
        }
        assert_eq!(server.counts().refresh_ok, 3);
        assert_eq!(sandbox.status()["generation"], 4);
    }
}

#[test]
fn damaged_journal_fails_its_own_row_and_no_other() {
    // One that the configuration knows, and one of which only the journal told the provider.
    for damaged in ["demo", "other"] {
        let server = AuthServer::start(RotationMode::Strict);
        let sandbox = Sandbox::signed_in(&server);
        for profile in ["other", "third"] {
            let answer = just_granted(&server.mint()).to_string();
            sandbox.keepalive_with_input(&["import", profile, "--provider", "acme"], &answer).exits(0);
        }
        std::fs::write(sandbox.path(&format!("state/keepalive/profiles/{damaged}/record.json")), "{").unwrap();
        for (call, list, word, is_well) in [
            (vec!["--json", "refresh"], "results", "outcome", "fresh"),
            (vec!["--json", "refresh", "--force"], "results", "outcome", "refreshed"),
            (vec!["--json", "status"], "profiles", "state", "fresh"),
        ] {
            let run = sandbox.keepalive(&call).exits(69);
            let rows = run.json()[list].as_array().unwrap().clone();
            assert_eq!(rows.len(), 3, "{run:?}");
            for row in rows {
                let is_damaged = row["error"]["kind"] == "damaged";
                assert_eq!(is_damaged, row["profile"] == damaged, "{row}");
                assert!(is_damaged || row[word] == is_well, "{row}");
            }
        }
        sandbox.keepalive(&["doctor"]).says("record.json is damaged");
        assert_eq!(server.counts().refresh_ok, 2);
    }
}

#[test]
fn damaged_journal_can_be_replaced_or_forgotten() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let journal = sandbox.path("state/keepalive/profiles/demo/record.json");
    std::fs::write(&journal, "{").unwrap();
    let answer = server.mint().to_string();
    sandbox.keepalive_with_input(&["import", "demo"], &answer).exits(69).says("sign in again");
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer).exits(0);
    assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["generation"], 3);
    std::fs::write(&journal, "{").unwrap();
    sandbox.keepalive(&["logout", "demo"]).exits(69);
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1).says("in your account at acme");
    assert_eq!(sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(77).profile()["state"], "no_credential");
}

#[test]
fn all_profiles_are_refreshed_if_none_is_named() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.keepalive_with_input(&["import", "second:x", "--provider", "acme"], &server.mint().to_string()).exits(0);
    let run = sandbox.keepalive(&["--json", "refresh", "--force"]).exits(0);
    let names: Vec<_> = run.json()["results"].as_array().unwrap().iter().map(|r| r["profile"].clone()).collect();
    assert_eq!(names, ["demo", "second:x"]);
    assert_eq!(server.counts().refresh_ok, 2);
}

#[test]
fn the_worst_profile_gives_the_exit_status() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "-p", "nobody"]).exits(77);
    run.says("no profile \"nobody\"");
    sandbox.file_store(&format!(
        "{}[profile.demo]\nprovider = \"acme\"\n[profile.empty]\nprovider = \"acme\"\n",
        server.provider("")
    ));
    sandbox.keepalive(&["refresh"]).exits(77).says("no credential for profile empty");
    sandbox.keepalive(&["status"]).exits(77);
    sandbox.keepalive(&["status", "-p", "demo"]).exits(0);
}

/// Rule 22.
#[test]
fn rejected_refresh_token_is_not_sent_again_by_itself() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant","error_description":"revoked\u001b[2J"}"#)]);
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(77).says("invalid_grant: revoked [2J");
    assert!(!run.stderr.contains('\u{1b}'), "{run:?}");
    for arguments in [&[][..], &["--lookahead", "1h"]] {
        sandbox.refresh(arguments).exits(77);
    }
    assert_eq!(server.counts().refresh_requests, 1);
    server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    for _ in 0..2 {
        sandbox.refresh(&["--force"]).exits(77);
    }
    assert_eq!(server.counts().refresh_requests, 2, "a person may insist, but not every moment");
    let status = sandbox.status();
    assert_eq!((status["state"].as_str(), status["refresh_at"].is_null()), (Some("needs_login"), true));
    sandbox.keepalive(&["token", "demo"]).exits(0).says("invalid_grant");
    sandbox.import("demo", &server.mint()).exits(0);
    assert_eq!(sandbox.status()["state"], "fresh");
    sandbox.refresh(&["--force"]).exits(0);
}

/// Rule 25.
#[test]
fn retry_after_binds_every_process() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 600\r\n", "")]);
    let first = sandbox.refresh(&["--force"]).exits(75).result();
    assert_eq!((first["outcome"].as_str(), first["error"]["kind"].as_str()), (Some("deferred"), Some("throttled")));
    for _ in 0..20 {
        let result = sandbox.refresh(&["--force"]).exits(75).result();
        assert_eq!(result["retry_at"], first["retry_at"]);
    }
    assert_eq!(server.counts().refresh_requests, 1);
    assert_eq!(sandbox.status()["state"], "fresh");
}

/// Rule 6.
#[test]
fn unreachable_server_leaves_no_intent_in_the_journal() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let token = server.current_refresh_token(0);
    drop(server);
    let result = sandbox.refresh(&["--force"]).exits(75).result();
    assert_eq!((result["outcome"].as_str(), result["error"]["kind"].as_str()), (Some("deferred"), Some("network")));
    let journal = std::fs::read_to_string(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
    let journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
    assert!(journal["intent"].is_null(), "{journal}");
    assert!(!journal.to_string().contains(&token));
}

/// Rule 24.
#[test]
fn refused_client_is_a_config_error_until_it_is_corrected() {
    let server = AuthServer::start(RotationMode::Strict);
    server.require_secret("right");
    let mut sandbox = Sandbox::new();
    let with = |variable: &str| {
        server.provider(&format!("client_auth = \"client_secret_basic\"\nclient_secret = {{ env = \"{variable}\" }}"))
            + "[profile.demo]\nprovider = \"acme\"\n"
    };
    sandbox.set_env("WRONG", "wrong");
    sandbox.set_env("RIGHT", "right");
    sandbox.file_store(&with("MISSING"));
    sandbox.import("demo", &server.mint()).exits(78).says("the variable MISSING is not set");
    sandbox.file_store(&with("WRONG"));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(78).says("invalid_client").says("[provider.acme]");
    assert_eq!(sandbox.status()["state"], "config_error");
    sandbox.refresh(&[]).exits(78);
    assert_eq!(server.counts().refresh_requests, 1, "no probe before its time");
    sandbox.refresh(&["--force"]).exits(78);
    assert_eq!(server.counts().refresh_requests, 2, "--force is one probe");
    sandbox.file_store(&with("RIGHT"));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(sandbox.status()["state"], "fresh");
}

#[test]
fn a_credential_is_never_sent_to_another_server() {
    let (server, other) = (AuthServer::start(RotationMode::Strict), AuthServer::start(RotationMode::Strict));
    let sandbox = Sandbox::signed_in(&server);
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", other.provider("")));
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(78).says("was issued to client public at");
    assert_eq!(other.counts().refresh_requests, 0);
    let status = sandbox.keepalive(&["--json", "status"]).exits(78).profile();
    assert_eq!((&status["state"], &status["error"]["kind"]), (&json!("config_error"), &json!("other_server")));
    sandbox.keepalive(&["doctor"]).says("demo: cannot be refreshed: the credential was issued to");
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox.keepalive(&["status"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn discovered_metadata_is_stored_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let url = server.url();
    sandbox.file_store(&format!(
        "[provider.acme]\nissuer = \"{url}\"\nclient_id = \"public\"\n[profile.demo]\nprovider = \"acme\"\n"
    ));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(std::fs::read_dir(sandbox.path("state/keepalive/metadata")).unwrap().count(), 1);
    assert_eq!(server.metadata_requests(), 1);
}

#[test]
fn status_goes_from_fresh_to_expired_and_reads_no_secret() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    std::fs::write(sandbox.path("home/key"), "no key").unwrap();
    assert_eq!(sandbox.status()["state"], "fresh");
    super::support::eventually("the token expires", || (sandbox.status()["state"] == "expired").then_some(()));
    sandbox.keepalive(&["status"]).exits(75);
    sandbox.keepalive(&["refresh", "-p", "demo"]).exits(78).says("is not 32 bytes").says("restore key ");
}

/// Rule 37.
#[test]
fn no_token_leaks_into_files_or_output() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let mut said = String::new();
    for arguments in [&["-vv", "refresh", "--force"][..], &["--json", "status"], &["doctor"], &["-vv", "refresh"]] {
        let run = sandbox.keepalive(arguments);
        said += &(run.stdout + &run.stderr);
    }
    let daemon = sandbox.spawn(&["-vv", "daemon"]);
    daemon.wait_for_line("daemon is up");
    let run = sandbox.keepalive(&["-vv", "token", "demo", "--min-valid", "9m58s"]);
    said += &run.stderr;
    daemon.terminate();
    said += &daemon.finish().exits(0).stderr;
    server.script([Fault::DropAfter]);
    let run = sandbox.keepalive(&["-vv", "refresh", "--force"]).exits(75);
    said += &(run.stdout + &run.stderr);
    assert!(said.contains("TRACE") && said.contains("refreshed"), "the log is there: {said}");
    assert!(!said.contains("canary"), "{said}");
    let mut stack = vec![sandbox.path("state")];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            } else {
                let bytes = std::fs::read(entry.path()).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"canary"), "{}", entry.path().display());
            }
        }
    }
    assert!(sandbox.keepalive(&["token", "demo"]).stdout.starts_with("canary-at"), "the canary can be seen at all");
}

#[test]
fn a_nested_call_for_the_same_profile_fails_at_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    sandbox.set_env("KEEPALIVE_WITHIN", "other,demo");
    // Nothing needs a refresh.
    let fresh = sandbox.keepalive(&["token", "demo"]).exits(0);
    assert!(fresh.stderr.is_empty(), "{fresh:?}");
    sandbox.keepalive(&["refresh"]).exits(0);
    sandbox.age_token("demo", Duration::from_secs(570));
    sandbox.keepalive(&["token", "demo"]).exits(0).says("recursive call");
    let result = sandbox.refresh(&["--force"]).exits(78).result();
    assert_eq!(result["error"]["kind"], "nested_call");
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 34.
#[test]
fn refresh_warns_when_runs_are_regularly_too_far_apart() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let halves_ago = |n: i64| keepalive::clock::Timestamp::from_secs(chrono::Utc::now().timestamp() - n * 1800);
    let before: Vec<_> = [3, 2, 1].map(halves_ago).into();
    std::fs::write(sandbox.path("state/keepalive/runs.json"), serde_json::to_vec(&json!({ "runs": before })).unwrap())
        .unwrap();
    // A token of ten minutes cannot be kept alive by a run every half an hour, whatever the look-ahead.
    sandbox.keepalive(&["refresh"]).exits(0).says("demo: runs are 30m apart").says("run more often");
    std::fs::remove_file(sandbox.path("state/keepalive/runs.json")).unwrap();
    let run = sandbox.keepalive(&["refresh"]).exits(0);
    assert!(!run.stderr.contains("apart"), "{run:?}");
}
