//! How the daemon's TCP listeners stand, for `status` and `doctor`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::access::setup::Setup;
use crate::broker::listener::ListenerReport;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;
use crate::sys::lockfile::LockFile;

/// A listener of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TcpListener {
    pub address: SocketAddr,
    /// Of a metadata server, the profile that it serves.
    pub profile: Option<ProfileName>,
    pub state: TcpListenerState,
    /// There is no such profile.
    pub unknown_profile: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TcpListenerState {
    Listening,
    /// The port is taken, most likely.
    Failed(Failure),
    /// The daemon has not read the configuration yet.
    Pending,
    NoDaemon,
}

impl TcpListener {
    pub(super) fn all(setup: &Setup) -> Vec<Self> {
        let settings = &setup.config.broker;
        let own = settings.listen.map(|address| (address, None));
        let of_gce = settings.gce.iter().map(|gce| (gce.listen, Some(gce.profile.clone())));
        let wanted: Vec<_> = own.into_iter().chain(of_gce).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let has_daemon = LockFile::is_held(&setup.store.layout().daemon_lock());
        let reports = ListenerReport::read_all(&setup.store);
        let listener = |(address, profile): (SocketAddr, Option<ProfileName>)| {
            let report = reports.iter().find(|report| report.address == address);
            let state = match report {
                _ if !has_daemon => TcpListenerState::NoDaemon,
                Some(ListenerReport { error: None, .. }) => TcpListenerState::Listening,
                Some(ListenerReport { error: Some(failure), .. }) => TcpListenerState::Failed(failure.clone()),
                None => TcpListenerState::Pending,
            };
            let unknown_profile = profile.as_ref().and_then(|profile| unknown(setup, profile));
            Self { address, profile, state, unknown_profile }
        };
        wanted.into_iter().map(listener).collect()
    }

    /// What is wrong with it.
    pub(super) fn error(&self) -> Option<&Failure> {
        match &self.state {
            TcpListenerState::Failed(failure) => Some(failure),
            TcpListenerState::Listening | TcpListenerState::Pending | TcpListenerState::NoDaemon => {
                self.unknown_profile.as_ref()
            }
        }
    }

    fn to_json(&self) -> Value {
        let state = match self.state {
            TcpListenerState::Listening => "listening",
            TcpListenerState::Failed(_) => "failed",
            TcpListenerState::Pending => "pending",
            TcpListenerState::NoDaemon => "no_daemon",
        };
        json!({ "address": self.address, "state": state, "error": self.error() })
    }
}

fn unknown(setup: &Setup, profile: &ProfileName) -> Option<Failure> {
    let error = setup.profile(profile).err()?.error.filter(|error| error.kind == ErrorKind::NoCredential)?;
    let message = format!("a metadata server ([[broker.gce]]) is for a profile that is not there: {}", error.message);
    Some(Failure { message, ..error })
}

/// As `status --json` shows them: the one of `[broker]`, and the metadata servers.
pub(super) fn to_json(setup: &Setup) -> Value {
    let all = TcpListener::all(setup);
    let own = all.iter().find(|listener| listener.profile.is_none()).map(TcpListener::to_json);
    let of_profiles = all.iter().filter_map(|listener| {
        let mut shown = listener.to_json();
        shown["profile"] = json!(listener.profile.as_ref()?);
        Some(shown)
    });
    json!({ "listener": own, "metadata_servers": of_profiles.collect::<Vec<_>>() })
}
