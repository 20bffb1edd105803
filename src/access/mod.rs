//! The way of every command and of the library to an access token.

pub mod obtain;
pub mod setup;
