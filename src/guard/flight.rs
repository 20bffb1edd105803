//! Single flight within one process: one leader, any number of followers, no lost wake-up, no outcome without an owner.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::profile::ProfileName;

/// The flights of this process, at most one per profile. `O` is what a flight ends with.
#[derive(Debug)]
pub struct Guard<O> {
    slots: Arc<Slots<O>>,
}

#[derive(Debug)]
struct Slots<O> {
    open: Mutex<HashMap<ProfileName, Arc<Slot<O>>>>,
    /// Signalled whenever a slot closes.
    closed: Condvar,
}

#[derive(Debug)]
struct Slot<O> {
    name: ProfileName,
    state: Mutex<State<O>>,
    changed: Condvar,
    notify: Notify,
    /// Callers that still wait; the leader's own counts too.
    waiting: AtomicUsize,
}

#[derive(Debug)]
enum State<O> {
    /// Waiting for admission: may be given up at any moment.
    Queued,
    /// Admitted: must be let finish.
    Flying,
    Landed(O),
    /// The leader died without an outcome.
    Abandoned,
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Landing<O> {
    Outcome(O),
    /// The leader left without an outcome; enter again.
    Abandoned,
    /// The caller's own time is up; the flight goes on.
    TimedOut,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these locks is held cannot leave its value half changed: each change is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Clone> Default for Guard<O> {
    fn default() -> Self {
        Self { slots: Arc::new(Slots { open: Mutex::new(HashMap::new()), closed: Condvar::new() }) }
    }
}

impl<O: Clone> Guard<O> {
    /// Joins the flight for `name`, or opens one. With a seat comes the duty to fly it.
    pub fn enter(&self, name: &ProfileName) -> (Flight<O>, Option<Seat<O>>) {
        let mut open = lock(&self.slots.open);
        if let Some(slot) = open.get(name) {
            return (Flight::join(slot), None);
        }
        let slot = Arc::new(Slot {
            name: name.clone(),
            state: Mutex::new(State::Queued),
            changed: Condvar::new(),
            notify: Notify::new(),
            waiting: AtomicUsize::new(0),
        });
        open.insert(name.clone(), Arc::clone(&slot));
        let flight = Flight::join(&slot);
        (flight, Some(Seat { slot, slots: Arc::clone(&self.slots) }))
    }

    /// Waits until no admitted flight is left, for at most `limit`. Flights that still queue for admission do not count:
    /// they have done nothing. Returns the profiles that were still flying.
    pub fn drain(&self, limit: Duration) -> Vec<ProfileName> {
        let open = lock(&self.slots.open);
        let (open, _) = self
            .slots
            .closed
            .wait_timeout_while(open, limit, |open| open.values().any(|slot| slot.is_flying()))
            .unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|slot| slot.is_flying()).map(|slot| slot.name.clone()).collect()
    }
}

impl<O> Slot<O> {
    fn is_flying(&self) -> bool {
        matches!(*lock(&self.state), State::Flying)
    }
}

/// The right and duty to fly: turned into a [`crate::guard::Lease`] by admission. Dropping it unflown lets the
/// followers know.
#[derive(Debug)]
#[must_use = "followers wait until the seat is flown or given up"]
pub struct Seat<O> {
    slot: Arc<Slot<O>>,
    slots: Arc<Slots<O>>,
}

impl<O> Seat<O> {
    pub fn profile(&self) -> &ProfileName {
        &self.slot.name
    }

    /// Whether anybody still waits for the outcome. A flight that nobody wants any more need not start.
    pub fn is_wanted(&self) -> bool {
        self.slot.waiting.load(Ordering::SeqCst) > 0
    }

    /// From now on a drain waits for this flight.
    pub(super) fn begin(&self) {
        *lock(&self.slot.state) = State::Flying;
    }

    /// Gives every follower the outcome and closes the flight: whoever comes later opens a new one.
    pub fn land(self, outcome: O) {
        self.close(State::Landed(outcome));
    }

    fn close(&self, end: State<O>) {
        let mut open = lock(&self.slots.open);
        *lock(&self.slot.state) = end;
        open.remove(&self.slot.name);
        drop(open);
        self.slot.changed.notify_all();
        self.slot.notify.notify_waiters();
        self.slots.closed.notify_all();
    }
}

impl<O> Drop for Seat<O> {
    fn drop(&mut self) {
        let has_landed = matches!(*lock(&self.slot.state), State::Landed(_));
        if !has_landed {
            self.close(State::Abandoned);
        }
    }
}

/// A caller's share in a flight. Dropping it is leaving.
#[derive(Debug)]
pub struct Flight<O> {
    slot: Arc<Slot<O>>,
}

impl<O> Flight<O> {
    fn join(slot: &Arc<Slot<O>>) -> Self {
        slot.waiting.fetch_add(1, Ordering::SeqCst);
        Self { slot: Arc::clone(slot) }
    }
}

impl<O: Clone> Flight<O> {
    /// Whether the flight still waits for admission.
    pub fn is_queued(&self) -> bool {
        matches!(*lock(&self.slot.state), State::Queued)
    }

