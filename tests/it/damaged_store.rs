//! A store that is damaged or cannot be read: what is said of it, and that it hides nothing else.

use serde_json::Value;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::{Sandbox, just_granted};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

/// The row of a profile in `status --json`.
fn row(status: &Value, profile: &str) -> Value {
    let rows = status["profiles"].as_array().unwrap();
    rows.iter().find(|row| row["profile"] == profile).unwrap().clone()
}

#[test]
fn damaged_journal_is_store_unavailable_not_config_error() {
    let server = AuthServer::start(RotationMode::Strict);
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

/// Something done to a store, the state and exit status of its profile, and whether `status` sees it before a run.
type Damage = (&'static str, fn(&Sandbox), &'static str, i32, bool);

const SEALED: &str = "state/keepalive/profiles/demo/sealed";
const KEY: &str = "home/key";

const DAMAGES: [Damage; 6] = [
    ("truncated sealed", |s| overwrite(s, SEALED, |bytes| bytes.truncate(10)), "store_unavailable", 69, true),
    (
        "altered sealed",
        |s| overwrite(s, SEALED, |bytes| *bytes.last_mut().unwrap() ^= 1),
        "store_unavailable",
        69,
        false,
    ),
    ("no sealed", |s| std::fs::remove_file(s.path(SEALED)).unwrap(), "needs_login", 77, true),
    (
        "truncated journal",
        |s| overwrite(s, "state/keepalive/profiles/demo/record.json", |bytes| bytes.truncate(10)),
        "store_unavailable",
        69,
        true,
    ),
    ("no key file", |s| std::fs::remove_file(s.path(KEY)).unwrap(), "config_error", 78, true),
    ("another key", |s| overwrite(s, KEY, |bytes| bytes[0] ^= 1), "store_unavailable", 69, false),
];

fn overwrite(sandbox: &Sandbox, file: &str, change: fn(&mut Vec<u8>)) {
    let path = sandbox.path(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_gives_every_command_the_same_state_and_exit_status() {
    let server = AuthServer::start(RotationMode::Strict);
    for (damage, apply, state, exit, is_seen_at_rest) in DAMAGES {
        for is_configured in [true, false] {
            let sandbox = Sandbox::signed_in(&server);
            if !is_configured {
                // Then the journal alone knows the provider.
                sandbox.file_store(&server.provider(""));
            }
            apply(&sandbox);
            println!("{damage}, configured: {is_configured}");
            let status = || {
                let run = sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(exit);
                assert_eq!(row(&run.json(), "demo")["state"], state);
            };
            if is_seen_at_rest {
                status();
            }
            sandbox.keepalive(&["token", "demo"]).exits(exit);
            let refreshed = sandbox.keepalive(&["--json", "refresh", "-p", "demo", "--force"]).exits(exit);
            assert_eq!(refreshed.result()["outcome"], state);
            sandbox.keepalive(&["refresh"]).exits(exit);
            status();
            sandbox.keepalive(&["doctor"]).exits(exit);
        }
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn damaged_journal_is_replaced_by_an_import_as_hinted() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut with_keyring = Sandbox::new();
    with_keyring.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = SessionBus::start(&mut with_keyring, KeyringState::Unlocked);
    with_keyring.import("demo", &server.mint()).exits(0);
    for sandbox in [Sandbox::signed_in(&server), with_keyring] {
        std::fs::write(sandbox.path("state/keepalive/profiles/demo/record.json"), "{").unwrap();
        sandbox.keepalive(&["token", "demo"]).exits(69).says("sign in again, or import with --replace");
        sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
        sandbox.refresh(&["--force"]).exits(0);
    }
}

#[test]
fn damaged_journal_does_not_block_a_forced_refresh_of_others() {
    let server = AuthServer::start(RotationMode::Strict);
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

/// An import that was cut off between the two files leaves the same.
#[test]
fn credential_without_journal_and_section_is_told_alike() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let answer = server.mint().to_string();
    let import = || sandbox.keepalive_with_input(&["import", "other", "--provider", "acme"], &answer);
    import().exits(0);
    std::fs::remove_file(sandbox.path("state/keepalive/profiles/other/record.json")).unwrap();
    for command in
        [&["status", "-p", "other"][..], &["refresh", "-p", "other"], &["token", "other"], &["logout", "other"]]
    {
        let told = sandbox.keepalive(command).exits(69).says("profile other has a credential, but its record.json");
        told.says("add [profile.other] with its provider, or repeat the import");
    }
    import().exits(0).says("already stored");
    sandbox.keepalive(&["refresh", "-p", "other", "--force"]).exits(0);
}

#[test]
fn unreadable_store_directory_is_reported_with_a_remedy() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let profiles = sandbox.path("state/keepalive/profiles");
    // Also root, whom no mode keeps out, cannot list a file.
    std::fs::rename(&profiles, sandbox.path("state/aside")).unwrap();
    std::fs::write(&profiles, "").unwrap();
    for arguments in [&["status"][..], &["status", "-p", "demo"], &["refresh"], &["token", "demo"]] {
        let run = sandbox.keepalive(arguments).exits(69).says("cannot read");
        run.says("check free space and permissions in");
    }
}

/// Rule 4.
#[test]
fn import_stores_nothing_beside_an_unreadable_journal() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let (journal, aside) = (sandbox.path("state/keepalive/profiles/demo/record.json"), sandbox.path("home/aside"));
    std::fs::rename(&journal, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &journal).unwrap();
    let answer = server.mint().to_string();
    let import = || sandbox.keepalive_with_input(&["import", "other", "--provider", "acme"], &answer);
    import().exits(69).says(&format!("cannot read {}", journal.display())).says("check free space and permissions");
    assert!(!sandbox.path("state/keepalive/profiles/other/sealed").exists());
    std::fs::rename(&aside, &journal).unwrap();
    import().exits(0);
}

/// Rule 3.
#[test]
fn lost_store_json_is_rebuilt_and_consumed_tokens_stay_known() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let spent = server.mint().to_string();
    let import =
        |profile| sandbox.keepalive_with_input(&["import", profile, "--provider", "acme", "--replace"], &spent);
    import("demo").exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let path = sandbox.path("state/keepalive/store.json");
    // All but the place of the file, which is another one.
    let read = || {
        let mut identity: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let _place = identity.as_object_mut().unwrap().remove("file");
        identity
    };
    let identity = read();
    std::fs::remove_file(&path).unwrap();
    sandbox.keepalive(&["status"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(read(), identity);
    std::fs::remove_file(&path).unwrap();
    import("demo").exits(1).says("been used or rejected before");
    import("other").exits(1).says("been used or rejected before");
    assert_eq!(read(), identity);
    // A damaged one is not written over: the hint says how.
    std::fs::write(&path, "{").unwrap();
    sandbox.refresh(&["--force"]).exits(69).says("or remove it");
    std::fs::remove_file(&path).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 3.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn lost_store_identity_is_an_error_until_the_hint_is_followed() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut with_keyring = Sandbox::new();
    with_keyring.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let bus = SessionBus::start(&mut with_keyring, KeyringState::Unlocked);
    with_keyring.import("demo", &server.mint()).exits(0);
    let files = Sandbox::signed_in(&server);
    for (sandbox, has_keyring) in [(&files, false), (&with_keyring, true)] {
        sandbox.refresh(&["--force"]).exits(0);
        let state = sandbox.path("state/keepalive");
        let path = state.join("profiles/demo/record.json");
        let mut journal: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        journal.as_object_mut().unwrap().remove("store_identity").unwrap();
        std::fs::write(&path, journal.to_string()).unwrap();
        std::fs::remove_file(state.join("store.json")).unwrap();
        let status = sandbox.keepalive(&["--json", "status"]).exits(69).json();
        let shown = row(&status, "demo");
        assert_eq!((&shown["state"], &shown["error"]["kind"]), (&"store_unavailable".into(), &"identity_lost".into()));
        let ledger = state.join("ledger");
        for arguments in [
            &["refresh", "-p", "demo"][..],
            &["refresh", "-p", "demo", "--force"],
            &["doctor"],
            &["doctor", "--take-over"],
            &["logout", "demo"],
        ] {
            let run = sandbox.keepalive(arguments).exits(69).says("store.json is missing");
            run.says("keepalive logout PROFILE --forget").says(&format!("remove {}", ledger.display()));
        }
        let import = || sandbox.import("demo", &server.mint());
        import().exits(69).says("store.json is missing");
        assert!(!state.join("store.json").exists());
        let gone = sandbox.keepalive(&["logout", "demo", "--forget"]).exits(1);
        if has_keyring {
            gone.says("secret-tool clear service keepalive username demo");
            bus.secret_tool(&["clear", "service", "keepalive", "username", "demo"], "").exits(0);
        }
        import().exits(69).says("store.json is missing");
        std::fs::remove_file(ledger).unwrap();
        import().exits(0);
        sandbox.refresh(&["--force"]).exits(0);
    }
    assert_eq!(server.counts().presented_again, 0);
}

/// Rule 3.
#[test]
fn restored_profile_folder_is_stale_and_sends_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let first = just_granted(&server.mint());
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
    sandbox.keepalive_with_input(&["import", "demo"], &first.to_string()).exits(1).says("been used or rejected before");
    assert_eq!(server.counts().refresh_requests, 1);
}

/// Rule 17.
#[test]
fn in_doubt_survives_a_restored_or_damaged_journal() {
    let server = AuthServer::start(RotationMode::Strict);
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
            sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer).exits(0).says("already stored");
        }
        let status = sandbox.keepalive(&["--json", "status"]).exits(75).json();
        assert_eq!(row(&status, "demo")["state"], "in_doubt");
        sandbox.refresh(&["--force"]).exits(75).says("may have been consumed");
    }
    std::fs::write(&journal, "{").unwrap();
    sandbox.keepalive(&["logout", "demo", "--forget"]);
    for profile in ["demo", "other"] {
        let arguments = ["import", profile, "--provider", "acme"];
        sandbox.keepalive_with_input(&arguments, &answer).exits(1).says("been used or rejected before");
    }
    assert_eq!(server.counts().refresh_requests, 1);
}

