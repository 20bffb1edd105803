//! A parsed TOML text that knows line and column of each of its parts.

use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use crate::config::error::{ConfigError, Diagnostic, quoted};
use crate::config::section::Section;

/// The text of a configuration, its tables, and what its paths are relative to.
pub(super) struct Document<'t> {
    pub path: &'t Path,
    pub home: Option<&'t Path>,
    text: &'t str,
    /// Byte offset of each line, so that ten thousand findings cost one pass over the text.
    lines: Vec<usize>,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    pub fn parse(text: &'t str, path: &'t Path, home: Option<&'t Path>) -> Result<Self, ConfigError> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        let mut document = Self { path, home, text, lines, root: DeTable::new() };
        match DeTable::parse(text) {
            Ok(root) => document.root = root.into_inner(),
            Err(error) => return Err(document.syntax_error(&error)),
        }
        Ok(document)
    }

    /// The keys outside every section, and the sections.
    pub fn top(&self) -> Section<'_> {
        Section::new(self, &self.root, String::new(), 0..0)
    }

    pub fn diagnostic(&self, at: &Range<usize>, key: String, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic { file: Some(self.path.into()), position: Some(self.position(at.start)), key, message, hint }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let before = self.text.get(self.lines[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The parser's error, with a hint for mistakes of people who rarely write TOML. The text itself is repeated only
    /// where it is a key: a value may be a secret.
    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let at = error.span().unwrap_or(0..0);
        let there = self.text.get(at.clone()).unwrap_or_default();
        let (message, hint) = match error.message() {
            "duplicate key" => (format!("{} is defined twice", quoted(there)), "merge the two, or remove one".into()),
            m if m.starts_with("string values must be quoted") => {
                ("a value needs quotes".to_owned(), "write it like margin = \"2h\"".into())
            }
            m if m.starts_with("invalid unquoted key") => (
                format!("a name that contains {} needs quotes", quoted(there)),
                "write it like [profile.\"xai:default\"]".into(),
            ),
            m if m.starts_with("missing escaped value") => {
                ("a backslash is followed by a character that cannot be escaped".into(), r"write \\ for \".into())
            }
            m if m.starts_with("invalid basic string") => ("a string is not closed".into(), "close it with \"".into()),
            m => (m.to_owned(), "see https://toml.io for how TOML is written".into()),
        };
        self.diagnostic(&at, String::new(), format!("not TOML: {message}"), Some(hint)).into()
    }
}
