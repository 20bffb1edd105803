//! What a person is told, and how often: the name that was meant, each mistake at once, and that nothing refreshes.

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

const NOBODY: &str = "no daemon is running: nothing will refresh this; start it: ";

#[test]
fn unknown_profile_is_77_and_names_the_one_that_was_meant() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for line in ["token demp", "refresh -p demp", "status -p demp", "logout demp", "import demp", "login demp"] {
        let run = sandbox.keepalive(&line.split(' ').collect::<Vec<_>>()).exits(77);
        let shown = format!("{}{}", run.stdout, run.stderr);
        assert!(shown.contains("no profile \"demp\"; did you mean \"demo\"?"), "{line}: {shown}");
        assert!(!shown.contains("configuration"), "{line}: {shown}");
    }
    sandbox.keepalive(&["token", "demp"]).exits(77).says("to create it: keepalive login demp --provider NAME");
    let shown = sandbox.keepalive(&["--json", "status", "-p", "demp"]).exits(77).profile();
    assert_eq!((&shown["state"], &shown["error"]["kind"]), (&json!("no_credential"), &json!("no_credential")));
    let _daemon = sandbox.daemon();
    sandbox.keepalive(&["token", "demp"]).exits(77).says("did you mean \"demo\"?");
    sandbox.keepalive(&["login", "xia"]).exits(77).says("did you mean the provider \"xai\"?");
    sandbox.keepalive(&["providers", "claude"]).exits(78).says("did you mean \"anthropic\"?");
    sandbox.keepalive(&["login", "w", "--provider", "Grok"]).exits(78).says("did you mean \"xai\"?");
    sandbox.keepalive(&["token", "demo", "--min-valid", "30"]).exits(2).says("it has no unit; did you mean 30s?");
}

#[test]
fn unknown_provider_is_78_and_names_the_one_that_was_meant() {
    let sandbox = Sandbox::new();
    let run = sandbox.keepalive(&["providers", "xaai", "xai", "no where"]).exits(78);
    let run = run.says("no provider \"xaai\"; did you mean \"xai\"?").says("a section [provider.xaai]");
    run.says("no provider \"no where\"").says("a section [provider.\"no where\"]");
    sandbox.keepalive(&["login", "work", "--provider", "xaai"]).exits(78).says("did you mean \"xai\"?");
    let shown = sandbox.keepalive(&["--json", "providers", "xaai"]).exits(78).json();
    assert_eq!(shown["error"]["kind"], "config");
}

/// A hint that was pasted as it stood made a profile called PROFILE.
#[test]
fn hint_names_the_profile_where_it_is_known() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    std::fs::write(sandbox.path("home/rclone.conf"), "RCLONE_ENCRYPT_V0:\n").unwrap();
    for line in [
        "token demo",
        "refresh -p demo",
        "status -p demo",
        "logout demo",
        "doctor",
        "doctor --take-over -p demo",
        "import demo --from codex",
        "import demo --from rclone rclone.conf",
    ] {
        let run = sandbox.keepalive(&line.split(' ').collect::<Vec<_>>());
        let shown = format!("{}{}", run.stdout, run.stderr).replace("PROFILE  STATE", "");
        assert!(run.status != 0 && shown.contains("demo") && !shown.contains("PROFILE"), "{line}: {shown}");
    }
    sandbox.keepalive(&["token", "demo"]).exits(77).says("keepalive login demo, or keepalive import demo");
}

#[test]
fn commands_tell_that_nobody_will_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let import = || sandbox.import("demo", &server.mint());
    let says = |text: &str| text.contains(NOBODY);
    assert!(says(&sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).stderr));
    assert!(says(&sandbox.keepalive(&["status"]).exits(0).stderr));
    assert!(sandbox.keepalive(&["doctor"]).stdout.contains("not running: nothing will refresh"));
    let daemon = sandbox.daemon();
    for run in [import(), sandbox.keepalive(&["status"]), sandbox.keepalive(&["doctor"])] {
        assert!(!run.stderr.contains("no daemon") && !run.stdout.contains("nothing will refresh"), "{run:#?}");
    }
    daemon.terminate();
    daemon.finish();
    assert!(says(&sandbox.keepalive(&["status"]).exits(0).stderr));
    // As cron runs it: no terminal.
    sandbox.keepalive(&["--quiet", "refresh", "--lookahead", "10m"]).exits(0);
    for run in [sandbox.keepalive(&["status"]), sandbox.keepalive(&["doctor"])] {
        assert!(!run.stderr.contains("no daemon") && !run.stdout.contains("nothing will refresh"), "{run:#?}");
    }
}

/// Each run from cron would mail it.
#[test]
fn standing_failure_is_told_once_by_quiet_runs() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    let quiet = || sandbox.keepalive(&["--quiet", "refresh"]).exits(77);
    assert!(quiet().stderr.contains("invalid_grant"));
    assert_eq!(quiet().stderr, "");
    assert_eq!(quiet().stderr, "");
    sandbox.keepalive(&["refresh"]).exits(77).says("invalid_grant");
    sandbox.keepalive(&["--quiet", "refresh", "-p", "demo"]).exits(77).says("invalid_grant");
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
    sandbox.keepalive(&["--quiet", "refresh"]).exits(0);
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    assert!(quiet().stderr.contains("invalid_grant"), "it was well in between");
    assert_eq!(quiet().stderr, "");
}

