//! What is said to a Secret Service that is locked, has moved or dies, with a scripted one in its place.

use std::time::{Duration, Instant};

use super::support::auth_server::AuthServer;
use super::support::sandbox::Sandbox;
use super::support::scripted_keyring::{OnUnlock, ScriptedKeyring};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

/// A sandbox for `server` with a scripted keyring.
fn scripted(server: &AuthServer) -> (Sandbox, SessionBus, ScriptedKeyring) {
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let bus = SessionBus::start(&mut sandbox, KeyringState::Missing);
    let keyring = ScriptedKeyring::start(&sandbox);
    (sandbox, bus, keyring)
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn wallet_that_only_says_locked_is_unlocked_and_used() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted(&server);
    keyring.lock("login", OnUnlock::Opens);
    sandbox.import("demo", &server.mint()).exits(0);
    assert!(!keyring.is_locked("login"));
    keyring.lock("login", OnUnlock::Opens);
    let result = sandbox.refresh(&["--force"]).exits(0).result();
    assert_eq!(result["publication"], "published");
    assert_eq!(keyring.prompts(), Vec::<String>::new());
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn unlock_prompt_is_dismissed_and_never_shown() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted(&server);
    keyring.lock("login", OnUnlock::OffersPrompt);
    let run = sandbox.import("demo", &server.mint()).exits(69).says("the keyring is locked");
    run.says("or set [store] kind = \"file\"");
    sandbox.keepalive(&["doctor"]).exits(69).says("the keyring is locked");
    let prompts = keyring.prompts();
    assert!(!prompts.is_empty() && prompts.iter().all(|member| member == "Dismiss"), "{prompts:?}");
    assert_eq!(keyring.collections_of("keepalive-key"), Vec::<String>::new());
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn locked_keepassxc_is_not_searched_since_that_prompts() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Missing);
    let keyring = ScriptedKeyring::start_as(&sandbox, "org.keepassxc.KeePassXC.MainWindow");
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.lock("login", OnUnlock::OffersPrompt);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("unlock the database in KeePassXC");
    let prompts = keyring.prompts();
    assert!(!prompts.is_empty() && prompts.iter().all(|member| member == "Dismiss"), "{prompts:?}");
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn items_in_an_open_collection_are_used_without_the_default() {
    let server = AuthServer::start(RotationMode::Strict);
    for default in [None, Some(("other", Some(OnUnlock::OffersPrompt))), Some(("other", None))] {
        let (sandbox, _bus, keyring) = scripted(&server);
        sandbox.import("demo", &server.mint()).exits(0);
        keyring.set_default(default);
        let result = sandbox.refresh(&["--force"]).exits(0).result();
        assert_eq!(result["publication"], "published", "{default:?}");
        sandbox.keepalive(&["--json", "doctor"]).says("reachable and unlocked");
        sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(0);
        // A new item goes to the default collection only if that is open.
        let place = if matches!(default, Some((_, None))) { "other" } else { "login" };
        assert_eq!(keyring.collections_of("keepalive"), ["login", place]);
        assert_eq!(keyring.collections_of("keepalive-key"), ["login"]);
        assert!(!keyring.prompts().contains(&"Prompt".to_owned()));
    }
    assert_eq!(server.counts().presented_again, 0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn keyring_that_dies_in_a_call_is_missing_and_not_slow() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.die_in_search();
    let begin = Instant::now();
    sandbox.refresh(&["--force"]).exits(69).says("no keyring service runs");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn run_against_another_keyring_leaves_no_false_state() {
    let server = AuthServer::start(RotationMode::Strict);
    let (mut sandbox, _bus, _keyring) = scripted(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let environment = sandbox.environment();
    let home = environment.iter().find(|(name, _)| name == "DBUS_SESSION_BUS_ADDRESS").unwrap().1.clone();
    let mut elsewhere = Sandbox::new();
    let _other_bus = SessionBus::start(&mut elsewhere, KeyringState::Missing);
    let _other_keyring = ScriptedKeyring::start(&elsewhere);
    let other = elsewhere.environment().into_iter().find(|(name, _)| name == "DBUS_SESSION_BUS_ADDRESS").unwrap().1;
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", &other);
    let result = sandbox.refresh(&["--force"]).exits(69).result();
    assert_eq!(result["error"]["kind"], "key_missing");
    let status = sandbox.status();
    assert_eq!((status["state"].as_str(), status["error"].is_null()), (Some("fresh"), true), "{status}");
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", &home);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn refused_import_leaves_no_key_and_no_profile() {
    let server = AuthServer::start(RotationMode::Strict);
    let (mut sandbox, _bus, keyring) = scripted(&server);
    let answer = server.mint();
    sandbox.import("demo", &answer).exits(0);
    sandbox.set_env("XDG_STATE_HOME", &sandbox.path("other-state").display().to_string());
    sandbox.import("demo", &server.mint()).exits(78).says("another state directory");
    sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &answer.to_string()).exits(1);
    assert_eq!(keyring.collections_of("keepalive-key").len(), 1);
    assert_eq!(keyring.collections_of("keepalive").len(), 1);
    let status = sandbox.keepalive(&["status", "--json"]).json();
    assert!(!status.to_string().contains("\"new\""), "{status}");
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn locked_keyring_ends_a_login_before_discovery() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted(&server);
    let words = ["login", "work", "--issuer", server.url(), "--client-id", "public", "--yes"];
    keyring.lock("login", OnUnlock::OffersPrompt);
    sandbox.keepalive(&words).exits(69).says("the keyring is locked");
    assert_eq!(server.metadata_requests(), 0);
    // Open again, it loses the key that was made for a login that fails at the server.
    keyring.lock("login", OnUnlock::Opens);
    sandbox.keepalive(&words).exits(78).says("no authorization_endpoint");
    assert_eq!(keyring.collections_of("keepalive-key"), Vec::<String>::new());
}
