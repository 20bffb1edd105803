#![doc = include_str!("ARCHITECTURE.md")]
// The bans are the program's. Unit tests write files and wait.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod import_sources;
// Layer 0: words.
pub mod clock;
pub mod credential;
pub mod events;
pub mod outcome;
pub mod profile;
pub mod schedule;
// Layer 1: the machine.
pub mod sys;
// Layer 2: admission.
pub mod guard;
// Layer 3: edges.
pub mod config;
pub mod provider;
pub mod store;
// Layer 4: the transaction, and the ways in before it.
pub mod engine;
pub mod signin;
// Layer 5: when and who.
pub mod broker;
pub mod scheduler;
// Layer 6: surfaces.
pub mod cli;

/// What is binding for all of it; the code is in [`engine::refresh::transaction`] and around it.
pub mod protocol {
    #![doc = include_str!("PROTOCOL.md")]
}
