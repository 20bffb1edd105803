//! The sealing key: what it does, where it comes from, and which key a store is sealed under.

pub mod key_id;
pub mod prefetch;
pub mod sealing_key;
