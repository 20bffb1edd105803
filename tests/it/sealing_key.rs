//! The key of a store that is lost or another: what is said, what is refused, and the ways out.

use std::path::PathBuf;

use super::support::auth_server::AuthServer;
use super::support::sandbox::Sandbox;
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

/// What a login looks for before it looks at the store.
const WITH_LOGIN: &str = "authorization_endpoint = \"http://127.0.0.1:1/authorize\"";
const MAKE_ONE: &str = "head -c 32 /dev/urandom";

/// The id of the key that a profile is sealed under, from the header that anybody may read.
fn key_id(sandbox: &Sandbox, profile: &str) -> String {
    let bytes = std::fs::read(sandbox.path(&format!("state/keepalive/profiles/{profile}/sealed"))).unwrap();
    let header = String::from_utf8_lossy(&bytes).lines().nth(1).unwrap().to_owned();
    serde_json::from_str::<serde_json::Value>(&header).unwrap()["key_id"].as_str().unwrap().to_owned()
}

fn key(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("home/key")
}

/// Puts the key aside, and gives where.
fn lose_key(sandbox: &Sandbox) -> PathBuf {
    let aside = sandbox.path("home/key.aside");
    std::fs::rename(key(sandbox), &aside).unwrap();
    aside
}

/// Puts another key in its place.
fn change_key(sandbox: &Sandbox) {
    std::fs::write(key(sandbox), [7; 32]).unwrap();
    std::fs::set_permissions(key(sandbox), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn import_new(sandbox: &Sandbox, server: &AuthServer, profile: &str) -> super::support::sandbox::Run {
    let arguments = ["import", profile, "--provider", "acme"];
    sandbox.keepalive_with_input(&arguments, &server.mint().to_string())
}

#[test]
fn lost_key_file_must_be_restored_if_profiles_are_sealed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in_with(&server, WITH_LOGIN);
    let id = key_id(&sandbox, "demo");
    let aside = lose_key(&sandbox);
    for arguments in [
        &["token", "demo"][..],
        &["refresh", "-p", "demo", "--force"],
        &["logout", "demo"],
        &["doctor"],
        &["login", "demo", "--paste"],
    ] {
        let run = sandbox.keepalive(arguments).exits(78).says(&format!("restore key {id}"));
        let run = run.says("keepalive logout PROFILE --forget");
        assert!(!run.stderr.contains(MAKE_ONE) && !run.stdout.contains(MAKE_ONE), "{run:#?}");
    }
    let run = import_new(&sandbox, &server, "other").exits(78).says(&format!("restore key {id}"));
    assert!(!run.stderr.contains(MAKE_ONE), "{run:#?}");
    std::fs::rename(aside, key(&sandbox)).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn missing_key_file_may_be_created_while_nothing_is_sealed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    lose_key(&sandbox);
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1);
    sandbox.import("demo", &server.mint()).exits(78).says(MAKE_ONE);
    change_key(&sandbox);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn wrong_key_opens_nothing_and_the_right_one_is_named() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let id = key_id(&sandbox, "demo");
    let aside = lose_key(&sandbox);
    change_key(&sandbox);
    for arguments in [&["token", "demo"][..], &["refresh", "-p", "demo", "--force"], &["logout", "demo"], &["doctor"]] {
        let run = sandbox.keepalive(arguments).exits(69).says(&format!("restore key {id} to"));
        run.says(&format!("is sealed with key {id}, but "));
    }
    std::fs::rename(aside, key(&sandbox)).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn store_refuses_a_new_profile_under_a_second_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in_with(&server, WITH_LOGIN);
    let id = key_id(&sandbox, "demo");
    lose_key(&sandbox);
    change_key(&sandbox);
    import_new(&sandbox, &server, "brandnew").exits(69).says(&format!("restore key {id} to"));
    sandbox.keepalive(&["login", "brandnew", "--provider", "acme", "--paste"]).exits(69).says(&id);
    assert!(!sandbox.path("state/keepalive/profiles/brandnew/sealed").exists());
    // One damaged file does not decide which key is right, and locks no profile out.
    import_new(&sandbox, &server, "demo").exits(69);
    std::fs::write(sandbox.path("state/keepalive/profiles/demo/sealed"), "dust").unwrap();
    import_new(&sandbox, &server, "brandnew").exits(0);
    sandbox.keepalive(&["refresh", "-p", "brandnew", "--force"]).exits(0);
}

#[test]
fn new_key_is_accepted_after_replacing_or_forgetting_profiles() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    import_new(&sandbox, &server, "other").exits(0);
    lose_key(&sandbox);
    change_key(&sandbox);
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
    assert_ne!(key_id(&sandbox, "demo"), key_id(&sandbox, "other"));
    // Some of it is under the key at hand: what is new may be too.
    import_new(&sandbox, &server, "brandnew").exits(0);
    sandbox.keepalive(&["logout", "other", "--forget"]).exits(1);
    import_new(&sandbox, &server, "other").exits(0);
    sandbox.keepalive(&["refresh", "--force"]).exits(0);
    assert_eq!(key_id(&sandbox, "demo"), key_id(&sandbox, "other"));
}

#[test]
fn remains_of_an_interrupted_logout_do_not_bind_the_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let sealed = sandbox.path("state/keepalive/profiles/demo/sealed");
    let saved = std::fs::read(&sealed).unwrap();
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1);
    std::fs::write(&sealed, saved).unwrap();
    lose_key(&sandbox);
    sandbox.keepalive(&["doctor"]).exits(78).says(MAKE_ONE);
    change_key(&sandbox);
    import_new(&sandbox, &server, "other").exits(0);
    import_new(&sandbox, &server, "demo").exits(0);
    sandbox.keepalive(&["refresh", "--force"]).exits(0);
}

