//! The protocol of Bazel's credential helpers, by its specification (EngFlow/credential-helper-spec, spec.md).

use serde_json::{Value, json};

use super::session::{HelperReply, Served};
use crate::cli::output::CommandStatus;
use crate::clock::Timestamp;
use crate::hosts::ServerName;
use crate::outcome::{ErrorKind, Failure};

/// The server that Bazel wants headers for. `Err`: the request is not one.
pub(super) fn servers(request: &str) -> Result<Vec<ServerName>, Failure> {
    let document = serde_json::from_str::<Value>(request).ok();
    match document.as_ref().and_then(|request| request.get("uri")?.as_str()) {
        Some(uri) => Ok(ServerName::of_url(uri).into_iter().collect()),
        None => {
            Err(Failure::new(ErrorKind::Input, "the request has no uri").with_hint("Bazel writes it to stdin, as JSON"))
        }
    }
}

/// The answer to `get`. Without a profile there are no headers, and Bazel goes on without.
pub(super) fn answer(served: Served) -> HelperReply {
    match served {
        Served::Token(served) => {
            let mut answer = json!({
                "headers": {"Authorization": [format!("Bearer {}", served.token.access_token)]},
            });
            if let (Some(at), Some(_)) = (served.token.expires_at, served.expires_unix()) {
                answer["expires"] = json!(Timestamp::to_the_second(at));
            }
            HelperReply::of_text(format!("{answer}\n"))
        }
        Served::NoMatch => HelperReply::of_text("{\"headers\":{}}\n"),
        Served::Failed(none) | Served::Unsure(none) => failed(none.failure),
    }
}

pub(super) fn failed(failure: Failure) -> HelperReply {
    HelperReply { stdout: String::new(), error: Some(failure), status: CommandStatus::Failed }
}

#[cfg(test)]
mod tests {
    use super::super::session::samples::{refused, served};
    use super::*;
    use crate::profile::ConsumerSettings;

    #[test]
    fn headers_are_those_of_the_specification() {
        let server = servers(r#"{"uri":"https://cache.acme.example/a"}"#).unwrap();
        assert_eq!(server, [ServerName::of_url("https://cache.acme.example").unwrap()]);
        let answer = answer(served("at", ConsumerSettings::default(), 60)).stdout;
        let expected = json!({"headers": {"Authorization": ["Bearer at"]}, "expires": "2026-09-21T14:14:20Z"});
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), expected);
    }

    #[test]
    fn unknown_host_gets_no_headers_and_a_failure_no_output() {
        assert_eq!(answer(Served::NoMatch).stdout, "{\"headers\":{}}\n");
        let failed = answer(refused("work needs a login"));
        assert!(failed.stdout.is_empty() && failed.error.is_some() && failed.status == CommandStatus::Failed);
        assert!(servers("{}").is_err() && servers("").is_err());
        assert!(servers(r#"{"uri":"grpcs://cache.acme.example"}"#).unwrap().is_empty());
    }
}
