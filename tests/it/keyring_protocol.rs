//! What is said to a Secret Service that is locked, has moved or dies, with a scripted one in its place.

use std::time::{Duration, Instant};

use super::support::auth_server::AuthServer;
use super::support::sandbox::Sandbox;
use super::support::scripted_keyring::{OnUnlock, ScriptedKeyring};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

const GNOME_KEYRING: &str = "org.gnome.keyring";
const KWALLET: &str = "org.kde.kwalletd5";
const KEEPASSXC: &str = "org.keepassxc.KeePassXC.MainWindow";
const UNKNOWN: &str = "org.keepalive.test";

/// A sandbox for `server` with a scripted keyring.
fn scripted(server: &AuthServer) -> (Sandbox, SessionBus, ScriptedKeyring) {
    scripted_as(server, UNKNOWN)
}

/// As `scripted`, of a program that is known by this name.
fn scripted_as(server: &AuthServer, program: &str) -> (Sandbox, SessionBus, ScriptedKeyring) {
    let mut sandbox = Sandbox::new();
    sandbox.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let bus = SessionBus::start(&mut sandbox, KeyringState::Missing);
    let keyring = ScriptedKeyring::start_as(&sandbox, program);
    (sandbox, bus, keyring)
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn wallet_that_only_says_locked_is_unlocked_and_used() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, KWALLET);
    keyring.lock("login", OnUnlock::Opens);
    sandbox.import("demo", &server.mint()).exits(0);
    assert!(!keyring.is_locked("login"));
    keyring.lock("login", OnUnlock::Opens);
    let result = sandbox.refresh(&["--force"]).exits(0).result();
    assert_eq!(result["publication"], "published");
    assert_eq!(keyring.prompts(), ["Unlock", "Prompt", "Unlock", "Prompt"]);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn open_wallet_is_used_while_the_default_is_closed() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, KWALLET);
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.set_default(Some(("other", Some(OnUnlock::OffersPrompt))));
    let again = || keyring.lock("login", OnUnlock::Opens);
    again();
    assert_eq!(sandbox.refresh(&["--force"]).exits(0).result()["publication"], "published");
    again();
    sandbox.keepalive(&["token", "demo"]).exits(0);
    again();
    sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(0);
    again();
    sandbox.keepalive(&["--json", "doctor"]).exits(0).says("reachable and unlocked");
    assert_eq!(keyring.collections_of("keepalive"), ["login", "login"]);
    assert!(keyring.is_locked("other"));
    // One that is open and gives no access keeps no other from being used.
    keyring.lock("other", OnUnlock::Denies);
    again();
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn locked_keyring_is_never_asked_to_unlock() {
    let server = AuthServer::start(RotationMode::Strict);
    for program in [GNOME_KEYRING, KEEPASSXC, KWALLET, UNKNOWN] {
        let (sandbox, _bus, keyring) = scripted_as(&server, program);
        sandbox.import("demo", &server.mint()).exits(0);
        keyring.lock("login", OnUnlock::OffersPrompt);
        for arguments in [&["refresh", "-p", "demo", "--force"][..], &["token", "demo"], &["doctor"]] {
            let run = sandbox.keepalive(arguments).exits(69).says("the keyring is locked");
            run.says("or set [store] kind = \"file\"");
        }
        sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(69);
        assert_eq!(keyring.prompts(), Vec::<String>::new(), "{program}");
        assert_eq!(keyring.collections_of("keepalive").len(), 1);
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn question_of_kwallet_is_asked_once_a_run_and_named() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, KWALLET);
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.lock("login", OnUnlock::Asks);
    for (n, arguments) in
        [&["refresh", "-p", "demo", "--force"][..], &["token", "demo"], &["doctor"]].iter().enumerate()
    {
        let begin = Instant::now();
        let run = sandbox.keepalive(arguments).exits(69).says("KWallet asks a person on the screen");
        run.says("or set [store] kind = \"file\"");
        assert!(begin.elapsed() < Duration::from_millis(3500), "{arguments:?} took {:?}", begin.elapsed());
        assert_eq!(keyring.prompts(), ["Unlock", "Prompt"].repeat(n + 1));
    }
    keyring.lock("login", OnUnlock::Denies);
    sandbox.keepalive(&["doctor"]).exits(69).says("the keyring denied access").says("KWalletManager");
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn kwallet_that_is_set_to_ask_is_not_asked() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, KWALLET);
    sandbox.import("demo", &server.mint()).exits(0);
    let settings = sandbox.path("config/kwalletrc");
    std::fs::write(&settings, "[Wallet]\nPrompt on Open=true\n").unwrap();
    keyring.lock("login", OnUnlock::Asks);
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("KWallet asks a person");
    run.says("Prompt when an application accesses a wallet");
    assert_eq!(keyring.prompts(), Vec::<String>::new());
    // It asks no more once a person has allowed it for good.
    std::fs::write(&settings, "[Wallet]\nPrompt on Open=true\n[Auto Allow]\nlogin=KDE System\n").unwrap();
    keyring.lock("login", OnUnlock::Opens);
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn locked_keepassxc_is_not_searched_since_that_prompts() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, KEEPASSXC);
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.lock("login", OnUnlock::OffersPrompt);
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says("unlock the database in KeePassXC");
    assert_eq!(keyring.prompts(), Vec::<String>::new());
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn locked_database_beside_an_open_one_is_not_a_lost_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let (mut sandbox, _bus, keyring) = scripted_as(&server, KEEPASSXC);
    sandbox.import("demo", &server.mint()).exits(0);
    keyring.lock("login", OnUnlock::OffersPrompt);
    keyring.set_default(Some(("other", None)));
    for arguments in [&["refresh", "-p", "demo", "--force"][..], &["token", "demo"], &["doctor"]] {
        let run = sandbox.keepalive(arguments).exits(69).says("the keyring is locked");
        run.says("unlock the database in KeePassXC").says("or set [store] kind = \"file\"");
    }
    sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(69);
    assert_eq!((keyring.prompts(), keyring.created()), (Vec::new(), 2));
    // A store with nothing in it has no key that could be in there.
    sandbox.set_env("XDG_STATE_HOME", &sandbox.path("other-state").display().to_string());
    sandbox.keepalive_with_input(&["import", "new", "--provider", "acme"], &server.mint().to_string()).exits(0);
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn refused_first_import_leaves_neither_key_nor_store() {
    let server = AuthServer::start(RotationMode::Strict);
    let (mut sandbox, _bus, keyring) = scripted_as(&server, KEEPASSXC);
    keyring.confirm_access();
    sandbox.import("demo", &server.mint()).exits(69).says("let clients read without confirmation");
    assert_eq!((keyring.created(), keyring.collections_of("keepalive-key").len()), (1, 0));
    assert!(!sandbox.path("state/keepalive/store.json").exists());
    // Where another item shows that none could be read back, none is made.
    keyring.add_foreign_item();
    sandbox.set_env("XDG_STATE_HOME", &sandbox.path("other-state").display().to_string());
    sandbox.import("demo", &server.mint()).exits(69).says("let clients read without confirmation");
    assert_eq!(keyring.created(), 1);
    assert!(!sandbox.path("other-state/keepalive/store.json").exists());
    keyring.lock("login", OnUnlock::OffersPrompt);
    sandbox.import("demo", &server.mint()).exits(69).says("the keyring is locked");
    assert!(!sandbox.path("other-state/keepalive/store.json").exists());
}

