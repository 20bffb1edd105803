//! The journal, the sealed copy and the keyring disagree, in every way that backups, other programs and dying disks bring
//! about: the newest generation wins if one of them has it, and nothing is sent if none has.

use std::path::PathBuf;
use std::time::Duration;

use keepalive::clock::Clock;
use keepalive::credential::freshness::{Demand, Margin};
use keepalive::engine::status::{StatusPolicy, profile_status};
use keepalive::guard::Permit;
use keepalive::outcome::{ErrorKind, Outcome, OutcomeKind, ProfileState, Publication};
use keepalive::store::StoreError;
use keepalive::sys::lockfile::LockFile;

use super::support::auth_server::Fault;
use super::support::token_family::RotationMode;
use super::world::{ACCESS_LIFETIME, HookPoint, World, assert_refused};

/// A world at generation 2, and what its sealed copy and keyring were at generation 1.
struct TwoGenerations {
    world: World,
    sealed: Vec<u8>,
    keyring: std::collections::BTreeMap<keepalive::store::keyring::KeyringItem, String>,
}

impl TwoGenerations {
    fn new() -> Self {
        let world = World::new(None, RotationMode::Strict, "");
        let sealed = std::fs::read(sealed(&world)).unwrap();
        let keyring = world.keyring.snapshot();
        assert_eq!(world.refresh().generation.get(), 2);
        Self { world, sealed, keyring }
    }

    fn restore_sealed(&self) {
        std::fs::write(sealed(&self.world), &self.sealed).unwrap();
    }

    /// A refusal that names its word, with nothing sent.
    #[track_caller]
    fn assert_refused(&self, kind: OutcomeKind, word: &str) {
        let outcome = self.world.refresh();
        assert_eq!((outcome.kind, error_kind(&outcome)), (kind, word), "{outcome:?}");
        assert_eq!(self.world.requests(), 1);
    }

    /// The next refresh makes generation 3 of generation 2.
    #[track_caller]
    fn assert_continues(&self) -> Outcome {
        let outcome = self.world.refresh();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
        assert_eq!((self.world.published(), self.world.requests()), (Some(3), 2));
        assert_eq!(self.world.server.counts().presented_again, 0);
        outcome
    }
}

fn sealed(world: &World) -> PathBuf {
    world.file("profiles/demo/sealed")
}

fn error_kind(outcome: &Outcome) -> &str {
    outcome.error.as_ref().map_or("", |e| e.kind.word())
}

fn published_item(world: &World) -> keepalive::store::keyring::KeyringItem {
    world.keyring.snapshot().into_keys().find(|item| item.service == "keepalive").unwrap()
}

#[test]
fn missing_sealed_credential_is_restored_from_keyring() {
    let past = TwoGenerations::new();
    std::fs::remove_file(sealed(&past.world)).unwrap();
    let outcome = past.assert_continues();
    assert!(outcome.warnings.iter().any(|w| w == "adopted generation 2 from the keyring"), "{outcome:?}");
}

#[test]
fn missing_or_old_sealed_credential_is_mended_without_request() {
    for is_gone in [true, false] {
        let past = TwoGenerations::new();
        let world = &past.world;
        match is_gone {
            true => std::fs::remove_file(sealed(world)).unwrap(),
            false => past.restore_sealed(),
        }
        let policy = &world.profile().provider.policy;
        let terms = StatusPolicy { policy, margin: Margin::DEFAULT, jitter: Duration::ZERO, is_following: false };
        let stands = || profile_status(Some(&world.journal()), terms, &world.clock.now());
        let shown = stands();
        let error = shown.error.unwrap();
        assert_eq!((shown.state, error.kind.word()), (ProfileState::Due, "unsealed"));
        assert!(error.hint.unwrap().contains("from the keyring, if it is there"));
        assert_eq!(shown.refresh_at, Some(world.clock.now().wall));
        let outcome =
            world.process().refresh(world.profile(), Demand::ValidFor(Duration::ZERO), ACCESS_LIFETIME, &|| {});
        assert_eq!((outcome.kind, outcome.generation.get(), world.requests()), (OutcomeKind::Fresh, 2, 1));
        assert_eq!(stands().state, ProfileState::Fresh);
    }
}

