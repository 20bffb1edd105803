//! What is known of a token outlives its journal: one that is lost, damaged or put back from a backup, or that a full disk
//! or another home left alone with it, does not bring the token back.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::freshness::Margin;
use keepalive::engine::new_credential::NewCredentialResult;
use keepalive::engine::status::{ProfileStatus, StatusPolicy, profile_status};
use keepalive::guard::Permit;
use keepalive::outcome::{Outcome, OutcomeKind, ProfileState};
use keepalive::store::{StoreError, TakeOverResult, TokenClaim};
use keepalive::sys::lockfile::LockFile;
use serde_json::Value;

use super::crashed_run_responses::crashed_with_response;
use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World, assert_refused};

/// What an import asks of the ledger.
fn check_ledger(world: &World) -> Result<(), StoreError> {
    let engine = world.process();
    engine.store().check_ledger_complete(&engine.store().scan()?)
}

const DENIED: Fault = Fault::Respond(400, "", r#"{"error":"invalid_grant"}"#);
const JOURNAL: &str = "profiles/demo/record.json";

/// What becomes of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalLoss {
    Deleted,
    /// A backup from before the token was sent was put back.
    Older,
    /// Damaged, and replaced by an import of the same answer.
    Replaced,
    /// Damaged, and the profile was forgotten.
    Forgotten,
}

const LOSSES: [JournalLoss; 4] =
    [JournalLoss::Deleted, JournalLoss::Older, JournalLoss::Replaced, JournalLoss::Forgotten];

/// A world whose token, which came in this answer, was sent once; then the journal is lost.
fn world_with_lost_journal(world: World, fault: Fault, loss: JournalLoss) -> (World, Value) {
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let before = std::fs::read(world.file(JOURNAL)).unwrap();
    world.server.script([fault]);
    assert!(matches!(world.refresh().kind, OutcomeKind::InDoubt | OutcomeKind::NeedsLogin));
    lose_journal(&world, &answer, &before, loss);
    (world, answer)
}

fn lose_journal(world: &World, answer: &Value, before: &[u8], loss: JournalLoss) {
    match loss {
        JournalLoss::Deleted => std::fs::remove_file(world.file(JOURNAL)).unwrap(),
        JournalLoss::Older => std::fs::write(world.file(JOURNAL), before).unwrap(),
        JournalLoss::Replaced => {
            std::fs::write(world.file(JOURNAL), "{").unwrap();
            // Taken with its doubt, or refused: what follows is the same.
            drop(world.import(world.credential(answer), true));
        }
        JournalLoss::Forgotten => {
            std::fs::write(world.file(JOURNAL), "{").unwrap();
            world.log_out(true, false).unwrap();
        }
    }
}

fn strict() -> World {
    World::new(None, RotationMode::Strict, "")
}

fn error_kind(outcome: &Outcome) -> &str {
    outcome.error.as_ref().map_or("", |e| e.kind.word())
}

#[track_caller]
fn is_refused(result: Result<NewCredentialResult, Outcome>) {
    let outcome = result.expect_err("it may be spent");
    assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::NeedsLogin, "consumed"));
}

fn shown(world: &World) -> ProfileStatus {
    let policy = &world.profile().provider.policy;
    let terms = StatusPolicy { policy, margin: Margin::DEFAULT, jitter: Duration::ZERO, is_following: false };
    profile_status(Some(&world.journal()), terms, &world.clock.now())
}

/// Rule 17.
#[test]
fn doubt_survives_loss_of_its_journal() {
    for loss in LOSSES {
        let (world, answer) = world_with_lost_journal(World::without_keyring(), Fault::DropAfter, loss);
        if loss == JournalLoss::Older {
            assert_eq!(shown(&world).state, ProfileState::InDoubt);
        }
        for _ in 0..2 {
            let kind = if loss == JournalLoss::Forgotten { OutcomeKind::NeedsLogin } else { OutcomeKind::InDoubt };
            assert_eq!(world.refresh().kind, kind, "{loss:?}");
        }
        if loss == JournalLoss::Forgotten {
            is_refused(world.import(world.credential(&answer), true));
        }
        assert_eq!((world.requests(), world.server.counts().presented_again), (1, 0), "{loss:?}");
    }
}

