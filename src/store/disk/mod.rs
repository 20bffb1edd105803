//! What is written to disk: names of files, the sealed envelope, and what is in it.

pub mod envelope;
pub mod layout;
pub mod sealed_content;
