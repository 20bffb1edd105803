//! The device flow (RFC 8628): a person signs in elsewhere while we ask, at the server's pace, whether they are done.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::code::{Counter, Signed};
use super::wait::Wait;
use super::{Said, SignInError, denied, read};
use crate::credential::response::{Denied, printable};
use crate::credential::secret::OneTime;
use crate::outcome::{ErrorKind, Failure};
use crate::provider::wire::Ask;

/// Pause between two questions, if the server names none (RFC 8628 §3.2).
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds (RFC 8628 §3.5).
const SLOWER_BY: Duration = Duration::from_secs(5);
/// No server needs more patience between two questions.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// How long a code lives at most that does not say so, and at least that does.
const LIVES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30 * 60));

/// What the person needs, and what we ask with.
#[derive(Debug)]
pub struct Invitation {
    device_code: OneTime,
    pub user_code: String,
    /// Where to type the code.
    pub uri: Url,
    /// The same with the code in it, for a QR code.
    pub complete: Option<Url>,
    pub lives: Duration,
    interval: Duration,
}

/// What an answer to a question means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Again(Duration),
    Over,
}

impl Counter<'_> {
    /// Asks the server for a code that a person can type elsewhere.
    pub fn invite(&self, endpoint: &Url) -> Result<Invitation, SignInError> {
        let answer = self.server.ask(self.prepared, endpoint, Ask::Device).map_err(|why| {
            let message = format!("cannot get a device code from {endpoint}: {why}");
            SignInError::Unreachable(
                Failure::new(ErrorKind::Network, message).with_hint("nothing was changed; try again"),
            )
        })?;
        let members = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        if let Some(invitation) = invitation(&members) {
            return Ok(invitation);
        }
        match read(&answer) {
            // Many servers have clients for devices and clients for browsers, and which this one is the user knows.
            Ok(Said::Denied(d)) => Err(match denied(&d, &self.prepared.provider) {
                SignInError::Config(f) => {
                    let hint = f.hint.clone().map_or(String::new(), |hint| format!("{hint}; "));
                    SignInError::Config(
                        f.with_hint(format!("{hint}if the client does not support the device flow, use --paste")),
                    )
                }
                other => other,
            }),
            Ok(Said::Granted(_)) | Err(_) => {
                let message = format!("{endpoint} returned {} without a device code", answer.status);
                Err(SignInError::Unreachable(
                    Failure::new(ErrorKind::Server, message).with_hint("try again later, or without --device"),
                ))
            }
        }
    }

    /// Asks until the person is done, says no, or the code has expired. `tell` hears of questions that got no answer.
    pub fn poll(&self, invitation: &Invitation, wait: &Wait<'_>, tell: &dyn Fn(&str)) -> Result<Signed, SignInError> {
        let deadline = wait.deadline(invitation.lives);
        let mut interval = invitation.interval;
        loop {
            // Nobody types here, so whatever comes is no reason to ask early.
            while wait.next(&deadline, interval)?.is_some() {}
            let asked = self.clock.now();
            let ask = Ask::Poll { device_code: &invitation.device_code };
            let unanswered = match self.server.ask(self.prepared, &self.prepared.token_endpoint, ask) {
                Ok(answer) => match read(&answer) {
                    Ok(Said::Granted(granted)) => return Ok(Signed { granted, asked }),
                    Ok(Said::Denied(d)) => match step(&d, interval) {
                        Step::Again(next) => {
                            interval = next;
                            continue;
                        }
                        Step::Over => return Err(self.over(&d)),
                    },
                    // A gateway's page, a 5xx: the code lives on.
                    Err(_) => format!("the server returned {} with an unreadable body", answer.status),
                },
                Err(why) => why,
            };
            // RFC 8628 §3.5: after a connection that failed, ask less often.
            interval = (interval * 2).min(LONGEST_INTERVAL);
            tell(&unanswered);
        }
    }

    fn over(&self, d: &Denied) -> SignInError {
        match d.code.as_str() {
            "expired_token" => {
                let message = "the code expired before it was used";
                SignInError::Abandoned(
                    Failure::new(ErrorKind::ExpiredToken, message).with_hint("nothing was changed; sign in again"),
                )
            }
            _ => denied(d, &self.prepared.provider),
        }
    }
}

fn step(d: &Denied, interval: Duration) -> Step {
    match d.code.as_str() {
        "authorization_pending" => Step::Again(interval),
        "slow_down" => Step::Again((interval + SLOWER_BY).min(LONGEST_INTERVAL)),
        "server_error" | "temporarily_unavailable" => Step::Again((interval * 2).min(LONGEST_INTERVAL)),
        _ => Step::Over,
    }
}

fn invitation(members: &Value) -> Option<Invitation> {
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let page =
        |name: &str| text(name).and_then(|t| Url::parse(t).ok()).filter(|u| matches!(u.scheme(), "https" | "http"));
    let seconds = |name: &str| {
        let value = members.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).map(Duration::from_secs)
    };
    let (shortest, longest) = LIVES;
    Some(Invitation {
        device_code: OneTime::new(text("device_code")?)?,
        user_code: printable(text("user_code")?),
        // Google's older name for it.
        uri: page("verification_uri").or_else(|| page("verification_url"))?,
        complete: page("verification_uri_complete"),
        lives: seconds("expires_in").map_or(longest, |s| s.clamp(shortest, longest)),
        interval: seconds("interval").unwrap_or(USUAL_INTERVAL).clamp(Duration::from_secs(1), LONGEST_INTERVAL),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_invitation_is_read_as_servers_write_it() {
        let google = json!({"device_code": "d", "user_code": "A-B", "verification_url": "https://g.example/d",
                            "expires_in": 1800, "interval": 5});
        let i = invitation(&google).unwrap();
        assert_eq!((i.user_code.as_str(), i.uri.as_str(), i.complete), ("A-B", "https://g.example/d", None));
        assert_eq!((i.lives, i.interval), (Duration::from_secs(1800), Duration::from_secs(5)));
        let spare = json!({"device_code": "d", "user_code": "u\u{1b}[2J", "verification_uri": "https://a.example",
                           "verification_uri_complete": "https://a.example/?c=u", "expires_in": 0, "interval": "0"});
        let i = invitation(&spare).unwrap();
        assert_eq!((i.user_code.as_str(), i.complete.is_some()), ("u [2J", true));
        assert_eq!((i.lives, i.interval), (Duration::from_secs(10), Duration::from_secs(1)));
        for lack in [
            json!({"user_code": "u", "verification_uri": "https://a.example"}),
            json!({"device_code": "d", "user_code": "u", "verification_uri": "javascript:alert(1)"}),
            json!({"error": "invalid_client"}),
            Value::Null,
        ] {
            assert!(invitation(&lack).is_none(), "{lack}");
        }
    }

    #[test]
    fn the_pace_is_the_servers() {
        let step = |code: &str, secs| step(&Denied { code: code.into(), description: None }, Duration::from_secs(secs));
        assert_eq!(step("authorization_pending", 5), Step::Again(Duration::from_secs(5)));
        assert_eq!(step("slow_down", 5), Step::Again(Duration::from_secs(10)));
        assert_eq!(step("slow_down", 59), Step::Again(LONGEST_INTERVAL));
        for over in ["access_denied", "expired_token", "invalid_grant"] {
            assert_eq!(step(over, 5), Step::Over);
        }
    }
}
