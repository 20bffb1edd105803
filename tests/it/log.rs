//! What the log tells with `-v`, with `-vv` and under systemd: the decisions, the steps, and no secret.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::eventually;
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

/// The lines of the log in which an event is told.
fn lines_of<'a>(log: &'a str, event: &str) -> Vec<&'a str> {
    let field = format!("event=\"{event}\"");
    log.lines().filter(|line| line.contains(&field)).collect()
}

/// The one line of an event.
#[track_caller]
fn line_of<'a>(log: &'a str, event: &str) -> &'a str {
    let lines = lines_of(log, event);
    assert_eq!(lines.len(), 1, "{event} in {log}");
    lines[0]
}

fn verbose(sandbox: &Sandbox, more: &[&str]) -> Run {
    sandbox.keepalive(&[&["-v", "refresh", "-p", "demo"], more].concat())
}

#[test]
fn verbose_refresh_says_why_nothing_is_due() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = verbose(&sandbox, &[]).exits(0);
    let line = line_of(&run.stderr, "refresh.fresh");
    for words in ["profile=demo", "provider=\"acme\"", "generation=1", "expires_at=", "not within its margin"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(lines_of(&run.stderr, "flight.lead").len(), 0);
}

#[test]
fn verbose_refresh_says_why_one_is_due_and_what_followed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = verbose(&sandbox, &["--lookahead", "1h"]).exits(0);
    let log = &run.stderr;
    assert!(line_of(log, "refresh.due").contains("reason=\"the access token is within its margin\""), "{log}");
    assert!(line_of(log, "send.admitted").contains("reason=\"the token was never sent\""), "{log}");
    assert!(line_of(log, "send.done").contains("status=200"), "{log}");
    assert!(line_of(log, "ledger.write").contains("reason=\"consumed\""), "{log}");
    assert!(line_of(log, "refresh.ok").contains("generation=2"), "{log}");
    for event in ["flight.lead", "lock.acquired", "flight.done"] {
        assert!(line_of(log, event).contains("profile=demo"), "{log}");
    }
    assert!(!log.contains("event=\"step\""), "steps need -vv: {log}");
    assert!(
        line_of(&verbose(&sandbox, &["--force"]).exits(0).stderr, "refresh.due").contains("requested with --force")
    );
}

#[test]
fn verbose_refresh_names_the_response_class_and_the_rule() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 120\r\n", r#"{"error":"slow"}"#)]);
    let log = verbose(&sandbox, &["--force"]).exits(75).stderr;
    let line = line_of(&log, "response.class");
    assert!(
        line.contains("status=429") && line.contains("class=\"throttled\"") && line.contains("code=\"slow\""),
        "{line}"
    );
    let log = verbose(&sandbox, &["--force"]).exits(75).stderr;
    let line = line_of(&log, "send.denied");
    assert!(line.contains("rule=25") && line.contains("retry_at=") && line.contains("outcome=deferred"), "{line}");
    assert!(lines_of(&log, "send.done").is_empty(), "{log}");
}

#[test]
fn verbose_refresh_says_that_it_waited_for_another_process() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let held = server.hold(HoldPoint::AfterCommit);
    let first = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    held.wait_reached();
    let second = sandbox.spawn(&["-v", "refresh", "-p", "demo", "--force"]);
    second.wait_for_line("event=\"lock.wait\"");
    drop(held);
    first.finish().exits(0);
    let log = second.finish().exits(0).stderr;
    assert!(line_of(&log, "lock.wait").contains("another process has the lock of the profile"), "{log}");
    assert!(line_of(&log, "lock.acquired").contains("waited_ms="), "{log}");
    let line = line_of(&log, "flight.shared");
    assert!(line.contains("outcome=refreshed") && line.contains("rule=26"), "{line}");
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn very_verbose_log_has_our_steps_and_no_library() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let mut sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.spawn(&["-vv", "--json", "daemon"]);
    server.wait_for("a refresh", |c| c.refresh_ok >= 1);
    eventually("it is journaled", || (sandbox.status()["generation"] == 2).then_some(()));
    daemon.terminate();
    let log = daemon.finish().exits(0).stdout;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let foreign: Vec<_> =
        lines.iter().filter(|line| !line["target"].as_str().unwrap().starts_with("keepalive")).collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
    let steps: Vec<_> = lines.iter().filter(|line| line["event"] == "step").map(|line| &line["message"]).collect();
    for step in ["writing the intent", "sealing the response", "making the response the sealed credential"] {
        assert!(steps.iter().any(|told| *told == step), "{step}: {steps:#?}");
    }
    let anonymous: Vec<_> = lines.iter().filter(|line| line["event"].as_str().is_none()).collect();
    assert!(anonymous.is_empty(), "{anonymous:#?}");
    // A person who wants the lines of the library can have them.
    sandbox.set_env("KEEPALIVE_LOG", "trace");
    let log = sandbox.refresh(&["--force"]).stderr;
    assert!(log.contains("connection") && log.lines().count() > lines_of(&log, "step").len(), "{log}");
}

