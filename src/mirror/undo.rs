//! Takes back what was written: our members or our file. No token is put back: the one that was there was taken over, and
//! is long consumed.

use std::path::Path;

use crate::mirror::document::Recipe;
use crate::mirror::json_text::JsonText;
use crate::mirror::place::Place;
use crate::mirror::state::MirrorRecord;
use crate::mirror::values::mark;
use crate::mirror::{HeldFile, Mirrors, directory, target};
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
    ///
    /// # Errors
    /// If it is still there. It can be done again.
    pub fn undo(&self, profile: &Profile, mirror: &Mirror) -> Result<Undone, Failure> {
        let held = self.hold_for_undo(profile, mirror)?;
        self.undo_held(profile, mirror, &held)
    }

    /// Takes the locks that an undo needs, before anything is changed.
    ///
    /// # Errors
    /// If one is held by another process for too long.
    pub fn hold_for_undo(&self, profile: &Profile, mirror: &Mirror) -> Result<HeldFile, Failure> {
        self.hold_place(&Place::of(profile, mirror, &self.dirs)?)
    }

    /// As [`Mirrors::undo`], under locks that are held.
    ///
    /// # Errors
    /// If it is still there. It can be done again.
    pub fn undo_held(&self, profile: &Profile, mirror: &Mirror, _held: &HeldFile) -> Result<Undone, Failure> {
        let place = Place::of(profile, mirror, &self.dirs)?;
        let record = self.records.read(&place.key).ok().flatten().unwrap_or_default();
        let undone = remove(&place, &record, &profile.provider.name)?;
        let failed = |e| target::failed(place.name.as_ref(), "remove the record of", &e);
        self.records.remove(&place.key).map_err(failed)?;
        Ok(undone)
    }

    /// The mirrors of a program that the configuration does not have any more, and that were not emptied: the run that
    /// undid them was killed, or a person changed the configuration.
    pub fn left_behind(&self, profile: &Profile, consumer: &'static Consumer) -> Vec<Mirror> {
        let place_key = |mirror: &Mirror| Place::of(profile, mirror, &self.dirs).ok().map(|place| place.key);
        let configured: Vec<_> = profile.mirrors.iter().map(place_key).collect();
        let records = self.records.all().into_iter().map(|(_, record)| record);
        let of_profile = records.filter(|record| {
            record.profile.as_ref() == Some(&profile.name) && record.kind == consumer.name && record.has_written_any()
        });
        let mirrors = of_profile.map(|record| Mirror {
            path: matches!(consumer.delivery, Delivery::Document { .. }).then(|| record.path.into()),
            form: MirrorForm::Consumer { consumer, entry: record.entry },
        });
        mirrors.filter(|mirror| !configured.contains(&place_key(mirror))).collect()
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
        MirrorForm::Consumer { .. } | MirrorForm::Json { .. } => remove_members(place, record, provider),
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
    let stripped = recipe.strip(text, &record.before, record.is_ours_alone);
    match stripped.map_err(|fault| target::refused(&place.path, &fault.to_string(), "look at the file"))? {
        None => remove_file(&place.path),
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
