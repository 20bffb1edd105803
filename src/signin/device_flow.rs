//! The device flow (RFC 8628): a person signs in on another device while this process polls at the server's pace.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::credential::error_response::{ErrorResponse, UNKNOWN_ERROR};
use crate::credential::secret::OneTimeSecret;
use crate::credential::server_text::printable;
use crate::outcome::{ErrorKind, Failure};
use crate::provider::classify;
use crate::provider::request_encoding::AuthServerRequest;
use crate::signin::login_events::LoginEvents;
use crate::signin::token_client::{IssuedTokens, TokenClient};
use crate::signin::{GrantResponse, SignInError, denied_error, parse_grant_response};

/// The polling interval, if the server names none (RFC 8628 §3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds (RFC 8628 §3.5).
const SLOW_DOWN_INCREMENT: Duration = Duration::from_secs(5);
/// The longest polling interval that is obeyed.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// The limits for the lifetime of a code: the longest for one without `expires_in`, and the shortest for one with it.
const EXPIRES_IN_LIMITS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30 * 60));

/// The device authorization response (RFC 8628 §3.2).
#[derive(Debug)]
pub struct DeviceAuthorization {
    device_code: OneTimeSecret,
    pub user_code: String,
    /// Where to type the code.
    pub verification_uri: Url,
    /// The verification URL with the code in it, for a QR code.
    pub verification_uri_complete: Option<Url>,
    pub expires_in: Duration,
    interval: Duration,
}

/// What a polling response means.
#[derive(Debug, PartialEq, Eq)]
enum PollDecision {
    After(Duration),
    Stop,
}

impl TokenClient<'_> {
    /// Asks the server for a code that a person can type elsewhere.
    pub fn authorize_device(&self, endpoint: &Url) -> Result<DeviceAuthorization, SignInError> {
        let answer =
            self.server.request(self.prepared, endpoint, AuthServerRequest::DeviceAuthorization).map_err(|why| {
                let message = format!("cannot get a device code from {endpoint}: {why}");
                SignInError::Unreachable(Failure::new(ErrorKind::Network, message).with_hint("try again"))
            })?;
        let members = members_of(&answer.body);
        let lack = match parse_device_authorization(&members) {
            Ok(invitation) => return Ok(invitation),
            Err(lack) => lack,
        };
        match parse_grant_response(&answer) {
            // Many servers have clients for devices and clients for browsers, and which this one is the user knows.
            Ok(GrantResponse::Denied(d)) => Err(match denied_error(&d, self.prepared) {
                SignInError::Client(f) => SignInError::Client(with_paste_hint(f)),
                SignInError::Config(f) => SignInError::Config(with_paste_hint(f)),
                other => other,
            }),
            Ok(GrantResponse::Granted(_)) | Err(_) => {
                let what = match answer.redirect_host() {
                    Some(host) => format!("a redirect to {host}, which is not followed"),
                    None => format!("no {lack} that can be read"),
                };
                let message = format!("{endpoint} returned {} with {what}", answer.status);
                Err(SignInError::Unreachable(
                    Failure::new(ErrorKind::Server, message).with_hint("try again later, or sign in with --paste"),
                ))
            }
        }
    }

    /// Polls until the person has finished or refused, or the code has expired. `tell` hears of requests that failed.
    pub fn poll(
        &self,
        invitation: &DeviceAuthorization,
        wait: &LoginEvents<'_>,
        tell: &dyn Fn(&str),
    ) -> Result<IssuedTokens, SignInError> {
        let deadline = wait.deadline(invitation.expires_in);
        let mut interval = invitation.interval;
        loop {
            // There is no input to wait for here, so no event is a reason to poll early.
            while wait.next(&deadline, interval)?.is_some() {}
            let asked = self.clock.now();
            let ask = AuthServerRequest::DeviceToken { device_code: &invitation.device_code };
            let unanswered = match self.server.request(self.prepared, &self.prepared.token_endpoint, ask) {
                Ok(answer) => match parse_grant_response(&answer) {
                    Ok(GrantResponse::Granted(granted)) => {
                        return Ok(IssuedTokens { response: granted, requested_at: asked });
                    }
                    // Words without a code, such as a gateway's, do not end the code of this login either.
                    Ok(GrantResponse::Denied(d))
                        if d.code == UNKNOWN_ERROR
                            && poll_code(&d) == PollCode::Other
                            && !classify::refuses_client(&d) =>
                    {
                        format!("the server returned {} {}", answer.status, d.shown())
                    }
                    Ok(GrantResponse::Denied(d)) => match poll_decision(&d, interval) {
                        PollDecision::After(next) => {
                            interval = next;
                            continue;
                        }
                        PollDecision::Stop => return Err(self.final_error(&d)),
                    },
                    // A gateway's page, its redirect or a 5xx does not end the code.
                    Err(SignInError::Config(redirect)) => redirect.message,
                    Err(_) => format!("the server returned {} with an unreadable body", answer.status),
                },
                Err(why) => why,
            };
            // RFC 8628 §3.5: after a connection that failed, ask less often.
            interval = (interval * 2).min(MAX_INTERVAL);
            tell(&unanswered);
        }
    }

    fn final_error(&self, d: &ErrorResponse) -> SignInError {
        match poll_code(d) {
            PollCode::Expired => {
                let message = "the code expired before it was used";
                SignInError::Abandoned(Failure::new(ErrorKind::ExpiredToken, message).with_hint("sign in again"))
            }
            PollCode::Pending | PollCode::SlowDown | PollCode::Trouble | PollCode::Other => {
                denied_error(d, self.prepared)
            }
        }
    }
}

