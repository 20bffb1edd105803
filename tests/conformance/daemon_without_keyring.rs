//! A daemon has the sealing key in its memory: what it may do while the keyring is away, and what a single command may not.

use std::sync::Arc;
use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::outcome::{OutcomeKind, Publication};
use keepalive::provider::BeforeSendError;
use keepalive::scheduler::Scheduler;
use keepalive::store::keyring::KeyringError;

use super::support::auth_server::Fault;
use super::support::eventually;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

fn world() -> World {
    World::new(None, RotationMode::Strict, "")
}

/// Rule 8.
#[test]
fn daemon_refreshes_without_keyring_when_margin_is_half_gone() {
    let world = world();
    let daemon = world.daemon();
    assert_eq!(world.refresh_by(&daemon).generation.get(), 2);
    world.keyring.set_fault(Some(KeyringError::Locked));
    // A fifth of the life is the margin; until half of that is gone, the keyring is waited for.
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(120));
    for left in [120, 61] {
        let outcome = world.refresh_if_due_by(&daemon);
        assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 1), "{left}: {outcome:?}");
        world.clock.advance(Duration::from_secs(if left == 61 { 1 } else { 59 }));
    }
    let outcome = world.refresh_if_due_by(&daemon);
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert_eq!((outcome.publication, world.published()), (Publication::PublishPending, Some(2)));
    world.keyring.set_fault(None);
    assert_eq!((world.refresh_if_due_by(&daemon).publication, world.published()), (Publication::Published, Some(3)));
}

/// Rule 3.
#[test]
fn daemon_sends_nothing_if_a_locked_keyring_may_be_newer() {
    let world = world();
    // Its answer went into the keyring, and the disk did not take it.
    let snapshot = world.crash_at(HookPoint::AfterExchange);
    let world = world.restart_from(snapshot, Some(world.keyring.snapshot()));
    assert_eq!((world.journal().generation.get(), world.published()), (1, Some(2)));
    let daemon = world.daemon();
    daemon.store().keys().load("demo").unwrap();
    world.keyring.set_fault(Some(KeyringError::Locked));
    // Its last chance would be now.
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(25));
    for _ in 0..2 {
        let outcome = world.refresh_if_due_by(&daemon);
        assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 1), "{outcome:?}");
        world.clock.advance(ACCESS_LIFETIME);
    }
    world.keyring.set_fault(None);
    let outcome = world.refresh_if_due_by(&daemon);
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert_eq!((world.published(), world.server.counts().presented_again), (Some(3), 0));
}

/// Rule 8.
#[test]
fn single_command_does_not_refresh_without_its_keyring() {
    let world = world();
    let process = world.process();
    assert_eq!(world.refresh_by(&process).generation.get(), 2);
    world.keyring.set_fault(Some(KeyringError::Locked));
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(1));
    let outcome = world.refresh_if_due_by(&process);
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 1), "{outcome:?}");
}

/// Rule 12.
#[test]
fn pending_publication_is_an_error_only_outside_the_daemon() {
    for (is_daemon, kind) in [(false, OutcomeKind::StoreUnavailable), (true, OutcomeKind::Fresh)] {
        let world = world();
        let engine = if is_daemon { world.daemon() } else { world.process() };
        let keyring = world.keyring.clone();
        world.hook(HookPoint::AfterExchange, move || {
            keyring.set_fault(Some(KeyringError::Locked));
            Ok(())
        });
        assert_eq!(world.refresh_by(&engine).publication, Publication::PublishPending);
        let outcome = world.refresh_if_due_by(&engine);
        assert_eq!((outcome.kind, outcome.publication), (kind, Publication::PublishPending), "{outcome:?}");
        assert_eq!(world.requests(), 1);
    }
}

/// Rule 8.
#[test]
fn keyring_locked_before_the_request_stops_the_send() {
    let world = world();
    let keyring = world.keyring.clone();
    world.hook(HookPoint::KeyringCheck, move || {
        keyring.set_fault(Some(KeyringError::Locked));
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 0), "{outcome:?}");
}

