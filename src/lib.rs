#![doc = include_str!("ARCHITECTURE.md")]
// The bans are the program's. Unit tests write files and wait.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

// The surface of the library is `main`. The rest is public for the tests only and may change at any time, so it is hidden
// from the documentation. `--cfg doc_internals` shows it, for those who work on keepalive.

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
// Layer 6: surfaces.
#[cfg_attr(not(doc_internals), doc(hidden))]
pub mod cli;

pub use cli::main;

/// What is binding for all of it; the code is in [`engine::refresh::transaction`] and around it.
pub mod protocol {
    #![doc = include_str!("PROTOCOL.md")]
}
