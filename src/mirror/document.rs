//! What a JSON file of another program becomes: its old text with our values in it, or a reason to leave it alone. (pure)
//!
//! Old and new are compared by their meaning. The file is ours to write if its access token is one that we wrote, or if it
//! has no refresh token. Else a person, or the program itself, signed in there.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::mirror::json_text::{JsonFault, JsonText};
use crate::mirror::values::{Values, is_handle};
use crate::profile::consumers::{Consumer, Delivery, FieldContent};
use crate::profile::mirror::{MirrorForm, MirrorValue};

/// What is written into a JSON file, and what is looked at before.
#[derive(Debug)]
pub(super) struct Recipe {
    fields: Vec<(String, FieldContent)>,
    access: String,
    /// Where the program would have its refresh token, if that is known.
    refresh: Option<String>,
    account: Option<String>,
}

/// Why a file is not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MergeRefusal {
    /// It has what is not ours to overwrite.
    Conflict(String),
    /// A value is not known that must be there.
    Lacking(&'static str),
}

/// The new text, and what of it was different and is put back by an undo.
pub(super) struct Merged {
    pub(super) text: JsonText,
    pub(super) before: BTreeMap<String, Value>,
}

/// What is known of a file before it is merged.
pub(super) struct Known<'a> {
    /// Whether an access token is one that we wrote.
    pub(super) is_ours: &'a dyn Fn(&str) -> bool,
    /// A person has agreed that what is there is overwritten.
    pub(super) is_approved: bool,
}

impl From<JsonFault> for MergeRefusal {
    fn from(fault: JsonFault) -> Self {
        Self::Conflict(format!("it {fault}"))
    }
}

impl Recipe {
    /// `None`: the form is no JSON file.
    pub(super) fn of(form: &MirrorForm, provider: &str) -> Option<Self> {
        match form {
            MirrorForm::Json { set } => {
                let access = set.iter().find(|(_, value)| *value == MirrorValue::AccessToken)?;
                let fields = set.iter().map(|(pointer, value)| (pointer.clone(), FieldContent::Value(*value)));
                Some(Self { fields: fields.collect(), access: access.0.clone(), refresh: None, account: None })
            }
            MirrorForm::Consumer { consumer, entry } => {
                let entry = entry.clone().unwrap_or_else(|| consumer.entry_of(provider));
                Self::of_consumer(consumer, &entry)
            }
            MirrorForm::File | MirrorForm::Template { .. } | MirrorForm::Directory { .. } => None,
        }
    }

    fn of_consumer(consumer: &Consumer, entry: &str) -> Option<Self> {
        let Delivery::Document { fields, refresh, account, .. } = &consumer.delivery else { return None };
        let escaped = entry.replace('~', "~0").replace('/', "~1");
        let place = |pointer: &str| pointer.replace("ENTRY", &escaped);
        let access = fields.iter().find(|f| f.content == FieldContent::Value(MirrorValue::AccessToken))?;
        Some(Self {
            fields: fields.iter().map(|field| (place(field.pointer), field.content)).collect(),
            access: place(access.pointer),
            refresh: Some(place(refresh)),
            account: (!account.is_empty()).then(|| place(account)),
        })
    }

    /// The access token that a file has.
    pub(super) fn access_in(&self, text: &JsonText) -> Option<String> {
        text.text_at(&self.access).ok().flatten().filter(|token| !token.is_empty())
    }

    /// The old text with the values in it. `old` is `None` where there is no file, or an empty one.
    pub(super) fn merge(
        &self,
        old: Option<JsonText>,
        values: &Values,
        known: &Known<'_>,
    ) -> Result<Merged, MergeRefusal> {
        let mut text = old.unwrap_or_else(JsonText::empty);
        if !known.is_approved {
            self.check_account(&text, values)?;
            self.check_owner(&text, known)?;
        }
        let mut before = BTreeMap::new();
        for (pointer, content) in &self.fields {
            let there = text.get(pointer)?;
            if let (FieldContent::Text(new), Some(old)) = (content, &there)
                && old.as_str() != Some(new)
            {
                before.insert(pointer.clone(), old.clone());
            }
            match new_value(*content, there, values)? {
                Some(Value::Null) if *content == FieldContent::Removed => text.remove(pointer)?,
                Some(value) => text.set(pointer, &value)?,
                None => {}
            }
        }
        Ok(Merged { text, before })
    }

