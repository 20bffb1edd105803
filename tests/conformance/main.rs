//! The real transaction is driven through every edge of the model. The `match` over the model's own edges is exhaustive:
//! an edge without a scenario does not compile, and an edge that the model never takes fails.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the bans are the program's; tests live in the real world"
)]

mod ambiguous_grants;
mod complaints;
mod concurrent_callers;
mod copies;
mod crashed_run_responses;
mod daemon_without_keyring;
mod doubt_after_replacement;
mod followed_tool;
mod forced;
mod hooks;
mod ledger;
mod lockstep;
mod logout;
mod new_credentials;
mod other_account;
mod responses_and_retries;
mod store_disagreement;
mod token_ownership;
mod unusable_store;
mod world;

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../it/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use keepalive::outcome::{OutcomeKind, Publication};
use keepalive::store::keyring::KeyringError;
use keepalive_model::one_machine::{Budget, Design, Edge, Phase, SendReason, Server, edges};

use support::auth_server::{Fault, HoldPoint};
use support::token_family::RotationMode;
use world::{ACCESS_LIFETIME, CrashSnapshot, HookPoint, World};

const GRACE: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";
const BUSY: Fault = Fault::Respond(429, "", "");

/// Every edge that some way through the model takes.
fn all_edges() -> BTreeSet<Edge> {
    let none = Budget::NONE;
    let everything_goes_wrong = Design::implemented(Server::Strict);
    let graceful = Design {
        budget: Budget { losses: 1, timeouts: 1, ..none },
        rounds: 2,
        ..Design::implemented(Server::GraceSame)
    };
    let unrotated = Design { budget: Budget { losses: 1, ..none }, ..Design::implemented(Server::NoRotation) };
    let insisted =
        Design { budget: Budget { denials: 1, insists: 1, ..none }, rounds: 2, ..Design::implemented(Server::Strict) };
    [everything_goes_wrong, graceful, unrotated, insisted].iter().flat_map(edges).collect()
}

/// Rule 40.
#[test]
fn real_transaction_takes_every_edge_of_the_model() {
    let template = World::template();
    let edges = all_edges();
    for edge in &edges {
        println!("{edge:?}");
        run_scenario(*edge, &template);
    }
    assert!(edges.len() > 35, "the model has lost edges: {edges:?}");
}

fn strict(template: &CrashSnapshot) -> World {
    World::new(Some(template), RotationMode::Strict, "")
}

/// The scenario that takes the real transaction through an edge.
fn run_scenario(edge: Edge, template: &CrashSnapshot) {
    match edge {
        Edge::Enter
        | Edge::Admit
        | Edge::Allow(SendReason::First)
        | Edge::WriteIntent
        | Edge::Yield
        | Edge::ReceiveTokens
        | Edge::Seal
        | Edge::Publish
        | Edge::Commit => an_ordinary_refresh(template),
        Edge::RollForward | Edge::Crash(Phase::Sealed) => crash_after_sealing(template, None),
        Edge::RollForwardLater => crash_after_sealing(template, Some(KeyringError::Locked)),
        Edge::SettleIntent | Edge::Crash(Phase::Published) => crash_after_publishing(template),
        Edge::ReceiveDenial | Edge::RefuseDead => a_denial(template),
        Edge::FollowSuccess => a_waiter(template, None),
        Edge::FollowFailure | Edge::ReceiveBusy => a_waiter(template, Some(BUSY)),
        Edge::GiveUp | Edge::WaitInDoubt => a_lost_answer(template),
        Edge::PresumeConsumed => a_last_chance_of_the_dead(template),
        Edge::PauseForOrphan | Edge::Allow(SendReason::Grace) => a_rescue_by_grace(template),
        Edge::Allow(SendReason::Retry) => a_retry_without_rotation(template),
        Edge::Allow(SendReason::Overruled) => a_person_who_insists(template),
        Edge::Allow(SendReason::LastChance) => the_last_chance(template),
        Edge::KeyringAway => a_keyring_that_is_away(template),
        Edge::YieldTooLate => a_grace_that_ends_at_the_fence(template),
        Edge::PublishLater => a_keyring_that_goes_away(template),
        Edge::Crash(Phase::Idle | Phase::AtLock | Phase::Admitted | Phase::Ready)
        | Edge::CutPower(Phase::Idle | Phase::AtLock | Phase::Admitted | Phase::Ready) => {
            dead_before_the_intent(template)
        }
        Edge::Crash(Phase::Intended) | Edge::CutPower(Phase::Intended) => {
            dead_with_an_intent(template, HookPoint::AfterIntent)
        }
        Edge::Crash(Phase::Sent | Phase::Received) | Edge::CutPower(Phase::Sent | Phase::Received) => {
            dead_with_an_intent(template, HookPoint::AfterExchange);
        }
        Edge::CutPower(Phase::Sealed) => power_cut_after_the_seal(template, HookPoint::BeforePublish),
        Edge::CutPower(Phase::Published) => power_cut_after_the_seal(template, HookPoint::AfterPublish),
    }
}

