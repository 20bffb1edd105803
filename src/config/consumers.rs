//! The keys that say how a profile's token is handed to other programs. A built-in provider may have them, too.

use super::error::{ValueError, quoted};
use super::section::Section;
use super::values;
use crate::hosts::{BadHostPattern, HostPattern};
use crate::profile::{ConsumerSettings, GitAuth, is_variable_name};

const GIT_AUTHS: &[(&str, GitAuth)] = &[("basic", GitAuth::Basic), ("bearer", GitAuth::Bearer)];

/// Reads what is there; mistakes are noted.
pub(super) fn read(section: &Section<'_>) -> ConsumerSettings {
    ConsumerSettings {
        hosts: section.read("hosts", |e| e.list(host)),
        git_username: section.read("git_username", |e| e.parse(user_name)),
        git_auth: section.read("git_auth", |e| e.choice(GIT_AUTHS)),
        docker_username: section.read("docker_username", |e| e.parse(docker_user_name)),
        cargo_scheme: section.read("cargo_scheme", |e| e.parse(scheme)),
        env: section.read("env", |e| e.parse(variable)),
    }
}

fn host(text: &str) -> Result<HostPattern, ValueError> {
    text.parse().map_err(|BadHostPattern { message, hint }| {
        ValueError::new(format!("has {}, which {message}", quoted(text))).hint(hint)
    })
}

/// A user name for HTTP Basic (RFC 7617 §2): without a colon, which ends it.
fn user_name(text: &str) -> Result<String, ValueError> {
    match values::visible_ascii(text)? {
        name if name.contains(':') => Err(ValueError::new("cannot contain ':'")),
        name => Ok(name),
    }
}

fn docker_user_name(text: &str) -> Result<String, ValueError> {
    match user_name(text)?.as_str() {
        "<token>" => Err(ValueError::new("cannot be \"<token>\": clients then take the token for a refresh token")
            .hint("leave it out, or write the user name that the registry asks for")),
        name => Ok(name.to_owned()),
    }
}

/// The scheme of an Authorization header (RFC 9110 §11.1), or nothing for a registry that wants the bare token.
fn scheme(text: &str) -> Result<String, ValueError> {
    match text.is_empty() || values::is_header_token(text) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::new(format!("must be the scheme of an Authorization header, not {}", quoted(text)))),
    }
}

fn variable(text: &str) -> Result<String, ValueError> {
    match is_variable_name(text) {
        true => Ok(text.to_owned()),
        false => {
            let message = format!("must name an environment variable, not {}", quoted(text));
            Err(ValueError::new(message).hint("use letters, digits and _, as in env = \"ACME_TOKEN\""))
        }
    }
}
