#![doc = include_str!("LIBRARY.md")]
#![cfg_attr(doc_internals, doc = "\n# How it is made\n")]
#![cfg_attr(doc_internals, doc = include_str!("ARCHITECTURE.md"))]
// The bans are the program's. Unit tests write files and wait.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

// The surface of the library is what `keeper` is made of. The rest is public for the tests and the program only and may change
// at any time, so it is hidden from the documentation. `--cfg doc_internals` shows it, for those who work on keepalive.

// Layer 0: words.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod clock;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod credential;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod events;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod hosts;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod outcome;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod profile;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod schedule;
// Layer 1: the machine.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod sys;
// Layer 2: admission.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod guard;
// Layer 3: edges.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod config;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod import_sources;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod provider;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod store;
// Layer 4: the transaction, and the ways in before it.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod engine;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod hooks;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod mirror;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod signin;
// Layer 5: when and who.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod broker;
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod scheduler;
// Layer 6: the way to a token.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod access;
// Layer 7: surfaces.
#[cfg(feature = "cli")]
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod cli;
mod keeper;

pub use access::obtain::DaemonUse;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;
pub use credential::Generation;
pub use credential::secret::AccessToken;
pub use keeper::{Demand, Failure, Keeper, KeeperBuilder, OpenError, Token, TokenError};

/// What is binding for all of it; the code is in [`engine::refresh::transaction`] and around it.
#[cfg_attr(not(doc_internals), doc(hidden))]
#[doc = "\n\n"]
#[doc = include_str!("PROTOCOL.md")]
pub mod protocol {}
