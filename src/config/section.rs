//! Sections and entries of a document: typed reading, with errors that name the place and what would be right.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{ConfigError, Diagnostic, ValueError, alternatives, nearest, quoted};
use super::keys::{self, Key};
use crate::config::toml_document::Document;

/// A table with its dotted name; the empty name is the top of the file.
pub(super) struct Section<'d> {
    pub document: &'d Document<'d>,
    table: &'d DeTable<'d>,
    name: String,
    at: Range<usize>,
}

/// A key of a section with its value.
pub(super) struct Entry<'s> {
    section: &'s Section<'s>,
    pub key: &'s str,
    key_at: Range<usize>,
    value: &'s Spanned<DeValue<'s>>,
}

impl<'d> Section<'d> {
    /// The keys outside every section, and the sections.
    pub(super) fn top(document: &'d Document<'d>) -> Self {
        Self::new(document, document.root(), String::new(), 0..0)
    }

    pub(super) fn new(document: &'d Document<'d>, table: &'d DeTable<'d>, name: String, at: Range<usize>) -> Self {
        Self { document, table, name, at }
    }

    /// Everything in the section, in the order it was written.
    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries: Vec<Entry<'_>> = self
            .table
            .iter()
            .map(|(key, value)| Entry { section: self, key: key.get_ref(), key_at: key.span(), value })
            .collect();
        entries.sort_by_key(|entry| entry.key_at.start);
        entries
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry<'_>> {
        let (key, value) = self.table.iter().find(|(k, _)| k.get_ref() == key)?;
        Some(Entry { section: self, key: key.get_ref(), key_at: key.span(), value })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads a key if it is there. What is wrong with it is noted, and the key then counts as absent.
    pub(super) fn read<'s, T>(
        &'s self,
        key: &str,
        read: impl FnOnce(&Entry<'s>) -> Result<T, ConfigError>,
    ) -> Option<T> {
        self.document.noted(read(&self.get(key)?))
    }

    /// Notes every key that is not among the known.
    pub(super) fn reject_unknown(&self, known: &[&[Key]]) {
        self.unknown_entries(known).for_each(|error| self.document.note(error));
    }

    fn unknown_entries(&self, known: &[&[Key]]) -> impl Iterator<Item = ConfigError> {
        let is_known = |entry: &Entry<'_>| known.iter().any(|keys| keys.iter().any(|key| key.name == entry.key));
        let strangers = self.entries().into_iter().filter(|entry| !is_known(entry));
        strangers.map(|stranger| stranger.unknown(known)).collect::<Vec<_>>().into_iter()
    }

    /// The one entry of a table like `{ file = "..." }`.
    pub(super) fn single_entry(&self, of: &[Key]) -> Result<Entry<'_>, ConfigError> {
        let known = [of];
        let mut unknown = self.unknown_entries(&known);
        if let Some(first) = unknown.next() {
            unknown.for_each(|error| self.document.note(error));
            return Err(first);
        }
        let mut entries = self.entries();
        match (entries.len(), entries.pop()) {
            (1, Some(entry)) => Ok(entry),
            (count, _) => {
                let names: Vec<String> = of.iter().map(|key| key.name.into()).collect();
                let message = format!("needs exactly one of {}, not {count}", alternatives(&names));
                let hint = of.first().map(|key| format!("write {{ {} = {} }}", key.name, key.example));
                Err(self.diagnostic_at(&self.at, "", message, hint).into())
            }
        }
    }

    /// Whether a mistake is told of one of these keys, or of what may be meant for one: then what is missing follows from it.
    pub(super) fn has_mistake_about(&self, keys: &[&str], known: &[Key]) -> bool {
        let is_known = |key: &str| known.iter().any(|known| known.name == key);
        let meant = |entry: &Entry<'_>| nearest(entry.key, known.iter().map(|known| known.name));
        let is_misspelt = |entry: &Entry<'_>| !is_known(entry.key) && meant(entry).is_some_and(|m| keys.contains(&m));
        self.document.is_damaged_in(&self.at)
            || keys.iter().any(|key| self.document.has_mistake(&self.dotted(key)))
            || self.entries().iter().any(is_misspelt)
    }

    /// The name of one of its keys in messages for programs.
    fn dotted(&self, key: &str) -> String {
        let dot = if self.name.is_empty() || key.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.name, toml_key(key))
    }

    /// A finding about the whole section, or about one of its keys where that was written.
    pub(super) fn diagnostic(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
        let at = self.get(key).map_or_else(|| self.at.clone(), |entry| entry.key_at);
        self.diagnostic_at(&at, key, message.into(), Some(hint.into()))
    }

    fn diagnostic_at(&self, at: &Range<usize>, key: &str, message: String, hint: Option<String>) -> Diagnostic {
        let dotted = self.dotted(key);
        let section = if self.name.is_empty() { String::new() } else { format!("[{}] ", self.name) };
        self.document.diagnostic(at, dotted, format!("{section}{message}"), hint)
    }
}

