//! What a configuration means once it is read, and what is said of one that is wrong.

mod messages;
mod resolve;
mod robust;
mod several;

use super::*;
use crate::outcome::Position;

/// A configuration that must be right.
fn parsed(text: &str) -> Config {
    match Config::parse(text, Path::new("/etc/ka/config.toml"), Some(Path::new("/home/me"))) {
        Ok(config) => config,
        Err(e) => panic!("{e}\nhint: {:?}\n{text}", e.hint()),
    }
}

fn profile(config: &Config, name: &str) -> Profile {
    config.profile(&name.parse().unwrap(), None).unwrap()
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings.iter().map(ToString::to_string).collect()
}
