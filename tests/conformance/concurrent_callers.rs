//! What callers of one engine get: the flight of another, a word while they wait, and an answer without the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keepalive::credential::freshness::Demand;
use keepalive::engine::Engine;
use keepalive::engine::access_token::TokenResult;
use keepalive::outcome::{ErrorKind, OutcomeKind};
use keepalive::profile::{Profile, ProfileName};
use keepalive::sys::lockfile::LockFile;

use super::support::auth_server::{Fault, HoldPoint};
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

const LONG: Duration = Duration::from_secs(30);

/// Rule 1.
#[test]
fn callers_of_one_engine_share_a_flight_and_its_failure() {
    for (fault, kind) in [(None, OutcomeKind::Refreshed), (Some(Fault::DropAfter), OutcomeKind::InDoubt)] {
        let world = World::new(None, RotationMode::Strict, "");
        let gate = world.server.hold(HoldPoint::AfterCommit);
        world.server.script(fault);
        let engine = world.process();
        let demand = engine.force_demand(world.name()).unwrap();
        std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..6).map(|_| scope.spawn(|| engine.refresh(world.profile(), demand, LONG, &|| {}))).collect();
            gate.wait_reached();
            drop(gate);
            let outcomes: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
            assert!(outcomes.iter().all(|o| o.kind == kind), "{outcomes:?}");
            // A caller that came after the end of the flight finds its demand met, or shares the outcome by the journal.
            assert_eq!(
                outcomes.iter().filter(|o| !o.is_follower && o.kind != OutcomeKind::Fresh).count(),
                1,
                "{outcomes:?}"
            );
        });
        assert_eq!(world.requests(), 1);
    }
}

#[test]
fn fresh_profile_is_served_without_the_lock() {
    let world = World::new(None, RotationMode::Strict, "");
    let _held = LockFile::acquire(&world.process().store().create_lock_file(world.name()).unwrap()).unwrap();
    assert_eq!(world.refresh_if_due().kind, OutcomeKind::Fresh);
}

/// Rule 27.
#[test]
fn flight_goes_on_after_a_caller_times_out() {
    let world = World::new(None, RotationMode::Strict, "");
    let gate = world.server.hold(HoldPoint::AfterCommit);
    let engine = world.process();
    let demand = engine.force_demand(world.name()).unwrap();
    std::thread::scope(|scope| {
        // Time enough to get as far as the server: a flight without a waiter does not start.
        let caller = scope.spawn(|| engine.refresh(world.profile(), demand, Duration::from_secs(2), &|| {}));
        gate.wait_reached();
        assert_eq!(caller.join().unwrap().error.unwrap().kind, ErrorKind::Busy);
    });
    drop(gate);
    assert!(engine.drain().is_empty());
    assert_eq!(world.journal().generation.get(), 2);
}

#[test]
fn a_caller_is_told_once_what_it_waits_for() {
    let world = World::new(None, RotationMode::Strict, "");
    let gate = world.server.hold(HoldPoint::AfterCommit);
    let engine = world.process();
    let demand = engine.force_demand(world.name()).unwrap();
    let told = AtomicUsize::new(0);
    let start = Instant::now();
    let explain = || {
        assert!(start.elapsed() >= Duration::from_secs(3), "most flights land sooner than one could read it");
        told.fetch_add(1, Ordering::SeqCst);
    };
    // It goes on waiting for a second after it was told.
    let outcome = engine.refresh(world.profile(), demand, Duration::from_secs(4), &explain);
    assert_eq!((outcome.error.unwrap().kind, told.load(Ordering::SeqCst)), (ErrorKind::Busy, 1));
    drop(gate);
    // A flight that is over soon is no reason to say anything.
    let quick =
        engine.refresh(world.profile(), engine.force_demand(world.name()).unwrap(), LONG, &|| panic!("told at once"));
    assert_eq!((quick.kind, told.load(Ordering::SeqCst)), (OutcomeKind::Refreshed, 1));
}

