//! SIGTERM and SIGINT: nothing new is sent, what is sent is finished.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::engine::Engine;
use crate::provider::http::HttpEndpoint;

/// Both signals, caught from the moment that this exists.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches them on the endpoint's runtime.
    pub fn listen(endpoint: &HttpEndpoint) -> std::io::Result<Self> {
        let _inside = endpoint.runtime().enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns once one of them has come.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends a one-shot run decently on SIGTERM or SIGINT: nothing new is sent, what is sent is finished.
pub fn stop_on_signal(endpoint: &HttpEndpoint, engine: &Engine) {
    let engine = engine.clone();
    let Ok(mut stop) = StopSignals::listen(endpoint) else {
        // Then a signal ends the run as it does any program, and the journal says what is in doubt.
        return;
    };
    endpoint.runtime().spawn(async move {
        stop.told().await;
        engine.stop();
    });
}
