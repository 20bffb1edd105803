//! A parsed TOML text that knows line and column of each of its parts.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use crate::config::error::{ConfigError, Diagnostic, quoted};
use crate::config::excerpt;
use crate::outcome::Position;

/// The text of a configuration, its tables, what its paths are relative to, and the mistakes found in it so far.
pub(super) struct Document<'t> {
    pub path: &'t Path,
    pub home: Option<&'t Path>,
    text: &'t str,
    /// Byte offset of each line, so that ten thousand findings cost one pass over the text.
    lines: Vec<usize>,
    root: DeTable<'t>,
    mistakes: RefCell<Vec<Diagnostic>>,
    /// It is not TOML everywhere, so that something may seem to be missing which is there.
    is_damaged: bool,
}

impl<'t> Document<'t> {
    /// Reads what can be read. Errors of the syntax are noted.
    pub(super) fn parse(text: &'t str, path: &'t Path, home: Option<&'t Path>) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        let (root, errors) = DeTable::parse_recoverable(text);
        let is_damaged = !errors.is_empty();
        let mistakes = RefCell::default();
        let document = Self { path, home, text, lines, root: root.into_inner(), mistakes, is_damaged };
        let mut last_line = 0;
        for error in errors.iter().map(|error| document.syntax_error(error)) {
            // What follows on the same line follows from the first mistake.
            let line = error.position.map_or(0, |at| at.line);
            if line != last_line {
                document.mistakes.borrow_mut().push(error);
            }
            last_line = line;
        }
        document
    }

    pub(super) fn root(&self) -> &DeTable<'_> {
        &self.root
    }

    /// Notes a mistake, so that the reading can go on to the next.
    pub(super) fn note(&self, error: ConfigError) {
        let is_told = |line| self.mistakes.borrow().iter().any(|known| known.position.map(|at| at.line) == Some(line));
        for mistake in error.into_mistakes() {
            if !(self.is_damaged && mistake.position.is_some_and(|at| is_told(at.line))) {
                self.mistakes.borrow_mut().push(mistake);
            }
        }
    }

    pub(super) fn noted<T>(&self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    /// Whether nothing wrong was found since there were `before` mistakes: else what is missing is told already.
    pub(super) fn is_clean_since(&self, before: usize) -> bool {
        !self.is_damaged && self.mistakes.borrow().len() == before
    }

    pub(super) fn mistake_count(&self) -> usize {
        self.mistakes.borrow().len()
    }

    pub(super) fn into_result<T>(self, value: T) -> Result<T, ConfigError> {
        ConfigError::from_mistakes(self.mistakes.into_inner()).map_or(Ok(value), Err)
    }

    pub(super) fn diagnostic(
        &self,
        at: &Range<usize>,
        key: String,
        message: String,
        hint: Option<String>,
    ) -> Diagnostic {
        let position = self.position(at.start);
        let (start, end) = (self.lines[position.line - 1], self.lines.get(position.line).copied());
        let line = self.text.get(start..end.unwrap_or(self.text.len())).unwrap_or_default();
        let length = self.text.get(at.clone()).map_or(1, |part| part.chars().count());
        let excerpt = excerpt::of_line(line.trim_end(), &key, position.column - 1, length);
        Diagnostic { file: Some(self.path.into()), position: Some(position), key, message, hint, excerpt }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let before = self.text.get(self.lines[line - 1]..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// The parser's error, with a hint for mistakes of people who rarely write TOML. The text itself is repeated only
    /// where it is a key: a value may be a secret.
    fn syntax_error(&self, error: &toml::de::Error) -> Diagnostic {
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
        self.diagnostic(&at, String::new(), format!("not TOML: {message}"), Some(hint))
    }
}
