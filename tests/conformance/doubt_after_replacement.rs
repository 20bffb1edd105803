//! What is known of a token outlives whatever takes the place of it: a doubt or a refusal is not forgotten by an import, a
//! login, a logout or a take-over, and the token is not sent again.

use keepalive::engine::new_credential::NewCredentialResult;
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::store::TakeOverResult;
use serde_json::Value;

use super::store_disagreement::add_items_of_another_store;
use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{HookPoint, World, assert_refused};

const DENIED: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);

/// A world whose token, which came in this answer, was sent once.
fn sent(fault: Fault, mode: RotationMode, provider: &str) -> (World, Value) {
    send(World::new(None, mode, provider), fault)
}

fn send(world: World, fault: Fault) -> (World, Value) {
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([fault]);
    assert!(matches!(world.refresh().kind, OutcomeKind::InDoubt | OutcomeKind::NeedsLogin));
    (world, answer)
}

fn world_in_doubt() -> (World, Value) {
    sent(Fault::DropAfter, RotationMode::Strict, "")
}

#[track_caller]
fn is_refused(result: Result<NewCredentialResult, Outcome>) {
    let outcome = result.expect_err("it may be spent");
    assert_eq!((outcome.kind, outcome.error.unwrap().kind.word()), (OutcomeKind::NeedsLogin, "consumed"));
}

/// The token is neither taken nor sent again.
#[track_caller]
fn is_remembered(world: &World, answer: &Value, was_rejected: bool) {
    // A person may have one tried once more that was rejected, and never in doubt.
    for is_replacing in if was_rejected { &[false][..] } else { &[false, true] } {
        let is_replacing = *is_replacing;
        is_refused(world.import(world.credential(answer), is_replacing));
    }
    match world.journal().is_rejected() {
        true => world.refresh_if_due(),
        false => world.refresh(),
    };
    assert_eq!(world.server.counts().presented_again, 0);
}

/// Rule 17.
#[test]
fn doubt_or_rejection_is_remembered_after_another_import() {
    for fault in [Fault::DropAfter, DENIED] {
        let was_rejected = matches!(fault, Fault::Respond(..));
        let (world, answer) = sent(fault, RotationMode::Strict, "");
        world.import(world.credential(&world.server.mint()), true).unwrap();
        is_remembered(&world, &answer, was_rejected);
        assert_eq!(world.journal().generation.get(), 4, "the other one is refreshed as ever");
    }
}

/// Rule 17.
#[test]
fn doubt_or_rejection_is_remembered_after_forget() {
    // What a keyring knows of dead tokens goes with its key, but no doubt does.
    for (world, fault) in [
        (World::new(None, RotationMode::Strict, ""), Fault::DropAfter),
        (World::without_keyring(), Fault::DropAfter),
        (World::without_keyring(), DENIED),
    ] {
        let was_rejected = matches!(fault, Fault::Respond(..));
        let (world, answer) = send(world, fault);
        world.log_out(true, false).unwrap();
        is_remembered(&world, &answer, was_rejected);
    }
}

/// Rule 17.
#[test]
fn logout_without_ledger_is_completed_by_the_next_run() {
    let (world, answer) = world_in_doubt();
    world.break_ledger();
    assert_eq!(world.log_out(true, false).unwrap_err().kind, OutcomeKind::StoreUnavailable);
    // Nothing could remember it.
    assert_refused(world.import(world.credential(&answer), true), OutcomeKind::StoreUnavailable, "io");
    world.repair_ledger();
    is_remembered(&world, &answer, false);
}

/// Rule 17.
#[test]
fn doubt_is_remembered_when_import_of_another_token_dies() {
    let (world, answer) = world_in_doubt();
    let other = world.credential(&world.server.mint());
    let snapshot = world.crash_during(HookPoint::BeforePublish, || drop(world.import(other, true)));
    let world = world.restart_from(snapshot, None);
    assert_eq!(world.journal().open_intent(), None, "the doubt is not of the token that was taken");
    is_remembered(&world, &answer, false);
}

/// Rule 17.
#[test]
fn reimport_of_an_in_doubt_token_keeps_the_doubt() {
    let (world, answer) = world_in_doubt();
    for is_replacing in [false, true] {
        world.import(world.credential(&answer), is_replacing).unwrap();
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    }
    // Nothing but the journal is left: it is taken, and the doubt with it.
    std::fs::remove_file(world.file("profiles/demo/sealed")).unwrap();
    world.remove_from_keyring("keepalive");
    let before = world.journal().intent.unwrap();
    let taken = world.import(world.credential(&answer), true).unwrap();
    assert_eq!(taken.generation.get(), 3);
    let carried = world.journal().intent.unwrap();
    assert_eq!((carried.attempt_id, carried.generation.get()), (before.attempt_id, 3), "with all that is known of it");
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1));
}