/// Rule 33.
#[test]
fn flight_waiting_for_a_lock_does_not_block_other_profiles() {
    let mut world = World::new(None, RotationMode::Strict, "");
    world.provider_mut().concurrency = 1;
    let other: ProfileName = "other".parse().unwrap();
    drop(world.log_in_as(&other, &world.server.mint()).unwrap());
    let other = Arc::new(Profile { name: other, ..Profile::clone(world.profile()) });
    let daemon = world.daemon();
    let store = Arc::clone(daemon.store());
    for whose in ["the profile's", "the token's"] {
        let token_lock = store.layout().token_lock(&world.journal().fingerprint.unwrap());
        let held = match whose {
            "the token's" => LockFile::acquire(&token_lock).unwrap(),
            _ => LockFile::acquire(&store.create_lock_file(world.name()).unwrap()).unwrap(),
        };
        let force = |profile: &Arc<Profile>| {
            let demand = daemon.force_demand(&profile.name).unwrap();
            daemon.refresh(profile, demand, LONG, &|| {}).kind
        };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| force(world.profile()));
            world.wait_for_lock_waiter();
            assert_eq!(force(&other), OutcomeKind::Refreshed, "{whose}");
            drop(held);
            assert_eq!(waiting.join().unwrap(), OutcomeKind::Refreshed, "{whose}");
        });
    }
}

#[test]
fn nested_refresh_of_the_same_profile_is_refused_at_once() {
    let world = World::new(None, RotationMode::Strict, "");
    let outcome_within = |profile: &str, demand: fn(&Engine, &World) -> Demand| {
        let engine = world.process_called_for(&[profile]);
        engine.refresh(world.profile(), demand(&engine, &world), LONG, &|| {}).kind
    };
    let force = |engine: &Engine, world: &World| engine.force_demand(world.name()).unwrap();
    assert_eq!((outcome_within("demo", force), world.requests()), (OutcomeKind::ConfigError, 0));
    // A token that needs no refresh waits for nothing.
    assert_eq!(outcome_within("demo", |_, _| Demand::ValidFor(Duration::ZERO)), OutcomeKind::Fresh);
    assert_eq!((outcome_within("another", force), world.requests()), (OutcomeKind::Refreshed, 1));
}

/// Rule 28.
#[test]
fn nothing_is_sent_after_a_stop_request() {
    let world = World::new(None, RotationMode::Strict, "");
    let engine = world.process();
    engine.stop();
    let outcome = engine.refresh(world.profile(), engine.force_demand(world.name()).unwrap(), LONG, &|| {});
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Deferred, 0));
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Interrupted);
    assert!(world.journal().open_intent().is_none());
}

/// Rule 28.
#[test]
fn waiting_caller_leaves_the_queue_on_a_stop_request() {
    let world = World::new(None, RotationMode::Strict, "");
    let engine = world.process();
    let demand = engine.force_demand(world.name()).unwrap();
    let held = LockFile::acquire(&engine.store().create_lock_file(world.name()).unwrap()).unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.refresh(world.profile(), demand, LONG, &|| {}));
        world.wait_for_lock_waiter();
        engine.stop();
        assert_eq!(caller.join().unwrap().error.unwrap().kind, ErrorKind::Interrupted, "another process flies on");
    });
    drop(held);
}

/// Rule 28.
#[test]
fn sent_request_is_completed_after_a_stop_request() {
    let world = World::new(None, RotationMode::Strict, "");
    let gate = world.server.hold(HoldPoint::AfterCommit);
    let engine = world.process();
    let demand = engine.force_demand(world.name()).unwrap();
    let told = AtomicUsize::new(0);
    let explain = || {
        told.fetch_add(1, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.refresh(world.profile(), demand, LONG, &explain));
        gate.wait_reached();
        engine.stop();
        let has_looked_up = || told.load(Ordering::SeqCst) > 0 || caller.is_finished();
        super::support::eventually("it had time to look up", || has_looked_up().then_some(()));
        drop(gate);
        let outcome = caller.join().unwrap();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    });
}

