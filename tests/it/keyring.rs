//! The keyring store on a real gnome-keyring, in every state that a keyring can be in.

use std::time::{Duration, Instant};

use super::support::auth_server::AuthServer;
use super::support::other_keyrings::{OtherKeyring, RunningKeyring};
use super::support::sandbox::Sandbox;
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::simultaneous::run_at_once;
use super::support::token_family::RotationMode;

/// How long telling a keyring's state may take: 3 s of silence, and a little for starting the program.
const BOUND: Duration = Duration::from_millis(3500);

fn configured(server: &AuthServer) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox
}

fn uuid(sandbox: &Sandbox) -> String {
    let text = std::fs::read_to_string(sandbox.path("state/keepalive/store.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["uuid"].as_str().unwrap().to_owned()
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn published_keyring_item_matches_the_contract() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let result = sandbox.refresh(&["--force"]).exits(0).result();
    assert_eq!(result["publication"], "published");
    let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "").exits(0);
    let item: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        (item["generation"].as_u64(), item["provider"].as_str(), item["token_type"].as_str()),
        (Some(2), Some("acme"), Some("Bearer"))
    );
    assert_eq!(item["refresh_token"], server.current_refresh_token(0));
    assert!(server.is_live(item["access_token"].as_str().unwrap()));
    assert_eq!(item["expires_at"], sandbox.status()["expires_at"]);
    assert_eq!(item["scope"], "a b");
}