fn a_person_who_insists(template: &CrashSnapshot) {
    let world = strict(template);
    world.server.script([Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#)]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 1));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

fn an_ordinary_refresh(template: &CrashSnapshot) {
    let world = strict(template);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get(), outcome.is_follower), (OutcomeKind::Refreshed, 2, false));
    let journal = world.journal();
    assert_eq!(
        (journal.generation.get(), journal.open_intent(), journal.publication),
        (2, None, Publication::Published)
    );
    assert_eq!((world.published(), world.requests()), (Some(2), 1));
}

/// The answer is sealed and the process dies; the next one finds it, with the keyring there or away.
fn crash_after_sealing(template: &CrashSnapshot, keyring: Option<KeyringError>) {
    let world = strict(template);
    let snapshot = world.crash_at(HookPoint::BeforePublish);
    let world = world.restart_from(snapshot, None);
    assert_eq!(world.published(), Some(1));
    if keyring.is_some() {
        world.keyring.set_fault(keyring);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, world.requests()), (OutcomeKind::StoreUnavailable, 1));
        world.keyring.set_fault(None);
    }
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Fresh, 2), "{outcome:?}");
    assert_eq!((world.published(), world.requests()), (Some(2), 1));
    assert_next_refresh(&world, 3);
}

/// The next refresh is an ordinary one.
fn assert_next_refresh(world: &World, generation: u64) {
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, generation), "{outcome:?}");
    assert_eq!(world.server.counts().presented_again, 0);
}

fn crash_after_publishing(template: &CrashSnapshot) {
    let world = strict(template);
    let snapshot = world.crash_at(HookPoint::AfterPublish);
    let world = world.restart_from(snapshot, None);
    assert_eq!(world.published(), Some(2));
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Fresh, 2), "{outcome:?}");
    assert_eq!((world.journal().open_intent(), world.requests()), (None, 1));
    assert_next_refresh(&world, 3);
}

fn a_denial(template: &CrashSnapshot) {
    let world = strict(template);
    world.server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    assert_eq!(world.refresh_if_due().kind, OutcomeKind::NeedsLogin);
    assert_eq!(world.requests(), 1);
    world.sign_in();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
}

/// Another process waits at the lock while the first one flies.
fn a_waiter(template: &CrashSnapshot, fault: Option<Fault>) {
    let world = strict(template);
    let kind = if fault.is_some() { OutcomeKind::Deferred } else { OutcomeKind::Refreshed };
    let gate = world.server.hold(HoldPoint::BeforeProcessing);
    world.server.script(fault);
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| world.refresh());
        gate.wait_reached();
        let waiter = scope.spawn(|| world.refresh());
        world.wait_for_lock_waiter();
        drop(gate);
        let (leader, waiter) = (leader.join().unwrap(), waiter.join().unwrap());
        assert_eq!((leader.kind, leader.is_follower), (kind, false), "{leader:?}");
        assert_eq!((waiter.kind, waiter.is_follower), (kind, true), "{waiter:?}");
        assert_eq!(leader.generation, waiter.generation);
    });
    assert_eq!((world.requests(), world.journal().open_intent()), (1, None));
}

fn a_lost_answer(template: &CrashSnapshot) {
    let world = strict(template);
    world.server.script([Fault::DropAfter]);
    for _ in 0..3 {
        let outcome = world.refresh();
        assert_eq!(outcome.kind, OutcomeKind::InDoubt, "{outcome:?}");
        assert!(outcome.retry_at.is_some());
    }
    assert_eq!(world.requests(), 1);
    // Just before expiry, once: the server had processed the first, so this ends the family, and a person is asked for.
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(25));
    for _ in 0..3 {
        assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    }
    assert_eq!(world.requests(), 2);
}

