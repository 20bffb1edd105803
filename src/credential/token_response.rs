//! Reads a token response (RFC 6749 §5) as real servers write it: lenient about form, strict about secrets. (pure)

use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::credential::error_response::{ErrorResponse, parse_error, plain_error};
use crate::credential::expiry::{ExpiryClaims, RefreshTokenEnd};
use crate::credential::lenient_json;
use crate::credential::member_names::member;
use crate::credential::redaction::SentSecrets;
use crate::credential::refresh_token_candidates;
use crate::credential::refresh_token_candidates::RefreshTokenCandidates;
use crate::credential::secret::{AccessToken, RefreshToken};
use crate::credential::server_text::printable;
use crate::credential::time_value;
use crate::credential::time_value::{TimeKind, TimeValue};

/// The longest pause that is obeyed when a server gave no usable access token.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What the body of a response from the token endpoint says.
#[derive(Debug)]
pub enum ParsedResponse {
    /// It carries a token, and must be kept whatever else is wrong with it.
    Granted(Box<TokenResponse>),
    /// It carries an OAuth error and no token.
    Denied(ErrorResponse),
    /// It carries neither.
    Unreadable,
}

/// The members of a successful response that matter, each `None` if absent or unusable.
#[derive(Debug, Default)]
pub struct TokenResponse {
    pub refresh: Option<RefreshToken>,
    pub access: Option<AccessToken>,
    /// An `access_token` member was there, but no HTTP header could carry it.
    pub access_unusable: bool,
    pub token_type: Option<String>,
    pub expiry: ExpiryClaims,
    pub scope: Option<String>,
    pub id_token: Option<AccessToken>,
    /// When the refresh token itself ends, if that is told.
    pub refresh_end: Option<RefreshTokenEnd>,
    pub not_before: Option<Timestamp>,
    /// The error beside the tokens, from servers that send both.
    pub error: Option<ErrorResponse>,
    /// Every other refresh token that the body may hold.
    pub candidates: RefreshTokenCandidates,
}

impl TokenResponse {
    /// Whether this grants more than the request for `sent` contained. Error pages have been seen to echo the request:
    /// the refresh token that was sent, with no access token or with an error, is not a grant but an echo.
    pub fn grants_more_than_echo(&self, sent: &RefreshToken, status: u16) -> bool {
        let is_new = self.refresh.as_ref().is_some_and(|new| new != sent);
        let is_refused = self.error.is_some() && !(is_success(status) && self.access.is_some());
        is_new || ((self.access.is_some() || self.access_unusable) && !is_refused)
    }

