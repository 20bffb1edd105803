//! Handles stop signals: nothing more is sent, and a request that was sent is completed.

use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::engine::Engine;
use crate::provider::http::HttpEndpoint;
use crate::sys::process;

/// The signals that a person, a terminal, a time limit or a batch system sends. They are caught from the moment that
/// this value exists.
pub(super) struct StopSignals(Vec<Signal>);

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
        listen_unless_ignored(runtime, &kinds).map(Self)
    }

    /// Returns once one of the signals has arrived.
    pub(super) async fn received(&mut self) {
        poll_fn(|cx| match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// An ignored signal stays ignored, because the parent process wanted it so.
fn listen_unless_ignored(runtime: &Handle, kinds: &[SignalKind]) -> std::io::Result<Vec<Signal>> {
    let _inside = runtime.enter();
    kinds.iter().filter(|kind| !process::ignores_signal(kind.as_raw_value())).map(|kind| signal(*kind)).collect()
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
