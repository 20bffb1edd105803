//! An error or a warning about the configuration: where, what, and what would be right.

use std::fmt;
use std::path::Path;

use crate::hosts::HostPattern;
pub use crate::outcome::Diagnostic;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{ProfileName, StoreSettings};

/// A key without which a provider, or a profile, cannot be used.
pub(super) struct MissingKey {
    /// Where it is told.
    pub key: &'static str,
    /// Keys whose own mistakes are the reason, if they have any.
    pub about: &'static [&'static str],
    pub message: String,
    pub hint: String,
}

impl MissingKey {
    pub(super) fn new(
        about: &'static [&'static str],
        key: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { key, about, message: message.into(), hint: hint.into() }
    }
}

/// Everything that is wrong with a configuration. There is at least one mistake; `Display` gives the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    mistakes: Vec<Diagnostic>,
    incomplete: Option<IncompleteProfiles>,
    /// The servers of the profiles that could be read.
    hosts: Vec<HostPattern>,
    /// Nothing is wrong, but another process is changing the file.
    is_busy: bool,
}

/// Profiles whose sections do not lead to a provider. Only the store knows whether each is a mistake: a credential names its
/// provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompleteProfiles {
    /// Enough of the settings to find the credentials.
    pub store: StoreSettings,
    pub profiles: Vec<(ProfileName, Diagnostic)>,
}

impl ConfigError {
    /// The mistakes of a text, in its order. `None`: there is none.
    pub(super) fn from_mistakes(mut mistakes: Vec<Diagnostic>) -> Option<Self> {
        mistakes.sort_by_key(|mistake| mistake.position);
        mistakes.dedup();
        (!mistakes.is_empty()).then(|| Self::of(mistakes))
    }

    fn of(mistakes: Vec<Diagnostic>) -> Self {
        Self { mistakes, incomplete: None, hosts: Vec::new(), is_busy: false }
    }

    /// The error that passes by itself.
    pub(super) fn busy(file: &Path, message: impl Into<String>) -> Self {
        Self { is_busy: true, ..Self::for_file(file, message, "run it again") }
    }

    pub(super) fn with_hosts(self, hosts: Vec<HostPattern>) -> Self {
        Self { hosts, ..self }
    }

    /// The servers that the profiles serve, as far as the configuration can be read.
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// What is wrong and where.
    pub fn mistakes(&self) -> &[Diagnostic] {
        &self.mistakes
    }

    pub(super) fn into_mistakes(self) -> Vec<Diagnostic> {
        self.mistakes
    }

    pub(super) fn with_incomplete(self, incomplete: Option<IncompleteProfiles>) -> Self {
        Self { incomplete, ..self }
    }

    /// What may be wrong besides the mistakes.
    pub fn incomplete(&self) -> Option<&IncompleteProfiles> {
        self.incomplete.as_ref()
    }

    /// Tells of the incomplete profiles that have no credential, too.
    #[must_use]
    pub fn with_incomplete_profiles(self, has_credential: impl Fn(&ProfileName) -> bool) -> Self {
        let Self { mut mistakes, incomplete, .. } = self;
        let lacking = incomplete.into_iter().flat_map(|incomplete| incomplete.profiles);
        mistakes.extend(lacking.filter(|(name, _)| !has_credential(name)).map(|(_, mistake)| mistake));
        mistakes.sort_by_key(|mistake| mistake.position);
        Self::of(mistakes)
    }

    /// What would be right, for a line of its own.
    pub fn hint(&self) -> Option<&str> {
        self.mistakes.first()?.hint.as_deref()
    }

    /// The error as the commands report it.
    pub fn to_failure(&self) -> Failure {
        let failure = Failure::new(if self.is_busy { ErrorKind::Busy } else { ErrorKind::Config }, self.to_string());
        Failure { hint: self.hint().map(str::to_owned), mistakes: self.mistakes.clone(), ..failure }
    }

    /// An error about the file as a whole.
    pub(super) fn for_file(file: &Path, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Diagnostic {
            file: Some(file.into()),
            position: None,
            key: String::new(),
            message: message.into(),
            hint: Some(hint.into()),
            excerpt: None,
        }
        .into()
    }
}

impl From<Diagnostic> for ConfigError {
    fn from(finding: Diagnostic) -> Self {
        Self::of(vec![finding])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistakes.first().map_or(Ok(()), |first| first.fmt(f))
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with one value, before it is known where the value stands. Follows the key: `margin` + `is empty`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValueError {
    pub message: String,
    /// `None`: the example of the key serves.
    pub hint: Option<String>,
}

impl ValueError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Message and hint in one line.
    pub(super) fn into_text(self) -> String {
        match self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message,
        }
    }
}

/// The longest piece of a user's text that a message repeats, in characters: enough to know it again.
const MAX_QUOTE_CHARS: usize = 60;

/// A user's text in quotes, with control characters escaped and the excess cut off.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTE_CHARS) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn alternatives(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The products of providers, by which people call these.
const PRODUCTS: [(&str, &str); 9] = [
    ("claude", "anthropic"),
    ("claude-code", "anthropic"),
    ("codex", "openai"),
    ("chatgpt", "openai"),
    ("grok", "xai"),
    ("gemini", "google"),
    ("entra", "microsoft"),
    ("azure", "microsoft"),
    ("jira", "atlassian"),
];

/// The provider that was probably meant, by its name or by a product.
pub fn nearest_provider<'n>(text: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let known: Vec<_> = known.into_iter().collect();
    let product =
        PRODUCTS.iter().find(|(product, _)| product.eq_ignore_ascii_case(text)).map(|(_, provider)| *provider);
    let by_product = known.iter().copied().find(|name| product == Some(*name));
    by_product.or_else(|| nearest(text, known))
}

/// The known name that was probably meant.
pub fn nearest<'n>(text: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let text: String = plain(text).chars().take(MAX_QUOTE_CHARS).collect();
    let distance = |name: &str| strsim::damerau_levenshtein(&text, &plain(name));
    let (nearest, off) = known.into_iter().map(|name| (name, distance(name))).min_by_key(|(_, off)| *off)?;
    // One slip in three letters: `clint_id` is meant, `url` for `issuer` is not.
    (off <= (nearest.len() / 3).max(1)).then_some(nearest)
}
