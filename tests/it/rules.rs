//! The numbered rules of the refresh protocol (`src/PROTOCOL.md`) that no other file here shows.

use std::path::Path;

use super::support::api_client::ApiClient;
use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;
use super::support::{eventually, lock_waiters};

/// The calls of one forced refresh on files and sockets, in order, as `strace` saw them.
fn calls(sandbox: &Sandbox) -> Vec<String> {
    let trace = sandbox.path("trace");
    let mut strace = sandbox.command(Path::new("strace"));
    strace.args([
        "-f",
        "-y",
        "-qq",
        "-e",
        "trace=fallocate,fsync,rename,renameat,renameat2,write,writev,sendto,sendmsg",
        "-o",
    ]);
    strace.arg(&trace).arg(PROGRAM).args(["refresh", "-p", "demo", "--force"]);
    let out = strace.output().expect("strace is needed: contrib/test installs it");
    assert!(out.status.success(), "{out:?}");
    std::fs::read_to_string(trace).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn first(calls: &[String], call: &str, words: &str) -> usize {
    let is_it = |line: &String| line.contains(&format!(" {call}(")) && line.contains(words);
    calls.iter().position(is_it).unwrap_or_else(|| panic!("no {call} with {words:?} in {calls:#?}"))
}

/// Rule 5.
#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn intent_is_synced_before_the_first_byte_of_the_body() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let calls = calls(&sandbox);
    // The body is the first thing on a socket that names the grant.
    let body = calls.iter().position(|l| l.contains("grant_type=refresh_token") || l.contains("\"grant_type")).unwrap();
    let renamed = first(&calls, "rename", "record.json");
    let synced = first(&calls, "fsync", ".record.json.new");
    let folder = calls[renamed..].iter().position(|l| l.contains(" fsync(") && l.contains("profiles/demo>")).unwrap();
    assert!(synced < renamed && renamed + folder < body, "{calls:#?}");
}

/// Rule 8.
#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn space_for_the_response_is_reserved_before_sending() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let calls = calls(&sandbox);
    // The largest answer in base64, and tokens as large before it.
    let reserved = first(&calls, "fallocate", "received");
    assert!(calls[reserved].contains(&format!(", {})", 4 * 1024 * 1024)), "{}", calls[reserved]);
    let synced = first(&calls, "fsync", ".received.new");
    let body = calls.iter().position(|l| l.contains("grant_type")).unwrap();
    assert!(reserved < synced && synced < body, "{calls:#?}");
}

/// Rule 9.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn response_is_sealed_and_synced_before_the_keyring_write() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let calls = calls(&sandbox);
    let body = calls.iter().position(|l| l.contains("grant_type")).unwrap();
    let after = &calls[body..];
    let synced = after.iter().position(|l| l.contains(" fsync(") && l.contains(".received.new")).unwrap();
    let renamed = first(after, "rename", "received");
    let folder = after[renamed..].iter().position(|l| l.contains(" fsync(") && l.contains("profiles/demo>")).unwrap();
    // Whatever is said to the bus between the answer and its seal is not the new token.
    let is_bus = |l: &&String| l.contains("sendmsg(") || l.contains("sendto(");
    let before_seal = after[1..renamed + folder].iter().filter(is_bus).count();
    let after_seal = after[renamed + folder..].iter().filter(is_bus).count();
    assert!(synced < renamed && before_seal == 0 && after_seal > 0, "{calls:#?}");
}

/// Rule 2.
#[test]
fn run_that_waited_returns_what_it_finds_and_sends_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let call = ["--json", "refresh", "-p", "demo", "--force"];
    let first = sandbox.spawn(&call);
    gate.wait_reached();
    let second = sandbox.spawn(&call);
    eventually("the second waits at the lock", || (lock_waiters(&sandbox.lock_file("demo")) == 1).then_some(()));
    drop(gate);
    for (run, joined) in [(first, false), (second, true)] {
        let result = run.finish().exits(0).result();
        assert_eq!((result["generation"].as_u64(), result["joined"].as_bool()), (Some(2), Some(joined)));
    }
    assert_eq!(server.counts().refresh_requests, 1);
}

/// Rule 12.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn pending_publication_is_made_later_without_a_request() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let gate = server.hold(HoldPoint::AfterCommit);
    let flight = sandbox.spawn(&["--json", "refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    bus.lock();
    drop(gate);
    let result = flight.finish().exits(75).result();
    assert_eq!(
        (result["outcome"].as_str(), result["publication"].as_str()),
        (Some("refreshed"), Some("publish_pending"))
    );
    assert_eq!(sandbox.status()["publication"], "publish_pending");
    bus.kill_keyring();
    bus.start_keyring();
    let result = sandbox.refresh(&[]).exits(0).result();
    assert_eq!((result["outcome"].as_str(), result["publication"].as_str()), (Some("fresh"), Some("published")));
    let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "").exits(0);
    let item: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(item["refresh_token"], server.current_refresh_token(0));
    assert_eq!(server.counts().refresh_requests, 1);
}

/// Rule 38.
#[test]
fn plain_http_to_a_remote_host_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.file_store("[provider.acme]\ntoken_endpoint = \"http://login.acme.example/token\"\nclient_id = \"x\"\n");
    sandbox.keepalive(&["refresh"]).exits(78).says("https");
}

/// Rule 39.
#[test]
fn daemon_hands_out_access_tokens_and_nothing_else() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let reply = ApiClient::get(&sandbox, "/v1/profiles/demo/token").expect(200);
    assert!(server.is_live(reply.json()["access_token"].as_str().unwrap()), "{reply:#?}");
    assert!(!reply.body.contains(&server.current_refresh_token(0)) && !reply.body.contains("refresh_token"));
    daemon.terminate();
    daemon.finish().exits(0);
}

/// Rule 37.
#[test]
fn daemon_disables_core_dumps() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let pid = daemon.id();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    daemon.terminate();
    daemon.finish().exits(0);
}
