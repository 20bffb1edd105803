//! What is known of refresh tokens by their fingerprints: the ledger, and which profile has which token.

pub mod ledger;
pub mod ownership;
pub mod reconcile;
pub mod scan;
