//! What an answer, or none, makes of a profile: told as it is, waited for as long as is wise, and never thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keepalive::clock::{Clock, ManualClock, Moment, Timestamp};
use keepalive::engine::logout::TokenFate;
use keepalive::outcome::{ErrorKind, Outcome, OutcomeKind, Publication};
use keepalive::profile::{ClientAuth, SecretSource};
use keepalive::provider::BeforeSendError;
use keepalive::provider::client_auth::ClientCredentials;
use keepalive::store::journal::block::Cause;
use keepalive::store::keys::sealing_key::SealingKey;
use serde_json::json;

use super::support::auth_server::{CustomResponse, Fault, Issued};
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, CLIENT_SECRET, HookPoint, World};

const LATEST: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"latest\"\ntimeout = \"5s\"\n";
const SAME: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";

fn world() -> World {
    World::new(None, RotationMode::Strict, "")
}

/// How long until it may be tried again.
#[track_caller]
fn wait(world: &World, outcome: &Outcome) -> Duration {
    outcome.retry_at.expect("it is tried again").since(world.clock.now().wall)
}

/// From `place` on a directory stands where a file is to be written: the disk will not have it.
fn block_path_with_directory(world: &World, place: HookPoint, path: &Path) {
    let obstacle = path.join("obstacle");
    world.hook(place, move || {
        std::fs::create_dir_all(obstacle).unwrap();
        Ok(())
    });
}

/// Rule 25.
#[test]
fn throttled_profile_waits_longer_each_time_with_jitter() {
    let world = world();
    let mut waits = Vec::new();
    for n in 1..6_u32 {
        world.server.script([Fault::Respond(429, "", "")]);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, world.journal().consecutive_failures), (OutcomeKind::Deferred, n), "{outcome:?}");
        let (waited, most) = (wait(&world, &outcome), Duration::from_secs(1 << n));
        assert!(waited >= Duration::from_secs(1) && waited <= most, "{waited:?}");
        waits.push(waited == most);
        world.clock.advance(waited);
    }
    assert!(waits.contains(&false), "all profiles of the world would come back at the same instant");
    assert_eq!((world.refresh().kind, world.journal().consecutive_failures), (OutcomeKind::Refreshed, 0));
}

#[test]
fn unreachable_server_is_tried_three_times_or_once_on_stop() {
    for (is_stopped, tries) in [(false, 3), (true, 1)] {
        let mut world = world();
        // No process listens on a port that was just given back.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        world.provider_mut().token_endpoint = Some(format!("http://127.0.0.1:{port}/token").parse().unwrap());
        world.sign_in();
        let engine = world.process();
        let stopping = engine.clone();
        world.hook(HookPoint::BeforeExchange, move || {
            if is_stopped {
                stopping.stop();
            }
            Ok(())
        });
        let outcome = world.refresh_by(&engine);
        assert_eq!((outcome.kind, outcome.error.as_ref().unwrap().kind.word()), (OutcomeKind::Deferred, "network"));
        assert!(wait(&world, &outcome) >= Duration::from_secs(1));
        assert_eq!((world.exchanges(), world.journal().intent, world.journal().consecutive_failures), (tries, None, 1));
    }
}

/// Rule 19.
#[test]
fn doubt_allows_a_retry_at_once_within_server_grace() {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    world.server.script([Fault::DropAfter]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, wait(&world, &outcome)), (OutcomeKind::InDoubt, Duration::ZERO));
    assert_eq!((world.journal().not_before, world.journal().consecutive_failures), (None, 0));
}

/// Rule 20.
#[test]
fn next_generation_is_not_paused_without_a_same_grace_retry() {
    // None was retried.
    let graceful = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    // One was, but the server answers the newest request only; or it was the last chance at a strict one.
    let latest = World::new(None, RotationMode::Grace(Duration::from_secs(60)), LATEST);
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

/// Rule 16.
#[test]
fn response_without_access_token_is_not_retried_in_a_loop() {
    let world = world();
    for n in 1..3 {
        world.server.script([Fault::ReplaceMembers(json!({"access_token": null}))]);
        let outcome = world.refresh();
        let error = outcome.error.as_ref().unwrap();
        assert_eq!((outcome.kind, error.kind.word()), (OutcomeKind::ConfigError, "at_unusable"), "{outcome:?}");
        assert_eq!((world.journal().consecutive_failures, outcome.retry_at), (n, world.journal().not_before));
        world.clock.advance(wait(&world, &outcome));
    }
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.server.counts().presented_again, 0, "each refresh token was kept");
}

