//! Finds every refresh token in a body, wherever it stands: nested, given twice, or in no form that is a token. (pure)

use serde_json::Value;

use crate::credential::secret::RefreshToken;

/// Every value after the name `refresh_token`, however its words are joined.
#[derive(Debug, Default)]
pub struct RefreshTokenCandidates {
    tokens: Vec<RefreshToken>,
    /// One value is neither text nor a way to say that there is none.
    has_unreadable: bool,
}

const NAMES: [&str; 4] = ["refresh_token", "refreshToken", "RefreshToken", "refresh-token"];

/// A value as a token: text that is not blank, or a whole number, which some servers do not put into quotes. Zero is none.
pub fn parse_token(value: &Value) -> Option<RefreshToken> {
    match value {
        Value::String(text) if !text.trim().is_empty() => RefreshToken::new(text),
        Value::Number(n) if n.as_u64()? > 0 => RefreshToken::new(n.to_string()),
        _ => None,
    }
}

impl RefreshTokenCandidates {
    /// The candidates in a JSON body, complete or not.
    pub fn of(body: &str) -> Self {
        let mut found = Self::default();
        for (at, name) in NAMES.iter().flat_map(|name| body.match_indices(name)) {
            // A mention inside a text has no quote on both sides.
            let Some(quote @ ('"' | '\'')) = body[..at].chars().next_back() else { continue };
            let value =
                body[at + name.len()..].strip_prefix(quote).and_then(|rest| rest.trim_start().strip_prefix(':'));
            if let Some(value) = value {
                found.add(value.trim_start());
            }
        }
        found
    }

    fn add(&mut self, value: &str) {
        // The first value of what follows; the rest is of no interest.
        let value = serde_json::Deserializer::from_str(value).into_iter::<Value>().next().and_then(Result::ok);
        match value {
            Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::String(text)) if text.trim().is_empty() => {}
            Some(Value::Number(n)) if n.as_u64() == Some(0) => {}
            // PHP's form of an empty value.
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(Value::Object(map)) if map.is_empty() => {}
            value => match value.as_ref().and_then(parse_token) {
                Some(token) => self.tokens.push(token),
                None => self.has_unreadable = true,
            },
        }
    }

    /// Whether there is a token other than `sent`, or something that may be one.
    pub fn contains_other_than(&self, sent: &RefreshToken) -> bool {
        self.has_unreadable || self.tokens.iter().any(|token| token != sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(body: &str) -> bool {
        RefreshTokenCandidates::of(body).contains_other_than(&RefreshToken::new("old").unwrap())
    }

    /// Rule 15.
    #[test]
    fn body_with_no_token_or_the_old_one_mentions_no_other() {
        for body in [
            r#"{"access_token":"a"}"#,
            r#"{"refresh_token":null}"#,
            r#"{"refresh_token" : false}"#,
            r#"{"refresh_token":0}"#,
            r#"{"refresh_token":""}"#,
            r#"{"refresh_token":"  "}"#,
            r#"{"refresh_token":[]}"#,
            r#"{"refresh_token": { }}"#,
            r#"{"refresh_token":"old","request":{"refreshToken":"old"}}"#,
            r#"{"refresh_token":"\u006fld"}"#,
            r#"{"refresh_token_expires_in":3600,"message":"\"refresh_token\": granted","grant_types":["refresh_token"]}"#,
            r#"{"message":"refresh_token: granted"}"#,
            "refresh_token",
        ] {
            assert!(!speaks(body), "{body}");
        }
    }

    #[test]
    fn only_nonblank_text_or_a_positive_integer_is_a_token() {
        for none in ["\"\"", "\" \\t\"", "0", "-1", "1.5", "null", "true", "[\"new\"]"] {
            assert!(parse_token(&none.parse().unwrap()).is_none(), "{none}");
        }
        assert!(parse_token(&"1".parse().unwrap()).is_some());
    }

    /// Rule 3.
    #[test]
    fn body_with_another_token_in_any_form_mentions_it() {
        for body in [
            r#"{"refresh_token":"new"}"#,
            r#"{"refresh_token":"new","refresh_token":null}"#,
            r#"{"refresh_token":["new"]}"#,
            r#"{"refresh_token":{"value":"new"}}"#,
            r#"{"refresh_token":1e400}"#,
            r#"{"refresh_token":true}"#,
            r#"{"refresh_token":1001}"#,
            r#"{"refresh_token":-1}"#,
            r#"{"refresh_token":"new"#,
            r#"{"data":{"RefreshToken":"new"}}"#,
            r#"{'refresh-token': 'new'}"#,
        ] {
            assert!(speaks(body), "{body}");
        }
    }
}
