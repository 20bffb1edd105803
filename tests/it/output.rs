//! What is printed where: data that cannot be written is an error, documents and log use the same words, and a
//! terminal is given only what it can show.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::token_family::RotationMode;
use super::support::{Helper, eventually};

/// Exit status and stderr of a run whose standard output goes elsewhere.
fn printing_to(sandbox: &Sandbox, stdout: impl Into<Stdio>, arguments: &[&str]) -> (Option<i32>, String) {
    let run = sandbox.keepalive_command(arguments).stdout(stdout).output().unwrap();
    (run.status.code(), String::from_utf8(run.stderr).unwrap())
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Rule 22.
#[test]
fn help_says_that_a_rejected_token_may_be_sent_once_more() {
    let sandbox = Sandbox::new();
    for command in ["refresh", "import"] {
        let shown = sandbox.keepalive(&[command, "--help"]).exits(0).stdout;
        let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("sent once more, at most once a minute"), "{shown}");
        assert!(words.contains("consumed or in doubt is not"), "{shown}");
        let short = sandbox.keepalive(&[command, "-h"]).exits(0).stdout;
        assert!(!short.contains("once a minute"), "{short}");
    }
}

#[test]
fn full_disk_on_stdout_is_an_error() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for line in [
        "token demo",
        "token demo --json",
        "refresh --json",
        "status",
        "status --json",
        "completions bash",
        "providers",
        "providers --json",
        "--help",
        "token --help",
        "--version",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (status, stderr) = printing_to(&sandbox, full_disk(), &arguments);
        assert_eq!(status, Some(1), "{line}: {stderr}");
        assert_eq!(stderr.matches("error: cannot write to standard output: No space left").count(), 1, "{stderr}");
    }
}

#[test]
fn refresh_with_lost_output_keeps_the_credential() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let refresh = ["--json", "refresh", "-p", "demo", "--force"];
    let (status, stderr) = printing_to(&sandbox, full_disk(), &refresh);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("hint: only the output is lost; everything that was refreshed or stored is safe"),
        "{stderr}"
    );
    assert_eq!(sandbox.status()["state"], "fresh");
    assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["generation"], 3);
    assert_eq!(server.counts().presented_again, 0);
    // What is worse than lost output stays what is told.
    server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    assert_eq!(printing_to(&sandbox, full_disk(), &refresh).0, Some(77));
}

#[test]
fn closed_pipe_on_stdout_is_no_error() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for line in ["token demo", "status --json", "completions bash", "--help"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(printing_to(&sandbox, writer, &arguments), (Some(0), String::new()), "{line}");
    }
}

/// The line of `daemon --json` with which a refresh ends that is answered so.
#[track_caller]
fn logged(fault: Fault, wanted: &str) -> Value {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(std::time::Duration::from_secs(2));
    let sandbox = Sandbox::signed_in(&server);
    server.script([fault]);
    let log = sandbox.path("log");
    let stdout = File::create(&log).unwrap();
    let mut daemon =
        Helper::start_with_stdout("keepalive daemon", &mut sandbox.keepalive_command(&["--json", "daemon"]), stdout);
    daemon.wait_until(&format!("a line with {wanted}"), |_| {
        let text = std::fs::read_to_string(&log).unwrap();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let mut lines = complete.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["message"].as_str().is_some_and(|message| message.contains(wanted)))
    })
}

