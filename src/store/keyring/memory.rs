//! A keyring in memory, with the misbehaviour of real ones on demand: for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{Found, Item, Keyring, KeyringError};

/// Shared by all clones, as a real keyring is by all its users.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeyring {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<Item, String>,
    fault: Option<KeyringError>,
    /// The next write is applied and reported as failed, as gnome-keyring does when it is killed.
    lies_once: bool,
    writes: usize,
    duplicates: usize,
}

impl MemoryKeyring {
    /// Every call fails with this from now on; `None`: all is well again.
    pub fn set_fault(&self, fault: Option<KeyringError>) {
        self.lock().fault = fault;
    }

    /// The next write happens, but says that it failed.
    pub fn lie_once(&self) {
        self.lock().lies_once = true;
    }

    /// Everything in it, to be restored later: a power cut before the keyring's own sync.
    pub fn snapshot(&self) -> BTreeMap<Item, String> {
        self.lock().items.clone()
    }

    pub fn restore(&self, items: BTreeMap<Item, String>) {
        self.lock().items = items;
    }

    /// Every item is there so many times more, as real keyrings can have it.
    pub fn set_duplicates(&self, n: usize) {
        self.lock().duplicates = n;
    }

    /// How many writes were asked for.
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, KeyringError> {
        let state = self.lock();
        match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(state),
        }
    }
}

impl Keyring for MemoryKeyring {
    fn check(&self) -> Result<(), KeyringError> {
        self.open().map(drop)
    }

    fn read(&self, item: &Item) -> Result<Option<Found>, KeyringError> {
        let state = self.open()?;
        let found = state.items.get(item);
        Ok(found.map(|v| Found { value: Zeroizing::new(v.clone()), duplicates: state.duplicates }))
    }

    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        let state = self.open()?;
        let of_it = state.items.iter().filter(|(item, _)| item.service == service);
        Ok(of_it.map(|(item, value)| (item.user.clone(), Zeroizing::new(value.clone()))).collect())
    }

    fn write(&self, item: &Item, value: &str) -> Result<(), KeyringError> {
        let mut state = self.open()?;
        state.writes += 1;
        state.items.insert(item.clone(), value.to_owned());
        match std::mem::take(&mut state.lies_once) {
            true => Err(KeyringError::Failed("no reply".into())),
            false => Ok(()),
        }
    }

    fn delete(&self, item: &Item, holding: &str) -> Result<(), KeyringError> {
        self.open()?.items.retain(|there, value| there != item || !value.contains(holding));
        Ok(())
    }

    fn reconnect(&self) {}
}
