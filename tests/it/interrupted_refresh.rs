//! What a server can do to an answer, and what becomes of the credential.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::eventually;
use super::support::sandbox::{PROGRAM, Process, Sandbox};
use super::support::token_family::RotationMode;

/// Runs one forced refresh under a fault and gives outcome, error kind and exit status.
fn under(fault: Fault) -> (AuthServer, Sandbox, (String, i32)) {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([fault]);
    let run = sandbox.refresh(&["--force"]);
    let outcome = run.result()["outcome"].as_str().unwrap().to_owned();
    (server, sandbox, (outcome, run.status))
}

/// Rule 17.
#[test]
fn lost_response_is_in_doubt_and_nothing_is_sent_again() {
    for fault in [
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Truncate(0),
        Fault::Truncate(25),
        Fault::CommitThen(500, "<html>oops</html>"),
        Fault::CommitThen(502, ""),
        Fault::CommitThen(200, "<html>sign in to the wifi</html>"),
        Fault::Respond(503, "retry-after: 1\r\n", ""),
        Fault::Respond(408, "", ""),
    ] {
        let told = format!("{fault:?}");
        let (server, sandbox, outcome) = under(fault);
        assert_eq!(outcome, ("in_doubt".to_owned(), 75), "{told}");
        for _ in 0..3 {
            sandbox.refresh(&["--force"]).exits(75);
            sandbox.refresh(&[]).exits(75);
        }
        let counts = server.counts();
        assert_eq!((counts.refresh_requests, counts.presented_again), (1, 0), "{told}");
        let status = sandbox.status();
        assert_eq!(status["state"], "in_doubt", "{told}");
        assert!(status["refresh_at"].is_string(), "it says when: {told}");
        assert!(!sandbox.keepalive(&["token", "demo"]).exits(0).stdout.is_empty());
        sandbox.import("demo", &server.mint()).exits(0);
        assert_eq!(sandbox.status()["state"], "fresh", "a new sign-in ends the doubt: {told}");
    }
}

/// Rule 18.
#[test]
fn last_chance_is_sent_once_and_then_a_login_is_needed() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in_with(&server, "settle = \"1s\"");
    server.script([Fault::DropAfter, Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    let run = super::support::eventually("the last chance has passed", || {
        let run = sandbox.refresh(&[]);
        (run.status == 77).then_some(run)
    });
    assert_eq!(run.result()["outcome"], "needs_login");
    for _ in 0..3 {
        sandbox.refresh(&["--force"]).exits(77);
    }
    let counts = server.counts();
    assert_eq!((counts.refresh_requests, counts.presented_again), (2, 1));
}

/// Rule 18.
#[test]
fn last_chance_succeeds_if_the_first_request_never_arrived() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let sandbox = Sandbox::signed_in_with(&server, "settle = \"1s\"");
    server.script([Fault::DropBefore]);
    sandbox.refresh(&["--force"]).exits(75);
    server.set_access_life(Duration::from_secs(600));
    super::support::eventually("the last chance is taken", || (sandbox.refresh(&[]).status == 0).then_some(()));
    assert_eq!(sandbox.status()["state"], "fresh");
    assert!(server.is_family_alive(0));
}

/// Rule 19.
#[test]
fn lost_response_is_fetched_again_within_reuse_grace() {
    let server = AuthServer::start(RotationMode::Grace(Duration::from_secs(60)));
    let provider =
        "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\nsettle = \"1s\"";
    let sandbox = Sandbox::signed_in_with(&server, provider);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(sandbox.refresh(&[]).exits(0).result()["outcome"], "refreshed");
    assert!(server.is_family_alive(0));
    super::support::eventually("the pause after a grace retry is over", || {
        (sandbox.refresh(&["--force"]).status == 0).then_some(())
    });
    assert!(server.is_family_alive(0));
}

#[test]
fn lost_response_without_rotation_is_retried() {
    let server = AuthServer::start(RotationMode::NoRotation { echo: false });
    let sandbox = Sandbox::signed_in_with(&server, "rotation = \"none\"");
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    super::support::eventually("the backoff is over", || (sandbox.refresh(&[]).status == 0).then_some(()));
}

