//! A parsed TOML text that knows line and column of each of its parts.

use std::cell::RefCell;
use std::collections::BTreeSet;
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
    /// The keys of the mistakes.
    mistaken_keys: RefCell<BTreeSet<String>>,
    /// Where it is not TOML, so that something may seem to be missing which is there.
    damaged_lines: BTreeSet<usize>,
}

impl<'t> Document<'t> {
    /// Reads what can be read. Errors of the syntax are noted, after the `mistakes` of the file itself.
    pub(super) fn parse(text: &'t str, path: &'t Path, home: Option<&'t Path>, mistakes: Vec<Diagnostic>) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        let (root, errors) = DeTable::parse_recoverable(text);
        let damaged_lines = mistakes.iter().filter_map(|mistake| Some(mistake.position?.line)).collect();
        let mut document = Self {
            path,
            home,
            text,
            lines,
            root: root.into_inner(),
            mistakes: RefCell::new(mistakes),
            mistaken_keys: RefCell::default(),
            damaged_lines,
        };
        for error in &errors {
            let error = document.syntax_error(error);
            // What follows on the same line follows from the first mistake.
            let line = error.position.map_or(0, |at| at.line);
            if document.damaged_lines.insert(line) {
                document.mistakes.get_mut().push(error);
            }
        }
        document
    }

    pub(super) fn root(&self) -> &DeTable<'_> {
        &self.root
    }

    /// Notes a mistake, so that the reading can go on to the next.
    pub(super) fn note(&self, error: ConfigError) {
        let is_damaged = |line| self.damaged_lines.contains(&line);
        for mistake in error.into_mistakes() {
            if !mistake.position.is_some_and(|at| is_damaged(at.line)) {
                self.mistaken_keys.borrow_mut().insert(mistake.key.clone());
                self.mistakes.borrow_mut().push(mistake);
            }
        }
    }

    pub(super) fn noted<T>(&self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    /// Whether nothing wrong was found since there were `before` mistakes: else what is missing is told already.
    pub(super) fn is_clean_since(&self, before: usize) -> bool {
        self.damaged_lines.is_empty() && self.mistakes.borrow().len() == before
    }

    /// Whether a mistake is told of this dotted key, or of a part of its value.
    pub(super) fn has_mistake(&self, key: &str) -> bool {
        let (keys, below) = (self.mistaken_keys.borrow(), format!("{key}."));
        keys.contains(key) || keys.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below))
    }

    /// Whether the text is not TOML in the section whose header is at this place: up to the next header.
    pub(super) fn is_damaged_in(&self, header: &Range<usize>) -> bool {
        if self.damaged_lines.is_empty() {
            return false;
        }
        let first = self.position(header.start).line;
        let is_header = |line: &usize| self.line(*line).trim_start().starts_with('[');
        let end = (first + 1..=self.lines.len()).find(is_header).unwrap_or(usize::MAX);
        self.damaged_lines.range(first..end).next().is_some()
    }

    pub(super) fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    /// The text of a line, counted from 1.
    fn line(&self, line: usize) -> &str {
        let (start, end) = (self.lines[line - 1], self.lines.get(line).copied());
        self.text.get(start..end.unwrap_or(self.text.len())).unwrap_or_default()
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
        let line = self.line(position.line);
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
