//! Runs keyring calls on a thread with a time limit, so that the caller gets a result whatever the keyring does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{AskedKeyring, FoundItem, KEYRING_TIMEOUT, Keyring, KeyringError, KeyringItem, WRITE_DELAY};

/// The calls that a platform implements; they may block for ever.
pub(super) trait KeyringBackend: Send + 'static {
    fn check(&mut self, service: &str) -> Result<(), KeyringError>;
    fn read(&mut self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError>;
    /// Calls `alive` between items: there may be a thousand, and each is asked for.
    fn list(&mut self, service: &str, alive: &dyn Fn()) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError>;
    fn write(&mut self, item: &KeyringItem, value: &str) -> Result<(), KeyringError>;
    fn delete(&mut self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError>;
    /// See [`Keyring::asked`].
    fn asked(&mut self) -> Result<AskedKeyring, KeyringError> {
        Ok(AskedKeyring::default())
    }
    fn disconnect(&mut self);
    /// See [`Keyring::write_delay`].
    fn write_delay(&mut self) -> Duration {
        WRITE_DELAY
    }
    /// A backend of the same kind, unconnected, for the thread that takes over from a stuck one.
    fn renew(&self) -> Self;
}

/// Threads that may be stuck in a keyring at once; one more call is refused without trying.
const MAX_THREADS: usize = 4;

/// How many items one call may report. It gives a bound to a call that makes progress for ever.
const MAX_SIGNS_OF_LIFE: usize = 100_000;

type Job<B> = Box<dyn FnOnce(&mut B) + Send>;

/// A keyring behind a thread.
pub(super) struct KeyringWorker<B> {
    template: Mutex<B>,
    queue: Mutex<Option<Sender<Job<B>>>>,
    /// Threads alive, the one at work included.
    thread_count: Arc<AtomicUsize>,
}

impl<B: KeyringBackend> KeyringWorker<B> {
    pub(super) fn new(template: B) -> Self {
        Self { template: Mutex::new(template), queue: Mutex::new(None), thread_count: Arc::default() }
    }

    /// Runs `call` on the thread and waits for it, for at most [`super::KEYRING_TIMEOUT`]. After that the thread is left to itself and
    /// the next call gets a new one. A write that was left behind may still happen: the caller reads again.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut B) -> Result<T, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        self.call_with_progress(move |backend, _| call(backend))
    }

    /// Runs a call that reports progress: the time limit is for its silence.
    fn call_with_progress<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut B, &dyn Fn()) -> Result<T, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let (response, answered) = mpsc::channel();
        let job: Job<B> = Box::new(move |backend| {
            // The receiver may be gone.
            let alive = || drop(response.send(None));
            let result = call(backend, &alive);
            let _left = response.send(Some(result));
        });
        self.enqueue(job)?;
        for _ in 0..MAX_SIGNS_OF_LIFE {
            match answered.recv_timeout(KEYRING_TIMEOUT) {
                Ok(Some(result)) => return result,
                Ok(None) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Err(KeyringError::TimedOut);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(KeyringError::Failed("the keyring library panicked".into()));
                }
            }
        }
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Err(KeyringError::TimedOut)
    }

    fn enqueue(&self, job: Job<B>) -> Result<(), KeyringError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match queue.as_ref() {
            None => job,
            Some(sender) => match sender.send(job) {
                Ok(()) => return Ok(()),
                // The thread is gone: start another.
                Err(mpsc::SendError(job)) => job,
            },
        };
        let sender = self.spawn_thread()?;
        let sent = sender.send(job).map_err(|_| KeyringError::Failed("the keyring thread exited at once".into()));
        *queue = Some(sender);
        sent
    }

    fn spawn_thread(&self) -> Result<Sender<Job<B>>, KeyringError> {
        if self.thread_count.load(Ordering::SeqCst) >= MAX_THREADS {
            return Err(KeyringError::TimedOut);
        }
        let mut backend = self.template.lock().unwrap_or_else(PoisonError::into_inner).renew();
        let (sender, jobs) = mpsc::channel::<Job<B>>();
        let alive = ThreadCounter::new(&self.thread_count);
        thread::Builder::new()
            .name("keyring".into())
            .spawn(move || {
                let _alive = alive;
                while let Ok(job) = jobs.recv() {
                    // A bug in the library costs one call and its connection, not the keyring.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut backend))).is_err() {
                        backend = backend.renew();
                    }
                }
            })
            .map_err(|e| KeyringError::Failed(format!("cannot start a thread: {e}")))?;
        Ok(sender)
    }
}

