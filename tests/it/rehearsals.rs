//! `rehearse`: holds on a sound machine, and notices a broken guard.

use std::path::PathBuf;
use std::process::Command;

use super::support::bus::{Bus, Keyring};
use super::support::sandbox::Sandbox;

fn nothing_left(sandbox: &Sandbox) {
    let left: Vec<_> = std::fs::read_dir(sandbox.path("state")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("keepalive-rehearsal")), "{left:?}");
}

#[test]
fn it_holds_with_no_bus_and_no_configuration() {
    let sandbox = Sandbox::new();
    let verdict = sandbox.keepalive(&["--json", "rehearse"]).exits(0).json();
    assert_eq!(verdict["verdict"], "held");
    assert_eq!((verdict["presented_again"].as_u64(), verdict["family_alive"].as_bool()), (Some(0), Some(true)));
    assert_eq!((verdict["served"].as_u64(), verdict["callers"].as_u64()), (Some(48), Some(48)));
    assert_eq!(verdict["store"], "file");
    assert!(verdict["refreshes"].as_u64() > Some(4));
    nothing_left(&sandbox);
}

#[test]
fn it_holds_on_a_real_keyring_and_leaves_no_item_behind() {
    let mut sandbox = Sandbox::new();
    sandbox.config("");
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    let leftover = sandbox.path("state/keepalive-rehearsal-0123");
    std::fs::create_dir_all(&leftover).unwrap();
    std::fs::write(leftover.join("alive"), "").unwrap();
    let verdict = sandbox.keepalive(&["--json", "rehearse", "--crowd", "4"]).exits(0).json();
    assert_eq!((verdict["verdict"].as_str(), verdict["store"].as_str()), (Some("held"), Some("keyring")));
    nothing_left(&sandbox);
    let found = bus.secret_tool(&["search", "--all", "username", "rehearsal"], "");
    assert!(!(found.stdout + &found.stderr).contains("rehearsal"));
}

#[test]
fn a_locked_keyring_makes_it_fail_before_anything_is_trusted() {
    let mut sandbox = Sandbox::new();
    sandbox.config("");
    let _bus = Bus::start(&mut sandbox, Keyring::Locked);
    sandbox.keepalive(&["rehearse"]).exits(1).says("the keyring is locked");
}

#[test]
fn a_broken_guard_is_noticed() {
    let sandbox = Sandbox::new();
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

/// This program, built so that its lock files exclude nobody. A target directory of its own keeps the good build good.
fn broken_build() -> PathBuf {
    let target = super::support::root().join("target/broken-guard");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--offline", "--features", "broken-guard", "--target-dir"])
        .arg(&target)
        .current_dir(super::support::root())
        .status()
        .unwrap();
    assert!(built.success());
    target.join("debug/keepalive")
}
