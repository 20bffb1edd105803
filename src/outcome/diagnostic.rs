//! One mistake in a configuration: where, what, and what would be right.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One finding about the configuration. `Display` gives `FILE:LINE: MESSAGE`, on one line without the hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as it was named; `None` when there is no file.
    pub file: Option<PathBuf>,
    /// `None` when the whole file is meant.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The dotted key or section, as in `provider.acme.client_id`; empty when the whole file is meant.
    pub key: String,
    /// What is wrong, led by its section in brackets.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The line, to be shown to a person.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

/// Line and column from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A line of the file without what may be a secret, and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    /// How many characters stand before the part.
    pub indent: usize,
    /// How many characters the part has.
    pub length: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        if let Some(Position { line, .. }) = self.position {
            write!(f, "{line}:")?;
        }
        let gap = if self.file.is_some() { " " } else { "" };
        write!(f, "{gap}{}", self.message)
    }
}
