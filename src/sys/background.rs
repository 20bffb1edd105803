//! A small tokio runtime, which may be dropped anywhere, also by one of its own tasks.

use std::ops::Deref;

use tokio::runtime::{Builder, Runtime};

use crate::sys::threads;

/// A tokio runtime whose drop waits for nothing. tokio's own runtime panics if one of its tasks holds the last
/// reference, as a client of a stopping daemon may, and if it is dropped inside another runtime. No task needs to be waited
/// for, because a flight has a thread of its own.
#[derive(Debug)]
pub struct BackgroundRuntime(Option<Runtime>);

impl BackgroundRuntime {
    /// `name`: of its threads.
    pub fn start(name: &str) -> std::io::Result<Self> {
        threads::build_runtime(Builder::new_multi_thread().worker_threads(1).thread_name(name)).map(|r| Self(Some(r)))
    }
}

impl Deref for BackgroundRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("only drop takes it")
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn runtime_can_be_dropped_by_one_of_its_own_tasks() {
        let runtime = Arc::new(BackgroundRuntime::start("test").unwrap());
        let (told, is_told) = std::sync::mpsc::channel();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let last = Arc::clone(&runtime);
        runtime.spawn(async move {
            let _gone = wait.await;
            let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(last)));
            told.send(dropped.is_ok()).unwrap();
        });
        drop(runtime);
        go.send(()).unwrap();
        assert_eq!(is_told.recv(), Ok(true));
    }
}