#[test]
fn rejection_error_quotes_the_server_description() {
    for (body, words) in [
        (r#"{"error":"invalid_grant","error_description":"long gone"}"#, "acme returned 400 invalid_grant: long gone"),
        (r#"{"error":"invalid_grant"}"#, "acme returned 400 invalid_grant"),
    ] {
        let world = world();
        world.server.script([Fault::Respond(400, "", body)]);
        assert_eq!(world.refresh().error.unwrap().message, words);
    }
}

#[test]
fn odd_token_type_or_missing_lifetime_gives_a_warning() {
    for (members, words) in [
        (json!({"token_type": "user"}), "the token type is not Bearer"),
        (json!({"expires_in": null}), "no credible expires_in in the response; assuming 3600 s"),
    ] {
        let world = world();
        world.server.script([Fault::ReplaceMembers(members)]);
        let outcome = world.refresh();
        assert_eq!(
            (outcome.kind, outcome.warnings.as_slice()),
            (OutcomeKind::Refreshed, [words.to_owned()].as_slice())
        );
    }
}

/// Rule 9.
#[test]
fn response_is_sealed_later_when_the_first_write_fails() {
    let world = world();
    let received = world.file("profiles/demo/received");
    block_path_with_directory(&world, HookPoint::AfterExchange, &received);
    world.hook(HookPoint::BeforePublish, move || {
        std::fs::remove_dir_all(received).unwrap();
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    assert_eq!((outcome.publication, world.published()), (Publication::Published, Some(2)));
    assert_eq!(world.refresh().generation.get(), 3);
}

/// Rule 12.
#[test]
fn response_is_kept_in_keyring_when_the_disk_refuses_it() {
    let world = world();
    let received = world.file("profiles/demo/received");
    block_path_with_directory(&world, HookPoint::AfterExchange, &received);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.published()), (OutcomeKind::Refreshed, Some(2)), "{outcome:?}");
    assert!(outcome.warnings.iter().any(|w| w.contains("only in the keyring")), "{outcome:?}");
    std::fs::remove_dir_all(received).unwrap();
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.generation.get(), world.requests()), (2, 1), "{outcome:?}");
    assert_eq!(world.refresh().generation.get(), 3);
    assert_eq!(world.server.counts().presented_again, 0);
}

/// Rule 17.
#[test]
fn token_is_in_doubt_when_no_store_takes_the_response() {
    let world = World::without_keyring();
    let received = world.file("profiles/demo/received");
    let (engine, obstacle) = (world.process(), received.join("obstacle"));
    let stopped = engine.clone();
    world.hook(HookPoint::AfterExchange, move || {
        std::fs::create_dir_all(obstacle).unwrap();
        // A run that is told to stop does not try as long.
        stopped.stop();
        Ok(())
    });
    let outcome = world.refresh_by(&engine);
    assert_eq!((outcome.kind, outcome.warnings.as_slice()), (OutcomeKind::InDoubt, [].as_slice()), "{outcome:?}");
    let attempt = world.journal().last_attempt.unwrap();
    assert_eq!(attempt.outcome, OutcomeKind::InDoubt);
    assert!(attempt.error.unwrap().message.contains("could not be stored"), "the journal tells what the run knew");
    std::fs::remove_dir_all(received).unwrap();
    assert_eq!(
        (world.refresh_if_due().kind, world.requests()),
        (OutcomeKind::InDoubt, 1),
        "it is told until it is settled"
    );
}

