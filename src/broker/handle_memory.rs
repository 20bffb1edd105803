//! What the daemon remembers of each handle while it runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::credential::Generation;
use crate::store::handles::HandleHash;

/// The newest generation that was handed out for each handle.
#[derive(Debug, Default)]
pub(super) struct HandleMemory(Mutex<HashMap<HandleHash, Generation>>);

impl HandleMemory {
    pub(super) fn note(&self, handle: &HandleHash, generation: Generation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.clone(), generation);
    }

    pub(super) fn of(&self, handle: &HandleHash) -> Option<Generation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(handle).copied()
    }
}
