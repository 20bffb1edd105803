//! What a JSON file of another program becomes: its old text with our values in it, or a reason to leave it alone. (pure)
//!
//! Old and new are compared by their meaning. The file is ours to write if its access token is one that we wrote, or if it
//! has no refresh token and no sign-in of another kind. Else a person, or the program itself, signed in there.

use std::collections::BTreeMap;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::credential::server_text::printable;
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
    Conflict(Rival, String),
    /// A value is not known that must be there.
    Lacking(&'static str),
}

/// What a file has that is not ours to overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// It is not in a form that can be changed.
    Unreadable,
    /// It is another account's.
    OtherAccount,
    /// It has a refresh token.
    SignIn,
    /// It has a sign-in of another kind, as by an API key.
    OtherKind,
    /// It has another value than we wrote.
    Changed,
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
    /// We have written the file before, so what differs there was changed since.
    pub(super) was_written: bool,
    /// A person has agreed that what is there is overwritten.
    pub(super) is_approved: bool,
}

impl From<JsonFault> for MergeRefusal {
    fn from(fault: JsonFault) -> Self {
        Self::Conflict(Rival::Unreadable, format!("it {fault}"))
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
        let before = self.settings_before(&text)?;
        for (pointer, content) in &self.fields {
            let there = text.get(pointer)?;
            match new_value(*content, there, values)? {
                Some(Value::Null) if *content == FieldContent::Removed => text.remove(pointer)?,
                Some(value) => text.set(pointer, &value)?,
                None => {}
            }
        }
        Ok(Merged { text, before })
    }

    /// The settings of the program that are about to be changed.
    fn settings_before(&self, text: &JsonText) -> Result<BTreeMap<String, Value>, JsonFault> {
        let mut before = BTreeMap::new();
        for (pointer, content) in &self.fields {
            if let (FieldContent::Text(new), Some(old)) = (content, text.get(pointer)?)
                && old.as_str() != Some(new)
            {
                before.insert(pointer.clone(), old);
            }
        }
        Ok(before)
    }

    /// The text without its refresh token, in the form in which the program refreshes nothing. Its access token stays.
    pub(super) fn disarm(&self, mut text: JsonText) -> Result<Merged, JsonFault> {
        let before = self.settings_before(&text)?;
        for (pointer, content) in &self.fields {
            match content {
                FieldContent::Text(new) => text.set(pointer, &Value::from(*new))?,
                FieldContent::Blank => text.set(pointer, &Value::from(""))?,
                FieldContent::Removed => text.remove(pointer)?,
                FieldContent::Value(_)
                | FieldContent::ValueOrThere(_)
                | FieldContent::IfKnown(_)
                | FieldContent::ThereOrValue(_)
                | FieldContent::NullIfAbsent => {}
            }
        }
        Ok(Merged { text, before })
    }

    /// The refresh token of a provider that a file has.
    pub(super) fn refresh_in(&self, text: &JsonText) -> Option<Zeroizing<String>> {
        let token = text.text_at(self.refresh.as_ref()?).ok().flatten().map(Zeroizing::new)?;
        (!token.trim().is_empty() && !is_handle(&token)).then_some(token)
    }

    /// A running session of some programs refuses a file of another account.
    fn check_account(&self, text: &JsonText, values: &Values) -> Result<(), MergeRefusal> {
        let Some(pointer) = &self.account else { return Ok(()) };
        match (text.text_at(pointer)?.filter(|theirs| !theirs.is_empty()), values.account()) {
            (Some(theirs), Some(ours)) if !theirs.eq_ignore_ascii_case(ours) => {
                let why = format!("it belongs to the account {}, and the profile to {ours}", printable(&theirs));
                Err(MergeRefusal::Conflict(Rival::OtherAccount, why))
            }
            _ => Ok(()),
        }
    }