/// Rule 8.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn unusable_keyring_is_named_in_time_and_nothing_is_sent() {
    let server = AuthServer::start(RotationMode::Strict);
    for (state, words) in [
        (KeyringState::Missing, "no keyring service runs"),
        (KeyringState::Locked, "the keyring is locked"),
        (KeyringState::Hanging, "the keyring did not respond"),
    ] {
        let mut sandbox = configured(&server);
        let _bus = SessionBus::start(&mut sandbox, state);
        let begin = Instant::now();
        sandbox.import("demo", &server.mint()).exits(69).says(words);
        assert!(begin.elapsed() < BOUND, "{state:?} took {:?}", begin.elapsed());
    }
    let mut sandbox = configured(&server);
    sandbox.import("demo", &server.mint()).exits(69).says("there is no session bus");
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    sandbox.import("demo", &server.mint()).exits(69).says("there is no session bus");
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn failing_keyring_stops_refreshes_and_loses_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    bus.lock();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("the keyring is locked");
    sandbox.keepalive(&["token", "demo"]).exits(69);
    sandbox.keepalive(&["status"]).exits(69).says("the keyring is locked");
    bus.kill_keyring();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("no keyring service runs");
    bus.start_keyring();
    bus.suspend_keyring();
    let begin = Instant::now();
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("did not respond");
    assert!(begin.elapsed() < BOUND);
    bus.resume_keyring();
    assert_eq!(server.counts().refresh_requests, 0);
    // Until a run has the key, status says what the last one met.
    sandbox.keepalive(&["status"]).exits(69).says("did not respond");
    sandbox.keepalive(&["doctor"]).exits(69).says("it is there now").says("keepalive refresh -p demo");
    sandbox.keepalive(&["token", "demo"]).exits(0);
    assert_eq!(sandbox.status()["state"], "fresh");
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn daemon_publishes_after_the_keyring_is_restarted() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(4));
    let mut sandbox = configured(&server);
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let _daemon = sandbox.daemon();
    server.wait_for("a refresh", |c| c.refresh_ok >= 1);
    bus.kill_keyring();
    // The key is in the daemon's memory: at half of the margin it goes on without the keyring.
    let before = server.counts().refresh_ok;
    server.wait_for("refreshes without a keyring", |c| c.refresh_ok > before);
    super::support::eventually("it says what is pending", || {
        (sandbox.status()["publication"] == "publish_pending").then_some(())
    });
    let run = sandbox.keepalive(&["token", "demo", "--min-valid", "1s"]).exits(0);
    assert!(!run.stdout.is_empty());
    bus.start_keyring();
    super::support::eventually("the keyring is brought up to date", || {
        let status = sandbox.status();
        let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "");
        let item: serde_json::Value = serde_json::from_str(&found.stdout).ok()?;
        (status["publication"] == "published" && item["generation"] == status["generation"]).then_some(())
    });
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 10.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn restored_older_keyring_does_not_revive_a_consumed_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let file = sandbox.path("data/keyrings/login.keyring");
    let backup = std::fs::read(&file).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    bus.kill_keyring();
    std::fs::write(&file, backup).unwrap();
    bus.start_keyring();
    let requests = server.counts().refresh_requests;
    let fresh = sandbox.refresh(&["--lookahead", "1s"]).exits(0).result();
    assert_eq!(fresh["generation"], 2);
    assert_eq!(server.counts().refresh_requests, requests);
    sandbox.refresh(&["--force"]).exits(0);
    let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "").exits(0);
    assert!(found.stdout.contains(&server.current_refresh_token(0)));
    assert_eq!(server.counts().presented_again, 0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn deleted_sealing_key_leaves_the_sealed_credential_unchanged() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let sealed = std::fs::read(sandbox.path("state/keepalive/profiles/demo/sealed")).unwrap();
    bus.secret_tool(&["clear", "service", "keepalive-key", "username", &uuid(&sandbox)], "").exits(0);
    for arguments in [&["refresh", "-p", "demo", "--force"][..], &["token", "demo"]] {
        sandbox.keepalive(arguments).exits(69).says(&uuid(&sandbox));
    }
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(69);
    sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(69);
    assert_eq!(std::fs::read(sandbox.path("state/keepalive/profiles/demo/sealed")).unwrap(), sealed);
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn concurrent_first_imports_create_one_sealing_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let mut calls = Vec::new();
    let files: Vec<String> = (0..4)
        .map(|i| {
            let file = sandbox.path(&format!("home/token-{i}.json"));
            std::fs::write(&file, server.mint().to_string()).unwrap();
            file.display().to_string()
        })
        .collect();
    let names = ["p0", "p1", "p2", "p3"];
    for (name, file) in names.iter().zip(&files) {
        calls.push(vec!["import", name, "--provider", "acme", file.as_str()]);
    }
    for run in run_at_once(&sandbox, &calls) {
        run.exits(0);
    }
    sandbox.keepalive(&["refresh", "--force", "-p", "p0", "-p", "p1", "-p", "p2", "-p", "p3"]).exits(0);
    let found = bus.secret_tool(&["search", "--all", "service", "keepalive-key"], "");
    let items = (found.stdout + &found.stderr).matches("attribute.username").count();
    assert_eq!(items, 1);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn duplicate_keyring_item_is_reported_and_not_used() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let twin = ["store", "--label=twin", "service", "keepalive", "username", "demo", "extra", "1"];
    bus.secret_tool(&twin, r#"{"generation":0}"#).exits(0);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0).says("1 more keyring items name profile demo");
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 13.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn foreign_keyring_item_is_neither_used_nor_overwritten() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let response = server.mint();
    sandbox.import("demo", &response).exits(0);
    let forged = r#"{"refresh_token":"forged","generation":99}"#;
    bus.secret_tool(&["store", "--label=x", "service", "keepalive", "username", "demo"], forged).exits(0);
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(75);
    run.says("was written by another program");
    let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "");
    assert_eq!(found.stdout.trim(), forged);
    let form = server.last_form();
    let sent = form.iter().find(|(name, _)| name == "refresh_token").map(|(_, token)| token.as_str());
    assert_eq!(sent, response["refresh_token"].as_str(), "{form:?}");
    assert_eq!(sandbox.status()["publication"], "publish_pending");
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn hint_for_a_locked_gnome_keyring_unlocks_it() {
    let server = AuthServer::start(RotationMode::Strict);
    for state in [KeyringState::Locked, KeyringState::Unlocked] {
        let mut sandbox = configured(&server);
        let bus = SessionBus::start(&mut sandbox, state);
        if state == KeyringState::Unlocked {
            sandbox.import("demo", &server.mint()).exits(0);
            bus.lock();
        }
        let run = sandbox.import("demo", &server.mint()).exits(69).says("the keyring is locked");
        let hint = run.stderr.split("printf %s PASSWORD | ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
        bus.run_in_shell(&format!("printf %s test | {hint}"));
        sandbox.import("demo", &server.mint()).exits(0);
        sandbox.refresh(&["--force"]).exits(0);
    }
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn unlock_prompt_of_another_program_stays_open() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let mut bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    bus.lock();
    let prompt = bus.show_unlock_prompt();
    for arguments in [&["refresh", "-p", "demo", "--force"][..], &["token", "demo"], &["doctor"]] {
        sandbox.keepalive(arguments).exits(69).says("the keyring is locked");
    }
    assert!(bus.keyring_lives() && prompt.is_open());
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn empty_keyring_item_is_told_and_written_again() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    let empty = |service: &str, user: &str| {
        bus.secret_tool(&["store", "--label=x", "service", service, "username", user], "").exits(0);
    };
    empty("keepalive", "demo");
    let run = sandbox.keepalive(&["doctor"]).says("the keyring item is empty; the next refresh writes it");
    assert!(!(run.stdout + &run.stderr).contains("another program"));
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0);
    let run = run.says("the keyring item of demo was empty");
    assert!(!(run.stdout + &run.stderr).contains("another program"));
    let found = bus.secret_tool(&["lookup", "service", "keepalive", "username", "demo"], "").exits(0);
    assert!(found.stdout.contains(&server.current_refresh_token(0)));
    // An empty key is no key, and not a damaged one.
    empty("keepalive-key", &uuid(&sandbox));
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("(gnome-keyring) has no sealing key");
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 30.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn second_state_directory_is_an_error_until_take_over() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let first = sandbox.path("state").display().to_string();
    sandbox.set_env("XDG_STATE_HOME", &sandbox.path("other-state").display().to_string());
    sandbox
        .keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string())
        .exits(78)
        .says("another state directory");
    sandbox.keepalive(&["doctor"]).exits(78).says("another state directory");
    sandbox.keepalive(&["-v", "doctor", "--take-over"]).exits(0).says("as generation 3");
    sandbox.refresh(&["--force"]).exits(0);
    sandbox.set_env("XDG_STATE_HOME", &first);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(78).says("--take-over");
    let counts = server.counts();
    assert_eq!((counts.refresh_ok, counts.presented_again), (2, 0));
}

