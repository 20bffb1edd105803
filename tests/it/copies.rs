//! Rule 30: copies of a state directory, made as people make them. None sends anything before `doctor --take-over`.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::auth_server::AuthServer;
use crate::support::sandbox::Sandbox;
use crate::support::token_family::RotationMode;

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// A store with a credential of generation 2, a server, and where the store is.
fn signed_in() -> (Sandbox, AuthServer, String) {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.refresh(&["--force"]).exits(0);
    let live = sandbox.path("state/keepalive").display().to_string();
    (sandbox, server, live)
}

fn kind(result: &Value) -> &str {
    result["error"]["kind"].as_str().unwrap_or_default()
}

/// Nothing is sent by any command, and all say why.
#[track_caller]
fn is_refused_as_copy(sandbox: &Sandbox, server: &AuthServer) {
    let before = server.counts().refresh_requests;
    for more in [&["--force"][..], &[]] {
        let run = sandbox.refresh(more);
        assert_eq!(kind(&run.result()), "clone", "{run:#?}");
        run.exits(78);
    }
    let status = sandbox.status();
    assert_eq!((&status["state"], kind(&status)), (&"config_error".into(), "clone"), "{status}");
    sandbox.keepalive(&["doctor"]).exits(78).says("doctor --take-over");
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(78);
    let import = sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string());
    import.exits(78).says("doctor --take-over");
    // What lives is handed out, with a warning.
    sandbox.keepalive(&["token", "demo"]).exits(0).says("copy of a state directory");
    assert_eq!(server.counts().refresh_requests, before, "nothing is sent");
    assert!(server.revoked().is_empty());
}

/// Signed in, and the state directory copied as people do: the original, and the copy.
fn copied() -> (Sandbox, AuthServer, String, String) {
    let (sandbox, server, live) = signed_in();
    let copy = sandbox.path("copy").display().to_string();
    run("cp", &["-a", &live, &copy]);
    (sandbox, server, live, copy)
}

#[test]
fn copied_state_directory_sends_nothing_before_take_over() {
    let (mut sandbox, server, live, copy) = copied();
    sandbox.set_env("KEEPALIVE_STATE_DIR", &copy);
    is_refused_as_copy(&sandbox, &server);
    sandbox.set_env("KEEPALIVE_STATE_DIR", &live);
    sandbox.refresh(&["--force"]).exits(0);
    let counts = server.counts();
    assert_eq!((counts.refresh_ok, counts.presented_again), (2, 0), "the original goes on");
}

#[test]
fn copy_that_is_taken_over_is_the_original_from_then_on() {
    let (mut sandbox, server, live, copy) = copied();
    std::fs::remove_dir_all(&live).unwrap();
    sandbox.set_env("KEEPALIVE_STATE_DIR", &copy);
    is_refused_as_copy(&sandbox, &server);
    let taken = sandbox.keepalive(&["doctor", "--take-over"]).exits(0);
    taken.says("done  take-over: demo: owned by this machine");
    sandbox.refresh(&["--force"]).exits(0);
    sandbox.keepalive(&["doctor", "--take-over"]).exits(0);
    run("cp", &["-a", &copy, &live]);
    sandbox.set_env("KEEPALIVE_STATE_DIR", &live);
    is_refused_as_copy(&sandbox, &server);
}

