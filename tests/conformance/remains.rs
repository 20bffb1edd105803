//! An answer that was sealed by a run which died before it could act on it, or which nobody asked for any more.

use keepalive::credential::Generation;
use keepalive::guard::Permit;
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::store::content::{Answer, PlainGrant, Secret};
use keepalive::sys::lockfile::LockFile;

use super::support::authserver::Fault;
use super::support::family::Mode;
use super::world::{Place, World};

/// A run that has sent its request, sealed the answer to it, and died.
fn dead_with(status: u16, body: &str, is_complete: bool) -> World {
    let world = World::new(None, Mode::Strict, "");
    let remains = world.die_at(Place::AfterExchange);
    let world = world.goes_on(remains, None);
    let attempt = world.record().open_intent().unwrap().attempt.clone();
    seal(&world, &attempt, status, body, is_complete);
    world
}

fn seal(world: &World, attempt: &str, status: u16, body: &str, is_complete: bool) {
    let engine = world.process();
    let store = engine.store();
    let lock = LockFile::acquire(&store.lock_file(world.name()).unwrap()).unwrap();
    let vault = store.vault(Permit::for_writer(world.name(), &lock)).unwrap();
    let previous = store.snapshot(world.name()).unwrap().unwrap().grant;
    let answer = Answer {
        status,
        content_type: None,
        content_encoding: None,
        retry_after: None,
        body: Answer::encode_body(body.as_bytes()),
        is_complete,
        sent_refresh_token: Secret("sent".into()),
        sent: keepalive::clock::Clock::now(&*world.clock),
        sends: 1,
        binding: vault.record.binding.clone().unwrap(),
        previous: PlainGrant::of(&previous),
        default_lifetime_ms: 600_000,
    };
    let key = store.key("demo").unwrap();
    vault.seal_answer(vault.reserve_answer().unwrap(), &answer, Generation::new(2), attempt, &key).unwrap();
}

fn has_received(world: &World) -> bool {
    world.file("profiles/demo/received").exists()
}

#[track_caller]
fn says(outcome: &Outcome, kind: OutcomeKind, word: &str) {
    let error = outcome.error.as_ref().map(|e| e.kind.as_ref());
    assert_eq!((outcome.kind, error), (kind, Some(word)), "{outcome:?}");
}

const DENIAL: &str = r#"{"error":"invalid_grant"}"#;

#[test]
fn r11_tokens_that_a_dead_run_sealed_are_the_next_generation() {
    let world = World::new(None, Mode::Strict, "");
    let answer = world.server.mint();
    let world = dead_with(200, &answer.to_string(), true);
    let before = world.record().sequence;
    let outcome = world.look();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    assert_eq!((world.published(), world.record().open_intent(), has_received(&world)), (Some(2), None, false));
    assert!(world.record().sequence > before, "whoever waits in another process learns of it");
    let stored = world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), answer["access_token"]);
}

#[test]
fn r22_a_denial_that_a_dead_run_sealed_is_believed_without_asking_again() {
    let world = dead_with(400, DENIAL, true);
    let requests = world.requests();
    for _ in 0..2 {
        says(&world.refresh(), OutcomeKind::NeedsLogin, "invalid_grant");
    }
    assert_eq!((world.requests(), has_received(&world)), (requests, false));
}

#[test]
fn r17_what_a_dead_run_sealed_and_nobody_can_read_leaves_the_token_in_doubt() {
    for (status, body, is_complete) in [(200, "<html>", true), (400, DENIAL, false), (200, "", false)] {
        let world = dead_with(status, body, is_complete);
        let requests = world.requests();
        for _ in 0..2 {
            let outcome = world.refresh();
            says(&outcome, OutcomeKind::InDoubt, "in_doubt");
            assert!(outcome.error.unwrap().message.contains("its answer could not be read"));
        }
        assert!(world.record().intent.unwrap().abandoned.is_some());
        assert_eq!(world.requests(), requests, "it is not sent again to find out");
    }
}

