//! Decides what hooks are told: by how a profile stands, by what they were told before, and by the time. (pure)

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::outcome::ProfileState;
use crate::profile::HookEvent;
use crate::store::journal::hook_stamps::{HookStamps, LoginDueStamp};

/// So many failures in a row are told.
const FAILURES_TOLD: u32 = 3;
/// How many days ahead the end of a refresh token is told.
const DAYS_AHEAD: [u64; 4] = [1, 3, 7, 14];
const DAY_SECONDS: u64 = 24 * 3600;
/// An end that moves by more is that of another login.
const SAME_END: Duration = Duration::from_secs(3600);

/// How a profile stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub state: ProfileState,
    /// The last attempt brought no token, for a reason that passes.
    pub is_failing: bool,
    /// Failures in a row that the journal counted.
    pub failures: u32,
    /// Of the time between the margin and the expiry, half is over.
    pub is_half_margin_gone: bool,
    /// The end of the refresh token, if no refresh prolongs it.
    pub login_by: Option<Timestamp>,
}

/// Which events a hook is run for, whether a person is told on the desktop, and how often a login is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    pub hooks: Vec<HookEvent>,
    pub is_desktop: bool,
    pub remind: Duration,
}

/// An event that is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HookNews {
    pub event: HookEvent,
    /// It is shown on the desktop.
    pub is_shown: bool,
}

/// What is told now, what is noted of it, and when to look again if nothing happens until then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HookPlan {
    pub told: Vec<HookNews>,
    pub stamps: HookStamps,
    pub next: Option<Duration>,
}

impl Wishes {
    pub(super) fn has(&self, event: HookEvent) -> bool {
        self.hooks.contains(&event)
    }

    pub(super) fn is_none(&self) -> bool {
        self.hooks.is_empty() && !self.is_desktop
    }

    /// Whether an event is noted: one that nothing is run for is, if something is run for its end.
    fn notes(&self, event: HookEvent) -> bool {
        let is_shown = self.is_desktop && event == HookEvent::NeedsLogin;
        is_shown || self.has(event) || self.has(HookEvent::Recovered)
    }
}

/// Decides it. Every event changes the stamps, so that of several runs the one tells it that writes them.
pub(super) fn decide(standing: &Standing, stamps: &HookStamps, wishes: &Wishes, now: &Moment) -> HookPlan {
    let mut plan = HookPlan { stamps: stamps.clone(), ..HookPlan::default() };
    match standing.state {
        // A sign-out is no recovery; the login after it is.
        ProfileState::NoCredential => {}
        ProfileState::NeedsLogin => plan.ask_for_login(wishes, now),
        _ if wishes.notes(HookEvent::Deferred) && is_failure_news(standing) => {
            plan.stamps.is_failure_told = true;
            if !stamps.is_failure_told {
                plan.tell(HookEvent::Deferred, false);
            }
        }
        ProfileState::Fresh if !standing.is_failing => {
            let was_told = stamps.needs_login.is_some() || stamps.is_failure_told;
            (plan.stamps.needs_login, plan.stamps.is_failure_told) = (None, false);
            if was_told {
                plan.tell(HookEvent::Recovered, stamps.needs_login.is_some());
            }
        }
        _ => {}
    }
    if standing.state != ProfileState::NoCredential && wishes.has(HookEvent::LoginDue) {
        plan.warn_of_end(standing.login_by, now);
    }
    plan.told.iter_mut().for_each(|news| news.is_shown &= wishes.is_desktop);
    plan.told.retain(|news| news.is_shown || wishes.has(news.event));
    plan
}

/// Whether the failures are worth a word. A token in doubt is: there may be no refresh until it expires (rule 17).
fn is_failure_news(standing: &Standing) -> bool {
    match standing.state {
        ProfileState::InDoubt => true,
        ProfileState::Fresh | ProfileState::Due | ProfileState::Expired | ProfileState::Deferred => {
            standing.is_failing && (standing.failures >= FAILURES_TOLD || standing.is_half_margin_gone)
        }
        // Others are told of these.
        ProfileState::NeedsLogin
        | ProfileState::ConfigError
        | ProfileState::StoreUnavailable
        | ProfileState::NoCredential => false,
    }
}

fn ahead(days: u64) -> Duration {
    Duration::from_secs(days * DAY_SECONDS)
}

impl HookPlan {
    fn tell(&mut self, event: HookEvent, is_shown: bool) {
        self.told.push(HookNews { event, is_shown });
    }