#[test]
fn damaged_sealed_credential_is_restored_from_keyring() {
    let damage = |world: &World, place: fn(usize) -> usize| {
        let mut bytes = std::fs::read(sealed(world)).unwrap();
        let at = place(bytes.len());
        bytes[at] ^= 1;
        std::fs::write(sealed(world), bytes).unwrap();
    };
    for place in [|_| 20, |length| length / 2] {
        let past = TwoGenerations::new();
        damage(&past.world, place);
        past.assert_continues();
        // A doubt that a run has looked at to its end: no answer came, so there is none to be lost.
        past.world.server.script([Fault::DropBefore]);
        assert_eq!(past.world.refresh().kind, OutcomeKind::InDoubt);
        damage(&past.world, place);
        assert_eq!(past.world.refresh().kind, OutcomeKind::InDoubt);
        assert_eq!(look_into(&past.world).unwrap(), Some(3));
    }
}

/// A run that died between the answer's final name and everything else: the sealed copy alone is at generation 2.
fn ahead() -> World {
    let world = World::new(None, RotationMode::Strict, "");
    let snapshot = world.crash_at(HookPoint::BeforePublish);
    world.restart_from(snapshot, None)
}

fn look_into(world: &World) -> Result<Option<u64>, StoreError> {
    let engine = world.process();
    let store = engine.store();
    let lock = LockFile::acquire(&store.create_lock_file(world.name()).unwrap()).unwrap();
    let mut vault = store.open_profile(Permit::from_lock(world.name(), &lock)).unwrap();
    let loaded = vault.load(&store.keys().load("demo").unwrap(), false)?;
    Ok(loaded.map(|loaded| loaded.locked_credential.credential().generation.get()))
}

/// Rule 13.
#[test]
fn io_error_does_not_let_older_item_replace_sealed_credential() {
    let world = ahead();
    let (sealed, aside) = (sealed(&world), world.file("aside"));
    // Opened, a link is an error; written, it would be replaced.
    std::fs::rename(&sealed, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &sealed).unwrap();
    let unread = look_into(&world);
    assert!(matches!(unread, Err(StoreError::Io { .. })), "{unread:?}");
    let answer = world.server.mint();
    assert_refused(world.import(world.credential(&answer), false), OutcomeKind::StoreUnavailable, "io");
    std::fs::rename(&aside, &sealed).unwrap();
    assert_eq!(look_into(&world).unwrap(), Some(2));
    assert_eq!(world.refresh().generation.get(), 3);
    assert_eq!(world.server.counts().presented_again, 0);
}

/// Rule 13.
#[test]
fn damaged_sealed_credential_is_not_replaced_by_older_item() {
    for damaged in ["header", "content"] {
        let world = ahead();
        let whole = std::fs::read(sealed(&world)).unwrap();
        let mut bytes = whole.clone();
        let at = if damaged == "header" { 20 } else { whole.len() - 1 };
        bytes[at] ^= 1;
        std::fs::write(sealed(&world), &bytes).unwrap();
        let outcome = world.refresh();
        assert_eq!((outcome.kind, error_kind(&outcome)), (OutcomeKind::StoreUnavailable, "damaged"), "{outcome:?}");
        assert_eq!(std::fs::read(sealed(&world)).unwrap(), bytes, "{damaged}");
        // As the remedy says: restored, it goes on.
        std::fs::write(sealed(&world), whole).unwrap();
        assert_eq!(world.refresh().generation.get(), 3);
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 13.
#[test]
fn newer_keyring_item_replaces_older_sealed_credential() {
    let past = TwoGenerations::new();
    past.restore_sealed();
    past.assert_continues();
}

/// Rule 10.
#[test]
fn newer_sealed_credential_replaces_older_keyring_item() {
    let past = TwoGenerations::new();
    past.world.keyring.restore(past.keyring.clone());
    past.assert_continues();
}

#[test]
fn deferred_run_restores_missing_or_older_keyring_item() {
    for is_gone in [true, false] {
        let past = TwoGenerations::new();
        let world = &past.world;
        world.server.script([Fault::Respond(429, "Retry-After: 60\r\n", "")]);
        assert_eq!(world.refresh().kind, OutcomeKind::Deferred);
        match is_gone {
            true => world.remove_from_keyring("keepalive"),
            false => world.keyring.restore(past.keyring.clone()),
        }
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.publication), (OutcomeKind::Deferred, Publication::Published), "{outcome:?}");
        assert_eq!((world.published(), world.requests()), (Some(2), 2), "gone: {is_gone}");
    }
}

