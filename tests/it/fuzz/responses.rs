//! The reader of token responses under damaged answers: it never panics, and never loses or alters a refresh token.

use std::sync::LazyLock;

use keepalive::clock::{Moment, Timestamp};
use keepalive::credential::secret::RefreshToken;
use keepalive::credential::{Binding, Generation, content_coding};
use keepalive::profile::Provider;
use keepalive::provider::classify;
use keepalive::provider::classify::Refusal;
use keepalive::store::disk::sealed_content::{ResponseContent, SealedGrant, SealedResponse, SecretText};
use serde_json::Value;

use super::super::support::auth_server::Issued;
use super::super::support::recorded_responses::{RecordedResponse, recorded_responses};
use super::random_damage::{self, Rng};

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const SENT: &str = "sent-token";
const NEW: &str = "new-token-0123456789";

/// Words that a reader may stumble over.
const WORDS: [&[u8]; 34] = [
    b"\"refresh_token\":\"other-token\"",
    b"\"refresh_token\":null",
    b"\"refresh_token\"",
    b"\"access_token\":",
    b"\"error\":\"invalid_grant\",",
    b"\"expires_in\":1e999,",
    b"\"expires_at\":-99999999999999999999,",
    b"\"earliest_refresh_at\":9e18,",
    b"refresh_token=",
    b"&error=x&",
    b"NaN",
    b"\\ud83d",
    b"\\ud83d\\ude00",
    b"\\u0000",
    b"\\",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"]",
    b",",
    b":",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\x1f\x8b\x08",
    b"\xc3\x28",
    b"\xf0\x9f\x98\x80",
    b"\r\n",
    b"\0",
    b"<html>",
    b"9223372036854775808",
    b"-0.0e-0",
];

const NAMES: [&str; 19] = [
    "access_token",
    "refresh_token",
    "refreshToken",
    "token_type",
    "expires_in",
    "expires_at",
    "expired_in",
    "created_at",
    "scope",
    "id_token",
    "refresh_expires_in",
    "earliest_refresh_at",
    "error",
    "error_description",
    "errors",
    "ok",
    "code",
    "data",
    "message",
];

const STATUSES: [u16; 16] = [200, 200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 429, 500, 503, 999];

const CODINGS: [Option<&str>; 8] =
    [None, None, Some("gzip"), Some("deflate"), Some("br"), Some("br, gzip"), Some("identity"), Some("zstd")];

static CORPUS: LazyLock<Vec<RecordedResponse>> = LazyLock::new(|| {
    let small = |mut shape: RecordedResponse| {
        shape.total = shape.total.map(|_| 4096);
        shape
    };
    recorded_responses().into_iter().map(small).collect()
});

fn issued() -> Issued {
    Issued { access: "access-token".into(), refresh: NEW.into(), sent: SENT.into() }
}

fn answer(status: u16, coding: Option<&str>, body: &[u8], is_complete: bool) -> SealedResponse {
    SealedResponse {
        status,
        content_type: None,
        content_encoding: coding.map(str::to_owned),
        retry_after: None,
        body: SealedResponse::encode_body(body),
        is_complete,
        sent_refresh_token: SecretText(SENT.into()),
        sent_at: Moment { wall: NOW, boot_id: "b".into(), uptime_ms: 0 },
        send_count: 1,
        binding: Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() },
        previous_grant: SealedGrant {
            access_token: None,
            validity: None,
            token_type: "Bearer".into(),
            scope: None,
            id_token: None,
            login_by: None,
            not_before: None,
        },
        default_lifetime_ms: 3_600_000,
        max_lifetime_ms: None,
        cooldown_ms: 0,
        further_secrets: Vec::new(),
    }
}

/// What holds of whatever was read.
fn check(reading: &ResponseContent, status: u16) {
    match reading {
        ResponseContent::Granted { credential, is_rotated, .. } => {
            assert_eq!(credential.generation, Generation::new(9));
            assert_eq!(*is_rotated, credential.refresh != token(SENT));
            assert_eq!(credential.grant.access.is_some(), credential.grant.validity.is_some());
            let life = credential.validity().map_or(0, |v| v.lifetime_ms);
            assert!(life <= 400 * 86_400_000, "{life}");
            let end = credential.validity().map(|v| v.expires_at());
            assert!(credential.grant.not_before.is_none_or(|at| end.is_none_or(|end| at <= end)));
        }
        ResponseContent::Denied(denied) => {
            let texts = [Some(&denied.code), denied.description.as_ref()];
            for text in texts.into_iter().flatten() {
                assert!(text.chars().count() <= 200 && !text.chars().any(char::is_control), "r38: {text:?}");
            }
            let error = Some(denied);
            let refusal = Refusal { status, content_type: None, body: b"", error, was_granted_before: true };
            classify::classify(&refusal, &Provider::named("acme"));
        }
        ResponseContent::Unreadable | ResponseContent::TooLarge => {}
    }
}