    fn check_owner(&self, text: &JsonText, known: &Known<'_>) -> Result<(), MergeRefusal> {
        let access = text.text_at(&self.access)?.filter(|token| !token.is_empty());
        let is_ours = access.as_deref().is_some_and(known.is_ours);
        if !is_ours || known.was_written {
            self.check_kind(text, is_ours)?;
        }
        if is_ours {
            return Ok(());
        }
        match &self.refresh {
            Some(pointer) => match text.get(pointer)? {
                None | Some(Value::Null) => Ok(()),
                Some(Value::String(token)) if token.trim().is_empty() || is_handle(&token) => Ok(()),
                Some(_) => Err(MergeRefusal::Conflict(
                    Rival::SignIn,
                    "it has a refresh token of its own: there was a sign-in in that program".into(),
                )),
            },
            None if access.is_none() && text.get(&self.access)?.is_none_or(|v| v.is_null() || v == "") => Ok(()),
            None => Err(MergeRefusal::Conflict(
                Rival::Changed,
                format!("{} is another one there than keepalive wrote", self.access),
            )),
        }
    }

    /// Whether the program is signed in by other means than a token: the members that say so differ from ours, or are gone
    /// while there is something in a member that we leave empty.
    fn check_kind(&self, text: &JsonText, has_our_token: bool) -> Result<(), MergeRefusal> {
        let other_kind = |what: String| {
            MergeRefusal::Conflict(Rival::OtherKind, format!("it has {what}: a sign-in of another kind"))
        };
        let mut is_kind_told = false;
        for (pointer, content) in &self.fields {
            let FieldContent::Text(ours) = content else { continue };
            match text.get(pointer)?.filter(|there| !there.is_null()) {
                Some(there) if there.as_str() != Some(ours) => {
                    let value =
                        there.as_str().map_or("another value".to_owned(), |text| format!("{:?}", printable(text)));
                    return Err(other_kind(format!("{pointer} {value}")));
                }
                there => is_kind_told |= there.is_some(),
            }
        }
        for (pointer, content) in &self.fields {
            let is_rival = *content == FieldContent::NullIfAbsent && !is_kind_told && !has_our_token;
            if is_rival && text.get(pointer)?.is_some_and(|there| !there.is_null()) {
                return Err(other_kind(pointer.clone()));
            }
        }
        Ok(())
    }