/// Rule 8.
#[test]
fn failed_intent_write_is_reported_and_nothing_is_sent() {
    let world = world();
    block_path_with_directory(&world, HookPoint::BeforeExchange, &world.file("profiles/demo/.record.json.new"));
    let outcome = world.refresh();
    let error = outcome.error.unwrap();
    assert_eq!((outcome.kind, error.kind.word()), (OutcomeKind::StoreUnavailable, "io"));
    assert!(error.message.starts_with("cannot write the journal: "), "{error:?}");
    assert_eq!((world.requests(), world.journal().open_intent()), (0, None));
}

/// Rule 8.
#[test]
fn reserved_space_fits_the_largest_response() {
    let world = world();
    let folder = world.file("profiles/demo");
    // The second one takes what it does not change from the first one.
    for generation in [2, 3] {
        let tokens = format!(r#"{{"refresh_token":"r{generation}","expires_in":600,"access_token":""#);
        let answer = format!("{tokens}{}\"}}", "a".repeat(1024 * 1024 - tokens.len() - 2));
        world.server.script([Fault::Respond(200, "Content-Type: application/json\r\n", answer.leak())]);
        let taken = Arc::new(AtomicU64::new(0));
        let (noted, space) = (Arc::clone(&taken), folder.join(".received.new"));
        world.hook(HookPoint::AfterIntent, move || {
            noted.store(std::fs::metadata(space).unwrap().len(), Ordering::SeqCst);
            Ok(())
        });
        assert_eq!((world.refresh().kind, world.published()), (OutcomeKind::Refreshed, Some(generation)));
        // The answer as it came is the sealed copy.
        let needed = std::fs::metadata(folder.join("sealed")).unwrap().len();
        let taken = taken.load(Ordering::SeqCst);
        assert!(1_300_000 < needed && needed <= taken, "{needed} bytes in a space of {taken}");
    }
}

/// Rule 17.
#[test]
fn refused_second_send_leaves_the_first_in_doubt() {
    for fault in [Fault::Respond(429, "", ""), NO] {
        let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
        world.server.script([Fault::DropAfter, fault]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Deferred, 2));
        let intent = world.journal().intent.expect("the first one may have been taken");
        assert_eq!((intent.send_count, intent.gave_up_at.is_some()), (1, true));
        world.clock.advance(Duration::from_secs(61));
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::InDoubt, 2), "its grace is over");
    }
}

/// Rule 25.
#[test]
fn throttled_grace_retry_waits_for_retry_after() {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    for fault in [Fault::Respond(429, "retry-after: 7\r\n", ""), Fault::RespondEarly(429, "retry-after: 7\r\n")] {
        let before = world.requests();
        world.server.script([Fault::DropAfter, fault]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
        let asked = world.exchanges();
        for _ in 0..3 {
            let outcome = world.refresh();
            assert_eq!((outcome.kind, world.exchanges()), (OutcomeKind::InDoubt, asked), "{outcome:?}");
            assert_eq!(outcome.retry_at, Some(world.clock.now().wall.plus(Duration::from_secs(7))));
        }
        world.clock.advance(Duration::from_secs(7));
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        assert!(world.requests() > before);
        world.clock.advance(Duration::from_secs(16));
    }
    assert_eq!(world.server.counts().families_revoked, 0);
}

/// Rule 25.
#[test]
fn throttled_last_chance_waits_for_retry_after() {
    for fault in [Fault::Respond(429, "retry-after: 600\r\n", ""), Fault::RespondEarly(429, "retry-after: 600\r\n")] {
        let world = world();
        world.server.script([Fault::DropBefore, fault]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        world.clock.advance(Duration::from_secs(580));
        assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
        let asked = world.exchanges();
        for passed in [0, 20, 559] {
            world.clock.advance(Duration::from_secs(passed));
            let outcome = world.refresh();
            assert_eq!((outcome.kind, world.exchanges()), (OutcomeKind::InDoubt, asked), "{passed}: {outcome:?}");
        }
        world.clock.advance(Duration::from_secs(41));
        assert_eq!((world.refresh().kind, world.exchanges()), (OutcomeKind::Refreshed, asked + 1));
    }
}

#[test]
fn failed_discovery_defers_only_a_signed_in_profile() {
    for (is_signed_in, kind, word) in
        [(true, OutcomeKind::Deferred, "discovery"), (false, OutcomeKind::NeedsLogin, "no_credential")]
    {
        let mut world = world();
        let provider = world.provider_mut();
        provider.token_endpoint = None;
        provider.issuer = Some("http://127.0.0.1:9/".parse().unwrap());
        if !is_signed_in {
            std::fs::remove_dir_all(world.file("profiles/demo")).unwrap();
        }
        world.clock.advance(Duration::from_secs(599));
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, outcome.error.unwrap().kind.word()), (kind, word));
    }
}

