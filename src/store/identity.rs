//! Who a store directory is: its UUID, and the machine it lives on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::key::{hex, random};
use super::layout::Layout;
use crate::sys::{durable, machine};

/// Written once, when the first credential comes; changed only by `doctor --take-over`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub uuid: String,
    /// A hash of the machine id; `None` where the machine has none.
    pub machine: Option<String>,
}

impl Identity {
    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = durable::read(path).map_err(|e| StoreError::io("read", path, e))? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| StoreError::DamagedRecord { path: path.to_owned(), why: e.to_string() })
    }

    /// The identity, made and durable if there was none. The caller holds the store lock.
    pub fn read_or_create(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.identity();
        if let Some(identity) = Self::read(&path)? {
            return Ok(identity);
        }
        let identity = Self { format: 1, uuid: new_uuid(), machine: machine::machine_id() };
        identity.write(&path)?;
        Ok(identity)
    }

    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| StoreError::io("write", path, e.into()))?;
        durable::replace(path, &bytes).map_err(|e| StoreError::io("write", path, e))
    }

    /// Whether this machine is another one than the store was made on: then the credentials may live twice.
    pub fn is_on_other_machine(&self) -> bool {
        match (&self.machine, machine::machine_id()) {
            (Some(made_on), Some(here)) => *made_on != here,
            _ => false,
        }
    }
}

/// A random UUID (RFC 9562, version 4).
fn new_uuid() -> String {
    let mut b: [u8; 16] = random();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let h = hex(&b, 16);
    [&h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..]].join("-")
}