/// Counts a thread for as long as it lives.
struct ThreadCounter(Arc<AtomicUsize>);

impl ThreadCounter {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for ThreadCounter {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B: KeyringBackend> Keyring for KeyringWorker<B> {
    fn check(&self, service: &str) -> Result<(), KeyringError> {
        let service = service.to_owned();
        self.call(move |b| b.check(&service))
    }

    fn read(&self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        let item = item.clone();
        self.call(move |b| b.read(&item))
    }

    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        let service = service.to_owned();
        self.call_with_progress(move |b, alive| b.list(&service, alive))
    }

    fn write(&self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        let (item, value) = (item.clone(), Zeroizing::new(value.to_owned()));
        self.call(move |b| b.write(&item, &value))
    }

    fn delete(&self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        let (item, holding) = (item.clone(), holding.to_owned());
        self.call(move |b| b.delete(&item, &holding))
    }

    fn asked(&self) -> Result<AskedKeyring, KeyringError> {
        self.call(B::asked)
    }

    fn write_delay(&self) -> Duration {
        self.call(|b| Ok(b.write_delay())).unwrap_or(WRITE_DELAY)
    }

    fn reconnect(&self) {
        // If the thread is stuck there is nothing to close.
        let _stuck = self.call(|b| {
            b.disconnect();
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs on every check until the receiver's other end is dropped.
    struct Stuck(Arc<Mutex<mpsc::Receiver<()>>>);

    impl KeyringBackend for Stuck {
        fn check(&mut self, _: &str) -> Result<(), KeyringError> {
            let _gone = self.0.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(())
        }
        fn read(&mut self, _: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
            panic!("a bug in the library")
        }
        fn list(&mut self, _: &str, alive: &dyn Fn()) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
            for _ in 0..3 {
                let _nothing = self.0.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(KEYRING_TIMEOUT / 2);
                alive();
            }
            Ok(Vec::new())
        }
        fn write(&mut self, _: &KeyringItem, _: &str) -> Result<(), KeyringError> {
            Ok(())
        }
        fn delete(&mut self, _: &KeyringItem, _: &str) -> Result<(), KeyringError> {
            Ok(())
        }
        fn disconnect(&mut self) {}
        fn renew(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    fn item() -> KeyringItem {
        KeyringItem { service: "s".into(), user: "u".into() }
    }

    #[test]
    fn hanging_keyring_call_is_abandoned_and_the_next_works() {
        let (hold, held) = mpsc::channel::<()>();
        let worker = KeyringWorker::new(Stuck(Arc::new(Mutex::new(held))));
        assert_eq!(worker.check("s"), Err(KeyringError::TimedOut));
        assert_eq!(worker.write(&item(), "x"), Ok(()));
        drop(hold);
    }

    #[test]
    fn keyring_call_that_makes_progress_may_take_longer() {
        let (_hold, held) = mpsc::channel::<()>();
        assert_eq!(KeyringWorker::new(Stuck(Arc::new(Mutex::new(held)))).list("s"), Ok(Vec::new()));
    }

    #[test]
    fn keyring_library_panic_becomes_an_error() {
        let (_hold, held) = mpsc::channel::<()>();
        let worker = KeyringWorker::new(Stuck(Arc::new(Mutex::new(held))));
        assert!(matches!(worker.read(&item()), Err(KeyringError::Failed(_))));
        assert_eq!(worker.delete(&item(), ""), Ok(()));
    }
}
