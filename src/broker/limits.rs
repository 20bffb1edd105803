//! How many connections there may be. When all places are taken, the one that has been idle longest makes room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places of one listener.
#[derive(Clone)]
pub(super) struct ConnectionTable {
    shared: Arc<Mutex<Table>>,
    limit: usize,
}

#[derive(Default)]
struct Table {
    /// Grows by one whenever a connection is opened or becomes idle, so it orders them.
    ticks: u64,
    open: HashMap<u64, OpenConnection>,
}

struct OpenConnection {
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
    pub(super) fn new(limit: usize) -> Self {
        Self { shared: Arc::default(), limit }
    }

    /// A place for a new connection. `None`: all are taken, and none of them is idle.
    pub(super) fn enter(&self) -> Option<Arc<ConnectionPlace>> {
        let mut table = self.lock();
        if table.open.len() >= self.limit {
            let idle = table.open.iter().filter_map(|(id, open)| Some((open.idle_since?, *id)));
            let (_, oldest) = idle.min()?;
            if let Some(evicted) = table.open.remove(&oldest) {
                evicted.close.notify_one();
            }
        }
        let (id, close) = (table.tick(), Arc::new(Notify::new()));
        table.open.insert(id, OpenConnection { idle_since: Some(id), close: Arc::clone(&close) });
        drop(table);
        Some(Arc::new(ConnectionPlace { table: self.clone(), id, close }))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
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
        let table = ConnectionTable::new(2);
        let (first, second) = (table.enter().unwrap(), table.enter().unwrap());
        // The first one has been used since.
        drop(first.begin_request());
        let third = table.enter().unwrap();
        assert!(is_told_to_close(&second) && !is_told_to_close(&first));
        let (busy, also_busy) = (first.begin_request(), third.begin_request());
        assert!(table.enter().is_none(), "nobody is idle");
        drop((busy, also_busy));
        let fourth = table.enter().unwrap();
        assert!(is_told_to_close(&first));
        drop((second, fourth));
        assert_eq!(table.taken(), 1, "only the third has a place");
    }
}
