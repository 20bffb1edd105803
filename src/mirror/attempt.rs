//! One attempt to bring a mirror up to date, under its lock.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::credential::Generation;
use crate::events;
use crate::mirror::consumer_lock::{self, ConsumerLocks};
use crate::mirror::document::{Known, MergeRefusal, Recipe, Rival};
use crate::mirror::json_text::JsonText;
use crate::mirror::place::Place;
use crate::mirror::state::{MirrorRecord, MirrorRecords, MirrorState};
use crate::mirror::values::{Values, mark};
use crate::mirror::waits::Waits;
use crate::mirror::{PROGRAM_WAIT, SeenFile};
use crate::mirror::{directory, target, template};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, ConsumerLock, Delivery};
use crate::profile::mirror::{MirrorForm, MirrorValue};
use crate::store::journal::block::Cause;
use crate::store::{Store, StoreError};
use crate::sys::{paths, tool_process};

/// How long a program may take to take a token: OpenClaw needs 13 s.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What an attempt needs.
pub(super) struct Attempt<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) records: &'a MirrorRecords,
    pub(super) place: &'a Place<'a>,
    pub(super) profile: &'a Profile,
    pub(super) approved: Option<&'a SeenFile>,
    pub(super) waits: &'a Waits,
    /// An earlier run has waited in vain: this one does not.
    pub(super) is_pausing: bool,
}

/// Why nothing was written.
#[derive(Debug)]
pub(super) struct Stopped {
    pub(super) state: MirrorState,
    pub(super) failure: Failure,
    /// It took time, which the next runs do not spend again at once.
    pub(super) has_waited: bool,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self { state: MirrorState::Failed, failure, has_waited: false }
    }
}

