//! What is stored cannot be opened, or may not be used, until a user mends it: `status` tells it as the runs do, and no
//! longer than it lasts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::freshness::{Demand, Margin};
use keepalive::engine::access_token::TokenResult;
use keepalive::engine::status::{ProfileStatus, StatusPolicy, profile_status};
use keepalive::outcome::{Outcome, OutcomeKind, ProfileState};
use keepalive::scheduler::Scheduler;
use keepalive::store::journal::block::Cause;
use keepalive::store::keyring::{KeyringError, KeyringItem};
use keepalive::sys::lockfile::LockFile;

use super::store_disagreement::add_items_of_another_store;
use super::support::eventually;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, World};

/// A world at generation 2, and what it can be put back to.
struct RepairableWorld {
    world: World,
    sealed: Vec<u8>,
    items: BTreeMap<KeyringItem, String>,
    journal: serde_json::Value,
}

const SEALED: &str = "profiles/demo/sealed";
const JOURNAL: &str = "profiles/demo/record.json";

/// The journal but for the file that it was written for: the repair writes another.
fn journal_on_disk(world: &World) -> serde_json::Value {
    let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(world.file(JOURNAL)).unwrap()).unwrap();
    for place in ["sealed_mark", "file"] {
        let _place = journal.as_object_mut().unwrap().remove(place);
    }
    journal
}

impl RepairableWorld {
    fn new() -> Self {
        Self::of(World::new(None, RotationMode::Strict, ""))
    }

    fn of(world: World) -> Self {
        assert_eq!(world.refresh().generation.get(), 2);
        let sealed = std::fs::read(world.file(SEALED)).unwrap();
        let (journal, items) = (journal_on_disk(&world), world.keyring.snapshot());
        Self { world, sealed, items, journal }
    }

    fn repair(&self) {
        std::fs::write(self.world.file(SEALED), &self.sealed).unwrap();
        self.world.keyring.restore(self.items.clone());
    }

    fn alter_sealed(&self) {
        let mut bytes = self.sealed.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(self.world.file(SEALED), bytes).unwrap();
    }

    /// Changes or takes away what a service has in the keyring.
    fn alter_item(&self, service: &str, value: Option<&str>) {
        let mut items = self.world.keyring.snapshot();
        let item = items.keys().find(|item| item.service == service).unwrap().clone();
        items.remove(&item);
        items.extend(value.map(|value| (item, value.to_owned())));
        self.world.keyring.restore(items);
    }

    fn journal(&self) -> serde_json::Value {
        journal_on_disk(&self.world)
    }

    /// What `status` shows.
    fn status(&self) -> ProfileStatus {
        let policy = &self.world.profile().provider.policy;
        let terms = StatusPolicy { policy, margin: Margin::DEFAULT, jitter: Duration::ZERO, is_following: false };
        profile_status(Some(&self.world.journal()), terms, &self.world.clock.now())
    }

    fn shown(&self) -> (ProfileState, String) {
        let shown = self.status();
        (shown.state, shown.error.map_or(String::new(), |e| e.kind.to_string()))
    }
}

fn error_kind(outcome: &Outcome) -> &str {
    outcome.error.as_ref().map_or("", |e| e.kind.word())
}

/// A key of another store, as its item.
fn other_key() -> String {
    let other = World::new(None, RotationMode::Strict, "").keyring.snapshot();
    other.into_iter().find(|(item, _)| item.service == "keepalive-key").unwrap().1
}

