//! `[[profile.NAME.mirror]]`: what is kept up to date for other programs, and where.

use std::path::PathBuf;

use super::error::{ConfigError, Diagnostic, ValueError, quoted};
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::profile::consumers::{CONSUMERS, Consumer, Delivery, EntryName};
use crate::profile::mirror::{Mirror, MirrorForm, MirrorValue};

/// A kind of mirror, before its other keys are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Json,
    Template,
    Directory,
    Consumer(&'static Consumer),
}

/// All mirrors of a profile, and where they stand. Those with mistakes are noted and left out.
pub(super) fn read_all(section: &Section<'_>) -> Vec<(Mirror, Diagnostic)> {
    let tables = section.read("mirror", Entry::tables).unwrap_or_default();
    tables.iter().filter_map(|table| Some((read(table)?, table.diagnostic("kind", "kind", "")))).collect()
}

fn read(section: &Section<'_>) -> Option<Mirror> {
    section.reject_unknown(&[keys::MIRROR]);
    let Some(entry) = section.get("kind") else {
        let hint = "write kind = \"file\", \"json\", \"template\", \"dir\", or the name of a program as `keepalive feed` has it";
        section.document.note(section.diagnostic("", "kind is missing", hint).into());
        return None;
    };
    let kind = section.document.noted(entry.choice(&kinds()))?;
    let before = section.document.mistake_count();
    reject_keys_of_other_kinds(section, kind);
    let path =
        section.read("path", |e| e.parse(|text| values::path(text, section.document.path, section.document.home)));
    if path.is_none() && needs_path(kind) && !section.has_mistake_about(&["path"], keys::MIRROR) {
        let hint = "write path = \"...\": an absolute path, or one that begins with ~/";
        section.document.note(section.diagnostic("kind", "path is missing", hint).into());
    }
    if path.as_ref().is_some_and(|path| path.file_name().is_none() || section.document.home == Some(path.as_path())) {
        let message = "path is a directory that is always there, and no file can take its place";
        section.document.note(section.diagnostic("path", message, "add the name of the file").into());
    }
    let form = form(section, kind)?;
    section.document.is_clean_since(before).then_some(Mirror { form, path })
}

fn kinds() -> Vec<(&'static str, Kind)> {
    let plain = [("file", Kind::File), ("json", Kind::Json), ("template", Kind::Template), ("dir", Kind::Directory)];
    plain.into_iter().chain(CONSUMERS.iter().map(|consumer| (consumer.name, Kind::Consumer(consumer)))).collect()
}

fn needs_path(kind: Kind) -> bool {
    match kind {
        Kind::File | Kind::Json | Kind::Template | Kind::Directory => true,
        Kind::Consumer(consumer) => !consumer.has_one_file && matches!(consumer.delivery, Delivery::Document { .. }),
    }
}

/// The keys that a kind uses besides `kind`.
fn keys_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::File => &["path"],
        Kind::Json => &["path", "set"],
        Kind::Template => &["path", "source"],
        Kind::Directory => &["path", "files"],
        Kind::Consumer(Consumer { delivery: Delivery::Command { .. }, .. }) => &["entry"],
        Kind::Consumer(Consumer { entry: EntryName::Single, .. }) => &["path"],
        Kind::Consumer(_) => &["path", "entry"],
    }
}

fn reject_keys_of_other_kinds(section: &Section<'_>, kind: Kind) {
    let used = keys_of(kind);
    let known = |key: &str| keys::MIRROR.iter().any(|known| known.name == key) && key != "kind";
    for entry in section.entries().iter().filter(|entry| known(entry.key) && !used.contains(&entry.key)) {
        let message = format!("a mirror of this kind does not use {}", quoted(entry.key));
        section.document.note(entry.key_error(message, format!("remove {}", entry.key)));
    }
}

fn form(section: &Section<'_>, kind: Kind) -> Option<MirrorForm> {
    Some(match kind {
        Kind::File => MirrorForm::File,
        Kind::Json => {
            let set = table(section, "set", pointer)?;
            if let Some((outer, inner)) = overlap(&set) {
                let message = format!("set has {} and {}, which is a part of it", quoted(outer), quoted(inner));
                section.document.note(section.diagnostic("set", message, "remove one of the two").into());
            }
            MirrorForm::Json { set }
        }
        Kind::Directory => MirrorForm::Directory { files: table(section, "files", file_name)? },
        Kind::Template => MirrorForm::Template { source: source(section)? },
        Kind::Consumer(consumer) => {
            let entry = section.read("entry", |e| e.parse(|text| values::external_name(text, "/")));
            MirrorForm::Consumer { consumer, entry }
        }
    })
}

fn source(section: &Section<'_>) -> Option<PathBuf> {
    let path = |text: &str| values::path(text, section.document.path, section.document.home);
    if !section.has("source") {
        let hint = "write source = \"...\": the path of the template";
        section.document.note(section.diagnostic("kind", "source is missing", hint).into());
    }
    section.read("source", |e| e.parse(path))
}

/// `set` or `files`: names and their values. One of them must be the access token, by which a mirror knows its own.
fn table(
    section: &Section<'_>,
    key: &str,
    check: fn(&str) -> Result<(), ValueError>,
) -> Option<Vec<(String, MirrorValue)>> {
    let example = keys::example(key).unwrap_or("{ }");
    let Some(entry) = section.get(key) else {
        let hint = format!("write {key} = {example}");
        section.document.note(section.diagnostic("kind", format!("{key} is missing"), hint).into());
        return None;
    };
    let below = section.document.noted(entry.section())?;
    let read = |entry: &Entry<'_>| -> Result<(String, MirrorValue), ConfigError> {
        check(entry.key).map_err(|problem| {
            entry.key_error(format!("{} {}", quoted(entry.key), problem.message), problem.hint.unwrap_or_default())
        })?;
        Ok((entry.key.to_owned(), entry.choice(MirrorValue::ALL)?))
    };
    let pairs: Vec<_> = below.entries().iter().filter_map(|entry| section.document.noted(read(entry))).collect();
    let has_token = pairs.iter().any(|(_, value)| *value == MirrorValue::AccessToken);
    if !has_token && pairs.len() == below.entries().len() {
        let message = format!("{key} does not have the access token");
        section.document.note(entry.key_error(message, format!("write {key} = {example}")));
    }
    Some(pairs)
}

/// Two members of which one is a part of the other. (pure)
fn overlap(set: &[(String, MirrorValue)]) -> Option<(&str, &str)> {
    let is_part = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    set.iter().find_map(|(outer, _)| {
        let (inner, _) = set.iter().find(|(inner, _)| is_part(inner, outer))?;
        Some((outer.as_str(), inner.as_str()))
    })
}

/// A JSON pointer to a member (RFC 6901).
fn pointer(text: &str) -> Result<(), ValueError> {
    let is_escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    match text.strip_prefix('/') {
        Some(rest) if !rest.is_empty() && is_escaped => Ok(()),
        _ => Err(ValueError::new("is not a JSON pointer to a member").hint("write it like \"/tokens/access_token\"")),
    }
}

/// The name of a file in a directory that is changed at once. Names that begin with two dots are for that itself.
fn file_name(text: &str) -> Result<(), ValueError> {
    match text.is_empty() || text == "." || text.starts_with("..") || text.contains(['/', '\0']) {
        true => Err(ValueError::new("is not a file name that can be used").hint("write it like \"token\"")),
        false => Ok(()),
    }
}
