//! A keyring in memory for tests, with the faults of real ones on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{FoundItem, Keyring, KeyringError, KeyringItem};

/// Shared by all clones, as a real keyring is by all its users.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeyring {
    state: Arc<Mutex<MemoryState>>,
}

#[derive(Debug, Default)]
struct MemoryState {
    items: BTreeMap<KeyringItem, String>,
    fault: Option<KeyringError>,
    /// The next write is applied and reported as failed, as gnome-keyring does when it is killed.
    fails_after_write: bool,
    write_count: usize,
    duplicates: usize,
}

impl MemoryKeyring {
    /// Every call fails with this from now on; `None`: all is well again.
    pub fn set_fault(&self, fault: Option<KeyringError>) {
        self.lock().fault = fault;
    }

    /// The next write happens, but says that it failed.
    pub fn fail_after_next_write(&self) {
        self.lock().fails_after_write = true;
    }

    /// Everything in it, to be restored later: a power cut before the keyring's own sync.
    pub fn snapshot(&self) -> BTreeMap<KeyringItem, String> {
        self.lock().items.clone()
    }

    pub fn restore(&self, items: BTreeMap<KeyringItem, String>) {
        self.lock().items = items;
    }

    /// Every item is there so many times more, as real keyrings can have it.
    pub fn set_duplicates(&self, n: usize) {
        self.lock().duplicates = n;
    }

    /// How many writes were asked for.
    pub fn write_count(&self) -> usize {
        self.lock().write_count
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_or_fault(&self) -> Result<MutexGuard<'_, MemoryState>, KeyringError> {
        let state = self.lock();
        match &state.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(state),
        }
    }
}

impl Keyring for MemoryKeyring {
    fn check(&self, _: &str) -> Result<(), KeyringError> {
        self.lock_or_fault().map(drop)
    }

    fn read(&self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        let state = self.lock_or_fault()?;
        let found = state.items.get(item);
        Ok(found.map(|v| FoundItem { value: Zeroizing::new(v.clone()), duplicates: state.duplicates }))
    }

    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        let state = self.lock_or_fault()?;
        let of_it = state.items.iter().filter(|(item, _)| item.service == service);
        Ok(of_it.map(|(item, value)| (item.user.clone(), Zeroizing::new(value.clone()))).collect())
    }

    fn write(&self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        let mut state = self.lock_or_fault()?;
        state.write_count += 1;
        state.items.insert(item.clone(), value.to_owned());
        match std::mem::take(&mut state.fails_after_write) {
            true => Err(KeyringError::Failed("no reply".into())),
            false => Ok(()),
        }
    }

    fn delete(&self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.lock_or_fault()?.items.retain(|there, value| there != item || !value.contains(holding));
        Ok(())
    }

    fn reconnect(&self) {}
}