#[test]
fn json_log_names_outcome_state_and_error_kind() {
    let dead = || Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let of = |line: &Value, member: &str| line[member].as_str().map(str::to_owned);
    let line = logged(dead(), "needs attention: acme returned 400");
    assert_eq!((of(&line, "event"), of(&line, "profile")), (Some("login.needed".into()), Some("demo".into())));
    assert_eq!(of(&line, "provider"), Some("acme".into()));
    assert_eq!((of(&line, "outcome"), of(&line, "kind")), (Some("needs_login".into()), Some("invalid_grant".into())));
    assert!(line.get("retry_at").is_none(), "absent when there is none: {line}");
    let line = logged(Fault::Respond(401, "", r#"{"error":"invalid_client"}"#), "acme returned 401");
    assert_eq!((of(&line, "outcome"), of(&line, "kind")), (Some("config_error".into()), Some("client_refused".into())));
    let line = logged(Fault::DropAfter, "may have been consumed");
    assert_eq!(of(&line, "kind"), Some("in_doubt".into()));
    assert_eq!(of(&line, "outcome").or(of(&line, "state")), Some("in_doubt".into()));
    let line = logged(Fault::Respond(429, "retry-after: 60\r\n", ""), "deferred");
    assert_eq!(of(&line, "kind"), Some("throttled".into()));
    let retry_at = of(&line, "retry_at").unwrap();
    chrono::DateTime::parse_from_rfc3339(&retry_at).unwrap_or_else(|e| panic!("{retry_at}: {e}"));
}

#[test]
fn daemon_that_cannot_start_prints_a_json_error() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = sandbox.keepalive(&["--json", "daemon", "--config", "/no"]).exits(78);
    assert_eq!(run.json()["error"]["kind"], "config");
    let _first = sandbox.daemon();
    let run = sandbox.keepalive(&["--json", "daemon"]).exits(1);
    let error = &run.json()["error"];
    assert_eq!(error["kind"], "running");
    assert!(error["message"].as_str().unwrap().contains("a daemon already runs on this store (pid "), "{run:#?}");
}

#[test]
fn usage_error_is_a_json_document() {
    let sandbox = Sandbox::new();
    for (line, message, hint) in [
        ("--json token", "the following required arguments were not provided: <PROFILE>", "see keepalive --help"),
        ("--json refresh --lookahead abc", "invalid value 'abc' for '--lookahead <DUR>'", "see keepalive --help"),
        ("statsu --json", "unrecognized subcommand 'statsu'", "a similar subcommand exists: 'status'"),
        ("--json", "'keepalive' requires a subcommand but one was not provided", "see keepalive --help"),
    ] {
        let run = sandbox.keepalive(&line.split(' ').collect::<Vec<_>>()).exits(2);
        let error = &run.json()["error"];
        assert_eq!((&error["kind"], &error["hint"]), (&"usage".into(), &hint.into()), "{run:#?}");
        assert!(error["message"].as_str().unwrap().starts_with(message) && !run.stderr.is_empty(), "{run:#?}");
    }
    let run = sandbox.keepalive(&["token"]).exits(2);
    assert!(run.stdout.is_empty(), "nobody asked for a document: {run:#?}");
}

#[test]
fn unknown_provider_is_null_in_json() {
    let sandbox = Sandbox::new();
    sandbox.file_store("");
    let of = |line: &str, status: i32| sandbox.keepalive(&line.split(' ').collect::<Vec<_>>()).exits(status).json();
    for row in [
        &of("status -p nosuch --json", 77)["profiles"][0],
        &of("refresh -p nosuch --json", 77)["results"][0],
        &of("logout nosuch --json", 77),
    ] {
        assert_eq!((&row["profile"], row.get("provider")), (&"nosuch".into(), Some(&Value::Null)), "{row}");
    }
}

#[test]
fn invalid_log_filter_is_reported_once_and_ignored() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    sandbox.set_env("KEEPALIVE_LOG", "keepalive=!!");
    let run = sandbox.keepalive(&["token", "demo"]).exits(0);
    assert!(run.stderr.starts_with("warning: KEEPALIVE_LOG=\"keepalive=!!\" is ignored: "), "{run:#?}");
    assert_eq!(run.stderr.lines().count(), 1, "and not a log that nobody asked for: {run:#?}");
    let daemon = sandbox.spawn(&["daemon"]);
    daemon.wait_for_line("daemon is up");
    assert_eq!(daemon.stderr_so_far().matches("KEEPALIVE_LOG=").count(), 1, "{}", daemon.stderr_so_far());
}