#[test]
fn daemon_restores_the_sealing_key_to_a_wiped_keyring() {
    let world = world();
    let daemon = world.daemon();
    world.refresh_by(&daemon);
    let before = world.keyring.snapshot();
    world.remove_from_keyring("keepalive-key");
    let outcome = world.refresh_by(&daemon);
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert!(outcome.warnings.iter().any(|w| w.contains("has been restored")), "{outcome:?}");
    let key = |items: std::collections::BTreeMap<keepalive::store::keyring::KeyringItem, String>| {
        items.into_iter().find(|(item, _)| item.service == "keepalive-key")
    };
    assert_eq!(key(world.keyring.snapshot()), key(before));
    assert_eq!(world.refresh().generation.get(), 4, "other processes find it");
}

/// Rule 8.
#[test]
fn daemon_sends_nothing_if_the_keyring_holds_another_key() {
    let world = world();
    let daemon = world.daemon();
    world.refresh_by(&daemon);
    let key_of = |world: &World| {
        let items = world.keyring.snapshot();
        items.into_iter().find(|(item, _)| item.service == "keepalive-key").unwrap()
    };
    let (ours, theirs) = (key_of(&world).0, key_of(&self::world()).1);
    let mut items = world.keyring.snapshot();
    items.insert(ours, theirs);
    world.keyring.restore(items);
    let outcome = world.refresh_by(&daemon);
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 1), "{outcome:?}");
}

/// At a server with a grace, into which two timeouts fit.
fn graceful() -> World {
    let policy = "rotation = \"grace\"\nreuse_grace = \"30s\"\ngrace_semantics = \"same\"\ntimeout = \"10s\"\n";
    World::without_keyring_at(RotationMode::Grace(ACCESS_LIFETIME), policy)
}

/// Rule 19.
#[test]
fn daemon_retries_within_grace_after_earlier_failures() {
    let world = graceful();
    for _ in 0..3 {
        // No journal notes these.
        world.hook(HookPoint::BeforeExchange, || Err(BeforeSendError::Refused("as if told to stop")));
    }
    world.server.script([Fault::DropAfter]);
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(100));
    let profile = Arc::clone(world.profile());
    let scheduler = Scheduler::new(world.daemon(), Arc::new(move |_| Ok(Arc::clone(&profile))));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(scheduler.run());
    let meanwhile = |what, step, is_so: &dyn Fn() -> bool| {
        eventually(what, || {
            if is_so() {
                return Some(());
            }
            world.clock.advance(step);
            None
        });
    };
    meanwhile("three failures", Duration::from_secs(1), &|| world.exchanges() > 3);
    eventually("a doubt", || world.journal().open_intent().and_then(|intent| intent.gave_up_at.clone()));
    // No faster than the time that is waited for at most, so that a pause of 30 s is never over.
    meanwhile("the retry", Duration::from_millis(9), &|| world.journal().generation.get() == 2);
    runtime.shutdown_background();
    let counts = world.server.counts();
    assert_eq!((counts.refresh_requests, counts.families_revoked), (2, 0));
}

/// Rule 19.
#[test]
fn daemon_settles_a_doubt_of_another_run_within_grace() {
    let world = graceful();
    let profile = Arc::clone(world.profile());
    let scheduler = Scheduler::new(world.daemon(), Arc::new(move |_| Ok(Arc::clone(&profile))));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut daemon = Box::pin(scheduler.run());
    // It plans its look for when most of the life is over; then a user refreshes by hand.
    runtime.block_on(async { tokio::time::timeout(Duration::ZERO, &mut daemon).await }).unwrap_err();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    runtime.spawn(daemon);
    eventually("the retry", || {
        world.clock.advance(Duration::from_millis(9));
        (world.journal().generation.get() == 2).then_some(())
    });
    runtime.shutdown_background();
    let counts = world.server.counts();
    assert_eq!((counts.refresh_requests, counts.families_revoked), (2, 0));
}

/// Rule 19.
#[test]
fn refusal_delays_grace_retry_by_at_most_half_of_what_is_left() {
    let world = graceful();
    // Without a doubt the next pause could be a quarter of an hour.
    for _ in 0..10 {
        world.answer_early([429]);
        let at = world.refresh().retry_at.unwrap();
        world.clock.advance(at.since(world.clock.now().wall));
    }
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let mut left = Duration::from_secs(28);
    for _ in 0..2 {
        world.answer_early([429]);
        let wait = world.refresh().retry_at.unwrap().since(world.clock.now().wall);
        assert!(wait <= left / 2, "{wait:?}");
        world.clock.advance(wait);
        left -= wait;
    }
    assert_eq!((world.refresh().kind, world.server.counts().families_revoked), (OutcomeKind::Refreshed, 0));
}