#[test]
fn very_verbose_log_has_no_token_and_no_whole_fingerprint() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let record = || std::fs::read_to_string(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
    let fingerprint = || {
        let journal: Value = serde_json::from_str(&record()).unwrap();
        journal["fingerprint"].as_str().unwrap().to_owned()
    };
    let mut fingerprints = vec![fingerprint()];
    let mut log = String::new();
    for faults in [vec![], vec![Fault::Respond(400, "", r#"{"error":"weird"}"#)], vec![Fault::DropAfter]] {
        server.script(faults);
        log += &sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).stderr;
        fingerprints.push(fingerprint());
    }
    log += &sandbox.keepalive(&["-vv", "token", "demo"]).stderr;
    log += &sandbox.keepalive(&["-vv", "logout", "demo"]).stderr;
    assert!(log.contains("TRACE") && log.contains("event=\"ledger.write\""), "{log}");
    assert!(!log.contains("canary"), "{log}");
    for fingerprint in fingerprints {
        assert!(fingerprint.len() > 16 && !log.contains(&fingerprint[..16]), "{fingerprint}: {log}");
    }
}

/// What other programs are given stands in no log: no token, and no handle.
#[test]
fn very_verbose_log_of_what_programs_get_has_no_secret() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let mirror = sandbox.path("home/token").display().to_string();
    sandbox.file_store(&format!(
        "{}[profile.demo]\nprovider = \"acme\"\nhosts = [\"git.acme.example\"]\n\
         [[profile.demo.mirror]]\nkind = \"file\"\npath = \"{mirror}\"\n\
         [profile.demo.hooks]\non_refreshed = [\"cat\"]\ntoken = true\n",
        server.provider("")
    ));
    let run = |arguments: &[&str], input: &str| {
        sandbox.keepalive_with_input(&[&["-vvv"], arguments].concat(), input).exits(0)
    };
    let mut log = run(&["refresh", "-p", "demo", "--force"], "").stderr;
    assert!(log.contains("mirror.written") && log.contains("hook."), "{log}");
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
    for format in ["raw", "json", "header", "curl", "env", "kubectl", "grok"] {
        log += &run(&["token", "demo", "--format", format], "").stderr;
    }
    let asked = "protocol=https\nhost=git.acme.example\n";
    assert!(run(&["helper", "git", "get"], asked).stdout.contains(&token));
    for (verb, input) in [("get", asked.to_owned()), ("erase", format!("{asked}username=x\npassword={token}\n"))] {
        log += &run(&["helper", "git", verb], &input).stderr;
    }
    log += &run(&["exec", "demo", "--", "true"], "").stderr;
    let opencode = run(&["feed", "opencode", "demo", "--entry", "openai", "--yes"], "");
    log += &(opencode.stdout + &opencode.stderr);
    let made = run(&["handle", "create", "demo"], "");
    let handle = made.stdout.trim();
    log += &made.stderr;
    log += &run(&["handle", "list"], "").stderr;
    let undone = run(&["feed", "opencode", "demo", "--entry", "openai", "--undo", "--yes"], "");
    log += &(undone.stdout + &undone.stderr);
    assert!(log.contains("exec.start") && log.lines().count() > 50, "{log}");
    assert!(!log.contains("canary") && !log.contains(&handle[4..30]), "{log}");
}

#[test]
fn token_without_a_daemon_says_why() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let log = sandbox.keepalive(&["-v", "token", "demo"]).exits(0).stderr;
    assert!(line_of(&log, "token.store").contains("there is no socket of a daemon"), "{log}");
    let _daemon = sandbox.daemon();
    let log = sandbox.keepalive(&["-v", "token", "demo"]).exits(0).stderr;
    assert!(line_of(&log, "token.daemon").contains("profile=demo"), "{log}");
}

#[test]
fn daemon_says_what_it_watches_and_what_is_next() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.spawn(&["daemon"]);
    daemon.wait_for_line("watching 1 profile; next: demo in ");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_for_lines("watching 1 profile", 2);
    let log = daemon.stderr_so_far();
    assert!(lines_of(&log, "schedule.next").is_empty(), "that needs -v: {log}");
    daemon.terminate();
    daemon.finish().exits(0);
    let daemon = sandbox.daemon();
    daemon.wait_for_line("reason=\"the margin of the access token\"");
    let empty = Sandbox::new();
    empty.file_store("");
    empty.spawn(&["daemon"]).wait_for_line("watching 0 profiles; sign in with keepalive login");
}

/// Runs a command whose standard error is a file, with what systemd would say of a stream; the text of the file.
fn under_systemd(sandbox: &mut Sandbox, arguments: &[&str], is_named: bool) -> String {
    let path = sandbox.path("journal");
    let file = File::create(&path).unwrap();
    let stream = file.metadata().unwrap();
    let inode = if is_named { stream.ino() } else { stream.ino() + 1 };
    sandbox.set_env("JOURNAL_STREAM", &format!("{}:{inode}", stream.dev()));
    sandbox.keepalive_command(arguments).stdout(Stdio::null()).stderr(file).status().unwrap();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn log_under_systemd_has_priorities_and_no_time() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let arguments = ["-v", "--color", "always", "refresh", "-p", "demo", "--force"];
    let log = under_systemd(&mut sandbox, &arguments, true);
    assert!(line_of(&log, "refresh.ok").starts_with("<6>refreshed event="), "{log}");
    assert!(line_of(&log, "refresh.due").starts_with("<7>a refresh is due event="), "{log}");
    let is_time = |word: &str| word.len() > 19 && word.as_bytes()[10] == b'T' && word.starts_with("20");
    let has_time = |line: &str| line.split([' ', '>']).any(is_time);
    let is_plain = |line: &str| line.starts_with('<') && !line.contains('\u{1b}') && !has_time(line);
    assert!(log.lines().filter(|line| line.contains("event=")).all(is_plain), "{log}");
    assert!(log.lines().all(|line| line.starts_with('<')), "what the command itself says, too: {log}");
    let log = under_systemd(&mut sandbox, &["daemon", "--config", "/no"], true);
    assert!(log.starts_with("<3>"), "{log}");
    let log = under_systemd(&mut sandbox, &arguments, false);
    assert!(!log.contains("<6>") && log.contains("INFO"), "another stream than standard error: {log}");
}
