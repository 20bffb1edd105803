//! A response that was sealed by a run which died before it could act on it, or which no attempt waits for any more.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::{Credential, Generation};
use keepalive::guard::Permit;
use keepalive::outcome::{ErrorKind, Outcome, OutcomeKind, Publication};
use keepalive::store::StoreError;
use keepalive::store::disk::sealed_content::{SealedGrant, SealedResponse, SecretText};
use keepalive::sys::lockfile::LockFile;

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{HookPoint, World, assert_refused};

/// A run that has sent its request, sealed the answer to it, and died.
pub fn crashed_with_response(status: u16, body: &str, is_complete: bool) -> World {
    let world = World::new(None, RotationMode::Strict, "");
    let snapshot = world.crash_at(HookPoint::AfterExchange);
    let world = world.restart_from(snapshot, None);
    let attempt = world.journal().open_intent().unwrap().attempt_id.clone();
    seal(&world, &attempt, status, body, is_complete);
    world
}

fn seal(world: &World, attempt: &str, status: u16, body: &str, is_complete: bool) {
    let engine = world.process();
    let store = engine.store();
    let lock = LockFile::acquire(&store.create_lock_file(world.name()).unwrap()).unwrap();
    let mut vault = store.open_profile(Permit::from_lock(world.name(), &lock)).unwrap();
    let previous = store.snapshot(world.name()).unwrap().unwrap().grant;
    let answer = SealedResponse {
        status,
        content_type: None,
        content_encoding: None,
        retry_after: None,
        body: SealedResponse::encode_body(body.as_bytes()),
        is_complete,
        sent_refresh_token: SecretText("sent".into()),
        sent_at: world.clock.now(),
        send_count: 1,
        binding: vault.journal.binding.clone().unwrap(),
        previous_grant: SealedGrant::from_grant(&previous),
        default_lifetime_ms: 600_000,
        max_lifetime_ms: None,
        cooldown_ms: 0,
        further_secrets: Vec::new(),
    };
    let key = store.keys().load("demo").unwrap();
    let space = vault.reserve_response_space().unwrap();
    vault.seal_response(space, &answer, Generation::new(2), attempt, &key).unwrap();
}

fn has_received(world: &World) -> bool {
    world.file("profiles/demo/received").exists()
}

#[track_caller]
fn says(outcome: &Outcome, kind: OutcomeKind, word: &str) {
    let error = outcome.error.as_ref().map(|e| e.kind.word());
    assert_eq!((outcome.kind, error), (kind, Some(word)), "{outcome:?}");
}

const DENIAL: &str = r#"{"error":"invalid_grant"}"#;

/// Rule 11.
#[test]
fn tokens_sealed_by_a_crashed_run_are_the_next_generation() {
    let world = World::new(None, RotationMode::Strict, "");
    let answer = world.server.mint();
    let world = crashed_with_response(200, &answer.to_string(), true);
    let before = world.journal().sequence;
    let outcome = world.refresh_if_due();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    assert_eq!((world.published(), world.journal().open_intent(), has_received(&world)), (Some(2), None, false));
    assert!(world.journal().sequence > before, "a process that waits for the lock learns of it");
    let stored = world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), answer["access_token"]);
}

/// Rule 22.
#[test]
fn rejection_sealed_by_a_crashed_run_needs_no_new_request() {
    let world = crashed_with_response(400, DENIAL, true);
    let requests = world.requests();
    for _ in 0..2 {
        says(&world.refresh_if_due(), OutcomeKind::NeedsLogin, "invalid_grant");
    }
    assert_eq!((world.requests(), has_received(&world)), (requests, false));
}

/// Rule 17.
#[test]
fn unreadable_response_of_a_crashed_run_leaves_a_doubt() {
    for (status, body, is_complete) in [(200, "<html>", true), (400, DENIAL, false), (200, "", false)] {
        let world = crashed_with_response(status, body, is_complete);
        let requests = world.requests();
        for _ in 0..2 {
            let outcome = world.refresh();
            says(&outcome, OutcomeKind::InDoubt, "in_doubt");
            let words = if is_complete { "the server returned 200" } else { "its response could not be read" };
            assert!(outcome.error.unwrap().message.contains(words));
        }
        assert!(world.journal().intent.unwrap().gave_up_at.is_some());
        assert_eq!(world.requests(), requests, "it is not sent again to find out");
    }
}

