//! How a profile's access token is handed to programs: which servers may get it, and in which form each program wants it.

use crate::hosts::HostPattern;

/// The user name for git where neither the request nor the configuration has one. GitLab and others ask for this one.
const GIT_USERNAME: &str = "oauth2";
/// The user name for container registries: the one of Google's, which other registries accept. `<token>` would make a
/// client take the token for a refresh token.
const DOCKER_USERNAME: &str = "oauth2accesstoken";
/// The scheme of the Authorization header (RFC 6750).
const CARGO_SCHEME: &str = "Bearer";

/// How git authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitAuth {
    /// With a user name, and the token as the password (RFC 7617).
    Basic,
    /// With the token alone (RFC 6750), where git can do that; else as `Basic`.
    Bearer,
}

/// What is set for the consumers of a profile, or built in for a provider; `None`: the usual value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The only servers for which a credential helper answers.
    pub hosts: Option<Vec<HostPattern>>,
    pub git_username: Option<String>,
    pub git_auth: Option<GitAuth>,
    pub docker_username: Option<String>,
    pub cargo_scheme: Option<String>,
    /// The environment variable that `exec` puts the token into.
    pub env: Option<String>,
}

impl ConsumerSettings {
    /// These settings, and `base` for what they leave open.
    #[must_use]
    pub fn over(self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            hosts: self.hosts.or(base.hosts),
            git_username: self.git_username.or(base.git_username),
            git_auth: self.git_auth.or(base.git_auth),
            docker_username: self.docker_username.or(base.docker_username),
            cargo_scheme: self.cargo_scheme.or(base.cargo_scheme),
            env: self.env.or(base.env),
        }
    }

    pub fn hosts(&self) -> &[HostPattern] {
        self.hosts.as_deref().unwrap_or_default()
    }

    pub fn git_username(&self) -> &str {
        self.git_username.as_deref().unwrap_or(GIT_USERNAME)
    }

    pub fn git_auth(&self) -> GitAuth {
        self.git_auth.unwrap_or(GitAuth::Basic)
    }

    pub fn docker_username(&self) -> &str {
        self.docker_username.as_deref().unwrap_or(DOCKER_USERNAME)
    }

    pub fn cargo_scheme(&self) -> &str {
        self.cargo_scheme.as_deref().unwrap_or(CARGO_SCHEME)
    }
}

/// Whether a text can name an environment variable that a shell can use.
pub fn is_variable_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}
