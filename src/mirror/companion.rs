//! A process that gives a token to a slow program, so that the run which brought the token need not wait for it.

use std::time::Duration;

use crate::mirror::place::Place;
use crate::mirror::state::{MirrorRecord, MirrorState};
use crate::mirror::{MirrorReport, Mirrors, target};
use crate::outcome::Failure;
use crate::profile::Profile;
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::sys::tool_process::{Companion, CompanionProgram};

/// How long it is waited for: most programs are done by then, and what they said can be told.
const WAIT: Duration = Duration::from_secs(5);

/// `keepalive feed` of one mirror that is configured. `None`: it is left behind.
fn start(
    with: &CompanionProgram,
    profile: &Profile,
    mirror: &Mirror,
    is_left: bool,
) -> std::io::Result<Option<Companion>> {
    let MirrorForm::Consumer { consumer, entry } = &mirror.form else {
        return Err(std::io::Error::other("it is no program"));
    };
    let mut words = vec!["feed", consumer.name, profile.name.as_str(), "--only-configured"];
    words.extend(entry.iter().flat_map(|entry| ["--entry", entry.as_str()]));
    if is_left { with.leave_behind(&words).map(|()| None) } else { with.start(&words).map(Some) }
}

impl Mirrors {
    /// Has the newest token given to a program, unless it has it, or does not take it at the moment.
    pub(super) fn update_by_companion(
        &self,
        with: &CompanionProgram,
        profile: &Profile,
        mirror: &Mirror,
        place: &Place<'_>,
    ) -> MirrorReport {
        let read = || self.records.read(&place.key).ok().flatten();
        let before = read().unwrap_or_default();
        let is_another_profile = before.profile.as_ref().is_some_and(|other| *other != profile.name);
        let newest = self.journal(profile).filter(|journal| {
            // Of an imported token it may not be known that it lives; and it may be withheld.
            journal.validity.as_ref().is_some_and(|validity| !validity.is_unproven())
        });
        let newest = newest.map(|journal| journal.generation);
        let is_current = before.state == MirrorState::Current && before.generation == newest && !is_another_profile;
        let is_busy = before.is_pausing(self.clock.now().wall) || self.records.is_locked(&place.file_key);
        if newest.is_none() || is_current || is_busy {
            return MirrorReport::of(place, &before);
        }
        match start(with, profile, mirror, self.waits.is_used_up()) {
            Err(error) => {
                let failure = target::failed(&with.program, "start", &error);
                self.tell(profile, &place.name, &failure);
                MirrorReport::nowhere(mirror, failure)
            }
            Ok(None) => MirrorReport::of(place, &before),
            Ok(Some(mut companion)) => {
                let has_ended = self.waits.within(&*self.clock, WAIT, |limit| companion.has_ended_within(limit));
                let after = if has_ended { read() } else { None }.unwrap_or_else(|| before.clone());
                if let Some(failure) = news(&before, &after) {
                    self.tell(profile, &place.name, failure);
                }
                MirrorReport::of(place, &after)
            }
        }
    }
}

/// The failure that a person was not told of.
fn news<'a>(before: &MirrorRecord, after: &'a MirrorRecord) -> Option<&'a Failure> {
    let message = |record: &MirrorRecord| record.error.as_ref().map(|failure| failure.message.clone());
    after.error.as_ref().filter(|_| message(before) != message(after))
}
