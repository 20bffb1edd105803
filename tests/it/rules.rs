//! The numbered rules of the refresh protocol: those that no other file here shows, and the list that says that each one
//! is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::support::authserver::{AuthServer, Point};
use super::support::bus::{Bus, Keyring};
use super::support::family::Mode;
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::{eventually, root, waiters};

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

#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn r05_the_intent_is_synced_before_the_first_byte_of_the_body() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let calls = calls(&sandbox);
    // The body is the first thing on a socket that names the grant.
    let body = calls.iter().position(|l| l.contains("grant_type=refresh_token") || l.contains("\"grant_type")).unwrap();
    let renamed = first(&calls, "rename", "record.json");
    let synced = first(&calls, "fsync", ".record.json.new");
    let folder = calls[renamed..].iter().position(|l| l.contains(" fsync(") && l.contains("profiles/demo>")).unwrap();
    assert!(synced < renamed && renamed + folder < body, "{calls:#?}");
}

#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn r08_space_for_the_answer_is_taken_before_anything_is_sent() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let calls = calls(&sandbox);
    // The largest answer in base64, and tokens as large before it.
    let reserved = first(&calls, "fallocate", "received");
    assert!(calls[reserved].contains(&format!(", {})", 4 * 1024 * 1024)), "{}", calls[reserved]);
    let synced = first(&calls, "fsync", ".received.new");
    let body = calls.iter().position(|l| l.contains("grant_type")).unwrap();
    assert!(reserved < synced && synced < body, "{calls:#?}");
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn r09_the_answer_is_sealed_and_synced_before_the_keyring_is_written() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = Bus::start(&mut sandbox, Keyring::Unlocked);
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

#[test]
fn r02_a_run_that_waited_returns_what_it_finds_and_sends_nothing() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(Point::AfterCommit);
    let call = ["--json", "refresh", "-p", "demo", "--force"];
    let first = sandbox.spawn(&call);
    gate.wait_reached();
    let second = sandbox.spawn(&call);
    eventually("the second waits at the lock", || (waiters(&sandbox.lock_file("demo")) == 1).then_some(()));
    drop(gate);
    for (run, joined) in [(first, false), (second, true)] {
        let result = run.finish().exits(0).result();
        assert_eq!((result["generation"].as_u64(), result["joined"].as_bool()), (Some(2), Some(joined)));
    }
    assert_eq!(server.counts().refresh_requests, 1);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn r12_a_keyring_locked_after_the_answer_is_published_later_without_a_request() {
    let server = AuthServer::start(Mode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let mut bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let gate = server.hold(Point::AfterCommit);
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

#[test]
fn r38_plain_http_is_for_loopback_only() {
    let sandbox = Sandbox::new();
    sandbox.file_store("[provider.acme]\ntoken_endpoint = \"http://login.acme.example/token\"\nclient_id = \"x\"\n");
    sandbox.keepalive(&["refresh"]).exits(78).says("https");
}

#[test]
fn r39_the_daemon_hands_out_access_tokens_and_nothing_else() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let mut socket = UnixStream::connect(sandbox.path("run/keepalive/keepalive.sock")).unwrap();
    let body = r#"{"profile":"demo","min_valid_ms":0,"timeout_ms":1000}"#;
    let store: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(sandbox.path("state/keepalive/store.json")).unwrap()).unwrap();
    let uuid = store["uuid"].as_str().unwrap();
    write!(
        socket,
        "POST /v1/token HTTP/1.1\r\nhost: x\r\nkeepalive-protocol: 1\r\nkeepalive-store: {uuid}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let reply: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(head.contains("200") && server.is_live(reply["token"]["access_token"].as_str().unwrap()), "{answer}");
    assert!(!answer.contains(&server.current_refresh_token(0)) && !answer.contains("refresh_token"));
    daemon.terminate();
    daemon.finish().exits(0);
}

/// Rules that §0 of the protocol puts off, whole or in part, and what shows the rest.
const PUT_OFF: &[(u8, &str)] = &[(36, "several hosts: shown by the model alone")];

#[test]
fn every_rule_is_shown_by_a_test_that_bears_its_number() {
    let mut shown: BTreeMap<u8, BTreeSet<String>> = BTreeMap::new();
    let mut stack = vec![root().join("src"), root().join("tests")];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    stack.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                for (number, name) in named_tests(&std::fs::read_to_string(&path).unwrap()) {
                    shown.entry(number).or_default().insert(name);
                }
            }
        }
    }
    let missing: Vec<u8> = (1..=40).filter(|n| !shown.contains_key(n)).collect();
    assert!(missing.is_empty(), "no test shows the rules {missing:?}");
    for (number, why) in PUT_OFF {
        let names = &shown[number];
        assert!(names.iter().all(|name| name.contains("hosts")), "rule {number} ({why}): {names:?}");
    }
}

/// Test functions called `rNN_…`, with their number.
fn named_tests(source: &str) -> Vec<(u8, String)> {
    let functions = source.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
    functions
        .filter_map(|(name, _)| {
            let (number, _) = name.strip_prefix('r')?.split_once('_')?;
            Some((number.parse().ok()?, name.to_owned()))
        })
        .collect()
}

#[test]
fn r37_memory_is_never_dumped() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let pid = daemon.id();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    daemon.terminate();
    daemon.finish().exits(0);
}
