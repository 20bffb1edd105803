//! What comes from outside, by a login or an import: what may take the place of a stored credential, and what may not.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::Credential;
use keepalive::credential::external::{AccountIdentity, ImportSource};
use keepalive::engine::new_credential::{NewCredential, NewCredentialResult};
use keepalive::outcome::{ErrorKind, Outcome, OutcomeKind, Publication};
use keepalive::store::keyring::KeyringError;
use serde_json::{Value, json};

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World, assert_refused};

fn world() -> World {
    World::new(None, RotationMode::Strict, "")
}

/// A sign-in whose access token says that it lives `secs` from now; `None`: there is no access token.
fn signed_in_for(world: &World, secs: Option<u64>) -> Value {
    let mut answer = world.server.mint();
    match secs {
        Some(secs) => answer["expires_in"] = json!(secs),
        None => answer["access_token"] = Value::Null,
    }
    answer
}

fn from_tool(credential: Credential, email: Option<&str>) -> NewCredential {
    let identity = AccountIdentity { email: email.map(str::to_owned), ..AccountIdentity::default() };
    let origin =
        ImportSource { tool: "codex".into(), location: Some("auth.json".into()), identity, ..ImportSource::default() };
    NewCredential { credential, origin: Some(origin) }
}

#[track_caller]
fn is_refused(result: Result<NewCredentialResult, Outcome>, kind: OutcomeKind, word: &str) {
    let outcome = result.expect_err("it was not to be taken");
    assert_eq!((outcome.kind, outcome.error.as_ref().map(|e| e.kind.word())), (kind, Some(word)), "{outcome:?}");
}

#[track_caller]
fn is_taken(result: Result<NewCredentialResult, Outcome>, generation: u64) {
    let taken = result.unwrap();
    assert!(taken.is_new, "{taken:?}");
    assert_eq!(taken.generation.get(), generation);
}

/// An ordinary refresh brings this generation.
#[track_caller]
fn assert_next_generation(world: &World, generation: u64) {
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, generation), "{outcome:?}");
}

#[test]
fn import_replaces_live_credential_only_if_it_expires_later() {
    let life = ACCESS_LIFETIME.as_secs();
    for (old, new, is_newer) in [
        (Some(life), Some(life - 1), false),
        (Some(life), Some(life), false),
        (Some(life), Some(life + 1), true),
        (Some(life), None, false),
        (None, Some(1), true),
        (None, None, false),
    ] {
        let world = world();
        world.import(world.credential(&signed_in_for(&world, old)), true).unwrap();
        let new = signed_in_for(&world, new);
        let result = world.import(world.credential(&new), false);
        if is_newer {
            is_taken(result, 3);
        } else {
            is_refused(result, OutcomeKind::ConfigError, "conflict");
            assert_eq!(world.journal().generation.get(), 2, "nothing was touched");
            is_taken(world.import(world.credential(&new), true), 3);
        }
        assert_next_generation(&world, 4);
    }
}

#[test]
fn import_without_access_token_replaces_expired_credential() {
    let world = world();
    let new = signed_in_for(&world, None);
    world.clock.advance(ACCESS_LIFETIME);
    is_taken(world.import(world.credential(&new), false), 2);
    assert_eq!(world.journal().validity, None);
    assert_next_generation(&world, 3);
}

/// Rule 22.
#[test]
fn any_import_replaces_a_rejected_or_in_doubt_credential() {
    for fault in [Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#), Fault::DropAfter] {
        let world = world();
        world.server.script([fault]);
        assert!(matches!(world.refresh().kind, OutcomeKind::NeedsLogin | OutcomeKind::InDoubt));
        is_taken(world.import(world.credential(&signed_in_for(&world, Some(1))), false), 2);
        let journal = world.journal();
        assert_eq!((journal.rejected, journal.intent, journal.last_attempt), (None, None, None));
        assert_next_generation(&world, 3);
    }
}

/// Rule 3.
#[test]
fn consumed_token_is_refused_even_with_replace() {
    let world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.refresh();
    let before = world.journal();
    for is_replacing in [false, true] {
        let result = world.import(world.credential(&answer), is_replacing);
        is_refused(result, OutcomeKind::NeedsLogin, "consumed");
    }
    assert_eq!(world.journal(), before);
}

