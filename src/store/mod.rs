//! Where a credential lives: the sealed journal, which is the commit point, and its published copy in the OS keyring.

pub mod keyring;