#[ignore = "needs dbus-daemon; contrib/test runs it"]
#[test]
fn default_keyring_that_is_gone_is_named_as_missing() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, _bus, keyring) = scripted_as(&server, GNOME_KEYRING);
    keyring.remove_collection("login");
    let run = sandbox.import("demo", &server.mint()).exits(69).says("the keyring has no default collection");
    run.says("gnome-keyring-daemon --replace --unlock").says("or set [store] kind = \"file\"");
    assert!(!sandbox.path("state/keepalive/store.json").exists());
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
        assert_eq!(keyring.prompts().iter().find(|call| *call != "SearchItems"), None);
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
    let (mut sandbox, _bus, _keyring) = scripted_as(&server, KWALLET);
    sandbox.import("demo", &server.mint()).exits(0);
    let environment = sandbox.environment();
    let home = environment.iter().find(|(name, _)| name == "DBUS_SESSION_BUS_ADDRESS").unwrap().1.clone();
    let mut elsewhere = Sandbox::new();
    let _other_bus = SessionBus::start(&mut elsewhere, KeyringState::Missing);
    let _other_keyring = ScriptedKeyring::start_as(&elsewhere, GNOME_KEYRING);
    let other = elsewhere.environment().into_iter().find(|(name, _)| name == "DBUS_SESSION_BUS_ADDRESS").unwrap().1;
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", &other);
    let result = sandbox.refresh(&["--force"]).exits(69).result();
    assert_eq!(result["error"]["kind"], "key_missing");
    let run = sandbox.keepalive(&["token", "demo"]).exits(69).says("the keyring (gnome-keyring) has no sealing key");
    run.says("run where that is the keyring of the session").says("[store] kind = \"file\"");
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
    let (sandbox, _bus, keyring) = scripted_as(&server, KWALLET);
    let words = ["login", "work", "--issuer", server.url(), "--client-id", "public", "--yes"];
    keyring.lock("login", OnUnlock::OffersPrompt);
    sandbox.keepalive(&words).exits(69).says("the keyring is locked");
    assert_eq!(server.metadata_requests(), 0);
    // Open again, it loses the key that was made for a login that fails at the server.
    keyring.lock("login", OnUnlock::Opens);
    sandbox.keepalive(&words).exits(78).says("no authorization_endpoint");
    assert_eq!(keyring.collections_of("keepalive-key"), Vec::<String>::new());
}
