//! `store.json`: the UUID of a store and the machine it was made on, as a plain value.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::disk::format::later_format;
use crate::store::keys::sealing_key::random_bytes;
use crate::sys::{durable, machine};

/// Written once, when the first credential comes; changed only by `doctor --take-over`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity {
    pub format: u32,
    pub uuid: String,
    /// A hash of the machine id; `None` where the machine has none.
    pub machine: Option<String>,
}

/// The version of the form. A store of a later version may make other fingerprints, by which this version would not
/// recognise a consumed token.
const FORMAT: u32 = 1;

/// The format of a temporary identity, for a run that cannot know the right one.
pub(super) const TEMPORARY_FORMAT: u32 = 0;

impl StoreIdentity {
    /// Whether it is the right one.
    pub fn is_permanent(&self) -> bool {
        self.format != TEMPORARY_FORMAT
    }

    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = durable::read(path).map_err(|e| StoreError::io("read", path, e))? else {
            return Ok(None);
        };
        if let Some(found) = later_format(&bytes, FORMAT) {
            return Err(StoreError::LaterVersion { path: path.to_owned(), found });
        }
        let damaged = |why: String| StoreError::DamagedFile { path: path.to_owned(), why };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match identity.format {
            FORMAT => Ok(Some(identity)),
            other => Err(damaged(format!("it has format {other}; this version of keepalive supports {FORMAT}"))),
        }
    }

    /// A new one, of this machine.
    pub fn new() -> Self {
        Self { format: FORMAT, uuid: new_uuid(), machine: machine::machine_id() }
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
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid().to_string()
}