/// An answer that says no, and not why.
const NO: Fault = Fault::Respond(400, "", "");

#[test]
fn five_unexplained_refusals_end_only_an_expired_profile() {
    for (life, is_dead) in [(60, true), (86_400, false)] {
        let world = world();
        let mut answer = world.server.mint();
        answer["expires_in"] = json!(life);
        world.import(world.credential(&answer), true).unwrap();
        for n in 1..5 {
            world.server.script([NO]);
            let outcome = world.refresh();
            let word = outcome.error.as_ref().unwrap().kind.to_string();
            assert_eq!((outcome.kind, word.as_str()), (OutcomeKind::Deferred, "refused"), "{outcome:?}");
            assert_eq!((world.journal().consecutive_unclassified, wait(&world, &outcome).as_secs()), (n, 600));
            world.clock.advance(Duration::from_secs(600));
        }
        world.server.script([NO]);
        let (kind, word) = match is_dead {
            true => (OutcomeKind::NeedsLogin, "presumed_dead"),
            false => (OutcomeKind::Deferred, "refused"),
        };
        let outcome = world.refresh();
        let error = outcome.error.unwrap();
        assert_eq!((outcome.kind, error.kind.word(), world.requests()), (kind, word, 5));
        if is_dead {
            assert!(error.message.contains("5 rejections in a row without a reason; last: acme returned 400"));
            let left = world.log_out(false, false).unwrap();
            assert_eq!(left.refresh, TokenFate::NotRevoked, "nobody has said that it is dead");
        }
    }
}

/// Rule 23.
#[test]
fn early_refusals_do_not_count_against_the_token() {
    let world = world();
    world.clock.advance(ACCESS_LIFETIME);
    // The token that was sent was refused four times; whether a proxy in between says no as well does not matter.
    for (n, is_early) in [false, false, true, true, false, true, true, false, true, true].into_iter().enumerate() {
        match is_early {
            true => world.answer_early([403]),
            false => world.server.script([NO]),
        }
        let outcome = world.refresh();
        let word = outcome.error.as_ref().unwrap().kind.word();
        assert_eq!((outcome.kind, word), (OutcomeKind::Deferred, "refused"), "{n}: {outcome:?}");
        world.clock.advance(wait(&world, &outcome));
    }
    assert_eq!((world.journal().consecutive_unclassified, world.journal().rejected.clone()), (4, None));
    world.answer_early([429]);
    let outcome = world.refresh();
    world.clock.advance(wait(&world, &outcome));
    world.server.script([NO]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin, "the fifth that knew what it refused");
}

/// Rule 23.
#[test]
fn early_refusal_after_five_unexplained_ones_keeps_the_token() {
    let world = world();
    let mut answer = world.server.mint();
    answer["expires_in"] = json!(86_400);
    world.import(world.credential(&answer), true).unwrap();
    world.server.script(vec![NO; 6]);
    for _ in 0..5 {
        assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
        world.clock.advance(Duration::from_secs(600));
    }
    world.clock.advance(Duration::from_secs(86_400));
    world.answer_early([403]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.journal().rejected.clone()), (OutcomeKind::Deferred, None));
    world.clock.advance(wait(&world, &outcome));
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
}