/// The files of a later keepalive are not damaged: nothing takes their place, and the hint is not to sign in anew.
/// Rule 13.
#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn files_of_a_later_format_are_refused_and_left_unchanged() {
    let later = |file: &str, bytes: &[u8]| match file {
        "profiles/demo/sealed" => {
            let rest = bytes.strip_prefix(b"keepalive-sealed 1").unwrap();
            [&b"keepalive-sealed 9"[..], rest].concat()
        }
        _ => {
            let mut value: Value = serde_json::from_slice(bytes).unwrap();
            value["format"] = 9.into();
            value["news"] = "x".into();
            value.to_string().into_bytes()
        }
    };
    let server = AuthServer::start(RotationMode::Strict);
    let mut with_keyring = Sandbox::new();
    with_keyring.config(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let _bus = SessionBus::start(&mut with_keyring, KeyringState::Unlocked);
    with_keyring.import("demo", &server.mint()).exits(0);
    for sandbox in [Sandbox::signed_in(&server), with_keyring] {
        for file in ["profiles/demo/record.json", "profiles/demo/sealed", "store.json"] {
            let path = sandbox.path("state/keepalive").join(file);
            let before = std::fs::read(&path).unwrap();
            let put = later(file, &before);
            std::fs::write(&path, &put).unwrap();
            for arguments in [
                &["refresh", "-p", "demo", "--force"][..],
                &["token", "demo"],
                &["import", "demo"],
                &["import", "demo", "--replace"],
                &["logout", "demo"],
                &["logout", "demo", "--forget"],
            ] {
                let run = sandbox.keepalive_with_input(arguments, &server.mint().to_string()).exits(69);
                let run = run.says("was written by a later version of keepalive (format 9)");
                run.says("use the version of keepalive that wrote it, or a newer one");
            }
            sandbox.keepalive(&["doctor", "--take-over"]).exits(69).says("a later version");
            assert_eq!(std::fs::read(&path).unwrap(), put, "{file}");
            std::fs::write(&path, before).unwrap();
        }
        sandbox.refresh(&["--force"]).exits(0);
    }
    assert_eq!(server.counts().refresh_requests, 2);
}

#[test]
fn store_json_of_unknown_format_is_damaged_and_left_unchanged() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let path = sandbox.path("state/keepalive/store.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    value["format"] = 0.into();
    std::fs::write(&path, value.to_string()).unwrap();
    sandbox.refresh(&["--force"]).exits(69).says("it has format 0").says("or remove it");
    sandbox.keepalive(&["doctor", "--take-over"]).exits(69);
    assert_eq!(std::fs::read(&path).unwrap(), value.to_string().into_bytes());
}