/// Rule 18.
#[test]
fn lost_journal_leaves_a_doubt_exactly_one_last_chance() {
    for (first, second, kind) in [
        (Fault::DropBefore, None, OutcomeKind::Refreshed),
        (Fault::DropAfter, None, OutcomeKind::NeedsLogin),
        (Fault::DropBefore, Some(Fault::DropBefore), OutcomeKind::NeedsLogin),
    ] {
        let (world, answer) = world_with_lost_journal(strict(), first, JournalLoss::Deleted);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(25));
        world.server.script(second);
        assert_eq!((world.refresh().kind, world.requests()), (kind, 2));
        is_refused(world.import(world.credential(&answer), true));
        if kind == OutcomeKind::Refreshed {
            assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "the doubt is over");
        }
    }
}

/// Rule 17.
#[test]
fn ledger_doubt_ends_with_response_sealed_by_a_crashed_run() {
    let world = crashed_with_response(429, "", true);
    // An import makes no request: it leaves the response to the next flight, and sees a token that was sent.
    let mut stranger = world.credential(&world.server.mint());
    stranger.binding.client_id.push('2');
    assert_refused(world.import(stranger, false), OutcomeKind::ConfigError, "conflict");
    let is_marked = || {
        let token = world.journal().fingerprint.unwrap();
        world.process().store().ledger().entry(&token).unwrap().is_some()
    };
    assert!(is_marked());
    assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
    assert_eq!((is_marked(), world.journal().intent), (false, None));
}

/// Whether the ledger has a doubt about the token that came in this answer.
fn is_marked(world: &World, answer: &Value) -> bool {
    let store = std::sync::Arc::clone(world.process().store());
    let token = store.keys().load("demo").unwrap().fingerprint(&world.credential(answer).refresh);
    store.ledger().entry(&token).unwrap().is_some()
}

/// Rule 17.
#[test]
fn ledger_keeps_doubt_when_second_send_returns_old_token() {
    let grace = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";
    for is_told in [true, false] {
        let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), grace);
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        world.server.script([Fault::DropAfter]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        assert!(is_marked(&world, &answer));
        // If the response returns the old token, which one lives is unknown; a response without one says that the old one does.
        let mut came = serde_json::json!({"access_token": "new", "token_type": "Bearer", "expires_in": 600});
        if is_told {
            came["refresh_token"] = answer["refresh_token"].clone();
        }
        world.server.script([Fault::Respond(200, "", came.to_string().leak())]);
        let kind = if is_told { OutcomeKind::InDoubt } else { OutcomeKind::Refreshed };
        assert_eq!(world.refresh().kind, kind);
        assert_eq!(is_marked(&world, &answer), is_told);
    }
}

/// Rule 17.
#[test]
fn ledger_keeps_doubt_when_second_send_is_throttled() {
    let (world, answer) = strict_in_doubt();
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(25));
    world.server.script([Fault::Respond(429, "", "")]);
    world.refresh();
    assert_eq!((world.requests(), is_marked(&world, &answer)), (2, true));
    world.clock.advance(Duration::from_secs(3600));
    world.server.script([DENIED]);
    assert_eq!(world.refresh().kind, OutcomeKind::NeedsLogin);
    std::fs::remove_file(world.file(JOURNAL)).unwrap();
    is_refused(world.import(world.credential(&answer), true));
}

