//! Mirrors: files, directories and programs that get the access token of a profile after each refresh. They never get its
//! refresh token: nothing here can name it.
//!
//! [`Mirrors::update`] is where to begin. Its order is what holds the promises: the lock of the file, the newest generation,
//! the lock of the program, the generation again, a note of what will be written, the write, and one more look at the
//! generation. So an older token never lands last, and a killed write leaves the old file or the new one.

mod attempt;
mod companion;
mod consumer_lock;
mod directory;
mod document;
mod json_text;
mod place;
mod state;
mod takeover;
mod target;
mod template;
mod undo;
mod values;
mod waits;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::credential::Generation;
use crate::engine::after_flight::{AfterFlight, has_token};
use crate::events;
pub use crate::mirror::attempt::follows_itself;
use crate::mirror::attempt::{Attempt, Stopped};
use crate::mirror::document::Recipe;
pub use crate::mirror::document::Rival;
use crate::mirror::place::Place;
pub use crate::mirror::state::MirrorState;
use crate::mirror::state::{MirrorRecord, MirrorRecords};
pub use crate::mirror::takeover::{FileLook, HeldFile};
pub use crate::mirror::undo::Undone;
use crate::mirror::waits::Waits;
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, Delivery};
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::store::Store;
use crate::store::journal::Journal;
use crate::sys::lockfile::LockError;
use crate::sys::paths::ToolDirs;
use crate::sys::tool_process::CompanionProgram;

/// How long another run that writes a file is waited for. What it writes is the newest, too.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// How long the lock of a program is waited for.
const PROGRAM_WAIT: Duration = Duration::from_secs(5);
/// A credential that changes more often than this while it is written is written by the next run.
const MAX_ROUNDS: usize = 4;

/// Keeps the mirrors of profiles up to date.
pub struct Mirrors {
    store: Arc<Store>,
    dirs: ToolDirs,
    clock: Arc<dyn Clock>,
    records: MirrorRecords,
    news: Mutex<Vec<String>>,
    waits: Waits,
    companion: Option<CompanionProgram>,
    /// The caller writes them after its flight.
    is_left_to_caller: AtomicBool,
}

/// How one mirror stands; an entry of `mirrors` in `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MirrorReport {
    /// The file or directory; of a program, its name and the entry.
    pub path: String,
    pub generation: Option<Generation>,
    pub state: MirrorState,
    pub error: Option<Failure>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mirrors({:?})", self.records)
    }
}

impl Mirrors {
    pub fn new(store: Arc<Store>, dirs: ToolDirs, clock: Arc<dyn Clock>) -> Self {
        let records = MirrorRecords::below(store.layout().dir());
        Self {
            store,
            dirs,
            clock,
            records,
            news: Mutex::default(),
            waits: Waits::default(),
            companion: None,
            is_left_to_caller: AtomicBool::default(),
        }
    }

    /// Writes nothing after the flights of this process: the caller does.
    pub fn leave_to_caller(&self) {
        self.is_left_to_caller.store(true, Ordering::Relaxed);
    }

    /// Lets a process of its own give a token to a slow program, where this one does not wait for it.
    #[must_use]
    pub fn with_companion(self, companion: Option<CompanionProgram>) -> Self {
        Self { companion, ..self }
    }

    /// How long all mirrors together may delay this process. `None`: as long as each needs. Without this, some seconds.
    pub fn limit_waits(&self, left: Option<Duration>) {
        self.waits.limit(left);
    }

    /// Writes the newest access token to each mirror that does not have it.
    pub fn update(&self, profile: &Profile) -> Vec<MirrorReport> {
        profile.mirrors.iter().map(|mirror| self.update_one(profile, mirror, None)).collect()
    }

    /// As [`Mirrors::update`] of one mirror, whose file may have a sign-in: a person agreed that `approved` is overwritten.
    pub fn take_over(&self, profile: &Profile, mirror: &Mirror, approved: &SeenFile) -> MirrorReport {
        self.update_one(profile, mirror, Some(approved))
    }

    /// How the mirrors stand, as far as it is noted. Reads no secret, and writes nothing.
    pub fn reports(&self, profile: &Profile, newest: Option<Generation>) -> Vec<MirrorReport> {
        profile.mirrors.iter().map(|mirror| self.report(profile, mirror, newest)).collect()
    }

    fn report(&self, profile: &Profile, mirror: &Mirror, newest: Option<Generation>) -> MirrorReport {
        let place = match Place::of(profile, mirror, &self.dirs) {
            Ok(place) => place,
            Err(failure) => return MirrorReport::nowhere(mirror, failure),
        };
        match self.records.read(&place.key) {
            Ok(record) => {
                let record = record.unwrap_or_default();
                let is_behind = record.state == MirrorState::Current && record.generation < newest;
                let state = if is_behind { MirrorState::Pending } else { record.state };
                MirrorReport { state, ..MirrorReport::of(&place, &record) }
            }
            Err(error) => {
                MirrorReport::nowhere(mirror, target::failed(Path::new(&place.name), "read the record of", &error))
            }
        }
    }

    /// The files that other users may use, and how.
    pub fn loose_files(&self, profile: &Profile) -> Vec<(String, String)> {
        let places = profile.mirrors.iter().filter_map(|mirror| Place::of(profile, mirror, &self.dirs).ok());
        let is_file = |place: &Place<'_>| place.path.is_file();
        let loose = places.filter(is_file).filter_map(|place| Some((place.name, target::loose_access(&place.path)?)));
        loose.collect()
    }

