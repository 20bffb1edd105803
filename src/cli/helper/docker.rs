//! The protocol of Docker's credential helpers, which podman, skopeo and others speak, too (docker-credential-helpers).

use serde_json::{Map, json};

use super::choice::Candidate;
use super::session::{HelperReply, Served};
use crate::cli::obtain::NoToken;
use crate::cli::output::CommandStatus;
use crate::hosts::ServerName;
use crate::outcome::{ErrorKind, Failure};

/// The words by which clients know that there is no credential, so that they go on without one.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// What the name of a registry can mean: most clients leave the scheme out.
pub(super) fn servers(registry: &str) -> Vec<ServerName> {
    let registry = registry.trim();
    if registry.contains("://") {
        return ServerName::of_url(registry).into_iter().collect();
    }
    ServerName::candidates(registry.split('/').next().unwrap_or_default())
}

/// The answer to `get`.
pub(super) fn answer(registry: &str, served: Served) -> HelperReply {
    match served {
        Served::Token(served) => HelperReply::of_text(format!(
            "{}\n",
            json!({
                "ServerURL": registry.trim(),
                "Username": served.settings.docker_username(),
                "Secret": served.token.access_token,
            })
        )),
        Served::NoMatch => HelperReply { stdout: format!("{NOT_FOUND}\n"), error: None, status: CommandStatus::Failed },
        Served::Failed(none) | Served::Unsure(none) => failed(none.failure),
    }
}

/// Some clients show stdout, and some stderr.
fn failed(failure: Failure) -> HelperReply {
    let stdout = format!("{}\n", failure.in_one_line());
    HelperReply { stdout, error: Some(failure), status: CommandStatus::Failed }
}

/// The answer to `list`: the registries whose names are written out, with their user names.
pub(super) fn list(candidates: Result<Vec<Candidate>, NoToken>) -> HelperReply {
    let candidates = match candidates {
        Ok(candidates) => candidates,
        Err(none) => return failed(none.failure),
    };
    let entries = candidates.iter().flat_map(|candidate| {
        let servers = candidate.settings.hosts().iter().filter_map(|host| host.server());
        servers.map(|server| (server.authority(), candidate.settings.docker_username().into()))
    });
    let listed: Map<String, serde_json::Value> = entries.collect();
    HelperReply::of_text(format!("{}\n", serde_json::Value::Object(listed)))
}

/// The answer to `store`, which `docker login` shows.
pub(super) fn store() -> HelperReply {
    let message = "keepalive stores nothing: it signs in by itself";
    failed(Failure::new(ErrorKind::Usage, message).with_hint("keepalive login PROFILE"))
}

pub(super) fn unknown(verb: &str) -> HelperReply {
    let failure = Failure::new(ErrorKind::Usage, format!("unknown verb {verb:?}"));
    failed(failure.with_hint("a helper of Docker is called with get, list, store or erase"))
}

#[cfg(test)]
mod tests {
    use super::super::session::samples::{refused, served};
    use super::*;
    use crate::profile::ConsumerSettings;

    #[test]
    fn registry_is_read_with_and_without_a_scheme() {
        let read = |text: &str| servers(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(read("reg.example:5000"), ["reg.example:5000"]);
        assert_eq!(read("https://index.docker.io/v1/\n"), ["index.docker.io"]);
        assert_eq!(read("127.0.0.1:5000"), ["127.0.0.1:5000", "http://127.0.0.1:5000"]);
        assert_eq!(read("reg.example/team"), ["reg.example"]);
        assert!(read("").is_empty() && read("reg.example@evil.example").is_empty());
    }

    #[test]
    fn credential_has_the_registry_as_it_was_named() {
        let answer = answer("reg.example:5000", served("at", ConsumerSettings::default(), 60)).stdout;
        let expected = json!({"ServerURL": "reg.example:5000", "Username": "oauth2accesstoken", "Secret": "at"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&answer).unwrap(), expected);
    }

    #[test]
    fn unknown_registry_is_anonymous_and_failures_are_shown() {
        let none = answer("reg.example", Served::NoMatch);
        assert_eq!(none.stdout.trim_end(), NOT_FOUND);
        assert!(none.status == CommandStatus::Failed && none.error.is_none());
        let failed = answer("reg.example", refused("work needs a login"));
        assert_eq!(failed.stdout, "work needs a login; keepalive login work\n");
        assert!(failed.status == CommandStatus::Failed && failed.error.is_some());
        assert!(store().status == CommandStatus::Failed && store().stdout.contains("keepalive stores nothing"));
    }

    #[test]
    fn list_names_single_registries_and_no_token() {
        let hosts = ["reg.example:5000", "*.pkg.acme.example", "git.acme.example"].map(|host| host.parse().unwrap());
        let settings = ConsumerSettings { hosts: Some(hosts.into()), ..ConsumerSettings::default() };
        let reply = list(Ok(vec![Candidate { name: "work".parse().unwrap(), settings }]));
        let expected = json!({"reg.example:5000": "oauth2accesstoken", "git.acme.example": "oauth2accesstoken"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&reply.stdout).unwrap(), expected);
    }
}
