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
    providers: Mutex<HashMap<String, ProviderSlots>>,
}

/// The places at one provider. Each has a condition of its own, so that a place that becomes free wakes one flight, and
/// not all that wait.
#[derive(Default)]
struct ProviderSlots {
    in_use: usize,
    released: Arc<Condvar>,
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
        {
            let mut providers = self.0.lock();
            if is_full(&providers, provider, limit) {
                return None;
            }
            increment(&mut providers, provider);
        }
        Some(self.new_permit(provider, limit))
    }

    /// The places taken, at all providers.
    pub fn in_use(&self) -> usize {
        self.0.lock().values().map(|slots| slots.in_use).sum()
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
        let mut providers = self.lock();
        if is_full(&providers, provider, limit) {
            events::provider_wait(provider);
            let released = Arc::clone(&providers.entry(provider.to_owned()).or_default().released);
            providers = released
                .wait_while(providers, |providers| is_full(providers, provider, limit))
                .unwrap_or_else(PoisonError::into_inner);
        }
        increment(&mut providers, provider);
    }

    /// Wakes one flight. If that one finds no place, because another came first or its limit is lower, a place is in use,
    /// and the release of that wakes again.
    fn release(&self, provider: &str) {
        if let Some(slots) = self.lock().get_mut(provider) {
            slots.in_use = slots.in_use.saturating_sub(1);
            slots.released.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ProviderSlots>> {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit of zero would let no flight through, so it counts as one.
fn is_full(providers: &HashMap<String, ProviderSlots>, provider: &str, limit: usize) -> bool {
    providers.get(provider).is_some_and(|slots| slots.in_use >= limit.max(1))
}

fn increment(providers: &mut HashMap<String, ProviderSlots>, provider: &str) {
    providers.entry(provider.to_owned()).or_default().in_use += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lanes: &ConcurrencyLimit, provider: &str) -> Option<usize> {
        lanes.0.lock().get(provider).map(|slots| slots.in_use)
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
    fn every_waiting_flight_gets_a_place_in_turn() {
        const FLIGHTS: usize = 16;
        let lanes = ConcurrencyLimit::default();
        let held = [lanes.acquire("a", 2), lanes.acquire("a", 2)];
        let most = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for flight in 0..FLIGHTS {
                let (lanes, most) = (&lanes, &most);
                scope.spawn(move || {
                    // A limit that was changed meanwhile holds up no other.
                    let _place = lanes.acquire("a", 1 + flight % 2);
                    most.fetch_max(taken(lanes, "a").unwrap_or(0), std::sync::atomic::Ordering::SeqCst);
                });
            }
            drop(held);
        });
        assert_eq!(taken(&lanes, "a"), Some(0));
        assert!(most.into_inner() <= 2);
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