/// Rule 11.
#[test]
fn tokens_an_older_version_could_not_read_are_recovered() {
    for is_given_up in [false, true] {
        let world = crashed_with_response(200, "<html>", true);
        says(&world.refresh(), OutcomeKind::InDoubt, "in_doubt");
        let attempt = world.journal().intent.unwrap().attempt_id;
        let requests = world.requests();
        if is_given_up {
            world.clock.advance(Duration::from_secs(590));
            world.server.script([Fault::DropBefore]);
            assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
        }
        // What is sealed is as it came; that it holds tokens is seen now.
        seal(&world, &attempt, 200, &world.server.mint().to_string(), true);
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
        assert_eq!((world.journal().open_intent(), has_received(&world)), (None, false));
        assert_eq!(world.requests(), requests + usize::from(is_given_up));
    }
}

/// Rule 23.
#[test]
fn response_of_a_crashed_run_is_classified_as_a_live_one() {
    for (status, body, kind, word) in [
        (429, "", OutcomeKind::Deferred, "throttled"),
        (302, "", OutcomeKind::ConfigError, "client_refused"),
        (302, "<html>", OutcomeKind::ConfigError, "client_refused"),
        (403, "<html>", OutcomeKind::Deferred, "refused"),
        (502, "<html>", OutcomeKind::InDoubt, "in_doubt"),
    ] {
        let live = World::new(None, RotationMode::Strict, "");
        live.server.script([Fault::Respond(status, "", body)]);
        says(&live.refresh(), kind, word);
        let world = crashed_with_response(status, body, true);
        says(&world.refresh(), kind, word);
        assert_eq!(world.journal().intent.is_some(), kind == OutcomeKind::InDoubt, "{status} {body}");
        assert_eq!(has_received(&world), kind == OutcomeKind::InDoubt);
    }
}

#[test]
fn rejection_of_a_settled_attempt_is_ignored() {
    for (body, is_complete) in [(DENIAL, true), (DENIAL, false), ("<html>", true)] {
        let world = World::new(None, RotationMode::Strict, "");
        seal(&world, "another", 400, body, is_complete);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    }
}

#[test]
fn response_for_an_older_generation_is_ignored() {
    let world = World::new(None, RotationMode::Strict, "");
    let late = world.server.mint();
    assert_eq!(world.refresh().generation.get(), 2);
    seal(&world, "late", 200, &late.to_string(), true);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
    assert!(world.server.is_family_alive(1), "the token of the late answer was not sent");
    assert_eq!(world.server.counts().presented_again, 0);
}

#[test]
fn truncated_response_file_leaves_the_token_in_doubt() {
    let world = crashed_with_response(200, "", true);
    std::fs::write(world.file("profiles/demo/received"), "keepalive-sea").unwrap();
    says(&world.refresh(), OutcomeKind::InDoubt, "in_doubt");
}

#[test]
fn rejection_response_is_not_kept_on_disk() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([Fault::Respond(400, "", DENIAL)]);
    says(&world.refresh(), OutcomeKind::NeedsLogin, "invalid_grant");
    assert!(!has_received(&world));
}

/// Rule 11.
#[test]
fn import_does_not_replace_tokens_of_a_crashed_run() {
    let world = World::new(None, RotationMode::Strict, "");
    let (answer, other) = (world.server.mint(), world.server.mint());
    let world = crashed_with_response(200, &answer.to_string(), true);
    let outcome = world.import(world.credential(&other), false).unwrap_err();
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Conflict);
    let stored = || world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!((stored().generation.get(), has_received(&world)), (2, false));
    assert_eq!(stored().grant.access.unwrap().expose(), answer["access_token"]);
    // Who means it, is not held up, and counts on.
    assert_eq!(world.import(world.credential(&other), true).unwrap().generation.get(), 3);
    // The other is not older.
    assert_refused(world.import(world.credential(&answer), false), OutcomeKind::ConfigError, "conflict");
}

