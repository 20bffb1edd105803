//! Damaged stores: journal, sealed files and keyring items altered, cut, swapped, rolled back or lost. Nothing that comes
//! out of them may be another profile's, of a lower generation, or a token that no server issued.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keepalive::clock::{Moment, Timestamp};
use keepalive::credential::freshness::{Margin, Validity};
use keepalive::credential::secret::{AccessToken, RefreshToken};
use keepalive::credential::{Binding, Credential, Generation, Grant};
use keepalive::engine::status::{StatusPolicy, jitter, profile_status};
use keepalive::guard::Permit;
use keepalive::outcome::{self, ErrorKind, Failure};
use keepalive::profile::{Policy, ProfileName, Rotation, StoreKind, StoreSettings};
use keepalive::store::Store;
use keepalive::store::disk::envelope;
use keepalive::store::disk::sealed_content::{ResponseContent, SealedContent, SealedGrant, SealedResponse, SecretText};
use keepalive::store::journal::block::{Block, Cause, RefusedClient};
use keepalive::store::journal::{Intent, Journal, Rejection};
use keepalive::store::keyring::memory::MemoryKeyring;
use keepalive::store::keyring::{Keyring, KeyringItem};
use keepalive::store::keys::sealing_key::SealingKey;
use keepalive::sys::lockfile::LockFile;
use serde_json::Value;

use super::random_damage::{self, Rng};

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const NEWEST: u64 = 3;
const FILES: [&str; 3] = ["record.json", "sealed", "received"];

const WORDS: [&[u8]; 16] = [
    b"keepalive-sealed 1\n",
    b"keepalive-sealed 2\n",
    b"\"profile\":\"other\"",
    b"\"profile\":\"demo\"",
    b"\"generation\":1",
    b"\"generation\":18446744073709551615",
    b"\"format\":2",
    b"\"attempt_id\":null",
    b"null",
    b"{",
    b"}",
    b"\n",
    b"\0",
    b"\"",
    b"1e999",
    b"2026-11-24T12:00:00Z",
];

const NAMES: [&str; 15] = [
    "client_block",
    "lifetime_ms",
    "uptime_ms",
    "profile",
    "generation",
    "format",
    "fingerprint",
    "intent",
    "rejected",
    "is_tombstone",
    "sequence",
    "publication",
    "validity",
    "attempt_id",
    "key_id",
];

fn name(text: &str) -> ProfileName {
    text.parse().unwrap()
}

fn now() -> Moment {
    Moment { wall: NOW, boot_id: "b".into(), uptime_ms: 0 }
}

fn refresh_token(profile: &str, generation: u64) -> RefreshToken {
    RefreshToken::new(format!("{profile}-rt-{generation}")).unwrap()
}

fn binding() -> Binding {
    Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() }
}

/// What one profile's files held at one time, and what the keyring did.
#[derive(Clone, Default)]
struct DiskState {
    files: BTreeMap<&'static str, Vec<u8>>,
    item: Option<String>,
}

/// A store with two profiles, and what the files of one of them were at each generation.
struct DamagedStoreFixture {
    dir: PathBuf,
    _temporary: tempfile::TempDir,
    store: Store,
    keyring: MemoryKeyring,
    key: Arc<SealingKey>,
    /// At generations 1 to `NEWEST`.
    history: Vec<DiskState>,
    other: DiskState,
    items: BTreeMap<KeyringItem, String>,
}

impl DamagedStoreFixture {
    fn new(with_keyring: bool) -> Self {
        // Syncing is not what is tested here, and memory has none to do.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let temporary = tempfile::Builder::new().prefix("keepalive-fuzz-").tempdir_in(place).unwrap();
        let dir = temporary.path().to_owned();
        let keyring = MemoryKeyring::default();
        let key = dir.join("key");
        std::fs::write(&key, [7; 32]).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let kind = match with_keyring {
            true => StoreKind::Keyring { service: "keepalive".into() },
            false => StoreKind::File { key: keepalive::profile::KeySource::File(key) },
        };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        let ring = keyring.clone();
        let store = Store::new(&settings, &dir.join("state"), None, || Box::new(ring));
        let key = store.prepare_to_seal("demo").unwrap().0;
        let mut bench = Self {
            dir,
            _temporary: temporary,
            store,
            keyring,
            key,
            history: Vec::new(),
            other: DiskState::default(),
            items: BTreeMap::new(),
        };
        bench.import("demo");
        bench.history.push(bench.state("demo"));
        for generation in 2..=NEWEST {
            bench.advance(generation);
        }
        bench.import("other");
        bench.other = bench.state("other");
        bench.items = bench.keyring.snapshot();
        bench
    }

