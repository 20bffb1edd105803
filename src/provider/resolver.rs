//! Looks up host names. The HTTP library would do it on a thread of its runtime, which panics where no thread can be had.

use std::io;
use std::net::ToSocketAddrs;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

/// The lookup of the operating system, which blocks, on a thread of its own. One that hangs is left behind: the connect
/// timeout is over it.
pub(super) struct ThreadResolver;

impl Resolve for ThreadResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (send, receive) = oneshot::channel();
        let spawned = std::thread::Builder::new().name("name lookup".into()).spawn(move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(|found| found.collect::<Vec<_>>());
            // The receiver is gone if the time was up.
            drop(send.send(found));
        });
        Box::pin(async move {
            drop(spawned?);
            let found = receive.await.map_err(|_| io::Error::other("the lookup failed"))??;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
