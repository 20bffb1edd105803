//! The daemon's socket: it gives access tokens, and never a refresh token, to programs of the same user over HTTP.
//!
//! The main request is `GET /v1/profiles/PROFILE/token`; keepalive-daemon(1) describes all of them. A client may name its
//! protocol version, its configuration file and its state directory. If they are not the daemon's, the response is 412,
//! and the command line then uses the store itself.

mod azure;
mod cache;
mod caller;
pub mod client;
pub mod gce;
mod grants;
mod handle_memory;
mod limits;
pub mod listener;
mod metrics;
mod oauth;
mod progress;
mod query;
mod responses;
mod routes;
pub mod server;
mod state;
mod tcp_rules;
mod wire;

/// What keepalive-daemon(1) says of the API, as roff.
pub const MANUAL: &str = include_str!("manual.roff");

pub use state::{Broker, ProfileDirectory};
pub use wire::{BrokerRequest, BrokerResponse, DaemonPlaces};
