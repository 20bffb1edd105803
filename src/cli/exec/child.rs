//! The form of `exec` that stays: its command as a child, run once more with a newer token if it ends with a given status.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::SignalKind;

use crate::cli::signals::ForwardedSignals;
use crate::sys::foreground::ForegroundChild;

/// The command that runs now, for the thread that passes signals on.
#[derive(Default)]
struct Running {
    child: Option<Arc<ForegroundChild>>,
    /// A signal came that asks a program to end.
    is_stopping: bool,
}

/// Runs commands one after the other, and passes signals on to each.
pub(super) struct Runner(Arc<Mutex<Running>>);

impl Runner {
    /// Signals are caught from now on.
    pub(super) fn new() -> io::Result<Self> {
        let running = Arc::new(Mutex::new(Running::default()));
        let shared = Arc::clone(&running);
        ForwardedSignals::listen()?.each(move |kind| take_signal(&shared, kind))?;
        Ok(Self(running))
    }

    /// Runs a command to its end; its exit status.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<u8> {
        let child = {
            // A signal that comes meanwhile is passed on when the child is known.
            let mut running = lock(&self.0);
            let child = Arc::new(ForegroundChild::spawn(command)?);
            running.child = Some(Arc::clone(&child));
            child
        };
        let status = child.wait();
        lock(&self.0).child = None;
        status
    }

    /// Whether a person or the system wants an end of it.
    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.0).is_stopping
    }
}

fn lock(running: &Mutex<Running>) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_signal(running: &Mutex<Running>, kind: SignalKind) {
    let mut running = lock(running);
    let ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit(), SignalKind::interrupt()];
    running.is_stopping |= ends.contains(&kind);
    // Ctrl-C reaches the child from the terminal.
    if let Some(child) = running.child.as_ref().filter(|_| kind != SignalKind::interrupt()) {
        child.signal(kind.as_raw_value());
    }
}
