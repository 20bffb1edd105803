//! How many connections there may be. When all places are taken, the one that has been idle longest makes room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a connection came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenerKind {
    Socket,
    Tcp,
}

impl ListenerKind {
    pub(super) const ALL: [Self; 2] = [Self::Socket, Self::Tcp];

    /// Its name in the metrics and in the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Tcp => "tcp",
        }
    }
}

/// The places of all listeners.
#[derive(Clone)]
pub(super) struct ConnectionTable {
    shared: Arc<Mutex<Table>>,
    limit: usize,
    /// How many of them TCP may have.
    tcp_limit: usize,
}

#[derive(Default)]
struct Table {
    /// Grows by one whenever a connection is opened or becomes idle, so it orders them.
    ticks: u64,
    open: HashMap<u64, OpenConnection>,
}

struct OpenConnection {
    kind: ListenerKind,
    /// `None` while a request is being answered.
    idle_since: Option<u64>,
    close: Arc<Notify>,
}

/// The place of one connection, free again when this is dropped.
pub(super) struct ConnectionPlace {
    table: ConnectionTable,
    id: u64,
    close: Arc<Notify>,
}

/// While it is there, the connection is not idle.
pub(super) struct BusyConnection(Arc<ConnectionPlace>);

impl ConnectionTable {
    pub(super) fn new(limit: usize, tcp_limit: usize) -> Self {
        Self { shared: Arc::default(), limit, tcp_limit }
    }

    /// A place for a new connection. `None`: all are taken, and none of them is idle.
    pub(super) fn enter(&self, kind: ListenerKind) -> Option<Arc<ConnectionPlace>> {
        let mut table = self.lock();
        let is_tcp_full = kind == ListenerKind::Tcp && table.count(kind) >= self.tcp_limit;
        if is_tcp_full || table.open.len() >= self.limit {
            let can_go = |open: &OpenConnection| !is_tcp_full || open.kind == kind;
            let idle = table.open.iter().filter(|(_, open)| can_go(open));
            let (_, oldest) = idle.filter_map(|(id, open)| Some((open.idle_since?, *id))).min()?;
            if let Some(evicted) = table.open.remove(&oldest) {
                evicted.close.notify_one();
            }
        }
        let (id, close) = (table.tick(), Arc::new(Notify::new()));
        table.open.insert(id, OpenConnection { kind, idle_since: Some(id), close: Arc::clone(&close) });
        drop(table);
        Some(Arc::new(ConnectionPlace { table: self.clone(), id, close }))
    }

    /// How many are taken.
    pub(super) fn taken(&self, kind: ListenerKind) -> usize {
        self.lock().count(kind)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&self, kind: ListenerKind) -> usize {
        self.open.values().filter(|open| open.kind == kind).count()
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

impl ConnectionPlace {
    pub(super) fn begin_request(self: &Arc<Self>) -> BusyConnection {
        if let Some(open) = self.table.lock().open.get_mut(&self.id) {
            open.idle_since = None;
        }
        BusyConnection(Arc::clone(self))
    }

    /// Waits until another connection needs the place.
    pub(super) async fn is_needed(&self) {
        self.close.notified().await;
    }
}

impl Drop for BusyConnection {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        let now = table.tick();
        if let Some(open) = table.open.get_mut(&self.0.id) {
            open.idle_since = Some(now);
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told_to_close(place: &ConnectionPlace) -> bool {
        let notified = std::pin::pin!(place.is_needed());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        notified.poll(&mut context).is_ready()
    }

    #[test]
    fn connection_idle_longest_makes_room() {
        let table = ConnectionTable::new(2, 1);
        let enter = || table.enter(ListenerKind::Socket);
        let (first, second) = (enter().unwrap(), enter().unwrap());
        // The first one has been used since.
        drop(first.begin_request());
        let third = enter().unwrap();
        assert!(is_told_to_close(&second) && !is_told_to_close(&first));
        let (busy, also_busy) = (first.begin_request(), third.begin_request());
        assert!(enter().is_none(), "none is idle");
        drop((busy, also_busy));
        let fourth = enter().unwrap();
        assert!(is_told_to_close(&first));
        drop((second, fourth));
        assert_eq!(table.taken(ListenerKind::Socket), 1, "only the third has a place");
    }

    #[test]
    fn tcp_has_a_share_of_the_places() {
        let table = ConnectionTable::new(4, 2);
        let [socket, first, second] =
            [ListenerKind::Socket, ListenerKind::Tcp, ListenerKind::Tcp].map(|kind| table.enter(kind).unwrap());
        // The one on the socket has been idle longer, and keeps its place.
        let third = table.enter(ListenerKind::Tcp).unwrap();
        assert!(is_told_to_close(&first) && !is_told_to_close(&socket));
        assert_eq!((table.taken(ListenerKind::Tcp), table.taken(ListenerKind::Socket)), (2, 1));
        let (busy, also_busy) = (second.begin_request(), third.begin_request());
        assert!(table.enter(ListenerKind::Tcp).is_none());
        assert!(table.enter(ListenerKind::Socket).is_some());
        drop((busy, also_busy));
    }
}
