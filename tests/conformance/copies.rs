//! Rule 30: a copy of a state directory beside the original, with one keyring.

use std::process::Command;
use std::time::Duration;

use keepalive::outcome::{ErrorKind, OutcomeKind};
use keepalive::store::TakeOverResult;
use keepalive::store::journal::block::Cause;

use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

fn take_over(world: &World) -> TakeOverResult {
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    taken.into_iter().next().unwrap().1
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "of a word")]
fn is_refused(world: &World, kind: ErrorKind) {
    let before = world.server.counts().refresh_requests;
    for outcome in [world.refresh(), world.refresh_by(&world.daemon())] {
        let told = outcome.error.as_ref().map(|error| &error.kind);
        assert_eq!((outcome.kind, told), (OutcomeKind::ConfigError, Some(&kind)), "{outcome:?}");
    }
    assert_eq!(world.server.counts().refresh_requests, before);
}

#[test]
fn directory_that_was_taken_over_elsewhere_sends_nothing() {
    let world = World::new(None, RotationMode::Strict, "");
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    let copy = world.copied();
    is_refused(&copy, ErrorKind::Clone);
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "the original goes on");
    assert_eq!(take_over(&copy), TakeOverResult::TakenOver);
    assert_eq!(copy.refresh().generation.get(), 4, "the newest is in the keyring");
    is_refused(&world, ErrorKind::Clone);
    let block = world.journal().block(Cause::Store).map(|block| block.failure.kind.clone());
    assert_eq!(block, Some(ErrorKind::Clone), "status shows it");
    assert_eq!(take_over(&world), TakeOverResult::TakenOver);
    assert_eq!(world.refresh().generation.get(), 5);
    is_refused(&copy, ErrorKind::Clone);
    assert_eq!(world.server.counts().presented_again, 0);
}

/// Key and item have the same names for both directories.
#[test]
fn forget_after_a_take_over_keeps_what_the_new_owner_has() {
    let world = World::new(None, RotationMode::Strict, "");
    let copy = world.copied();
    assert_eq!(take_over(&copy), TakeOverResult::TakenOver);
    assert_eq!(copy.refresh().kind, OutcomeKind::Refreshed);
    let before = world.keyring.snapshot();
    for _ in 0..2 {
        let _told = world.log_out(true, false);
        assert_eq!(world.keyring.snapshot(), before);
    }
    assert_eq!(copy.refresh().kind, OutcomeKind::Refreshed);
    assert!(world.server.revoked().is_empty());
}

#[test]
fn take_over_of_a_copy_is_finished_by_the_next_one() {
    let world = World::new(None, RotationMode::Strict, "");
    let copy = world.copied();
    let before = world.keyring.snapshot();
    assert_eq!(take_over(&copy), TakeOverResult::TakenOver);
    // As if it had died before the keyring had the new owner.
    world.keyring.restore(before);
    is_refused(&copy, ErrorKind::Clone);
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "nothing was taken from the original");
    assert_eq!(take_over(&copy), TakeOverResult::TakenOver);
    assert_eq!(copy.refresh().kind, OutcomeKind::Refreshed);
    is_refused(&world, ErrorKind::Clone);
}

#[test]
fn token_of_a_restored_directory_is_the_one_of_the_keyring() {
    for is_daemon in [false, true] {
        let world = World::new(None, RotationMode::Strict, "");
        let backup = tempfile::tempdir().unwrap();
        let live = world.file("profiles/demo");
        let cp = |from: &std::path::Path, to: &std::path::Path| {
            let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
            assert!(status.success());
        };
        cp(&live, backup.path());
        assert_eq!(world.refresh().generation.get(), 2);
        cp(backup.path(), &live);
        assert_eq!(world.journal().generation.get(), 1);
        let engine = if is_daemon { world.daemon() } else { world.process() };
        let obtained = match is_daemon {
            false => engine.access_token(world.profile(), Duration::ZERO, ACCESS_LIFETIME, &|| {}),
            true => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(engine.access_token_async(world.profile(), Duration::ZERO, ACCESS_LIFETIME))
            }
        };
        assert_eq!(obtained.token.unwrap().generation.get(), 2, "{:?}", obtained.outcome);
        assert_eq!((world.journal().generation.get(), world.requests()), (2, 1));
    }
}

/// Rule 30: `None` is another machine than one with an id, and a container has none.
#[test]
fn store_of_a_machine_with_an_id_is_refused_without_one() {
    let world = World::without_keyring();
    let path = world.file("store.json");
    let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    identity["machine"] = match identity["machine"].is_null() {
        true => "another".into(),
        false => serde_json::Value::Null,
    };
    std::fs::write(&path, identity.to_string()).unwrap();
    is_refused(&world, ErrorKind::Machine);
    take_over(&world);
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.journal().integrity_error, None);
}

/// Rule 9. The state directory is moved aside while the response is on its way, and a copy put in its place.
#[test]
fn response_is_stored_in_a_directory_that_was_swapped() {
    let world = World::without_keyring();
    let (live, aside) = (world.file("profiles"), world.file("aside"));
    world.hook(HookPoint::AfterExchange, move || {
        #[expect(clippy::disallowed_methods, reason = "what a person does")]
        std::fs::rename(&live, &aside).unwrap();
        assert!(Command::new("cp").arg("-a").arg(&aside).arg(&live).status().unwrap().success());
        Ok(())
    });
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 2), "{outcome:?}");
    let obtained = world.process().access_token(world.profile(), Duration::ZERO, ACCESS_LIFETIME, &|| {});
    assert_eq!(obtained.token.unwrap().generation.get(), 2);
    assert_eq!(world.refresh().generation.get(), 3);
    assert_eq!(world.server.counts().presented_again, 0);
}