/// Rule 30.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn take_over_adopts_a_profile_the_store_does_not_know() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&server.provider(""));
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let import = |name: &str| {
        let answer = server.mint().to_string();
        sandbox.keepalive_with_input(&["import", name, "--provider", "acme", "--replace"], &answer)
    };
    for name in ["demo", "other"] {
        import(name).exits(0);
    }
    std::fs::rename(sandbox.path("state/keepalive"), sandbox.path("state/former")).unwrap();
    for name in ["demo", "other"] {
        import(name).exits(78).says(&format!("keepalive doctor --take-over -p {name}"));
    }
    let run = sandbox.keepalive(&["doctor", "--take-over"]).exits(0).says("but of no profile");
    assert!(!run.stdout.contains("good  take-over"), "{run:#?}");
    // One that is damaged does not hold the others up.
    std::fs::write(sandbox.path("state/keepalive/profiles/demo/record.json"), "dust").unwrap();
    let run = sandbox.keepalive(&["-v", "doctor", "--take-over", "-p", "demo", "-p", "other"]).exits(69);
    run.says("take-over: demo: ")
        .says("record.json is damaged")
        .says("other: adopted the keyring item as generation 2");
    sandbox.keepalive(&["refresh", "-p", "other", "--force"]).exits(0);
    std::fs::remove_file(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
    sandbox.keepalive(&["-v", "doctor", "--take-over", "-p", "demo"]).exits(0).says("demo: adopted the keyring item");
    import("demo").exits(0);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 0);
    sandbox.keepalive(&["doctor", "-p", "demo"]).exits(2).says("--take-over");
}

/// Rule 4.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn take_over_leaves_a_token_that_another_profile_holds() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = configured(&server);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    let answer = server.mint();
    sandbox.import("demo", &answer).exits(0);
    std::fs::rename(sandbox.path("state/keepalive"), sandbox.path("state/former")).unwrap();
    // While the copy is not there: an import would look for it.
    let item = ["service", "keepalive", "username", "demo"];
    let copy = bus.secret_tool(&[&["lookup"][..], &item].concat(), "").stdout;
    bus.secret_tool(&[&["clear"][..], &item].concat(), "").exits(0);
    sandbox.keepalive_with_input(&["import", "other", "--provider", "acme"], &answer.to_string()).exits(0);
    bus.secret_tool(&[&["store", "--label=demo"][..], &item].concat(), copy.trim_end()).exits(0);
    let run = sandbox.keepalive(&["doctor", "--take-over"]).exits(78);
    run.says("demo: profile other already has the refresh token of the keyring item")
        .says("use profile other, and remove the item: secret-tool clear service keepalive username demo");
    sandbox.keepalive(&["refresh", "-p", "other", "--force"]).exits(0);
    // Now it is spent.
    let run = sandbox.keepalive(&["doctor", "--take-over"]).exits(78);
    run.says("the refresh token of the keyring item has been used").says("and sign in again: keepalive login demo");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
}

/// The other keyrings. `contrib/test` leaves it out by its name: the packages bring half a desktop.
#[ignore = "needs keepassxc and kwalletd5; contrib/test --long runs it"]
#[test]
fn kwallet_and_keepassxc_keep_credentials_over_a_restart() {
    for program in [OtherKeyring::KWallet, OtherKeyring::KeePassXc] {
        let server = AuthServer::start(RotationMode::Strict);
        let mut sandbox = Sandbox::new();
        sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
        let _bus = SessionBus::start(&mut sandbox, KeyringState::Missing);
        let keyring = RunningKeyring::start(&sandbox, program);
        sandbox.import("demo", &server.mint()).exits(0);
        for _ in 0..5 {
            assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["publication"], "published", "{program:?}");
        }
        drop(keyring);
        let keyring = RunningKeyring::start(&sandbox, program);
        assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["generation"], 7, "{program:?}");
        keyring.lock(program);
        sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("the keyring is locked");
        drop(keyring);
        let keyring = RunningKeyring::start_asking(&sandbox, program);
        let refused = sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69);
        refused.says(program.words_when_it_asks()).says("[store] kind = \"file\"");
        let first = sandbox.path("state").display().to_string();
        sandbox.set_env("XDG_STATE_HOME", &sandbox.path("other-state").display().to_string());
        let refused =
            sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string());
        refused.exits(69).says(program.words_when_it_asks());
        assert!(!sandbox.path("other-state/keepalive/store.json").exists());
        sandbox.set_env("XDG_STATE_HOME", &first);
        drop(keyring);
        let _keyring = RunningKeyring::start(&sandbox, program);
        sandbox.refresh(&["--force"]).exits(0);
        assert_eq!((server.counts().refresh_ok, server.counts().presented_again), (7, 0));
    }
}