#[test]
fn a_denial_of_an_attempt_that_is_settled_says_nothing_of_the_token() {
    for (body, is_complete) in [(DENIAL, true), (DENIAL, false), ("<html>", true)] {
        let world = World::new(None, Mode::Strict, "");
        seal(&world, "another", 400, body, is_complete);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    }
}

#[test]
fn an_answer_of_a_generation_that_is_over_is_not_looked_at() {
    let world = World::new(None, Mode::Strict, "");
    let late = world.server.mint();
    assert_eq!(world.refresh().generation.get(), 2);
    seal(&world, "late", 200, &late.to_string(), true);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert!(world.server.is_family_alive(1), "the token of the late answer was not sent");
    assert_eq!(world.server.counts().presented_again, 0);
}

#[test]
fn a_torn_answer_is_no_answer() {
    let world = dead_with(200, "", true);
    std::fs::write(world.file("profiles/demo/received"), "keepalive-sea").unwrap();
    says(&world.refresh(), OutcomeKind::InDoubt, "in_doubt");
}

#[test]
fn a_denial_is_not_kept_on_disk() {
    let world = World::new(None, Mode::Strict, "");
    world.server.script([Fault::Answer(400, "", DENIAL)]);
    says(&world.refresh(), OutcomeKind::NeedsLogin, "invalid_grant");
    assert!(!has_received(&world));
}

#[test]
fn r11_an_import_does_not_take_the_place_of_tokens_that_a_dead_run_sealed() {
    let world = World::new(None, Mode::Strict, "");
    let (answer, other) = (world.server.mint(), world.server.mint());
    let world = dead_with(200, &answer.to_string(), true);
    let outcome = world.arrive(world.credential(&other), false).unwrap_err();
    assert_eq!(outcome.error.unwrap().kind, "conflict");
    let stored = || world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!((stored().generation.get(), has_received(&world)), (2, false));
    assert_eq!(stored().grant.access.unwrap().expose(), answer["access_token"]);
    // Who means it, is not held up, and counts on.
    assert_eq!(world.arrive(world.credential(&other), true).unwrap().generation().get(), 3);
    assert!(world.arrive(world.credential(&answer), false).is_err(), "the other is not older");
}

#[test]
fn r17_an_import_over_a_refusal_or_dust_that_a_dead_run_sealed_gives_its_token_up() {
    for (status, body) in [(400, DENIAL), (200, "<html>")] {
        let world = dead_with(status, body, true);
        let spent = world.record().open_intent().unwrap().fingerprint.clone();
        world.arrive(world.credential(&world.server.mint()), false).unwrap();
        assert!(world.process().store().ledger().contains(&spent).unwrap());
        assert_eq!((world.refresh().kind, world.record().generation.get()), (OutcomeKind::Refreshed, 3));
    }
}

#[test]
fn r03_a_take_over_keeps_the_tokens_that_a_dead_run_sealed() {
    use keepalive::store::Taken;
    let world = World::new(None, Mode::Strict, "");
    let answer = world.server.mint();
    let world = dead_with(200, &answer.to_string(), true);
    super::homes::moved_in(&world, 1, true);
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert!(matches!(taken[..], [(_, Taken::Republished(generation))] if generation.get() == 3), "{taken:?}");
    let stored = world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), answer["access_token"]);
    assert_eq!(world.record().open_intent(), None, "it was answered");
}

#[test]
fn r13_a_take_over_does_not_bring_back_what_a_logout_left_behind() {
    use keepalive::store::Taken;
    let world = World::new(None, Mode::Strict, "");
    let sealed = std::fs::read(world.file("profiles/demo/sealed")).unwrap();
    let keyring = world.keyring.snapshot();
    world.log_out(true, false).unwrap();
    world.keyring.restore(keyring);
    world.remove_from_keyring("keepalive");
    std::fs::write(world.file("profiles/demo/sealed"), sealed).unwrap();
    super::homes::moved_in(&world, 1, false);
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert!(matches!(taken[..], [(_, Taken::Unproven { .. })]), "{taken:?}");
    assert!(world.record().is_tombstone);
}
