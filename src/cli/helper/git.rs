//! The protocol of git's credential helpers, gitcredentials(7) and git-credential(1).

use super::session::{HelperReply, Served, ServedToken};
use crate::credential::secret::AccessToken;
use crate::hosts::ServerName;
use crate::profile::GitAuth;

/// What git says of the credential that it wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GitRequest {
    protocol: String,
    host: String,
    username: Option<String>,
    /// What a server has rejected, where git says so.
    shown: Vec<AccessToken>,
    /// Git takes a credential with a scheme of its own, since 2.46.
    takes_authtype: bool,
}

impl GitRequest {
    /// Reads `key=value` lines up to an empty one. What is unknown is left out, as git wants it.
    pub(super) fn parse(text: &str) -> Self {
        let mut request = Self::default();
        for (key, value) in text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once('=')) {
            match key {
                "protocol" => value.clone_into(&mut request.protocol),
                "host" => value.clone_into(&mut request.host),
                "password" | "credential" => request.shown.extend(AccessToken::new(value)),
                "username" => request.username = Some(value.to_owned()),
                "capability[]" => request.takes_authtype |= value == "authtype",
                _ => {}
            }
        }
        request
    }

    pub(super) fn servers(&self) -> Vec<ServerName> {
        ServerName::of_parts(&self.protocol, &self.host).into_iter().collect()
    }

    /// The tokens that came with `erase`, which a server has rejected.
    pub(super) fn shown(&self) -> &[AccessToken] {
        &self.shown
    }

    /// The answer to `get`. After a failure git must ask no other helper and no person: those would not know the token.
    pub(super) fn answer(&self, served: Served) -> HelperReply {
        match served {
            Served::Token(served) => HelperReply::of_text(self.credential(&served)),
            Served::NoMatch => HelperReply::silent(),
            Served::Failed(none) => {
                HelperReply { stdout: "quit=1\n".into(), error: Some(none.failure), status: none.status }
            }
        }
    }

    fn credential(&self, served: &ServedToken) -> String {
        let token = &served.token.access_token;
        let mut text = String::new();
        if self.takes_authtype && served.settings.git_auth() == GitAuth::Bearer {
            text.push_str(&format!("capability[]=authtype\nauthtype=Bearer\ncredential={token}\nephemeral=1\n"));
        }
        // An older git asks a person for a password if there is no more than a bearer.
        let username = self.username.as_deref().unwrap_or(served.settings.git_username());
        text.push_str(&format!("username={username}\npassword={token}\n"));
        if let Some(end) = served.expires_unix() {
            text.push_str(&format!("password_expiry_utc={end}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::samples::{refused, served};
    use super::*;
    use crate::cli::output::CommandStatus;
    use crate::profile::ConsumerSettings;

    const REQUEST: &str = "capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=git.acme.example:8443\n\
                           wwwauth[]=Basic realm=\"x\"\n\nusername=after the end\n";

    #[test]
    fn request_ends_at_the_empty_line() {
        let request = GitRequest::parse(REQUEST);
        assert!(request.takes_authtype && request.username.is_none());
        assert_eq!(request.servers(), [ServerName::of_url("https://git.acme.example:8443").unwrap()]);
        assert!(GitRequest::parse("protocol=ssh\nhost=git.acme.example\n").servers().is_empty());
        assert!(GitRequest::parse("").servers().is_empty());
    }

    #[test]
    fn password_is_the_token_and_its_end_is_told() {
        let answer = |request: &str, settings| GitRequest::parse(request).answer(served("at", settings, 60)).stdout;
        assert_eq!(
            answer(REQUEST, ConsumerSettings::default()),
            "username=oauth2\npassword=at\npassword_expiry_utc=1790000060\n"
        );
        let settings = ConsumerSettings { git_username: Some("x-access-token".into()), ..ConsumerSettings::default() };
        assert!(answer("", settings.clone()).starts_with("username=x-access-token\n"));
        assert!(answer("username=me\n", settings).starts_with("username=me\n"));
    }

    #[test]
    fn bearer_is_given_beside_the_password_where_git_knows_it() {
        let settings = ConsumerSettings { git_auth: Some(GitAuth::Bearer), ..ConsumerSettings::default() };
        let answer = |request: &str| GitRequest::parse(request).answer(served("at", settings.clone(), 60)).stdout;
        let bearer =
            "capability[]=authtype\nauthtype=Bearer\ncredential=at\nephemeral=1\nusername=oauth2\npassword=at\n";
        assert!(answer(REQUEST).starts_with(bearer));
        assert!(!answer("protocol=https\nhost=x\n").contains("authtype"));
    }

    #[test]
    fn end_in_the_past_is_not_told() {
        let answer = GitRequest::parse(REQUEST).answer(served("at", ConsumerSettings::default(), 0));
        assert!(!answer.stdout.contains("password_expiry_utc"));
    }

    #[test]
    fn unknown_host_gets_nothing_and_a_failure_ends_the_search() {
        let request = GitRequest::parse(REQUEST);
        let none = request.answer(Served::NoMatch);
        assert!(none.stdout.is_empty() && none.error.is_none() && none.status == CommandStatus::Ok);
        let failed = request.answer(refused("work needs a login"));
        assert_eq!((failed.stdout.as_str(), failed.status), ("quit=1\n", CommandStatus::NeedsLogin));
        assert_eq!(failed.error.unwrap().message, "work needs a login");
    }
}
