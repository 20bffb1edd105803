//! The parameters of a request to the OAuth endpoint, from a form or from JSON. (pure)

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use url::form_urlencoded;

/// Each parameter that has a value, once.
#[derive(Default)]
pub(super) struct OAuthParameters(Vec<(String, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterError {
    /// The body is neither a form nor JSON.
    MediaType,
    Malformed,
    Twice,
    Nested,
}

impl ParameterError {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::MediaType => "the body must be application/x-www-form-urlencoded or application/json",
            Self::Malformed => "the body is no JSON object",
            Self::Twice => "a parameter is given twice",
            Self::Nested => "the value of a parameter must be a text",
        }
    }
}

impl OAuthParameters {
    /// Reads a body. Without a type it is a form.
    pub(super) fn parse(content_type: Option<&str>, body: &[u8]) -> Result<Self, ParameterError> {
        let media_type = content_type.unwrap_or(FORM).split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case(FORM) {
            return Self::collect(form_urlencoded::parse(body).into_owned());
        }
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(ParameterError::MediaType);
        }
        let members: OAuthMembers = serde_json::from_slice(body).map_err(|_| ParameterError::Malformed)?;
        let texts = members.0.into_iter().map(|(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            Value::Null => Ok((name, String::new())),
            Value::Bool(_) | Value::Number(_) => Ok((name, value.to_string())),
            Value::Array(_) | Value::Object(_) => Err(ParameterError::Nested),
        });
        Self::collect(texts.collect::<Result<Vec<_>, _>>()?.into_iter())
    }

    /// One without a value counts as left out (RFC 6749 §3.2), but not as another one.
    fn collect(given: impl Iterator<Item = (String, String)>) -> Result<Self, ParameterError> {
        let mut parameters = Self::default();
        for (name, value) in given {
            if parameters.0.iter().any(|(known, _)| *known == name) {
                return Err(ParameterError::Twice);
            }
            parameters.0.push((name, value));
        }
        Ok(parameters)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// The members of a JSON object, with those that are there twice.
struct OAuthMembers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for OAuthMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OAuthMembersVisitor)
    }
}

struct OAuthMembersVisitor;

impl<'de> Visitor<'de> for OAuthMembersVisitor {
    type Value = OAuthMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OAuthMembers, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(OAuthMembers(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: Option<&str>, body: &str) -> Result<Option<String>, ParameterError> {
        Ok(OAuthParameters::parse(content_type, body.as_bytes())?.get("refresh_token").map(str::to_owned))
    }

    const JSON: Option<&str> = Some("application/json; charset=utf-8");

    #[test]
    fn form_and_json_are_read() {
        let token = Ok(Some("kah_ x".to_owned()));
        assert_eq!(read(None, "grant_type=refresh_token&refresh_token=kah_%20x"), token);
        assert_eq!(read(Some("Application/X-WWW-form-urlencoded;charset=UTF-8"), "refresh_token=kah_+x"), token);
        assert_eq!(read(JSON, r#"{"refresh_token":"kah_ x","n":1,"b":true,"scope":null}"#), token);
        assert_eq!(read(JSON, "{}"), Ok(None));
        assert_eq!(read(None, ""), Ok(None));
        assert_eq!(read(None, "refresh_token="), Ok(None));
    }

    #[test]
    fn body_that_can_be_understood_in_two_ways_is_refused() {
        assert_eq!(read(None, "refresh_token=a&refresh_token=b"), Err(ParameterError::Twice));
        assert_eq!(read(None, "refresh_token=&refresh_token=b"), Err(ParameterError::Twice));
        assert_eq!(read(JSON, r#"{"refresh_token":"a","refresh_token":"b"}"#), Err(ParameterError::Twice));
        assert_eq!(read(JSON, r#"{"refresh_token":["a"]}"#), Err(ParameterError::Nested));
        assert_eq!(read(JSON, r#"{"more":{}}"#), Err(ParameterError::Nested));
        assert_eq!(read(JSON, "[]"), Err(ParameterError::Malformed));
        assert_eq!(read(JSON, "refresh_token=a"), Err(ParameterError::Malformed));
        assert_eq!(read(Some("text/plain"), "refresh_token=a"), Err(ParameterError::MediaType));
        assert_eq!(read(Some(""), "refresh_token=a"), Err(ParameterError::MediaType));
    }
}