#[test]
fn refusal_with_a_reason_resets_the_unexplained_count() {
    let world = world();
    for (fault, word, unclassified) in [(NO, "refused", 1), (Fault::Respond(429, "", ""), "throttled", 0)] {
        world.server.script([fault]);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.error.as_ref().unwrap().kind.word()), (OutcomeKind::Deferred, word));
        assert_eq!(world.journal().consecutive_unclassified, unclassified);
        world.clock.advance(wait(&world, &outcome));
    }
}

/// Rule 17.
#[test]
fn doubt_without_rotation_is_retried_only_after_a_pause() {
    let world = World::new(None, RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n");
    world.server.script([Fault::DropBefore]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, world.journal().consecutive_failures), (OutcomeKind::InDoubt, 1), "{outcome:?}");
    let pause = wait(&world, &outcome);
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Deferred, 1), "not even by force");
    world.clock.advance(pause);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rule 24.
#[test]
fn refused_client_is_probed_three_times_then_only_by_force() {
    const REFUSED: Fault = Fault::Respond(401, "", r#"{"error":"invalid_client"}"#);
    let mut world = world();
    world.server.script(vec![REFUSED; 5]);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::ConfigError, 1));
    for n in 1..=3 {
        world.clock.advance(Duration::from_secs(1799));
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, world.requests()), (OutcomeKind::ConfigError, n), "{outcome:?}");
        assert_eq!(wait(&world, &outcome), Duration::from_secs(1));
        world.clock.advance(Duration::from_secs(1));
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::ConfigError, n + 1));
    }
    for later in [0, 86_400] {
        world.clock.advance(Duration::from_secs(later));
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, outcome.retry_at, world.requests()), (OutcomeKind::ConfigError, None, 4));
    }
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::ConfigError, 5), "a person may insist");
    world.provider_mut().parameters.push(("resource".into(), "https://api".into()));
    assert_eq!(
        (world.refresh_if_due().kind, world.requests()),
        (OutcomeKind::Refreshed, 6),
        "it is another client now"
    );
}

/// Rule 24. The journal holds no secret, and nothing that a short one could be guessed from: the search that finds the
/// client secret needs the sealing key, which is not in the store's directory.
#[test]
fn a_client_secret_cannot_be_guessed_from_the_journal() {
    let mut world = World::without_keyring();
    let provider = world.provider_mut();
    provider.client_auth = ClientAuth::ClientSecretPost;
    provider.client_secret = Some(SecretSource::Env("SECRET".into()));
    world.server.script([CLIENT_REFUSED]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    let mark = world.journal().block(Cause::Client).unwrap().client.clone().unwrap().config_fingerprint;
    let mut prepared = world.prepared();
    let mut search = |key: &SealingKey| {
        (0..10_000).map(|n| format!("{n:04}")).find(|guess| {
            prepared.credentials = ClientCredentials::Secret(guess.clone().into());
            key.client_mark(&prepared.client_bytes()) == mark
        })
    };
    assert_eq!(search(&SealingKey::new([7; 32])).as_deref(), Some(CLIENT_SECRET), "the search is the right one");
    assert_eq!(search(&SealingKey::new([8; 32])), None);
}

/// Rule 24.
#[test]
fn forced_refresh_does_not_count_as_a_client_probe() {
    let world = world();
    world.server.script(vec![CLIENT_REFUSED; 5]);
    for n in 1..=5 {
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::ConfigError, n));
    }
    world.clock.advance(HALF_AN_HOUR);
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Refreshed, 6));
}

const CLIENT_REFUSED: Fault = Fault::Respond(401, "", r#"{"error":"invalid_client"}"#);
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

/// Rule 24.
#[test]
fn client_probe_that_was_not_sent_does_not_count() {
    let world = world();
    world.server.script([CLIENT_REFUSED]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    world.clock.advance(HALF_AN_HOUR);
    for _ in 0..4 {
        world.hook(HookPoint::BeforeExchange, || Err(BeforeSendError::Refused("the network is away")));
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Deferred, 1));
        world.clock.advance(Duration::from_secs(900));
    }
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rule 24.
#[test]
fn throttled_client_probe_counts_and_waits_half_an_hour() {
    let world = world();
    world.server.script([CLIENT_REFUSED]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    for n in 2..=4 {
        world.clock.advance(HALF_AN_HOUR);
        world.server.script([Fault::Respond(429, "", "")]);
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Deferred, n));
        world.clock.advance(Duration::from_secs(1799));
        assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::ConfigError, n));
        world.clock.advance(Duration::from_secs(1));
    }
    world.clock.advance(HALF_AN_HOUR);
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::ConfigError, 4));
}