    fn ask_for_login(&mut self, wishes: &Wishes, now: &Moment) {
        if !wishes.notes(HookEvent::NeedsLogin) {
            return;
        }
        let asked = self.stamps.needs_login.as_ref();
        // A clock that shows a time before the last one says nothing of how long that is ago.
        let is_unknown = |asked: &Moment| now.elapsed_since(asked).is_none() && now.wall < asked.wall;
        let left = match asked {
            Some(asked) if !is_unknown(asked) => wishes.remind.saturating_sub(now.time_since(asked)),
            Some(_) | None => Duration::ZERO,
        };
        self.look_again_in(if left.is_zero() { wishes.remind } else { left });
        if left.is_zero() {
            self.stamps.needs_login = Some(now.clone());
            self.tell(HookEvent::NeedsLogin, true);
        }
    }

    fn warn_of_end(&mut self, login_by: Option<Timestamp>, now: &Moment) {
        let Some(login_by) = login_by.filter(|end| *end > now.wall) else { return };
        let left = login_by.since(now.wall);
        let told = self
            .stamps
            .login_due
            .as_ref()
            .filter(|told| login_by.since(told.login_by).max(told.login_by.since(login_by)) <= SAME_END);
        let told = told.map(|told| told.days);
        let reached = DAYS_AHEAD.into_iter().find(|days| left <= ahead(*days));
        if let Some(next) = DAYS_AHEAD.into_iter().rev().map(ahead).find(|ahead| *ahead < left) {
            self.look_again_in(left - next);
        }
        if let Some(days) = reached.filter(|days| told.is_none_or(|told| *days < told)) {
            self.stamps.login_due = Some(LoginDueStamp { login_by, days });
            self.tell(HookEvent::LoginDue, false);
        }
    }

