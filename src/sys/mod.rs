//! What the operating system promises, one promise per file; the only place that asks it directly.

pub mod browser;
pub mod clock;
pub mod durable;
pub mod file_place;
pub mod file_watch;
pub mod foreground;
pub mod hook_process;
pub mod journal;
pub mod lock_holder;
pub mod lockfile;
pub mod machine;
pub mod network;
pub mod paths;
pub mod peer_user;
pub mod process;
pub mod secret_file;
pub mod socket;
pub mod threads;
pub mod write_access;
