//! The journal, the sealed copy and the keyring disagree, in every way that backups, other programs and dying disks bring
//! about: the newest generation wins if anybody has it, and nothing is sent if nobody does.

use std::path::PathBuf;

use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::store::StoreError;

use super::support::family::Mode;
use super::world::World;

/// A world at generation 2, and what its sealed copy and keyring were at generation 1.
struct Past {
    world: World,
    sealed: Vec<u8>,
    keyring: std::collections::BTreeMap<keepalive::store::keyring::Item, String>,
}

impl Past {
    fn new() -> Self {
        let world = World::new(None, Mode::Strict, "");
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
    fn refuses(&self, kind: OutcomeKind, word: &str) {
        let outcome = self.world.refresh();
        assert_eq!((outcome.kind, word_of(&outcome)), (kind, word), "{outcome:?}");
        assert_eq!(self.world.requests(), 1);
    }

    /// The next refresh makes generation 3 of generation 2.
    #[track_caller]
    fn goes_on(&self) -> Outcome {
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

fn word_of(outcome: &Outcome) -> &str {
    outcome.error.as_ref().map_or("", |e| e.kind.as_ref())
}

fn published_item(world: &World) -> keepalive::store::keyring::Item {
    world.keyring.snapshot().into_keys().find(|item| item.service == "keepalive").unwrap()
}

#[test]
fn a_sealed_copy_that_is_gone_is_made_again_from_the_keyring() {
    let past = Past::new();
    std::fs::remove_file(sealed(&past.world)).unwrap();
    let outcome = past.goes_on();
    assert!(outcome.warnings.iter().any(|w| w == "adopted generation 2 from the keyring"), "{outcome:?}");
}

#[test]
fn a_sealed_copy_that_is_damaged_is_made_again_from_the_keyring() {
    let past = Past::new();
    let mut bytes = std::fs::read(sealed(&past.world)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(sealed(&past.world), bytes).unwrap();
    past.goes_on();
}

#[test]
fn r13_an_older_sealed_copy_gives_way_to_the_keyring() {
    let past = Past::new();
    past.restore_sealed();
    past.goes_on();
}

#[test]
fn r10_an_older_keyring_gives_way_to_the_sealed_copy() {
    let past = Past::new();
    past.world.keyring.restore(past.keyring.clone());
    past.goes_on();
}

#[test]
fn r13_two_older_copies_are_not_believed() {
    let past = Past::new();
    past.restore_sealed();
    past.world.keyring.restore(past.keyring.clone());
    let outcome = past.world.refresh();
    assert_eq!((outcome.kind, past.world.requests()), (OutcomeKind::ConfigError, 1), "{outcome:?}");
    assert_eq!(word_of(&outcome), "stale_credential");
}

#[test]
fn r08_a_credential_that_nobody_has_any_more_is_told() {
    let past = Past::new();
    std::fs::remove_file(sealed(&past.world)).unwrap();
    let mut items = past.world.keyring.snapshot();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    let outcome = past.world.refresh();
    assert_eq!(past.world.requests(), 1);
    assert!(matches!(outcome.kind, OutcomeKind::NeedsLogin | OutcomeKind::StoreUnavailable), "{outcome:?}");
    assert!(outcome.error.unwrap().message.contains("is gone"));
}

#[test]
fn a_missing_published_item_is_published_again() {
    let past = Past::new();
    let mut items = past.world.keyring.snapshot();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    past.goes_on();
}

#[test]
fn an_item_of_another_program_is_told_and_not_used() {
    let past = Past::new();
    let mut items = past.world.keyring.snapshot();
    items.insert(published_item(&past.world), r#"{"generation":1,"refresh_token":"theirs"}"#.into());
    past.world.keyring.restore(items);
    let outcome = past.goes_on();
    assert!(outcome.warnings.iter().any(|w| w.contains("written by another program (it claims generation 1)")));
}

#[test]
fn r08_a_key_that_is_gone_is_not_replaced_by_another() {
    let past = Past::new();
    let mut items = past.world.keyring.snapshot();
    items.retain(|item, _| item.service == "keepalive");
    past.world.keyring.restore(items.clone());
    past.refuses(OutcomeKind::StoreUnavailable, "key_missing");
    assert_eq!(past.world.keyring.snapshot(), items, "no key was made");
}

#[test]
fn an_answer_that_was_judged_is_not_judged_again() {
    let world = World::new(None, Mode::Strict, "");
    world.server.script([super::support::authserver::Fault::CommitThen(500, "<html>oops</html>")]);
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    let sequence = world.record().sequence;
    // The evidence stays sealed; looking at it again changes nothing.
    assert!(world.file("profiles/demo/received").exists());
    assert_eq!(world.refresh().kind, OutcomeKind::InDoubt);
    assert_eq!((world.record().sequence, world.requests()), (sequence, 1));
}

#[test]
fn a_healthy_profile_is_examined_without_a_finding_and_others_with_theirs() {
    let past = Past::new();
    let examine = || past.world.process().store().examine(past.world.name());
    assert_eq!(examine().unwrap(), Vec::<String>::new());
    past.world.keyring.restore(past.keyring.clone());
    assert_eq!(examine().unwrap(), ["the keyring has generation 1, the journal 2"]);
    let mut items = past.keyring.clone();
    items.remove(&published_item(&past.world));
    past.world.keyring.restore(items);
    assert_eq!(examine().unwrap(), ["the keyring has no item; the next refresh publishes it"]);
    past.world.keyring.restore(std::collections::BTreeMap::new());
    assert!(matches!(examine(), Err(StoreError::KeyMissing { .. })));
}