impl Attempt<'_> {
    /// Writes the newest access token, if it is not there. Returns the generation that is there; `None`: there is none to
    /// write yet.
    pub(super) fn run(&self, record: &mut MirrorRecord) -> Result<Option<Generation>, Stopped> {
        if self.is_intact(record) {
            return Ok(record.generation);
        }
        let Some(values) = self.values()? else { return Ok(None) };
        match self.place.form {
            MirrorForm::Json { .. } => self.write_document(ConsumerLock::None, "", values, record),
            MirrorForm::Consumer { consumer, .. } => match &consumer.delivery {
                Delivery::Document { lock, .. } => self.write_document(*lock, consumer.title, values, record),
                Delivery::Command { argv } => self.run_command(argv, &values, record),
            },
            MirrorForm::File => {
                let content = values.access().to_owned();
                self.write_content(content, &values, record)
            }
            MirrorForm::Template { source } => {
                let content = template::render(source, &values)?;
                self.write_content(content, &values, record)
            }
            MirrorForm::Directory { files } => self.write_directory(files, &values, record),
        }
        .map(Some)
    }

    /// The newest values; `None` while there is no access token that is known to live.
    fn values(&self) -> Result<Option<Values>, Stopped> {
        // Of an imported token whose age is not known, it is not known that it lives: a refresh replaces it first.
        Ok(self.stored_values()?.filter(|(_, is_proven)| *is_proven).map(|(values, _)| values))
    }

    /// The newest values, and whether the access token is known to live.
    pub(super) fn stored_values(&self) -> Result<Option<(Values, bool)>, Stopped> {
        let name = &self.profile.name;
        let store_failure = |e: StoreError| {
            let failure = e.outcome().error.unwrap_or_else(|| Failure::new(ErrorKind::Store, e.to_string()));
            Stopped::from(failure.with_names(name.as_str(), None))
        };
        let view = self.store.view(name).map_err(store_failure)?;
        let Some(journal) = &view.journal else { return Ok(None) };
        if let Some(block) = journal.block(Cause::OtherAccount) {
            return Err(block.failure.clone().into());
        }
        if let Some(origin) = journal.origin.as_ref().filter(|_| self.profile.follow) {
            self.check_not_followed(origin)?;
        }
        let Some(snapshot) = self.store.snapshot_of(name, &view).map_err(store_failure)? else { return Ok(None) };
        let is_proven = snapshot.grant.validity.as_ref().is_some_and(|validity| !validity.is_unproven());
        let identity = journal.origin.as_ref().map(|origin| origin.identity.clone()).unwrap_or_default();
        let values = Values::of(&snapshot, identity, self.profile, self.clock.now().wall);
        Ok(values.map(|values| (values, is_proven)))
    }

    /// A program cannot be the one that refreshes, and have no refresh token.
    fn check_not_followed(&self, origin: &crate::credential::external::ImportSource) -> Result<(), Stopped> {
        let MirrorForm::Consumer { consumer, .. } = self.place.form else { return Ok(()) };
        let is_same_place = origin
            .location
            .as_ref()
            .is_none_or(|place| target::locate(place.as_ref()).is_ok_and(|place| place == self.place.path));
        if consumer.tool != Some(origin.tool.as_str()) || !is_same_place {
            return Ok(());
        }
        Err(follows_itself(self.profile, consumer).into())
    }

    fn newest(&self) -> Option<Generation> {
        self.store.peek(&self.profile.name).ok().flatten().map(|journal| journal.generation)
    }

    /// Notes what is about to be written. What is there after a kill is known as ours by this.
    fn note(&self, mark: &str, record: &mut MirrorRecord) -> Result<(), Stopped> {
        record.note_write(mark);
        let noted = self.records.write(&self.place.key, record);
        noted.map_err(|e| target::failed(self.place.name.as_ref(), "note the write of", &e).into())
    }

    fn landed(&self, mark: &str, generation: Generation, record: &mut MirrorRecord) -> Generation {
        if record.generation != Some(generation) || record.state != MirrorState::Current {
            events::mirror_written(&self.profile.name, &self.place.name, generation);
        }
        record.note_landed(mark, generation);
        generation
    }

    fn conflict(&self, rival: Rival, why: &str) -> Stopped {
        let path = &self.place.name;
        let hint = match self.place.feed_command(self.profile.name.as_str()) {
            _ if rival == Rival::Unreadable => {
                format!("mend it; or, if it is not needed: rm {path}; then keepalive writes it")
            }
            Some(command) => format!("to feed it again: {command}"),
            None if matches!(self.place.form, MirrorForm::Json { .. }) => {
                format!("if that is not needed, remove it from {path}; then keepalive writes it")
            }
            None => format!("if that is not needed: rm {path}; then keepalive writes it"),
        };
        let failure = Failure::new(ErrorKind::Mirror, format!("{path} is left as it is: {why}")).with_hint(hint);
        Stopped { state: MirrorState::Conflict, failure, has_waited: false }
    }

    pub(super) fn lacking(&self, value: &str) -> Stopped {
        let message = format!("{} is not written: its {value} is not known", self.place.name);
        let hint = format!("sign in again, so that the provider tells it: keepalive login {}", self.profile.name);
        Failure::new(ErrorKind::Mirror, message).with_hint(hint).into()
    }

    fn write_document(
        &self,
        lock: ConsumerLock,
        title: &str,
        values: Values,
        record: &mut MirrorRecord,
    ) -> Result<Generation, Stopped> {
        let file = &self.place.path;
        let recipe = Recipe::of(self.place.form, &self.profile.provider.name)
            .ok_or_else(|| target::refused(file, "is no JSON file", "name another kind of mirror"))?;
        target::prepare_dir(file)?;
        target::examine(file)?;
        let _locked = self.lock_of_program(lock, title)?;
        // The lock may have been waited for.
        let values = match self.newest() {
            Some(newest) if newest != values.generation => self.values()?.unwrap_or(values),
            Some(_) | None => values,
        };
        let old = target::read(file)?;
        let is_approved = self.approved.is_some_and(|seen| old.as_ref().is_some_and(|bytes| seen.is(bytes)));
        let is_ours = |token: &str| token == values.access() || record.has_written(&mark(token.as_bytes()));
        let parsed = match &old {
            Some(bytes) if !bytes.trim_ascii().is_empty() => {
                Some(JsonText::parse(bytes).map_err(|fault| self.conflict(Rival::Unreadable, &format!("it {fault}")))?)
            }
            Some(_) | None => None,
        };
        let known = Known { is_ours: &is_ours, was_written: record.generation.is_some(), is_approved };
        let merged = recipe.merge(parsed, &values, &known);
        let merged = merged.map_err(|refusal| match refusal {
            MergeRefusal::Conflict(rival, why) => self.conflict(rival, &why),
            MergeRefusal::Lacking(value) => self.lacking(value),
        })?;
        let token = mark(values.access().as_bytes());
        if old.as_ref().is_none_or(|old| old.as_slice() != merged.text.as_str().as_bytes()) {
            record.is_ours_alone |= old.is_none();
            // The newest: what a person set there last.
            record.before.extend(merged.before);
            self.note(&token, record)?;
            target::replace(file, merged.text.as_str().as_bytes())?;
        }
        Ok(self.landed(&token, values.generation, record))
    }

    /// Takes the lock of the file's program, if it is free in time.
    fn lock_of_program(&self, lock: ConsumerLock, title: &str) -> Result<ConsumerLocks, Stopped> {
        let note = self.records.lock_note(&self.place.file_key);
        let most = if self.is_pausing { Duration::ZERO } else { PROGRAM_WAIT };
        self.waits.within(&**self.clock, most, |limit| {
            let taken = consumer_lock::acquire(lock, &self.place.path, title, &note, limit);
            taken.map_err(|failure| {
                let has_waited = failure.kind == ErrorKind::Busy && !limit.is_zero();
                Stopped { has_waited, ..failure.into() }
            })
        })
    }

    /// Whether what was written for the newest generation is still there. This needs no key: a run over profiles that are
    /// fresh opens no keyring for their mirrors.
    fn is_intact(&self, record: &MirrorRecord) -> bool {
        if record.state != MirrorState::Current || record.generation.is_none() || record.generation != self.newest() {
            return false;
        }
        let path = &self.place.path;
        let there = match self.place.form {
            MirrorForm::File => target::read(path).ok().flatten().map(|bytes| mark(&bytes)),
            MirrorForm::Json { .. } | MirrorForm::Consumer { .. } => {
                let Some(recipe) = Recipe::of(self.place.form, &self.profile.provider.name) else { return true };
                let text = target::read(path).ok().flatten().and_then(|bytes| JsonText::parse(&bytes).ok());
                text.and_then(|text| recipe.access_in(&text)).map(|token| mark(token.as_bytes()))
            }
            MirrorForm::Directory { files } => {
                let token = files.iter().find(|(_, value)| *value == MirrorValue::AccessToken);
                let bytes = token.and_then(|(name, _)| directory::read(path, name).ok().flatten());
                bytes.map(|bytes| mark(&bytes))
            }
            // The template itself may have changed.
            MirrorForm::Template { .. } => None,
        };
        there.is_some_and(|mark| record.has_written(&mark))
    }

    /// Writes a file that is ours as a whole.
    fn write_content(
        &self,
        content: String,
        values: &Values,
        record: &mut MirrorRecord,
    ) -> Result<Generation, Stopped> {
        let (file, new) = (&self.place.path, mark(content.as_bytes()));
        target::prepare_dir(file)?;
        target::examine(file)?;
        let old = target::read(file)?;
        let is_same = old.as_ref().is_some_and(|old| old.as_slice() == content.as_bytes());
        let is_free = old.as_ref().is_none_or(|old| old.is_empty() || record.has_written(&mark(old)));
        if !is_same && !is_free && !self.approved.is_some_and(|seen| old.as_ref().is_some_and(|old| seen.is(old))) {
            return Err(self.conflict(Rival::Changed, "its content is another one than keepalive wrote"));
        }
        if !is_same {
            record.is_ours_alone |= old.is_none();
            self.note(&new, record)?;
            target::replace(file, content.as_bytes())?;
        }
        Ok(self.landed(&new, values.generation, record))
    }

    fn write_directory(
        &self,
        files: &[(String, MirrorValue)],
        values: &Values,
        record: &mut MirrorRecord,
    ) -> Result<Generation, Stopped> {
        let dir = &self.place.path;
        let mut content = Vec::with_capacity(files.len());
        for (name, value) in files {
            content.push((name.clone(), values.text(*value).ok_or_else(|| self.lacking(value.name()))?));
        }
        let token = mark(values.access().as_bytes());
        target::prepare_dir(&dir.join("file"))?;
        let mut is_same = true;
        for (name, text) in &content {
            let old = directory::read(dir, name)?;
            is_same &= old.as_deref() == Some(text.as_bytes());
            let is_token = files.iter().any(|(other, value)| other == name && *value == MirrorValue::AccessToken);
            if let Some(old) = old.filter(|old| is_token && old.as_slice() != text.as_bytes())
                && !record.has_written(&mark(&old))
            {
                return Err(self.conflict(Rival::Changed, &format!("{name} is another one there than keepalive wrote")));
            }
        }
        if !is_same {
            self.note(&token, record)?;
            directory::replace(dir, &content, values.generation.get())?;
        }
        Ok(self.landed(&token, values.generation, record))
    }

    /// Gives the token to a program, on its standard input. There it replaces an older one, whatever came before.
    fn run_command(&self, argv: &[&str], values: &Values, record: &mut MirrorRecord) -> Result<Generation, Stopped> {
        let token = mark(values.access().as_bytes());
        if record.generation == Some(values.generation) && record.state == MirrorState::Current {
            return Ok(values.generation);
        }
        let seconds = values.expires_in().as_secs().to_string();
        let provider = &self.profile.provider.name;
        let filled = |part: &&str| {
            part.replace("ENTRY", &self.place.entry).replace("PROVIDER", provider).replace("SECONDS", &seconds)
        };
        let argv: Vec<String> = argv.iter().map(filled).collect();
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let within = (paths::ACTIVE_PROFILES, std::path::Path::new(self.profile.name.as_str()));
        let command = argv.get(..4).unwrap_or(&argv).join(" ");
        let failed = |why: String, hint: String| {
            Stopped::from(Failure::new(ErrorKind::Mirror, format!("`{command}` failed: {why}")).with_hint(hint))
        };
        let by_hand = format!("try it: keepalive token {} | {}", self.profile.name, argv.join(" "));
        let ran = self.waits.within(&**self.clock, COMMAND_LIMIT, |limit| {
            tool_process::run_tool(&argv, values.access(), Some(within), limit)
        });
        match ran {
            Ok(output) if output.is_success => Ok(self.landed(&token, values.generation, record)),
            Ok(output) => Err(failed(last_line(&output.stderr.replace(values.access(), "(the token)")), by_hand)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let program = argv.first().copied().unwrap_or_default();
                Err(failed(
                    "there is no such program".into(),
                    format!("install {program}, or add its directory to PATH"),
                ))
            }
            Err(e) => {
                Err(Stopped { has_waited: e.kind() == io::ErrorKind::TimedOut, ..failed(e.to_string(), by_hand) })
            }
        }
    }
}

/// The last words of a program that failed.
fn last_line(said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    crate::credential::server_text::printable(last)
}

/// Why a program that a profile follows is not fed by it.
pub fn follows_itself(profile: &Profile, consumer: &Consumer) -> Failure {
    let message = format!(
        "profile {} follows {}, which refreshes the token: it cannot be fed by keepalive, too",
        profile.name, consumer.title
    );
    let hint = format!("remove follow = true from [profile.{}], or the mirror", profile.name);
    Failure::new(ErrorKind::Mirror, message).with_hint(hint)
}
