//! The scheduler's state of one profile: its next check, what may be lost until then, and its failures.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::engine::refresh::backoff::UNSENT_MAX_DELAY;
use crate::engine::refresh::retry_policy;
use crate::engine::status::ProfileStatus;
use crate::events;
use crate::outcome::{ErrorKind, Outcome, OutcomeKind, ProfileState, Publication};
use crate::profile::{Policy, Profile, ProfileName};
use crate::scheduler::plan;
use crate::scheduler::plan::NextCheck;
use crate::store::journal::{Journal, PauseCause};
use crate::sys::file_watch::FileStamp;

#[derive(Default)]
pub(super) struct ScheduledProfile {
    /// The configuration when the check was planned; `None` while no such profile is configured.
    pub(super) profile: Option<Arc<Profile>>,
    /// `None`: there is nothing to do until something changes.
    pub(super) next_check: Option<NextCheck>,
    pub(super) state: Option<ProfileState>,
    pub(super) is_in_flight: bool,
    /// The last attempt reached no server, so a change of the network is reason enough for another.
    pub(super) is_unreachable: bool,
    /// When the access token expires.
    pub(super) access_expiry: Option<NextCheck>,
    /// When the server's grace ends, while a retry inside it is still possible.
    pub(super) grace_end: Option<NextCheck>,
    /// The stamp of the journal when it was last read.
    pub(super) journal_stamp: FileStamp,
    /// The number of attempts in the journal at that time.
    pub(super) sequence: u64,
    /// Failed outcomes in a row that the journal does not have.
    pub(super) unrecorded_failures: u32,
    /// Checks in a row that the journal planned for at once and that could do nothing.
    pub(super) immediate_retries: u32,
    /// When a flight last failed, by the boot clock; 0 if the last one did not fail.
    pub(super) last_failure_ms: u64,
    pub(super) is_schedule_warned: bool,
    /// The configuration was read anew since the last plan.
    pub(super) is_reconfigured: bool,
    /// The log knows that it waits for the rate limit or for the provider.
    pub(super) is_held: bool,
    /// The check that the log was told of.
    pub(super) reported_check: Option<Option<Timestamp>>,
    /// The state that the log was told of with the outcome of a refresh, until the journal is looked at.
    pub(super) told: Option<ProfileState>,
}

impl ScheduledProfile {
    /// Takes over the plan of the journal.
    pub(super) fn update_from_journal(&mut self, journal: Option<&Journal>, policy: &Policy, now: &Moment) {
        let life = journal.and_then(|r| r.validity.as_ref()).map(|v| v.remaining(now));
        self.access_expiry = life.map(|left| NextCheck::after(now, left));
        let grace = journal.and_then(Journal::open_intent).and_then(|i| retry_policy::grace_remaining(i, policy, now));
        self.grace_end = grace.map(|left| NextCheck::after(now, left));
        self.sequence = journal.map_or(0, |r| r.sequence);
        let pause = journal.filter(|journal| journal.blocked_until(now).is_some()).and_then(|j| j.pause.as_ref());
        self.is_unreachable = pause.is_some_and(|pause| pause.cause == PauseCause::Unsent);
    }

    /// Keeps an earlier check that was planned before, because its reason may be in no journal.
    pub(super) fn keep_earlier_check(&mut self, before: NextCheck, now: &Moment) {
        self.next_check =
            self.next_check.take().map(|look| if before.wait(now) < look.wait(now) { before } else { look });
    }

    pub(super) fn is_in_grace(&self, now: &Moment) -> bool {
        self.grace_end.as_ref().is_some_and(|end| !end.is_due(now))
    }

    /// The time until something is lost: a retry that the server would allow, or a live access token.
    pub(super) fn time_left(&self, now: &Moment) -> Option<Duration> {
        let ends = [&self.grace_end, &self.access_expiry].into_iter().flatten();
        ends.map(|end| end.wait(now)).filter(|left| !left.is_zero()).min()
    }

    /// How long the profile may wait for another profile's probe, so that one more try of its own fits.
    pub(super) fn max_delay(&self, now: &Moment) -> Option<Duration> {
        if self.is_in_grace(now) { Some(Duration::ZERO) } else { self.time_left(now).map(|left| left / 2) }
    }

    /// Counts an outcome that the journal does not have. Here too, one more try must fit.
    pub(super) fn next_backoff(&mut self, now: &Moment) -> Duration {
        self.unrecorded_failures += 1;
        let longest = if self.is_unreachable { UNSENT_MAX_DELAY } else { Duration::MAX };
        let pause = plan::backoff_delay(self.unrecorded_failures).min(longest);
        self.time_left(now).map_or(pause, |left| pause.min(left / 2).max(plan::minimum_delay(1)))
    }

    pub(super) fn back_off(&mut self, now: &Moment) {
        let pause = self.next_backoff(now);
        self.next_check = Some(NextCheck::after(now, pause));
    }

