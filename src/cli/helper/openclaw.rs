//! OpenClaw's exec SecretRef: it asks for several secrets by their ids, which are profiles here.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::session::HelperReply;
use crate::cli::obtain::NoToken;
use crate::cli::output::CommandStatus;
use crate::engine::access_token::TokenOutput;
use crate::outcome::{ErrorKind, Failure};

/// What OpenClaw asks for.
#[derive(Debug, Deserialize)]
pub(super) struct SecretRequest {
    #[serde(rename = "protocolVersion")]
    version: u64,
    pub ids: Vec<String>,
}

/// How one id was answered.
pub(super) enum SecretAnswer {
    Token(TokenOutput),
    /// There is no such profile.
    NotFound,
    /// Another profile is the only one that may be used.
    NotNamed,
    /// Its refresh goes on.
    Late,
    Failed(NoToken),
}

impl SecretRequest {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let malformed = |why: String| {
            let hint = "OpenClaw writes protocolVersion 1 and the ids to stdin, as JSON";
            Failure::new(ErrorKind::Input, format!("the request cannot be read: {why}")).with_hint(hint)
        };
        // The parser's words would repeat the request.
        let request: Self = serde_json::from_str(text)
            .map_err(|_| malformed("it is no object with a number protocolVersion and a list ids".into()))?;
        match request.version {
            1 => Ok(request),
            other => Err(malformed(format!("it has the version {other}"))),
        }
    }
}

/// The whole answer. A failure is told for its id, so that the others are still used.
pub(super) fn answer(answers: Vec<(String, SecretAnswer)>) -> HelperReply {
    let (mut values, mut errors) = (Map::new(), Map::new());
    for (id, answer) in answers {
        match answer {
            SecretAnswer::Token(token) => {
                values.insert(id, token.access_token.into());
            }
            SecretAnswer::NotFound => {
                errors.insert(id, error("NOT_FOUND", "keepalive has no such profile"));
            }
            SecretAnswer::NotNamed => {
                errors.insert(id, error("NOT_FOUND", "this helper was given another profile as the only one"));
            }
            SecretAnswer::Late => {
                errors.insert(id, error("TRY_AGAIN", "the refresh takes longer than OpenClaw waits; it goes on"));
            }
            SecretAnswer::Failed(none) => {
                errors.insert(id, error(code(none.status), &none.failure.in_one_line()));
            }
        }
    }
    let mut document = json!({"protocolVersion": 1, "values": values});
    if !errors.is_empty() {
        document["errors"] = errors.into();
    }
    HelperReply::of_text(format!("{document}\n"))
}

fn error(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message})
}

/// Whether waiting can help.
fn code(status: CommandStatus) -> &'static str {
    match status {
        CommandStatus::NeedsLogin => "NEEDS_LOGIN",
        CommandStatus::Config => "CONFIG_ERROR",
        _ => "TRY_AGAIN",
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Served;
    use super::super::session::samples::{refused, served};
    use super::*;
    use crate::profile::ConsumerSettings;

    #[test]
    fn request_is_read_in_its_version_only() {
        let request = |version: u8| format!(r#"{{"protocolVersion":{version},"provider":"k","ids":["xai","work"]}}"#);
        assert_eq!(SecretRequest::parse(&request(1)).unwrap().ids, ["xai", "work"]);
        assert!(SecretRequest::parse(&request(2)).is_err() && SecretRequest::parse("x").is_err());
    }

    #[test]
    fn each_id_has_a_value_or_an_error() {
        let Served::Token(token) = served("at", ConsumerSettings::default(), 60) else { unreachable!() };
        let Served::Failed(none) = refused("work needs a login") else { unreachable!() };
        let reply = answer(vec![
            ("xai".into(), SecretAnswer::Token(token.token)),
            ("work".into(), SecretAnswer::Failed(none)),
            ("other".into(), SecretAnswer::NotFound),
            ("slow".into(), SecretAnswer::Late),
        ]);
        let document: Value = serde_json::from_str(&reply.stdout).unwrap();
        assert_eq!(document["values"], json!({"xai": "at"}));
        let codes = ["work", "other", "slow"].map(|id| document["errors"][id]["code"].as_str().unwrap().to_owned());
        assert_eq!(codes, ["NEEDS_LOGIN", "NOT_FOUND", "TRY_AGAIN"]);
        assert_eq!(reply.status, CommandStatus::Ok);
    }
}
