//! A mirror as configured: a file, a directory or a program that gets the access token of a profile, and nothing else of it.

use std::path::PathBuf;

use crate::profile::consumers::Consumer;
pub use crate::profile::mirror_value::MirrorValue;

/// What is kept up to date for other programs, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub form: MirrorForm,
    /// `None`: the usual place of the consumer, which may depend on the environment.
    pub path: Option<PathBuf>,
}

/// The form in which a mirror has the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorForm {
    /// The bare access token.
    File,
    /// Members of a JSON document, by their JSON pointers (RFC 6901). All other members stay as they are.
    Json { set: Vec<(String, MirrorValue)> },
    /// A template of the user's, filled in.
    Template { source: PathBuf },
    /// A directory with a file for each value, changed at once as Kubernetes does with its volumes.
    Directory { files: Vec<(String, MirrorValue)> },
    /// What a known program reads. `entry`: which of several sign-ins in its store.
    Consumer { consumer: &'static Consumer, entry: Option<String> },
}

impl MirrorForm {
    /// Its `kind` in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Json { .. } => "json",
            Self::Template { .. } => "template",
            Self::Directory { .. } => "dir",
            Self::Consumer { consumer, .. } => consumer.name,
        }
    }
}