/// Rule 33.
#[test]
fn refused_client_is_probed_on_time_after_clock_is_corrected() {
    let world = world();
    let right = world.clock.now().wall;
    world.clock.set_wall(right.plus(Duration::from_secs(100 * 86_400)));
    world.server.script([CLIENT_REFUSED]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    world.clock.advance(HALF_AN_HOUR - Duration::from_secs(60));
    world.clock.set_wall(right);
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, wait(&world, &outcome)), (OutcomeKind::ConfigError, Duration::from_secs(60)));
    world.clock.advance(Duration::from_secs(60));
    world.clock.set_wall(right.plus(ACCESS_LIFETIME));
    assert_eq!((world.refresh_if_due().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rule 25.
#[test]
fn retry_after_of_a_503_is_obeyed_under_every_rotation_mode() {
    let grace = "rotation = \"grace\"\nreuse_grace = \"3600s\"\ngrace_semantics = \"same\"\n";
    for (mode, provider) in [
        (RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n"),
        (RotationMode::Lenient, "rotation = \"lenient\"\n"),
        (RotationMode::Grace(Duration::from_secs(3600)), grace),
        (RotationMode::Strict, ""),
    ] {
        let world = World::new(None, mode, provider);
        // Its last chance would be much sooner.
        world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(60));
        world.server.script([Fault::Respond(503, "retry-after: 900\r\n", "")]);
        let outcome = world.refresh();
        assert_eq!(
            (outcome.kind, wait(&world, &outcome)),
            (OutcomeKind::InDoubt, Duration::from_secs(900)),
            "{mode:?}"
        );
        world.clock.advance(Duration::from_secs(899));
        for _ in 0..3 {
            let outcome = world.refresh();
            assert_eq!(
                (wait(&world, &outcome), world.requests()),
                (Duration::from_secs(1), 1),
                "{mode:?}: {outcome:?}"
            );
        }
        world.clock.advance(Duration::from_secs(1));
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2), "{mode:?}");
    }
}

#[test]
fn refresh_token_is_not_sent_to_another_server_or_client() {
    let mut elsewhere = world();
    elsewhere.provider_mut().token_endpoint = Some("http://127.0.0.1:9/token".parse().unwrap());
    let mut renamed = world();
    renamed.provider_mut().client_id = "another".into();
    for world in [elsewhere, renamed] {
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.error.unwrap().kind.word()), (OutcomeKind::ConfigError, "other_server"));
        assert_eq!((world.exchanges(), world.journal().generation.get()), (0, 1));
    }
}

/// Rule 2.
#[test]
fn nothing_is_sent_when_the_lock_file_was_replaced() {
    for place in [HookPoint::KeyringCheck, HookPoint::BeforeExchange] {
        let world = world();
        let lock = world.file("profiles/demo/lock");
        let check = lock.clone();
        world.hook(place, move || {
            std::fs::remove_file(check).unwrap();
            Ok(())
        });
        let outcome = world.refresh();
        let kind = outcome.error.as_ref().unwrap().kind.word();
        assert_eq!((outcome.kind, kind), (OutcomeKind::Deferred, "interrupted"), "{place:?}");
        assert_eq!((world.requests(), world.journal().open_intent(), lock.exists()), (0, None, false));
    }
}

