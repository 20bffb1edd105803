//! Single flight within one process: one leader and any number of followers, each of whom gets the outcome.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::profile::ProfileName;

/// The flights of this process, at most one per profile. `O` is what a flight ends with.
#[derive(Debug)]
pub struct FlightGroup<O> {
    table: Arc<FlightTable<O>>,
}

#[derive(Debug)]
struct FlightTable<O> {
    flights: Mutex<HashMap<ProfileName, Arc<FlightState<O>>>>,
    /// Signalled whenever a slot closes.
    flight_ended: Condvar,
}

#[derive(Debug)]
struct FlightState<O> {
    name: ProfileName,
    phase: Mutex<FlightPhase<O>>,
    phase_changed: Condvar,
    phase_notify: Notify,
    /// Callers that still wait; the leader's own counts too.
    waiter_count: AtomicUsize,
}

#[derive(Debug)]
enum FlightPhase<O> {
    /// The flight waits for admission and may be given up at any moment.
    Queued,
    /// The flight is admitted and must be allowed to finish.
    Running,
    Done(O),
    /// The leader died without an outcome.
    Abandoned,
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum WaitResult<O> {
    Outcome(O),
    /// The leader left without an outcome; the caller should join again.
    Abandoned,
    /// The caller's own time is up; the flight goes on.
    TimedOut,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these locks is held cannot leave its value half changed: each change is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Clone> Default for FlightGroup<O> {
    fn default() -> Self {
        Self { table: Arc::new(FlightTable { flights: Mutex::new(HashMap::new()), flight_ended: Condvar::new() }) }
    }
}

impl<O: Clone> FlightGroup<O> {
    /// Joins the flight for `name`, or opens one. A caller that gets a leader slot must run the flight.
    pub fn join_or_lead(&self, name: &ProfileName) -> (FlightHandle<O>, Option<LeaderSlot<O>>) {
        let mut open = lock(&self.table.flights);
        if let Some(slot) = open.get(name) {
            return (FlightHandle::new(slot), None);
        }
        let slot = Arc::new(FlightState {
            name: name.clone(),
            phase: Mutex::new(FlightPhase::Queued),
            phase_changed: Condvar::new(),
            phase_notify: Notify::new(),
            waiter_count: AtomicUsize::new(0),
        });
        open.insert(name.clone(), Arc::clone(&slot));
        let flight = FlightHandle::new(&slot);
        (flight, Some(LeaderSlot { state: slot, table: Arc::clone(&self.table) }))
    }

    /// Waits until no admitted flight is left, for at most `limit`. Returns the profiles whose flights were still
    /// running. Flights that still queue for admission do not count, because they have done nothing.
    pub fn drain(&self, limit: Duration) -> Vec<ProfileName> {
        let open = lock(&self.table.flights);
        let (open, _) = self
            .table
            .flight_ended
            .wait_timeout_while(open, limit, |open| open.values().any(|slot| slot.is_running()))
            .unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|slot| slot.is_running()).map(|slot| slot.name.clone()).collect()
    }
}

impl<O> FlightState<O> {
    fn is_running(&self) -> bool {
        matches!(*lock(&self.phase), FlightPhase::Running)
    }
}

/// The right and duty to run the flight; admission turns it into a [`crate::guard::Lease`]. Dropping it before that
/// tells the followers.
#[derive(Debug)]
#[must_use = "followers wait until the seat is flown or given up"]
pub struct LeaderSlot<O> {
    state: Arc<FlightState<O>>,
    table: Arc<FlightTable<O>>,
}

impl<O> LeaderSlot<O> {
    pub fn profile(&self) -> &ProfileName {
        &self.state.name
    }

    /// Whether any caller still waits for the outcome. A flight without callers need not start.
    pub fn has_waiters(&self) -> bool {
        self.state.waiter_count.load(Ordering::SeqCst) > 0
    }

    /// Marks the flight as admitted, so that a drain waits for it.
    pub(super) fn mark_running(&self) {
        *lock(&self.state.phase) = FlightPhase::Running;
    }

    /// Gives every follower the outcome and closes the flight. A later caller opens a new one.
    pub fn complete(self, outcome: O) {
        self.end(FlightPhase::Done(outcome));
    }

    fn end(&self, end: FlightPhase<O>) {
        let mut open = lock(&self.table.flights);
        *lock(&self.state.phase) = end;
        open.remove(&self.state.name);
        drop(open);
        self.state.phase_changed.notify_all();
        self.state.phase_notify.notify_waiters();
        self.table.flight_ended.notify_all();
    }
}

impl<O> Drop for LeaderSlot<O> {
    fn drop(&mut self) {
        let has_landed = matches!(*lock(&self.state.phase), FlightPhase::Done(_));
        if !has_landed {
            self.end(FlightPhase::Abandoned);
        }
    }
}

/// A caller's share in a flight. Dropping it means leaving.
#[derive(Debug)]
pub struct FlightHandle<O> {
    state: Arc<FlightState<O>>,
}

impl<O> FlightHandle<O> {
    fn new(slot: &Arc<FlightState<O>>) -> Self {
        slot.waiter_count.fetch_add(1, Ordering::SeqCst);
        Self { state: Arc::clone(slot) }
    }
}

impl<O: Clone> FlightHandle<O> {
    /// Whether the flight still waits for admission.
    pub fn is_queued(&self) -> bool {
        matches!(*lock(&self.state.phase), FlightPhase::Queued)
    }

    /// Blocks the calling thread until the flight ends, or for at most `limit`.
    pub fn wait(&self, limit: Duration) -> WaitResult<O> {
        let state = lock(&self.state.phase);
        let (state, _) = self
            .state
            .phase_changed
            .wait_timeout_while(state, limit, |s| matches!(s, FlightPhase::Queued | FlightPhase::Running))
            .unwrap_or_else(PoisonError::into_inner);
        Self::wait_result(&state)
    }