/// Rule 17.
#[test]
fn import_after_a_crashed_runs_failure_consumes_its_token() {
    for (status, body) in [(400, DENIAL), (200, "<html>")] {
        let world = crashed_with_response(status, body, true);
        let spent = world.journal().open_intent().unwrap().fingerprint.clone();
        world.import(world.credential(&world.server.mint()), false).unwrap();
        assert!(world.process().store().ledger().is_consumed(&spent).unwrap());
        assert_eq!((world.refresh().kind, world.journal().generation.get()), (OutcomeKind::Refreshed, 3));
    }
}

/// Rule 3.
#[test]
fn takeover_keeps_tokens_sealed_by_a_crashed_run() {
    use keepalive::store::TakeOverResult;
    let world = World::new(None, RotationMode::Strict, "");
    let answer = world.server.mint();
    let world = crashed_with_response(200, &answer.to_string(), true);
    // Another directory had the one before for a while.
    world.with_shared_keyring().process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert!(matches!(taken[..], [(_, TakeOverResult::Republished(generation))] if generation.get() == 3), "{taken:?}");
    let stored = world.process().store().snapshot(world.name()).unwrap().unwrap();
    assert_eq!(stored.grant.access.unwrap().expose(), answer["access_token"]);
    assert_eq!(world.journal().open_intent(), None, "it was answered");
}

/// Rule 13.
#[test]
fn takeover_does_not_restore_files_left_by_a_logout() {
    use keepalive::store::TakeOverResult;
    let world = World::new(None, RotationMode::Strict, "");
    let sealed = std::fs::read(world.file("profiles/demo/sealed")).unwrap();
    let keyring = world.keyring.snapshot();
    world.log_out(true, false).unwrap();
    world.keyring.restore(keyring);
    world.remove_from_keyring("keepalive");
    std::fs::write(world.file("profiles/demo/sealed"), sealed).unwrap();
    super::store_disagreement::add_items_of_another_store(&world, 1, false);
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert!(matches!(taken[..], [(_, TakeOverResult::Unverified { .. })]), "{taken:?}");
    assert!(world.journal().is_tombstone);
}

const SAME: &str = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";

/// Where a run can die whose answer has its final name, and is in no journal.
const SEALED: [HookPoint; 2] = [HookPoint::BeforePublish, HookPoint::AfterPublish];

