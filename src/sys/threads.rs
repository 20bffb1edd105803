//! Work on several threads, which goes on with fewer where no more can be had.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// How the panic begins with which tokio reports that no thread can be had.
pub const NO_THREAD_PANIC: &str = "OS can't spawn worker thread";

/// Builds a runtime. tokio panics where its threads cannot be had; here that is an error, as any other.
pub fn build_runtime(builder: &mut Builder) -> io::Result<Runtime> {
    catch_unwind(AssertUnwindSafe(|| builder.enable_all().build()))
        .unwrap_or_else(|_| Err(io::Error::other("the system gives no thread")))
}

/// Does `work` for each item, on at most `limit` threads, this one included. The results are in the order of the items.
pub fn map<T: Send, R: Send>(limit: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let helpers = limit.min(items.len()).saturating_sub(1);
    let queue: Mutex<VecDeque<(usize, T)>> = Mutex::new(items.into_iter().enumerate().collect());
    let results = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work_on = || {
        while let Some((place, item)) = next() {
            let result = work(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            if thread::Builder::new().spawn_scoped(scope, work_on).is_err() {
                break;
            }
        }
        work_on();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(map(7, items.clone(), |n| n), items);
        assert_eq!(map(1, items.clone(), |n| n), items);
        assert!(map(0, Vec::<usize>::new(), |n| n).is_empty());
    }
}