fn strict_in_doubt() -> (World, Value) {
    let world = strict();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.server.script([Fault::DropBefore]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    (world, answer)
}

/// What can happen to the ledger alone.
const DAMAGES: [fn(&std::path::Path); 4] = [
    |ledger| std::fs::remove_file(ledger).unwrap(),
    |ledger| std::fs::write(ledger, "").unwrap(),
    |ledger| std::fs::write(ledger, "garbage\n").unwrap(),
    // The last bytes are cut off.
    |ledger| {
        let text = std::fs::read(ledger).unwrap();
        std::fs::write(ledger, &text[..text.len() - 5]).unwrap();
    },
];

/// Rule 3.
#[test]
fn import_is_refused_while_the_ledger_lacks_entries() {
    for damage in DAMAGES {
        let world = World::without_keyring();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        let copy = "copy".parse().unwrap();
        is_refused(world.import_into(&copy, world.credential(&answer), true));
        damage(&world.file("ledger"));
        for name in [&copy, world.name()] {
            for is_replacing in [true, false] {
                let outcome = world.import_into(name, world.credential(&answer), is_replacing).unwrap_err();
                assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::StoreUnavailable, "ledger_damaged"));
            }
        }
        // What is here goes on, and a login brings a token that cannot be spent.
        world.log_in_as(&copy, &world.server.mint()).unwrap();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        // From then on the ledger knows again what the journal names.
        world.import_into(&"third".parse().unwrap(), world.credential(&world.server.mint()), false).unwrap();
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 3.
#[test]
fn signed_out_profile_still_names_its_ledger_entries() {
    let world = World::without_keyring();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    world.log_out(true, false).unwrap();
    check_ledger(&world).unwrap();
    std::fs::remove_file(world.file("ledger")).unwrap();
    let outcome = world.import(world.credential(&world.server.mint()), true).unwrap_err();
    assert_eq!(error_kind(&outcome), "ledger_damaged");
}

/// Rule 3.
#[test]
fn ledger_trimmed_at_its_limit_passes_the_check() {
    let world = World::without_keyring();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    let others: String = (0..1024).map(|i| format!("{i:032x}\n")).collect();
    std::fs::write(world.file("ledger"), &others).unwrap();
    check_ledger(&world).unwrap();
    std::fs::write(world.file("ledger"), &others[33..]).unwrap();
    let shorter = check_ledger(&world).unwrap_err();
    assert!(matches!(shorter, StoreError::LedgerDamaged { .. }), "it was not trimmed: {shorter:?}");
}

/// Rule 3.
#[test]
fn journal_from_another_store_is_ignored_by_ledger_check() {
    let there = World::without_keyring();
    assert_eq!(there.refresh().kind, OutcomeKind::Refreshed);
    let here = World::without_keyring();
    there.snapshot().copy_into("profiles/demo", &here);
    here.import_into(&"copy".parse().unwrap(), here.credential(&here.server.mint()), false).unwrap();
    here.refresh_if_due();
    check_ledger(&here).unwrap();
}

#[test]
fn profile_with_missing_journal_is_shown_as_in_doubt() {
    for fault in [Some(Fault::DropAfter), Some(DENIED), None] {
        let world = World::without_keyring();
        if let Some(fault) = fault {
            world.server.script([fault]);
            world.refresh();
        }
        std::fs::remove_file(world.file(JOURNAL)).unwrap();
        let shown = shown(&world);
        assert_eq!((shown.state, shown.error.unwrap().kind.word()), (ProfileState::InDoubt, "journal_missing"));
    }
}

/// Rule 21.
#[test]
fn grace_counts_as_closed_when_the_journal_is_lost() {
    let grace = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";
    let (world, _) =
        world_with_lost_journal(World::new(None, RotationMode::Strict, grace), Fault::DropBefore, JournalLoss::Older);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1));
}

/// Rule 17.
#[test]
fn doubt_missing_from_ledger_is_added_by_the_next_run() {
    for has_died in [true, false] {
        let world = strict();
        let world = match has_died {
            true => world.restart_from(world.crash_at(HookPoint::AfterExchange), None),
            false => {
                world.break_ledger();
                world.server.script([Fault::DropAfter]);
                let outcome = world.refresh();
                assert_eq!(outcome.kind, OutcomeKind::InDoubt);
                assert!(outcome.warnings.iter().any(|w| w.starts_with("cannot write the ledger")));
                world.repair_ledger();
                world
            }
        };
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        std::fs::remove_file(world.file(JOURNAL)).unwrap();
        assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1), "{has_died}");
    }
}

/// Rule 22.
#[test]
fn rejection_survives_loss_of_its_journal() {
    for loss in LOSSES {
        let (world, answer) = world_with_lost_journal(World::without_keyring(), DENIED, loss);
        let outcome = world.refresh();
        match loss {
            JournalLoss::Forgotten => assert_eq!(error_kind(&outcome), "no_credential"),
            JournalLoss::Replaced => {
                assert_eq!((outcome.kind, world.requests()), (OutcomeKind::Refreshed, 2), "a person vouched for it");
                continue;
            }
            JournalLoss::Deleted | JournalLoss::Older => {
                assert_eq!(
                    (outcome.kind, error_kind(&outcome)),
                    (OutcomeKind::ConfigError, "stale_credential"),
                    "{loss:?}"
                );
                assert_eq!(shown(&world).state, ProfileState::ConfigError);
            }
        }
        is_refused(world.import(world.credential(&answer), false));
        assert_eq!(world.requests(), 1, "{loss:?}");
        world.sign_in();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    }
}

/// Rule 22.
#[test]
fn rejection_missing_from_ledger_is_added_by_the_next_run() {
    let world = strict();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.break_ledger();
    world.server.script([DENIED]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::NeedsLogin, "invalid_grant"));
    assert!(outcome.warnings.iter().any(|w| w.starts_with("cannot write the ledger")));
    world.repair_ledger();
    assert_eq!((world.refresh_if_due().kind, world.journal().ledger_backlog.len()), (OutcomeKind::NeedsLogin, 0));
    std::fs::remove_file(world.file(JOURNAL)).unwrap();
    is_refused(world.import(world.credential(&answer), false));
}

