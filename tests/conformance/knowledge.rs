//! What is known of a token outlives its journal: one that is lost, damaged or put back from a backup, or that a full disk
//! or another home left alone with it, does not bring the token back.

use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::freshness::Margin;
use keepalive::engine::new_credential::NewCredentialResult;
use keepalive::engine::status::{ProfileStatus, StatusPolicy, profile_status};
use keepalive::guard::Permit;
use keepalive::outcome::{Outcome, OutcomeKind, ProfileState};
use keepalive::store::{TakeOverResult, TokenClaim};
use keepalive::sys::lockfile::LockFile;
use serde_json::Value;

use super::remains::dead_with;
use super::support::authserver::Fault;
use super::support::family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World};

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

#[test]
fn r17_a_doubt_outlives_its_journal() {
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

#[test]
fn r18_a_doubt_whose_journal_is_lost_keeps_its_last_chance_and_no_more() {
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

#[test]
fn r17_a_doubt_that_the_ledger_noted_is_over_when_the_answer_of_a_dead_run_says_so() {
    let world = dead_with(429, "", true);
    // Whoever makes no request leaves the answer to the next flight, and sees a token that was sent.
    let mut stranger = world.credential(&world.server.mint());
    stranger.binding.client_id.push('2');
    world.import(stranger, false).unwrap_err();
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
    let token = store.key("demo").unwrap().fingerprint(&world.credential(answer).refresh);
    store.ledger().entry(&token).unwrap().is_some()
}

#[test]
fn r17_the_ledger_keeps_the_doubt_of_a_token_that_came_back_from_its_second_send() {
    let grace = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";
    for is_told in [true, false] {
        let world = World::new(None, RotationMode::Grace(Duration::from_secs(60)), grace);
        let answer = world.server.mint();
        world.import(world.credential(&answer), true).unwrap();
        world.server.script([Fault::DropAfter]);
        assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
        assert!(is_marked(&world, &answer));
        // Given back, nobody knows which token lives; an answer without one says that this one does.
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

#[test]
fn r17_the_ledger_keeps_the_doubt_of_a_token_whose_second_send_was_turned_away() {
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

#[test]
fn r03_nothing_is_taken_while_the_ledger_lacks_what_it_took() {
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

#[test]
fn r03_a_profile_that_is_signed_out_still_names_what_the_ledger_took() {
    let world = World::without_keyring();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    world.log_out(true, false).unwrap();
    world.process().store().check_ledger_complete().unwrap();
    std::fs::remove_file(world.file("ledger")).unwrap();
    let outcome = world.import(world.credential(&world.server.mint()), true).unwrap_err();
    assert_eq!(error_kind(&outcome), "ledger_damaged");
}

#[test]
fn r03_a_ledger_that_was_cut_because_it_was_long_is_whole() {
    let world = World::without_keyring();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    let others: String = (0..1024).map(|i| format!("{i:032x}\n")).collect();
    std::fs::write(world.file("ledger"), &others).unwrap();
    world.process().store().check_ledger_complete().unwrap();
    std::fs::write(world.file("ledger"), &others[33..]).unwrap();
    world.process().store().check_ledger_complete().unwrap_err();
}

#[test]
fn r03_a_journal_from_another_store_says_nothing_of_the_ledger_here() {
    let there = World::without_keyring();
    assert_eq!(there.refresh().kind, OutcomeKind::Refreshed);
    let here = World::without_keyring();
    there.snapshot().copy_into("profiles/demo", &here);
    here.import_into(&"copy".parse().unwrap(), here.credential(&here.server.mint()), false).unwrap();
    here.refresh_if_due();
    here.process().store().check_ledger_complete().unwrap();
}

#[test]
fn a_sealed_copy_whose_journal_is_lost_is_not_called_well() {
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

#[test]
fn r21_a_grace_is_over_for_a_doubt_whose_journal_is_lost() {
    let grace = "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n";
    let (world, _) =
        world_with_lost_journal(World::new(None, RotationMode::Strict, grace), Fault::DropBefore, JournalLoss::Older);
    assert_eq!((world.refresh().kind, world.requests()), (OutcomeKind::InDoubt, 1));
}

#[test]
fn r17_the_doubt_of_a_run_that_died_or_could_not_write_the_ledger_is_noted_by_the_next() {
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

#[test]
fn r22_a_refusal_outlives_its_journal() {
    for loss in LOSSES {
        let (world, answer) = world_with_lost_journal(World::without_keyring(), DENIED, loss);
        let outcome = world.refresh();
        match loss {
            JournalLoss::Forgotten => assert_eq!(error_kind(&outcome), "no_credential"),
            JournalLoss::Deleted | JournalLoss::Older | JournalLoss::Replaced => {
                assert_eq!(
                    (outcome.kind, error_kind(&outcome)),
                    (OutcomeKind::ConfigError, "stale_credential"),
                    "{loss:?}"
                );
                assert_eq!(shown(&world).state, ProfileState::ConfigError);
            }
        }
        is_refused(world.import(world.credential(&answer), true));
        assert_eq!(world.requests(), 1, "{loss:?}");
        world.sign_in();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    }
}

#[test]
fn r22_a_refusal_that_the_ledger_could_not_take_is_told_and_written_by_the_next_run() {
    let world = strict();
    let answer = world.server.mint();
    world.import(world.credential(&answer), true).unwrap();
    world.break_ledger();
    world.server.script([DENIED]);
    let outcome = world.refresh();
    assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::NeedsLogin, "invalid_grant"));
    assert!(outcome.warnings.iter().any(|w| w.starts_with("cannot write the ledger")));
    world.repair_ledger();
    assert_eq!((world.refresh().kind, world.journal().ledger_backlog.len()), (OutcomeKind::NeedsLogin, 0));
    std::fs::remove_file(world.file(JOURNAL)).unwrap();
    is_refused(world.import(world.credential(&answer), true));
}

#[test]
fn r03_a_spent_token_that_the_ledger_could_not_take_is_kept_by_the_journal_until_it_can() {
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
            world.log_out(true, false).unwrap_err();
        }
        assert_eq!(world.journal().ledger_backlog.len(), 1);
        world.repair_ledger();
        is_refused(world.import(world.credential(&answer), true));
        std::fs::remove_file(world.file(JOURNAL)).unwrap();
        is_refused(world.import(world.credential(&answer), true));
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

#[test]
fn r03_a_profile_put_back_from_a_backup_is_never_called_fresh() {
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

#[test]
fn r03_a_token_that_only_an_older_sealed_copy_remembers_is_spent_all_the_same() {
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

#[test]
fn r03_a_take_over_does_not_believe_in_a_token_that_is_spent_here() {
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
                assert_ne!(shown(&world).state, ProfileState::Fresh);
                assert_ne!(world.refresh().kind, OutcomeKind::Refreshed);
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

#[test]
fn r22_a_token_that_is_granted_once_more_lives_whatever_was_known_of_it() {
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