    fn folder(&self, profile: &str) -> PathBuf {
        self.dir.join("state/profiles").join(profile)
    }

    fn item(profile: &str) -> KeyringItem {
        KeyringItem { service: "keepalive".into(), user: profile.into() }
    }

    fn import(&self, profile: &str) {
        // A key that was just born is confirmed after a second, which would be slept here; the first seal needs no more.
        let path = self.store.create_lock_file(&name(profile)).unwrap();
        let lock = LockFile::acquire(&path).unwrap();
        let name = name(profile);
        let mut vault = self.store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
        let credential = Credential {
            generation: Generation::FIRST,
            binding: binding(),
            refresh: refresh_token(profile, 1),
            grant: Grant {
                access: AccessToken::new(format!("{profile}-at-1")),
                validity: Some(Validity {
                    obtained: now(),
                    lifetime_ms: 600_000,
                    assumed: false,
                    is_remainder: false,
                    expired_at: None,
                }),
                token_type: "Bearer".into(),
                scope: None,
                id_token: None,
                login_by: None,
                not_before: None,
            },
        };
        vault.seal_credential(&credential, &self.key).unwrap();
        vault.publish(&credential, &self.key).unwrap();
        vault.journal.set_credential(&credential, self.key.fingerprint(&credential.refresh));
        vault.save_journal().unwrap();
    }

    /// A refresh of `demo`, step by step as the engine makes it, with a copy of every state on the way.
    fn advance(&mut self, generation: u64) {
        let path = self.store.create_lock_file(&name("demo")).unwrap();
        let lock = LockFile::acquire(&path).unwrap();
        let name = name("demo");
        let mut vault = self.store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
        let old = refresh_token("demo", generation - 1);
        let attempt = format!("a{generation}");
        vault.journal.intent = Some(Intent {
            attempt_id: attempt.clone(),
            generation: Generation::new(generation - 1),
            fingerprint: self.key.fingerprint(&old),
            send_count: 1,
            first_sent: now(),
            last_sent: now(),
            gave_up_at: None,
            previous_gave_up_at: None,
            is_last_chance_used: false,
            is_reusable: false,
            client_mark: None,
            is_forced: false,
        });
        vault.save_journal().unwrap();
        let next = Generation::new(generation);
        let answer = answer(generation);
        let space = vault.reserve_response_space().unwrap();
        vault.seal_response(space, &answer, next, &attempt, &self.key).unwrap();
        let received = self.state("demo");
        let ResponseContent::Granted { credential, .. } = answer.parse(next) else { panic!("it grants") };
        vault.promote_response().unwrap();
        vault.publish(&credential, &self.key).unwrap();
        vault.mark_consumed(&self.key.fingerprint(&old)).unwrap();
        vault.journal.set_credential(&credential, self.key.fingerprint(&credential.refresh));
        vault.journal.intent = None;
        vault.save_journal().unwrap();
        let mut state = self.state("demo");
        state.files.insert("received", received.files["received"].clone());
        self.history.push(state);
    }

    fn state(&self, profile: &str) -> DiskState {
        let folder = self.folder(profile);
        let read = |file: &&'static str| Some((*file, std::fs::read(folder.join(file)).ok()?));
        let item = self.keyring.read(&Self::item(profile)).unwrap().map(|found| found.value.to_string());
        DiskState { files: FILES.iter().filter_map(read).collect(), item }
    }