    /// Resolves when the flight ends. May be dropped at any await.
    pub async fn wait_async(&self) -> WaitResult<O> {
        loop {
            // The permit of `notify_waiters` goes to those registered before it: register first, look second.
            let changed = self.state.phase_notify.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match Self::wait_result(&lock(&self.state.phase)) {
                WaitResult::TimedOut => {}
                wait_result => return wait_result,
            }
            changed.await;
        }
    }

    fn wait_result(state: &FlightPhase<O>) -> WaitResult<O> {
        match state {
            FlightPhase::Queued | FlightPhase::Running => WaitResult::TimedOut,
            FlightPhase::Done(outcome) => WaitResult::Outcome(outcome.clone()),
            FlightPhase::Abandoned => WaitResult::Abandoned,
        }
    }
}

impl<O> Drop for FlightHandle<O> {
    fn drop(&mut self) {
        self.state.waiter_count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const NO_TIME: Duration = Duration::ZERO;

    fn name(text: &str) -> ProfileName {
        text.parse().unwrap()
    }

    /// Rule 1.
    #[test]
    fn second_caller_joins_the_running_flight() {
        let guard = FlightGroup::<u32>::default();
        let (first, leader_slot) = guard.join_or_lead(&name("p"));
        let (second, none) = guard.join_or_lead(&name("p"));
        assert!(none.is_none());
        leader_slot.unwrap().complete(7);
        assert_eq!((first.wait(LONG), second.wait(LONG)), (WaitResult::Outcome(7), WaitResult::Outcome(7)));
    }

    #[test]
    fn caller_after_a_finished_flight_opens_a_new_one() {
        let guard = FlightGroup::<u32>::default();
        let (_, leader_slot) = guard.join_or_lead(&name("p"));
        leader_slot.unwrap().complete(1);
        assert!(guard.join_or_lead(&name("p")).1.is_some());
    }

    #[test]
    fn profiles_do_not_wait_for_each_other() {
        let guard = FlightGroup::<u32>::default();
        let (_a, seat_a) = guard.join_or_lead(&name("a"));
        let (_b, seat_b) = guard.join_or_lead(&name("b"));
        assert!(seat_a.is_some() && seat_b.is_some());
    }

    /// Rule 14.
    #[test]
    fn caller_that_leaves_does_not_end_the_flight() {
        let guard = FlightGroup::<u32>::default();
        let (leader, leader_slot) = guard.join_or_lead(&name("p"));
        let (follower, _) = guard.join_or_lead(&name("p"));
        let leader_slot = leader_slot.unwrap();
        drop(leader);
        assert!(leader_slot.has_waiters());
        assert_eq!(follower.wait(NO_TIME), WaitResult::TimedOut);
        leader_slot.complete(3);
        assert_eq!(follower.wait(LONG), WaitResult::Outcome(3));
    }

    #[test]
    fn flight_without_callers_is_not_wanted() {
        let guard = FlightGroup::<u32>::default();
        let (leader, leader_slot) = guard.join_or_lead(&name("p"));
        drop(leader);
        assert!(!leader_slot.unwrap().has_waiters());
    }

    #[test]
    fn followers_learn_that_their_leader_panicked() {
        let guard = FlightGroup::<u32>::default();
        let (_leader, leader_slot) = guard.join_or_lead(&name("p"));
        let (follower, _) = guard.join_or_lead(&name("p"));
        std::thread::scope(|s| {
            let dying = s.spawn(move || {
                let _seat = leader_slot.unwrap();
                panic!("the leader's bug");
            });
            assert!(dying.join().is_err());
        });
        assert_eq!(follower.wait(LONG), WaitResult::Abandoned);
        assert!(guard.join_or_lead(&name("p")).1.is_some());
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let guard = FlightGroup::<usize>::default();
        for round in 0..200 {
            let (flight, leader_slot) = guard.join_or_lead(&name("p"));
            let (other, _) = guard.join_or_lead(&name("p"));
            std::thread::scope(|s| {
                s.spawn(move || leader_slot.unwrap().complete(round));
                assert_eq!(flight.wait(LONG), WaitResult::Outcome(round));
                assert_eq!(other.wait(LONG), WaitResult::Outcome(round));
            });
        }
    }

    #[test]
    fn async_task_receives_the_outcome_of_a_flight() {
        let guard = FlightGroup::<u32>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for round in 0..100 {
            let (flight, leader_slot) = guard.join_or_lead(&name("p"));
            std::thread::scope(|s| {
                s.spawn(move || leader_slot.unwrap().complete(round));
                assert_eq!(runtime.block_on(flight.wait_async()), WaitResult::Outcome(round));
            });
        }
    }

    #[test]
    fn a_flight_is_queued_until_it_is_admitted() {
        let guard = FlightGroup::<u32>::default();
        let (flight, leader_slot) = guard.join_or_lead(&name("p"));
        assert!(flight.is_queued(), "a caller that is told to stop may leave it");
        leader_slot.unwrap().mark_running();
        assert!(!flight.is_queued(), "a caller that is told to stop must see it through");
    }

    /// Rule 28.
    #[test]
    fn drain_waits_for_admitted_flights_only() {
        let guard = FlightGroup::<u32>::default();
        let (_q, queued) = guard.join_or_lead(&name("queued"));
        let (_f, flying) = guard.join_or_lead(&name("flying"));
        let flying = flying.unwrap();
        flying.mark_running();
        assert_eq!(guard.drain(NO_TIME), [name("flying")]);
        std::thread::scope(|s| {
            s.spawn(move || flying.complete(1));
            assert!(guard.drain(LONG).is_empty());
        });
        drop(queued);
    }
}
