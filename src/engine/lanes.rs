//! At most so many flights at once from this process to each provider.
//!
//! A lane comes last: whoever has one waits for no lock of another process, so a flight that another process keeps waiting
//! (it may be stopped) does not keep the other profiles of its provider waiting.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    taken: Mutex<HashMap<String, usize>>,
    freed: Condvar,
}

/// A lane taken; free again when dropped.
pub struct Lane {
    shared: Arc<Shared>,
    provider: String,
    limit: usize,
}

impl Lanes {
    /// Waits for a lane.
    pub fn take(&self, provider: &str, limit: usize) -> Lane {
        self.0.enter(provider, limit);
        self.lane(provider, limit)
    }

    /// A lane if one is free now.
    pub fn try_take(&self, provider: &str, limit: usize) -> Option<Lane> {
        let mut taken = self.0.lock();
        if is_full(&taken, provider, limit) {
            return None;
        }
        count(&mut taken, provider);
        Some(self.lane(provider, limit))
    }

    fn lane(&self, provider: &str, limit: usize) -> Lane {
        Lane { shared: Arc::clone(&self.0), provider: provider.to_owned(), limit }
    }
}

impl Lane {
    /// Leaves the lane to others while `wait` waits for another process, and comes back to it. What is got by the waiting
    /// is held meanwhile, which nobody in a lane waits for.
    pub fn aside<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.shared.leave(&self.provider);
        let got = wait();
        self.shared.enter(&self.provider, self.limit);
        got
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.leave(&self.provider);
    }
}

impl Shared {
    fn enter(&self, provider: &str, limit: usize) {
        let is_full = |taken: &mut HashMap<_, _>| is_full(taken, provider, limit);
        let mut taken = self.freed.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        count(&mut taken, provider);
    }

    fn leave(&self, provider: &str) {
        if let Some(n) = self.lock().get_mut(provider) {
            *n = n.saturating_sub(1);
        }
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit of none would let nobody through ever.
fn is_full(taken: &HashMap<String, usize>, provider: &str, limit: usize) -> bool {
    taken.get(provider).copied().unwrap_or(0) >= limit.max(1)
}

fn count(taken: &mut HashMap<String, usize>, provider: &str) {
    *taken.entry(provider.to_owned()).or_insert(0) += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lanes: &Lanes, provider: &str) -> Option<usize> {
        lanes.0.lock().get(provider).copied()
    }

    #[test]
    fn lanes_are_counted_for_each_provider() {
        let lanes = Lanes::default();
        let first = lanes.take("a", 2);
        let second = lanes.try_take("a", 2).unwrap();
        let _other = lanes.take("b", 1);
        assert_eq!((taken(&lanes, "a"), taken(&lanes, "b")), (Some(2), Some(1)));
        assert!(lanes.try_take("a", 2).is_none() && lanes.try_take("b", 0).is_none());
        drop(first);
        assert_eq!(taken(&lanes, "a"), Some(1));
        drop(second);
        assert_eq!(taken(&lanes, "a"), Some(0));
    }

    #[test]
    fn a_full_provider_is_waited_for() {
        let lanes = Lanes::default();
        let only = lanes.take("a", 1);
        let (started, has_started) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let lanes = &lanes;
            let waiter = scope.spawn(move || {
                started.send(()).unwrap();
                drop(lanes.take("a", 0));
            });
            has_started.recv().unwrap();
            assert!(!waiter.is_finished());
            drop(only);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn who_steps_aside_leaves_the_lane_to_others_and_comes_back() {
        let lanes = Lanes::default();
        let lane = lanes.take("a", 1);
        let other = lane.aside(|| lanes.try_take("a", 1).map(drop));
        assert!(other.is_some());
        assert!(lanes.try_take("a", 1).is_none());
        drop(lane);
        assert_eq!(taken(&lanes, "a"), Some(0));
    }
}