    fn put(&self, state: &DiskState) {
        let folder = self.folder("demo");
        for file in FILES {
            match state.files.get(file) {
                Some(bytes) => std::fs::write(folder.join(file), bytes).unwrap(),
                None => drop(std::fs::remove_file(folder.join(file))),
            }
        }
        let mut items = self.items.clone();
        match &state.item {
            Some(item) => items.insert(Self::item("demo"), item.clone()),
            None => items.remove(&Self::item("demo")),
        };
        self.keyring.restore(items);
    }

    fn newest(&self) -> &DiskState {
        &self.history[NEWEST as usize - 1]
    }

    /// One thing of a state, altered, cut, swapped with another's or an older one, or gone. The journal is not signed, so
    /// what is made of it is told apart: `true` if it may say anything now.
    fn damaged(
        &self,
        rng: &mut Rng,
        whole: Option<&Vec<u8>>,
        old: Option<&Vec<u8>>,
        foreign: Option<&Vec<u8>>,
    ) -> Option<Vec<u8>> {
        match rng.below(8) {
            0 => None,
            1 => foreign.cloned(),
            2 => old.cloned(),
            3 => Some(Vec::new()),
            4 => whole.map(|bytes| bytes[..rng.below(bytes.len())].to_vec()),
            5 => whole.map(|bytes| {
                let mut bytes = bytes.clone();
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
                bytes
            }),
            6 => whole.map(|bytes| match serde_json::from_slice::<Value>(bytes) {
                Ok(mut value) => {
                    random_damage::members(rng, &mut value, &NAMES);
                    serde_json::to_vec(&value).unwrap()
                }
                Err(_) => bytes.iter().rev().copied().collect(),
            }),
            _ => whole.map(|bytes| {
                let mut bytes = bytes.clone();
                random_damage::bytes(rng, &mut bytes, &WORDS);
                bytes
            }),
        }
    }

    /// The newest state with one or more of its parts damaged, and which were.
    fn damage(&self, rng: &mut Rng) -> (DiskState, Vec<&'static str>) {
        let (mut state, mut parts) = (self.newest().clone(), Vec::new());
        if !rng.once_in(4) {
            state.files.remove("received");
        }
        let old = &self.history[rng.below(NEWEST as usize - 1)];
        for part in ["record.json", "sealed", "received", "item"] {
            if !rng.once_in(2) {
                continue;
            }
            parts.push(part);
            if part == "item" {
                let bytes = |item: &Option<String>| item.as_ref().map(|text| text.clone().into_bytes());
                let (whole, old, foreign) = (bytes(&state.item), bytes(&old.item), bytes(&self.other.item));
                let damaged = self.damaged(rng, whole.as_ref(), old.as_ref(), foreign.as_ref());
                state.item = damaged.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                continue;
            }
            let foreign = self.other.files.get(part).or(self.other.files.get("sealed"));
            match self.damaged(rng, state.files.get(part), old.files.get(part), foreign) {
                Some(bytes) => drop(state.files.insert(part, bytes)),
                None => drop(state.files.remove(part)),
            }
        }
        (state, parts)
    }
}

