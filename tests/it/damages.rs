//! A store that is damaged or cannot be read: what is said of it, and that it hides nothing else.

use serde_json::Value;

use super::support::authserver::{AuthServer, Fault};
use super::support::bus::{Bus, Keyring};
use super::support::family::Mode;
use super::support::sandbox::Sandbox;

/// The row of a profile in `status --json`.
fn row(status: &Value, profile: &str) -> Value {
    let rows = status["profiles"].as_array().unwrap();
    rows.iter().find(|row| row["profile"] == profile).unwrap().clone()
}

#[test]
fn a_damaged_journal_is_trouble_of_the_store_and_not_of_the_configuration() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let journal = sandbox.path("state/keepalive/profiles/demo/record.json");
    std::fs::write(&journal, "{\n").unwrap();
    for arguments in [
        &["status", "-p", "demo"][..],
        &["status"],
        &["token", "demo"],
        &["refresh", "-p", "demo", "--force"],
        &["refresh", "--force"],
    ] {
        sandbox.keepalive(arguments).exits(69).says("record.json is damaged").says("restore the file from a backup");
    }
    let status = sandbox.keepalive(&["--json", "status"]).exits(69).json();
    assert_eq!(row(&status, "demo")["error"]["kind"], "damaged");
    let told = sandbox.keepalive(&["status"]).exits(69).says("store unavailable");
    assert!(!told.stdout.contains("configuration error"), "{told:#?}");
}

#[test]
fn after_a_damaged_journal_a_profile_can_be_signed_in_anew_as_the_hint_says() {
    let server = AuthServer::start(Mode::Strict);
    let mut with_keyring = Sandbox::new();
    with_keyring.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = Bus::start(&mut with_keyring, Keyring::Unlocked);
    with_keyring.import("demo", &server.mint()).exits(0);
    for sandbox in [Sandbox::signed_in(&server), with_keyring] {
        std::fs::write(sandbox.path("state/keepalive/profiles/demo/record.json"), "{").unwrap();
        sandbox.keepalive(&["token", "demo"]).exits(69).says("or log in again, or import with --replace");
        sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
        sandbox.refresh(&["--force"]).exits(0);
    }
}

#[test]
fn a_damaged_journal_does_not_keep_the_other_profiles_from_their_refresh() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for profile in ["first", "other"] {
        let answer = server.mint().to_string();
        sandbox.keepalive_with_input(&["import", profile, "--provider", "acme"], &answer).exits(0);
    }
    std::fs::write(sandbox.path("state/keepalive/profiles/first/record.json"), "{").unwrap();
    sandbox.keepalive(&["refresh", "--force"]).exits(69).says("record.json is damaged");
    let status = sandbox.keepalive(&["--json", "status"]).exits(69).json();
    assert_eq!(["demo", "other"].map(|name| row(&status, name)["generation"].as_u64()), [Some(2), Some(2)]);
    assert_eq!(row(&status, "first")["error"]["kind"], "damaged");
}

#[test]
fn a_store_directory_that_cannot_be_read_is_told_with_a_remedy() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let profiles = sandbox.path("state/keepalive/profiles");
    // Also root, whom no mode keeps out, cannot list a file.
    std::fs::rename(&profiles, sandbox.path("state/aside")).unwrap();
    std::fs::write(&profiles, "").unwrap();
    for arguments in [&["status"][..], &["status", "-p", "demo"], &["refresh"], &["token", "demo"]] {
        let run = sandbox.keepalive(arguments).exits(69).says("cannot read");
        run.says("hint: check space and permissions below");
    }
}

#[test]
fn r03_a_profile_whose_folder_was_put_back_from_a_backup_is_not_called_fresh_and_tells_the_way_out() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let first = server.mint();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &first.to_string()).exits(0);
    let files = ["record.json", "sealed"].map(|file| sandbox.path("state/keepalive/profiles/demo").join(file));
    let backup = files.each_ref().map(|file| std::fs::read(file).unwrap());
    sandbox.refresh(&["--force"]).exits(0);
    for (file, bytes) in files.iter().zip(backup) {
        std::fs::write(file, bytes).unwrap();
    }
    for arguments in [&["status"][..], &["refresh"], &["refresh", "--force"], &["status"]] {
        sandbox.keepalive(arguments).exits(78).says("an older copy was restored").says("keepalive login demo");
    }
    let row = row(&sandbox.keepalive(&["--json", "status"]).exits(78).json(), "demo");
    assert_eq!((&row["state"], &row["error"]["kind"]), (&"config_error".into(), &"stale_credential".into()));
    sandbox.keepalive(&["token", "demo"]).exits(0).says("warning: demo: not refreshed");
    sandbox.keepalive_with_input(&["import", "demo"], &first.to_string()).exits(1).says("already used or refused");
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn r17_a_doubt_is_shown_and_kept_when_its_journal_is_put_back_or_damaged() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let answer = server.mint().to_string();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer).exits(0);
    let journal = sandbox.path("state/keepalive/profiles/demo/record.json");
    let before = std::fs::read(&journal).unwrap();
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    for lost in [&before[..], b"{"] {
        std::fs::write(&journal, lost).unwrap();
        if lost == b"{" {
            sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer).exits(0).says("already here");
        }
        let status = sandbox.keepalive(&["--json", "status"]).exits(75).json();
        assert_eq!(row(&status, "demo")["state"], "in_doubt");
        sandbox.refresh(&["--force"]).exits(75).says("may be spent");
    }
    std::fs::write(&journal, "{").unwrap();
    sandbox.keepalive(&["logout", "demo", "--forget"]);
    for profile in ["demo", "other"] {
        let arguments = ["import", profile, "--provider", "acme"];
        sandbox.keepalive_with_input(&arguments, &answer).exits(1).says("or may have been");
    }
    assert_eq!(server.counts().refresh_requests, 1);
}
