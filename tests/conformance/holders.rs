//! Two profiles of one store and one refresh token: the second is refused it, and were it to have it all the same, they would
//! take turns.

use std::time::Duration;

use keepalive::credential::{Credential, Generation};
use keepalive::engine::handover::Handover;
use keepalive::guard::Permit;
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::profile::ProfileName;
use keepalive::sys::lockfile::LockFile;
use serde_json::Value;

use super::support::authserver::{Fault, Point};
use super::support::family::Mode;
use super::world::{Place, World};

const DENIED: Fault = Fault::Answer(400, "", r#"{"error":"invalid_grant"}"#);
const LONG: Duration = Duration::from_secs(30);

fn copy() -> ProfileName {
    "copy".parse().unwrap()
}

/// A world of which two profiles are of interest, and the answer that the first came in.
fn world() -> (World, Value) {
    let world = World::new(None, Mode::Strict, "");
    let answer = world.server.mint();
    world.arrive(world.credential(&answer), true).unwrap();
    (world, answer)
}

#[track_caller]
fn is_refused(result: Result<Handover, Outcome>, kind: OutcomeKind, word: &str) -> String {
    let error = result.map_err(|outcome| (outcome.kind, outcome.error.unwrap())).expect_err("it was not to be taken");
    assert_eq!((error.0, error.1.kind.as_ref()), (kind, word), "{error:?}");
    format!("{}; {}", error.1.message, error.1.hint.unwrap())
}

/// Neither as it is nor by force.
#[track_caller]
fn is_held(world: &World, by: &str, wanted: &ProfileName, answer: &Value) {
    for is_replacing in [false, true] {
        let result = world.arrive_as(wanted, world.credential(answer), is_replacing);
        let text = is_refused(result, OutcomeKind::ConfigError, "conflict");
        assert!(text.starts_with(&format!("profile {by} holds")), "{text}");
        assert!(text.ends_with(&format!("keepalive logout {by} --forget")), "{text}");
    }
}

/// A credential that is in a profile by other ways than ours.
fn seal(world: &World, name: &ProfileName, mut credential: Credential, with_journal: bool) {
    let engine = world.process();
    let store = engine.store();
    let (key, lock) = (store.key("").unwrap(), LockFile::acquire(&store.lock_file(name).unwrap()).unwrap());
    let mut vault = store.vault(Permit::for_writer(name, &lock)).unwrap();
    credential.generation = Generation::FIRST;
    vault.seal(&credential, &key).unwrap();
    if with_journal {
        vault.record.adopt(&credential, key.fingerprint(&credential.refresh));
        vault.save().unwrap();
    }
}

#[test]
fn r04_a_token_that_one_profile_holds_is_refused_to_another_whichever_came_first() {
    let (world, answer) = world();
    is_held(&world, "demo", &copy(), &answer);
    let other = world.server.mint();
    world.arrive_as(&copy(), world.credential(&other), false).unwrap();
    is_held(&world, "copy", world.name(), &other);
    // Who gives it up there can have it here.
    world.log_out(true, false).unwrap();
    world.arrive_as(&copy(), world.credential(&answer), true).unwrap();
    is_held(&world, "copy", world.name(), &answer);
}

#[test]
fn r04_of_two_profiles_that_are_given_one_token_at_once_one_gets_it() {
    let world = World::new(None, Mode::Strict, "");
    let answer = world.server.mint();
    let names = [copy(), "twin".parse().unwrap()];
    let results = std::thread::scope(|scope| {
        let arrive = |name| world.arrive_as(name, world.credential(&answer), true);
        let arrivals: Vec<_> = names.iter().map(|name| scope.spawn(move || arrive(name))).collect();
        arrivals.into_iter().map(|arrival| arrival.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = results.into_iter().find(Result::is_err).unwrap();
    is_refused(refused, OutcomeKind::ConfigError, "conflict");
}

#[test]
fn r17_a_token_in_doubt_in_one_profile_is_refused_to_another() {
    let (world, answer) = world();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    is_held(&world, "demo", &copy(), &answer);
}

#[test]
fn r03_a_token_whose_answer_a_dead_run_holds_is_refused_to_another_profile() {
    let (world, answer) = world();
    let remains = world.die_at(Place::AfterExchange);
    is_held(&world.goes_on(remains, None), "demo", &copy(), &answer);
}

#[test]
fn r22_a_token_that_one_profile_was_refused_is_dead_for_another() {
    let (world, answer) = world();
    world.server.script([DENIED]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    is_refused(world.arrive_as(&copy(), world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
}

#[test]
fn r04_a_token_that_a_dead_import_sealed_is_held_though_no_journal_says_so() {
    let world = World::new(None, Mode::Strict, "");
    let answer = world.server.mint();
    seal(&world, &copy(), world.credential(&answer), false);
    is_held(&world, "copy", world.name(), &answer);
}

#[test]
fn a_profile_that_cannot_be_read_holds_nobody_else_up() {
    let (world, _) = world();
    for file in ["record.json", "sealed"] {
        std::fs::write(world.file("profiles/demo").join(file), "dust").unwrap();
    }
    world.arrive_as(&copy(), world.credential(&world.server.mint()), false).unwrap();
}

#[test]
fn r04_two_profiles_that_have_one_token_all_the_same_do_not_both_spend_it() {
    let (world, answer) = world();
    seal(&world, &copy(), world.credential(&answer), true);
    let mut twin = world.profile().as_ref().clone();
    twin.name = copy();
    let twin = std::sync::Arc::new(twin);
    let gate = world.server.hold(Point::BeforeProcessing);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.refresh());
        gate.wait_reached();
        let second = scope.spawn(|| {
            let engine = world.process();
            engine.refresh(&twin, engine.force(&twin.name).unwrap(), LONG, &|| {})
        });
        world.wait_for_a_waiter();
        drop(gate);
        assert_eq!(first.join().unwrap().kind, OutcomeKind::Refreshed);
        let second = second.join().unwrap();
        assert_eq!((second.kind, second.error.unwrap().kind.as_ref()), (OutcomeKind::ConfigError, "stale_credential"));
    });
    let counts = world.server.counts();
    assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (1, 0, 0));
}

#[test]
fn r17_a_token_that_a_logout_could_not_write_off_is_dead_for_another_profile() {
    let (world, answer) = world();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.break_ledger();
    world.log_out(true, false).unwrap_err();
    world.mend_ledger();
    let result = world.arrive_as(&copy(), world.credential(&answer), true);
    is_refused(result, OutcomeKind::NeedsLogin, "consumed");
}
