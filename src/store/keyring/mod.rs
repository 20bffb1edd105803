//! The OS keyring behind one small trait: reachable or not, one item at a time, never prompting, never hanging.

use std::time::Duration;

use zeroize::Zeroizing;

/// No keyring operation takes longer; a provider that needs more counts as hanging.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// One item, found by the attributes `service` and `username`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    pub service: String,
    pub user: String,
}

/// The value found for an item.
pub struct Found {
    /// The text that was stored.
    pub value: Zeroizing<String>,
    /// How many further items carry the same two attributes. Any program may add one; the value is then that of the
    /// item with the highest `generation` member, and a write goes to that same item. Worth a warning, never a deletion.
    pub duplicates: usize,
}

/// A keyring of the operating system.
///
/// Calls block for at most [`DEADLINE`], never prompt, and may come from any thread. An error never means "not written":
/// some keyrings apply a write whose caller saw it fail, so the caller reads again before it decides. After an error or a
/// restart of the keyring's service the next call opens a new connection by itself.
pub trait Keyring: Send + Sync {
    /// Whether a write could succeed now: reachable and unlocked.
    fn check(&self) -> Result<(), KeyringError>;
    /// The item's value; `None` if there is no such item. A locked keyring is an error even if it would have none.
    fn read(&self, item: &Item) -> Result<Option<Found>, KeyringError>;
    /// Creates or replaces. What is durable on return depends on the keyring; see `ARCHITECTURE.md`.
    fn write(&self, item: &Item, value: &str) -> Result<(), KeyringError>;
    /// Removes the item; no error if there is none.
    fn delete(&self, item: &Item) -> Result<(), KeyringError>;
    /// Closes the connection, so that the next read comes from a new one.
    fn reconnect(&self);
}

/// Why the keyring could not serve, told apart as far as the platform lets us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no session bus")]
    NoBus,
    #[error("no keyring service runs on the session bus")]
    NoService,
    #[error("the keyring has no default collection")]
    NoCollection,
    #[error("the keyring is locked")]
    Locked,
    #[error("the keyring did not answer within {} s", DEADLINE.as_secs())]
    Hanging,
    #[error("the keyring denied access")]
    Denied,
    #[error("the keyring failed: {0}")]
    Failed(String),
}