/// Rule 23.
#[test]
fn unreadable_error_response_does_not_reject_the_token() {
    for fault in [
        Fault::Respond(400, "", ""),
        Fault::Respond(403, "content-type: text/html\r\n", "<html>blocked</html>"),
        Fault::Respond(401, "", ""),
    ] {
        let (server, sandbox, outcome) = under(fault);
        assert_eq!(outcome, ("deferred".to_owned(), 75));
        sandbox.refresh(&["--force"]).exits(75);
        assert_eq!(server.counts().refresh_requests, 1, "a long pause follows");
    }
}

#[test]
fn http_redirect_of_the_token_endpoint_is_not_followed() {
    let (server, _sandbox, outcome) = under(Fault::Respond(302, "location: http://127.0.0.1:1/x\r\n", ""));
    assert_eq!(outcome, ("config_error".to_owned(), 78));
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn early_response_before_the_body_keeps_the_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::RespondEarly(429, "retry-after: 1\r\n")]);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(sandbox.status()["state"], "fresh");
    assert_eq!(server.counts().refresh_requests, 0, "the response came before the body");
    super::support::eventually("it may ask again", || (sandbox.refresh(&["--force"]).status == 0).then_some(()));
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 16.
#[test]
fn malformed_response_members_do_not_lose_the_refresh_token() {
    for members in [
        json!({"expires_in": "600"}),
        json!({"expires_in": null}),
        json!({"expires_in": -5}),
        json!({"expires_in": {"a": 1}}),
        json!({"token_type": null}),
        json!({"scope": ["x"]}),
        json!({"error": "warning_only"}),
        json!({"id_token": 7, "refresh_token_expires_in": "1000"}),
    ] {
        let (server, sandbox, outcome) = under(Fault::ReplaceMembers(members.clone()));
        assert_eq!(outcome, ("refreshed".to_owned(), 0), "{members}");
        sandbox.refresh(&["--force"]).exits(0);
        let counts = server.counts();
        assert_eq!((counts.refresh_ok, counts.presented_again), (2, 0), "{members}");
    }
    for members in
        [json!({"token_type": "mac"}), json!({"access_token": null}), json!({"access_token": "bad\r\ntoken"})]
    {
        let (server, sandbox, outcome) = under(Fault::ReplaceMembers(members.clone()));
        assert_eq!(outcome, ("config_error".to_owned(), 78), "nothing to use: {members}");
        super::support::eventually("the pause is over", || (sandbox.refresh(&["--force"]).status == 0).then_some(()));
        let counts = server.counts();
        assert_eq!((counts.refresh_ok, counts.presented_again), (2, 0), "{members}");
    }
}

/// Rule 38.
#[test]
fn response_over_the_size_limit_is_in_doubt() {
    let (_server, _sandbox, outcome) = under(Fault::Oversized(3 * 1024 * 1024));
    assert_eq!(outcome, ("in_doubt".to_owned(), 75));
    let (_server, _sandbox, outcome) = under(Fault::Oversized(900 * 1024));
    assert_eq!(outcome, ("refreshed".to_owned(), 0));
}

/// Rule 26.
#[test]
fn followers_of_a_failed_flight_send_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, "", r#"{"error":"temporarily_unavailable"}"#)]);
    let gate = server.hold(HoldPoint::BeforeProcessing);
    let leader = sandbox.spawn(&["--json", "refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    let followers: Vec<_> = (0..5).map(|_| sandbox.spawn(&["--json", "refresh", "-p", "demo", "--force"])).collect();
    for follower in &followers {
        follower.wait_for_line("waiting for a refresh in progress");
    }
    drop(gate);
    let led = leader.finish().exits(75).result();
    assert_eq!(led["joined"], false);
    for follower in followers {
        let result = follower.finish().exits(75).result();
        assert_eq!(
            (result["joined"].as_bool(), &result["error"], &result["retry_at"]),
            (Some(true), &led["error"], &led["retry_at"])
        );
    }
    assert_eq!(server.counts().refresh_requests, 1);
}

/// Rule 11.
#[test]
fn run_killed_before_the_response_is_in_doubt_and_sends_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let mut run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    assert_eq!(sandbox.status()["state"], "fresh", "a request under way is no doubt");
    run.kill();
    drop(gate);
    let result = sandbox.refresh(&["--force"]).exits(75).result();
    assert_eq!(result["outcome"], "in_doubt");
    assert_eq!(sandbox.status()["state"], "in_doubt");
    assert_eq!(server.settled_counts().refresh_requests, 1);
}