/// A run that asked for the second time, within the grace of its server, was rescued, and died.
fn dead_after_a_rescue(place: HookPoint) -> World {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    world.server.script([Fault::DropAfter]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let snapshot = world.crash_at(place);
    world.restart_from(snapshot, None)
}

/// A run that asked for the second time, got the old token back, and died.
fn crashed_with_old_token_returned(place: HookPoint) -> World {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let old = serde_json::json!({"refresh_token": answer["refresh_token"]});
    world.server.script([Fault::DropAfter, Fault::ReplaceMembers(old)]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let snapshot = world.crash_at(place);
    world.restart_from(snapshot, None)
}

/// Rule 17.
#[test]
fn doubt_from_a_response_survives_a_crash() {
    for place in SEALED {
        let world = crashed_with_old_token_returned(place);
        let requests = world.requests();
        let found = world.refresh_if_due();
        assert_eq!(
            (found.kind, found.is_follower),
            (OutcomeKind::InDoubt, false),
            "no other run has found it: {found:?}"
        );
        assert!(found.warnings.iter().any(|w| w.contains("returned the old refresh token")), "{found:?}");
        for _ in 0..2 {
            assert_eq!(world.refresh_if_due().kind, OutcomeKind::InDoubt, "{place:?}");
            assert_eq!(world.refresh().kind, OutcomeKind::InDoubt, "{place:?}");
        }
        assert_eq!((world.requests(), world.journal().generation.get()), (requests, 3), "it is not sent to find out");
        assert_eq!((world.published(), world.journal().publication), (Some(3), Publication::Published));
    }
}

/// Rule 17.
#[test]
fn doubt_from_a_response_survives_a_refused_import() {
    let world = crashed_with_old_token_returned(HookPoint::BeforePublish);
    let mut other: Credential = world.credential(&world.server.mint());
    other.binding.client_id = "another".into();
    assert_refused(world.import(other, false), OutcomeKind::ConfigError, "conflict");
    let requests = world.requests();
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    assert_eq!(world.requests(), requests);
}

/// Rule 20.
#[test]
fn pause_after_a_grace_retry_survives_a_crash() {
    for place in SEALED {
        let world = dead_after_a_rescue(place);
        assert_eq!((world.refresh_if_due().kind, world.journal().generation.get()), (OutcomeKind::Fresh, 2));
        let held = world.refresh();
        assert_eq!((held.kind, world.requests()), (OutcomeKind::Deferred, 2), "{held:?}");
        world.clock.advance(Duration::from_secs(16));
        assert_eq!(world.refresh().generation.get(), 3);
        assert_eq!(world.server.counts().families_revoked, 0);
    }
}

/// Runs that look first after a crashed run and make no request: an import that is refused, or a take-over.
const LOOKS: [fn(&World); 2] = [
    |world| {
        let mut other: Credential = world.credential(&world.server.mint());
        other.binding.client_id = "another".into();
        assert_refused(world.import(other, false), OutcomeKind::ConfigError, "conflict");
    },
    |world| {
        world.with_shared_keyring().process().store().take_over(std::slice::from_ref(world.name())).unwrap();
        let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
        assert!(matches!(taken[..], [(_, keepalive::store::TakeOverResult::Republished(_))]), "{taken:?}");
    },
];

/// Rule 20.
#[test]
fn pause_after_grace_retry_survives_imports_and_clock_set_back() {
    for (look, place) in LOOKS.iter().flat_map(|look| SEALED.map(|place| (look, place))) {
        let world = dead_after_a_rescue(place);
        world.clock.advance(Duration::from_secs(2));
        look(&world);
        let until = world.journal().not_before.expect("it is held");
        assert_eq!(until.since(world.clock.now().wall), Duration::from_secs(13), "since the request was sent");
        for step in [0, 3600] {
            world.clock.set_wall(world.clock.now().wall.minus(Duration::from_secs(step)));
            world.clock.advance(Duration::from_secs(6));
            assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Deferred, 2), "{place:?}, {step}");
        }
        world.clock.advance(Duration::from_secs(1));
        assert_eq!((world.refresh().kind, world.server.counts().families_revoked), (OutcomeKind::Refreshed, 0));
    }
}

