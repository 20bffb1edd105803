//! The configuration file: from TOML to validated profiles, with errors that name file, line, key and remedy.