fn answer(generation: u64) -> SealedResponse {
    let body =
        format!(r#"{{"access_token":"demo-at-{generation}","expires_in":600,"refresh_token":"demo-rt-{generation}"}}"#);
    SealedResponse {
        status: 200,
        content_type: None,
        content_encoding: None,
        retry_after: None,
        body: SealedResponse::encode_body(body.as_bytes()),
        is_complete: true,
        sent_refresh_token: SecretText(format!("demo-rt-{}", generation - 1)),
        sent_at: now(),
        send_count: 1,
        binding: binding(),
        previous_grant: SealedGrant {
            access_token: None,
            validity: None,
            token_type: "Bearer".into(),
            scope: None,
            id_token: None,
            login_by: None,
            not_before: None,
        },
        default_lifetime_ms: 3_600_000,
        max_lifetime_ms: None,
        cooldown_ms: 0,
        further_secrets: Vec::new(),
    }
}

/// What a reader without a lock is given: the access token of a generation, never one below what the journal says.
fn look_without_lock(bench: &DamagedStoreFixture, state: &DiskState, parts: &[&str]) -> bool {
    let demo = name("demo");
    // It must not panic.
    drop(bench.store.peek(&demo));
    let Ok(Some(snapshot)) = bench.store.snapshot(&demo) else { return false };
    let generation = snapshot.generation.get();
    let token = format!("demo-at-{generation}");
    assert_eq!(snapshot.grant.access.as_ref().map(AccessToken::expose), Some(token.as_str()), "{parts:?}");
    let is_known = !parts.contains(&"record.json") && state.files.contains_key("record.json");
    assert!(!is_known || generation == NEWEST, "generation {generation} is handed out: {parts:?}");
    true
}

/// What a flight would send: the newest refresh token or none.
fn load(bench: &DamagedStoreFixture, parts: &[&str]) -> bool {
    let (demo, path) = (name("demo"), bench.folder("demo").join("lock"));
    let lock = LockFile::acquire(&path).unwrap();
    let Ok(mut vault) = bench.store.open_profile(Permit::from_lock(&demo, &lock)) else { return false };
    if let Ok(Some(pending)) = vault.pending_response(&bench.key) {
        let ResponseContent::Granted { credential, .. } = pending.response.parse(pending.generation) else {
            panic!("{parts:?}")
        };
        check(&credential, parts);
    }
    let Ok(Some(loaded)) = vault.load(&bench.key, false) else { return false };
    let credential = loaded.locked_credential.credential();
    check(credential, parts);
    if !vault.is_consumed(&loaded.fingerprint).unwrap() {
        assert_eq!(credential.generation.get(), NEWEST, "a spent token would be sent: {parts:?}");
    }
    let is_known = !parts.contains(&"record.json");
    assert!(!is_known || credential.generation.get() == NEWEST, "below the journal: {parts:?}");
    assert!(vault.journal.generation <= credential.generation, "{parts:?}");
    true
}

fn check(credential: &Credential, parts: &[&str]) {
    let generation = credential.generation.get();
    assert!((1..=NEWEST).contains(&generation), "{parts:?}: generation {generation}");
    assert!(credential.refresh == refresh_token("demo", generation), "{parts:?}: the token of another generation");
    assert_eq!(credential.binding, binding());
}

/// Both threads of a run have a bench of their own.
fn with_bench(with_keyring: bool, use_it: impl FnOnce(&DamagedStoreFixture)) {
    thread_local! {
        static BENCHES: [std::cell::OnceCell<DamagedStoreFixture>; 2] = const { [const { std::cell::OnceCell::new() }; 2] };
    }
    BENCHES.with(|benches| {
        use_it(benches[usize::from(with_keyring)].get_or_init(|| DamagedStoreFixture::new(with_keyring)))
    });
}

/// Rule 13.
#[test]
fn damaged_store_yields_no_older_or_foreign_token() {
    let (shown, loaded) = (AtomicU64::new(0), AtomicU64::new(0));
    super::run("store", 4_000, |rng| {
        with_bench(rng.once_in(2), |bench| {
            let (state, parts) = bench.damage(rng);
            bench.put(&state);
            shown.fetch_add(look_without_lock(bench, &state, &parts).into(), Ordering::Relaxed);
            loaded.fetch_add(load(bench, &parts).into(), Ordering::Relaxed);
        });
    });
    // Else nothing was compared. One case alone may be one that does not open.
    let is_one_case = std::env::var_os("KEEPALIVE_FUZZ_SEED").is_some();
    assert!(is_one_case || (shown.into_inner() > 0 && loaded.into_inner() > 0), "no damaged store could be read");
}

/// Whatever a journal says, `status` and the scheduler can make something of it.
fn judge(rng: &mut Rng, journal: &Journal) {
    let rotation = [Rotation::Strict, Rotation::Grace, Rotation::Lenient, Rotation::None][rng.below(4)];
    let grace = Duration::from_secs(rng.next() % 200);
    let policy = Policy { rotation, reuse_grace: grace, last_chance: rng.once_in(2), ..Policy::default() };
    let margin =
        if rng.once_in(2) { Margin::DEFAULT } else { Margin::Fixed(Duration::from_secs(rng.next() % 100_000)) };
    let wall = Timestamp::from_millis((rng.next() % 3_000_000_000_000) as i64);
    let now = Moment { wall, boot_id: "b".into(), uptime_ms: rng.next() >> rng.below(64) };
    let early = jitter("demo", margin, journal.validity.as_ref());
    let standing = profile_status(
        Some(journal),
        StatusPolicy { policy: &policy, margin, jitter: early, is_following: false },
        &now,
    );
    if standing.state == outcome::ProfileState::Fresh {
        assert!(
            journal.validity.as_ref().is_some_and(|v| !v.remaining(&now).is_zero()),
            "fresh, and expired: {journal:?}"
        );
    }
}

#[test]
fn damaged_journal_is_never_read_as_another_profile() {
    let bench = DamagedStoreFixture::new(false);
    let path = bench.folder("demo").join("record.json");
    let mut whole: Journal = serde_json::from_slice(&bench.newest().files["record.json"]).unwrap();
    let fingerprint = whole.fingerprint.clone().unwrap();
    let failure = Failure::new(ErrorKind::Io, "x");
    // One with everything in it.
    whole.intent = Some(Intent {
        attempt_id: "a".into(),
        generation: whole.generation,
        fingerprint: fingerprint.clone(),
        send_count: 1,
        first_sent: now(),
        last_sent: now(),
        gave_up_at: Some(now()),
        previous_gave_up_at: None,
        is_last_chance_used: false,
        is_reusable: false,
        client_mark: None,
        is_forced: false,
    });
    let client = RefusedClient { config_fingerprint: "c".into(), probe_count: 1 };
    whole.set_block(Block {
        client: Some(client),
        next_check: Some(NOW),
        ..Block::new(Cause::Client, failure.clone())
    });
    whole.rejected = Some(Rejection { fingerprint, at: NOW, failure, client: None, was_in_doubt: false });
    let whole = serde_json::to_vec(&whole).unwrap();
    drop(bench);
    let dir = tempfile::tempdir().unwrap();
    super::run("journal", 4_000, |rng| {
        let path =
            dir.path().join(format!("{:?}-{}", std::thread::current().id(), path.file_name().unwrap().display()));
        let mut bytes = whole.clone();
        random_damage::bytes(rng, &mut bytes, &WORDS);
        if let (true, Ok(mut value)) = (rng.once_in(2), serde_json::from_slice::<Value>(&whole)) {
            random_damage::members(rng, &mut value, &NAMES);
            bytes = serde_json::to_vec(&value).unwrap();
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(Some(journal)) = Journal::read(&path, &name("demo")) {
            assert_eq!((&journal.profile, journal.format), (&name("demo"), 2));
            judge(rng, &journal);
        }
    });
}

#[test]
fn damaged_sealed_credential_does_not_open() {
    let bench = DamagedStoreFixture::new(false);
    let files: Vec<_> =
        bench.history.iter().flat_map(|s| s.files.get("sealed")).chain(bench.other.files.get("sealed")).collect();
    let key = &bench.key;
    super::run("seal", 20_000, |rng| {
        let whole = files[rng.below(files.len())];
        let mut bytes = whole.clone();
        random_damage::bytes(rng, &mut bytes, &WORDS);
        let _told = envelope::header(&bytes);
        let opened = envelope::open::<SealedContent>(&bytes, &name("demo"), key);
        assert!(opened.is_err() || files.contains(&&bytes), "it opened");
        if let Ok((header, _)) = opened {
            assert_eq!(header.profile, name("demo"));
        }
        assert!(envelope::open::<SealedContent>(whole, &name("demo"), &SealingKey::new([8; 32])).is_err());
    });
    let is_whole = |file: &&&Vec<u8>| envelope::open::<SealedContent>(file, &name("demo"), key).is_ok();
    assert!(files.iter().filter(is_whole).count() > 0, "an undamaged file opens");
}