fn with_paste_hint(failure: Failure) -> Failure {
    let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; "));
    failure.with_hint(format!("{hint}if the client does not support the device flow, use --paste"))
}

fn poll_decision(d: &ErrorResponse, interval: Duration) -> PollDecision {
    match poll_code(d) {
        PollCode::Pending => PollDecision::After(interval),
        PollCode::SlowDown => PollDecision::After((interval + SLOW_DOWN_INCREMENT).min(MAX_INTERVAL)),
        PollCode::Trouble => PollDecision::After((interval * 2).min(MAX_INTERVAL)),
        PollCode::Expired | PollCode::Other => PollDecision::Stop,
    }
}

/// The codes of RFC 8628 §3.5, and those of a server in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollCode {
    Pending,
    SlowDown,
    Expired,
    Trouble,
    Other,
}

/// The first code that is known, by its letters: `authorization_pending`, `AuthorizationPending` and
/// `AuthorizationPendingException` are the same.
fn poll_code(d: &ErrorResponse) -> PollCode {
    let of_text = |text: &str| {
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let code = letters.strip_suffix("exception").or_else(|| letters.strip_suffix("error")).unwrap_or(&letters);
        match code {
            "authorizationpending" | "authorisationpending" | "authorizationispending" | "pending" => PollCode::Pending,
            "slowdown" => PollCode::SlowDown,
            "expiredtoken" | "expireddevicecode" | "devicecodeexpired" | "codeexpired" => PollCode::Expired,
            "server" | "servererror" | "temporarilyunavailable" | "internalserver" => PollCode::Trouble,
            _ => PollCode::Other,
        }
    };
    d.texts().map(of_text).find(|code| *code != PollCode::Other).unwrap_or(PollCode::Other)
}

/// The members of a response: JSON, or a form, as some servers write it who do so with their tokens.
fn members_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let form = url::form_urlencoded::parse(body.trim_ascii());
        form.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect()
    })
}

/// `Err`: the member that is missing, or cannot be read.
fn parse_device_authorization(members: &Value) -> Result<DeviceAuthorization, &'static str> {
    // Some servers wrap every response.
    let within = ["data", "result", "response"].iter().filter_map(|name| members.get(name)).find(|v| v.is_object());
    let members = within.filter(|_| members.get("device_code").is_none()).unwrap_or(members);
    let member = |name: &str| members.get(name).or_else(|| members.get(camel_case(name)));
    let text = |name: &str| match member(name)? {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        // A code of digits alone, which was not quoted.
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let page =
        |name: &str| text(name).and_then(|t| Url::parse(&t).ok()).filter(|u| matches!(u.scheme(), "https" | "http"));
    let seconds = |name: &str| {
        let value = member(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).map(Duration::from_secs)
    };
    let (shortest, longest) = EXPIRES_IN_LIMITS;
    Ok(DeviceAuthorization {
        device_code: text("device_code").and_then(OneTimeSecret::new).ok_or("device_code")?,
        user_code: printable(&text("user_code").ok_or("user_code")?),
        // Google's older name for it.
        verification_uri: page("verification_uri").or_else(|| page("verification_url")).ok_or("verification_uri")?,
        verification_uri_complete: page("verification_uri_complete"),
        expires_in: seconds("expires_in").map_or(longest, |s| s.clamp(shortest, longest)),
        interval: seconds("interval").unwrap_or(DEFAULT_INTERVAL).clamp(Duration::from_secs(1), MAX_INTERVAL),
    })
}

