//! What `--force` overrides, and what it does not.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::outcome::{Outcome, OutcomeKind};

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

const INVALID_CLIENT: Fault = Fault::Respond(401, "", r#"{"error":"invalid_client"}"#);
const INVALID_GRANT: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);

const LIMIT: Duration = Duration::from_secs(30);

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

/// Rules 17 and 25.
#[test]
fn force_overrides_no_doubt_or_told_pause() {
    for (fault, kind) in [
        (Fault::DropAfter, OutcomeKind::InDoubt),
        (Fault::Respond(429, "retry-after: 60\r\n", ""), OutcomeKind::Deferred),
    ] {
        let world = world();
        world.server.script([fault]);
        for _ in 0..2 {
            assert_eq!((world.refresh().kind, world.requests()), (kind, 1));
        }
    }
}

/// Rule 22.
#[test]
fn force_sends_a_rejected_token_once_a_minute() {
    let world = world();
    world.server.script([INVALID_GRANT, INVALID_GRANT]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 1));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 1), "nobody insists");
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 2));
    world.clock.advance(Duration::from_secs(59));
    let held = world.refresh();
    assert_eq!((held.kind, world.requests()), (OutcomeKind::NeedsLogin, 2));
    assert!(held.error.unwrap().message.contains("it was sent once more a moment ago"));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 3), "the policy has changed");
    assert_eq!((world.journal().rejected, world.refresh_if_due().kind), (None, OutcomeKind::Fresh));
    assert_eq!((world.refresh().kind, world.server.counts().presented_again), (OutcomeKind::Refreshed, 2));
}

/// Rule 22.
#[test]
fn accepted_token_without_rotation_is_as_good_as_before() {
    let world = World::new(None, RotationMode::NoRotation { echo: false }, "rotation = \"none\"\n");
    world.server.script([INVALID_GRANT]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    for _ in 0..2 {
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    }
    assert_eq!((world.journal().rejected, world.refresh_if_due().kind), (None, OutcomeKind::Fresh));
}

/// Rule 22.
#[test]
fn rejected_token_that_was_in_doubt_is_never_forced() {
    let world = world();
    world.server.script([Fault::DropAfter, INVALID_GRANT]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(Duration::from_secs(1 << 20));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 2), "the last chance");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 2));
}

/// Rule 22.
#[test]
fn forced_send_without_a_response_ends_the_token() {
    for (rotation, mode, requests) in
        [("strict", RotationMode::Strict, 2), ("none", RotationMode::NoRotation { echo: false }, 3)]
    {
        let world = World::new(None, mode, &format!("rotation = \"{rotation}\"\n"));
        world.server.script([INVALID_GRANT, Fault::DropAfter]);
        for sent in [1, 2] {
            assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, sent), "{rotation}");
        }
        world.clock.advance(Duration::from_secs(60));
        let last = world.refresh();
        let is_sent = requests == 3;
        assert_eq!((last.kind == OutcomeKind::Refreshed, world.requests()), (is_sent, requests), "{rotation}");
    }
}

