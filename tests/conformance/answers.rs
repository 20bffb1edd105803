//! What an answer, or none, makes of a profile: told as it is, waited for as long as is wise, and never thrown away.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::outcome::{Outcome, OutcomeKind, Publication};
use serde_json::json;

use super::support::authserver::Fault;
use super::support::family::Mode;
use super::world::{Place, World};

const LATEST: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"latest\"\ntimeout = \"5s\"\n";
const SAME: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";

fn world() -> World {
    World::new(None, Mode::Strict, "")
}

/// How long until it may be tried again.
#[track_caller]
fn wait(world: &World, outcome: &Outcome) -> Duration {
    outcome.retry_at.expect("it is tried again").since(world.clock.now().wall)
}

#[test]
fn r25_who_is_turned_away_waits_longer_each_time_and_not_as_long_as_all_the_others() {
    let world = world();
    let mut waits = Vec::new();
    for n in 1..6_u32 {
        world.server.script([Fault::Answer(429, "", "")]);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, world.record().failures), (OutcomeKind::Deferred, n), "{outcome:?}");
        let (waited, most) = (wait(&world, &outcome), Duration::from_secs(1 << n));
        assert!(waited >= Duration::from_secs(1) && waited <= most, "{waited:?}");
        waits.push(waited == most);
        world.clock.advance(waited);
    }
    assert!(waits.contains(&false), "all profiles of the world would come back at the same instant");
    assert_eq!((world.refresh().kind, world.record().failures), (OutcomeKind::Refreshed, 0));
}

#[test]
fn a_server_that_cannot_be_reached_is_tried_thrice_and_by_who_is_told_to_stop_once() {
    for (is_stopped, tries) in [(false, 3), (true, 1)] {
        let mut world = world();
        // Nobody listens on a port that was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        world.provider_mut().token_endpoint = Some(format!("http://127.0.0.1:{port}/token").parse().unwrap());
        world.sign_in();
        let engine = world.process();
        let stopping = engine.clone();
        world.hook(Place::BeforeExchange, move || {
            if is_stopped {
                stopping.stop();
            }
            Ok(())
        });
        let outcome = world.refresh_by(&engine);
        assert_eq!((outcome.kind, outcome.error.as_ref().unwrap().kind.as_ref()), (OutcomeKind::Deferred, "network"));
        assert!(wait(&world, &outcome) >= Duration::from_secs(1));
        assert_eq!((world.exchanges(), world.record().intent), (tries, None));
    }
}

#[test]
fn r19_a_doubt_that_the_servers_grace_can_end_is_looked_into_at_once() {
    let world = World::new(None, Mode::Grace(Duration::from_secs(60)), SAME);
    world.server.script([Fault::DropAfter]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, wait(&world, &outcome)), (OutcomeKind::InDoubt, Duration::ZERO));
    assert_eq!((world.record().not_before, world.record().failures), (None, 0));
}

#[test]
fn r20_only_a_retry_within_grace_holds_the_next_generation_back() {
    // None was retried.
    let graceful = World::new(None, Mode::Grace(Duration::from_secs(60)), SAME);
    // One was, but the server answers the newest request only; or it was the last chance at a strict one.
    let latest = World::new(None, Mode::Grace(Duration::from_secs(60)), LATEST);
    let strict = world();
    for (world, until_retry) in [(&latest, 20), (&strict, 580)] {
        world.server.script([Fault::DropBefore]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        world.clock.advance(Duration::from_secs(until_retry));
    }
    for world in [&graceful, &latest, &strict] {
        for generation in [2, 3] {
            let outcome = world.refresh();
            assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, generation), "{outcome:?}");
        }
    }
}

#[test]
fn r16_a_server_that_gives_nothing_to_use_is_not_asked_in_a_loop() {
    let world = world();
    for n in 1..3 {
        world.server.script([Fault::Members(json!({"access_token": null}))]);
        let outcome = world.refresh();
        let error = outcome.error.as_ref().unwrap();
        assert_eq!((outcome.kind, error.kind.as_ref()), (OutcomeKind::ConfigError, "at_unusable"), "{outcome:?}");
        assert_eq!((world.record().failures, outcome.retry_at), (n, world.record().not_before));
        world.clock.advance(wait(&world, &outcome));
    }
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.server.counts().presented_again, 0, "each refresh token was kept");
}

#[test]
fn what_is_odd_about_an_answer_is_told() {
    for (members, words) in [
        (json!({"token_type": "user"}), "the token type is not Bearer"),
        (json!({"expires_in": null}), "the server told no lifetime; 3600 s are assumed"),
    ] {
        let world = world();
        world.server.script([Fault::Members(members)]);
        let outcome = world.refresh();
        assert_eq!(
            (outcome.kind, outcome.warnings.as_slice()),
            (OutcomeKind::Refreshed, [words.to_owned()].as_slice())
        );
    }
}

#[test]
fn r09_an_answer_that_cannot_be_sealed_at_once_is_sealed_as_soon_as_it_can() {
    let world = world();
    let received = world.file("profiles/demo/received");
    let (obstacle, obstacle_gone) = (received.join("obstacle"), received.clone());
    world.hook(Place::AfterExchange, move || {
        std::fs::create_dir_all(obstacle).unwrap();
        Ok(())
    });
    world.hook(Place::BeforePublish, move || {
        std::fs::remove_dir_all(obstacle_gone).unwrap();
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    assert_eq!((outcome.publication, world.published()), (Publication::Published, Some(2)));
    assert_eq!(world.refresh().generation.get(), 3);
}

#[test]
fn r12_an_answer_that_the_disk_will_not_have_is_kept_in_the_keyring() {
    let world = world();
    let received = world.file("profiles/demo/received");
    let obstacle = received.join("obstacle");
    world.hook(Place::AfterExchange, move || {
        std::fs::create_dir_all(obstacle).unwrap();
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.published()), (OutcomeKind::Refreshed, Some(2)), "{outcome:?}");
    assert!(outcome.warnings.iter().any(|w| w.contains("in the keyring only")), "{outcome:?}");
    std::fs::remove_dir_all(received).unwrap();
    let outcome = world.look();
    assert_eq!((outcome.generation.get(), world.requests()), (2, 1), "{outcome:?}");
    assert_eq!(world.refresh().generation.get(), 3);
    assert_eq!(world.server.counts().presented_again, 0);
}
