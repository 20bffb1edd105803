//! Admission: at most one flight per profile, first within this process and then among all processes.
//!
//! The way in is [`FlightGroup::join_or_lead`]. The caller that gets a [`LeaderSlot`] leads: it starts a thread, takes
//! the profile's lock file, which turns the slot into a [`Lease`], does the work and publishes the outcome. Every other
//! caller gets a [`FlightHandle`] and waits for that outcome. A caller may leave at any time; the flight goes on.

mod lease;
mod singleflight;

pub use crate::guard::singleflight::{FlightGroup, FlightHandle, LeaderSlot, WaitResult};
pub use lease::{Lease, LockedCredential, NeverSent, Permit, SpentCredential};