    /// Plans the next check after an outcome, once the journal is up to date.
    pub(super) fn reschedule(&mut self, outcome: &Outcome, now: &Moment) {
        let is_well = matches!(outcome.kind, OutcomeKind::Refreshed | OutcomeKind::Fresh);
        self.last_failure_ms = if is_well { 0 } else { now.uptime_ms };
        let is_pending = outcome.publication == Publication::PublishPending;
        if is_well && !is_pending {
            (self.unrecorded_failures, self.immediate_retries) = (0, 0);
            return;
        }
        // What could not even be prepared is in no journal.
        let is_undiscovered = outcome.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Discovery);
        self.is_unreachable |= is_undiscovered && outcome.kind == OutcomeKind::Deferred;
        let planned = self.next_check.as_ref().map(|look| look.wait(now));
        // The journal has a retry time, which no failure of another kind postpones.
        let is_noted = !is_well && outcome.retry_at.is_some();
        self.immediate_retries =
            if is_noted && planned == Some(Duration::ZERO) { self.immediate_retries + 1 } else { 0 };
        let noted = planned.map(|planned| planned.max(plan::minimum_delay(self.immediate_retries)));
        let wait = match noted.filter(|_| is_noted) {
            Some(noted) if is_pending => noted.min(self.next_backoff(now)),
            Some(noted) => {
                self.unrecorded_failures = 0;
                noted
            }
            None if is_pending => self.next_backoff(now),
            // The journal may plan the next check for at once, although this one did not work.
            None => match planned {
                Some(planned) => planned.max(self.next_backoff(now)),
                None => return,
            },
        };
        if self.next_check.as_ref().is_none_or(|look| look.wait(now) != wait) {
            self.next_check = Some(NextCheck::after(now, wait));
        }
    }

    /// Says how a refresh ended that brought no token. If the profile needs a person for it, this is all that is said.
    pub(super) fn report_outcome(&mut self, name: &ProfileName, provider: &str, outcome: &Outcome) {
        let state = match outcome.kind {
            // The next look at the journal reports it.
            OutcomeKind::NeedsLogin if outcome.error.as_ref().is_some_and(|e| e.kind == ErrorKind::NoCredential) => {
                return;
            }
            OutcomeKind::InDoubt => Some(ProfileState::InDoubt),
            OutcomeKind::NeedsLogin => Some(ProfileState::NeedsLogin),
            OutcomeKind::ConfigError => Some(ProfileState::ConfigError),
            OutcomeKind::StoreUnavailable => Some(ProfileState::StoreUnavailable),
            OutcomeKind::Fresh | OutcomeKind::Refreshed | OutcomeKind::Deferred => None,
        };
        events::refresh_failed(name, provider, outcome, state.is_some() && self.state != state);
        self.told = state;
    }

    /// Says when the next check is, if that has changed.
    pub(super) fn report_next_check(
        &mut self,
        name: &ProfileName,
        state: Option<ProfileState>,
        reason: &str,
        now: &Moment,
    ) {
        let at = self.next_check.as_ref().map(|next| next.at.to_the_second());
        if self.reported_check.replace(at) != Some(at) {
            events::schedule_next(name, state, self.next_check.as_ref().map(|next| (next.at, next.wait(now))), reason);
        }
    }

    /// Says once that a refresh waits, for the rate limit or because the provider `is_down`.
    pub(super) fn report_held(&mut self, name: &ProfileName, provider: &str, is_down: bool, wait: Duration) {
        if !std::mem::replace(&mut self.is_held, true) {
            events::schedule_held(name, provider, is_down, wait);
        }
    }

    /// Says it once when a profile comes to need a person, and once when it no longer does.
    pub(super) fn report_transition(&mut self, name: &ProfileName, status: &ProfileStatus) {
        let was = self.state.is_some_and(ProfileState::needs_person);
        let told = self.told.take();
        if status.state.needs_person() && self.state != Some(status.state) {
            if told != Some(status.state) {
                events::needs_attention(name, status.state, status.error.as_ref());
            }
        } else if status.state == ProfileState::NoCredential {
            if self.state.is_some_and(|was| was != ProfileState::NoCredential) {
                tracing::info!(event = "profile.gone", profile = %name, "signed out");
            }
        } else if was && !status.state.needs_person() {
            tracing::info!(event = "recovered", profile = %name, state = %status.state, "recovered");
        }
        self.state = Some(status.state);
    }
}