/// Rule 17.
#[test]
fn doubt_survives_every_kind_of_refused_grace_retry() {
    const CLIENT: &str = r#"{"error":"invalid_client"}"#;
    let refusals = || {
        [
            Fault::Respond(429, "", ""),
            Fault::Respond(302, "location: /\r\n", ""),
            Fault::Respond(401, "", CLIENT),
            NO,
            Fault::RespondEarly(429, ""),
            Fault::RespondEarly(401, ""),
        ]
    };
    for (i, fault) in refusals().into_iter().enumerate() {
        let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
        world.server.script([Fault::DropAfter]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        let before = world.journal().intent.expect("it is in doubt");
        world.server.script([fault]);
        let outcome = world.refresh();
        assert!(matches!(outcome.kind, OutcomeKind::Deferred | OutcomeKind::ConfigError), "{i}: {outcome:?}");
        let after = world.journal().intent.expect("nothing has told what became of the first one");
        assert_eq!((after.fingerprint, after.first_sent), (before.fingerprint, before.first_sent));
        // The grace is over, and with it the only way to ask once more before the access token ends.
        world.clock.advance(Duration::from_secs(61));
        let requests = world.requests();
        let outcome = world.refresh();
        assert!(matches!(outcome.kind, OutcomeKind::InDoubt | OutcomeKind::ConfigError), "{i}: {outcome:?}");
        assert_eq!((world.requests(), world.server.counts().families_revoked), (requests, 0), "{i}");
    }
}

/// Rule 18.
#[test]
fn throttling_keeps_last_chance_unexplained_refusal_ends_it() {
    for (fault, kind) in [(Fault::Respond(429, "", ""), OutcomeKind::Deferred), (NO, OutcomeKind::NeedsLogin)] {
        let world = world();
        world.server.script([Fault::DropBefore, fault]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        world.clock.advance(Duration::from_secs(580));
        let outcome = world.refresh();
        assert_eq!((outcome.kind, world.requests()), (kind, 2), "{outcome:?}");
        world.clock.advance(Duration::from_secs(60));
        let outcome = world.refresh();
        match kind {
            OutcomeKind::Deferred => assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Refreshed, 3)),
            _ => assert_eq!((outcome.kind, world.requests()), (OutcomeKind::NeedsLogin, 2)),
        }
    }
}

/// The disk takes a minute to write a second attempt down.
struct SlowDisk {
    clock: Arc<ManualClock>,
    journal: PathBuf,
}

impl Clock for SlowDisk {
    fn now(&self) -> Moment {
        let now = self.clock.now();
        let is_written = std::fs::read_to_string(&self.journal).unwrap().contains("\"send_count\": 2");
        let passed = Duration::from_secs(if is_written { 60 } else { 0 });
        Moment { wall: now.wall.plus(passed), uptime_ms: now.uptime_ms + passed.as_millis() as u64, ..now }
    }
}

/// Rule 19.
#[test]
fn slow_intent_write_sends_nothing_after_the_grace() {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let before = world.journal();
    let journal = world.file("profiles/demo/record.json");
    let process = world.process_by(Arc::new(SlowDisk { clock: Arc::clone(&world.clock), journal }));
    let outcome = world.refresh_by(&process);
    assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Deferred, 1), "{outcome:?}");
    assert_eq!(world.journal().intent, before.intent, "the second attempt was not made");
}

/// Rule 17.
#[test]
fn clock_set_forward_does_not_bring_last_chance_early() {
    let world = world();
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.set_wall(world.clock.now().wall.plus(Duration::from_secs(3600)));
    // Nothing of the first request is under way any more.
    world.clock.advance(Duration::from_secs(20));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1), "the access token lives");
    world.clock.advance(Duration::from_secs(560));
    world.refresh();
    assert_eq!(world.requests(), 2);
}

/// Rule 25.
#[test]
fn clock_set_back_does_not_prolong_a_wait() {
    let world = world();
    world.clock.set_wall(world.clock.now().wall.plus(Duration::from_secs(3600)));
    world.server.script([Fault::Respond(429, "retry-after: 100\r\n", "")]);
    assert_eq!(wait(&world, &world.refresh()), Duration::from_secs(100));
    world.clock.advance(Duration::from_secs(40));
    world.clock.set_wall(Timestamp::from_secs(1_790_000_040));
    let outcome = world.refresh();
    assert_eq!((outcome.kind, wait(&world, &outcome)), (OutcomeKind::Deferred, Duration::from_secs(60)));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
    // After a reboot, a clock that stands before the refusal proves nothing about the time since.
    world.server.script([Fault::Respond(429, "retry-after: 100\r\n", "")]);
    world.refresh();
    world.clock.reboot();
    assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
    world.clock.set_wall(Timestamp::from_secs(1_789_000_000));
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 4));
}

