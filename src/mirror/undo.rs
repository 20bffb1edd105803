//! Takes back what was written: our members or our file. No token is put back: the one that was there was taken over, and
//! is long consumed.

use std::path::Path;

use crate::mirror::document::Recipe;
use crate::mirror::json_text::JsonText;
use crate::mirror::place::Place;
use crate::mirror::state::MirrorRecord;
use crate::mirror::values::mark;
use crate::mirror::{LOCK_WAIT, Mirrors, consumer_lock, directory, not_locked, target};
use crate::outcome::Failure;
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, Delivery};
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::sys::durable;

/// What became of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// It had nothing else, and is gone.
    FileRemoved,
    /// What is not ours is still there.
    MembersRemoved,
    /// It has no token that keepalive wrote, and is left as it is.
    Untouched,
    /// A program of the consumer's has the token; there is no file.
    InProgram,
}

impl Mirrors {
    /// Removes what keepalive wrote, and what is noted about it.
    pub fn undo(&self, profile: &Profile, mirror: &Mirror) -> Result<Undone, Failure> {
        let place = Place::of(profile, mirror, &self.dirs)?;
        let lock = self.records.lock(&place.file_key, LOCK_WAIT).map_err(|e| not_locked(&place.name, e))?;
        let record = self.records.read(&place.key).ok().flatten().unwrap_or_default();
        let undone = remove(&place, &record, &profile.provider.name)?;
        let failed = |e| target::failed(place.name.as_ref(), "remove the record of", &e);
        self.records.remove(&place.key).map_err(failed)?;
        drop(lock);
        Ok(undone)
    }
}

fn remove(place: &Place<'_>, record: &MirrorRecord, provider: &str) -> Result<Undone, Failure> {
    let is_ours = |content: &[u8]| record.has_written(&mark(content));
    match place.form {
        MirrorForm::Directory { files } => {
            let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
            directory::remove(&place.path, &names).map_err(|e| target::failed(&place.path, "empty", &e))?;
            Ok(Undone::MembersRemoved)
        }
        MirrorForm::Consumer { consumer: Consumer { delivery: Delivery::Command { .. }, .. }, .. } => {
            Ok(Undone::InProgram)
        }
        MirrorForm::Consumer {
            consumer: Consumer { delivery: Delivery::Document { lock, .. }, title, .. }, ..
        } => {
            let _locked = consumer_lock::acquire(*lock, &place.path, title, LOCK_WAIT)?;
            remove_members(place, record, provider)
        }
        MirrorForm::Json { .. } => remove_members(place, record, provider),
        MirrorForm::File | MirrorForm::Template { .. } => match target::read(&place.path)? {
            Some(bytes) if is_ours(&bytes) => remove_file(&place.path),
            Some(_) | None => Ok(Undone::Untouched),
        },
    }
}

fn remove_members(place: &Place<'_>, record: &MirrorRecord, provider: &str) -> Result<Undone, Failure> {
    let (Some(recipe), Some(bytes)) = (Recipe::of(place.form, provider), target::read(&place.path)?) else {
        return Ok(Undone::Untouched);
    };
    let Ok(text) = JsonText::parse(&bytes) else { return Ok(Undone::Untouched) };
    let is_ours = recipe.access_in(&text).is_some_and(|token| record.has_written(&mark(token.as_bytes())));
    if !is_ours {
        return Ok(Undone::Untouched);
    }
    let stripped = recipe.strip(text, &record.before);
    match stripped.map_err(|fault| target::refused(&place.path, &fault.to_string(), "look at the file"))? {
        None => remove_file(&place.path),
        Some(_) if record.is_ours_alone && record.before.is_empty() => remove_file(&place.path),
        Some(text) => {
            target::replace(&place.path, text.as_str().as_bytes())?;
            Ok(Undone::MembersRemoved)
        }
    }
}

fn remove_file(file: &Path) -> Result<Undone, Failure> {
    let removed = durable::remove(file);
    removed.map_err(|e| target::failed(file, "remove", &e)).map(|()| Undone::FileRemoved)
}