#[test]
fn broken_configuration_is_told_once_by_quiet_runs() {
    let sandbox = Sandbox::signed_in(&AuthServer::start(RotationMode::Strict));
    sandbox.config("margn = 1\n[store]\nkid = 2\n");
    let quiet = || sandbox.keepalive(&["--quiet", "refresh"]).exits(78);
    let first = quiet().stderr;
    assert!(first.contains("margn") && first.contains("kid"), "{first}");
    assert_eq!(quiet().stderr, "");
}

#[test]
fn every_mistake_is_shown_with_its_line_and_a_caret() {
    let sandbox = Sandbox::new();
    sandbox.config("margn = \"20%\"\n\n[profile.x]\nprovider = \"goggle\"\nmargin   = \"0%\"\n");
    let run = sandbox.keepalive(&["--json", "status"]).exits(78);
    for part in [
        "config.toml:1: unknown key \"margn\"\n  1 | margn = \"20%\"\n    | ^^^^^\nhint: did you mean \"margin\"?\n",
        "  4 | provider = \"goggle\"\n    |            ^^^^^^^^\n",
        "  5 | margin   = \"0%\"\n    |            ^^^^\n",
        "the configuration has 3 mistakes",
    ] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let mistakes = run.json()["error"]["mistakes"].as_array().unwrap().clone();
    let places: Vec<_> = mistakes.iter().map(|m| (m["line"].clone(), m["column"].clone())).collect();
    assert_eq!(places, [(json!(1), json!(1)), (json!(4), json!(12)), (json!(5), json!(12))]);
    let doctor = sandbox.keepalive(&["doctor"]).exits(78).stdout;
    assert!(doctor.contains("5 | margin   = \"0%\"") && doctor.contains("3 problems"), "{doctor}");
    assert_eq!(sandbox.keepalive(&["--json", "doctor"]).exits(78).json()["findings"].as_array().unwrap().len(), 3);
}

/// It was told in a run of its own, after all else was mended, and `status` and `doctor` showed no line.
#[test]
fn profile_without_a_provider_is_told_with_line_and_caret() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    // The credential of `demo` names its provider.
    let profiles = "[profile.demo]\n[profile.work]\nmargin = \"1h\"\n";
    sandbox.file_store(&format!("margn = 1\n{}{profiles}", server.provider("")));
    let run = sandbox.keepalive(&["status"]).exits(78).says("the configuration has 2 mistakes");
    let shown = run.says("profile work: its section names no provider");
    assert!(shown.stderr.contains(" | [profile.work]\n") && !shown.stderr.contains("profile demo:"), "{shown:#?}");
    sandbox.file_store(&format!("{}{profiles}", server.provider("")));
    for line in ["status", "doctor", "refresh", "token work", "login work"] {
        let run = sandbox.keepalive(&line.split(' ').collect::<Vec<_>>()).exits(78);
        let shown = format!("{}{}", run.stdout, run.stderr);
        assert!(shown.contains(" | [profile.work]\n") && shown.contains(" |          ^^^^\n"), "{line}: {shown}");
    }
    sandbox.refresh(&["--force"]).exits(0);
}

/// It was the moment of asking, another one each time.
#[test]
fn overdue_refresh_is_due_at_one_past_instant() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox.import("demo", &server.mint()).exits(0);
    let record = sandbox.path("state/keepalive/profiles/demo/record.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    journal["validity"]["obtained"]["wall"] = json!("2026-09-21T12:00:00Z");
    std::fs::write(&record, serde_json::to_vec(&journal).unwrap()).unwrap();
    let [first, second] = [(); 2].map(|()| sandbox.status()["refresh_at"].as_str().unwrap().to_owned());
    assert_eq!(first, second);
    assert!(first.starts_with("2026-09-21T12:"), "{first}");
    let shown = sandbox.keepalive(&["status"]).stdout;
    assert!(shown.contains("overdue since Sep 21, 12:"), "{shown}");
    let doctor = sandbox.keepalive(&["doctor"]).exits(75).stdout;
    assert!(
        doctor.contains("error  profile: demo: the access token has expired, and nothing refreshes it"),
        "{doctor}"
    );
}

#[test]
fn stop_of_a_refresh_of_many_is_acknowledged() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let names: Vec<String> = (0..5).map(|n| format!("p{n}")).collect();
    let sections: String = names.iter().map(|n| format!("[profile.{n}]\nprovider = \"acme\"\n")).collect();
    sandbox.file_store(&format!("{}{sections}", server.provider("concurrency = 2")));
    for name in &names {
        sandbox.import(name, &server.mint()).exits(0);
    }
    let held = server.hold(HoldPoint::AfterCommit);
    let run = sandbox.spawn(&["refresh", "--force"]);
    held.wait_reached();
    run.terminate();
    run.wait_for_line("being finished");
    drop(held);
    let run = run.finish().exits(75).says("profiles were not refreshed: stopped before anything was sent");
    assert!(!run.stderr.contains("waiting for a refresh"), "{run:#?}");
    assert!(!run.stderr.contains("cancelled before"), "{run:#?}");
}