#[test]
fn response_that_arrives_during_sigstop_is_kept() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in_with(&server, "timeout = \"2s\"\n");
    let gate = server.hold(HoldPoint::AfterCommit);
    let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    run.pause();
    drop(gate);
    let stopped = Instant::now();
    eventually("its time is up", || (stopped.elapsed() > TIMEOUT).then_some(()));
    run.signal(rustix::process::Signal::CONT);
    run.finish().exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 28.
#[test]
fn refresh_finishes_its_flight_on_sigterm() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    run.terminate();
    drop(gate);
    run.finish().exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
}

/// Rule 28.
#[test]
fn refresh_finishes_its_flight_on_other_terminating_signals() {
    use rustix::process::Signal;
    for signal in [Signal::HUP, Signal::QUIT, Signal::ALARM, Signal::USR1, Signal::USR2, Signal::XCPU] {
        let server = AuthServer::start(RotationMode::Strict);
        let sandbox = Sandbox::signed_in(&server);
        let gate = server.hold(HoldPoint::AfterCommit);
        let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
        gate.wait_reached();
        run.signal(signal);
        drop(gate);
        run.finish().exits(0);
        assert_eq!(sandbox.status()["generation"], 2, "{signal:?}");
    }
}

#[test]
fn command_that_ctrl_c_ends_exits_with_130() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let waits = |words: &[&str], line: &str, otherwise: i32| {
        let command = sandbox.keepalive_command(words).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let run = Process::new(command);
        if line.is_empty() {
            let catches = || {
                let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
                let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
                (u64::from_str_radix(&caught, 16).unwrap() & 2 != 0).then_some(())
            };
            super::support::eventually("it catches the signal", catches);
        } else {
            run.wait_for_line(line);
        }
        let exit = run.interrupt(otherwise);
        run.finish().exits(exit)
    };
    let lock = keepalive::sys::lockfile::LockFile::acquire(&sandbox.lock_file("demo")).unwrap();
    waits(&["refresh", "-p", "demo", "--force"], "waiting for a refresh in progress", 75).says("sent");
    drop(lock);
    if !keepalive::sys::process::ignores_signal(rustix::process::Signal::INT.as_raw()) {
        waits(&["import", "other", "--provider", "acme"], "", 130).says("interrupted");
        waits(&["daemon"], "daemon.up", 0);
    }
    // What was sent is completed: such a run was not cut short.
    let gate = server.hold(HoldPoint::AfterCommit);
    let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    run.interrupt(0);
    drop(gate);
    run.finish().exits(0);
}

#[test]
fn refresh_under_nohup_survives_sighup() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let lock = keepalive::sys::lockfile::LockFile::acquire(&sandbox.lock_file("demo")).unwrap();
    let mut command = sandbox.command(std::path::Path::new("sh"));
    command.args(["-c", "trap '' HUP; exec \"$0\" refresh -p demo --force", PROGRAM]);
    let run = Process::new(command.spawn().unwrap());
    run.wait_for_line("waiting for a refresh in progress");
    run.signal(rustix::process::Signal::HUP);
    drop(lock);
    run.finish().exits(0);
    assert_eq!(sandbox.status()["generation"], 2);
}

/// Rule 28.
#[test]
fn sigterm_before_the_request_sends_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let lock =
        keepalive::sys::lockfile::LockFile::acquire(&sandbox.path("state/keepalive/profiles/demo/lock")).unwrap();
    let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    run.wait_for_line("waiting for a refresh in progress");
    run.terminate();
    run.finish().exits(75).says("cancelled before anything was sent");
    drop(lock);
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 8.
#[test]
fn unwritable_store_sends_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    // Root may write everywhere; a directory in the way of a file stops even root.
    let in_the_way = sandbox.path("state/keepalive/profiles/demo/.received.new");
    std::fs::create_dir(&in_the_way).unwrap();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("cannot reserve");
    assert_eq!(server.counts().refresh_requests, 0);
    std::fs::remove_dir(&in_the_way).unwrap();
    let in_the_way = sandbox.path("state/keepalive/profiles/demo/.record.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("cannot write the journal");
    assert_eq!(server.counts().refresh_requests, 0, "r05: no intent, no send");
    std::fs::remove_dir(&in_the_way).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
}

/// Rule 17.
#[test]
fn status_shows_in_doubt_while_the_profile_is_locked() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    let _held = keepalive::sys::lockfile::LockFile::acquire(&sandbox.lock_file("demo")).unwrap();
    sandbox.keepalive(&["status"]).exits(75);
    assert_eq!(sandbox.status()["state"], "in_doubt");
}