#[test]
fn moved_state_directory_goes_on_without_a_word() {
    let (mut sandbox, server, live) = signed_in();
    let moved = sandbox.path("moved").display().to_string();
    run("mv", &[&live, &moved]);
    sandbox.set_env("KEEPALIVE_STATE_DIR", &moved);
    sandbox.refresh(&["--force"]).exits(0);
    sandbox.keepalive(&["doctor", "--take-over"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 2);
}

#[ignore = "needs tar; contrib/test runs it"]
#[test]
fn state_directory_restored_from_an_archive_is_a_copy() {
    for is_emptied in [true, false] {
        let (sandbox, server, live) = signed_in();
        let archive = sandbox.path("backup.tar").display().to_string();
        run("tar", &["-C", &live, "-cf", &archive, "."]);
        sandbox.refresh(&["--force"]).exits(0);
        if is_emptied {
            std::fs::remove_dir_all(&live).unwrap();
            std::fs::create_dir(&live).unwrap();
        }
        run("tar", &["-C", &live, "-xpf", &archive]);
        is_refused_as_copy(&sandbox, &server);
        assert_eq!(server.counts().presented_again, 0);
    }
}

/// The files stay where they are, with their inodes, and get the content of the backup.
#[test]
fn backup_copied_over_the_store_sends_nothing() {
    for how in ["-r", "-a"] {
        let (sandbox, server, live) = signed_in();
        let backup = sandbox.path("backup").display().to_string();
        run("cp", &[how, &live, &backup]);
        let restore = || run("cp", &[how, &format!("{backup}/."), &live]);
        restore();
        sandbox.refresh(&["--force"]).exits(0);
        let before = server.counts().refresh_requests;
        restore();
        let status = sandbox.status();
        assert_eq!((&status["state"], kind(&status)), (&"config_error".into(), "clone"), "{status}");
        for more in [&["--force"][..], &[], &["--force"]] {
            assert_eq!(kind(&sandbox.refresh(more).result()), "clone");
        }
        assert_eq!(server.counts().refresh_requests, before, "nothing is sent");
    }
}

/// A filesystem gives the inode of a deleted file to the next one, which is then the restored copy of it.
#[test]
fn backup_restored_again_is_known_though_inodes_come_back() {
    let (sandbox, server, live) = signed_in();
    let backup = sandbox.path("backup").display().to_string();
    for round in 0..8 {
        run("cp", &["-a", &live, &backup]);
        sandbox.refresh(&["--force"]).exits(0);
        let before = server.counts().refresh_requests;
        run("rm", &["-rf", &live]);
        run("cp", &["-a", &backup, &live]);
        run("rm", &["-rf", &backup]);
        let told = sandbox.refresh(&["--force"]);
        assert_eq!(
            (kind(&told.result()), server.counts().refresh_requests),
            ("clone", before),
            "round {round}: {told:#?}"
        );
        sandbox.keepalive(&["doctor", "--take-over"]);
        sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
    }
}

/// As a program does that restores only what has changed: `store.json` stays.
#[ignore = "needs tar; contrib/test runs it"]
#[test]
fn files_restored_in_place_are_not_sent_as_the_newest() {
    let (sandbox, server, live) = signed_in();
    let backup = sandbox.path("backup").display().to_string();
    run("cp", &["-a", &live, &backup]);
    run("find", &[&backup, "-type", "f", "-exec", "touch", "-d", "2 hours ago", "{}", "+"]);
    std::fs::remove_file(Path::new(&backup).join("store.json")).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    run("cp", &["-a", &format!("{backup}/."), &live]);
    let status = sandbox.status();
    assert_eq!((&status["state"], kind(&status)), (&"config_error".into(), "clone"), "{status}");
    for _ in 0..2 {
        assert_eq!(kind(&sandbox.refresh(&["--force"]).result()), "clone");
        assert_eq!(kind(&sandbox.status()), "clone");
    }
    sandbox.keepalive(&["token", "demo"]).exits(0).says("restored from a backup");
    assert_eq!((server.counts().refresh_ok, server.counts().presented_again), (2, 0));
    // The way out.
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn copy_without_its_identity_is_not_made_the_original() {
    let (mut sandbox, server, _live, copy) = copied();
    let identity = Path::new(&copy).join("store.json");
    std::fs::remove_file(&identity).unwrap();
    sandbox.set_env("KEEPALIVE_STATE_DIR", &copy);
    is_refused_as_copy(&sandbox, &server);
    assert!(!identity.exists());
    sandbox.keepalive(&["doctor", "--take-over"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

/// Of an earlier version, which noted neither owner nor place.
#[test]
fn identity_of_an_earlier_version_notes_its_place() {
    let (mut sandbox, server, live) = signed_in();
    let identity = Path::new(&live).join("store.json");
    let mut old: Value = serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    let object = old.as_object_mut().unwrap();
    let [_owner, _file] = ["owner", "file"].map(|name| object.remove(name).unwrap());
    std::fs::write(&identity, old.to_string()).unwrap();
    let copy = sandbox.path("copy").display().to_string();
    run("cp", &["-a", &live, &copy]);
    sandbox.set_env("KEEPALIVE_STATE_DIR", &copy);
    is_refused_as_copy(&sandbox, &server);
    sandbox.set_env("KEEPALIVE_STATE_DIR", &live);
    sandbox.refresh(&["--force"]).exits(0);
    let new: Value = serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    assert!(new["owner"].is_string() && new["file"].is_object() && new["uuid"] == old["uuid"], "{new}");
}

/// The hint for a damaged one says so.
#[test]
fn identity_restored_alone_is_no_copy() {
    let (sandbox, server, live) = signed_in();
    let identity = Path::new(&live).join("store.json");
    let kept = std::fs::read(&identity).unwrap();
    std::fs::write(sandbox.path("aside"), &kept).unwrap();
    std::fs::rename(sandbox.path("aside"), &identity).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    assert_ne!(std::fs::read(&identity).unwrap(), kept, "it notes its new place");
    assert_eq!(server.counts().refresh_ok, 2);
}

/// Every container of an image has the files of the image, by inode and birth; only its own changes are elsewhere.
#[test]
fn store_in_an_image_is_a_copy_in_each_container() {
    let (sandbox, server, live) = signed_in();
    let elsewhere = |name: &str| {
        let path = Path::new(&live).join(name);
        let mut noted: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        noted["file"]["volume"] = "/containers/1/diff".into();
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.write_all(noted.to_string().as_bytes()).unwrap();
    };
    elsewhere("store.json");
    elsewhere("profiles/demo/record.json");
    is_refused_as_copy(&sandbox, &server);
}

#[test]
fn daemon_on_a_copy_sends_nothing() {
    let (mut sandbox, server, _live, copy) = copied();
    sandbox.set_env("KEEPALIVE_STATE_DIR", &copy);
    server.set_access_life(std::time::Duration::from_secs(1));
    let daemon = sandbox.daemon();
    assert_eq!(kind(&sandbox.status()), "clone");
    daemon.terminate();
    daemon.finish().exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}