    /// What is new since the last call, for a person: one line for each change.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn update_one(&self, profile: &Profile, mirror: &Mirror, approved: Option<&SeenFile>) -> MirrorReport {
        let place = match Place::of(profile, mirror, &self.dirs) {
            Ok(place) => place,
            Err(failure) => return MirrorReport::nowhere(mirror, failure),
        };
        if let Some(companion) = self.companion.as_ref().filter(|_| {
            // A person who asks for it waits for it.
            approved.is_none() && place.is_of_program() && self.waits.is_bounded()
        }) {
            return self.update_by_companion(companion, profile, mirror, &place);
        }
        let lock = match self.waits.within(&*self.clock, LOCK_WAIT, |limit| self.records.lock(&place.file_key, limit)) {
            Ok(lock) => lock,
            // The other run writes the newest, too.
            Err(error) => return MirrorReport::nowhere(mirror, not_locked(&place.name, error)),
        };
        let before = self.records.read(&place.key).ok().flatten();
        let mut record = before.clone().unwrap_or_default();
        record.describe(&place.name, mirror.form.name(), place.configured_entry(), &profile.name);
        let is_pausing = approved.is_none() && record.is_pausing(self.clock.now().wall);
        if is_pausing && place.is_of_program() {
            return MirrorReport::of(&place, &record);
        }
        let attempt = Attempt {
            store: &self.store,
            clock: &self.clock,
            records: &self.records,
            place: &place,
            profile,
            approved,
            waits: &self.waits,
            is_pausing,
        };
        for _ in 0..MAX_ROUNDS {
            match attempt.run(&mut record) {
                Ok(Some(generation)) if self.newest(profile) > Some(generation) => {}
                Ok(None) => {
                    record.note_pending();
                    break;
                }
                Ok(Some(_)) => break,
                Err(Stopped { state, failure, has_waited }) => {
                    if has_waited {
                        record.note_wait_in_vain(self.clock.now().wall);
                    }
                    if record.note_failure(state, &failure) {
                        self.tell(profile, &place.name, &failure);
                    }
                    break;
                }
            }
        }
        if before.as_ref() != Some(&record) {
            // It is read again before the next write; then it counts as not written.
            let _noted = self.records.write(&place.key, &record);
        }
        drop(lock);
        MirrorReport::of(&place, &record)
    }

    fn journal(&self, profile: &Profile) -> Option<Journal> {
        self.store.peek(&profile.name).ok().flatten()
    }

    fn newest(&self, profile: &Profile) -> Option<Generation> {
        self.journal(profile).map(|journal| journal.generation)
    }

    fn tell(&self, profile: &Profile, mirror: &str, failure: &Failure) {
        events::mirror_failed(&profile.name, mirror, failure);
        let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        let line = format!("{}: mirror {mirror}: {}{hint}", profile.name, failure.message);
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl MirrorReport {
    fn of(place: &Place<'_>, record: &MirrorRecord) -> Self {
        Self {
            path: place.name.clone(),
            generation: record.generation,
            state: record.state,
            error: record.error.clone(),
        }
    }

    /// One of which it is not known where it is.
    fn nowhere(mirror: &Mirror, failure: Failure) -> Self {
        let path = mirror.path.as_ref().map_or(mirror.form.name().to_owned(), |path| path.display().to_string());
        Self { path, generation: None, state: MirrorState::Failed, error: Some(failure) }
    }
}

fn not_locked(mirror: &str, error: LockError) -> Failure {
    match error {
        LockError::Held(holder) => {
            Failure::new(ErrorKind::Busy, format!("{holder} is writing {mirror}")).with_hint(holder.hint())
        }
        LockError::Io(error) => Failure::new(ErrorKind::Mirror, format!("cannot lock {mirror}: {error}"))
            .with_hint("check the owner and the permissions of its directory"),
    }
}

impl AfterFlight for Mirrors {
    fn is_wanted(&self, profile: &Profile, outcome: &Outcome) -> bool {
        has_token(outcome) && !profile.mirrors.is_empty() && !self.is_left_to_caller.load(Ordering::Relaxed)
    }

    fn run(&self, profile: &Profile, _outcome: &Outcome) {
        self.update(profile);
    }
}

/// Where a program has its file, by the same variables as the program itself. `None`: it has none, or several.
pub fn usual_path(consumer: &Consumer, dirs: &ToolDirs) -> Option<PathBuf> {
    place::usual_path(consumer, dirs)
}

/// What is written, for a person: a line for each member, or the command.
pub fn changes(mirror: &Mirror, profile: &Profile) -> Vec<String> {
    match &mirror.form {
        MirrorForm::Consumer { consumer: Consumer { delivery: Delivery::Command { argv }, .. }, .. } => {
            vec![argv.join(" ")]
        }
        form => Recipe::of(form, &profile.provider.name).map_or_else(Vec::new, |recipe| recipe.describe()),
    }
}

/// A file as it was looked at before a person was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenFile {
    mark: Option<String>,
}

impl SeenFile {
    fn is(&self, bytes: &[u8]) -> bool {
        self.mark.as_deref() == Some(values::mark(bytes).as_str())
    }
}