/// Breaks something, in each way that no run passes by, with how runs end from then on.
type BreakCase = (fn(&RepairableWorld), OutcomeKind, &'static str);

const BREAKS: [BreakCase; 6] = [
    (
        |whole| {
            std::fs::remove_file(whole.world.file(SEALED)).unwrap();
            whole.alter_item("keepalive", None);
        },
        OutcomeKind::NeedsLogin,
        "lost",
    ),
    (
        |whole| {
            whole.alter_sealed();
            whole.alter_item("keepalive", None);
        },
        OutcomeKind::StoreUnavailable,
        "damaged",
    ),
    (|whole| whole.alter_item("keepalive-key", None), OutcomeKind::StoreUnavailable, "key_missing"),
    (|whole| whole.alter_item("keepalive-key", Some("dust")), OutcomeKind::StoreUnavailable, "key_damaged"),
    (|whole| whole.alter_item("keepalive-key", Some(&other_key())), OutcomeKind::StoreUnavailable, "damaged"),
    (|whole| add_items_of_another_store(&whole.world, 1, false), OutcomeKind::ConfigError, "domain_mismatch"),
];

#[test]
fn lasting_store_error_is_shown_by_status_until_mended() {
    for (break_it, kind, word) in BREAKS {
        let whole = RepairableWorld::new();
        let world = &whole.world;
        let before = world.journal();
        break_it(&whole);
        let outcome = world.refresh();
        assert_eq!((outcome.kind, error_kind(&outcome)), (kind, word), "{outcome:?}");
        let now = Some(world.clock.now().wall);
        assert_eq!((whole.shown(), whole.status().refresh_at), ((kind.into(), word.to_owned()), now));
        let told = world.journal();
        assert_eq!((told.sequence, &told.last_attempt), (before.sequence, &before.last_attempt), "it was no attempt");
        // A refresh of what is due reports it too, though the access token is fresh, and nothing is written again.
        let journal = whole.journal();
        let outcome = world.refresh_if_due();
        assert_eq!((outcome.kind, error_kind(&outcome)), (kind, word), "{outcome:?}");
        assert_eq!(whole.journal(), journal);
        whole.repair();
        assert_eq!(world.refresh_if_due().kind, OutcomeKind::Fresh, "{word}");
        assert_eq!(whole.shown(), (ProfileState::Fresh, String::new()));
        assert_eq!((whole.journal(), world.requests()), (whole.journal.clone(), 1), "{word}");
    }
}

#[test]
fn wrong_key_file_is_shown_by_status_until_it_is_corrected() {
    let whole = RepairableWorld::of(World::without_keyring());
    let world = &whole.world;
    std::fs::write(world.file("key"), [8; 32]).unwrap();
    assert_eq!(world.refresh_if_due().kind, OutcomeKind::Fresh, "nobody has looked");
    assert_eq!(world.refresh().kind, OutcomeKind::StoreUnavailable);
    assert_eq!(whole.shown(), (ProfileState::StoreUnavailable, "damaged".into()));
    std::fs::write(world.file("key"), "too short").unwrap();
    assert_eq!(error_kind(&world.refresh_if_due()), "key");
    assert_eq!(whole.shown(), (ProfileState::ConfigError, "key".into()));
    std::fs::write(world.file("key"), [7; 32]).unwrap();
    assert_eq!((world.refresh_if_due().kind, whole.shown().0), (OutcomeKind::Fresh, ProfileState::Fresh));
    assert_eq!(whole.journal(), whole.journal);
}

/// Rule 30.
#[test]
fn unusable_store_identity_is_shown_by_status_before_a_run() {
    let whole = RepairableWorld::new();
    let world = &whole.world;
    let path = world.file("store.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    identity["machine"] = "another".into();
    for (content, state, word) in [
        (identity.to_string(), ProfileState::ConfigError, "machine"),
        ("dust".into(), ProfileState::StoreUnavailable, "damaged"),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(whole.shown(), (state, word.into()));
        assert_eq!([error_kind(&world.refresh_if_due()), error_kind(&world.refresh())], [word; 2]);
    }
    std::fs::write(&path, identity.to_string()).unwrap();
    let obtained = world.process().access_token(world.profile(), Duration::ZERO, ACCESS_LIFETIME, &|| {});
    assert!(obtained.token.is_some());
    assert!(obtained.warnings[0].contains("another machine"), "{:?}", obtained.warnings);
    std::fs::write(&path, text).unwrap();
    assert_eq!(
        (whole.shown().0, world.refresh_if_due().kind, world.requests()),
        (ProfileState::Fresh, OutcomeKind::Fresh, 1)
    );
}

const FAULTS: [(KeyringError, &str); 3] = [
    (KeyringError::Locked, "keyring_locked"),
    (KeyringError::TimedOut, "keyring_hanging"),
    (KeyringError::Denied, "keyring_denied"),
];

#[test]
fn run_without_a_key_is_shown_by_status_until_one_has_it() {
    for (fault, word) in FAULTS {
        let whole = RepairableWorld::new();
        let world = &whole.world;
        world.keyring.set_fault(Some(fault));
        assert_eq!(world.refresh().kind, OutcomeKind::StoreUnavailable);
        assert_eq!(whole.shown(), (ProfileState::StoreUnavailable, word.into()));
        // A run that nothing was due for before meets it now, and writes nothing again.
        let stamp = world.process().store().journal_stamp(&world.profile().name);
        assert_eq!((world.refresh_if_due().kind, error_kind(&world.refresh())), (OutcomeKind::StoreUnavailable, word));
        assert_eq!(world.process().store().journal_stamp(&world.profile().name), stamp);
        world.keyring.set_fault(None);
        assert_eq!((world.refresh_if_due().kind, whole.shown().0), (OutcomeKind::Fresh, ProfileState::Fresh));
        assert_eq!((whole.journal(), world.requests()), (whole.journal.clone(), 1));
    }
}

#[test]
fn token_without_a_key_is_shown_by_status_until_one_has_it() {
    for obtain in ASKS {
        for (fault, word) in FAULTS {
            let whole = RepairableWorld::new();
            let world = &whole.world;
            world.keyring.set_fault(Some(fault));
            let mut stamps = [(); 2].map(|()| {
                let obtained = obtain(world);
                assert_eq!((obtained.token.is_none(), error_kind(&obtained.outcome)), (true, word));
                assert_eq!(whole.shown(), (ProfileState::StoreUnavailable, word.into()));
                world.process().store().journal_stamp(&world.profile().name)
            });
            stamps.reverse();
            let [second, first] = stamps;
            assert_eq!(first, second, "one note");
            world.keyring.set_fault(None);
            let obtained = obtain(world);
            assert_eq!((obtained.token.is_some(), obtained.warnings), (true, Vec::new()));
            assert_eq!(whole.shown(), (ProfileState::Fresh, String::new()));
            assert_eq!((whole.journal(), world.requests()), (whole.journal.clone(), 1));
        }
    }
}

/// Rule 30.
#[test]
fn run_without_a_key_does_not_hide_another_owner() {
    let whole = RepairableWorld::new();
    add_items_of_another_store(&whole.world, 1, false);
    assert_eq!(whole.world.refresh().kind, OutcomeKind::ConfigError);
    whole.world.keyring.set_fault(Some(KeyringError::Locked));
    assert_eq!(error_kind(&whole.world.refresh()), "keyring_locked");
    assert_eq!(whole.shown(), (ProfileState::ConfigError, "domain_mismatch".into()));
}

#[test]
fn token_waits_for_no_lock_to_note_that_it_has_no_key() {
    let whole = RepairableWorld::new();
    whole.world.keyring.set_fault(Some(KeyringError::Locked));
    let held = LockFile::acquire(&whole.world.file("profiles/demo/lock")).unwrap();
    let obtained = ASKS[0](&whole.world);
    assert_eq!((error_kind(&obtained.outcome), whole.shown().0), ("keyring_locked", ProfileState::Fresh));
    drop(held);
}

#[test]
fn run_that_met_no_keyring_or_another_one_leaves_no_note() {
    for fault in [KeyringError::NoBus, KeyringError::NoService, KeyringError::NoCollection] {
        let whole = RepairableWorld::new();
        whole.world.keyring.set_fault(Some(fault));
        assert_eq!(whole.world.refresh().kind, OutcomeKind::StoreUnavailable);
        assert!(ASKS.iter().all(|obtain| obtain(&whole.world).token.is_none()));
        assert_eq!((whole.shown().0, whole.journal()), (ProfileState::Fresh, whole.journal.clone()));
    }
    let whole = RepairableWorld::new();
    whole.world.keyring.restore(BTreeMap::new());
    assert_eq!(error_kind(&whole.world.refresh()), "key_missing");
    assert_eq!((whole.shown().0, whole.journal()), (ProfileState::Fresh, whole.journal.clone()));
}

#[test]
fn key_that_another_process_has_is_not_recorded() {
    let whole = RepairableWorld::of(World::without_keyring());
    std::fs::rename(whole.world.file("key"), whole.world.file("aside")).unwrap();
    assert_eq!(error_kind(&whole.world.refresh()), "key");
    assert_eq!(whole.journal(), whole.journal);
}

/// As a command asks for it, and as the daemon does for those who ask it.
const ASKS: [fn(&World) -> TokenResult; 2] = [
    |world| world.process().access_token(world.profile(), Duration::ZERO, ACCESS_LIFETIME, &|| {}),
    |world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(world.process().access_token_async(world.profile(), Duration::ZERO, ACCESS_LIFETIME))
    },
];

#[test]
fn unreadable_token_is_restored_from_keyring_or_reported() {
    for obtain in ASKS {
        let whole = RepairableWorld::new();
        whole.alter_sealed();
        assert_eq!(obtain(&whole.world).token.unwrap().generation.get(), 2, "the keyring has it");
        assert_eq!(whole.shown(), (ProfileState::Fresh, String::new()));
        whole.alter_sealed();
        whole.alter_item("keepalive", None);
        for _ in 0..2 {
            let obtained = obtain(&whole.world);
            assert!(obtained.token.is_none());
            let told = (obtained.outcome.kind, error_kind(&obtained.outcome));
            assert_eq!(told, (OutcomeKind::StoreUnavailable, "damaged"));
            assert_eq!(whole.shown(), (ProfileState::StoreUnavailable, "damaged".into()));
        }
        whole.repair();
        let obtained = obtain(&whole.world);
        assert!(obtained.token.is_some());
        assert_eq!(whole.world.requests(), 1);
    }
}

#[test]
fn readable_token_is_returned_while_its_refresh_is_blocked() {
    for obtain in ASKS {
        let whole = RepairableWorld::new();
        add_items_of_another_store(&whole.world, 1, false);
        assert_eq!(whole.world.refresh().kind, OutcomeKind::ConfigError);
        let obtained = obtain(&whole.world);
        assert_eq!((obtained.token.unwrap().generation.get(), obtained.outcome.kind), (2, OutcomeKind::Fresh));
        assert!(obtained.warnings[0].contains("another state directory"), "{:?}", obtained.warnings);
    }
}

#[test]
fn login_import_logout_or_item_removal_clears_the_error() {
    let troubled = |number: usize| {
        let whole = RepairableWorld::new();
        BREAKS[number].0(&whole);
        whole.world.refresh();
        assert!(whole.world.journal().block(Cause::Store).is_some());
        whole
    };
    let is_over = |whole: &RepairableWorld| whole.world.journal().block(Cause::Store).is_none();
    for number in [0, 1] {
        let whole = troubled(number);
        whole.world.sign_in();
        assert!(is_over(&whole));
        assert_eq!((whole.shown().0, whole.world.refresh_if_due().kind), (ProfileState::Fresh, OutcomeKind::Fresh));
        let whole = troubled(number);
        whole.world.log_in(&whole.world.server.mint()).unwrap();
        assert!(is_over(&whole));
        let whole = troubled(number);
        whole.world.log_out(true, false).unwrap();
        assert!(is_over(&whole));
    }
    let whole = troubled(5);
    let world = &whole.world;
    // What cannot be proved genuine is left alone; a person removes it.
    world.remove_from_keyring("keepalive");
    assert_eq!(world.refresh_if_due().kind, OutcomeKind::Fresh);
    assert!(is_over(&whole));
}

#[test]
fn daemon_notices_by_itself_that_the_store_was_mended() {
    let whole = RepairableWorld::new();
    let world = &whole.world;
    whole.alter_item("keepalive-key", None);
    assert_eq!(world.refresh().kind, OutcomeKind::StoreUnavailable);
    let profile = Arc::clone(world.profile());
    let scheduler = Scheduler::new(world.daemon(), Arc::new(move |_| Ok(Arc::clone(&profile))));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(scheduler.run());
    whole.repair();
    eventually("a look", || {
        world.clock.advance(Duration::from_millis(100));
        world.journal().block(Cause::Store).is_none().then_some(())
    });
    runtime.shutdown_background();
    assert_eq!(world.server.counts().presented_again, 0);
}

#[test]
fn daemon_recovers_a_sealed_credential_without_a_journal() {
    let whole = RepairableWorld::new();
    let world = &whole.world;
    // As if the first import had died behind its seal.
    std::fs::remove_file(world.file(JOURNAL)).unwrap();
    assert_eq!(whole.shown(), (ProfileState::InDoubt, "journal_missing".into()));
    let profile = Arc::clone(world.profile());
    let scheduler = Scheduler::new(world.daemon(), Arc::new(move |_| Ok(Arc::clone(&profile))));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(scheduler.run());
    eventually("a look", || {
        world.clock.advance(Duration::from_millis(100));
        (whole.shown().0 == ProfileState::Fresh).then_some(())
    });
    runtime.shutdown_background();
    assert_eq!(world.server.counts().presented_again, 0);
}

#[test]
fn daemon_without_keyring_does_not_report_credential_as_lost() {
    for break_it in [
        |whole: &RepairableWorld| std::fs::remove_file(whole.world.file(SEALED)).unwrap(),
        RepairableWorld::alter_sealed,
    ] {
        let whole = RepairableWorld::new();
        let world = &whole.world;
        let daemon = world.daemon();
        daemon.store().keys().load("demo").unwrap();
        break_it(&whole);
        world.keyring.set_fault(Some(KeyringError::Locked));
        let outcome = world.refresh_by(&daemon);
        assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::StoreUnavailable, "keyring_locked"));
        assert_eq!(world.journal().blocks, []);
        world.keyring.set_fault(None);
        assert_eq!(world.refresh_by(&daemon).generation.get(), 3);
    }
}

/// Rule 30.
#[test]
fn daemon_sends_nothing_after_item_of_another_store_was_seen() {
    let whole = RepairableWorld::new();
    let world = &whole.world;
    let daemon = world.daemon();
    daemon.store().keys().load("demo").unwrap();
    add_items_of_another_store(world, 1, false);
    assert_eq!(error_kind(&world.refresh_by(&daemon)), "domain_mismatch");
    world.keyring.set_fault(Some(KeyringError::Locked));
    // Without that there would be no more time to wait for the keyring.
    world.clock.advance(ACCESS_LIFETIME - Duration::from_secs(10));
    let demand = Demand::Margin { lookahead: Duration::ZERO };
    let outcome = daemon.refresh(world.profile(), demand, ACCESS_LIFETIME, &|| {});
    assert_eq!((error_kind(&outcome), world.requests()), ("keyring_locked", 1), "{outcome:?}");
    whole.repair();
    world.keyring.set_fault(None);
    assert_eq!(world.refresh_if_due_by(&daemon).kind, OutcomeKind::Refreshed);
}
