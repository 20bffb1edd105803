//! Reads the error in a response (RFC 6749 §5.2) in the forms that real servers write. (pure)

use serde_json::{Map, Value};

use crate::credential::redaction::SentSecrets;
use crate::credential::token_words;

/// The code of an error that has none.
pub const UNKNOWN_ERROR: &str = "unknown_error";

/// No more objects, members of one, and further texts than these are read for one error: a body may be a megabyte.
const MAX_OBJECTS: usize = 16;
const MAX_MEMBERS: usize = 64;
const MAX_FURTHER: usize = 32;
/// So much of a text is read.
const MAX_TEXT: usize = 1000;

/// An error response, its texts fit for a terminal and without what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The server's main word for the error; [`UNKNOWN_ERROR`] if there is none.
    pub code: String,
    pub description: Option<String>,
    /// What else stands where servers put codes and reasons: `suberror`, `errorType`, `status`, `reason`, and the like.
    pub further: Vec<String>,
}

impl ErrorResponse {
    /// An error with a code and a description alone.
    pub fn new(code: &str, description: Option<&str>, sent: &SentSecrets) -> Self {
        let code = code.trim();
        Self {
            code: sent.printable(if code.is_empty() { UNKNOWN_ERROR } else { code }),
            description: description.map(|text| sent.printable(text)),
            further: Vec::new(),
        }
    }

    /// Everything that may be a code, the main one first.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.code.as_str()).chain(self.further.iter().map(String::as_str))
    }

    /// All that the server said, each text apart.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.codes().chain(self.description.as_deref())
    }

    /// Code and description, for a message.
    pub fn shown(&self) -> String {
        let code = Some(self.code.as_str()).filter(|code| *code != UNKNOWN_ERROR);
        let text = self.description.as_deref().filter(|text| !text.trim().is_empty() && Some(*text) != code);
        match (code, text) {
            (Some(code), Some(text)) => format!("{code}: {text}"),
            (Some(only), None) | (None, Some(only)) => only.to_owned(),
            (None, None) => UNKNOWN_ERROR.to_owned(),
        }
    }
}

/// Members whose text is, or may be, the code of an error, the surest first.
const CODES: [&str; 17] = [
    "error",
    "code",
    "errorcode",
    "errortype",
    "type",
    "status",
    "suberror",
    "errorsubtype",
    "reason",
    "errorreason",
    "errorid",
    "errcode",
    "errorname",
    "name",
    "err",
    "field",
    "resource",
];

/// Members whose text is said to a person, the best first.
const DESCRIPTIONS: [&str; 17] = [
    "errordescription",
    "message",
    "description",
    "errormessage",
    "errormsg",
    "errmsg",
    "msg",
    "detail",
    "details",
    "errorsummary",
    "localizedmessage",
    "faultstring",
    "title",
    "reason",
    "hint",
    "err",
    "info",
];

/// Members that may hold further objects or texts of an error.
const NESTED: [&str; 9] = ["error", "errors", "fault", "detail", "details", "data", "result", "body", "response"];

/// An object by the letters of its names: however their words are joined, they are the same.
struct Members<'a>(Vec<(String, &'a Value)>);

impl<'a> Members<'a> {
    fn new(object: &'a Map<String, Value>) -> Self {
        let short = object.iter().filter(|(name, _)| name.len() <= 40);
        Self(short.take(MAX_MEMBERS).map(|(name, value)| (letters(name), value)).collect())
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty()).map(beginning)
    }

    /// The first of several texts.
    fn first(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| self.text(name))
    }
}