#[test]
fn deferred_refresh_says_nothing_is_lost_and_when_to_retry() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(std::time::Duration::from_secs(1));
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 120\r\n", r#"{"error":"slow"}"#)]);
    let run = sandbox.refresh(&["--force"]).exits(75);
    let retry_at = run.result()["retry_at"].as_str().unwrap().to_owned();
    let hint = format!("the refresh token is unaffected; no attempt before {}Z", &retry_at[..19]);
    assert_eq!(run.result()["error"]["hint"], *hint);
    // The credential is unaffected, and the next command says so with the hint of this one.
    let run = eventually("its token has expired", || {
        let run = sandbox.keepalive(&["token", "demo"]);
        (run.status != 0).then_some(run)
    });
    let told = run.exits(75).says("error: demo: acme returned 429 slow").says(&format!("; {hint}"));
    assert!(told.stdout.is_empty());
    let _daemon = sandbox.daemon();
    sandbox.keepalive(&["token", "demo"]).exits(75).says("error: demo: acme returned 429").says(&hint);
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn refusal_names_the_profile_and_the_remedy() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let spent = server.mint();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &spent.to_string()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let told = "error: profile demo: this refresh token has been used or rejected before";
    sandbox.import("demo", &spent).exits(1).says(told).says("hint: sign in again");
    sandbox.keepalive(&["logout", "nobody"]).exits(77).says("hint: there is nothing to sign out; keepalive status");
}

/// What a terminal is sent by a run.
fn on_terminal(sandbox: &Sandbox, env: &[(&str, &str)], line: &str) -> String {
    let mut script = sandbox.command(Path::new("script"));
    script.args(["-qefc", &format!("{PROGRAM} {line}"), "/dev/null"]).envs(env.iter().copied());
    let out = script.output().expect("script is needed: contrib/test installs it");
    String::from_utf8(out.stdout).unwrap()
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn terminal_output_respects_term_and_no_color() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let (able, progress) = (("TERM", "xterm"), "\r\u{1b}[Kchecking the providers");
    let without = |text: &str| text.replace("\u{1b}[K", "");
    let text = on_terminal(&sandbox, &[able], "doctor");
    assert!(text.contains(progress) && without(&text).contains('\u{1b}'), "{text:?}");
    for (env, line) in [(vec![able, ("NO_COLOR", "1")], "doctor"), (vec![able], "doctor --color never")] {
        let text = on_terminal(&sandbox, &env, line);
        assert!(
            text.contains(progress) && !without(&text).contains('\u{1b}'),
            "no colour is no less progress: {text:?}"
        );
    }
    for env in [vec![("TERM", "dumb")], vec![]] {
        let text = on_terminal(&sandbox, &env, "doctor");
        assert!(text.contains("checks passed") && !text.contains('\u{1b}') && !text.contains("checking"), "{text:?}");
    }
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn log_colour_follows_the_colour_settings() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let is_coloured = |text: &str| {
        let line = text.lines().find(|line| line.contains("refreshed") && line.contains("INFO")).unwrap();
        line.contains('\u{1b}')
    };
    let (able, line) = (("TERM", "xterm"), "-v refresh -p demo --force");
    assert!(is_coloured(&on_terminal(&sandbox, &[able], line)));
    assert!(!is_coloured(&on_terminal(&sandbox, &[able, ("NO_COLOR", "1")], line)));
    assert!(!is_coloured(&on_terminal(&sandbox, &[able], &format!("{line} --color never"))));
    assert!(!is_coloured(&sandbox.keepalive(&line.split(' ').collect::<Vec<_>>()).stderr));
    let always = format!("{line} --color always");
    assert!(is_coloured(&sandbox.keepalive(&always.split(' ').collect::<Vec<_>>()).stderr));
}
