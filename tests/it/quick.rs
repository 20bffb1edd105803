//! The early path of `token`: while a daemon runs, it prints what the full path prints, and reads no configuration.

use std::time::Duration;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

const FORMS: [&[&str]; 10] = [
    &["token", "demo"],
    &["token", "demo", "--min-valid", "5m"],
    &["token", "--min-valid=1s", "demo", "--timeout", "9s"],
    &["token", "demo", "--format", "raw"],
    &["token", "demo", "--format=header"],
    &["token", "--format", "curl", "demo"],
    &["token", "demo", "--format", "env"],
    &["token", "demo", "--format", "kubectl"],
    &["token", "demo", "--format", "gcloud-executable"],
    &["token", "demo", "--format", "json"],
];

/// Stdout without the seconds that are left, stderr, and the exit status.
fn shown(run: &Run) -> (Vec<&str>, &str, i32) {
    let without_seconds = run.stdout.split(',').filter(|part| !part.starts_with("\"expires_in\":")).collect();
    (without_seconds, &run.stderr, run.status)
}

/// Runs a line as it is, and so that only the full path takes it. Both must end alike.
fn compare(sandbox: &Sandbox, form: &[&str]) {
    let quick = sandbox.keepalive(form);
    let full = sandbox.keepalive(&[form, &["--color", "never"]].concat());
    assert_eq!(shown(&quick), shown(&full), "{form:?}");
}

#[test]
fn early_path_prints_what_the_full_path_prints() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    for form in FORMS {
        compare(&sandbox, form);
    }
    assert_eq!(server.counts().refresh_requests, 0);
    // Nothing to hand out: the messages are those of the full path, too.
    for form in [&["token", "nobody"][..], &["token", "nobody", "--format", "json"], &["token", "demo", "extra"]] {
        compare(&sandbox, form);
    }
}

/// A broken configuration is the daemon's to judge, which keeps the one that it has.
#[test]
fn early_path_asks_the_daemon_and_reads_no_configuration() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    sandbox.config("[profile.demo\n");
    daemon.wait_for_line("still using the old one");
    assert_eq!(sandbox.keepalive(&["token", "demo"]).exits(0).stdout, token);
    let _told = sandbox.keepalive(&["token", "demo", "--color", "never"]).exits(78);
}

#[test]
fn early_path_waits_for_nothing_and_loses_no_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.age_token("demo", Duration::from_secs(595));
    let daemon = sandbox.daemon();
    daemon.wait_for_line("watching 1 profile");
    // The early request begins the refresh, or meets that of the daemon; the full path gets its token.
    server.set_response_delay(Duration::from_millis(500));
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    assert!(server.is_live(token.trim()), "{token}");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
}

/// What is wrong is told beside a token that lives.
#[test]
fn early_path_hides_no_warning() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    let _refused = sandbox.keepalive(&["refresh", "--profile", "demo", "--force"]).exits(77);
    let _daemon = sandbox.daemon();
    let told = sandbox.keepalive(&["token", "demo"]).exits(0).says("refresh is failing");
    assert!(server.is_live(told.stdout.trim()), "{told:?}");
}
