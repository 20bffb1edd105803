//! Handles stop signals: nothing more is sent, and a request that was sent is completed.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::output::{CommandStatus, Output};
use crate::engine::Engine;
use crate::outcome::{ErrorKind, Failure};
use crate::provider::http::HttpEndpoint;
use crate::sys::{process, threads};

/// Ctrl-C has come.
static WAS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The command ends by itself on a stop signal, and says how far it came.
static IS_HANDLED: AtomicBool = AtomicBool::new(false);

/// The signals that a person, a terminal, a time limit or a batch system sends. They are caught from the moment that
/// this value exists.
pub(super) struct StopSignals(Vec<(SignalKind, Signal)>);

impl StopSignals {
    /// Catches them on the endpoint's runtime.
    pub(super) fn listen(endpoint: &HttpEndpoint) -> std::io::Result<Self> {
        Self::listen_on(endpoint.runtime().handle())
    }

    fn listen_on(runtime: &Handle) -> std::io::Result<Self> {
        let mut stop = Self::without_hangup(runtime)?;
        // SIGHUP comes when the terminal is closed, unless the run is to outlive that (`nohup`).
        stop.0.extend(listen_unless_ignored(runtime, &[SignalKind::hangup()])?);
        Ok(stop)
    }

    /// The stop signals of a daemon: without SIGHUP, which reloads.
    pub(super) fn for_daemon(endpoint: &HttpEndpoint) -> std::io::Result<Self> {
        Self::without_hangup(endpoint.runtime().handle())
    }

    fn without_hangup(runtime: &Handle) -> std::io::Result<Self> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::alarm(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::from_raw(rustix::process::Signal::XCPU.as_raw()),
        ];
        let stop = listen_unless_ignored(runtime, &kinds).map(Self)?;
        IS_HANDLED.store(true, Ordering::SeqCst);
        Ok(stop)
    }

    /// Returns once one of the signals has arrived.
    pub(super) async fn received(&mut self) {
        let kind =
            poll_fn(|cx| match self.0.iter_mut().find_map(|(kind, s)| s.poll_recv(cx).is_ready().then_some(*kind)) {
                Some(kind) => Poll::Ready(kind),
                None => Poll::Pending,
            })
            .await;
        if kind == SignalKind::interrupt() {
            WAS_INTERRUPTED.store(true, Ordering::SeqCst);
        }
    }
}

/// An ignored signal stays ignored, because the parent process wanted it so.
fn listen_unless_ignored(runtime: &Handle, kinds: &[SignalKind]) -> std::io::Result<Vec<(SignalKind, Signal)>> {
    let _inside = runtime.enter();
    let kinds = kinds.iter().filter(|kind| !process::ignores_signal(kind.as_raw_value()));
    kinds.map(|kind| signal(*kind).map(|signal| (*kind, signal))).collect()
}

/// The exit status of a command that ended with `status`: one that Ctrl-C ended before it was done has its own.
pub(super) fn exit_status(status: CommandStatus) -> CommandStatus {
    let is_ended =
        !matches!(status, CommandStatus::Ok | CommandStatus::Child(_)) && WAS_INTERRUPTED.load(Ordering::SeqCst);
    if is_ended { CommandStatus::Interrupted } else { status }
}

/// The exit status of a command that runs until it is stopped.
pub(super) fn exit_status_of_stop() -> CommandStatus {
    if WAS_INTERRUPTED.load(Ordering::SeqCst) { CommandStatus::Interrupted } else { CommandStatus::Ok }
}

/// Ends the process on Ctrl-C, with words and an exit status, until the command handles stop signals itself. Best effort:
/// without a thread for it the signal ends the process, which a shell shows as the same status.
pub(super) fn exit_on_interrupt(out: &Arc<Output>) {
    let out = Arc::clone(out);
    let wait = move || {
        let Ok(runtime) = threads::build_runtime(&mut Builder::new_current_thread()) else { return };
        let Ok(interrupts) = listen_unless_ignored(runtime.handle(), &[SignalKind::interrupt()]) else { return };
        let Some((_, mut interrupts)) = interrupts.into_iter().next() else { return };
        while runtime.block_on(interrupts.recv()).is_some() {
            if !IS_HANDLED.load(Ordering::SeqCst) {
                exit_interrupted(&out);
            }
        }
    };
    let _best_effort = std::thread::Builder::new().name("interrupt".into()).spawn(wait);
}

/// Does `work`, whose loss costs nothing: an interrupt ends the program at once.
pub(super) fn while_interruptible<T>(work: impl FnOnce() -> T) -> T {
    let was_handled = IS_HANDLED.swap(false, Ordering::SeqCst);
    let done = work();
    IS_HANDLED.store(was_handled, Ordering::SeqCst);
    done
}

#[expect(clippy::disallowed_methods, reason = "no request is under way: a command that sends one handles the signal")]
fn exit_interrupted(out: &Output) -> ! {
    let message = if out.is_asking() { "interrupted; nothing was changed" } else { "interrupted" };
    out.fail(&Failure::new(ErrorKind::Interrupted, message));
    std::process::exit(CommandStatus::Interrupted.code().into())
}

/// SIGHUP for a daemon.
pub(super) fn hangup(endpoint: &HttpEndpoint) -> std::io::Result<Signal> {
    let _inside = endpoint.runtime().enter();
    signal(SignalKind::hangup())
}

/// Ends a one-shot run on a stop signal: nothing more is sent, and a request that was sent is completed. `acknowledge`
/// gets the number of refreshes in progress.
pub(super) fn stop_on_signal(
    endpoint: &HttpEndpoint,
    engine: &Engine,
    acknowledge: impl FnOnce(usize) + Send + 'static,
) {
    let engine = engine.clone();
    let Ok(mut stop) = StopSignals::listen(endpoint) else {
        // Without the handler a signal ends the process at once, and the journal says what is in doubt.
        return;
    };
    endpoint.runtime().spawn(async move {
        stop.received().await;
        acknowledge(engine.flights_in_progress());
        engine.stop();
    });
}

/// The signals that `exec` passes on to its command, and Ctrl-C, which reaches the command from the terminal.
pub(super) struct ForwardedSignals {
    runtime: tokio::runtime::Runtime,
    signals: Vec<(SignalKind, Signal)>,
}

impl ForwardedSignals {
    /// Catches them from now on.
    pub(super) fn listen() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kinds = [
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::window_change(),
            SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()),
            SignalKind::interrupt(),
        ];
        let signals = listen_unless_ignored(runtime.handle(), &kinds)?;
        Ok(Self { runtime, signals })
    }

    /// Gives each of them to `take`, on a thread that lives as long as the process.
    pub(super) fn each(mut self, take: impl Fn(SignalKind) + Send + 'static) -> std::io::Result<()> {
        let work = move || {
            loop {
                let next = poll_fn(|cx| {
                    let mut ready =
                        self.signals.iter_mut().filter_map(|(kind, s)| s.poll_recv(cx).is_ready().then_some(*kind));
                    ready.next().map_or(Poll::Pending, Poll::Ready)
                });
                take(self.runtime.block_on(next));
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(work).map(drop)
    }
}

/// Calls `on_stop` when a stop signal comes, for a command that has no runtime of its own. The signals are caught when this
/// returns.
pub(super) fn on_stop_signal(on_stop: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut stop = StopSignals::listen_on(runtime.handle())?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(stop.received());
        on_stop();
    })?;
    Ok(())
}