/// Rule 20.
#[test]
fn pause_lasts_as_configured_when_the_request_was_sent() {
    let settle = format!("{SAME}settle = \"25s\"\n");
    let mode = || RotationMode::Grace(Duration::from_secs(60));
    for (provider, held) in [(settle.as_str(), Some(25)), ("rotation = \"lenient\"\nsettle = \"1s\"\n", None)] {
        let world = World::new(None, mode(), provider);
        world.server.script([Fault::DropAfter]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        world.clock.advance(Duration::from_secs(20));
        let snapshot = world.crash_at(HookPoint::BeforePublish);
        let world = world.restart_from(snapshot, None);
        LOOKS[0](&world);
        assert_eq!(world.journal().generation.get(), 2);
        let until = world.journal().not_before.map(|at| at.since(world.clock.now().wall));
        assert_eq!(until, held.map(Duration::from_secs), "{provider}");
    }
}

/// Rule 16.
#[test]
fn missing_access_token_is_reported_after_import_or_takeover() {
    for (look, place) in LOOKS.iter().flat_map(|look| SEALED.map(|place| (look, place))) {
        let world = World::new(None, RotationMode::Strict, "");
        world.server.script([Fault::ReplaceMembers(serde_json::json!({"access_token": null}))]);
        let snapshot = world.crash_at(place);
        let world = world.restart_from(snapshot, None);
        look(&world);
        for outcome in [world.refresh_if_due(), world.refresh()] {
            says(&outcome, OutcomeKind::ConfigError, "at_unusable");
        }
        assert_eq!((world.journal().consecutive_failures, world.requests()), (1, 1), "{place:?}: with a pause");
        world.clock.advance(Duration::from_secs(15));
        assert_eq!((world.refresh().kind, world.journal().blocks.len()), (OutcomeKind::Refreshed, 0));
    }
}

/// Rule 17.
#[test]
fn doubt_from_a_response_survives_an_older_journal() {
    let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), SAME);
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let journal = std::fs::read(world.file("profiles/demo/record.json")).unwrap();
    let old = serde_json::json!({"refresh_token": answer["refresh_token"]});
    world.server.script([Fault::DropAfter, Fault::ReplaceMembers(old)]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let snapshot = world.crash_at(HookPoint::BeforePublish);
    let world = world.restart_from(snapshot, None);
    std::fs::write(world.file("profiles/demo/record.json"), journal).unwrap();
    LOOKS[0](&world);
    let requests = world.requests();
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, requests));
}

/// Rule 25.
#[test]
fn not_before_from_a_response_survives_a_crash() {
    for place in SEALED {
        let world = World::new(None, RotationMode::Strict, "");
        let at = world.clock.now().wall.plus(Duration::from_secs(300));
        world.server.script([Fault::ReplaceMembers(serde_json::json!({"earliest_refresh_at": at.to_string()}))]);
        let snapshot = world.crash_at(place);
        let world = world.restart_from(snapshot, None);
        assert_eq!(world.refresh_if_due().kind, OutcomeKind::Fresh);
        assert_eq!(world.journal().not_before, Some(at), "{place:?}");
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::Deferred, 1));
    }
}

/// Rule 16.
#[test]
fn missing_access_token_is_reported_after_a_crash() {
    for place in SEALED {
        let world = World::new(None, RotationMode::Strict, "");
        world.server.script([Fault::ReplaceMembers(serde_json::json!({"access_token": null}))]);
        let snapshot = world.crash_at(place);
        let world = world.restart_from(snapshot, None);
        for _ in 0..2 {
            says(&world.refresh_if_due(), OutcomeKind::ConfigError, "at_unusable");
        }
        assert_eq!((world.journal().consecutive_failures, world.requests()), (1, 1), "{place:?}");
    }
}

