//! What is wrong with a configuration: file, line, key, and what would be right.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// One error; the first that is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub path: PathBuf,
    /// Counted from 1.
    pub line: Option<usize>,
    /// As in `provider.acme.client_id`.
    pub key: Option<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl ConfigError {
    pub fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, key: None, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error as a reason for an outcome.
    pub fn failure(&self) -> Failure {
        let failure = Failure::new("config", self.to_string());
        match &self.hint {
            Some(hint) => failure.hint(hint.clone()),
            None => failure,
        }
    }

    /// An error of the TOML reader, with the key found again in the text.
    pub(super) fn of_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let mut found = Self::new(path, error.message().lines().next().unwrap_or_default());
        if let Some(span) = error.span() {
            let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
            found.line = Some(line);
            found.key = key_at(text, line);
        }
        found.explain_unknown();
        found
    }

    /// Puts the error at a section's header.
    pub(super) fn in_section(mut self, text: &str, section: &str, name: &str) -> Self {
        let headers = [format!("[{section}.{name}]"), format!("[{section}.\"{name}\"]")];
        self.line =
            text.lines().position(|l| headers.iter().any(|h| l.trim_start().starts_with(h.as_str()))).map(|l| l + 1);
        self.key = Some(format!("{section}.{name}"));
        self
    }

    /// serde lists every key that there is; a person wants the one that was meant.
    fn explain_unknown(&mut self) {
        let mut quoted = self.message.split('`').skip(1).step_by(2);
        let is_unknown = self.message.starts_with("unknown field") || self.message.starts_with("unknown variant");
        let Some(unknown) = quoted.next().filter(|_| is_unknown) else {
            return;
        };
        let known: Vec<&str> = quoted.collect();
        let what = if self.message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
        self.hint = Some(match nearest(unknown, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        });
        self.message = format!("{what} `{unknown}`");
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The known word that is closest, if any is close.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(word, k), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// The dotted key that a line sets: its own, below the last header above it.
fn key_at(text: &str, line: usize) -> Option<String> {
    let above: Vec<&str> = text.lines().take(line).collect();
    let header = above.iter().rev().find_map(|l| l.trim().strip_prefix('[')?.split(']').next());
    let here = above.last().map_or("", |l| l.trim());
    let key = here.split_once('=').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
    match (header, key) {
        (Some(header), Some(key)) if !here.starts_with('[') => Some(format!("{header}.{key}")),
        (Some(header), _) => Some(header.to_owned()),
        (None, key) => key.map(str::to_owned),
    }
}
