//! What a feed does with the sign-in that a program's file has: it looks first, then holds the file, and takes the refresh
//! token out before anything is sent with it.

use std::path::Path;

use crate::credential::secret::RefreshToken;
use crate::engine::refresh::fed_programs::FedPrograms;
use crate::mirror::attempt::{Attempt, Stopped};
use crate::mirror::consumer_lock::{self, ConsumerLocks};
use crate::mirror::document::{Known, MergeRefusal, Recipe, Rival};
use crate::mirror::json_text::{JsonFault, JsonText};
use crate::mirror::place::Place;
use crate::mirror::values::mark;
use crate::mirror::{LOCK_WAIT, Mirrors, PROGRAM_WAIT, SeenFile, not_locked, target};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, Delivery};
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::sys::lockfile::LockFile;
use crate::sys::paths;

/// What a look at a program's file found.
#[derive(Debug, Default)]
pub struct FileLook {
    pub seen: SeenFile,
    /// What is not ours to overwrite, in words that go on after the name of the file.
    pub rival: Option<(Rival, String)>,
    /// It has a refresh token, which its program would use.
    pub has_refresh_token: bool,
}

/// The locks of a file, ours and its program's. Dropping it releases them.
#[derive(Debug)]
pub struct HeldFile {
    _program: ConsumerLocks,
    _own: LockFile,
}

impl Mirrors {
    /// Finds out whether a mirror could be written, and what is in its place. Changes nothing.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn look(&self, profile: &Profile, mirror: &Mirror) -> Result<FileLook, Failure> {
        let place = Place::of(profile, mirror, &self.dirs)?;
        if place.is_of_program() {
            return find_program(mirror).map(|()| FileLook::default());
        }
        target::check_replaceable(&place.path)?;
        let bytes = target::read(&place.path)?;
        let seen = SeenFile { mark: bytes.as_ref().map(|bytes| mark(bytes)) };
        let Some(recipe) = Recipe::of(place.form, &profile.provider.name) else {
            return Ok(FileLook { seen, ..FileLook::default() });
        };
        let content = bytes.as_ref().map(|bytes| bytes.as_slice()).filter(|bytes| !bytes.trim_ascii().is_empty());
        let unusable = |fault: JsonFault| unusable(&place.path, &fault);
        let parse = || content.map(JsonText::parse).transpose().map_err(unusable);
        let text = parse()?.unwrap_or_else(JsonText::empty);
        let has_refresh_token = recipe.refresh_in(&text).is_some();
        recipe.disarm(text).map_err(unusable)?;
        let rival = self.rival(profile, &place, &recipe, &parse)?;
        Ok(FileLook { seen, rival, has_refresh_token })
    }

    /// What the file has that is not ours to overwrite, as far as it can be told by the credential that is stored now.
    fn rival(
        &self,
        profile: &Profile,
        place: &Place<'_>,
        recipe: &Recipe,
        parse: &dyn Fn() -> Result<Option<JsonText>, Failure>,
    ) -> Result<Option<(Rival, String)>, Failure> {
        let record = self.records.read(&place.key).ok().flatten().unwrap_or_default();
        let attempt = Attempt {
            store: &self.store,
            clock: &self.clock,
            records: &self.records,
            place,
            profile,
            approved: None,
            waits: &self.waits,
            is_pausing: false,
        };
        let stored = attempt.stored_values().map_err(|Stopped { failure, .. }| failure)?;
        let Some((values, is_proven)) = stored else { return Ok(None) };
        let is_ours = |token: &str| token == values.access() || record.has_written(&mark(token.as_bytes()));
        let known = |is_approved| Known { is_ours: &is_ours, was_written: record.generation.is_some(), is_approved };
        let found = match recipe.merge(parse()?, &values, &known(false)) {
            Err(MergeRefusal::Conflict(rival, why)) => Some((rival, why)),
            Err(MergeRefusal::Lacking(_)) | Ok(_) => None,
        };
        match recipe.merge(parse()?, &values, &known(true)) {
            // What an unproven token lacks may come with the refresh that replaces it.
            Err(MergeRefusal::Lacking(value)) if is_proven => Err(attempt.lacking(value).failure),
            Err(MergeRefusal::Conflict(_, why)) => Err(target::refused(&place.path, &why, &mend(&place.path))),
            Err(MergeRefusal::Lacking(_)) | Ok(_) => Ok(found),
        }
    }

    /// Whether two mirrors write the same members of the same file.
    pub fn is_same_target(&self, a: (&Profile, &Mirror), b: (&Profile, &Mirror)) -> bool {
        let key = |(profile, mirror)| Place::of(profile, mirror, &self.dirs).ok().map(|place| place.key);
        key(a).is_some_and(|a| Some(a) == key(b))
    }

    /// Takes the locks of a mirror for as long as more than one write needs.
    ///
    /// # Errors
    /// If one is held by another process for too long.
    pub fn hold(&self, profile: &Profile, mirror: &Mirror) -> Result<HeldFile, Failure> {
        let place = Place::of(profile, mirror, &self.dirs)?;
        if !place.is_of_program() {
            target::prepare_dir(&place.path)?;
        }
        self.hold_place(&place)
    }

    pub(super) fn hold_place(&self, place: &Place<'_>) -> Result<HeldFile, Failure> {
        let own = self.records.lock(&place.file_key, LOCK_WAIT).map_err(|e| not_locked(&place.name, e))?;
        let program = match place.form {
            MirrorForm::Consumer {
                consumer: Consumer { delivery: Delivery::Document { lock, .. }, title, .. },
                ..
            } if place.path.parent().is_some_and(Path::is_dir) => {
                let note = self.records.lock_note(&place.file_key);
                consumer_lock::acquire(*lock, &place.path, title, &note, PROGRAM_WAIT)?
            }
            _ => ConsumerLocks::default(),
        };
        Ok(HeldFile { _program: program, _own: own })
    }

    /// Takes the refresh token out of the file, and leaves the access token: from then on its program refreshes nothing.
    /// The file must be the one that was seen. Returns it as it is then.
    ///
    /// # Errors
    /// If it was not written, and has its refresh token still.
    pub fn disarm(
        &self,
        profile: &Profile,
        mirror: &Mirror,
        seen: &SeenFile,
        _held: &HeldFile,
    ) -> Result<SeenFile, Failure> {
        let place = Place::of(profile, mirror, &self.dirs)?;
        let bytes = if place.is_of_program() { None } else { target::read(&place.path)? };
        if seen.mark != bytes.as_ref().map(|bytes| mark(bytes)) {
            let message = format!("{} was changed meanwhile", place.name);
            return Err(Failure::new(ErrorKind::Busy, message).with_hint("run it again"));
        }
        let (Some(recipe), Some(bytes)) = (Recipe::of(place.form, &profile.provider.name), bytes) else {
            return Ok(seen.clone());
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(seen.clone());
        }
        let text = JsonText::parse(&bytes).map_err(|fault| unusable(&place.path, &fault))?;
        if recipe.refresh_in(&text).is_none() {
            return Ok(seen.clone());
        }
        let access = recipe.access_in(&text);
        let merged = recipe.disarm(text).map_err(|fault| unusable(&place.path, &fault))?;
        let mut record = self.records.read(&place.key).ok().flatten().unwrap_or_default();
        record.describe(&place.name, mirror.form.name(), place.configured_entry(), &profile.name);
        record.before.extend(merged.before);
        record.note_pending();
        if let Some(access) = access {
            record.note_write(&mark(access.as_bytes()));
        }
        let noted = self.records.write(&place.key, &record);
        noted.map_err(|e| target::failed(place.name.as_ref(), "note the write of", &e))?;
        let new = merged.text.as_str().as_bytes();
        target::replace(&place.path, new)?;
        Ok(SeenFile { mark: Some(mark(new)) })
    }
}

