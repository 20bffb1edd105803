//! `rehearse`: holds on a sound machine, and notices a broken guard.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::support::sandbox::Sandbox;
use super::support::session_bus::{KeyringState, SessionBus};

fn nothing_left(sandbox: &Sandbox) {
    let left: Vec<_> = std::fs::read_dir(sandbox.path("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("keepalive-rehearsal")), "{left:?}");
}

/// It said that the machine can be trusted, and the login that followed found no keyring.
#[test]
fn rehearse_with_another_store_than_a_login_says_so() {
    for text in [None, Some("[provider.acme]\nissuer = \"https://acme.example\"\nclient_id = \"me\"\n")] {
        let sandbox = Sandbox::new();
        if let Some(text) = text {
            sandbox.config(text);
        }
        let run = sandbox.keepalive(&["--json", "rehearse", "--crowd", "2"]).exits(0);
        assert!(!run.stderr.contains("trusted"), "{run:#?}");
        let run =
            run.says("the keyring that a login would use cannot be reached; rehearsed with a sealed file instead");
        let run = run.says("there is no session bus").says("keepalive init --store file");
        assert_eq!((&run.json()["verdict"], &run.json()["store"]), (&json!("other_store"), &json!("file")));
        nothing_left(&sandbox);
    }
}

#[test]
fn interrupted_rehearsal_leaves_nothing() {
    for words in ["imported a credential", "the daemon is running", "round 1", "waiting 7 s"] {
        let sandbox = Sandbox::new();
        sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
        let rehearsal = sandbox.spawn(&["rehearse", "--crowd", "4"]);
        rehearsal.wait_for_line(words);
        let exit = rehearsal.interrupt(1);
        rehearsal.finish().exits(exit).says("interrupted; nothing was left behind");
        nothing_left(&sandbox);
    }
}

#[test]
fn rehearse_passes_with_a_file_store() {
    let sandbox = Sandbox::new();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
    let verdict = sandbox.keepalive(&["--json", "rehearse"]).exits(0).json();
    assert_eq!(verdict["verdict"], "held");
    assert_eq!((verdict["presented_again"].as_u64(), verdict["family_alive"].as_bool()), (Some(0), Some(true)));
    assert_eq!((verdict["served"].as_u64(), verdict["callers"].as_u64()), (Some(48), Some(48)));
    assert_eq!(verdict["store"], "file");
    assert!(verdict["refreshes"].as_u64() > Some(4));
    nothing_left(&sandbox);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn rehearse_passes_on_a_keyring_and_leaves_no_item() {
    let mut sandbox = Sandbox::new();
    sandbox.config("");
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let leftover = sandbox.path("state/keepalive-rehearsal-0123");
    std::fs::create_dir_all(&leftover).unwrap();
    std::fs::write(leftover.join("alive"), "").unwrap();
    let verdict = sandbox.keepalive(&["--json", "rehearse", "--crowd", "4"]).exits(0).json();
    assert_eq!((verdict["verdict"].as_str(), verdict["store"].as_str()), (Some("held"), Some("keyring")));
    nothing_left(&sandbox);
    let found = bus.secret_tool(&["search", "--all", "username", "rehearsal"], "");
    assert!(!(found.stdout + &found.stderr).contains("rehearsal"));
}

fn is_running(pid: u32) -> bool {
    // A zombie whose parent has not looked yet runs no more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// A rehearsal that fails as soon as it has cleared away what others left.
fn short_rehearsal(sandbox: &Sandbox) {
    sandbox.config("[store]\nkind = \"file\"\nkey = { command = [\"false\"] }\n");
    sandbox.keepalive(&["rehearse", "--crowd", "2"]).exits(78).says("the import failed");
}

#[test]
fn the_daemon_of_a_killed_rehearsal_ends_with_it() {
    let sandbox = Sandbox::new();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
    let mut rehearsal = sandbox.spawn(&["rehearse", "--crowd", "2"]);
    rehearsal.wait_for_line("the daemon is running (pid ");
    let said = rehearsal.stderr_so_far();
    let pid = said.split("the daemon is running (pid ").nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
    assert!(is_running(pid));
    rehearsal.kill();
    super::support::eventually("the daemon ends", || (!is_running(pid)).then_some(()));
    short_rehearsal(&sandbox);
    nothing_left(&sandbox);
}

#[test]
fn next_rehearsal_ends_the_daemon_of_an_earlier_one() {
    for is_stuck in [false, true] {
        let mut sandbox = Sandbox::new();
        let leftover = sandbox.path("state/keepalive-rehearsal-0123");
        std::fs::create_dir_all(&leftover).unwrap();
        std::fs::write(leftover.join("alive"), "").unwrap();
        let at = |file: &str| leftover.join(file).display().to_string();
        sandbox.file_store("");
        sandbox.set_env("KEEPALIVE_STATE_DIR", &at("state"));
        sandbox.set_env("KEEPALIVE_SOCKET", &at("socket"));
        let daemon = sandbox.daemon();
        if is_stuck {
            daemon.pause();
        }
        let real = sandbox.path("state/keepalive").display().to_string();
        sandbox.set_env("KEEPALIVE_STATE_DIR", &real);
        short_rehearsal(&sandbox);
        assert!(!is_running(daemon.id()), "stuck: {is_stuck}");
        nothing_left(&sandbox);
    }
}

/// A socket's path is short on every Unix.
#[test]
fn rehearse_shows_why_its_daemon_does_not_start() {
    let mut sandbox = Sandbox::new();
    sandbox.file_store("");
    let long = sandbox.path(&"long".repeat(30)).join("keepalive").display().to_string();
    sandbox.set_env("KEEPALIVE_STATE_DIR", &long);
    sandbox.keepalive(&["rehearse"]).exits(1).says("the daemon exited at once").says("set KEEPALIVE_SOCKET to a path");
}

#[test]
fn rehearse_stops_on_a_broken_configuration() {
    let sandbox = Sandbox::new();
    sandbox.config("[store]\nkind = \"file\"\n");
    sandbox.keepalive(&["rehearse"]).exits(78).says("config.toml:2: [store] kind");
    nothing_left(&sandbox);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn rehearse_fails_on_a_locked_keyring() {
    let mut sandbox = Sandbox::new();
    sandbox.config("");
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Locked);
    sandbox.keepalive(&["rehearse"]).exits(69).says("the keyring is locked");
}

#[ignore = "needs minutes for a build of its own; contrib/test runs it"]
#[test]
fn rehearse_fails_when_locks_do_not_exclude() {
    let sandbox = Sandbox::new();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
    let run = Command::new(broken_build())
        .args(["--json", "rehearse", "--crowd", "24"])
        .env_clear()
        .envs(sandbox.environment())
        .current_dir(sandbox.path("home"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{said}");
    let verdict: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(verdict["verdict"], "failed");
}

/// This program, built so that its lock files exclude no other process. A target directory of its own keeps the good build good.
fn broken_build() -> PathBuf {
    let target = super::support::root().join("target/broken-guard");
    let built = super::support::cargo()
        .args(["build", "--quiet", "--locked", "--offline", "--features", "broken-guard", "--target-dir"])
        .arg(&target)
        .status()
        .unwrap();
    assert!(built.success());
    target.join("debug/keepalive")
}