impl<'s> Entry<'s> {
    /// The document that it stands in.
    pub(super) fn document(&self) -> &'s Document<'s> {
        self.section.document
    }

    /// The value as a section below this one.
    pub(super) fn section(&self) -> Result<Section<'s>, ConfigError> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(self.type_error("a table"));
        };
        let dot = if self.section.name.is_empty() { "" } else { "." };
        let name = format!("{}{dot}{}", self.section.name, toml_key(self.key));
        Ok(Section::new(self.section.document, table, name, self.key_at.clone()))
    }

    /// The sections of a list of them, as `[[profile.NAME.mirror]]`. What is none is noted and left out.
    pub(super) fn tables(&self) -> Result<Vec<Section<'s>>, ConfigError> {
        let Some(items) = self.value.get_ref().as_array() else {
            let hint = format!("write [[{}.{}]], and its keys below", self.section.name, toml_key(self.key));
            let message = format!("must be a list of sections, not {}", type_name(self.value.get_ref()));
            return Err(self.value_error(ValueError::new(message).hint(hint)));
        };
        let name = format!("{}.{}", self.section.name, toml_key(self.key));
        let table = |item: &'s Spanned<DeValue<'s>>| match item.get_ref() {
            DeValue::Table(table) => Ok(Section::new(self.section.document, table, name.clone(), item.span())),
            _ => Err(self.item_type_error(item)),
        };
        Ok(items.iter().filter_map(|item| self.section.document.noted(table(item))).collect())
    }

    /// The sections `[provider.NAME]` or `[profile.NAME]`, given the entry of the first word.
    pub(super) fn named_sections(&self) -> Vec<(&'s str, Section<'s>)> {
        let document = self.section.document;
        let hint = format!("write [{}.NAME], and its keys below", self.key);
        let DeValue::Table(table) = self.value.get_ref() else {
            let message = format!("must be a section with a name, not {}", type_name(self.value.get_ref()));
            document.note(self.value_error(ValueError::new(message).hint(hint)));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(table.len());
        for (key, value) in table.iter() {
            let name = format!("{}.{}", self.key, toml_key(key.get_ref()));
            if let DeValue::Table(below) = value.get_ref() {
                sections.push((&**key.get_ref(), Section::new(document, below, name, key.span())));
            } else {
                let message = format!("[{}] {} is outside a named section", self.key, quoted(key.get_ref()));
                document.note(document.diagnostic(&value.span(), name, message, Some(hint.clone())).into());
            }
        }
        sections.sort_by_key(|(_, section)| section.at.start);
        sections
    }

    pub(super) fn text(&self) -> Result<&'s str, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => Err(self.type_error("a string")),
        }
    }

    /// A text that a check turns into a value.
    pub(super) fn parse<T>(&self, check: impl FnOnce(&str) -> Result<T, ValueError>) -> Result<T, ConfigError> {
        check(self.text()?).map_err(|problem| self.value_error(problem))
    }

    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| {
            let message = format!("must be true or false, not {}", type_name(self.value.get_ref()));
            let hint = format!("write {0} = true or {0} = false, without quotes", toml_key(self.key));
            self.value_error(ValueError::new(message).hint(hint))
        })
    }

    pub(super) fn integer(&self, limits: RangeInclusive<usize>) -> Result<usize, ConfigError> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => number,
            DeValue::Float(_) => return Err(self.value_error(ValueError::new("must be a whole number"))),
            _ => return Err(self.type_error("a number")),
        };
        let count = usize::from_str_radix(number.as_str(), number.radix());
        count.ok().filter(|count| limits.contains(count)).ok_or_else(|| {
            self.value_error(ValueError::new(format!(
                "must be between {} and {}, not {number}",
                limits.start(),
                limits.end()
            )))
        })
    }

    /// A list of strings, each checked; an empty list is one. Wrong ones are noted and left out.
    pub(super) fn list<T>(&self, check: impl Fn(&str) -> Result<T, ValueError>) -> Result<Vec<T>, ConfigError> {
        let item = |value: &Spanned<DeValue<'_>>| {
            let text = value.get_ref().as_str().ok_or_else(|| self.item_type_error(value))?;
            check(text).map_err(|problem| self.value_error_at(&value.span(), problem))
        };
        // Each mistake is noted by itself; what is returned then is not used.
        Ok(self.array()?.iter().filter_map(|value| self.section.document.noted(item(value))).collect())
    }

    /// A program with its arguments.
    pub(super) fn command(&self) -> Result<Vec<String>, ConfigError> {
        let argument = |text: &str| match text.contains('\0') {
            true => Err(ValueError::new("cannot contain a NUL byte")),
            false => Ok(text.to_owned()),
        };
        let command = self.list(argument)?;
        match command.first() {
            Some(program) if !program.is_empty() => Ok(command),
            None if !self.array()?.is_empty() => Ok(command),
            Some(_) | None => Err(self.value_error(ValueError::new("does not name a program"))),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        // A part of a name is meant for it, too: `basic` for `client_secret_basic`.
        let part = choices.iter().map(|(name, _)| *name).find(|name| text.len() > 2 && name.contains(text));
        let hint = match nearest(text, choices.iter().map(|(name, _)| *name)).or(part) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("write {} = {}", self.key, alternatives(&names)),
        };
        Err(self
            .value_error(ValueError::new(format!("must be {}, not {}", alternatives(&names), quoted(text))).hint(hint)))
    }

    /// An error about this value.
    pub(super) fn value_error(&self, problem: ValueError) -> ConfigError {
        self.value_error_at(&self.value.span(), problem)
    }

    /// An error about this key, with a message of its own.
    pub(super) fn key_error(&self, message: String, hint: impl Into<String>) -> ConfigError {
        self.section.diagnostic_at(&self.key_at, self.key, message, Some(hint.into())).into()
    }

    fn value_error_at(&self, at: &Range<usize>, problem: ValueError) -> ConfigError {
        let message = format!("{} {}", toml_key(self.key), problem.message);
        self.section.diagnostic_at(at, self.key, message, problem.hint.or_else(|| self.example_hint())).into()
    }

    fn example_hint(&self) -> Option<String> {
        let example = keys::example(self.key).unwrap_or("\"...\"");
        Some(format!("write {} = {example}", toml_key(self.key)))
    }

    fn array(&self) -> Result<&'s DeArray<'s>, ConfigError> {
        self.value.get_ref().as_array().ok_or_else(|| self.type_error("a list of strings"))
    }

    fn type_error(&self, wanted: &str) -> ConfigError {
        self.value_error(ValueError::new(format!("must be {wanted}, not {}", type_name(self.value.get_ref()))))
    }

    fn item_type_error(&self, item: &Spanned<DeValue<'_>>) -> ConfigError {
        let message = format!("must be a list of strings, but contains {}", type_name(item.get_ref()));
        self.value_error_at(&item.span(), ValueError::new(message))
    }

    fn unknown(&self, known: &[&[Key]]) -> ConfigError {
        let is_table = matches!(self.value.get_ref(), DeValue::Table(_));
        match self.section.name.split_once('.') {
            None if is_table && self.section.name.is_empty() => self.unknown_section(),
            Some((word, name)) if is_table => {
                let dotted = quoted(&format!("{}.{}", name.trim_matches('"'), self.key));
                let hint = format!("if this is one name with a dot, write [{word}.{dotted}]");
                self.key_error(format!("unknown section {}", quoted(self.key)), hint)
            }
            _ => self.key_error(format!("unknown key {}", quoted(self.key)), keys::suggestion(self.key, known)),
        }
    }

    fn unknown_section(&self) -> ConfigError {
        let hint = match nearest(self.key, ["store", "broker", "hooks", "provider", "profile"]) {
            Some(single @ ("store" | "broker" | "hooks")) => format!("did you mean [{single}]?"),
            Some(name) => format!("did you mean [{name}.NAME]?"),
            None => "the sections are [store], [broker], [hooks], [provider.NAME] and [profile.NAME]".to_owned(),
        };
        self.key_error(format!("unknown section [{}]", toml_key(self.key)), hint)
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A key as TOML wants it written.
fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if key.chars().all(is_bare) { key.into() } else { quoted(key) }
}