fn mend(file: &Path) -> String {
    format!("mend it; or, if it is not needed, move it away: mv {0} {0}.old", file.display())
}

fn unusable(file: &Path, fault: &JsonFault) -> Failure {
    target::refused(file, &fault.to_string(), &mend(file))
}

/// Whether the program that takes the token is installed.
fn find_program(mirror: &Mirror) -> Result<(), Failure> {
    let MirrorForm::Consumer { consumer: Consumer { title, delivery: Delivery::Command { argv }, .. }, .. } =
        &mirror.form
    else {
        return Ok(());
    };
    let program = argv.first().copied().unwrap_or_default();
    match paths::find_in_path(program) {
        Some(_) => Ok(()),
        None => Err(Failure::new(ErrorKind::Mirror, format!("{title} is fed by `{program}`, which is not in PATH"))
            .with_hint(format!("install {program}, or add its directory to PATH"))),
    }
}

impl FedPrograms for Mirrors {
    fn holder(&self, profile: &Profile, is_ours: &dyn Fn(RefreshToken) -> bool) -> Option<Failure> {
        profile.mirrors.iter().find_map(|mirror| {
            let MirrorForm::Consumer { consumer, .. } = &mirror.form else { return None };
            let place = Place::of(profile, mirror, &self.dirs).ok().filter(|place| !place.is_of_program())?;
            // What cannot be read is told by the mirror itself, which delays no refresh.
            let text = target::read(&place.path).ok().flatten().and_then(|bytes| JsonText::parse(&bytes).ok())?;
            let token = Recipe::of(place.form, &profile.provider.name)?.refresh_in(&text)?;
            if !RefreshToken::new(token.as_str()).is_some_and(is_ours) {
                return None;
            }
            let message = format!(
                "{} has the same refresh token, which works once at this provider, and {} would use it, too",
                place.name, consumer.title
            );
            let hint = place.feed_command(profile.name.as_str()).unwrap_or_default();
            Some(Failure::new(ErrorKind::ToolFirst, message).with_hint(format!("take it out of there: {hint}")))
        })
    }
}
