//! Two profiles of one store and one refresh token: the second is refused it, and were it to have it all the same, they would
//! take turns.

use std::time::Duration;

use keepalive::credential::{Credential, Generation};
use keepalive::engine::new_credential::NewCredentialResult;
use keepalive::guard::Permit;
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::profile::ProfileName;
use keepalive::store::{TakeOverResult, TokenClaim};
use keepalive::sys::lockfile::LockFile;
use serde_json::Value;

use super::store_disagreement::change_store_identity;
use super::support::auth_server::{Fault, HoldPoint};
use super::support::token_family::RotationMode;
use super::world::{HookPoint, World, assert_refused};

const DENIED: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
const LONG: Duration = Duration::from_secs(30);

fn copy() -> ProfileName {
    "copy".parse().unwrap()
}

/// A world of which two profiles are of interest, and the answer that the first came in.
fn world() -> (World, Value) {
    let world = World::new(None, RotationMode::Strict, "");
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    (world, answer)
}

#[track_caller]
fn is_refused(result: Result<NewCredentialResult, Outcome>, kind: OutcomeKind, word: &str) -> String {
    let error = result.map_err(|outcome| (outcome.kind, outcome.error.unwrap())).expect_err("it was not to be taken");
    assert_eq!((error.0, error.1.kind.word()), (kind, word), "{error:?}");
    format!("{}; {}", error.1.message, error.1.hint.unwrap())
}

/// Neither as it is nor by force.
#[track_caller]
fn is_held(world: &World, by: &str, wanted: &ProfileName, answer: &Value) {
    for is_replacing in [false, true] {
        let result = world.import_into(wanted, world.credential(answer), is_replacing);
        let text = is_refused(result, OutcomeKind::ConfigError, "conflict");
        assert!(text.starts_with(&format!("profile {by} already has")), "{text}");
        assert!(text.ends_with(&format!("sign in for a token of its own: keepalive login {wanted}")), "{text}");
    }
}

/// A credential that is in a profile by other ways than ours.
fn seal(world: &World, name: &ProfileName, mut credential: Credential, with_journal: bool) {
    let engine = world.process();
    let store = engine.store();
    let (key, lock) =
        (store.keys().load("").unwrap(), LockFile::acquire(&store.create_lock_file(name).unwrap()).unwrap());
    let mut vault = store.open_profile(Permit::from_lock(name, &lock)).unwrap();
    credential.generation = Generation::FIRST;
    vault.seal_credential(&credential, &key).unwrap();
    if with_journal {
        vault.journal.set_credential(&credential, key.fingerprint(&credential.refresh));
        vault.save_journal().unwrap();
    }
}

/// Rule 4.
#[test]
fn token_held_by_one_profile_is_refused_to_another() {
    let (world, answer) = world();
    is_held(&world, "demo", &copy(), &answer);
    let other = world.server.mint();
    world.import_into(&copy(), world.credential(&other), false).unwrap();
    is_held(&world, "copy", world.name(), &other);
    // Who gives it up there can have it here.
    world.log_out(true, false).unwrap();
    world.import_into(&copy(), world.credential(&answer), true).unwrap();
    is_held(&world, "copy", world.name(), &answer);
}

