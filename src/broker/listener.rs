//! The TCP listener: it listens where the configuration says, tries again where the port is taken, and tells how it stands. It
//! never holds up a refresh.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::routes;
use super::server;
use super::state::Broker;
use crate::events;
use crate::outcome::{ErrorKind, Failure};
use crate::store::Store;
use crate::sys::durable;

/// How often an address is tried again that cannot be listened on.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How a listener of the running daemon stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    pub address: SocketAddr,
    /// Why it does not listen.
    pub error: Option<Failure>,
}

impl ListenerReport {
    /// What the daemon of the store told last of its listeners. It is true only while there is one.
    pub fn read_all(store: &Store) -> Vec<Self> {
        let bytes = durable::read(&store.layout().listener()).ok().flatten();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

/// Listens as the newest wish says, until dropped. A wish that is repeated is a reason to try again at once.
pub async fn run(
    broker: Broker,
    reports: Arc<ListenerReports>,
    mut wishes: watch::Receiver<Option<SocketAddr>>,
    retry: Duration,
) -> Infallible {
    loop {
        let wish = *wishes.borrow_and_update();
        let Some(address) = wish else {
            changed(&mut wishes).await;
            continue;
        };
        let note = reports.note(address, "[broker]");
        let told = |error: &io::Error| note.tell_failure(error);
        let Some(listener) = bind_when_free(address, &mut wishes, retry, told).await else { continue };
        note.tell(None);
        tokio::select! {
            never = server::serve_tcp(&broker, &listener, address, routes::tcp_router(broker.clone())) => match never {},
            () = until_other(&mut wishes, address) => {}
        }
    }
}

/// Tries until it can listen. `None`: the wish has changed.
async fn bind_when_free(
    address: SocketAddr,
    wishes: &mut watch::Receiver<Option<SocketAddr>>,
    retry: Duration,
    mut told: impl FnMut(&io::Error),
) -> Option<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) => told(&error),
        }
        tokio::select! {
            () = changed(wishes) => {}
            () = tokio::time::sleep(retry) => {}
        }
        if *wishes.borrow_and_update() != Some(address) {
            return None;
        }
    }
}

/// Waits for the next wish.
pub(super) async fn changed<T>(wishes: &mut watch::Receiver<T>) {
    if wishes.changed().await.is_err() {
        // There will be no other wish.
        std::future::pending().await
    }
}

async fn until_other(wishes: &mut watch::Receiver<Option<SocketAddr>>, address: SocketAddr) {
    loop {
        changed(wishes).await;
        if *wishes.borrow_and_update() != Some(address) {
            return;
        }
    }
}

fn failure(address: SocketAddr, section: &str, error: &io::Error) -> Failure {
    let message = format!("the daemon cannot listen on {address}: {error}");
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has the port: end it, or write another port in {section} and in the programs that use it"
        ),
        _ => format!("check listen in {section}"),
    };
    Failure::new(ErrorKind::Socket, message).with_hint(hint)
}

/// How the listeners of this daemon stand. Each change is told once, to the log and to a file.
pub struct ListenerReports {
    path: PathBuf,
    told: Mutex<BTreeMap<SocketAddr, Option<Failure>>>,
}

/// What is told of one listener, until that is gone.
pub(super) struct ListenerNote {
    reports: Arc<ListenerReports>,
    address: SocketAddr,
    section: &'static str,
}

impl ListenerReports {
    pub fn new(store: &Store) -> Arc<Self> {
        Arc::new(Self { path: store.layout().listener(), told: Mutex::default() })
    }

    /// `section`: of the configuration.
    pub(super) fn note(self: &Arc<Self>, address: SocketAddr, section: &'static str) -> ListenerNote {
        ListenerNote { reports: Arc::clone(self), address, section }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<SocketAddr, Option<Failure>>)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut told);
        let report = |(address, error): (&SocketAddr, &Option<Failure>)| ListenerReport {
            address: *address,
            error: error.clone(),
        };
        let reports: Vec<ListenerReport> = told.iter().map(report).collect();
        // It is for people: nothing depends on it.
        let _advice = match reports.is_empty() {
            true => durable::remove(&self.path).map(drop),
            false => serde_json::to_vec(&reports)
                .map_err(io::Error::other)
                .and_then(|bytes| durable::replace_without_sync(&self.path, &bytes)),
        };
    }
}

impl ListenerNote {
    pub(super) fn tell_failure(&self, error: &io::Error) {
        self.tell(Some(failure(self.address, self.section, error)));
    }

    pub(super) fn tell(&self, error: Option<Failure>) {
        self.reports.change(|told| {
            let before = told.insert(self.address, error.clone());
            match &error {
                _ if before.as_ref() == Some(&error) => {}
                None => events::listener_up(self.address),
                Some(failure) => events::listener_failed(self.address, failure),
            }
        });
    }
}

impl Drop for ListenerNote {
    fn drop(&mut self) {
        self.reports.change(|told| drop(told.remove(&self.address)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn port_is_taken_soon_after_it_is_free() {
        let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = squatter.local_addr().unwrap();
        let (_wish, mut wishes) = watch::channel(Some(address));
        let (mut squatter, mut tries) = (Some(squatter), 0);
        let told = |error: &io::Error| {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            tries += 1;
            if tries == 3 {
                squatter = None;
            }
        };
        let listener = bind_when_free(address, &mut wishes, Duration::from_millis(1), told).await.unwrap();
        assert_eq!((listener.local_addr().unwrap(), tries), (address, 3));
    }

    #[tokio::test]
    async fn other_address_is_listened_on_as_soon_as_it_is_wished() {
        let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = squatter.local_addr().unwrap();
        let (wish, mut wishes) = watch::channel(Some(address));
        let told = |_: &io::Error| assert!(wish.send_replace(None).is_some());
        assert!(bind_when_free(address, &mut wishes, Duration::from_secs(3600), told).await.is_none());
    }
}
