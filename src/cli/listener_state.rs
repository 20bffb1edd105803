//! How the daemon's TCP listener stands, for `status` and `doctor`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::setup::Setup;
use crate::broker::listener::ListenerReport;
use crate::outcome::Failure;
use crate::sys::lockfile::LockFile;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TcpListenerState {
    Listening,
    /// The port is taken, most likely.
    Failed(Failure),
    /// The daemon has not read the configuration yet.
    Pending,
    NoDaemon,
}

impl TcpListenerState {
    /// `None`: the configuration has no listener.
    pub(super) fn of(setup: &Setup) -> Option<(SocketAddr, Self)> {
        let address = setup.config.broker.listen?;
        if !LockFile::is_held(&setup.store.layout().daemon_lock()) {
            return Some((address, Self::NoDaemon));
        }
        let report = ListenerReport::read(&setup.store).filter(|report| report.address == address);
        let state = match report {
            Some(ListenerReport { error: None, .. }) => Self::Listening,
            Some(ListenerReport { error: Some(failure), .. }) => Self::Failed(failure),
            None => Self::Pending,
        };
        Some((address, state))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Failed(_) => "failed",
            Self::Pending => "pending",
            Self::NoDaemon => "no_daemon",
        }
    }
}

/// As `status --json` shows it.
pub(super) fn to_json(setup: &Setup) -> Value {
    let Some((address, state)) = TcpListenerState::of(setup) else { return Value::Null };
    let error = match &state {
        TcpListenerState::Failed(failure) => Some(failure),
        TcpListenerState::Listening | TcpListenerState::Pending | TcpListenerState::NoDaemon => None,
    };
    json!({ "address": address, "state": state.word(), "error": error })
}