fn token(text: &str) -> RefreshToken {
    RefreshToken::new(text).unwrap()
}

/// A body within the cap that is JSON and has a refresh token never loses it (rule 16).
fn no_token_is_lost(answer: &SealedResponse, body: &[u8], reading: &ResponseContent) {
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body) else { return };
    let Some(told) = members.get("refresh_token").and_then(Value::as_str) else { return };
    let is_plain = matches!(answer.content_encoding.as_deref(), None | Some("identity" | "zstd"));
    let is_usable = !told.trim().is_empty() && told != SENT && (200..300).contains(&answer.status);
    // Where a body was cut just at the limit, how much more there was is unknown.
    let is_within_the_cap = body.len() < content_coding::MAX_BODY_BYTES
        || (answer.is_complete && body.len() == content_coding::MAX_BODY_BYTES);
    if !is_plain || !is_usable || !is_within_the_cap {
        return;
    }
    let shown = || members.iter().map(|(k, v)| format!("{k:.40}: {v:.40}, ")).take(20).collect::<String>();
    match reading {
        ResponseContent::Granted { credential, .. } => {
            assert!(credential.refresh == token(told), "another token: {}", shown())
        }
        other => panic!("the token is lost: {other:?} of {}", shown()),
    }
}

/// A damaged answer, and what was made of it.
fn damaged(rng: &mut Rng) {
    let shape = &CORPUS[rng.below(CORPUS.len())];
    let mut shape = shape.clone();
    match (rng.below(3), serde_json::from_str::<Value>(&shape.body)) {
        (0, Ok(mut value)) => {
            random_damage::members(rng, &mut value, &NAMES);
            shape.body = value.to_string();
        }
        // Packed after it was damaged.
        (1, _) if shape.encoded.iter().any(|coding| coding != "latin1" && coding != "br") => {
            shape.body = random_damage::text(rng, &shape.body, &WORDS);
        }
        _ => {}
    }
    let mut body = shape.encoded_body(&issued(), NOW);
    if rng.once_in(2) {
        random_damage::bytes(rng, &mut body, &WORDS);
    }
    if rng.once_in(2000) {
        // As long as it may be, of one word: what grows faster than its input shows itself.
        let word = rng.pick(&WORDS);
        let at = rng.below(body.len() + 1);
        let room = (content_coding::MAX_BODY_BYTES - body.len()) / word.len();
        body.splice(at..at, word.repeat(room));
    }
    let status = if rng.once_in(2) { shape.status } else { STATUSES[rng.below(STATUSES.len())] };
    let named = shape.content_encoding();
    let coding = if rng.once_in(2) { named.as_deref() } else { CODINGS[rng.below(CODINGS.len())] };
    let answer = answer(status, coding, &body, !rng.once_in(4));
    let reading = answer.parse(Generation::new(9));
    check(&reading, status);
    no_token_is_lost(&answer, &body, &reading);
    if rng.once_in(16) {
        let sealed: SealedResponse = serde_json::from_slice(&serde_json::to_vec(&answer).unwrap()).unwrap();
        assert_eq!(format!("{:?}", sealed.parse(Generation::new(9))), format!("{reading:?}"), "read twice");
    }
}

/// A sound answer that was cut anywhere: the whole refresh token, or none.
fn cut(rng: &mut Rng) {
    let granted: Vec<_> = CORPUS.iter().filter(|s| s.is_granted() && s.keeps(&issued()) == NEW).collect();
    let shape = granted[rng.below(granted.len())];
    let mut body = shape.encoded_body(&issued(), NOW);
    body.truncate(rng.below(body.len()));
    let named = shape.content_encoding();
    match answer(200, named.as_deref(), &body, false).parse(Generation::new(9)) {
        ResponseContent::Granted { credential, .. } => {
            // The member that is written twice has another value first.
            let is_whole = credential.refresh == token(NEW) || shape.name == "a member written twice";
            assert!(is_whole, "{}: a part of a token, or the old one, of {body:?}", shape.name);
        }
        ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge => {}
    }
}

/// Rule 16.
#[test]
fn damaged_response_keeps_its_refresh_token_unaltered() {
    super::run("responses", 30_000, damaged);
}

/// Rule 16.
#[test]
fn truncated_response_yields_no_partial_refresh_token() {
    super::run("cut responses", 10_000, cut);
}
