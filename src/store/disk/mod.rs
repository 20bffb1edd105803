//! What is written to disk: the names of files, the sealed envelope, and its content.

pub mod envelope;
pub mod format;
pub mod layout;
pub mod sealed_content;
