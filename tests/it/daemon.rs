//! The daemon: refreshes in time, outlives what fails around it, reloads, and stops decently.

use std::time::Duration;

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::eventually;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

#[test]
fn daemon_refreshes_repeatedly_at_the_margin() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    server.wait_for("five refreshes", |c| c.refresh_ok >= 5);
    daemon.terminate();
    daemon.finish().exits(0);
    let counts = server.counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0));
    assert!(!sandbox.path("run/keepalive/keepalive.sock").exists());
}

#[test]
fn schedule_tick_leaves_a_fresh_token_and_warns_of_long_gaps() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(60));
    let sandbox = Sandbox::signed_in(&server);
    let each_second = "provider = \"acme\"\nmargin = \"10s\"\nschedule = \"* * * * * *\"\n";
    let profiles = format!("[profile.demo]\n{each_second}[profile.short]\n{each_second}");
    sandbox.file_store(&format!("{}{profiles}", server.provider("")));
    // The other profile has the same schedule; its refreshes show that ticks have passed.
    server.set_access_life(Duration::from_secs(2));
    sandbox.import("short", &server.mint()).exits(0);
    let daemon = sandbox.daemon();
    server.wait_for("two ticks that refresh the other profile", |c| c.refresh_ok >= 2);
    assert_eq!(sandbox.status()["generation"], 1, "a tick leaves a fresh token alone");
    sandbox.file_store(&format!(
        "{}[profile.demo]\nprovider = \"acme\"\nmargin = \"10s\"\nschedule = \"0 0 * * * *\"\n",
        server.provider("")
    ));
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_line("too long for a token lifetime of");
    assert_eq!(sandbox.status()["generation"], 1);
}

#[test]
fn a_second_daemon_refuses_and_names_the_first() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let first = sandbox.daemon();
    let words = format!("a daemon already runs on this store (pid {})", first.id());
    sandbox.keepalive(&["daemon"]).exits(1).says(&words);
    first.terminate();
    first.finish().exits(0);
    drop(sandbox.daemon());
}

/// Rule 24.
#[test]
fn daemon_tries_a_refused_client_when_its_settings_change() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(401, "", r#"{"error":"invalid_client"}"#)]);
    let daemon = sandbox.daemon();
    daemon.wait_for_line("needs attention");
    let settings = "headers = { X-Tenant = \"7\" }\n";
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(settings)));
    daemon.signal(rustix::process::Signal::HUP);
    server.wait_for("a refresh by the corrected client", |c| c.refresh_ok >= 1);
}

/// Rule 28.
#[test]
fn daemon_finishes_its_flight_on_sigterm() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let daemon = sandbox.daemon();
    gate.wait_reached();
    daemon.terminate();
    daemon.wait_for_line("finishing refreshes in progress");
    drop(gate);
    daemon.finish().exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn reload_keeps_the_old_configuration_if_the_new_is_broken() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    sandbox.file_store("[provider.acme]\nclient = \"x\"\n");
    daemon.wait_for_line("the new configuration is invalid; still using the old one");
    sandbox.keepalive(&["refresh"]).exits(78);
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\nmargin = \"50%\"\n", server.provider("")));
    daemon.wait_for_line("configuration reloaded");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_lines("configuration reloaded", 2);
    server.set_access_life(Duration::from_secs(2));
    sandbox.refresh(&["--force"]).exits(0);
    daemon.signal(rustix::process::Signal::HUP);
    server.wait_for("the daemon takes over", |c| c.refresh_ok >= 2);
}