#[cfg(test)]
impl ScheduledProfile {
    /// One that the journal has planned for now.
    pub(super) fn planned(now: &Moment, failures: u32) -> Self {
        Self {
            next_check: Some(NextCheck::after(now, Duration::ZERO)),
            unrecorded_failures: failures,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn settled(mut entry: ScheduledProfile, outcome: &Outcome, now: &Moment) -> (Duration, u32) {
        entry.reschedule(outcome, now);
        (entry.next_check.unwrap().wait(now), entry.unrecorded_failures)
    }

    /// Rule 33.
    #[test]
    fn retry_time_in_the_journal_ignores_earlier_failures() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        for kind in [OutcomeKind::InDoubt, OutcomeKind::Deferred] {
            let noted = Outcome::new(kind).with_retry_at(now.wall);
            assert_eq!(
                settled(ScheduledProfile::planned(&now, 9), &noted, &now),
                (plan::minimum_delay(1), 0),
                "a retry inside the grace"
            );
            let later = ScheduledProfile {
                next_check: Some(NextCheck::after(&now, S(20))),
                ..ScheduledProfile::planned(&now, 9)
            };
            assert_eq!(settled(later, &noted, &now), (S(20), 0));
            // It is planned for now and not allowed, again and again.
            let mut entry = ScheduledProfile::planned(&now, 0);
            let waits = [(); 3].map(|()| {
                entry.next_check = Some(NextCheck::after(&now, S(0)));
                entry.reschedule(&noted, &now);
                entry.next_check.as_ref().unwrap().wait(&now)
            });
            assert_eq!(waits, [S(1), S(2), S(4)]);
            let asleep = ScheduledProfile { next_check: None, ..ScheduledProfile::planned(&now, 9) };
            let mut entry = asleep;
            entry.reschedule(&noted, &now);
            assert_eq!(entry.next_check, None, "only a person can help");
        }
    }

    /// Rule 33.
    #[test]
    fn unjournaled_failure_leaves_time_for_one_more_try() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let away = Outcome::new(OutcomeKind::StoreUnavailable);
        assert_eq!(settled(ScheduledProfile::planned(&now, 3), &away, &now), (plan::backoff_delay(4), 4));
        let end = |left| Some(NextCheck::after(&now, S(left)));
        let dying = ScheduledProfile { access_expiry: end(30), ..ScheduledProfile::planned(&now, 9) };
        assert_eq!(settled(dying, &away, &now).0, S(15));
        let in_grace =
            ScheduledProfile { access_expiry: end(600), grace_end: end(6), ..ScheduledProfile::planned(&now, 9) };
        assert_eq!(settled(in_grace, &away, &now).0, S(3));
        let dead = ScheduledProfile { access_expiry: end(0), ..ScheduledProfile::planned(&now, 3) };
        assert_eq!(settled(dead, &away, &now).0, plan::backoff_delay(4));
    }

    #[test]
    fn sooner_check_replaces_a_later_one_but_adds_none() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let kept = |look: Option<u64>, before| {
            let look = look.map(|left| NextCheck::after(&now, S(left)));
            let mut entry = ScheduledProfile { next_check: look, ..ScheduledProfile::default() };
            entry.keep_earlier_check(NextCheck::after(&now, S(before)), &now);
            entry.next_check.map(|look| look.wait(&now))
        };
        assert_eq!([kept(Some(9), 5), kept(Some(5), 9), kept(None, 5)], [Some(S(5)), Some(S(5)), None]);
    }

    #[test]
    fn pending_publication_is_retried_soon() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let pending = |kind| Outcome { publication: Publication::PublishPending, ..Outcome::new(kind) };
        let hour = || ScheduledProfile {
            next_check: Some(NextCheck::after(&now, S(3600))),
            ..ScheduledProfile::planned(&now, 0)
        };
        assert_eq!(settled(hour(), &pending(OutcomeKind::Refreshed), &now), (plan::backoff_delay(1), 1));
        let doubt = pending(OutcomeKind::InDoubt).with_retry_at(now.wall);
        assert_eq!(settled(hour(), &doubt, &now), (plan::backoff_delay(1), 1));
        assert_eq!(
            settled(ScheduledProfile::planned(&now, 9), &doubt, &now).0,
            plan::minimum_delay(1),
            "the grace does not wait for it"
        );
    }

    /// Rule 19.
    #[test]
    fn grace_retry_awaits_no_probe_and_expiry_bounds_the_wait() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let end = |left| Some(NextCheck::after(&now, S(left)));
        assert_eq!(ScheduledProfile::planned(&now, 0).max_delay(&now), None, "nothing to lose");
        assert_eq!(
            ScheduledProfile { access_expiry: end(60), ..ScheduledProfile::planned(&now, 0) }.max_delay(&now),
            Some(S(30))
        );
        assert_eq!(
            ScheduledProfile { access_expiry: end(60), grace_end: end(20), ..ScheduledProfile::planned(&now, 0) }
                .max_delay(&now),
            Some(S(0))
        );
        assert_eq!(
            ScheduledProfile { access_expiry: end(0), grace_end: end(0), ..ScheduledProfile::planned(&now, 0) }
                .max_delay(&now),
            None
        );
    }
}