fn beginning(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// The error in a body of JSON or of a form. `is_success`: the HTTP status is a 2xx, so the body must say itself that it
/// is an error; under any other status all its words are about one.
pub(super) fn parse_error(m: &Map<String, Value>, is_success: bool, sent: &SentSecrets) -> Option<ErrorResponse> {
    let objects = objects_of(m);
    let root = objects.first()?;
    if is_success && !says_error(root) && !objects.iter().skip(1).any(reports_failure) {
        return None;
    }
    let named = main_code(root);
    let description = main_description(&objects).or_else(|| parameter_text(root).filter(|_| !is_success));
    if named.is_none() && description.is_none() && !is_failure(root) {
        return None;
    }
    let mut further = Vec::new();
    for text in objects.iter().flat_map(further_texts).take(MAX_FURTHER) {
        let text = sent.printable(text.trim());
        if !text.is_empty() && named != Some(text.as_str()) && !further.contains(&text) {
            further.push(text);
        }
    }
    let entra = root.get("errorcodes").into_iter().flat_map(items).take(MAX_FURTHER);
    further.extend(entra.filter_map(Value::as_u64).map(|code| format!("AADSTS{code}")));
    Some(ErrorResponse { further, ..ErrorResponse::new(named.unwrap_or_default(), description, sent) })
}

/// An error that is a word or a sentence, without JSON or form around it.
pub(super) fn plain_error(body: &[u8], sent: &SentSecrets) -> Option<ErrorResponse> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_text = text.len() <= 500 && text.starts_with(char::is_alphabetic) && !text.contains(['<', '{']);
    let is_code = text.contains('_') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (is_text, is_code, text.contains(char::is_whitespace)) {
        (true, true, _) => Some(ErrorResponse::new(text, None, sent)),
        (true, false, true) => Some(ErrorResponse::new("", Some(text), sent)),
        _ => None,
    }
}

/// The object, and those within it that speak of the error.
fn objects_of(m: &Map<String, Value>) -> Vec<Members<'_>> {
    let mut objects = vec![Members::new(m)];
    let mut at = 0;
    while at < objects.len() && objects.len() < MAX_OBJECTS {
        let within = NESTED.iter().filter_map(|name| objects[at].get(name));
        let values = within.flat_map(|value| std::iter::once(value).chain(items(value)));
        let found: Vec<_> = values.filter_map(Value::as_object).take(MAX_OBJECTS).map(Members::new).collect();
        objects.extend(found);
        at += 1;
    }
    objects.truncate(MAX_OBJECTS);
    objects
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The word that names the error: RFC 6749's `error`, an object or a list in its place, or the members of others.
fn main_code<'a>(root: &Members<'a>) -> Option<&'a str> {
    let listed = root.get("errors").filter(|list| is_meaningful(list));
    let error = root.get("error").filter(|error| is_meaningful(error)).or(listed);
    let within = match error {
        Some(Value::Array(list)) => list.first(),
        other => other,
    };
    match within {
        Some(Value::String(code)) => Some(beginning(code)),
        Some(Value::Object(inner)) => Members::new(inner)
            .first(&["code", "errortype", "type", "status", "error", "errorcode", "reason"])
            .or_else(|| root.text("code")),
        _ => {
            let names = ["code", "errorcode", "errortype", "errcode", "status", "errorid", "err"];
            let codes = names.iter().filter_map(|name| root.text(name));
            codes.into_iter().find(|code| !is_success_code(code) && !is_failure_word(code))
        }
    }
}

/// What is said to a person: in the body itself, or in the first object within it that says something.
fn main_description<'a>(objects: &[Members<'a>]) -> Option<&'a str> {
    let (root, within) = objects.split_first()?;
    let nested = within.iter().find_map(|object| object.first(&DESCRIPTIONS));
    // `{"message":"error","data":{"description":…}}`
    let own = root.first(&DESCRIPTIONS).filter(|text| !is_failure_word(text) || nested.is_none());
    own.or(nested).or_else(|| texts_within(root))
}

/// A text in a list or a map of errors: `"errors":["…"]`, `"errors":{"refresh_token":["is invalid"]}`.
fn texts_within<'a>(root: &Members<'a>) -> Option<&'a str> {
    let mut lists = ["errors", "error"].iter().filter_map(|name| root.get(name));
    lists.find_map(|value| {
        let named = value.as_object().into_iter().flatten().take(MAX_MEMBERS).flat_map(|(_, value)| items(value));
        items(value).chain(named).find_map(Value::as_str).map(beginning)
    })
}