/// Rule 1.
#[test]
fn waiting_caller_stays_in_the_queue_without_a_stop_request() {
    let world = World::new(None, RotationMode::Strict, "");
    let engine = world.process();
    let demand = engine.force_demand(world.name()).unwrap();
    let held = LockFile::acquire(&engine.store().create_lock_file(world.name()).unwrap()).unwrap();
    let told = AtomicUsize::new(0);
    let explain = || {
        told.fetch_add(1, Ordering::SeqCst);
    };
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.refresh(world.profile(), demand, LONG, &explain));
        let has_looked_up = || told.load(Ordering::SeqCst) > 0 || caller.is_finished();
        super::support::eventually("it had time to look up", || has_looked_up().then_some(()));
        drop(held);
        assert_eq!(caller.join().unwrap().kind, OutcomeKind::Refreshed);
    });
}

fn obtain(world: &World, min_valid: Duration) -> TokenResult {
    world.process().access_token(world.profile(), min_valid, LONG, &|| {})
}

#[test]
fn token_from_a_finished_flight_can_be_read_afterwards() {
    let world = World::new(None, RotationMode::Strict, "");
    let engine = world.process();
    world.clock.advance(ACCESS_LIFETIME);
    assert!(engine.access_token_now(world.profile(), Duration::ZERO).is_none());
    assert_eq!(world.refresh_by(&engine).kind, OutcomeKind::Refreshed);
    let obtained = engine.access_token_now(world.profile(), Duration::ZERO).unwrap();
    assert_eq!((obtained.token.unwrap().generation.get(), obtained.outcome.kind), (2, OutcomeKind::Fresh));
}

#[test]
fn token_shorter_lived_than_requested_comes_with_a_warning() {
    let world = World::new(None, RotationMode::Strict, "");
    let full = obtain(&world, ACCESS_LIFETIME);
    assert!(full.token.is_some() && full.warnings.is_empty(), "{full:?}");
    let over = obtain(&world, ACCESS_LIFETIME + Duration::from_secs(1));
    assert_eq!(over.token.unwrap().generation.get(), 1);
    assert_eq!(
        over.warnings,
        ["the token is valid for 600 s, less than the requested 601 s; no token of this provider lasts that long"]
    );
}

/// Rule 22.
#[test]
fn live_token_of_rejected_credential_comes_with_a_warning() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    world.refresh();
    let alive = obtain(&world, Duration::ZERO);
    assert!(alive.token.is_some() && alive.warnings[0].starts_with("refresh is failing"), "{alive:?}");
    world.clock.advance(ACCESS_LIFETIME);
    let dead = obtain(&world, Duration::ZERO);
    assert_eq!((dead.token.is_none(), dead.outcome.kind), (true, OutcomeKind::NeedsLogin));
}

#[test]
fn token_that_expires_during_its_flight_is_not_returned() {
    let world = World::new(None, RotationMode::Strict, "");
    world.clock.advance(ACCESS_LIFETIME);
    let clock = std::sync::Arc::clone(&world.clock);
    world.hook(HookPoint::AfterPublish, move || {
        clock.advance(ACCESS_LIFETIME);
        Ok(())
    });
    let obtained = obtain(&world, Duration::ZERO);
    assert!(obtained.token.is_none(), "{obtained:?}");
    assert_eq!(
        (obtained.outcome.kind, obtained.outcome.error.unwrap().kind.word()),
        (OutcomeKind::Deferred, "expired")
    );
}

/// Rule 14.
#[test]
fn result_is_stored_after_the_lock_file_was_replaced() {
    for place in [HookPoint::AfterIntent, HookPoint::AfterExchange] {
        let world = World::new(None, RotationMode::Strict, "");
        let lock = world.file("profiles/demo/lock");
        world.hook(place, move || {
            std::fs::remove_file(&lock).unwrap();
            drop(LockFile::acquire(&lock).unwrap());
            Ok(())
        });
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 1), "{place:?}");
        let journal = world.journal();
        assert_eq!((journal.generation.get(), journal.intent, world.published()), (2, None, Some(2)));
        assert_eq!(
            (world.refresh().kind, world.requests()),
            (OutcomeKind::Refreshed, 2),
            "the stored token is the live one"
        );
    }
}