/// Rule 3.
#[test]
fn journal_keeps_a_consumed_token_until_ledger_takes_it() {
    for is_forgotten in [false, true] {
        let world = World::without_keyring();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        world.break_ledger();
        let outcome = world.refresh();
        assert_eq!(outcome.kind, OutcomeKind::Refreshed);
        assert!(outcome.warnings.iter().any(|w| w.starts_with("cannot write the ledger")), "{outcome:?}");
        is_refused(world.import(world.credential(&answer), true));
        is_refused(world.import_into(&"copy".parse().unwrap(), world.credential(&answer), true));
        if is_forgotten {
            assert_refused(world.log_out(true, false), OutcomeKind::StoreUnavailable, "io");
        }
        assert_eq!(world.journal().ledger_backlog.len(), 1);
        world.repair_ledger();
        is_refused(world.import(world.credential(&answer), true));
        std::fs::remove_file(world.file(JOURNAL)).unwrap();
        is_refused(world.import(world.credential(&answer), true));
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 3.
#[test]
fn profile_restored_from_backup_is_never_shown_as_fresh() {
    let world = World::without_keyring();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let files = [JOURNAL, "profiles/demo/sealed"].map(|name| (name, std::fs::read(world.file(name)).unwrap()));
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    for (name, bytes) in files {
        std::fs::write(world.file(name), bytes).unwrap();
    }
    for _ in 0..2 {
        let standing = shown(&world);
        assert_eq!(
            (standing.state, standing.error.unwrap().kind.word()),
            (ProfileState::ConfigError, "stale_credential")
        );
        for outcome in [world.refresh_if_due(), world.refresh()] {
            assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::ConfigError, "stale_credential"));
        }
    }
    for is_replacing in [false, true] {
        is_refused(world.import(world.credential(&answer), is_replacing));
    }
    assert_eq!(world.requests(), 1);
    world.sign_in();
    assert_eq!((shown(&world).state, world.refresh().kind), (ProfileState::Fresh, OutcomeKind::Refreshed));
}

/// Rule 3.
#[test]
fn token_known_only_from_old_sealed_credential_is_consumed() {
    let world = strict();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    let backup = world.snapshot();
    assert_eq!([world.refresh().kind, world.refresh().kind], [OutcomeKind::Refreshed; 2]);
    let world = world.restart_from(backup, Some(world.keyring.snapshot()));
    let outcome = world.refresh();
    assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Fresh, 4), "the keyring has the newest");
    is_refused(world.import(world.credential(&answer), true));
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.server.counts().presented_again, 0);
}

/// Rule 3.
#[test]
fn takeover_does_not_use_a_token_consumed_here() {
    for is_lost in [false, true] {
        let world = strict();
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        assert_eq!(world.refresh().generation.get(), 3);
        // Another home has the same token, and more generations.
        let other = strict();
        while other.refresh().generation.get() < 4 {}
        other.import(world.credential(&answer), true).unwrap();
        world.keyring.restore(world.keyring.snapshot().into_iter().chain(other.keyring.snapshot()).collect());
        if is_lost {
            std::fs::remove_file(world.file("profiles/demo/sealed")).unwrap();
        }
        let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
        match (is_lost, &taken[..]) {
            (true, [(_, TakeOverResult::Claimed(TokenClaim::Unusable))]) => {
                assert_eq!(shown(&world).state, ProfileState::Due);
                assert_eq!(world.refresh().kind, OutcomeKind::ConfigError);
                world.remove_from_keyring("keepalive");
                world.sign_in();
            }
            (false, [(_, TakeOverResult::Republished(generation))]) => assert_eq!(generation.get(), 6),
            _ => panic!("{taken:?}"),
        }
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed, "{is_lost}");
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 22.
#[test]
fn granting_a_token_again_clears_its_doubt_or_rejection() {
    for fault in [Fault::DropAfter, DENIED] {
        let world = strict();
        world.server.script([fault]);
        assert!(matches!(world.refresh().kind, OutcomeKind::InDoubt | OutcomeKind::NeedsLogin));
        let engine = world.process();
        let lock = LockFile::acquire(&engine.store().create_lock_file(world.name()).unwrap()).unwrap();
        let mut vault = engine.store().open_profile(Permit::from_lock(world.name(), &lock)).unwrap();
        let token = vault.journal.fingerprint.clone().unwrap();
        assert!(vault.journal.unusable_tokens().any(|given_up| *given_up == token));
        vault.clear_marks(&token).unwrap();
        assert_eq!(vault.journal.unusable_tokens().count(), 0);
        assert!(!vault.is_consumed_or_in_doubt(&token).unwrap());
    }
}