/// Rule 13.
#[test]
fn generations_count_on_after_a_damaged_journal_is_replaced() {
    for is_published in [true, false] {
        for is_forgetting in [true, false] {
            let past = TwoGenerations::new();
            let world = &past.world;
            let path = world.file("profiles/demo/record.json");
            std::fs::write(&path, "{").unwrap();
            if is_published {
                past.restore_sealed();
            } else {
                world.remove_from_keyring("keepalive");
            }
            let answer = world.server.mint();
            let refused = world.import(world.credential(&answer), false).unwrap_err();
            assert_eq!(error_kind(&refused), "damaged");
            assert_eq!(error_kind(&world.log_out(false, false).unwrap_err()), "damaged");
            if is_forgetting {
                assert_eq!(world.log_out(true, false).unwrap().generation.get(), 2);
            }
            let taken = world.import(world.credential(&answer), true).unwrap();
            assert_eq!((taken.generation.get(), world.published()), (3, Some(3)));
            assert_eq!(std::fs::read(path.with_extension("json.damaged")).unwrap(), b"{");
            assert_eq!(world.refresh().generation.get(), 4);
        }
    }
}

#[test]
fn journal_of_a_later_version_is_not_treated_as_damaged() {
    let past = TwoGenerations::new();
    let path = past.world.file("profiles/demo/record.json");
    std::fs::write(&path, r#"{"format":9}"#).unwrap();
    let answer = past.world.server.mint();
    assert_refused(
        past.world.import(past.world.credential(&answer), true),
        OutcomeKind::StoreUnavailable,
        "later_version",
    );
    assert_refused(past.world.log_out(true, false), OutcomeKind::StoreUnavailable, "later_version");
    assert_eq!(std::fs::read(&path).unwrap(), br#"{"format":9}"#);
}

/// Rule 13.
#[test]
fn sealed_credential_of_a_later_version_is_not_replaced() {
    let past = TwoGenerations::new();
    let path = sealed(&past.world);
    let mut later = std::fs::read(&path).unwrap();
    later["keepalive-sealed ".len()] = b'2';
    std::fs::write(&path, &later).unwrap();
    let answer = past.world.server.mint();
    let arrived = past.world.import(past.world.credential(&answer), true).map(|_| ());
    let left = past.world.log_out(true, false).map(|_| ());
    for result in [arrived, left] {
        assert_eq!(error_kind(&result.expect_err("it would be lost")), "later_version");
    }
    assert_eq!(std::fs::read(&path).unwrap(), later);
}

/// Rule 13.
#[test]
fn older_sealed_credential_and_older_item_are_not_used() {
    let past = TwoGenerations::new();
    past.restore_sealed();
    past.world.keyring.restore(past.keyring.clone());
    let outcome = past.world.refresh();
    assert_eq!((outcome.kind, past.world.requests()), (OutcomeKind::ConfigError, 1), "{outcome:?}");
    assert_eq!(error_kind(&outcome), "stale_credential");
}

/// Rule 8.
#[test]
fn credential_lost_on_disk_and_in_keyring_is_reported() {
    let past = TwoGenerations::new();
    std::fs::remove_file(sealed(&past.world)).unwrap();
    let mut items = past.world.keyring.snapshot();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    let outcome = past.world.refresh();
    assert_eq!(past.world.requests(), 1);
    assert!(matches!(outcome.kind, OutcomeKind::NeedsLogin | OutcomeKind::StoreUnavailable), "{outcome:?}");
    assert!(outcome.error.unwrap().message.contains("is missing"));
}

#[test]
fn missing_keyring_item_is_published_again() {
    let past = TwoGenerations::new();
    let mut items = past.world.keyring.snapshot();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    past.assert_continues();
}

#[test]
fn keyring_item_of_another_program_is_reported_and_not_used() {
    let past = TwoGenerations::new();
    let mut items = past.world.keyring.snapshot();
    items.insert(published_item(&past.world), r#"{"generation":1,"refresh_token":"theirs"}"#.into());
    past.world.keyring.restore(items);
    let outcome = past.assert_continues();
    assert!(outcome.warnings.iter().any(|w| w.contains("written by another program (it claims generation 1)")));
}

/// Rule 8.
#[test]
fn missing_sealing_key_is_not_replaced_by_a_new_one() {
    let past = TwoGenerations::new();
    let mut items = past.world.keyring.snapshot();
    items.retain(|item, _| item.service == "keepalive");
    past.world.keyring.restore(items.clone());
    past.assert_refused(OutcomeKind::StoreUnavailable, "key_missing");
    assert_eq!(past.world.keyring.snapshot(), items, "no key was made");
}

#[test]
fn stored_response_is_not_classified_a_second_time() {
    let world = World::new(None, RotationMode::Strict, "");
    world.server.script([Fault::CommitThen(500, "<html>oops</html>")]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let sequence = world.journal().sequence;
    // The evidence stays sealed; looking at it again changes nothing.
    assert!(world.file("profiles/demo/received").exists());
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    assert_eq!((world.journal().sequence, world.requests()), (sequence, 1));
}

#[test]
fn examine_reports_stale_or_missing_items_and_missing_key() {
    let past = TwoGenerations::new();
    let examine = || past.world.process().store().check_copies_agree(past.world.name());
    assert_eq!(examine().unwrap(), Vec::<String>::new());
    past.world.keyring.restore(past.keyring.clone());
    assert_eq!(examine().unwrap(), ["the keyring has generation 1, the sealed file 2"]);
    let mut items = past.keyring.clone();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    assert_eq!(examine().unwrap(), ["the keyring has no item; the next refresh writes it"]);
    past.world.keyring.restore(std::collections::BTreeMap::new());
    assert!(matches!(examine(), Err(StoreError::KeyMissing { .. })));
}

/// Rule 3.
#[test]
fn token_known_only_from_an_older_keyring_item_is_consumed() {
    let world = World::new(None, RotationMode::Strict, "");
    let first = world.server.mint();
    world.import(world.credential(&first), true).unwrap();
    let keyring = world.keyring.snapshot();
    assert_eq!(world.refresh().generation.get(), 3);
    world.keyring.restore(keyring);
    std::fs::remove_file(world.file("ledger")).unwrap();
    assert_eq!(world.refresh().generation.get(), 4);
    // It was the one of generation 2.
    assert_refused(world.import(world.credential(&first), true), OutcomeKind::NeedsLogin, "consumed");
}

/// Rule 3.
#[test]
fn token_of_a_crashed_run_is_consumed_once_successor_is_found() {
    let world = World::new(None, RotationMode::Strict, "");
    let first = world.server.mint();
    world.import(world.credential(&first), true).unwrap();
    let snapshot = world.crash_at(HookPoint::AfterPublish);
    let world = world.restart_from(snapshot, None);
    let before = world.journal().sequence;
    assert_eq!(world.refresh_if_due().generation.get(), 3);
    assert!(world.journal().sequence > before, "a process that waits for the lock learns of it");
    assert_refused(world.import(world.credential(&first), true), OutcomeKind::NeedsLogin, "consumed");
}

#[test]
fn unrotated_token_is_not_consumed_when_the_keyring_lags() {
    let world = World::new(None, RotationMode::NoRotation { echo: true }, "rotation = \"none\"\n");
    let keyring = world.keyring.snapshot();
    assert_eq!(world.refresh().generation.get(), 2);
    world.keyring.restore(keyring);
    for generation in [3, 4] {
        let outcome = world.refresh();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, generation), "{outcome:?}");
    }
}

/// Rule 13.
#[test]
fn older_item_is_not_used_when_sealed_credential_is_missing() {
    let past = TwoGenerations::new();
    std::fs::remove_file(sealed(&past.world)).unwrap();
    past.world.keyring.restore(past.keyring.clone());
    let outcome = past.world.refresh();
    assert!(outcome.error.as_ref().is_some_and(|e| e.message.contains("is missing")), "{outcome:?}");
    assert_eq!((sealed(&past.world).exists(), past.world.requests()), (false, 1));
}

/// Rule 13.
#[test]
fn foreign_keyring_item_claiming_newer_is_not_overwritten() {
    for (claimed, is_published) in [(2, true), (3, true), (4, false)] {
        let past = TwoGenerations::new();
        let item = published_item(&past.world);
        let theirs = format!(r#"{{"generation":{claimed},"refresh_token":"theirs"}}"#);
        let mut items = past.world.keyring.snapshot();
        items.insert(item.clone(), theirs.clone());
        past.world.keyring.restore(items);
        let outcome = past.world.refresh();
        assert_eq!((outcome.kind, outcome.generation.get()), (OutcomeKind::Refreshed, 3), "{outcome:?}");
        let is_theirs = past.world.keyring.snapshot()[&item] == theirs;
        assert_eq!(
            (outcome.publication == Publication::Published, is_theirs),
            (is_published, !is_published),
            "{claimed}"
        );
    }
}

#[test]
fn extra_keyring_items_are_reported() {
    let past = TwoGenerations::new();
    let quiet = past.assert_continues();
    assert_eq!(quiet.warnings, Vec::<String>::new());
    past.world.keyring.set_duplicates(2);
    let outcome = past.world.refresh();
    assert!(outcome.warnings.iter().any(|w| w.starts_with("2 more keyring items")), "{outcome:?}");
    let found = past.world.process().store().check_copies_agree(past.world.name()).unwrap();
    assert_eq!(found, ["2 more keyring items have the same attributes"]);
}

/// Another machine's store with the same profile, whose items are in this keyring now, its sealing key too or not.
pub fn add_items_of_another_store(world: &World, generation: u64, with_key: bool) {
    let other = World::new(None, RotationMode::Strict, "");
    // All servers here count their tokens from one.
    other.server.mint();
    other.forget(other.name());
    std::fs::remove_dir_all(other.file("profiles")).unwrap();
    other.sign_in();
    while other.journal().generation.get() < generation {
        other.refresh();
    }
    let theirs = other.keyring.snapshot().into_iter().filter(|(item, _)| with_key || item.service == "keepalive");
    world.keyring.restore(world.keyring.snapshot().into_iter().chain(theirs).collect());
}

/// Rule 30.
#[test]
fn takeover_adopts_only_provable_keyring_items() {
    use keepalive::credential::Generation;
    use keepalive::store::TakeOverResult;
    let g = Generation::new;
    for (theirs, with_key, expected) in [
        // Each store counts for itself: a login of this morning may be a first generation.
        (1, true, TakeOverResult::Adopted(g(3))),
        (1, false, TakeOverResult::Unverified { claimed: g(1) }),
        (3, true, TakeOverResult::Adopted(g(4))),
        (3, false, TakeOverResult::Unverified { claimed: g(3) }),
    ] {
        let past = TwoGenerations::new();
        add_items_of_another_store(&past.world, theirs, with_key);
        let take_over = || past.world.process().store().take_over(std::slice::from_ref(past.world.name())).unwrap();
        assert_eq!(take_over(), [(past.world.name().clone(), expected.clone())], "{theirs} {with_key}");
        if let TakeOverResult::Adopted(generation) = expected {
            assert_eq!(past.world.published(), Some(generation.get()));
            assert_eq!(take_over(), [(past.world.name().clone(), TakeOverResult::AlreadyOwned)]);
        }
    }
}

fn take_over(world: &World) -> keepalive::store::TakeOverResult {
    let taken = world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    taken.into_iter().next().expect("one profile").1
}

/// Rule 3.
#[test]
fn second_takeover_does_not_restore_a_consumed_token() {
    use keepalive::store::TakeOverResult;
    let former = World::new(None, RotationMode::Strict, "");
    former.refresh();
    let home = former.with_shared_keyring();
    // The last flight of the former home is in the air while it is taken over.
    let store = std::sync::Arc::clone(home.process().store());
    let name = home.name().clone();
    former.hook(HookPoint::BeforePublish, move || {
        let taken = store.take_over(std::slice::from_ref(&name)).unwrap();
        assert!(matches!(taken.as_slice(), [(_, TakeOverResult::Adopted(_))]), "{taken:?}");
        Ok(())
    });
    assert_eq!(former.refresh().generation.get(), 3);
    assert_eq!(home.refresh().kind, OutcomeKind::ConfigError, "it is not at home here any more");
    assert!(matches!(take_over(&home), TakeOverResult::Adopted(_)));
    assert_eq!(home.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(home.server.counts().presented_again, 0);
}

/// Rule 13.
#[test]
fn takeover_keeps_local_token_if_item_is_same_or_consumed() {
    use keepalive::store::TakeOverResult;
    for is_spent in [false, true] {
        let former = World::new(None, RotationMode::Strict, "");
        let home = former.with_shared_keyring();
        let mut theirs = former.keyring.snapshot();
        theirs.retain(|item, _| item.service == "keepalive");
        assert!(matches!(take_over(&home), TakeOverResult::Adopted(_)));
        if is_spent {
            assert_eq!(home.refresh().kind, OutcomeKind::Refreshed);
        }
        // Another program puts the former item back.
        home.keyring.restore(home.keyring.snapshot().into_iter().chain(theirs).collect());
        assert!(matches!(take_over(&home), TakeOverResult::Republished(_)), "{is_spent}");
        assert_eq!(home.refresh().kind, OutcomeKind::Refreshed);
        assert_eq!(home.server.counts().presented_again, 0);
    }
}

/// Rule 4.
#[test]
fn token_published_by_another_directory_is_refused() {
    let there = World::new(None, RotationMode::Strict, "");
    let answer = there.server.mint();
    there.import(there.credential(&answer), true).unwrap();
    let here = there.with_shared_keyring();
    let copy = "copy".parse().unwrap();
    // A store must have a name before it can know what is not its own.
    here.import_into(&"first".parse().unwrap(), here.credential(&here.server.mint()), false).unwrap();
    for is_replacing in [false, true] {
        let outcome = here.import_into(&copy, here.credential(&answer), is_replacing).unwrap_err();
        let error = outcome.error.unwrap();
        assert_eq!((outcome.kind, error.kind.word()), (OutcomeKind::ConfigError, "conflict"));
        assert!(error.message.starts_with("profile demo of another state directory"), "{}", error.message);
    }
    assert_eq!(there.refresh().kind, OutcomeKind::Refreshed);
}

/// Rule 13.
#[test]
fn import_does_not_overwrite_item_published_meanwhile_elsewhere() {
    let there = World::new(None, RotationMode::Strict, "");
    let here = there.with_shared_keyring();
    let items = there.keyring.snapshot();
    there.remove_from_keyring("keepalive");
    let keyring = here.keyring.clone();
    // Between its look and its publication.
    here.hook(HookPoint::KeyringList, move || {
        keyring.restore(keyring.snapshot().into_iter().chain(items).collect());
        Ok(())
    });
    let taken = here.import(here.credential(&here.server.mint()), false).unwrap();
    assert_eq!((taken.publication, here.published()), (Publication::PublishPending, Some(1)));
    assert_eq!(here.refresh().kind, OutcomeKind::ConfigError);
    assert_eq!(there.refresh().kind, OutcomeKind::Refreshed);
}

/// What was in a world's store is in another now, as from a backup: which has another UUID, and another ledger.
pub fn change_store_identity(world: &World) {
    let path = world.file("store.json");
    let mut identity: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    identity["uuid"] = "00000000-0000-4000-8000-000000000000".into();
    std::fs::write(&path, identity.to_string()).unwrap();
    let _not_there = std::fs::remove_file(world.file("ledger"));
}

/// Makes a journal one that does not say whose it is.
fn remove_store_from_journal(world: &World) {
    let path = world.file("profiles/demo/record.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(journal.as_object_mut().unwrap().remove("store_identity").is_some(), "{journal}");
    std::fs::write(&path, journal.to_string()).unwrap();
}

/// Rule 3.
#[test]
fn lost_store_identity_is_restored_from_journals() {
    for is_signed_out in [false, true] {
        let world = World::without_keyring();
        let first = world.server.mint();
        world.import(world.credential(&first), true).unwrap();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        // All but the place of the file, which is another one.
        let read = || {
            let text = std::fs::read(world.file("store.json")).unwrap();
            let mut identity: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let _place = identity.as_object_mut().unwrap().remove("file");
            identity
        };
        let identity = read();
        if is_signed_out {
            world.log_out(true, false).unwrap();
        }
        std::fs::remove_file(world.file("store.json")).unwrap();
        if !is_signed_out {
            assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
            assert_eq!(read(), identity);
            std::fs::remove_file(world.file("store.json")).unwrap();
        }
        let refused = world.import(world.credential(&first), true).unwrap_err();
        assert_eq!(error_kind(&refused), "consumed");
        assert_eq!(read(), identity);
        world.sign_in();
        assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
        assert_eq!(world.server.counts().presented_again, 0);
    }
}

/// Rule 30.
#[test]
fn restored_identity_still_belongs_to_another_machine() {
    let world = World::without_keyring();
    let path = world.file("profiles/demo/record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut journal: serde_json::Value = serde_json::from_str(&text).unwrap();
    journal["store_identity"]["machine"] = "another".into();
    std::fs::write(&path, journal.to_string()).unwrap();
    std::fs::remove_file(world.file("store.json")).unwrap();
    let outcome = world.refresh();
    assert_eq!((outcome.kind, error_kind(&outcome), world.requests()), (OutcomeKind::ConfigError, "machine", 0));
    world.process().store().take_over(std::slice::from_ref(world.name())).unwrap();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
}

/// Rule 3.
#[test]
fn unknown_store_identity_is_not_recreated_over_existing_data() {
    let world = World::without_keyring();
    let first = world.server.mint();
    world.import(world.credential(&first), true).unwrap();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    std::fs::remove_file(world.file("store.json")).unwrap();
    remove_store_from_journal(&world);
    let is_lost = |outcome: Outcome| {
        let told = (outcome.kind, error_kind(&outcome));
        assert_eq!(told, (OutcomeKind::StoreUnavailable, "identity_lost"), "{outcome:?}");
        assert!(!world.file("store.json").exists());
        assert!(outcome.error.unwrap().hint.unwrap().contains(world.file("ledger").to_str().unwrap()));
    };
    let other = "other".parse().unwrap();
    let arrive = |name, answer: &serde_json::Value| world.import_into(name, world.credential(answer), true);
    is_lost(world.refresh());
    is_lost(world.refresh_if_due());
    is_lost(arrive(world.name(), &first).unwrap_err());
    is_lost(arrive(&other, &world.server.mint()).unwrap_err());
    is_lost(world.log_out(false, false).unwrap_err());
    assert_eq!(world.journal().integrity_error.unwrap().1.kind, ErrorKind::IdentityLost);
    // The way out, step by step.
    world.log_out(true, false).unwrap();
    assert!(!sealed(&world).exists() && world.journal().is_tombstone);
    is_lost(arrive(&other, &world.server.mint()).unwrap_err());
    std::fs::remove_file(world.file("ledger")).unwrap();
    world.sign_in();
    assert_eq!(world.refresh().kind, OutcomeKind::Refreshed);
    assert_eq!(world.server.counts().presented_again, 0);
}
