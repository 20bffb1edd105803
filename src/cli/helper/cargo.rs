//! The protocol of cargo's credential providers (the Cargo Book, "Credential Provider Protocol"): one JSON document a line.

use serde_json::{Value, json};

use super::session::Served;
use crate::hosts::ServerName;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{BadProfileName, ProfileName};

/// The first line: the versions of the protocol that are spoken.
pub(super) fn hello() -> Value {
    json!({"v": [1]})
}

/// What cargo asks for in one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CargoRequest {
    Get(IndexRequest),
    Login {
        profile: Option<String>,
    },
    /// Not one that a provider of tokens has anything to do for.
    Other,
    Malformed(&'static str),
}

/// The registry that a token is wanted for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IndexRequest {
    index: String,
    /// What the configuration of cargo says behind the name of this program: the profile.
    arguments: Vec<String>,
}

/// The index of crates.io, as cargo names it. Its tokens are sent to crates.io and not to the server of the index.
const CRATES_IO: [&str; 2] = ["https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];

impl CargoRequest {
    pub(super) fn parse(line: &str) -> Self {
        let Ok(request) = serde_json::from_str::<Value>(line) else { return Self::Malformed("it is not JSON") };
        if request.get("v") != Some(&json!(1)) {
            return Self::Malformed("it has another version than 1");
        }
        let words = request.get("args").and_then(Value::as_array).cloned().unwrap_or_default();
        let arguments: Vec<String> = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        match request.get("kind").and_then(Value::as_str) {
            Some("get") => match request.pointer("/registry/index-url").and_then(Value::as_str) {
                Some(index) => Self::Get(IndexRequest { index: index.to_owned(), arguments }),
                None => Self::Malformed("it names no index"),
            },
            Some("login") => Self::Login { profile: arguments.into_iter().next() },
            Some(_) => Self::Other,
            None => Self::Malformed("it has no kind"),
        }
    }
}

impl IndexRequest {
    /// The profile that cargo's configuration names.
    pub(super) fn profile(&self) -> Option<Result<ProfileName, BadProfileName>> {
        self.arguments.first().map(|name| name.parse())
    }

    /// The server that the token goes to, as far as the index tells.
    ///
    /// A sparse index is a server of the registry itself. One in git may be a repository on a server of anyone's, and names
    /// the registry only inside. So it counts if a profile is named for it: `is_named`.
    pub(super) fn servers(&self, is_named: bool) -> Vec<ServerName> {
        if CRATES_IO.contains(&self.index.as_str()) {
            return ServerName::of_parts("https", "crates.io").into_iter().collect();
        }
        let sparse = self.index.strip_prefix("sparse+");
        let in_git = || Some(self.index.strip_prefix("registry+").unwrap_or(&self.index)).filter(|_| is_named);
        sparse.or_else(in_git).and_then(ServerName::of_url).into_iter().collect()
    }
}

/// The answer to `get`. Cargo sends `token` as the whole value of the Authorization header.
pub(super) fn answer(served: Served) -> Value {
    match served {
        Served::Token(served) => {
            let scheme = served.settings.cargo_scheme();
            let gap = if scheme.is_empty() { "" } else { " " };
            let token = format!("{scheme}{gap}{}", served.token.access_token);
            match served.expires_unix() {
                Some(end) => json!({"Ok": {
                    "kind": "get", "token": token, "cache": "expires", "expiration": end, "operation_independent": true,
                }}),
                None => {
                    json!({"Ok": {"kind": "get", "token": token, "cache": "never", "operation_independent": true}})
                }
            }
        }
        Served::NoMatch => json!({"Err": {"kind": "url-not-supported"}}),
        Served::Failed(none) | Served::Unsure(none) => failed(&none.failure),
    }
}

pub(super) fn failed(failure: &Failure) -> Value {
    let causes: Vec<&str> = failure.hint.as_deref().into_iter().collect();
    json!({"Err": {"kind": "other", "message": failure.message, "caused-by": causes}})
}

/// What `cargo login` is answered.
pub(super) fn login(profile: Option<&str>) -> Failure {
    let message = "keepalive takes no token: it signs in by itself";
    Failure::new(ErrorKind::Usage, message).with_hint(format!("keepalive login {}", profile.unwrap_or("PROFILE")))
}

pub(super) fn malformed(why: &str) -> Failure {
    Failure::new(ErrorKind::Input, format!("the request of cargo cannot be read: {why}"))
}

pub(super) fn not_supported() -> Value {
    json!({"Err": {"kind": "operation-not-supported"}})
}

#[cfg(test)]
mod tests {
    use super::super::session::samples::{refused, served};
    use super::*;
    use crate::profile::ConsumerSettings;

    /// The example of the Cargo Book, with the argument of a configuration.
    const GET: &str = r#"{"v":1,"registry":{"index-url":"sparse+https://reg.acme.example/index/","name":"acme"},"kind":"get","operation":"read","args":["work"]}"#;

    fn get(line: &str) -> IndexRequest {
        match CargoRequest::parse(line) {
            CargoRequest::Get(get) => get,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn request_names_the_index_and_the_profile() {
        let request = get(GET);
        assert_eq!(request.profile(), Some(Ok("work".parse().unwrap())));
        assert_eq!(request.servers(false), [ServerName::of_url("https://reg.acme.example").unwrap()]);
        assert_eq!(CargoRequest::parse(&GET.replace("\"get\"", "\"logout\"")), CargoRequest::Other);
        let login = CargoRequest::Login { profile: Some("work".into()) };
        assert_eq!(CargoRequest::parse(&GET.replace("\"get\"", "\"login\"")), login);
        for wrong in ["", "{}", r#"{"v":2,"kind":"get"}"#, r#"{"v":1,"kind":"get"}"#, r#"{"v":1}"#] {
            assert!(matches!(CargoRequest::parse(wrong), CargoRequest::Malformed(_)), "{wrong}");
        }
    }

    #[test]
    fn index_in_git_counts_only_for_a_named_profile() {
        let of = |index: &str, is_named| {
            let request = IndexRequest { index: index.into(), arguments: Vec::new() };
            request.servers(is_named).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(of("https://github.com/acme/index", false).is_empty());
        assert_eq!(of("https://github.com/acme/index", true), ["github.com"]);
        assert_eq!(of("registry+https://git.acme.example/index", true), ["git.acme.example"]);
        for index in CRATES_IO {
            assert_eq!((of(index, false), of(index, true)), (vec!["crates.io".into()], vec!["crates.io".to_owned()]));
        }
    }

    #[test]
    fn token_has_its_scheme_and_its_end() {
        let with = |scheme: Option<&str>| {
            let settings = ConsumerSettings { cargo_scheme: scheme.map(str::to_owned), ..ConsumerSettings::default() };
            answer(served("at", settings, 60))["Ok"].clone()
        };
        let expected = json!({"kind": "get", "token": "Bearer at", "cache": "expires", "expiration": 1_790_000_060, "operation_independent": true});
        assert_eq!(with(None), expected);
        assert_eq!((&with(Some("Token"))["token"], &with(Some(""))["token"]), (&json!("Token at"), &json!("at")));
    }

    #[test]
    fn failures_have_the_kinds_that_cargo_knows() {
        assert_eq!(answer(Served::NoMatch), json!({"Err": {"kind": "url-not-supported"}}));
        let expected =
            json!({"Err": {"kind": "other", "message": "work needs a login", "caused-by": ["keepalive login work"]}});
        assert_eq!(answer(refused("work needs a login")), expected);
    }
}
