//! What the store knows of refresh tokens by fingerprint: the ledger, and which profile holds which token.

mod journal_facts;
pub mod ledger;
pub mod ownership;
pub mod reconcile;
pub mod scan;