/// Rule 24.
#[test]
fn client_accepted_again_is_not_blocked_after_a_crash() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([Fault::Respond(401, "", r#"{"error":"invalid_client"}"#)]);
    assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
    let snapshot = world.crash_at(HookPoint::BeforePublish);
    let world = world.restart_from(snapshot, None);
    assert_eq!((world.refresh_if_due().kind, world.journal().blocks.len()), (OutcomeKind::Fresh, 0));
}

/// Rule 13.
#[test]
fn response_of_a_crashed_run_does_not_replace_newer_item() {
    for place in [HookPoint::AfterExchange, HookPoint::BeforePublish] {
        let world = World::new(None, RotationMode::Strict, "");
        let backup = world.crash_at(place);
        let second = world.server.mint();
        assert_eq!(world.refresh().generation.get(), 3);
        let world = world.restart_from(backup, Some(world.keyring.snapshot()));
        if place == HookPoint::AfterExchange {
            let attempt = world.journal().open_intent().unwrap().attempt_id.clone();
            seal(&world, &attempt, 200, &second.to_string(), true);
        }
        // No outcome reports generation 2 as if it were new.
        assert_eq!((world.refresh_if_due().generation.get(), world.published()), (3, Some(3)), "{place:?}");
        assert_eq!(world.refresh().generation.get(), 4);
        assert_eq!((world.published(), world.server.counts().presented_again), (Some(4), 0));
    }
}

/// The journal is from before an answer, and the ledger is gone; and what came before that answer.
fn journal_older_than_sealed() -> (World, serde_json::Value) {
    let world = World::new(None, RotationMode::Strict, "");
    let first = world.server.mint();
    world.import(world.credential(&first), true).unwrap();
    let journal = std::fs::read(world.file("profiles/demo/record.json")).unwrap();
    assert_eq!(world.refresh().generation.get(), 3);
    std::fs::write(world.file("profiles/demo/record.json"), journal).unwrap();
    std::fs::remove_file(world.file("ledger")).unwrap();
    (world, first)
}

/// Rule 3.
#[test]
fn older_journal_does_not_hide_a_consumed_token() {
    let (world, first) = journal_older_than_sealed();
    assert_eq!(world.refresh_if_due().generation.get(), 3);
    assert_refused(world.import(world.credential(&first), true), OutcomeKind::NeedsLogin, "consumed");
}

/// Rule 3.
#[test]
fn older_journal_does_not_hide_a_consumed_token_from_import() {
    let (world, first) = journal_older_than_sealed();
    let outcome = world.import(world.credential(&first), true).unwrap_err();
    says(&outcome, OutcomeKind::NeedsLogin, "consumed");
    assert_eq!(world.journal().generation.get(), 3);
}

/// A file of the profile, as it was when a run had sealed its answer and died.
fn restore(world: &World, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        std::fs::write(world.file("profiles/demo").join(name), bytes).unwrap();
    }
}

/// Rule 13.
#[test]
fn old_response_from_a_backup_does_not_lower_the_generation() {
    for (refreshes, has_keyring) in [(1, false), (3, false), (3, true)] {
        let world = if has_keyring { World::new(None, RotationMode::Strict, "") } else { World::without_keyring() };
        let late = world.server.mint();
        seal(&world, "late", 200, &late.to_string(), true);
        let old =
            ["sealed", "received"].map(|name| (name, std::fs::read(world.file("profiles/demo").join(name)).unwrap()));
        std::fs::remove_file(world.file("profiles/demo/received")).unwrap();
        for _ in 0..refreshes {
            assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        }
        restore(&world, &old);
        let known = 1 + refreshes;
        // By its header alone, an answer of the journal's generation could be the journal's.
        for outcome in [world.refresh(), world.refresh_if_due()].into_iter().take(refreshes as usize) {
            assert!(outcome.generation.get() >= known, "{outcome:?}");
            match has_keyring {
                true => assert!(matches!(outcome.kind, OutcomeKind::Fresh | OutcomeKind::Refreshed), "{outcome:?}"),
                false => says(&outcome, OutcomeKind::ConfigError, "stale_credential"),
            }
        }
        assert!(world.journal().generation.get() >= known);
        let read = world.process().store().snapshot(world.name());
        if has_keyring {
            assert_ne!(read.unwrap().unwrap().grant.access.unwrap().expose(), late["access_token"]);
        } else {
            assert!(matches!(read, Err(StoreError::StaleCredential { .. })), "{read:?}");
        }
        assert!(world.server.is_family_alive(1), "the token of the late answer was not sent");
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 13.
#[test]
fn old_response_with_same_token_does_not_lower_generation() {
    let world = World::without_keyring_at(RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n");
    let same = world.server.current_refresh_token(0);
    let late = serde_json::json!({"access_token": "canary-late", "token_type": "Bearer", "refresh_token": same});
    seal(&world, "late", 200, &late.to_string(), true);
    let old = ["sealed", "received"].map(|name| (name, std::fs::read(world.file("profiles/demo").join(name)).unwrap()));
    std::fs::remove_file(world.file("profiles/demo/received")).unwrap();
    for generation in 2..5 {
        assert_eq!(world.refresh().generation.get(), generation);
    }
    restore(&world, &old);
    says(&world.refresh(), OutcomeKind::ConfigError, "stale_credential");
    assert_eq!(world.journal().generation.get(), 4);
}