#[test]
fn reload_before_the_key_is_read_does_not_end_the_daemon() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let config = sandbox.path("config/keepalive/config.toml");
    // The first time it waits until the test writes into the pipe.
    let script = "touch asked; test -e went || read -r go <gate; touch went; cat key";
    let gate = sandbox.path("home/gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let by_command = format!("key = {{ command = [\"sh\", \"-c\", \"{script}\"] }}");
    let text = std::fs::read_to_string(&config).unwrap();
    let key = text.lines().find(|line| line.starts_with("key = ")).unwrap().to_owned();
    sandbox.config(&text.replace(&key, &by_command));
    let daemon = sandbox.spawn(&["-v", "daemon"]);
    eventually("the key is asked for", || sandbox.path("home/asked").exists().then_some(()));
    daemon.signal(rustix::process::Signal::HUP);
    std::fs::write(gate, "go\n").unwrap();
    daemon.wait_for_line("daemon is up");
    daemon.wait_for_line("configuration reloaded");
}

#[test]
fn a_reload_does_not_drop_a_flight() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let daemon = sandbox.daemon();
    gate.wait_reached();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_line("configuration reloaded");
    drop(gate);
    server.wait_for("it goes on", |c| c.refresh_ok >= 2);
    assert_eq!(server.counts().presented_again, 0);
}

#[test]
fn daemon_waits_for_retry_after_and_then_recovers() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 1\r\n", ""), Fault::Respond(429, "retry-after: 1\r\n", "")]);
    let daemon = sandbox.daemon();
    daemon.wait_for_line("deferred");
    server.wait_for("it recovers", |c| c.refresh_ok >= 2);
    assert_eq!(server.counts().presented_again, 2, "a refused token is still good, and is presented again");
}

#[test]
fn daemon_reports_a_rejected_token_once_until_a_new_import() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    let daemon = sandbox.daemon();
    daemon.wait_for_line("needs attention");
    // A reload looks at every profile again.
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_line("configuration reloaded");
    assert_eq!(server.settled_counts().refresh_requests, 1);
    let log = daemon.stderr_so_far();
    assert_eq!((log.matches("needs attention").count(), log.matches("ERROR").count()), (1, 1), "one line: {log}");
    sandbox.import("demo", &server.mint()).exits(0);
    daemon.wait_for_line("recovered");
    server.wait_for("it is looked after again", |c| c.refresh_ok >= 1);
}

#[test]
fn daemon_refreshes_a_profile_imported_while_it_runs() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    server.set_access_life(Duration::from_secs(2));
    sandbox.keepalive_with_input(&["import", "late", "--provider", "acme"], &server.mint().to_string()).exits(0);
    server.wait_for("the new profile is refreshed", |c| c.refresh_ok >= 2);
}

#[test]
fn json_log_is_one_object_per_line() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.spawn(&["--json", "daemon"]);
    server.wait_for("a refresh", |c| c.refresh_ok >= 1);
    super::support::eventually("it is journaled", || (sandbox.status()["generation"] == 2).then_some(()));
    daemon.terminate();
    let run = daemon.finish().exits(0);
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.iter().any(|l| l["message"] == "refreshed" && l["profile"] == "demo"), "{lines:#?}");
}

#[test]
fn configuration_stays_in_force_while_its_file_is_briefly_gone() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let (file, aside) = (sandbox.path("config/keepalive/config.toml"), sandbox.path("home/aside"));
    std::fs::rename(&file, &aside).unwrap();
    daemon.wait_for_line("the configuration file is missing; still using the old one for 10s");
    std::fs::rename(&aside, &file).unwrap();
    server.set_access_life(Duration::from_secs(2));
    sandbox.refresh(&["--force"]).exits(0);
    daemon.signal(rustix::process::Signal::HUP);
    server.wait_for("the daemon goes on", |c| c.refresh_ok >= 2);
    assert_eq!(daemon.stderr_so_far().matches("configuration reloaded").count(), 1, "when it was told to");
    std::fs::remove_file(&file).unwrap();
    daemon.wait_for_lines("configuration reloaded", 2);
}

/// What was lost: a file of the user's, at the path that the socket was given by mistake.
#[test]
fn daemon_replaces_no_file_that_is_no_socket() {
    let mut sandbox = Sandbox::new();
    sandbox.file_store("");
    let diary = sandbox.path("home/diary");
    std::fs::write(&diary, "dear diary").unwrap();
    sandbox.set_env("KEEPALIVE_SOCKET", &diary.display().to_string());
    sandbox.keepalive(&["daemon"]).exits(1).says("it is no socket").says("move it away");
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "dear diary");
}