    /// A running session of some programs refuses a file of another account.
    fn check_account(&self, text: &JsonText, values: &Values) -> Result<(), MergeRefusal> {
        let Some(pointer) = &self.account else { return Ok(()) };
        match (text.text_at(pointer)?.filter(|theirs| !theirs.is_empty()), values.account()) {
            (Some(theirs), Some(ours)) if !theirs.eq_ignore_ascii_case(ours) => {
                Err(MergeRefusal::Conflict(format!("it belongs to the account {theirs}, and the profile to {ours}")))
            }
            _ => Ok(()),
        }
    }

    fn check_owner(&self, text: &JsonText, known: &Known<'_>) -> Result<(), MergeRefusal> {
        let access = text.text_at(&self.access)?.filter(|token| !token.is_empty());
        if access.as_deref().is_some_and(known.is_ours) {
            return Ok(());
        }
        match &self.refresh {
            Some(pointer) => match text.get(pointer)? {
                None | Some(Value::Null) => Ok(()),
                Some(Value::String(token)) if token.trim().is_empty() || is_handle(&token) => Ok(()),
                Some(_) => Err(MergeRefusal::Conflict(
                    "it has a refresh token of its own: there was a sign-in in that program".into(),
                )),
            },
            None if access.is_none() && text.get(&self.access)?.is_none_or(|v| v.is_null() || v == "") => Ok(()),
            None => Err(MergeRefusal::Conflict(format!("{} is another one there than keepalive wrote", self.access))),
        }
    }

    /// The text without what we wrote. `before`: what was there instead. `None`: nothing is left of it.
    pub(super) fn strip(
        &self,
        mut text: JsonText,
        before: &BTreeMap<String, Value>,
    ) -> Result<Option<JsonText>, JsonFault> {
        for (pointer, content) in &self.fields {
            match (content, before.get(pointer)) {
                (_, Some(old)) => text.set(pointer, old)?,
                (FieldContent::NullIfAbsent, None) if text.get(pointer)?.is_some_and(|v| !v.is_null()) => {}
                // What was there before is kept with the rest.
                (FieldContent::ThereOrValue(_), None) => {}
                (_, None) => text.remove(pointer)?,
            }
        }
        for pointer in self.objects() {
            if text.get(&pointer)?.is_some_and(|v| v.as_object().is_some_and(serde_json::Map::is_empty)) {
                text.remove(&pointer)?;
            }
        }
        Ok((!text.is_empty()).then_some(text))
    }

    /// The objects that the fields are in, the innermost first.
    fn objects(&self) -> Vec<String> {
        let above = |pointer: &String| {
            let ends = pointer.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
            ends.map(|at| pointer[..at].to_owned()).collect::<Vec<_>>()
        };
        let mut objects: Vec<String> = self.fields.iter().flat_map(|(pointer, _)| above(pointer)).collect();
        objects.sort_by_key(|pointer| std::cmp::Reverse(pointer.len()));
        objects.dedup();
        objects
    }

    /// What a person is told of the change: each member, and what happens to it.
    pub(super) fn describe(&self) -> Vec<String> {
        let line = |(pointer, content): &(String, FieldContent)| match content {
            FieldContent::Value(value) | FieldContent::ValueOrThere(value) | FieldContent::IfKnown(value) => {
                Some(format!("{pointer}: {}", value.name()))
            }
            FieldContent::ThereOrValue(value) => Some(format!("{pointer}: kept, else {}", value.name())),
            FieldContent::Text(text) => Some(format!("{pointer}: {text:?}")),
            FieldContent::Blank => Some(format!("{pointer}: \"\"")),
            FieldContent::NullIfAbsent => None,
            FieldContent::Removed => Some(format!("{pointer}: removed")),
        };
        self.fields.iter().filter_map(line).collect()
    }
}

/// What a member becomes; `None`: it stays. A null for one that is removed.
fn new_value(content: FieldContent, there: Option<Value>, values: &Values) -> Result<Option<Value>, MergeRefusal> {
    let known = |value: MirrorValue| values.json(value);
    let is_there = there.is_some_and(|value| !value.is_null());
    Ok(match content {
        FieldContent::Value(value) => Some(known(value).ok_or(MergeRefusal::Lacking(value.name()))?),
        FieldContent::ValueOrThere(value) => match known(value) {
            None if !is_there => return Err(MergeRefusal::Lacking(value.name())),
            new => new,
        },
        FieldContent::IfKnown(value) => known(value),
        FieldContent::ThereOrValue(_) if is_there => None,
        FieldContent::ThereOrValue(value) => Some(known(value).ok_or(MergeRefusal::Lacking(value.name()))?),
        FieldContent::Text(text) => Some(text.into()),
        FieldContent::Blank => Some("".into()),
        FieldContent::NullIfAbsent if is_there => None,
        FieldContent::NullIfAbsent | FieldContent::Removed => Some(Value::Null),
    })
}
