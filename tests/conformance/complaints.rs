//! What a caller achieves by saying that an API has rejected its access token, and what it does not.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::Generation;
use keepalive::engine::access_token::TokenResult;
use keepalive::engine::rejected_token::{RejectionAnswer, RejectionReport};
use keepalive::outcome::OutcomeKind;

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::World;

const MINUTE: Duration = Duration::from_secs(60);

fn world() -> World {
    World::new(None, RotationMode::Strict, "")
}

/// A complaint to a process that has just started.
fn complain(world: &World, report: RejectionReport) -> (TokenResult, RejectionAnswer) {
    let (min_valid, limit) = (Duration::ZERO, Duration::from_secs(30));
    world.process().access_token_after_rejection(world.profile(), report, min_valid, limit, &|| {}).unwrap()
}

fn proven(generation: u64) -> RejectionReport {
    RejectionReport::proven(Generation::new(generation))
}

/// Rule 41.
#[test]
fn complaint_is_answered_by_a_newer_token_or_one_refresh() {
    let world = world();
    world.clock.advance(MINUTE);
    let (obtained, answer) = complain(&world, proven(1));
    assert_eq!((answer, world.requests()), (RejectionAnswer::Refreshed, 1));
    assert_eq!(obtained.token.unwrap().generation, Generation::new(2));
    for (report, expected) in [
        (proven(1), RejectionAnswer::Newer),
        (proven(2), RejectionAnswer::TooSoon),
        (RejectionReport::unproven(None), RejectionAnswer::TooSoon),
    ] {
        let (obtained, answer) = complain(&world, report);
        assert_eq!((answer, world.requests()), (expected, 1), "{report:?}");
        assert_eq!(obtained.token.unwrap().generation, Generation::new(2));
    }
    let (min_valid, limit) = (Duration::ZERO, Duration::from_secs(30));
    let unknown =
        world.process().access_token_after_rejection(world.profile(), proven(3), min_valid, limit, &|| {}).unwrap_err();
    assert_eq!((unknown.0, world.requests()), (Generation::new(3), 1));
}

/// Rule 41.
#[test]
fn complaint_each_minute_is_limited_across_processes() {
    let world = world();
    for _ in 0..60 {
        world.clock.advance(MINUTE);
        let (obtained, _) = complain(&world, RejectionReport::unproven(None));
        assert!(obtained.token.is_some());
    }
    // Those that were due in any case are among them: the tokens live ten minutes.
    let complaints = world.journal().suspicion.unwrap().step + 1;
    assert!(complaints <= 7 && world.requests() <= 13, "{complaints} of {}", world.requests());
}

/// Rules 17 and 41.
#[test]
fn unproven_complaint_never_touches_a_doubt() {
    let world = world();
    world.clock.advance(MINUTE);
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(MINUTE);
    for _ in 0..3 {
        let (obtained, answer) = complain(&world, RejectionReport::unproven(None));
        assert_eq!((obtained.outcome.kind, answer), (OutcomeKind::InDoubt, RejectionAnswer::TooSoon));
        assert!(obtained.token.is_some(), "it may live");
        assert_eq!(world.requests(), 1);
        assert_eq!(world.journal().suspicion, None);
    }
    // A proven one makes the last chance come at once, and only once.
    let before = world.clock.now();
    let (obtained, _) = complain(&world, proven(1));
    assert_eq!(world.requests(), 2, "{obtained:?}");
    assert!(world.journal().validity.unwrap().remaining(&before) > MINUTE || obtained.token.is_none());
    drop(complain(&world, proven(1)));
    assert_eq!(world.requests(), 2);
}

/// Rules 22, 25 and 41.
#[test]
fn complaint_overrides_no_rejected_token_or_pause() {
    for (fault, kind) in [
        (Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#), OutcomeKind::NeedsLogin),
        (Fault::Respond(429, "retry-after: 300\r\n", ""), OutcomeKind::Deferred),
        (Fault::Respond(401, "", r#"{"error":"invalid_client"}"#), OutcomeKind::ConfigError),
    ] {
        let world = world();
        world.server.script([fault]);
        assert_eq!((world.refresh().kind, world.requests()), (kind, 1));
        world.clock.advance(MINUTE + MINUTE / 2);
        let (obtained, answer) = complain(&world, proven(1));
        assert_eq!((obtained.outcome.kind, world.requests()), (kind, 1));
        assert_eq!((answer, obtained.token.is_some()), (RejectionAnswer::TooSoon, true));
    }
}