    /// Blocks the calling thread until the flight lands, or for at most `limit`.
    pub fn wait(&self, limit: Duration) -> Landing<O> {
        let state = lock(&self.slot.state);
        let (state, _) = self
            .slot
            .changed
            .wait_timeout_while(state, limit, |s| matches!(s, State::Queued | State::Flying))
            .unwrap_or_else(PoisonError::into_inner);
        Self::landing(&state)
    }

    /// Resolves when the flight lands. May be dropped at any await.
    pub async fn landed(&self) -> Landing<O> {
        loop {
            // The permit of `notify_waiters` goes to those registered before it: register first, look second.
            let changed = self.slot.notify.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match Self::landing(&lock(&self.slot.state)) {
                Landing::TimedOut => {}
                landing => return landing,
            }
            changed.await;
        }
    }

    fn landing(state: &State<O>) -> Landing<O> {
        match state {
            State::Queued | State::Flying => Landing::TimedOut,
            State::Landed(outcome) => Landing::Outcome(outcome.clone()),
            State::Abandoned => Landing::Abandoned,
        }
    }
}

impl<O> Drop for Flight<O> {
    fn drop(&mut self) {
        self.slot.waiting.fetch_sub(1, Ordering::SeqCst);
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

    #[test]
    fn r01_a_second_caller_joins_the_first_ones_flight() {
        let guard = Guard::<u32>::default();
        let (first, seat) = guard.enter(&name("p"));
        let (second, none) = guard.enter(&name("p"));
        assert!(none.is_none());
        seat.unwrap().land(7);
        assert_eq!((first.wait(LONG), second.wait(LONG)), (Landing::Outcome(7), Landing::Outcome(7)));
    }

    #[test]
    fn a_caller_after_the_landing_opens_a_new_flight() {
        let guard = Guard::<u32>::default();
        let (_, seat) = guard.enter(&name("p"));
        seat.unwrap().land(1);
        assert!(guard.enter(&name("p")).1.is_some());
    }

    #[test]
    fn profiles_do_not_wait_for_each_other() {
        let guard = Guard::<u32>::default();
        let (_a, seat_a) = guard.enter(&name("a"));
        let (_b, seat_b) = guard.enter(&name("b"));
        assert!(seat_a.is_some() && seat_b.is_some());
    }

    #[test]
    fn r14_a_caller_that_leaves_does_not_end_the_flight() {
        let guard = Guard::<u32>::default();
        let (leader, seat) = guard.enter(&name("p"));
        let (follower, _) = guard.enter(&name("p"));
        let seat = seat.unwrap();
        drop(leader);
        assert!(seat.is_wanted());
        assert_eq!(follower.wait(NO_TIME), Landing::TimedOut);
        seat.land(3);
        assert_eq!(follower.wait(LONG), Landing::Outcome(3));
    }

    #[test]
    fn a_flight_that_everybody_left_is_not_wanted() {
        let guard = Guard::<u32>::default();
        let (leader, seat) = guard.enter(&name("p"));
        drop(leader);
        assert!(!seat.unwrap().is_wanted());
    }

    #[test]
    fn followers_of_a_leader_that_died_are_told() {
        let guard = Guard::<u32>::default();
        let (_leader, seat) = guard.enter(&name("p"));
        let (follower, _) = guard.enter(&name("p"));
        std::thread::scope(|s| {
            let dying = s.spawn(move || {
                let _seat = seat.unwrap();
                panic!("the leader's bug");
            });
            assert!(dying.join().is_err());
        });
        assert_eq!(follower.wait(LONG), Landing::Abandoned);
        assert!(guard.enter(&name("p")).1.is_some());
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let guard = Guard::<usize>::default();
        for round in 0..200 {
            let (flight, seat) = guard.enter(&name("p"));
            let (other, _) = guard.enter(&name("p"));
            std::thread::scope(|s| {
                s.spawn(move || seat.unwrap().land(round));
                assert_eq!(flight.wait(LONG), Landing::Outcome(round));
                assert_eq!(other.wait(LONG), Landing::Outcome(round));
            });
        }
    }

    #[test]
    fn a_task_waits_as_a_thread_does() {
        let guard = Guard::<u32>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for round in 0..100 {
            let (flight, seat) = guard.enter(&name("p"));
            std::thread::scope(|s| {
                s.spawn(move || seat.unwrap().land(round));
                assert_eq!(runtime.block_on(flight.landed()), Landing::Outcome(round));
            });
        }
    }

    #[test]
    fn a_flight_is_queued_until_it_is_admitted() {
        let guard = Guard::<u32>::default();
        let (flight, seat) = guard.enter(&name("p"));
        assert!(flight.is_queued(), "whoever is told to stop may leave it");
        seat.unwrap().begin();
        assert!(!flight.is_queued(), "whoever is told to stop must see it through");
    }

    #[test]
    fn r28_a_drain_waits_for_admitted_flights_only() {
        let guard = Guard::<u32>::default();
        let (_q, queued) = guard.enter(&name("queued"));
        let (_f, flying) = guard.enter(&name("flying"));
        let flying = flying.unwrap();
        flying.begin();
        assert_eq!(guard.drain(NO_TIME), [name("flying")]);
        std::thread::scope(|s| {
            s.spawn(move || flying.land(1));
            assert!(guard.drain(LONG).is_empty());
        });
        drop(queued);
    }
}