/// The name as some servers write it, such as `deviceCode` (AWS).
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        name + &letters.next().map_or(String::new(), |c| c.to_ascii_uppercase().to_string()) + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::credential::redaction::SentSecrets;

    use super::*;

    #[test]
    fn device_authorization_response_is_read_in_known_forms() {
        let google = json!({"device_code": "d", "user_code": "A-B", "verification_url": "https://g.example/d",
                            "expires_in": 1800, "interval": 5});
        let i = parse_device_authorization(&google).unwrap();
        assert_eq!(
            (i.user_code.as_str(), i.verification_uri.as_str(), i.verification_uri_complete),
            ("A-B", "https://g.example/d", None)
        );
        assert_eq!((i.expires_in, i.interval), (Duration::from_secs(1800), Duration::from_secs(5)));
        let spare = json!({"device_code": "d", "user_code": "u\u{1b}[2J", "verification_uri": "https://a.example",
                           "verification_uri_complete": "https://a.example/?c=u", "expires_in": 0, "interval": "0"});
        let i = parse_device_authorization(&spare).unwrap();
        assert_eq!((i.user_code.as_str(), i.verification_uri_complete.is_some()), ("u [2J", true));
        assert_eq!((i.expires_in, i.interval), (Duration::from_secs(10), Duration::from_secs(1)));
        let aws = json!({"deviceCode": "d", "userCode": "A-B", "verificationUri": "https://a.example",
                         "verificationUriComplete": "https://a.example/?c=A-B", "expiresIn": 600, "interval": 1});
        let i = parse_device_authorization(&aws).unwrap();
        assert_eq!((i.user_code.as_str(), i.expires_in), ("A-B", Duration::from_secs(600)));
        assert!(i.verification_uri_complete.is_some());
        for (members, lack) in [
            (json!({"user_code": "u", "verification_uri": "https://a.example"}), "device_code"),
            (json!({"device_code": "d", "verification_uri": "https://a.example"}), "user_code"),
            (
                json!({"device_code": "d", "user_code": "u", "verification_uri": "javascript:alert(1)"}),
                "verification_uri",
            ),
            (json!({"error": "invalid_client"}), "device_code"),
            (Value::Null, "device_code"),
        ] {
            assert_eq!(parse_device_authorization(&members).unwrap_err(), lack, "{members}");
        }
    }

    #[test]
    fn device_response_as_a_form_or_with_a_numeric_code_is_read() {
        for body in [
            "device_code=d&user_code=1234&verification_uri=https%3A%2F%2Fa.example%2F&expires_in=600&interval=2\n",
            r#"{"device_code":"d","user_code":1234,"verification_uri":"https://a.example/","expires_in":600,"interval":2}"#,
        ] {
            let i = parse_device_authorization(&members_of(body.as_bytes())).unwrap();
            assert_eq!((i.user_code.as_str(), i.verification_uri.as_str()), ("1234", "https://a.example/"));
            assert_eq!((i.expires_in, i.interval), (Duration::from_secs(600), Duration::from_secs(2)));
        }
        let wrapped =
            json!({"code": 0, "data": {"device_code": "d", "user_code": "u", "verification_uri": "https://a.example"}});
        assert_eq!(parse_device_authorization(&wrapped).unwrap().user_code, "u");
        assert!(parse_device_authorization(&members_of(b"<html>user_code=1</html>")).is_err());
    }

    #[test]
    fn device_polling_follows_the_pace_of_the_server() {
        let step = |code: &str, secs| {
            poll_decision(&ErrorResponse::new(code, None, &SentSecrets::default()), Duration::from_secs(secs))
        };
        assert_eq!(step("authorization_pending", 5), PollDecision::After(Duration::from_secs(5)));
        assert_eq!(step("AUTHORIZATION_PENDING", 5), PollDecision::After(Duration::from_secs(5)));
        for spelling in ["AuthorizationPending", "AuthorizationPendingException", "authorization-pending"] {
            assert_eq!(step(spelling, 5), PollDecision::After(Duration::from_secs(5)), "{spelling}");
        }
        assert_eq!(step("SlowDownException", 5), PollDecision::After(Duration::from_secs(10)));
        assert_eq!(step("slow_down", 5), PollDecision::After(Duration::from_secs(10)));
        assert_eq!(step("Slow_Down", 5), PollDecision::After(Duration::from_secs(10)));
        assert_eq!(step("slow_down", 59), PollDecision::After(MAX_INTERVAL));
        for over in ["access_denied", "expired_token", "invalid_grant"] {
            assert_eq!(step(over, 5), PollDecision::Stop);
        }
    }
}
