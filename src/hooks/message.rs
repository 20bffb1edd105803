//! What a hook is told: one line of JSON on its standard input.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::outcome::{Failure, OutcomeKind};
use crate::profile::{HookEvent, ProfileName};

/// What has happened. It holds no secret, so it may wait in a file until the hook before it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HookMessage {
    pub event: HookEvent,
    pub profile: ProfileName,
    pub provider: String,
    pub outcome: OutcomeKind,
    pub generation: Generation,
    pub expires_at: Option<Timestamp>,
    pub retry_at: Option<Timestamp>,
    pub error: Option<Failure>,
    pub host: String,
    pub at: Timestamp,
    /// Of [`HookEvent::LoginDue`]: when the refresh token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_by: Option<Timestamp>,
}

/// A message with the access token beside it.
#[derive(Serialize)]
struct WithToken<'a> {
    #[serde(flatten)]
    message: &'a HookMessage,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
}

impl HookMessage {
    /// The line that a hook reads.
    pub(super) fn line(&self, access_token: Option<&str>) -> Zeroizing<Vec<u8>> {
        let told = WithToken { message: self, access_token };
        // Room for all of it from the start, so that no copy is left behind.
        let mut line = Zeroizing::new(Vec::with_capacity(8 * 1024 + 2 * access_token.map_or(0, str::len)));
        // Writing to memory what has text for keys does not fail.
        let _infallible = serde_json::to_writer(&mut *line, &told);
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::ErrorKind;

    fn message(event: HookEvent) -> HookMessage {
        HookMessage {
            event,
            profile: "work".parse().unwrap(),
            provider: "acme".into(),
            outcome: OutcomeKind::NeedsLogin,
            generation: Generation::new(7),
            expires_at: Some(Timestamp::from_secs(1_790_000_000)),
            retry_at: None,
            error: Some(Failure::new(ErrorKind::Lost, "gone\nforever").with_hint("sign in")),
            host: "laptop".into(),
            at: Timestamp::from_secs(1_790_000_001),
            login_by: None,
        }
    }

    #[test]
    fn message_is_one_line_with_the_members_of_the_contract() {
        let line = message(HookEvent::NeedsLogin).line(None);
        assert_eq!(
            std::str::from_utf8(&line).unwrap(),
            "{\"event\":\"needs_login\",\"profile\":\"work\",\"provider\":\"acme\",\"outcome\":\"needs_login\",\
             \"generation\":7,\"expires_at\":\"2026-09-21T14:13:20Z\",\"retry_at\":null,\
             \"error\":{\"kind\":\"lost\",\"message\":\"gone\\nforever\",\"hint\":\"sign in\"},\
             \"host\":\"laptop\",\"at\":\"2026-09-21T14:13:21Z\"}\n"
        );
    }

    #[test]
    fn access_token_and_end_of_the_login_stand_beside_it() {
        let due = HookMessage { login_by: Some(Timestamp::from_secs(0)), ..message(HookEvent::LoginDue) };
        let line = due.line(Some("at"));
        let told: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&told["access_token"], &told["login_by"]), (&"at".into(), &"1970-01-01T00:00:00Z".into()));
        let kept: HookMessage = serde_json::from_slice(&serde_json::to_vec(&due).unwrap()).unwrap();
        assert_eq!(kept, due);
    }
}