    /// The text without what we wrote. `before`: what was there instead. `is_ours_alone`: there was no file. `None`: nothing
    /// is left of it.
    pub(super) fn strip(
        &self,
        mut text: JsonText,
        before: &BTreeMap<String, Value>,
        is_ours_alone: bool,
    ) -> Result<Option<JsonText>, JsonFault> {
        for (pointer, content) in &self.fields {
            match (content, before.get(pointer)) {
                (_, Some(old)) => text.set(pointer, old)?,
                (FieldContent::NullIfAbsent, None) if text.get(pointer)?.is_some_and(|v| !v.is_null()) => {}
                // What was there before is kept with the rest.
                (FieldContent::ThereOrValue(_), None) if !is_ours_alone => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn codex() -> Recipe {
        let consumer = Consumer::from_name("codex").unwrap();
        Recipe::of(&MirrorForm::Consumer { consumer, entry: None }, "openai").unwrap()
    }

    fn entry() -> Recipe {
        let consumer = Consumer::from_name("opencode").unwrap();
        Recipe::of(&MirrorForm::Consumer { consumer, entry: None }, "xai").unwrap()
    }

    fn rival(recipe: &Recipe, text: &str, was_written: bool) -> Option<Rival> {
        let known = Known { is_ours: &|token| token == "ours", was_written, is_approved: false };
        match recipe.check_owner(&JsonText::parse(text.as_bytes()).unwrap(), &known) {
            Err(MergeRefusal::Conflict(rival, _)) => Some(rival),
            _ => None,
        }
    }

    /// What was lost: a sign-in by API key, which a refresh overwrote.
    #[test]
    fn sign_in_of_another_kind_is_not_ours_to_overwrite() {
        for (text, found) in [
            (r#"{"auth_mode":"apikey","OPENAI_API_KEY":"k","tokens":null}"#, Some(Rival::OtherKind)),
            (r#"{"OPENAI_API_KEY":"k"}"#, Some(Rival::OtherKind)),
            (r#"{"auth_mode":"agent","tokens":{"access_token":"a","refresh_token":""}}"#, Some(Rival::OtherKind)),
            (
                r#"{"auth_mode":"chatgptAuthTokens","tokens":{"access_token":"a","refresh_token":"r"}}"#,
                Some(Rival::SignIn),
            ),
            (r#"{"auth_mode":"chatgptAuthTokens","OPENAI_API_KEY":"k","tokens":{"access_token":"ours"}}"#, None),
            (r#"{"auth_mode":"chatgptAuthTokens","OPENAI_API_KEY":"k","tokens":null}"#, None),
            (r#"{"auth_mode":null,"OPENAI_API_KEY":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(rival(&codex(), text, false), found, "{text}");
        }
        for (text, found) in [
            (r#"{"xai":{"type":"api","key":"k"}}"#, Some(Rival::OtherKind)),
            (r#"{"xai":{"type":"wellknown","key":"k","token":"t"}}"#, Some(Rival::OtherKind)),
            (r#"{"xai":{"type":"oauth","refresh":"","access":"a"},"other":{"type":"api"}}"#, None),
        ] {
            assert_eq!(rival(&entry(), text, false), found, "{text}");
        }
        // An imported sign-in has our token before we write it.
        let imported = r#"{"auth_mode":"chatgpt","tokens":{"access_token":"ours","refresh_token":"r"}}"#;
        assert_eq!([false, true].map(|was| rival(&codex(), imported, was)), [None, Some(Rival::OtherKind)]);
    }

    /// What was lost: the family of a program whose file kept the refresh token that was spent.
    #[test]
    fn disarmed_file_has_all_but_its_refresh_token() {
        let text =
            r#"{"auth_mode":"chatgpt","tokens":{"access_token":"a","refresh_token":"r","account_id":"1"},"x":1.0}"#;
        let merged = codex().disarm(JsonText::parse(text.as_bytes()).unwrap()).unwrap();
        let expected = text.replace("\"r\"", "\"\"").replace("\"chatgpt\"", "\"chatgptAuthTokens\"");
        assert_eq!(merged.text.as_str(), expected);
        assert_eq!(merged.before["/auth_mode"], "chatgpt");
        assert!(codex().refresh_in(&merged.text).is_none());
        let before = JsonText::parse(text.as_bytes()).unwrap();
        assert_eq!(codex().refresh_in(&before).unwrap().as_str(), "r");
    }

    /// What was lost: a program's other members in a file that keepalive had made.
    #[test]
    fn members_that_came_later_outlive_an_undo() {
        let consumer = Consumer::from_name("claude").unwrap();
        let recipe = Recipe::of(&MirrorForm::Consumer { consumer, entry: None }, "anthropic").unwrap();
        let strip = |text: &str, is_ours_alone| {
            let left =
                recipe.strip(JsonText::parse(text.as_bytes()).unwrap(), &BTreeMap::new(), is_ours_alone).unwrap();
            left.map(|text| text.as_str().to_owned())
        };
        let fed = r#"{"claudeAiOauth":{"accessToken":"a","expiresAt":1,"scopes":["s"]}}"#;
        assert_eq!(strip(fed, true), None);
        assert_eq!(strip(fed, false).as_deref(), Some(r#"{"claudeAiOauth":{"scopes":["s"]}}"#));
        let with_mcp = fed.replace("]}}", "]},\"mcpOAuth\":{}}");
        assert_eq!(strip(&with_mcp, true).as_deref(), Some(r#"{"mcpOAuth":{}}"#));
    }
}
