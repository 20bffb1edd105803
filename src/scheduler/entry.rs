//! What the scheduler knows of one profile: when it will look at it, what may be lost until then, and what failed.

use std::sync::Arc;
use std::time::Duration;

use super::plan::{self, Look};
use crate::clock::Moment;
use crate::engine::doubt;
use crate::engine::standing::ProfileStatus;
use crate::outcome::{Outcome, OutcomeKind, ProfileState, Publication};
use crate::profile::{Policy, Profile, ProfileName};
use crate::store::record::Journal;
use crate::sys::stamp::Stamp;

#[derive(Default)]
pub(super) struct Entry {
    /// As configured when the look was planned; `None` while the configuration knows no such profile.
    pub(super) profile: Option<Arc<Profile>>,
    /// `None`: nothing to do until somebody changes something.
    pub(super) look: Option<Look>,
    pub(super) state: Option<ProfileState>,
    pub(super) is_flying: bool,
    /// When the access token ends.
    pub(super) expiry: Option<Look>,
    /// When the server's grace ends, while a retry inside it is still to come.
    pub(super) grace: Option<Look>,
    /// Of the journal as it was last read.
    pub(super) written: Stamp,
    /// The attempts that it counted then.
    pub(super) sequence: u64,
    /// Outcomes in a row that the journal knows nothing of.
    pub(super) failures: u32,
    /// Looks in a row that the journal planned for at once, and at which nothing was allowed.
    pub(super) refused: u32,
    /// When a flight last failed, by the boot clock; 0: none has since one did not.
    pub(super) failed_ms: u64,
    pub(super) is_warned: bool,
}

impl Entry {
    /// Takes over what the journal says.
    pub(super) fn read(&mut self, journal: Option<&Journal>, policy: &Policy, now: &Moment) {
        let life = journal.and_then(|r| r.validity.as_ref()).map(|v| v.left(now));
        self.expiry = life.map(|left| Look::after(now, left));
        let grace = journal.and_then(Journal::open_intent).and_then(|i| doubt::grace_remaining(i, policy, now));
        self.grace = grace.map(|left| Look::after(now, left));
        self.sequence = journal.map_or(0, |r| r.sequence);
    }

    /// Keeps a look that was planned before, if it is the sooner one: what it was to mend may be in no journal.
    pub(super) fn keep(&mut self, before: Look, now: &Moment) {
        self.look = self.look.take().map(|look| if before.wait(now) < look.wait(now) { before } else { look });
    }

    pub(super) fn is_in_grace(&self, now: &Moment) -> bool {
        self.grace.as_ref().is_some_and(|end| !end.is_due(now))
    }

    /// How long until something is lost: a retry that the server would allow, or a live access token.
    pub(super) fn left(&self, now: &Moment) -> Option<Duration> {
        let ends = [&self.grace, &self.expiry].into_iter().flatten();
        ends.map(|end| end.wait(now)).filter(|left| !left.is_zero()).min()
    }

    /// How long it may be kept waiting for somebody else's probe, so that one more try of its own fits.
    pub(super) fn patience(&self, now: &Moment) -> Option<Duration> {
        if self.is_in_grace(now) { Some(Duration::ZERO) } else { self.left(now).map(|left| left / 2) }
    }

    /// Counts an outcome that the journal does not know. Again, one more try must fit.
    pub(super) fn pause(&mut self, now: &Moment) -> Duration {
        self.failures += 1;
        let pause = plan::pause(self.failures);
        self.left(now).map_or(pause, |left| pause.min(left / 2).max(plan::moment(1)))
    }

    pub(super) fn leave_alone(&mut self, now: &Moment) {
        let pause = self.pause(now);
        self.look = Some(Look::after(now, pause));
    }

    /// Plans on after a landing, when the journal has planned.
    pub(super) fn settle(&mut self, outcome: &Outcome, now: &Moment) {
        let is_well = matches!(outcome.kind, OutcomeKind::Refreshed | OutcomeKind::Fresh);
        self.failed_ms = if is_well { 0 } else { now.uptime_ms };
        let is_pending = outcome.publication == Publication::PublishPending;
        if is_well && !is_pending {
            (self.failures, self.refused) = (0, 0);
            return;
        }
        let planned = self.look.as_ref().map(|look| look.wait(now));
        // The journal says when to try again: no failure of another kind puts that off.
        let is_noted = !is_well && outcome.retry_at.is_some();
        self.refused = if is_noted && planned == Some(Duration::ZERO) { self.refused + 1 } else { 0 };
        let noted = planned.map(|planned| planned.max(plan::moment(self.refused)));
        let wait = match noted.filter(|_| is_noted) {
            Some(noted) if is_pending => noted.min(self.pause(now)),
            Some(noted) => {
                self.failures = 0;
                noted
            }
            None if is_pending => self.pause(now),
            // The journal may plan this for now; it did not work now.
            None => match planned {
                Some(planned) => planned.max(self.pause(now)),
                None => return,
            },
        };
        if self.look.as_ref().is_none_or(|look| look.wait(now) != wait) {
            self.look = Some(Look::after(now, wait));
        }
    }