    /// The earliest time at which the server wants to be asked again, as far as that can be obeyed: an access token
    /// that ends at `end` must be replaced by then.
    pub fn earliest_refresh(&self, now: Timestamp, end: Option<Timestamp>) -> Option<Timestamp> {
        let latest = end.unwrap_or_else(|| now.plus(MAX_WAIT));
        self.not_before.map(|at| at.min(latest))
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Reads an unpacked response body. `status` is the HTTP status; `is_complete` says that the body ended as announced.
///
/// A body that carries a token counts as granted under any 2xx status. Outside of 2xx it needs both tokens, because
/// error pages have been seen to echo the request. A body that is damaged or cut may have lost its refresh token, so
/// under 2xx it counts only with one.
pub fn parse(status: u16, body: &[u8], is_whole: bool) -> ParsedResponse {
    parse_response(status, body, is_whole, &SentSecrets::default())
}

/// Reads the response to a request that carried `sent`, which no text of the result has.
pub fn parse_response(status: u16, body: &[u8], is_whole: bool, sent: &SentSecrets) -> ParsedResponse {
    let Some(ParsedMembers { members, is_well_formed: is_sound, candidates: mentions }) = parse_members(body, is_whole)
    else {
        let plain = plain_error(body, sent).filter(|_| is_whole && (400..500).contains(&status));
        return plain.map_or(ParsedResponse::Unreadable, ParsedResponse::Denied);
    };
    let denied = parse_error(&members, is_success(status), sent);
    let granted = token_response(&members);
    let (has_refresh, has_access) = (granted.refresh.is_some(), granted.access.is_some());
    let carries = match is_success(status) {
        true if is_sound => has_refresh || has_access || (granted.access_unusable && denied.is_none()),
        true => has_refresh,
        false => has_refresh && has_access,
    };
    match (carries, denied) {
        (true, denied) => {
            ParsedResponse::Granted(Box::new(TokenResponse { error: denied, candidates: mentions, ..granted }))
        }
        (false, Some(denied)) if is_sound || !is_success(status) => ParsedResponse::Denied(denied),
        (false, _) => ParsedResponse::Unreadable,
    }
}

struct ParsedMembers {
    members: Map<String, Value>,
    /// The body was well-formed, so a missing member was not sent.
    is_well_formed: bool,
    candidates: RefreshTokenCandidates,
}

/// The body as members: a JSON object, a form where the server ignored `Accept`, or JSON with faults in it.
fn parse_members(body: &[u8], is_whole: bool) -> Option<ParsedMembers> {
    let utf16 = decode_utf16(body);
    let body = match &utf16 {
        Some(text) => text.as_bytes(),
        None => body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body),
    };
    let text = String::from_utf8_lossy(body);
    let mentions = RefreshTokenCandidates::of(&text);
    if let Ok(value) = serde_json::from_slice(body) {
        return Some(ParsedMembers {
            members: canonical_names(select_object(value)?),
            is_well_formed: true,
            candidates: mentions,
        });
    }
    let (found, is_sound) = match parse_form(text.trim(), is_whole) {
        Some(form) => (form, is_whole),
        None => (lenient_json::parse(&text).and_then(select_object)?, false),
    };
    Some(ParsedMembers { members: canonical_names(found), is_well_formed: is_sound, candidates: mentions })
}

/// Text of a body that begins with a byte order mark of UTF-16.
fn decode_utf16(body: &[u8]) -> Option<String> {
    let from_bytes: fn([u8; 2]) -> u16 = match body.get(..2)? {
        [0xff, 0xfe] => u16::from_le_bytes,
        [0xfe, 0xff] => u16::from_be_bytes,
        _ => return None,
    };
    let units: Vec<u16> = body[2..].chunks_exact(2).map(|pair| from_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}

/// A form: it begins with a name and `=`, and one of the names is ours. Where it was cut, its last member may be too.
fn parse_form(text: &str, is_whole: bool) -> Option<Map<String, Value>> {
    let text = if is_whole { text } else { text.rsplit_once('&')?.0 };
    let first = text.split('=').next().filter(|first| first.len() < text.len())?;
    let is_name = !first.is_empty() && first.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let has_ours = ["access_token=", "refresh_token=", "error="]
        .iter()
        .any(|key| text.starts_with(key) || text.contains(&format!("&{key}")));
    (is_name && has_ours).then(|| {
        url::form_urlencoded::parse(text.as_bytes())
            .map(|(k, v)| (k.into_owned(), Value::String(v.into_owned())))
            .collect()
    })
}

/// The object that matters: of several, the first with a token.
fn select_object(value: Value) -> Option<Map<String, Value>> {
    let objects = match value {
        Value::Array(items) => items,
        other => vec![other],
    };
    let mut objects: Vec<_> = objects
        .into_iter()
        .filter_map(|item| match item {
            Value::Object(members) => Some(flatten_nested(members)),
            _ => None,
        })
        .collect();
    let first = objects.iter().position(|m| has_token(m, "refresh_token") || has_token(m, "access_token")).unwrap_or(0);
    (first < objects.len()).then(|| objects.swap_remove(first))
}

/// The object itself; but where it has no token and one within has both, as in
/// `{"data":{"access_token":…,"refresh_token":…}}`, with the members of that one over its own.
fn flatten_nested(mut outer: Map<String, Value>) -> Map<String, Value> {
    if has_token(&outer, "refresh_token") || has_token(&outer, "access_token") {
        return outer;
    }
    let has_both = |m: &&Map<String, Value>| has_token(m, "refresh_token") && has_token(m, "access_token");
    let within = outer.values().filter_map(Value::as_object);
    let further_in = within.clone().flat_map(Map::values).filter_map(Value::as_object);
    if let Some(found) = within.chain(further_in).find(has_both).cloned() {
        outer.extend(found);
    }
    outer
}

fn has_token(m: &Map<String, Value>, token: &str) -> bool {
    member(m, token).and_then(refresh_token_candidates::parse_token).is_some()
}

/// The names that are read, but for those of times, as RFC 6749 would write them.
const NAMES: [&str; 9] = [
    "access_token",
    "refresh_token",
    "token_type",
    "scope",
    "id_token",
    "earliest_refresh_at",
    "error",
    "error_description",
    "code",
];

/// Adds the proper names of members that are written otherwise: `refreshToken`, `RefreshToken`, `refresh-token`.
fn canonical_names(mut m: Map<String, Value>) -> Map<String, Value> {
    for name in NAMES {
        if let Some(value) = member(&m, name).cloned() {
            m.insert(name.into(), value);
        }
    }
    m
}

fn token_response(m: &Map<String, Value>) -> TokenResponse {
    let access_text = text(m, "access_token");
    let access = access_text.and_then(AccessToken::new);
    TokenResponse {
        access_unusable: access.is_none() && m.get("access_token").is_some_and(|v| !v.is_null()),
        refresh: m.get("refresh_token").and_then(refresh_token_candidates::parse_token),
        token_type: text(m, "token_type").map(printable),
        expiry: ExpiryClaims::of_members(m, access_text),
        scope: scope(m.get("scope")),
        id_token: text(m, "id_token").and_then(AccessToken::new),
        refresh_end: RefreshTokenEnd::of_members(m),
        not_before: match m.get("earliest_refresh_at").map(|value| time_value::read(value, TimeKind::Instant)) {
            Some(TimeValue::Instant(at)) => Some(at),
            _ => None,
        },
        error: None,
        candidates: RefreshTokenCandidates::default(),
        access,
    }
}

fn text<'a>(m: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    m.get(key).and_then(Value::as_str)
}

fn scope(v: Option<&Value>) -> Option<String> {
    match v? {
        Value::String(s) => Some(printable(s)),
        Value::Array(parts) => Some(printable(&parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted_from(body: &str) -> TokenResponse {
        match parse(200, body.as_bytes(), true) {
            ParsedResponse::Granted(g) => *g,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Rule 3.
    #[test]
    fn numeric_refresh_token_is_accepted() {
        let g = granted_from(r#"{"refresh_token":18446744073709551615,"access_token":"a"}"#);
        assert_eq!(g.refresh.unwrap().expose(), "18446744073709551615");
    }

    /// Rule 3.
    #[test]
    fn nonempty_refresh_token_member_wins_over_empty_ones() {
        for body in [
            r#"{"refresh_token":null,"refreshToken":"new","access_token":"a"}"#,
            r#"{"refresh-token":"","refresh_token":"","refreshToken":"new","access_token":"a"}"#,
        ] {
            assert_eq!(granted_from(body).refresh.unwrap().expose(), "new", "{body}");
        }
    }

    #[test]
    fn standard_token_response_is_read() {
        let g = granted_from(
            r#"{"access_token":"a","token_type":"Bearer","expires_in":60,"refresh_token":"r","scope":"x y","id_token":"i"}"#,
        );
        assert_eq!(g.refresh.unwrap().expose(), "r");
        assert_eq!(g.access.unwrap().expose(), "a");
        assert_eq!(g.scope.as_deref(), Some("x y"));
        assert_eq!(g.id_token.unwrap().expose(), "i");
        assert_eq!(g.token_type.as_deref(), Some("Bearer"));
        assert_eq!(g.expiry.lifetimes, [Duration::from_secs(60)]);
    }

    /// Rule 16.
    #[test]
    fn refresh_token_is_found_whatever_else_is_malformed() {
        for body in [
            r#"{"refresh_token":"r"}"#,
            r#"{"refresh_token":"r","access_token":null}"#,
            r#"{"refresh_token":"r","access_token":"a\r\nb","token_type":7,"expires_in":{}}"#,
            r#"{"refresh_token":"r","error":"server_error"}"#,
            r#"{"refresh_token":"r","scope":["a",1]}"#,
            "access_token=a&refresh_token=r&token_type=bearer",
            "\u{feff}{\"refresh_token\":\"r\"}",
        ] {
            let g = granted_from(body);
            assert_eq!(g.refresh.as_ref().map(RefreshToken::expose), Some("r"), "{body}");
        }
        assert!(granted_from(r#"{"refresh_token":"r","access_token":"a\u001b[2J"}"#).access_unusable);
    }

    #[test]
    fn error_code_is_read_in_every_known_form() {
        for (status, body, code) in [
            (400, r#"{"error":"invalid_grant","error_description":"gone"}"#, "invalid_grant"),
            (401, r#"{"error":{"code":"refresh_token_reused","message":"gone"}}"#, "refresh_token_reused"),
            (200, r#"{"error":"bad_refresh_token"}"#, "bad_refresh_token"),
            (200, r#"{"ok":false,"error":"invalid_refresh_token"}"#, "invalid_refresh_token"),
            (200, r#"{"ok":false}"#, "unknown_error"),
            (401, r#"{"code":"refresh_token_expired","message":"x"}"#, "refresh_token_expired"),
            (400, "error=invalid_grant&error_description=x", "invalid_grant"),
            (500, r#"{"error":"server_error","refresh_token":"echo"}"#, "server_error"),
        ] {
            match parse(status, body.as_bytes(), true) {
                ParsedResponse::Denied(d) => assert_eq!(d.code, code, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    /// Rule 15.
    #[test]
    fn only_a_complete_response_may_lack_a_refresh_token() {
        let granted =
            |body: &str, is_whole| matches!(parse(200, body.as_bytes(), is_whole), ParsedResponse::Granted(_));
        assert!(granted(r#"{"access_token":"a"}"#, true));
        assert!(!granted(r#"{"access_token":"a","#, true));
        assert!(granted("access_token=a&expires_in=1", true));
        assert!(!granted("access_token=a&expires_in=1", false));
        assert!(!granted("access_token=a&refresh_token=r", false), "the token itself may be cut");
        assert!(granted("access_token=a&refresh_token=r&", false));
    }

    #[test]
    fn code_that_names_no_error_is_not_an_error() {
        for body in [
            r#"{"code":"0"}"#,
            r#"{"code":"OK","data":{}}"#,
            r#"{"error":{}}"#,
            r#"{"error":false}"#,
            r#"{"errors":[]}"#,
        ] {
            assert!(matches!(parse(200, body.as_bytes(), true), ParsedResponse::Unreadable), "{body}");
        }
    }

    #[test]
    fn response_with_neither_token_nor_error_is_unreadable() {
        for body in ["", "null", "[]", "{}", "<html>access_token=</html>", "{\"access_token\":", "\u{0}\u{1}", "ok"] {
            assert!(matches!(parse(200, body.as_bytes(), true), ParsedResponse::Unreadable), "{body:?}");
        }
        let echo = r#"{"refresh_token":"r"}"#;
        assert!(matches!(parse(500, echo.as_bytes(), true), ParsedResponse::Unreadable));
        let both = r#"{"refresh_token":"r","access_token":"a"}"#;
        assert!(matches!(parse(500, both.as_bytes(), true), ParsedResponse::Granted(_)));
    }

    /// Rule 38.
    #[test]
    fn server_text_cannot_control_the_terminal() {
        let body = format!(r#"{{"error":"x","error_description":"a\u001b[31m\u202eb\n{}"}}"#, "c".repeat(500));
        let ParsedResponse::Denied(d) = parse(400, body.as_bytes(), true) else { panic!() };
        let description = d.description.unwrap();
        assert!(description.starts_with("a [31m b cc"), "{description}");
        assert_eq!(description.chars().count(), 200);
    }

    #[test]
    fn earliest_refresh_is_read() {
        let g = granted_from(r#"{"refresh_token":"r","earliest_refresh_at":1790000500}"#);
        assert_eq!(g.not_before, Some(Timestamp::from_secs(1_790_000_500)));
    }
}