#[test]
fn take_over_is_refused_under_another_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let id = key_id(&sandbox, "demo");
    let aside = lose_key(&sandbox);
    change_key(&sandbox);
    sandbox.keepalive(&["doctor", "--take-over"]).exits(69).says(&format!("restore key {id} to"));
    std::fs::rename(aside, key(&sandbox)).unwrap();
    sandbox.keepalive(&["doctor", "--take-over"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn wrong_key_in_the_keyring_seals_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let id = key_id(&sandbox, "demo");
    let store = std::fs::read_to_string(sandbox.path("state/keepalive/store.json")).unwrap();
    let uuid = serde_json::from_str::<serde_json::Value>(&store).unwrap()["uuid"].as_str().unwrap().to_owned();
    let other = keepalive::store::keys::sealing_key::SealingKey::new([7; 32]);
    let item = serde_json::json!({
        "format": 1, "store": uuid, "key_id": other.id(), "key": "07".repeat(32), "generation": 1,
    });
    let at = ["service", "keepalive-key", "username", &uuid];
    bus.secret_tool(&[&["clear"], &at[..]].concat(), "").exits(0);
    bus.secret_tool(&[&["store", "--label=x"], &at[..]].concat(), &item.to_string()).exits(0);
    import_new(&sandbox, &server, "brandnew").exits(69).says(&format!("restore key {id} to the keyring"));
    // A daemon says so and waits for the keyring to be mended.
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("restore key {id} to the keyring"));
    // With the last profile its key goes, and the next one has another.
    sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn daemon_does_not_start_without_the_right_key_file() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let id = key_id(&sandbox, "demo");
    let aside = lose_key(&sandbox);
    sandbox.keepalive(&["daemon"]).exits(78).says("does not exist").says(&format!("restore key {id}"));
    change_key(&sandbox);
    sandbox.keepalive(&["daemon"]).exits(78).says(&format!("restore key {id} to"));
    std::fs::rename(aside, key(&sandbox)).unwrap();
    drop(sandbox.daemon());
    let empty = Sandbox::new();
    empty.file_store("");
    lose_key(&empty);
    empty.keepalive(&["daemon"]).exits(78).says(MAKE_ONE);
    empty.file_store("");
    drop(empty.daemon());
}

#[test]
fn daemon_tells_systemd_why_it_ends_without_its_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let path = sandbox.path("run/notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    sandbox.set_env("NOTIFY_SOCKET", &path.display().to_string());
    let id = key_id(&sandbox, "demo");
    lose_key(&sandbox);
    sandbox.keepalive(&["daemon"]).exits(78);
    let mut told = [0; 4096];
    let length = socket.recv(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]).into_owned();
    assert!(told.starts_with("STATUS=") && told.contains(&format!("restore key {id}")), "{told}");
    assert!(socket.recv(&mut [0; 4096]).is_err(), "it is not ready");
}

#[test]
fn daemon_ends_with_the_reason_when_the_key_command_fails() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.config(&format!("[store]\nkind = \"file\"\nkey = {{ command = [\"false\"] }}\n{}", server.provider("")));
    sandbox.keepalive(&["daemon"]).exits(78).says("the key command failed").says("by hand");
}

#[test]
fn daemon_reports_a_profile_sealed_under_another_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    import_new(&sandbox, &server, "other").exits(0);
    let id = key_id(&sandbox, "other");
    lose_key(&sandbox);
    change_key(&sandbox);
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("restore key {id} to"));
}

#[test]
fn status_reports_a_missing_key_file_without_reading_keys() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let id = key_id(&sandbox, "demo");
    let aside = lose_key(&sandbox);
    let profile = sandbox.keepalive(&["--json", "status"]).exits(78).profile();
    assert_eq!((profile["state"].as_str(), profile["error"]["kind"].as_str()), (Some("config_error"), Some("key")));
    sandbox.keepalive(&["status"]).exits(78).says(&format!("restore key {id}"));
    // What is in it is not looked at.
    std::fs::write(key(&sandbox), "not a key").unwrap();
    sandbox.keepalive(&["status"]).exits(0);
    std::fs::rename(aside, key(&sandbox)).unwrap();
    sandbox.keepalive(&["status"]).exits(0);
    let empty = Sandbox::new();
    empty.file_store("");
    lose_key(&empty);
    empty.keepalive(&["status"]).exits(0).says(MAKE_ONE);
}

#[ignore = "needs flock; contrib/test runs it"]
#[test]
fn key_command_runs_once_and_while_no_lock_is_held() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let (script, seen) = (sandbox.path("home/key.sh"), sandbox.path("home/seen"));
    let store = sandbox.path("state/keepalive");
    let looks = |lock: &str| {
        let lock = store.join(lock);
        format!("flock -n {} true && echo free >>{seen} || echo held >>{seen}\n", lock.display(), seen = seen.display())
    };
    let text = format!("cat {}\n{}{}", key(&sandbox).display(), looks("profiles/demo/lock"), looks("store.lock"));
    std::fs::write(&script, text).unwrap();
    let command = format!("[\"sh\", \"{}\"]", script.display());
    sandbox.config(&format!("[store]\nkind = \"file\"\nkey = {{ command = {command} }}\n{}", server.provider("")));
    let answer = server.mint().to_string();
    for (arguments, status) in [
        (&["refresh", "-p", "demo", "--force"][..], 0),
        (&["import", "demo", "--replace"], 0),
        (&["logout", "demo", "--forget"], 1),
    ] {
        sandbox.keepalive_with_input(arguments, &answer).exits(status);
        assert_eq!(std::fs::read_to_string(&seen).unwrap(), "free\nfree\n", "{arguments:?}: once, and freely");
        std::fs::remove_file(&seen).unwrap();
    }
}