    /// Says it once when a profile comes to need a person, and once when it no longer does.
    pub(super) fn tell(&mut self, name: &ProfileName, standing: &ProfileStatus) {
        let needs_person =
            |s: ProfileState| matches!(s, ProfileState::NeedsLogin | ProfileState::ConfigError | ProfileState::InDoubt);
        let was = self.state.is_some_and(needs_person);
        let message = standing.error.as_ref().map_or("", |e| e.message.as_str());
        let kind = standing.error.as_ref().map(|e| e.kind.word());
        let hint = standing.error.as_ref().and_then(|e| e.hint.as_deref());
        if needs_person(standing.state) && self.state != Some(standing.state) {
            tracing::error!(profile = %name, state = %standing.state, kind, hint, "needs attention: {message}");
        } else if standing.state == ProfileState::NoCredential {
            if self.state.is_some_and(|was| was != ProfileState::NoCredential) {
                tracing::info!(profile = %name, "signed out");
            }
        } else if was && !needs_person(standing.state) {
            tracing::info!(profile = %name, state = %standing.state, "recovered");
        }
        self.state = Some(standing.state);
    }
}

#[cfg(test)]
impl Entry {
    /// One that the journal has planned for now.
    pub(super) fn planned(now: &Moment, failures: u32) -> Self {
        Self { look: Some(Look::after(now, Duration::ZERO)), failures, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn settled(mut entry: Entry, outcome: &Outcome, now: &Moment) -> (Duration, u32) {
        entry.settle(outcome, now);
        (entry.look.unwrap().wait(now), entry.failures)
    }

    #[test]
    fn r33_a_time_that_the_journal_names_is_not_put_off_by_earlier_failures() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        for kind in [OutcomeKind::InDoubt, OutcomeKind::Deferred] {
            let noted = Outcome::new(kind).with_retry_at(now.wall);
            assert_eq!(
                settled(Entry::planned(&now, 9), &noted, &now),
                (plan::moment(1), 0),
                "a retry inside the grace"
            );
            let later = Entry { look: Some(Look::after(&now, S(20))), ..Entry::planned(&now, 9) };
            assert_eq!(settled(later, &noted, &now), (S(20), 0));
            // It is planned for now and not allowed, again and again.
            let mut entry = Entry::planned(&now, 0);
            let waits = [(); 3].map(|()| {
                entry.look = Some(Look::after(&now, S(0)));
                entry.settle(&noted, &now);
                entry.look.as_ref().unwrap().wait(&now)
            });
            assert_eq!(waits, [S(1), S(2), S(4)]);
            let asleep = Entry { look: None, ..Entry::planned(&now, 9) };
            let mut entry = asleep;
            entry.settle(&noted, &now);
            assert_eq!(entry.look, None, "only a person can help");
        }
    }

    #[test]
    fn r33_after_what_no_journal_notes_one_more_try_fits_before_something_is_lost() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let away = Outcome::new(OutcomeKind::StoreUnavailable);
        assert_eq!(settled(Entry::planned(&now, 3), &away, &now), (plan::pause(4), 4));
        let end = |left| Some(Look::after(&now, S(left)));
        let dying = Entry { expiry: end(30), ..Entry::planned(&now, 9) };
        assert_eq!(settled(dying, &away, &now).0, S(15));
        let in_grace = Entry { expiry: end(600), grace: end(6), ..Entry::planned(&now, 9) };
        assert_eq!(settled(in_grace, &away, &now).0, S(3));
        let dead = Entry { expiry: end(0), ..Entry::planned(&now, 3) };
        assert_eq!(settled(dead, &away, &now).0, plan::pause(4));
    }

    #[test]
    fn a_sooner_look_is_kept_when_the_journal_plans_a_later_one_and_none_where_none_helps() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let kept = |look: Option<u64>, before| {
            let look = look.map(|left| Look::after(&now, S(left)));
            let mut entry = Entry { look, ..Entry::default() };
            entry.keep(Look::after(&now, S(before)), &now);
            entry.look.map(|look| look.wait(&now))
        };
        assert_eq!([kept(Some(9), 5), kept(Some(5), 9), kept(None, 5)], [Some(S(5)), Some(S(5)), None]);
    }

    #[test]
    fn what_is_pending_is_published_soon_whatever_the_journal_plans() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let pending = |kind| Outcome { publication: Publication::PublishPending, ..Outcome::new(kind) };
        let hour = || Entry { look: Some(Look::after(&now, S(3600))), ..Entry::planned(&now, 0) };
        assert_eq!(settled(hour(), &pending(OutcomeKind::Refreshed), &now), (plan::pause(1), 1));
        let doubt = pending(OutcomeKind::InDoubt).with_retry_at(now.wall);
        assert_eq!(settled(hour(), &doubt, &now), (plan::pause(1), 1));
        assert_eq!(settled(Entry::planned(&now, 9), &doubt, &now).0, plan::moment(1), "the grace does not wait for it");
    }

    #[test]
    fn r19_a_retry_inside_the_grace_waits_for_no_probe_and_a_token_that_ends_not_long() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let end = |left| Some(Look::after(&now, S(left)));
        assert_eq!(Entry::planned(&now, 0).patience(&now), None, "nothing to lose");
        assert_eq!(Entry { expiry: end(60), ..Entry::planned(&now, 0) }.patience(&now), Some(S(30)));
        assert_eq!(Entry { expiry: end(60), grace: end(20), ..Entry::planned(&now, 0) }.patience(&now), Some(S(0)));
        assert_eq!(Entry { expiry: end(0), grace: end(0), ..Entry::planned(&now, 0) }.patience(&now), None);
    }
}