    fn look_again_in(&mut self, wait: Duration) {
        self.next = Some(self.next.map_or(wait, |before| before.min(wait)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(DAY_SECONDS);

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    fn standing(state: ProfileState) -> Standing {
        Standing { state, is_failing: false, failures: 0, is_half_margin_gone: false, login_by: None }
    }

    fn wishes(events: &[HookEvent]) -> Wishes {
        Wishes { hooks: events.to_vec(), is_desktop: false, remind: HOUR * 4 }
    }

    /// Tells one after the other, and returns what was told each time.
    fn tell(clock: &ManualClock, stamps: &mut HookStamps, events: &[HookEvent], standing: &Standing) -> Vec<HookEvent> {
        let plan = decide(standing, stamps, &wishes(events), &clock.now());
        assert!(plan.told.is_empty() || plan.stamps != *stamps, "an event changes the stamps");
        *stamps = plan.stamps;
        plan.told.into_iter().map(|news| news.event).collect()
    }

    #[test]
    fn login_is_asked_for_once_and_again_after_the_reminder() {
        let (clock, mut stamps) = (clock(), HookStamps::default());
        let mut asked = Vec::new();
        for minute in 0..=600 {
            if !tell(&clock, &mut stamps, &HookEvent::ALL, &standing(ProfileState::NeedsLogin)).is_empty() {
                asked.push(minute);
            }
            clock.advance(Duration::from_secs(60));
        }
        assert_eq!(asked, [0, 240, 480]);
        let plan = decide(&standing(ProfileState::NeedsLogin), &stamps, &wishes(&HookEvent::ALL), &clock.now());
        assert_eq!(plan.next, Some(Duration::from_secs((720 - 601) * 60)));
    }

    #[test]
    fn clock_that_was_set_does_not_silence_a_reminder() {
        let (clock, mut stamps) = (clock(), HookStamps::default());
        let asked =
            |stamps: &mut HookStamps| tell(&clock, stamps, &HookEvent::ALL, &standing(ProfileState::NeedsLogin)).len();
        assert_eq!(asked(&mut stamps), 1);
        clock.set_wall(Timestamp::from_secs(1_700_000_000));
        assert_eq!(asked(&mut stamps), 0, "the boot clock tells");
        clock.advance(HOUR * 4);
        assert_eq!(asked(&mut stamps), 1);
        clock.set_wall(Timestamp::from_secs(1_600_000_000));
        clock.reboot();
        assert_eq!([asked(&mut stamps), asked(&mut stamps)], [1, 0], "it is not known how long ago it was");
    }

    #[test]
    fn recovery_is_told_once_and_only_of_what_was_told() {
        use ProfileState::{Due, Fresh, InDoubt, NeedsLogin, NoCredential, StoreUnavailable};
        let both = [HookEvent::Recovered];
        for (states, recovered) in [
            (vec![Fresh, Fresh], 0),
            (vec![NeedsLogin, Fresh, Fresh], 1),
            (vec![NeedsLogin, Due, StoreUnavailable, Fresh], 1),
            (vec![InDoubt, NeedsLogin, Fresh], 1),
            (vec![InDoubt, Fresh, InDoubt, Fresh], 2),
            (vec![NeedsLogin, NoCredential, Fresh], 1),
        ] {
            let (clock, mut stamps) = (clock(), HookStamps::default());
            let told: usize =
                states.iter().map(|state| tell(&clock, &mut stamps, &both, &standing(*state)).len()).sum();
            assert_eq!(told, recovered, "{states:?}");
        }
    }

    #[test]
    fn failures_are_told_once_an_episode() {
        use ProfileState::{Deferred, Due, Fresh};
        let failing = |state, failures, is_half_margin_gone| Standing {
            is_failing: true,
            failures,
            is_half_margin_gone,
            ..standing(state)
        };
        for (seen, told) in [
            (vec![failing(Deferred, 1, false), failing(Due, 2, false)], 0),
            (vec![failing(Deferred, 2, false), failing(Due, 3, false), failing(Due, 4, true)], 1),
            (vec![failing(Due, 1, true), failing(ProfileState::Expired, 9, true)], 1),
            (vec![failing(Due, 3, false), standing(Fresh), failing(Due, 3, false)], 2),
            (vec![failing(Fresh, 3, false), failing(Fresh, 4, false)], 1),
            // Another process may be at it just now.
            (vec![Standing { is_half_margin_gone: true, ..standing(Due) }], 0),
        ] {
            let (clock, mut stamps) = (clock(), HookStamps::default());
            let events = seen.iter().flat_map(|s| tell(&clock, &mut stamps, &HookEvent::ALL, s));
            assert_eq!(events.filter(|event| *event == HookEvent::Deferred).count(), told, "{seen:?}");
        }
    }

    #[test]
    fn end_of_a_login_is_told_four_times_at_most() {
        let (clock, mut stamps) = (clock(), HookStamps::default());
        let login_by = Some(clock.now().wall.plus(DAY * 20));
        let mut told = Vec::new();
        for hour in 0..24 * 21 {
            let seen = Standing { login_by, ..standing(ProfileState::Fresh) };
            if !tell(&clock, &mut stamps, &HookEvent::ALL, &seen).is_empty() {
                told.push(20 - hour / 24);
            }
            clock.advance(HOUR);
        }
        assert_eq!(told, [14, 7, 3, 1]);
    }

    #[test]
    fn next_login_is_told_of_its_own_end() {
        let (clock, mut stamps) = (clock(), HookStamps::default());
        let mut due = |days: u32, moved: u64| {
            let login_by = clock.now().wall.plus(DAY * days).plus(Duration::from_secs(moved));
            let seen = Standing { login_by: Some(login_by), ..standing(ProfileState::Fresh) };
            tell(&clock, &mut stamps, &[HookEvent::LoginDue], &seen).len()
        };
        assert_eq!([due(5, 0), due(5, 1), due(2, 0), due(2, 0)], [1, 0, 1, 0]);
        assert_eq!([due(6, 0), due(6, 0)], [1, 0], "it ends later, so there was another login");
        assert_eq!([due(20, 0), due(0, 0)], [0, 0]);
        let seen = Standing { login_by: Some(clock.now().wall.plus(DAY * 20)), ..standing(ProfileState::Fresh) };
        let plan = decide(&seen, &HookStamps::default(), &wishes(&HookEvent::ALL), &clock.now());
        assert_eq!(plan.next, Some(DAY * 6));
    }

    #[test]
    fn nothing_is_noted_that_nothing_is_run_for() {
        let clock = clock();
        let seen = Standing { login_by: Some(clock.now().wall.plus(DAY)), ..standing(ProfileState::NeedsLogin) };
        for events in [vec![], vec![HookEvent::Refreshed], vec![HookEvent::Deferred]] {
            let plan = decide(&seen, &HookStamps::default(), &wishes(&events), &clock.now());
            assert_eq!(plan, HookPlan::default(), "{events:?}");
        }
        let plan = decide(&seen, &HookStamps::default(), &wishes(&[HookEvent::Recovered]), &clock.now());
        assert!(plan.told.is_empty() && plan.stamps.needs_login.is_some());
    }

    #[test]
    fn desktop_shows_that_a_login_is_needed_and_that_it_was_made() {
        let (clock, mut stamps) = (clock(), HookStamps::default());
        let wishes = Wishes { is_desktop: true, ..wishes(&[]) };
        let mut shown = |state| {
            let failing = Standing { failures: 9, is_failing: state == ProfileState::Due, ..standing(state) };
            let plan = decide(&failing, &stamps, &wishes, &clock.now());
            stamps = plan.stamps;
            plan.told.iter().map(|news| (news.event, news.is_shown)).collect::<Vec<_>>()
        };
        assert_eq!(shown(ProfileState::Due), []);
        assert_eq!(shown(ProfileState::Fresh), [], "what was not shown has no end that is");
        assert_eq!(shown(ProfileState::NeedsLogin), [(HookEvent::NeedsLogin, true)]);
        assert_eq!(shown(ProfileState::Fresh), [(HookEvent::Recovered, true)]);
    }
}