/// Rule 22.
#[test]
fn rejected_token_is_taken_with_replace_once_a_minute() {
    const DENIED: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([DENIED, DENIED]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let import = |is_replacing| world.import(world.credential(&answer), is_replacing);
    is_refused(import(false), OutcomeKind::NeedsLogin, "consumed");
    assert!(import(true).unwrap().is_new);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 2));
    is_refused(import(true), OutcomeKind::NeedsLogin, "consumed");
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 2), "an import counts, too");
    world.clock.advance(Duration::from_secs(60));
    assert!(import(true).unwrap().is_new);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 3));
    for is_replacing in [false, true] {
        is_refused(import(is_replacing), OutcomeKind::NeedsLogin, "consumed");
    }
}

#[test]
fn import_of_the_stored_token_changes_nothing() {
    let world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let before = world.journal();
    let again = world.import(world.credential(&answer), false).unwrap();
    assert!(!again.is_new, "{again:?}");
    assert_eq!((again.generation.get(), again.publication), (2, Publication::Published));
    assert_eq!(world.journal(), before);
    // Another one is another one, though it be of the same person.
    is_taken(world.import(world.credential(&world.server.mint()), true), 3);
}

#[test]
fn import_of_the_stored_token_records_its_origin() {
    let world = world();
    let answer = world.server.mint();
    let credential = || world.credential(&answer);
    world.import(credential(), true).unwrap();
    assert_eq!(world.journal().origin, None);
    world.import(from_tool(credential(), Some("ada@acme.example")), false).unwrap();
    let origin = world.journal().origin.expect("it is known now");
    assert_eq!(origin.tool, "codex");
    // Piped in, it does not say so: what is known stays known.
    let piped = world.import(credential(), false).unwrap();
    assert!(!piped.is_new, "{piped:?}");
    assert_eq!((world.journal().origin, world.journal().generation.get()), (Some(origin), 2));
}

#[test]
fn import_of_another_account_is_a_conflict() {
    // {"alg":"none"} and {"email":"ada@acme.example"}
    let ada = "eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFkYUBhY21lLmV4YW1wbGUifQ.x";
    let world = world();
    let mut answer = world.server.mint();
    answer["id_token"] = json!(ada);
    world.import(world.credential(&answer), true).unwrap();
    let newer = || world.credential(&signed_in_for(&world, Some(2 * ACCESS_LIFETIME.as_secs())));
    for _ in 0..2 {
        let result = world.import(from_tool(newer(), Some("bob@acme.example")), false);
        is_refused(result, OutcomeKind::ConfigError, "conflict");
        assert_eq!(world.journal().generation.get(), 2);
        // Whose it is, is known from the ID token the first time; the second time, from the tool as well.
        world.import(from_tool(world.credential(&answer), Some("ada@acme.example")), false).unwrap();
    }
    is_taken(world.import(from_tool(newer(), Some("ada@acme.example")), false), 3);
    let unsaid = world.credential(&signed_in_for(&world, Some(3 * ACCESS_LIFETIME.as_secs())));
    is_taken(world.import(from_tool(unsaid, None), false), 4);
}

#[test]
fn import_for_another_client_needs_replace_unless_rejected() {
    const DEAD: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let longer = |world: &World| world.credential(&signed_in_for(world, Some(2 * ACCESS_LIFETIME.as_secs())));
    for is_dead in [false, true] {
        let mut world = world();
        if is_dead {
            world.server.script([DEAD]);
            assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
        }
        world.provider_mut().client_id = "another".into();
        if !is_dead {
            is_refused(world.import(longer(&world), false), OutcomeKind::ConfigError, "conflict");
            assert_eq!(world.journal().generation.get(), 1);
        }
        is_taken(world.import(longer(&world), !is_dead), 2);
    }
}

/// Rule 17.
#[test]
fn reimport_under_new_client_rebinds_token_and_keeps_doubt() {
    let moved = |world: &mut World| world.provider_mut().client_id = "another".into();
    let mut world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    moved(&mut world);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    is_taken(world.import(world.credential(&answer), true), 3);
    assert_eq!(world.journal().binding.unwrap().client_id, "another");

    let mut doubtful = self::world();
    let answer = doubtful.server.mint();
    doubtful.import(doubtful.credential(&answer), true).unwrap();
    doubtful.server.script([Fault::DropAfter]);
    assert_eq!(doubtful.refresh().kind, OutcomeKind::InDoubt);
    moved(&mut doubtful);
    doubtful.import(doubtful.credential(&answer), true).unwrap();
    assert_eq!((doubtful.refresh().kind, doubtful.requests()), (OutcomeKind::InDoubt, 1));
}

