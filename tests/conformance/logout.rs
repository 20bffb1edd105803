//! A logout forgets what was revoked, or what the person gives up, and nothing else.

use std::time::Duration;

use keepalive::engine::logout::{LogoutResult, RevocationRoute, TokenFate};
use keepalive::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

const LATER: Fault = Fault::Respond(503, "", "");
const DENIED: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);

/// A profile at a server at whose revocation endpoint this goes wrong.
fn world(faults: impl IntoIterator<Item = Fault>) -> World {
    let mut world = World::new(None, RotationMode::Strict, "");
    world.enable_revocation(faults);
    world
}

fn blocked() -> RevocationRoute {
    RevocationRoute::Blocked(
        Outcome::new(OutcomeKind::ConfigError).with_error(Failure::new(ErrorKind::Config, "no such provider")),
    )
}

#[track_caller]
fn is_gone(world: &World, left: Result<LogoutResult, Outcome>, refresh: TokenFate, access: Option<TokenFate>) {
    let departure = left.unwrap();
    assert_eq!((departure.refresh, departure.access, departure.completes_earlier_logout), (refresh, access, false));
    assert_eq!(departure.reason.is_some(), refresh == TokenFate::NotRevoked, "{departure:?}");
    assert!(world.journal().is_tombstone && !world.file("profiles/demo/sealed").exists());
    assert_eq!((world.published(), world.refresh().kind), (None, OutcomeKind::NeedsLogin));
}

#[track_caller]
fn is_kept(world: &World, left: Result<LogoutResult, Outcome>, kind: OutcomeKind, word: &str) {
    let outcome = left.expect_err("nothing was to be forgotten");
    assert_eq!((outcome.kind, outcome.error.as_ref().unwrap().kind.word()), (kind, word), "{outcome:?}");
    assert!(!world.journal().is_tombstone && world.file("profiles/demo/sealed").exists());
    assert!(outcome.error.unwrap().hint.unwrap().contains("--forget"));
}

#[test]
fn logout_revokes_the_access_token_only_while_it_is_valid() {
    let world = world([]);
    is_gone(&world, world.log_out(false, false), TokenFate::Revoked, Some(TokenFate::Revoked));
    world.sign_in();
    assert_eq!(world.journal().generation.get(), 2, "it counts on");
    world.clock.advance(ACCESS_LIFETIME);
    is_gone(&world, world.log_out(false, false), TokenFate::Revoked, None);
    let hints: Vec<_> = world.server.revoked().into_iter().map(|(hint, _)| hint).collect();
    assert_eq!(hints, ["refresh_token", "access_token", "refresh_token"]);
}

