//! Whether a refresh could store its response here: what `status` and `doctor` say of a store before a run meets it.

use std::path::Path;

use crate::events;
use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::store::error::RESERVE;
use crate::store::tokens::scan::ScannedProfile;
use crate::store::{LockedProfile, Store, StoreError};
use crate::sys::durable::{StagedFile, temporary_name};
use crate::sys::write_access::{self as access, Obstacle};

/// The space reserved for a response: the largest response in base64, and the tokens of the previous generation, which
/// it may leave unchanged and which may be as large.
const RESPONSE_SPACE: u64 = 4 * 1024 * 1024;

/// What a flight needs beside the space for the response: the journal, a lock file, and a line of the ledger.
const BOOKKEEPING_SPACE: u64 = 32 * 1024;
/// The files that a flight makes: the response, the journal, and the lock of the token; at first the ledger and its lock too.
const NEW_FILES: u64 = 5;

fn at(path: &Path, checked: Result<(), Obstacle>) -> Result<(), StoreError> {
    checked.map_err(|obstacle| StoreError::Unwritable { path: path.to_owned(), obstacle })
}

impl LockedProfile<'_, '_> {
    /// Reserves the space for a response, durably, so that a full disk is noticed now (rule 8).
    pub fn reserve_response_space(&self) -> Result<StagedFile, StoreError> {
        events::step(self.permit.profile(), "reserving space for the response");
        let path = self.folder.received();
        StagedFile::create(&path, RESPONSE_SPACE).map_err(|e| StoreError::io(RESERVE, &path, e))
    }

    /// That a response could get its names (rule 8). No other step before the request would notice. A response in hand is
    /// written without asking.
    pub fn check_names(&self) -> Result<(), StoreError> {
        let names = [self.sealed.path(), self.received.path()];
        names.into_iter().try_for_each(|path| at(path, access::check_replaceable(path)))
    }
}

impl Store {
    /// Whether a refresh of this profile could store its response here, as far as can be told without writing. Where nothing is
    /// stored yet, nothing is refreshed. What can be told only by writing, as a quota, is told by the run that meets it.
    pub fn check_room(&self, name: &ProfileName) -> Result<(), StoreError> {
        let folder = self.layout.profile_folder(name);
        let (dir, journal, received) = (folder.dir(), folder.journal(), folder.received());
        if !dir.exists() {
            return Ok(());
        }
        at(dir, access::check_directory(dir))?;
        at(&folder.lock(), access::check_lockable(&folder.lock()))?;
        for path in [&journal, &folder.sealed(), &received] {
            at(path, access::check_readable(path).and_then(|()| access::check_replaceable(path)))?;
        }
        let staged = [temporary_name(&journal), temporary_name(&received)];
        for path in &staged {
            at(path, access::check_removable(path))?;
        }
        let tokens = self.layout.token_locks();
        at(&tokens, access::check_lock_directory(&tokens))?;
        let [_, leftover] = &staged;
        // Profiles share it, so one place is named for all.
        let space = access::check_space(dir, RESPONSE_SPACE + BOOKKEEPING_SPACE, NEW_FILES, leftover);
        at(self.layout.dir(), space)
    }

    /// Whether a credential from elsewhere could be stored here: all that storing it reads and writes beside the files of its
    /// own profile. A login asks before the person signs in, since what is granted then is nowhere else.
    pub fn check_admission(&self, name: &ProfileName) -> Result<(), StoreError> {
        self.check_room(name)?;
        let (ledger, lock, tokens) = (self.layout.ledger(), self.layout.ledger_lock(), self.layout.token_locks());
        at(&ledger, access::check_readable(&ledger).and_then(|()| access::check_replaceable(&ledger)))?;
        at(&lock, access::check_lockable(&lock))?;
        at(&tokens, access::check_lock_directory(&tokens))?;
        let profiles = self.layout.profiles();
        at(&profiles, access::check_lock_directory(&profiles))?;
        self.ledger.snapshot()?;
        // A profile that cannot be read may hold the token that is about to come.
        let scan = self.scan()?;
        scan.profiles.iter().filter(|other| other.name != *name).try_for_each(ScannedProfile::check_sealed)
    }

    /// What ended because something could not be written here, with what to do about that, if the cause is seen now.
    #[must_use]
    pub fn with_room_hint(&self, name: &ProfileName, outcome: Outcome) -> Outcome {
        let Some(no_room) = self.check_room(name).err().filter(|_| outcome.kind == OutcomeKind::StoreUnavailable)
        else {
            return outcome;
        };
        Outcome { error: outcome.error.map(|failure| failure.with_hint(no_room.hint())), ..outcome }
    }

    /// Whether it can be told which store this is. Without that, nothing in it can be opened.
    pub fn check_identity(&self) -> Result<(), StoreError> {
        let path = self.layout.identity();
        self.identity.find().map(drop).or_else(|e| at(&path, access::check_readable(&path)).and(Err(e)))
    }
}
