//! Answers that grant something, and leave it open which refresh token is the live one.

use std::time::Duration;

use keepalive::outcome::OutcomeKind;
use serde_json::json;

use super::new_credentials::access;
use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, World};

/// Before the last chance of an access token that has just come.
const NEARLY: Duration = Duration::from_secs(569);

/// A response of a strict server that has put the new token where no client looks.
fn answered(refresh: impl Fn(&str) -> String) -> (World, usize) {
    let world = World::new(None, RotationMode::Strict, "");
    let body = format!("{{\"access_token\":\"new\",\"expires_in\":600,{}}}", refresh("successor"));
    world.server.script([Fault::CommitThen(200, body.leak())]);
    let outcome = world.refresh();
    assert_eq!(outcome.kind, OutcomeKind::InDoubt, "{outcome:?}");
    assert!(outcome.warnings.iter().any(|w| w.contains("is unusable")), "{outcome:?}");
    assert!(outcome.error.as_ref().unwrap().message.contains("is unusable"), "{outcome:?}");
    assert!(outcome.retry_at.is_some(), "{outcome:?}");
    let token = world.journal().fingerprint.unwrap();
    assert!(world.process().store().ledger().entry(&token).unwrap().is_some(), "the journal is not alone with it");
    let requests = world.requests();
    (world, requests)
}

/// Rule 3.
#[test]
fn unreadable_new_refresh_token_leaves_the_old_one_in_doubt() {
    let ways: [fn(&str) -> String; 5] = [
        |new| format!("\"refresh_token\":[\"{new}\"]"),
        |new| format!("\"refresh_token\":{{\"value\":\"{new}\"}}"),
        |new| format!("\"refresh_token\":\"{new}\",\"refresh_token\":null"),
        |new| format!("\"data\":{{\"refresh_token\":\"{new}\"}}"),
        |_| "\"refresh_token\":true".into(),
    ];
    for way in ways {
        let (world, requests) = answered(way);
        assert_eq!((access(&world), world.journal().generation.get()), ("new".into(), 2));
        for _ in 0..2 {
            world.clock.advance(NEARLY / 2);
            assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, requests));
        }
        world.clock.advance(Duration::from_secs(2));
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, requests + 1), "it was spent");
    }
}

/// Rule 15.
#[test]
fn empty_refresh_token_in_a_response_keeps_the_old_one() {
    let world = World::new(None, RotationMode::NoRotation { echo: true }, "");
    for odd in [json!({"refresh_token": null}), json!({"refresh_token": ""}), json!({"refresh_token": false})] {
        world.server.script([Fault::ReplaceMembers(odd)]);
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    }
}

/// A server that gives the same refresh token again, of which nothing is known, and which has lost an answer.
fn in_doubt_at_a_server_that_keeps_its_tokens() -> World {
    let world = World::new(None, RotationMode::NoRotation { echo: true }, "");
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(NEARLY + Duration::from_secs(2));
    world
}

/// Rule 18.
#[test]
fn last_chance_returning_the_old_token_allows_another_one() {
    let world = in_doubt_at_a_server_that_keeps_its_tokens();
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::InDoubt, 2), "{outcome:?}");
    assert_eq!(world.journal().generation.get(), 2);
    world.clock.advance(NEARLY);
    for _ in 0..2 {
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 2));
    }
    // Granted once more when no grace can be the reason, it is alive.
    world.clock.advance(Duration::from_secs(2));
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.requests(), world.journal().intent), (OutcomeKind::Refreshed, 3, None));
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "the doubt is over");
}

/// Rule 18.
#[test]
fn failed_send_after_a_returned_old_token_needs_login() {
    let world = in_doubt_at_a_server_that_keeps_its_tokens();
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(ACCESS_LIFETIME);
    world.server.script([Fault::DropAfter]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 3));
    world.clock.advance(ACCESS_LIFETIME);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 3));
}
