//! What `--force` overrides, and what it does not.

use std::time::Duration;

use keepalive::outcome::{Outcome, OutcomeKind};

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::World;

const INVALID_CLIENT: Fault = Fault::Respond(401, "", r#"{"error":"invalid_client"}"#);
const INVALID_GRANT: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);

fn world() -> World {
    World::new(None, RotationMode::Strict, "")
}

fn word(outcome: &Outcome) -> &str {
    outcome.error.as_ref().map_or("", |error| error.kind.word())
}

#[test]
fn force_overrides_due_ness() {
    let world = world();
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Fresh, 0));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 1));
}

/// Rule 24.
#[test]
fn force_overrides_the_hold_of_a_refused_client() {
    let world = world();
    world.server.script([INVALID_CLIENT, INVALID_CLIENT]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::ConfigError, 1));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::ConfigError, 1));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::ConfigError, 2));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 3));
}

/// Rules 17, 22 and 25.
#[test]
fn force_overrides_no_doubt_rejection_or_pause() {
    for (fault, kind) in [
        (Fault::DropAfter, OutcomeKind::InDoubt),
        (INVALID_GRANT, OutcomeKind::NeedsLogin),
        (Fault::Respond(429, "retry-after: 60\r\n", ""), OutcomeKind::Deferred),
    ] {
        let world = world();
        world.server.script([fault]);
        for _ in 0..2 {
            assert_eq!((world.refresh().kind, world.requests()), (kind, 1));
        }
    }
}

/// Rule 3.
#[test]
fn force_does_not_send_a_consumed_token() {
    let world = World::without_keyring();
    let older = world.snapshot();
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 1));
    older.copy_into("profiles", &world);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, word(&outcome), world.requests()), (OutcomeKind::ConfigError, "stale_credential", 1));
}

#[test]
fn force_waits_after_a_failed_connection() {
    let mut world = world();
    let right = world.profile().provider.token_endpoint.clone();
    // No process listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.provider_mut().token_endpoint = Some(format!("http://127.0.0.1:{port}/token").parse().unwrap());
    world.sign_in();
    let first = world.refresh();
    let exchanges = world.exchanges();
    assert_eq!((first.kind, word(&first), exchanges), (OutcomeKind::Deferred, "network", 3));
    let second = world.refresh();
    assert_eq!((second.kind, second.retry_at, world.exchanges()), (first.kind, first.retry_at, exchanges));
    world.provider_mut().token_endpoint = right;
    world.sign_in();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "a pause belongs to its credential");
}

/// Rule 22.
#[test]
fn rejection_survives_another_server_or_client() {
    let mut world = world();
    world.server.script([INVALID_GRANT]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 1));
    let rejected = world.journal().rejected;
    world.provider_mut().token_endpoint = Some("https://login.example/token".parse().unwrap());
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 1), "another server");
    world.provider_mut().client_id = "another".into();
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 1), "another client");
    assert_eq!(world.journal().rejected, rejected);
}