/// Rule 22.
#[test]
fn forced_send_of_a_killed_run_is_not_repeated() {
    let world = world();
    world.server.script([INVALID_GRANT]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let snapshot = world.crash_at(HookPoint::AfterIntent);
    let world = world.restart_from(snapshot, None);
    assert_eq!(world.refresh_if_due().kind, OutcomeKind::NeedsLogin);
    world.clock.advance(Duration::from_secs(60));
    let outcome = world.refresh();
    assert_eq!((outcome.kind, word(&outcome)), (OutcomeKind::NeedsLogin, "presumed_spent"));
    assert_eq!(world.requests(), 1);
}

/// Rule 22.
#[test]
fn forced_send_of_a_killed_run_is_repeated_without_rotation() {
    let world = World::new(None, RotationMode::NoRotation { echo: false }, "rotation = \"none\"\n");
    world.server.script([INVALID_GRANT]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let snapshot = world.crash_at(HookPoint::AfterIntent);
    let world = world.restart_from(snapshot, None);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rules 3 and 22.
#[test]
fn older_journal_with_a_rejection_sends_no_consumed_token() {
    let world = World::without_keyring();
    world.server.script([INVALID_GRANT]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    let older = world.snapshot();
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
    older.copy_into("profiles", &world);
    assert_eq!((word(&world.refresh()), world.requests()), ("stale_credential", 2));
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

/// A port on which no process listens: it was just given back.
fn closed_port() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}/token")
}

/// Rule 6.
#[test]
fn person_does_not_wait_after_a_failed_connection() {
    let mut world = world();
    world.provider_mut().token_endpoint = Some(closed_port().parse().unwrap());
    world.sign_in();
    for connections in [3, 6] {
        let outcome = world.refresh();
        assert_eq!((outcome.kind, word(&outcome), world.exchanges()), (OutcomeKind::Deferred, "network", connections));
    }
    world.clock.advance(ACCESS_LIFETIME / 4 * 3);
    // A pause of our own, which has just begun.
    assert_eq!((world.refresh().kind, world.exchanges()), (OutcomeKind::Deferred, 9));
    let live = world.process().access_token(world.profile(), ACCESS_LIFETIME / 2, LIMIT, &|| {});
    assert_eq!((live.token.is_some(), world.exchanges()), (true, 9), "it has a token that lives");
    let told = live.outcome.error.unwrap().message;
    assert!(told.contains("; not tried again since 20"), "{told}");
    world.clock.advance(Duration::from_secs(1 << 20));
    for connections in [12, 15] {
        let expired = world.process().access_token(world.profile(), Duration::ZERO, LIMIT, &|| {});
        assert_eq!((expired.token.is_none(), world.exchanges()), (true, connections));
        assert!(!expired.outcome.error.unwrap().message.contains("not tried again"));
    }
}

/// Rule 25.
#[test]
fn pause_after_unexplained_refusal_ends_with_its_client() {
    let mut world = world();
    world.server.script([Fault::Respond(400, "", r#"{"error":"what_is_this"}"#)]);
    for _ in 0..2 {
        let outcome = world.refresh();
        assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Deferred, 1));
    }
    world.provider_mut().headers.push(("X-Tenant".into(), "7".into()));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rule 25: a policy that was mended at the provider, or a portal that was signed in to, is seen when a person says so.
#[test]
fn person_overrules_an_unexplained_refusal_once_a_minute() {
    let page = "<html>Please accept our terms</html>";
    for refusal in [
        Fault::Respond(400, "", r#"{"error":"what_is_this"}"#),
        Fault::Respond(401, "", ""),
        Fault::Respond(403, "", page),
    ] {
        let world = world();
        world.server.script([refusal.clone(), refusal.clone()]);
        for (after, requests) in [(0, 1), (59, 1), (1, 2), (30, 2)] {
            world.clock.advance(Duration::from_secs(after));
            assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Deferred, requests), "{refusal:?}");
        }
        world.clock.advance(Duration::from_secs(30));
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Fresh, 2));
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 3), "{refusal:?}");
    }
}

/// Rule 25: it binds the plan, a token in doubt, and all if the server named a time.
#[test]
fn pause_after_unexplained_refusal_binds_all_but_a_person() {
    let due = world();
    due.clock.advance(ACCESS_LIFETIME);
    due.server.script([Fault::Respond(401, "", "")]);
    assert_eq!((due.refresh_if_due().kind, due.requests()), (OutcomeKind::Deferred, 1));
    due.clock.advance(Duration::from_secs(300));
    assert_eq!((due.refresh_if_due().kind, due.requests()), (OutcomeKind::Deferred, 1));
    assert_eq!((due.refresh().kind, due.requests()), (OutcomeKind::Refreshed, 2));

    let told = world();
    told.server.script([Fault::Respond(401, "Retry-After: 400\r\n", "")]);
    assert_eq!((told.refresh().kind, told.requests()), (OutcomeKind::Deferred, 1));
    told.clock.advance(Duration::from_secs(300));
    assert_eq!((told.refresh().kind, told.requests()), (OutcomeKind::Deferred, 1));

    let grace = "rotation = \"grace\"\nreuse_grace = \"10m\"\ngrace_semantics = \"same\"\n";
    let doubtful = World::new(None, RotationMode::Grace(ACCESS_LIFETIME), grace);
    doubtful.server.script([Fault::DropAfter, Fault::Respond(401, "", "")]);
    let lost = doubtful.refresh();
    assert_eq!((lost.kind, doubtful.requests()), (OutcomeKind::InDoubt, 1));
    doubtful.clock.advance(lost.retry_at.unwrap().since(doubtful.clock.now().wall));
    assert_eq!((doubtful.refresh().kind, doubtful.requests()), (OutcomeKind::Deferred, 2));
    doubtful.clock.advance(Duration::from_secs(100));
    assert_eq!((doubtful.refresh().kind, doubtful.requests()), (OutcomeKind::InDoubt, 2));
}

/// Rule 22.
#[test]
fn rejection_survives_another_server_or_client() {
    let mut world = world();
    world.server.script([INVALID_GRANT]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::NeedsLogin, 1));
    let rejected = world.journal().rejected;
    world.provider_mut().token_endpoint = Some("https://login.example/token".parse().unwrap());
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 1), "another server");
    world.provider_mut().client_id = "another".into();
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::NeedsLogin, 1), "another client");
    assert_eq!(world.journal().rejected, rejected);
}