/// Rule 4.
#[test]
fn concurrent_imports_of_one_token_let_one_profile_take_it() {
    let world = World::new(None, RotationMode::Strict, "");
    let answer = world.server.mint();
    let names = [copy(), "twin".parse().unwrap()];
    let results = std::thread::scope(|scope| {
        let arrive = |name| world.import_into(name, world.credential(&answer), true);
        let arrivals: Vec<_> = names.iter().map(|name| scope.spawn(move || arrive(name))).collect();
        arrivals.into_iter().map(|arrival| arrival.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let refused = results.into_iter().find(Result::is_err).unwrap();
    is_refused(refused, OutcomeKind::ConfigError, "conflict");
}

/// Rule 17.
#[test]
fn in_doubt_token_is_refused_to_another_profile() {
    let (world, answer) = world();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    is_held(&world, "demo", &copy(), &answer);
}

/// Rule 3.
#[test]
fn token_sent_by_a_crashed_run_is_refused_to_another_profile() {
    let (world, answer) = world();
    let snapshot = world.crash_at(HookPoint::AfterExchange);
    is_held(&world.restart_from(snapshot, None), "demo", &copy(), &answer);
}

/// Rule 22.
#[test]
fn rejected_token_is_refused_to_another_profile() {
    let (world, answer) = world();
    world.server.script([DENIED]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    is_refused(world.import_into(&copy(), world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
}

/// Rule 4.
#[test]
fn token_sealed_by_a_crashed_import_is_held_without_journal() {
    let world = World::new(None, RotationMode::Strict, "");
    let answer = world.server.mint();
    seal(&world, &copy(), world.credential(&answer), false);
    is_held(&world, "copy", world.name(), &answer);
    let other = world.import(world.credential(&world.server.mint()), true).unwrap();
    assert_eq!(other.generation.get(), 2, "it has no other token");
}

#[test]
fn damaged_profile_does_not_block_imports_into_others() {
    let (world, _) = world();
    for file in ["record.json", "sealed"] {
        std::fs::write(world.file("profiles/demo").join(file), "dust").unwrap();
    }
    let answer = world.server.mint();
    let taken = world.import_into(&copy(), world.credential(&answer), false).unwrap();
    assert_eq!(taken.generation.get(), 1);
    let stored = world.process().store().snapshot(&copy()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), answer["access_token"]);
}

/// Rule 4.
#[test]
fn profiles_that_share_a_token_do_not_both_send_it() {
    let (world, answer) = world();
    seal(&world, &copy(), world.credential(&answer), true);
    let mut twin = world.profile().as_ref().clone();
    twin.name = copy();
    let twin = std::sync::Arc::new(twin);
    let gate = world.server.hold(HoldPoint::BeforeProcessing);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.refresh());
        gate.wait_reached();
        let second = scope.spawn(|| {
            let engine = world.process();
            engine.refresh(&twin, engine.force_demand(&twin.name).unwrap(), LONG, &|| {})
        });
        world.wait_for_lock_waiter();
        drop(gate);
        assert_eq!(first.join().unwrap().kind, OutcomeKind::Refreshed);
        let second = second.join().unwrap();
        assert_eq!((second.kind, second.error.unwrap().kind.word()), (OutcomeKind::ConfigError, "stale_credential"));
    });
    let counts = world.server.counts();
    assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (1, 0, 0));
}

/// Rule 17.
#[test]
fn in_doubt_token_of_a_failed_logout_is_refused_elsewhere() {
    let (world, answer) = world();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.break_ledger();
    assert_refused(world.log_out(true, false), OutcomeKind::StoreUnavailable, "io");
    assert!(world.journal().is_tombstone);
    world.repair_ledger();
    let result = world.import_into(&copy(), world.credential(&answer), true);
    is_refused(result, OutcomeKind::NeedsLogin, "consumed");
}

/// Rule 4.
#[test]
fn import_is_refused_while_another_profile_is_unreadable() {
    for file in ["record.json", "sealed"] {
        let world = World::without_keyring();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        let (path, aside) = (world.file("profiles/demo").join(file), world.file("aside"));
        // Opened, a link is an error.
        std::fs::rename(&path, &aside).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        for answer in [&answer, &world.server.mint()] {
            let error = is_refused(
                world.import_into(&copy(), world.credential(answer), true),
                OutcomeKind::StoreUnavailable,
                "io",
            );
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        assert!(!world.file("profiles/copy/sealed").exists());
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
        is_held(&world, "demo", &copy(), &answer);
        world.import_into(&copy(), world.credential(&world.server.mint()), false).unwrap();
    }
}

/// Rule 4.
#[test]
fn import_is_refused_beside_a_profile_of_a_later_version() {
    for (is_journal, is_seal) in [(true, false), (false, true), (true, true)] {
        let world = World::without_keyring();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        if is_journal {
            let path = world.file("profiles/demo/record.json");
            let mut journal: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            journal["format"] = 9.into();
            std::fs::write(&path, journal.to_string()).unwrap();
        }
        if is_seal {
            let path = world.file("profiles/demo/sealed");
            let mut sealed = std::fs::read(&path).unwrap();
            sealed["keepalive-sealed ".len()] = b'2';
            std::fs::write(&path, sealed).unwrap();
        }
        for is_replacing in [false, true] {
            let result = world.import_into(&copy(), world.credential(&answer), is_replacing);
            is_refused(result, OutcomeKind::StoreUnavailable, "later_version");
        }
        assert!(!world.file("profiles/copy/sealed").exists());
    }
}

/// Rule 3.
#[test]
fn revoked_token_is_refused_before_the_ledger_names_it() {
    let mut world = World::without_keyring();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.enable_revocation([]);
    // As if killed behind the tombstone.
    std::fs::create_dir(world.file("ledger.lock")).unwrap();
    assert_refused(world.log_out(false, false), OutcomeKind::StoreUnavailable, "io");
    std::fs::remove_dir(world.file("ledger.lock")).unwrap();
    assert!(world.journal().is_tombstone && !world.file("ledger").exists());
    for name in [&copy(), world.name()] {
        is_refused(world.import_into(name, world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
    }
}

/// Rule 4.
#[test]
fn takeover_leaves_a_token_that_is_held_here_or_consumed() {
    for is_spent in [false, true] {
        let (world, answer) = world();
        let home = world.with_other_state_dir();
        // While the copy is not there: an import would look for it.
        let items = home.keyring.snapshot();
        home.remove_from_keyring("keepalive");
        home.import_into(&copy(), home.credential(&answer), true).unwrap();
        home.keyring.restore(items.into_iter().chain(home.keyring.snapshot()).collect());
        let mut expected = TokenClaim::HeldBy(copy());
        if is_spent {
            let engine = home.process();
            let mut profile = home.profile().as_ref().clone();
            profile.name = copy();
            let demand = engine.force_demand(&profile.name).unwrap();
            assert_eq!(engine.refresh(&profile.into(), demand, LONG, &|| {}).kind, OutcomeKind::Refreshed);
            expected = TokenClaim::Unusable;
        }
        let published = home.keyring.snapshot();
        let take_over = || home.process().store().take_over(std::slice::from_ref(home.name())).unwrap();
        assert_eq!(take_over(), [(home.name().clone(), TakeOverResult::Claimed(expected))]);
        assert_eq!(home.keyring.snapshot(), published, "it was left alone");
        assert!(!home.file("profiles/demo/sealed").exists());
        if !is_spent {
            home.forget(&copy());
            assert!(matches!(take_over()[..], [(_, TakeOverResult::Adopted(_))]));
        }
    }
}

/// Rule 30.
#[test]
fn folder_of_another_store_sends_nothing() {
    for fault in [None, Some(Fault::DropAfter), Some(DENIED)] {
        let world = World::without_keyring();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        world.server.script(fault.clone());
        if fault.is_some() {
            world.refresh();
        }
        let sent = world.requests();
        change_store_identity(&world);
        for outcome in [world.refresh(), world.refresh_if_due(), world.log_out(false, false).unwrap_err()] {
            assert_refused::<()>(Err(outcome), OutcomeKind::StoreUnavailable, "damaged");
        }
        let engine = world.process();
        assert!(engine.store().peek(world.name()).is_err() && engine.store().snapshot(world.name()).is_err());
        let plain = world.import(world.credential(&world.server.mint()), false);
        is_refused(plain, OutcomeKind::StoreUnavailable, "damaged");
        if matches!(fault, Some(Fault::Respond(..))) {
            is_refused(
                world.import_into(&copy(), world.credential(&answer), true),
                OutcomeKind::NeedsLogin,
                "consumed",
            );
        } else {
            is_held(&world, "demo", &copy(), &answer);
        }
        // Its own token is not taken, whatever it may do elsewhere; another is.
        is_refused(world.import(world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
        assert_refused::<()>(Err(world.refresh()), OutcomeKind::StoreUnavailable, "damaged");
        assert_eq!(world.requests(), sent);
        world.sign_in();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        for name in [&copy(), world.name()] {
            is_refused(world.import_into(name, world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
        }
    }
}

/// Rule 30.
#[test]
fn folder_of_another_store_is_forgotten_without_request() {
    let mut world = World::without_keyring();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    change_store_identity(&world);
    world.enable_revocation([]);
    world.log_out(true, false).unwrap();
    assert!(world.journal().is_tombstone && world.server.revoked().is_empty());
    for name in [&copy(), world.name()] {
        is_refused(world.import_into(name, world.credential(&answer), true), OutcomeKind::NeedsLogin, "consumed");
    }
    world.sign_in();
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 1));
}