/// Parameters of the request, and what some frameworks name in their place: `{"refresh_token":["is invalid"]}` is a whole
/// body.
const PARAMETERS: [&str; 9] =
    ["refreshtoken", "refresh", "token", "clientid", "clientsecret", "granttype", "scope", "nonfielderrors", "all"];

/// What is said of a parameter: a list of texts, or a sentence.
fn parameter_text<'a>(root: &Members<'a>) -> Option<&'a str> {
    PARAMETERS
        .iter()
        .filter_map(|name| root.get(name))
        .find_map(|value| match value {
            Value::String(text) => Some(text.as_str()).filter(|text| text.trim().contains(' ')),
            list => items(list).find_map(Value::as_str),
        })
        .map(beginning)
}

/// Every further text of an object that may tell what the error is about. A list below the name of a parameter is read
/// with it: `{"refresh_token":["is invalid"]}`.
fn further_texts(object: &Members<'_>) -> Vec<String> {
    let named = CODES.iter().chain(&DESCRIPTIONS).filter_map(|name| object.text(name));
    let mut found: Vec<String> = named.map(str::to_owned).collect();
    for (name, value) in &object.0 {
        let is_container = NESTED.contains(&name.as_str());
        if let Some(said) =
            value.as_str().filter(|said| PARAMETERS.contains(&name.as_str()) && said.trim().contains(' '))
        {
            found.push(format!("{name} {}", beginning(said)));
        }
        for said in items(value).filter_map(Value::as_str).take(MAX_OBJECTS).map(beginning) {
            found.push(if is_container { said.to_owned() } else { format!("{name} {said}") });
        }
    }
    // `{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}`
    if let (Some(field), Some(code)) = (object.text("field"), object.text("code")) {
        found.push(format!("{field} {code}"));
    } else if let (Some(resource), Some(code)) = (object.text("resource"), object.text("code")) {
        found.push(format!("{resource} {code}"));
    }
    found
}

/// Whether the body of a 2xx says that it is an error.
fn says_error(root: &Members<'_>) -> bool {
    root.get("error").is_some_and(is_meaningful)
        || root.get("errors").is_some_and(is_meaningful)
        || root.text("code").is_some_and(|code| !is_success_code(code))
        || reports_failure(root)
        || DESCRIPTIONS.iter().filter_map(|name| root.text(name)).any(token_words::name_dead_token)
}

/// Whether an object reports a failure in a member that exists for that.
fn reports_failure(object: &Members<'_>) -> bool {
    let is_set = |name: &str| match object.get(name) {
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty() && !is_success_code(text),
        _ => false,
    };
    let status = object.get("status").and_then(Value::as_u64);
    ["errcode", "errorcode", "errortype"].into_iter().any(is_set)
        || status.is_some_and(|status| (400..600).contains(&status))
        || is_failure(object)
}

/// Some servers always have an `error` member, and mean nothing by an empty one.
fn is_meaningful(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// A code that says that there is no error, or a number whose meaning is unknown.
fn is_success_code(code: &str) -> bool {
    ["ok", "success"].iter().any(|word| word.eq_ignore_ascii_case(code)) || code.bytes().all(|b| b.is_ascii_digit())
}

fn is_failure_word(text: &str) -> bool {
    ["error", "failed", "fail", "failure"].iter().any(|word| word.eq_ignore_ascii_case(text.trim()))
}

fn is_failure(object: &Members<'_>) -> bool {
    let says_no = |name: &str| object.get(name) == Some(&Value::Bool(false));
    says_no("ok")
        || says_no("success")
        || object.text("status").is_some_and(|status| is_failure_word(status) || reads_as_error(status))
}

/// Whether a text for a status names an error, as `BAD_REFRESH_TOKEN` does.
fn reads_as_error(status: &str) -> bool {
    let status = letters(status);
    ["invalid", "badrefresh", "expired", "revoked", "denied", "unauthor", "forbidden"]
        .iter()
        .any(|w| status.contains(w))
}

fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}
