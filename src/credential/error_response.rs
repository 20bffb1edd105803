//! Reads the error in a response (RFC 6749 §5.2) in the forms that real servers write. (pure)

use serde_json::{Map, Value};

use crate::credential::redaction::SentSecrets;
use crate::credential::token_words;

/// The code of an error that has none.
pub const UNKNOWN_ERROR: &str = "unknown_error";

/// No more objects than these are read for one error.
const MAX_OBJECTS: usize = 16;

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

/// The error in a body of JSON or of a form. `is_success`: the HTTP status is a 2xx, so the body must say itself that it
/// is an error; under any other status all its words are about one.
pub(super) fn parse_error(m: &Map<String, Value>, is_success: bool, sent: &SentSecrets) -> Option<ErrorResponse> {
    let objects = objects_of(m);
    if is_success && !says_error(m) && !objects.iter().skip(1).any(|object| reports_failure(object)) {
        return None;
    }
    let named = main_code(m);
    let description = main_description(m, &objects);
    if named.is_none() && description.is_none() && !is_failure(m) {
        return None;
    }
    let mut further = Vec::new();
    for text in objects.iter().flat_map(|object| further_texts(object)) {
        let text = sent.printable(text.trim());
        if !text.is_empty() && named != Some(text.as_str()) && !further.contains(&text) {
            further.push(text);
        }
    }
    let entra = member(m, "errorcodes").and_then(Value::as_array).into_iter().flatten();
    further.extend(entra.filter_map(Value::as_u64).map(|code| format!("AADSTS{code}")));
    Some(ErrorResponse { further, ..ErrorResponse::new(named.unwrap_or_default(), description, sent) })
}

/// An error that is a word or a sentence, without JSON or form around it.
pub(super) fn plain_error(body: &[u8], sent: &SentSecrets) -> Option<ErrorResponse> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_prose =
        text.chars().next().is_some_and(char::is_alphabetic) && text.len() <= 500 && !text.contains(['<', '{']);
    let is_code = !text.contains(char::is_whitespace);
    is_prose.then(|| match is_code {
        true => ErrorResponse::new(text, None, sent),
        false => ErrorResponse::new("", Some(text), sent),
    })
}

/// The object, and those within it that speak of the error.
fn objects_of(m: &Map<String, Value>) -> Vec<&Map<String, Value>> {
    let mut objects = vec![m];
    let mut at = 0;
    while at < objects.len() && objects.len() < MAX_OBJECTS {
        let within = NESTED.iter().filter_map(|name| member(objects[at], name));
        let found: Vec<_> = within.flat_map(|value| std::iter::once(value).chain(items(value))).collect();
        objects.extend(found.into_iter().filter_map(Value::as_object));
        at += 1;
    }
    objects.truncate(MAX_OBJECTS);
    objects
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The word that names the error: RFC 6749's `error`, an object or a list in its place, or the members of others.
fn main_code(m: &Map<String, Value>) -> Option<&str> {
    let listed = member(m, "errors").and_then(|list| items(list).next().or(Some(list))).filter(|e| is_meaningful(e));
    let error = member(m, "error").filter(|e| is_meaningful(e)).or(listed);
    let within = match error {
        Some(Value::String(code)) => return Some(code),
        Some(Value::Array(list)) => list.first(),
        other => other,
    };
    match within {
        Some(Value::String(code)) => Some(code),
        Some(Value::Object(inner)) => ["code", "errortype", "type", "status", "error", "errorcode", "reason"]
            .iter()
            .find_map(|key| text(inner, key))
            .or_else(|| text(m, "code")),
        _ => ["code", "errorcode", "errortype", "errcode", "status", "errorid", "err"]
            .iter()
            .find_map(|key| text(m, key).filter(|code| !is_success_code(code) && !is_failure_word(code))),
    }
}

/// What is said to a person: in the body itself, or in the first object within it that says something.
fn main_description<'a>(m: &'a Map<String, Value>, objects: &[&'a Map<String, Value>]) -> Option<&'a str> {
    let of = |object: &'a Map<String, Value>| DESCRIPTIONS.iter().find_map(|key| text(object, key));
    let nested = || objects.iter().skip(1).find_map(|object| of(object));
    // `{"message":"error","data":{"description":…}}`
    let own = of(m).filter(|text| !is_failure_word(text) || nested().is_none());
    own.or_else(nested).or_else(|| texts_within(m).next())
}

/// Texts of a list or a map of errors: `"errors":["…"]`, `"errors":{"refresh_token":["is invalid"]}`.
fn texts_within(m: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let lists = ["errors", "error"].iter().filter_map(|name| member(m, name));
    lists.flat_map(|value| {
        let own = items(value).filter_map(Value::as_str);
        let named =
            value.as_object().into_iter().flatten().flat_map(|(_, value)| items(value).filter_map(Value::as_str));
        own.chain(named)
    })
}

/// Every further text of an object that may tell what the error is about. A list below the name of a parameter is read
/// with it: `{"refresh_token":["is invalid"]}`.
fn further_texts(object: &Map<String, Value>) -> Vec<String> {
    let mut found: Vec<String> =
        CODES.iter().chain(&DESCRIPTIONS).filter_map(|key| text(object, key)).map(str::to_owned).collect();
    for (name, value) in object {
        found.extend(items(value).filter_map(Value::as_str).map(
            |said| match NESTED.contains(&letters(name).as_str()) {
                true => said.to_owned(),
                false => format!("{name} {said}"),
            },
        ));
    }
    // `{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}`
    if let (Some(field), Some(code)) = (text(object, "field"), text(object, "code")) {
        found.push(format!("{field} {code}"));
    }
    found
}

/// Whether the body of a 2xx says that it is an error.
fn says_error(m: &Map<String, Value>) -> bool {
    member(m, "error").is_some_and(is_meaningful)
        || member(m, "errors").is_some_and(is_meaningful)
        || text(m, "code").is_some_and(|code| !is_success_code(code))
        || reports_failure(m)
        || DESCRIPTIONS.iter().filter_map(|key| text(m, key)).any(token_words::name_dead_token)
}

/// Whether an object reports a failure in a member that exists for that.
fn reports_failure(m: &Map<String, Value>) -> bool {
    let is_set = |name: &str| match member(m, name) {
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty() && !is_success_code(text),
        _ => false,
    };
    let status = member(m, "status").and_then(Value::as_u64);
    ["errcode", "errorcode", "errortype"].into_iter().any(is_set)
        || status.is_some_and(|status| (400..600).contains(&status))
        || is_failure(m)
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

fn is_failure(m: &Map<String, Value>) -> bool {
    let says_no = |key: &str| member(m, key) == Some(&Value::Bool(false));
    says_no("ok")
        || says_no("success")
        || text(m, "status").is_some_and(|status| is_failure_word(status) || reads_as_error(status))
}

/// Whether a text for a status names an error, as `BAD_REFRESH_TOKEN` does.
fn reads_as_error(status: &str) -> bool {
    let status = letters(status);
    ["invalid", "badrefresh", "expired", "revoked", "denied", "unauthor", "forbidden"]
        .iter()
        .any(|w| status.contains(w))
}

/// A member by its name in small letters, however its words are joined.
fn member<'a>(m: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    m.get(name).or_else(|| m.iter().find(|(key, _)| letters(key) == name).map(|(_, value)| value))
}

fn text<'a>(m: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member(m, name).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}
