#![doc = include_str!("ARCHITECTURE.md")]
#![deny(let_underscore_drop, unsafe_code)]

// Floor 0: words.
pub mod clock;
pub mod credential;
pub mod profile;
pub mod schedule;
// Floor 3: edges.
pub mod config;
pub mod store;