/// The last send was made, and its process died.
fn a_last_chance_of_the_dead(template: &CrashSnapshot) {
    let world = strict(template);
    world.server.script([Fault::DropBefore]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(25));
    world.server.script([Fault::DropBefore]);
    let snapshot = world.crash_at(HookPoint::AfterExchange);
    let world = world.restart_from(snapshot, None);
    for _ in 0..2 {
        assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    }
    assert_eq!(world.requests(), 2);
}

fn a_rescue_by_grace(template: &CrashSnapshot) {
    let world = World::new(Some(template), RotationMode::Grace(Duration::from_secs(60)), GRACE);
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    // The abandoned request may still arrive, so the next generation waits.
    let held = world.refresh();
    assert_eq!((held.kind, world.requests()), (OutcomeKind::Deferred, 2), "{held:?}");
    world.clock.advance(Duration::from_secs(16));
    assert_eq!(world.refresh().generation.get(), 3);
    assert_eq!(world.server.counts().families_revoked, 0);
}

fn a_grace_that_ends_at_the_fence(template: &CrashSnapshot) {
    let world = World::new(Some(template), RotationMode::Grace(Duration::from_secs(60)), GRACE);
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let clock = std::sync::Arc::clone(&world.clock);
    world.hook(HookPoint::BeforeExchange, move || {
        clock.advance(Duration::from_secs(70));
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!(outcome.kind, OutcomeKind::Deferred, "{outcome:?}");
    assert_eq!(world.requests(), 1, "the connection stood, and nothing was said on it");
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
}

fn a_retry_without_rotation(template: &CrashSnapshot) {
    let world = World::new(Some(template), RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n");
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.requests(), 2);
}

/// The first request never reached the server: the last chance succeeds.
fn the_last_chance(template: &CrashSnapshot) {
    let world = strict(template);
    world.server.script([Fault::DropBefore]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(31));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1));
    world.clock.advance(Duration::from_secs(2));
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
}

fn a_keyring_that_is_away(template: &CrashSnapshot) {
    let world = strict(template);
    for fault in [KeyringError::Locked, KeyringError::NoService, KeyringError::TimedOut] {
        world.keyring.set_fault(Some(fault));
        assert_eq!(world.refresh().kind, OutcomeKind::StoreUnavailable);
        assert_eq!((world.requests(), world.journal().open_intent()), (0, None));
    }
    world.keyring.set_fault(None);
    assert_next_refresh(&world, 2);
}

/// The answer is there, and the keyring is not any more.
fn a_keyring_that_goes_away(template: &CrashSnapshot) {
    let world = strict(template);
    let keyring = world.keyring.clone();
    world.hook(HookPoint::AfterExchange, move || {
        keyring.set_fault(Some(KeyringError::Locked));
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    assert_eq!((outcome.publication, world.published()), (Publication::PublishPending, Some(1)));
    world.keyring.set_fault(None);
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, outcome.publication), (OutcomeKind::Fresh, Publication::Published));
    assert_eq!((world.published(), world.requests()), (Some(2), 1));
}

fn dead_before_the_intent(template: &CrashSnapshot) {
    let world = strict(template);
    let snapshot = world.crash_at(HookPoint::BeforeExchange);
    let world = world.restart_from(snapshot, None);
    assert_eq!((world.requests(), world.journal().open_intent()), (0, None));
    assert_next_refresh(&world, 2);
}

/// The request was, or may have been, sent.
fn dead_with_an_intent(template: &CrashSnapshot, place: HookPoint) {
    let world = strict(template);
    let snapshot = world.crash_at(place);
    let before = world.requests();
    let world = world.restart_from(snapshot, None);
    assert!(world.journal().open_intent().is_some());
    for _ in 0..2 {
        let outcome = world.refresh();
        assert_eq!(outcome.kind, OutcomeKind::InDoubt, "{outcome:?}");
    }
    assert_eq!(world.requests(), before);
}

/// The keyring had not synced: it is back at the generation before. The sealed copy is not.
fn power_cut_after_the_seal(template: &CrashSnapshot, place: HookPoint) {
    let world = strict(template);
    let older = world.snapshot();
    let snapshot = world.crash_at(place);
    let world = world.restart_from(snapshot, Some(older.items()));
    assert_eq!(world.published(), Some(1));
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Fresh, 2), "{outcome:?}");
    assert_eq!((world.published(), world.requests()), (Some(2), 1));
    assert_next_refresh(&world, 3);
}
