//! Work on several threads, which goes on with fewer where no more can be had.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use tokio::runtime::{Builder, Runtime};

thread_local! {
    /// A panic of this thread is caught, and told as an error.
    static IS_PANIC_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread needs no words of its own.
pub fn is_panic_caught() -> bool {
    IS_PANIC_CAUGHT.get()
}

/// The words of a panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason")
}

/// Builds a runtime. tokio panics where it can have no thread or no descriptor; here that is an error, as any other.
pub fn build_runtime(builder: &mut Builder) -> io::Result<Runtime> {
    without_panic(|| builder.enable_all().build())
}

/// Calls a function of tokio that may panic for want of a thread or a descriptor.
pub fn without_panic<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    IS_PANIC_CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    IS_PANIC_CAUGHT.set(false);
    done.unwrap_or_else(|payload| Err(io::Error::other(panic_text(payload.as_ref()).to_owned())))
}

/// Whether `count` more threads can be had now.
pub fn check_available(count: usize) -> io::Result<()> {
    let mut held = Vec::new();
    for _ in 0..count {
        let (hold, gate) = mpsc::channel::<()>();
        held.push((hold, thread::Builder::new().spawn(move || gate.recv().is_err())?));
    }
    for (hold, waiting) in held {
        drop(hold);
        let _ended = waiting.join();
    }
    Ok(())
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
