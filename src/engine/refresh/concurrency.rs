//! Limits the number of flights that this process has at once to each provider.
//!
//! A place at the provider is taken last, and its holder waits for no lock of another process. So a flight that another
//! process blocks does not keep the other profiles of its provider waiting.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::events;

#[derive(Default)]
pub struct ConcurrencyLimit(Arc<ConcurrencyState>);

#[derive(Default)]
struct ConcurrencyState {
    in_use: Mutex<HashMap<String, usize>>,
    released: Condvar,
}

/// A place at the provider; free again when dropped.
pub struct ConcurrencyPermit {
    state: Arc<ConcurrencyState>,
    provider: String,
    limit: usize,
}

impl ConcurrencyLimit {
    /// Waits for a place.
    pub fn acquire(&self, provider: &str, limit: usize) -> ConcurrencyPermit {
        self.0.acquire(provider, limit);
        self.new_permit(provider, limit)
    }

    /// A place if one is free now.
    pub fn try_acquire(&self, provider: &str, limit: usize) -> Option<ConcurrencyPermit> {
        let mut taken = self.0.lock();
        if is_full(&taken, provider, limit) {
            return None;
        }
        increment(&mut taken, provider);
        Some(self.new_permit(provider, limit))
    }

    /// The places taken, at all providers.
    pub fn in_use(&self) -> usize {
        self.0.lock().values().sum()
    }

    fn new_permit(&self, provider: &str, limit: usize) -> ConcurrencyPermit {
        ConcurrencyPermit { state: Arc::clone(&self.0), provider: provider.to_owned(), limit }
    }
}

impl ConcurrencyPermit {
    /// Gives the place away while `wait` waits for another process, and takes one again afterwards. What `wait` returns
    /// is held meanwhile; no holder of a place waits for it.
    pub fn released_while<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.state.release(&self.provider);
        let got = wait();
        self.state.acquire(&self.provider, self.limit);
        got
    }
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        self.state.release(&self.provider);
    }
}

impl ConcurrencyState {
    fn acquire(&self, provider: &str, limit: usize) {
        let is_full = |taken: &mut HashMap<_, _>| is_full(taken, provider, limit);
        let mut taken = self.lock();
        if is_full(&mut taken) {
            events::provider_wait(provider);
        }
        let mut taken = self.released.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        increment(&mut taken, provider);
    }

    fn release(&self, provider: &str) {
        if let Some(n) = self.lock().get_mut(provider) {
            *n = n.saturating_sub(1);
        }
        self.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit of zero would let no flight through, so it counts as one.
fn is_full(taken: &HashMap<String, usize>, provider: &str, limit: usize) -> bool {
    taken.get(provider).copied().unwrap_or(0) >= limit.max(1)
}

fn increment(taken: &mut HashMap<String, usize>, provider: &str) {
    *taken.entry(provider.to_owned()).or_insert(0) += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lanes: &ConcurrencyLimit, provider: &str) -> Option<usize> {
        lanes.0.lock().get(provider).copied()
    }

    #[test]
    fn concurrent_flights_are_counted_per_provider() {
        let lanes = ConcurrencyLimit::default();
        let first = lanes.acquire("a", 2);
        let second = lanes.try_acquire("a", 2).unwrap();
        let _other = lanes.acquire("b", 1);
        assert_eq!((taken(&lanes, "a"), taken(&lanes, "b")), (Some(2), Some(1)));
        assert!(lanes.try_acquire("a", 2).is_none() && lanes.try_acquire("b", 0).is_none());
        drop(first);
        assert_eq!(taken(&lanes, "a"), Some(1));
        drop(second);
        assert_eq!(taken(&lanes, "a"), Some(0));
    }

    #[test]
    fn flight_waits_while_its_provider_is_at_its_limit() {
        let lanes = ConcurrencyLimit::default();
        let only = lanes.acquire("a", 1);
        let (started, has_started) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let lanes = &lanes;
            let waiter = scope.spawn(move || {
                started.send(()).unwrap();
                drop(lanes.acquire("a", 0));
            });
            has_started.recv().unwrap();
            assert!(!waiter.is_finished());
            drop(only);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn waiting_flight_releases_its_slot_and_takes_it_again() {
        let lanes = ConcurrencyLimit::default();
        let concurrency_permit = lanes.acquire("a", 1);
        let other = concurrency_permit.released_while(|| lanes.try_acquire("a", 1).map(drop));
        assert!(other.is_some());
        assert!(lanes.try_acquire("a", 1).is_none());
        drop(concurrency_permit);
        assert_eq!(taken(&lanes, "a"), Some(0));
    }
}