#[test]
fn logout_reports_an_item_in_an_unconfigured_keyring() {
    let has_word = |world: &World| {
        let left = world.log_out(true, false).unwrap();
        left.warnings.iter().any(|warning| warning.contains("secret-tool clear service keepalive username demo"))
    };
    let world = World::without_keyring();
    let path = world.file("profiles/demo/record.json");
    let journal =
        std::fs::read_to_string(&path).unwrap().replace(r#""publication": "none""#, r#""publication": "published""#);
    assert!(journal.contains("published"), "{journal}");
    std::fs::write(&path, journal).unwrap();
    assert!(has_word(&world));
    assert!(!has_word(&World::without_keyring()), "there never was one");
    assert!(!has_word(&World::new(None, RotationMode::Strict, "")), "it is removed");
}

#[test]
fn access_token_is_revoked_when_refresh_revocation_is_refused() {
    let world = world([Fault::Respond(400, "", r#"{"error":"unsupported_token_type"}"#)]);
    is_gone(&world, world.log_out(false, false), TokenFate::NotRevoked, Some(TokenFate::Revoked));
}

#[test]
fn logout_keeps_an_unrevoked_profile_unless_forget_is_given() {
    let world = world([LATER, LATER]);
    is_kept(&world, world.log_out(false, false), OutcomeKind::Deferred, "throttled");
    assert_eq!(world.journal().open_revocation(), None, "the server has said that it did nothing");
    is_gone(&world, world.log_out(true, false), TokenFate::NotRevoked, Some(TokenFate::NotRevoked));
}

/// Rule 28.
#[test]
fn interrupted_logout_keeps_the_profile() {
    for is_forgetting in [false, true] {
        let world = world([]);
        is_kept(&world, world.log_out(is_forgetting, true), OutcomeKind::Deferred, "interrupted");
        assert!(world.server.revoked().is_empty());
    }
}

/// Rule 17.
#[test]
fn revocation_without_a_response_is_in_doubt_until_settled() {
    let world = world([Fault::DropAfter]);
    is_kept(&world, world.log_out(false, false), OutcomeKind::Deferred, "revocation_in_doubt");
    assert!(world.journal().open_revocation().is_some());
    is_gone(&world, world.log_out(false, false), TokenFate::Revoked, Some(TokenFate::Revoked));
}

/// Rule 17.
#[test]
fn revocation_doubt_does_not_pass_to_the_next_token() {
    let world = world([Fault::DropAfter]);
    is_kept(&world, world.log_out(false, false), OutcomeKind::Deferred, "revocation_in_doubt");
    world.sign_in();
    assert_eq!(world.journal().revocation, None);
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
}

#[test]
fn token_fates_are_named_revoked_dead_and_left() {
    assert_eq!(
        [TokenFate::Revoked, TokenFate::AlreadyInvalid, TokenFate::NotRevoked].map(TokenFate::as_str),
        ["revoked", "dead", "left"]
    );
}

#[test]
fn logout_of_a_rejected_token_needs_no_revocation() {
    for is_blocked in [true, false] {
        let world = world([LATER]);
        world.server.script([DENIED]);
        assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
        let left = if is_blocked { world.log_out_by(blocked(), false, false) } else { world.log_out(false, false) };
        is_gone(&world, left, TokenFate::AlreadyInvalid, Some(TokenFate::NotRevoked));
    }
}

#[test]
fn logout_keeps_a_token_that_was_given_up_in_doubt() {
    let world = world([LATER]);
    world.server.script([Fault::DropBefore, Fault::DropBefore]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(20));
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    is_kept(&world, world.log_out_by(blocked(), false, false), OutcomeKind::ConfigError, "config");
    is_kept(&world, world.log_out(false, false), OutcomeKind::Deferred, "throttled");
}

#[test]
fn logout_keeps_a_live_token_while_configuration_is_broken() {
    let world = world([]);
    is_kept(&world, world.log_out_by(blocked(), false, false), OutcomeKind::ConfigError, "config");
    is_gone(&world, world.log_out_by(blocked(), true, false), TokenFate::NotRevoked, Some(TokenFate::NotRevoked));
}

#[test]
fn revocation_is_not_sent_to_another_server_or_client() {
    let other_server = |world: &mut World| {
        world.provider_mut().revocation_endpoint = Some("http://127.0.0.1:9/revoke".parse().unwrap());
    };
    let other_origin = |world: &mut World| {
        world.provider_mut().token_endpoint = Some("http://127.0.0.1:9/token".parse().unwrap());
    };
    let other_client = |world: &mut World| world.provider_mut().client_id = "another".into();
    for change in [&other_server as &dyn Fn(&mut World), &other_origin, &other_client] {
        let mut world = world([]);
        change(&mut world);
        is_kept(&world, world.log_out(false, false), OutcomeKind::ConfigError, "other_server");
        assert!(world.server.revoked().is_empty());
    }
}

#[test]
fn logout_of_an_unreadable_credential_requires_forget() {
    let world = world([]);
    std::fs::write(world.file("profiles/demo/sealed"), "dust").unwrap();
    world.remove_from_keyring("keepalive");
    let outcome = world.log_out(false, false).unwrap_err();
    assert!(outcome.error.unwrap().hint.unwrap().contains("--forget"));
    assert!(!world.journal().is_tombstone);
    is_gone(&world, world.log_out(true, false), TokenFate::NotRevoked, None);
}

#[test]
fn second_logout_reports_no_credential() {
    let world = world([]);
    world.log_out(false, false).unwrap();
    let outcome = world.log_out(false, false).unwrap_err();
    assert_eq!((outcome.kind, outcome.error.unwrap().kind.word()), (OutcomeKind::NeedsLogin, "no_credential"));
}

#[test]
fn next_logout_completes_an_interrupted_one() {
    let world = world([]);
    let sealed = std::fs::read(world.file("profiles/demo/sealed")).unwrap();
    world.log_out(false, false).unwrap();
    std::fs::write(world.file("profiles/demo/sealed"), sealed).unwrap();
    let departure = world.log_out(false, false).unwrap();
    assert_eq!((departure.refresh, departure.completes_earlier_logout), (TokenFate::Revoked, true));
    assert!(!world.file("profiles/demo/sealed").exists());
}

/// The disk is full when the tokens have been revoked.
#[test]
fn logout_that_cannot_write_reports_what_was_revoked() {
    let full = |world: &World, file: &str| {
        let path = world.file(file);
        world.hook(HookPoint::AfterRevocation, move || {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("in the way"), "").unwrap();
            Ok(())
        });
    };
    let revoked = "demo: the refresh token and the access token are revoked; the profile";
    for (file, left) in [
        ("profiles/demo/.record.json.new", "could not be deleted here: cannot write"),
        ("ledger.lock", "is deleted, but some of its data could not be removed: cannot write"),
    ] {
        let world = world([]);
        drop(std::fs::remove_file(world.file(file)));
        full(&world, file);
        let outcome = world.log_out(false, false).expect_err("the disk is full");
        let failure = outcome.error.unwrap();
        assert_eq!((outcome.kind, failure.kind.word()), (OutcomeKind::StoreUnavailable, "io"));
        assert!(failure.message.starts_with(&format!("{revoked} {left}")), "{failure:?}");
        assert!(failure.hint.unwrap().contains("keepalive logout demo"));
        std::fs::remove_dir_all(world.file(file)).unwrap();
        let completed = world.log_out(false, false).unwrap();
        assert_eq!(completed.refresh, TokenFate::Revoked);
        assert!(world.journal().is_tombstone && world.published().is_none());
    }
}

/// Rule 13.
#[test]
fn keyring_backup_restored_after_logout_is_not_used() {
    let world = world([LATER]);
    let before = world.keyring.snapshot();
    let answer = world.server.mint();
    world.log_out(true, false).unwrap();
    world.keyring.restore(before);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let taken = world.import(world.credential(&answer), false).unwrap();
    assert_eq!((taken.generation.get(), world.published()), (2, Some(2)), "nothing was there to give way");
}

/// Rule 3.
#[test]
fn token_consumed_before_a_logout_is_refused_after_it() {
    let world = world([]);
    let first = world.server.mint();
    world.import(world.credential(&first), true).unwrap();
    world.refresh();
    let last = world.server.mint();
    world.import(world.credential(&last), true).unwrap();
    world.log_out(false, false).unwrap();
    assert!(world.keyring.snapshot().is_empty(), "the key has left with the last profile");
    for spent in [first, last] {
        let refused = world.import(world.credential(&spent), true).expect_err("it was refreshed, or revoked");
        assert_eq!(refused.error.unwrap().kind, ErrorKind::Consumed);
    }
    world.sign_in();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
}

/// A login after a logout that was cut off between the seal and the journal.
fn signed_in_half_way(has_keyring: bool) -> World {
    let mut world = if has_keyring { World::new(None, RotationMode::Strict, "") } else { World::without_keyring() };
    world.enable_revocation([]);
    world.log_out(true, false).unwrap();
    let answer = world.credential(&world.server.mint());
    if has_keyring {
        // What is written first is the new key.
        world.hook(HookPoint::BeforePublish, || Ok(()));
        let snapshot = world.crash_during(HookPoint::BeforePublish, || drop(world.import(answer, false)));
        return world.restart_from(snapshot, None);
    }
    let in_the_way = world.file("profiles/demo/.record.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert_eq!(world.import(answer, false).unwrap_err().kind, OutcomeKind::StoreUnavailable);
    std::fs::remove_dir(in_the_way).unwrap();
    world
}

/// Rule 11.
#[test]
fn login_after_logout_survives_a_crash_before_the_journal() {
    for has_keyring in [true, false] {
        let world = signed_in_half_way(has_keyring);
        let journal = world.journal();
        assert_eq!((journal.has_credential(), journal.generation.get()), (true, 2));
        let store = || std::sync::Arc::clone(world.process().store());
        assert_eq!(store().snapshot(world.name()).unwrap().unwrap().generation.get(), 2);
        assert_eq!((world.refresh_if_due().generation.get(), world.requests()), (2, 0));
        assert_eq!(world.published(), has_keyring.then_some(2));
        assert_eq!((world.refresh().kind, world.journal().generation.get()), (OutcomeKind::Refreshed, 3));
    }
}

/// Rule 11.
#[test]
fn logout_does_not_treat_a_later_login_as_a_leftover() {
    for has_keyring in [true, false] {
        let world = signed_in_half_way(has_keyring);
        world.server.revocation_script([LATER]);
        is_kept(&world, world.log_out(false, false), OutcomeKind::Deferred, "throttled");
        is_gone(&world, world.log_out(false, false), TokenFate::Revoked, Some(TokenFate::Revoked));
    }
}

/// Rule 11.
#[test]
fn import_does_not_replace_a_login_that_died_before_journal() {
    let world = signed_in_half_way(true);
    let outcome = world.import(world.credential(&world.server.mint()), false).unwrap_err();
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Conflict);
    assert_eq!(world.refresh().generation.get(), 3);
    assert!(world.server.is_family_alive(1), "it is the one that was signed in");
}