/// Rule 17.
#[test]
fn revocation_in_doubt_survives_forget_and_reimport() {
    let mut world = World::without_keyring();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.enable_revocation([Fault::DropBefore, Fault::Respond(503, "", "")]);
    assert_refused(world.log_out(false, false), OutcomeKind::Deferred, "revocation_in_doubt");
    world.log_out(true, false).unwrap();
    assert!(world.journal().revocation.is_some_and(|r| !r.is_confirmed));
    world.import(world.credential(&answer), false).unwrap();
    assert!(world.journal().open_revocation().is_some());
    assert_eq!(world.refresh().generation.get(), 4, "it was not revoked");
    assert_eq!(world.journal().open_revocation(), None);
}

#[test]
fn in_doubt_token_can_be_reimported_without_rotation() {
    for leave in [|w: &World| drop(w.log_out(true, false).unwrap()), |w: &World| w.sign_in()] {
        let (world, answer) = sent(Fault::DropAfter, RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n");
        leave(&world);
        world.import(world.credential(&answer), true).unwrap();
        assert_eq!((world.journal().intent, world.refresh().kind), (None, OutcomeKind::Refreshed));
    }
}

/// Rule 17.
#[test]
fn takeover_keeps_a_doubt_even_when_interrupted() {
    for is_cut_off in [false, true] {
        let (world, _) = world_in_doubt();
        let take_over = |world: &World| world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
        // Another directory had it for a while.
        assert!(matches!(take_over(&world.with_shared_keyring())[..], [(_, TakeOverResult::Adopted(_))]));
        let snapshot = match is_cut_off {
            true => world.crash_during(HookPoint::BeforePublish, || drop(take_over(&world))),
            false => world.snapshot(),
        };
        let world = world.restart_from(snapshot, None);
        assert!(matches!(take_over(&world)[..], [(_, TakeOverResult::Republished(_))]));
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1), "{is_cut_off}");
    }
}

/// Rule 17.
#[test]
fn takeover_of_another_token_marks_in_doubt_one_consumed() {
    let (world, answer) = world_in_doubt();
    add_items_of_another_store(&world, 3, true);
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert!(matches!(taken[..], [(_, TakeOverResult::Adopted(_))]), "{taken:?}");
    is_refused(world.import(world.credential(&answer), true));
}

/// Rule 17.
#[test]
fn ledger_entry_missed_by_an_import_is_added_by_next_run() {
    for fault in [Fault::DropAfter, DENIED] {
        let was_rejected = matches!(fault, Fault::Respond(..));
        let (world, answer) = sent(fault, RotationMode::Strict, "");
        world.break_ledger();
        let other = world.credential(&world.server.mint());
        assert_eq!(world.import(other, true).unwrap_err().kind, OutcomeKind::StoreUnavailable);
        world.repair_ledger();
        assert_eq!(world.refresh_if_due().generation.get(), 3, "it was sealed");
        assert_eq!(world.journal().open_intent(), None, "the doubt was of the one before");
        world.server.script([DENIED]);
        assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin, "the journal has room for one refusal");
        is_remembered(&world, &answer, was_rejected);
    }
}

/// Rule 17.
#[test]
fn doubt_stays_if_sealing_fails_and_ends_with_another_token() {
    let (world, answer) = world_in_doubt();
    std::fs::remove_file(world.file("profiles/demo/sealed")).unwrap();
    world.remove_from_keyring("keepalive");
    std::fs::create_dir(world.file("profiles/demo/.sealed.new")).unwrap();
    assert_eq!(world.import(world.credential(&answer), true).unwrap_err().kind, OutcomeKind::StoreUnavailable);
    std::fs::remove_dir(world.file("profiles/demo/.sealed.new")).unwrap();
    assert!(world.journal().open_intent().is_some());
    world.break_ledger();
    assert_refused(
        world.import(world.credential(&world.server.mint()), true),
        OutcomeKind::StoreUnavailable,
        "half_taken",
    );
    world.repair_ledger();
    assert_eq!((world.refresh_if_due().generation.get(), world.journal().intent), (3, None));
    is_remembered(&world, &answer, false);
}