/// Rule 25.
#[test]
fn clock_set_forward_does_not_end_a_wait() {
    let world = world();
    world.server.script([Fault::Respond(429, "retry-after: 600\r\n", "")]);
    assert_eq!(wait(&world, &world.refresh()), Duration::from_secs(600));
    world.clock.advance(Duration::from_secs(100));
    world.clock.set_wall(world.clock.now().wall.plus(Duration::from_secs(7200)));
    for left in [500, 1] {
        let outcome = world.refresh();
        assert_eq!((outcome.kind, wait(&world, &outcome)), (OutcomeKind::Deferred, Duration::from_secs(left)));
        world.clock.advance(Duration::from_secs(left.max(2) - 1));
    }
    assert_eq!(world.requests(), 1);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Refreshed, 2));
}

/// Rule 25.
#[test]
fn in_doubt_runs_under_a_stepped_clock_do_not_end_a_wait() {
    let world = world();
    world.server.script([Fault::DropAfter, Fault::Respond(429, "retry-after: 900\r\n", "")]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    world.clock.advance(Duration::from_secs(580));
    assert_eq!(world.refresh().kind, OutcomeKind::Deferred, "the last chance was turned away");
    let (until, noted) = (world.journal().not_before, world.journal().not_before_set_at);
    assert!(until.is_some() && noted == Some(world.clock.now()));
    world.clock.set_wall(world.clock.now().wall.plus(Duration::from_secs(7200)));
    world.clock.advance(Duration::from_secs(899));
    for _ in 0..2 {
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 2));
    }
    assert_eq!(
        (world.journal().not_before, world.journal().not_before_set_at),
        (until, noted),
        "the two belong together"
    );
    world.clock.advance(Duration::from_secs(1));
    world.refresh();
    assert_eq!(world.requests(), 3);
}

/// Rule 16.
#[test]
fn unusable_response_is_reported_until_a_usable_one_comes() {
    let world = world();
    let refresh = world.server.mint()["refresh_token"].to_string();
    let bare = format!("{{\"refresh_token\":{refresh}}}");
    world.server.script([Fault::Respond(200, "", bare.leak()), Fault::Respond(429, "", "")]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
    let unusable =
        world.journal().block(Cause::AccessToken).cloned().expect("the newest answer brought nothing to use");
    assert_eq!(unusable.failure.kind, ErrorKind::AtUnusable);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!((world.refresh().kind, world.journal().blocks.len()), (OutcomeKind::Refreshed, 0));
}

/// A response whose connection ended ten bytes before it should. What arrived is whole in itself.
fn cut_off(commits: bool, body: fn(&Issued) -> String) -> Fault {
    let response = move |issued: &Issued| {
        let body = body(issued);
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len() + 10
        )
        .into_bytes()
    };
    Fault::Custom(CustomResponse { commits, response: Arc::new(response) })
}

/// Rule 9.
#[test]
fn tokens_in_a_response_that_was_cut_off_count() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([cut_off(true, |issued| {
        format!(
            r#"{{"access_token":"{}","refresh_token":"{}","token_type":"Bearer","expires_in":600}}"#,
            issued.access, issued.refresh
        )
    })]);
    assert_eq!((world.refresh().kind, world.refresh().kind), (OutcomeKind::Refreshed, OutcomeKind::Refreshed));
    assert_eq!((world.requests(), world.journal().generation.get()), (2, 3));
}

/// Rule 17: what is missing may have said more.
#[test]
fn refusal_in_a_response_that_was_cut_off_is_a_doubt() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([cut_off(false, |_| r#"{"error":"invalid_grant"}"#.to_owned())]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    assert!(world.journal().open_intent().is_some() && !world.journal().is_rejected());
}