#[test]
fn unreadable_credential_is_replaced_only_with_replace() {
    type Damage = (fn(&World), OutcomeKind, &'static str);
    let damage: [Damage; 2] = [
        (
            |world| std::fs::write(world.file("profiles/demo/sealed"), "dust").unwrap(),
            OutcomeKind::StoreUnavailable,
            "damaged",
        ),
        (|world| std::fs::remove_file(world.file("profiles/demo/sealed")).unwrap(), OutcomeKind::NeedsLogin, "lost"),
    ];
    for (damage, kind, word) in damage {
        let world = world();
        damage(&world);
        world.remove_from_keyring("keepalive");
        let new = world.credential(&signed_in_for(&world, Some(2 * ACCESS_LIFETIME.as_secs())));
        // A person must say so.
        is_refused(world.import(new, false), kind, word);
        assert_eq!(world.journal().generation.get(), 1);
        is_taken(world.import(world.credential(&world.server.mint()), true), 2);
        assert_next_generation(&world, 3);
    }
}

/// Rule 8.
#[test]
fn import_with_replace_fails_while_keyring_is_locked() {
    let world = world();
    world.keyring.set_fault(Some(KeyringError::Locked));
    let result = world.import(world.credential(&world.server.mint()), true);
    assert_eq!(result.unwrap_err().kind, OutcomeKind::StoreUnavailable);
    world.keyring.set_fault(None);
    assert_eq!(world.journal().generation.get(), 1);
}

/// Rule 12.
#[test]
fn import_is_published_later_when_the_keyring_locks() {
    let world = world();
    let keyring = world.keyring.clone();
    world.hook(HookPoint::BeforePublish, move || {
        keyring.set_fault(Some(KeyringError::Locked));
        Ok(())
    });
    let taken = world.import(world.credential(&world.server.mint()), true).unwrap();
    assert_eq!((taken.generation.get(), taken.publication), (2, Publication::PublishPending));
    assert!(taken.is_new && taken.warnings.iter().any(|w| w.contains("it is not in the keyring yet")), "{taken:?}");
    world.keyring.set_fault(None);
    assert_eq!(world.refresh_if_due().publication, Publication::Published);
    assert_eq!(world.published(), Some(2));
}

#[test]
fn import_records_expiry_and_login_deadline_of_response() {
    let world = world();
    let now = world.clock.now().wall;
    let mut answer = world.server.mint();
    answer["refresh_expires_in"] = json!(7_776_000);
    let taken = world.import(world.credential(&answer), true).unwrap();
    assert_eq!((taken.generation.get(), taken.publication), (2, Publication::Published));
    let journal = world.journal();
    assert_eq!(journal.validity.unwrap().expires_at(), now.plus(ACCESS_LIFETIME));
    assert_eq!(journal.login_by.unwrap().since(now).as_secs(), 7_776_000);
    assert_eq!(world.published(), Some(2));
}

/// Rule 35.
#[test]
fn short_refresh_token_is_renewed_until_its_end_is_final() {
    let world = world();
    let mut answer = world.server.mint();
    answer["refresh_expires_in"] = json!(20);
    world.import(world.credential(&answer), true).unwrap();
    let requests_after = |secs| {
        world.clock.advance(Duration::from_secs(secs));
        world.refresh_if_due();
        world.exchanges()
    };
    let granted = |body| world.server.script([Fault::Respond(200, "", body)]);
    granted(r#"{"access_token":"a2","expires_in":600,"refresh_token":"r2","refresh_expires_in":20}"#);
    assert_eq!([14, 1].map(requests_after), [0, 1]);
    // The end of the session is near, and no refresh moves it.
    granted(r#"{"access_token":"a3","expires_in":600,"refresh_token":"r3","refresh_expires_in":5}"#);
    assert_eq!([14, 1, 4].map(requests_after), [1, 2, 2]);
    let journal = world.journal();
    assert_eq!(
        (journal.is_login_by_final, journal.login_by.unwrap().since(world.clock.now().wall).as_secs()),
        (true, 1)
    );
}

/// A sign-in at a server that gives its user the same refresh token each time, and another access token.
fn signed_in_again(answer: &Value, access: &str) -> Value {
    let mut again = answer.clone();
    again["access_token"] = json!(access);
    again
}

/// The access token that is stored.
pub fn access(world: &World) -> String {
    let stored = world.process().store().snapshot(world.name()).unwrap().unwrap();
    stored.grant.access.unwrap().expose().to_owned()
}

/// Rule 22.
#[test]
fn login_brings_new_access_token_for_same_refresh_token() {
    let world = World::new(None, RotationMode::NoRotation { echo: false }, "rotation = \"none\"\n");
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([Fault::Respond(429, "retry-after: 600\r\n", "")]);
    assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
    world.clock.advance(ACCESS_LIFETIME);
    is_taken(world.log_in(&signed_in_again(&answer, "new")), 3);
    assert_eq!((access(&world).as_str(), world.published()), ("new", Some(3)));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Fresh, 1));
    assert_next_generation(&world, 4);
    // An import of the same brings nothing that is known to be new.
    let copied = world.import(world.credential(&signed_in_again(&answer, "copied")), true).unwrap();
    assert!(!copied.is_new, "{copied:?}");
}

/// Rule 22.
#[test]
fn login_clears_rejection_doubt_and_revocation_of_its_token() {
    const DEAD: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let nothing = |_: &World| ();
    let forget = |world: &World| drop(world.log_out(true, false).unwrap());
    let doubt_a_revocation = |world: &World| {
        assert_refused(world.log_out(false, false), OutcomeKind::Deferred, "revocation_in_doubt");
    };
    let limited = Fault::Respond(429, "", "");
    // What the server does, how the refresh ends, what happens then, and whether a copy of the token is refused.
    let cases = [
        (DEAD, OutcomeKind::NeedsLogin, nothing as fn(&World), true),
        (Fault::DropBefore, OutcomeKind::InDoubt, nothing, false),
        (DEAD, OutcomeKind::NeedsLogin, forget, true),
        (Fault::DropBefore, OutcomeKind::InDoubt, forget, true),
        (limited, OutcomeKind::Deferred, doubt_a_revocation, false),
    ];
    for (i, (fault, refreshed, then, is_refused_as_copy)) in cases.into_iter().enumerate() {
        let mut world = world();
        world.enable_revocation([Fault::DropBefore]);
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        world.server.script([fault]);
        assert_eq!(world.refresh().kind, refreshed, "{i}");
        then(&world);
        // A copy proves nothing.
        let copied = world.import(world.credential(&answer), !is_refused_as_copy);
        if is_refused_as_copy {
            is_refused(copied, OutcomeKind::NeedsLogin, "consumed");
        } else {
            copied.unwrap();
        }
        let generation = world.journal().generation.next().get();
        is_taken(world.log_in(&signed_in_again(&answer, "new")), generation);
        let journal = world.journal();
        assert_eq!((journal.rejected, journal.intent, journal.revocation), (None, None, None), "{i}");
        assert_eq!((access(&world).as_str(), world.refresh_if_due().kind), ("new", OutcomeKind::Fresh), "{i}");
        assert_next_generation(&world, generation + 1);
        is_refused(world.import(world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
        assert_eq!(world.server.counts().families_revoked, 0);
    }
}

/// Rule 22.
#[test]
fn login_counts_when_its_process_dies_before_the_journal() {
    const DEAD: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([DEAD]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let again = signed_in_again(&answer, "new");
    let snapshot = world.crash_during(HookPoint::BeforePublish, || drop(world.log_in(&again)));
    let world = world.restart_from(snapshot, None);
    let looked = world.refresh_if_due();
    assert_eq!((looked.kind, looked.generation.get()), (OutcomeKind::Fresh, 3), "{looked:?}");
    assert_eq!(access(&world), "new");
    assert_next_generation(&world, 4);
}

/// Rule 4.
#[test]
fn login_takes_rejected_token_but_none_that_a_profile_holds() {
    const DEAD: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
    let world = world();
    let other = "other".parse().unwrap();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    is_refused(world.log_in_as(&other, &answer), OutcomeKind::ConfigError, "conflict");
    world.server.script([DEAD]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    is_refused(world.import_into(&other, world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
    is_taken(world.log_in_as(&other, &answer), 1);
    let third = "third".parse().unwrap();
    is_refused(world.log_in_as(&third, &answer), OutcomeKind::ConfigError, "conflict");
    is_refused(world.log_in(&answer), OutcomeKind::ConfigError, "conflict");
}

/// The journal, or the ledger, cannot be written any more.
fn make_unwritable(world: &World, what: &str) {
    let path = world.file(what);
    drop(std::fs::remove_file(&path));
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("in the way"), "").unwrap();
}

/// The run that could not write the journal has sealed what it brought: from then on that is what is sent.
/// Rule 3.
#[test]
fn failed_journal_write_after_sealing_reports_stored_token() {
    for way in ["import", "login", "tool"] {
        let world = world();
        let answer = world.server.mint();
        make_unwritable(&world, "profiles/demo/.record.json.new");
        let new = world.credential(&answer);
        let result = match way {
            "import" => world.import(new, true),
            "login" => world.log_in(&answer),
            _ => world.import(from_tool(new, None), true),
        };
        let outcome = result.expect_err("cannot write the journal");
        let failure = outcome.error.as_ref().unwrap();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::StoreUnavailable, 2), "{outcome:?}");
        assert_eq!(failure.kind, ErrorKind::HalfTaken);
        assert!(failure.message.contains("is stored as generation 2"), "{failure:?}");
        assert!(failure.message.contains("record.json"), "the reason: {failure:?}");
        let hint = failure.hint.as_ref().unwrap();
        assert!(hint.starts_with("do not use it elsewhere"), "{hint}");
        std::fs::remove_dir_all(world.file("profiles/demo/.record.json.new")).unwrap();
        // And it is so.
        if way == "tool" {
            assert!(hint.ends_with("repeat the import to finish"), "{hint}");
            let again = world.import(from_tool(world.credential(&answer), None), true).unwrap();
            assert!(!again.is_new, "{again:?}");
            assert!(world.journal().origin.is_some());
        } else {
            let last =
                if way == "login" { "finish it: keepalive refresh -p demo" } else { "repeat the import to finish" };
            assert!(hint.ends_with(last), "{hint}");
        }
        assert_next_generation(&world, 3);
        assert_eq!(world.published(), Some(3), "{way}");
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

#[test]
fn import_that_cannot_be_sealed_changes_nothing() {
    let world = world();
    let answer = world.server.mint();
    make_unwritable(&world, "profiles/demo/.sealed.new");
    is_refused(world.import(world.credential(&answer), true), OutcomeKind::StoreUnavailable, "io");
    std::fs::remove_dir_all(world.file("profiles/demo/.sealed.new")).unwrap();
    assert_eq!((world.journal().generation.get(), world.published()), (1, Some(1)));
    assert_next_generation(&world, 2);
}

/// Rule 12.
#[test]
fn import_of_stored_token_republishes_missing_keyring_item() {
    let world = world();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.remove_from_keyring("keepalive");
    let again = world.import(world.credential(&answer), false).unwrap();
    assert_eq!((again.is_new, again.publication, again.warnings.len()), (false, Publication::Published, 0));
    assert_eq!((world.published(), world.journal().publication), (Some(2), Publication::Published));
    // The keyring goes away behind the look: said, and left to the next run.
    world.remove_from_keyring("keepalive");
    let keyring = world.keyring.clone();
    world.hook(HookPoint::BeforePublish, move || {
        keyring.set_fault(Some(KeyringError::Locked));
        Ok(())
    });
    let again = world.import(world.credential(&answer), false).unwrap();
    world.keyring.set_fault(None);
    let pending = Publication::PublishPending;
    assert_eq!((again.is_new, again.publication, world.journal().publication), (false, pending, pending));
    assert!(again.warnings.iter().any(|w| w.contains("it is not in the keyring yet")), "{again:?}");
}

/// Another sealing key, or a few bytes, make a sealed copy unreadable, and not its header.
/// Rule 13.
#[test]
fn import_counts_on_from_unreadable_sealed_credential() {
    let world = World::without_keyring();
    let journal = std::fs::read(world.file("profiles/demo/record.json")).unwrap();
    assert_next_generation(&world, 2);
    std::fs::write(world.file("profiles/demo/record.json"), journal).unwrap();
    let mut sealed = std::fs::read(world.file("profiles/demo/sealed")).unwrap();
    *sealed.last_mut().unwrap() ^= 1;
    std::fs::write(world.file("profiles/demo/sealed"), sealed).unwrap();
    is_taken(world.import(world.credential(&world.server.mint()), true), 3);
}
