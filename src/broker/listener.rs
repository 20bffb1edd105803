//! The TCP listener: it listens where the configuration says, tries again where the port is taken, and tells how it stands. It
//! never holds up a refresh.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
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

/// How the listener of the running daemon stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerReport {
    pub address: SocketAddr,
    /// Why it does not listen.
    pub error: Option<Failure>,
}

impl ListenerReport {
    /// What the daemon of the store told last. It is true only while there is one.
    pub fn read(store: &Store) -> Option<Self> {
        serde_json::from_slice(&durable::read(&store.layout().listener()).ok()??).ok()
    }
}

/// Listens as the newest wish says, until dropped. A wish that is repeated is a reason to try again at once.
pub async fn run(broker: Broker, mut wishes: watch::Receiver<Option<SocketAddr>>, retry: Duration) -> Infallible {
    let mut report = ReportFile { path: broker.engine.store().layout().listener(), last: None };
    loop {
        let wish = *wishes.borrow_and_update();
        let Some(address) = wish else {
            report.tell(None);
            changed(&mut wishes).await;
            continue;
        };
        let told = |error: &io::Error| {
            report.tell(Some(ListenerReport { address, error: Some(failure(address, error)) }));
        };
        let Some(listener) = bind_when_free(address, &mut wishes, retry, told).await else { continue };
        report.tell(Some(ListenerReport { address, error: None }));
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

pub(super) fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let message = format!("the daemon cannot listen on {address}: {error}");
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has the port: end it, or write another port in [broker] and in the programs that use it"
        }
        _ => "check listen in [broker]",
    };
    Failure::new(ErrorKind::Socket, message).with_hint(hint)
}

/// Tells the log and the file of each change, once.
struct ReportFile {
    path: PathBuf,
    last: Option<ListenerReport>,
}

impl ReportFile {
    fn tell(&mut self, report: Option<ListenerReport>) {
        match &report {
            Some(report) if self.last.as_ref() == Some(report) => return,
            Some(ListenerReport { address, error: None }) => events::listener_up(*address),
            Some(ListenerReport { address, error: Some(failure) }) => events::listener_failed(*address, failure),
            None => {}
        }
        // It is for people: nothing depends on it.
        let _advice = match &report {
            Some(report) => serde_json::to_vec(report)
                .map_err(io::Error::other)
                .and_then(|bytes| durable::replace_without_sync(&self.path, &bytes)),
            None => durable::remove(&self.path),
        };
        self.last = report;
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _advice = durable::remove(&self.path);
        }
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
