//! Admission: however many callers there are, one flight per profile, first in this process, then among all of them.
//!
//! The way in is [`FlightGroup::join_or_lead`]. Whoever gets a [`LeaderSlot`] leads: it goes to a thread of its own, turns the seat into a
//! [`Lease`] by taking the profile's lock file, does its work and publishes the outcome. Everybody else gets a [`FlightHandle`]
//! and waits for that outcome. Callers may leave at any time; that changes nothing for the flight.

mod lease;
mod singleflight;

pub use crate::guard::singleflight::{FlightGroup, FlightHandle, LeaderSlot, WaitResult};
pub use lease::{Lease, LockedCredential, NeverSent, Permit, SpentCredential};
