//! What every helper does with the machine: it finds the profiles, chooses the one that serves a server, and gets its token.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::choice::{Candidate, Choice, choose};
use crate::access::setup::{self, Setup};
use crate::cli::GlobalArgs;
use crate::cli::obtain::{NoToken, OwnFlights, TokenWish, check_carriable, obtain};
use crate::cli::output::{CommandStatus, Output};
use crate::cli::warnings::tell_news;
use crate::clock::Timestamp;
use crate::credential::secret::AccessToken;
use crate::engine::access_token::TokenOutput;
use crate::engine::rejected_token::RejectionReport;
use crate::events;
use crate::hosts::{HostPattern, ServerName};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{ConsumerSettings, ProfileName};

/// What a helper answers with.
pub(super) struct HelperReply {
    pub stdout: String,
    /// Told on stderr, in one line.
    pub error: Option<Failure>,
    pub status: CommandStatus,
}

impl HelperReply {
    pub(super) fn of_text(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), error: None, status: CommandStatus::Ok }
    }

    pub(super) fn silent() -> Self {
        Self::of_text("")
    }
}

/// A token for a server, and how its profile wants it handed out.
#[derive(Debug)]
pub(super) struct ServedToken {
    pub token: TokenOutput,
    pub settings: ConsumerSettings,
    /// When it is handed out.
    pub now: Timestamp,
}

impl ServedToken {
    /// Seconds since 1970 at which it ends; `None`: not known, or so near that a program would drop the token.
    pub(super) fn expires_unix(&self) -> Option<i64> {
        let end = self.token.expires_at.map(|at| at.as_millis() / 1000);
        end.filter(|end| *end > self.now.as_millis() / 1000)
    }
}

/// How a request for a server's token ended.
#[derive(Debug)]
pub(super) enum Served {
    Token(Box<ServedToken>),
    /// No profile may be used there.
    NoMatch,
    /// No profile is known to serve it, but what could tell has mistakes.
    Unsure(NoToken),
    Failed(NoToken),
}

/// One run of a helper.
pub(super) struct HelperSession<'a> {
    setup: Result<Setup, BrokenSetup>,
    /// The one profile that may be used.
    named: Option<ProfileName>,
    /// How long the program at the other end waits.
    budget: Duration,
    out: &'a Output,
    /// Waited for when the answer is out.
    own_flights: Mutex<Vec<OwnFlights>>,
}

/// A configuration that cannot be used.
pub(super) struct BrokenSetup {
    failure: Failure,
    /// The servers of its profiles, as far as it can be read.
    hosts: Vec<HostPattern>,
}

impl BrokenSetup {
    /// Opens the store, or tells what is wrong.
    pub(super) fn or_setup(global: &GlobalArgs) -> Result<Setup, Self> {
        let hosts = || setup::hosts_of_broken_config(&global.places());
        Setup::new(global.places()).map_err(|failure| Self { failure, hosts: hosts() })
    }
}

/// A token that is handed out lives at least so long.
const MIN_VALID: Duration = Duration::from_secs(60);

impl<'a> HelperSession<'a> {
    pub(super) fn new(
        setup: Result<Setup, BrokenSetup>,
        named: Option<ProfileName>,
        budget: Duration,
        out: &'a Output,
    ) -> Self {
        if let Ok(setup) = &setup {
            setup.mirrors().limit_waits(Some(Duration::ZERO));
        }
        Self { setup, named, budget, out, own_flights: Mutex::default() }
    }

    pub(super) fn named(&self) -> Option<&ProfileName> {
        self.named.as_ref()
    }

    /// Takes another profile as the only one, as a request of cargo names it.
    pub(super) fn set_named(&mut self, name: Option<ProfileName>) {
        self.named = name;
    }

    fn setup(&self) -> Result<&Setup, NoToken> {
        self.setup.as_ref().map_err(|broken| NoToken::of_config(broken.failure.clone()))
    }

    /// The profiles that may be used, with what is set for them.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, NoToken> {
        let setup = self.setup()?;
        let candidate = |name: &ProfileName| {
            let profile = setup.profile(name)?;
            Ok(Candidate { name: name.clone(), settings: profile.consumers })
        };
        if let Some(name) = &self.named {
            let found = candidate(name).map_err(|outcome| {
                let (status, failure) = CommandStatus::of_failed(outcome);
                NoToken { failure, status }
            })?;
            if found.settings.hosts().is_empty() {
                self.out.warn(&no_hosts(name));
            }
            return Ok(vec![found]);
        }
        let names = setup.all_profiles().map_err(|error| {
            let (status, failure) = CommandStatus::of_failed(error.outcome());
            NoToken { failure, status }
        })?;
        // One that cannot be read or lacks its provider has no known hosts; `status` tells of it.
        Ok(names.iter().filter_map(|name| candidate(name).ok()).collect())
    }

    /// The token for a server that a request can mean.
    pub(super) fn serve(&self, servers: &[ServerName]) -> Served {
        let Some(server) = servers.first() else {
            events::helper_declines("the request names no server that a token may be sent to");
            return Served::NoMatch;
        };
        let candidates = match self.candidates() {
            Ok(candidates) => candidates,
            Err(none) if self.may_serve(servers) => return Served::Failed(none),
            Err(none) => return Served::Unsure(none),
        };
        match choose(&candidates, servers) {
            Choice::None => {
                events::helper_declines(&format!("{server} is among the hosts of no profile"));
                Served::NoMatch
            }
            Choice::Several(names) => Served::Failed(NoToken::of_config(ambiguous(server, &names))),
            Choice::One(candidate) => {
                events::helper_serves(&candidate.name, server);
                match self.token(&candidate.name) {
                    Ok((token, now)) => {
                        let settings = candidate.settings.clone();
                        Served::Token(Box::new(ServedToken { token, settings, now }))
                    }
                    Err(none) => Served::Failed(none),
                }
            }
        }
    }

    /// Whether a server is one of ours, as far as a configuration with mistakes can be read. A profile that does not exist
    /// serves none.
    fn may_serve(&self, servers: &[ServerName]) -> bool {
        let hosts = match &self.setup {
            Err(broken) => broken.hosts.clone(),
            Ok(_) if self.named.is_some() => Vec::new(),
            Ok(setup) => {
                let profiles = setup.config.profile_names().filter_map(|name| setup.config.profile(name, None).ok());
                profiles.flat_map(|profile| profile.consumers.hosts().to_vec()).collect()
            }
        };
        servers.iter().any(|server| hosts.iter().any(|host| host.matches(server)))
    }

    /// A server has rejected a token that was shown to it. If it is the newest one of the server's profile, one refresh is made,
    /// unless one was made for that reason a moment ago. What fails is no concern of the program, which waits for no answer.
    pub(super) fn report_rejected(&self, servers: &[ServerName], shown: &[AccessToken]) {
        let (Ok(candidates), Ok(setup)) = (self.candidates(), self.setup()) else { return };
        let Choice::One(candidate) = choose(&candidates, servers) else { return };
        let wish = TokenWish {
            profile: candidate.name.clone(),
            min_valid: Duration::ZERO,
            timeout: self.budget,
            id_token: false,
            rejection: None,
        };
        let Ok(current) = obtain(setup, &wish, &|| {}) else { return };
        if !shown.iter().any(|shown| shown.expose() == current.token.access_token) {
            return;
        }
        let report = RejectionReport::proven(current.token.generation);
        let (_, own_flights) = current.into_parts();
        self.keep(own_flights);
        if let Ok(newer) = obtain(setup, &TokenWish { rejection: Some(report), ..wish }, &|| {}) {
            self.keep(newer.into_parts().1);
        }
    }

    /// The token of a profile, in time for the program that waits.
    pub(super) fn token(&self, profile: &ProfileName) -> Result<(TokenOutput, Timestamp), NoToken> {
        let setup = self.setup()?;
        let wish = TokenWish {
            profile: profile.clone(),
            min_valid: MIN_VALID,
            timeout: self.budget,
            id_token: false,
            rejection: None,
        };
        let obtained = obtain(setup, &wish, &|| {})?;
        check_carriable(&obtained.token.access_token)
            .map_err(|failure| NoToken { failure, status: CommandStatus::Failed })?;
        obtained.warn(profile, self.out);
        let (token, own_flights) = obtained.into_parts();
        self.keep(own_flights);
        Ok((token, setup.clock.now().wall))
    }

    fn keep(&self, own_flights: OwnFlights) {
        self.own_flights.lock().unwrap_or_else(PoisonError::into_inner).push(own_flights);
    }

    /// Completes the refreshes of this run; the program at the other end has its answer.
    pub(super) fn land(&self) {
        let own_flights = std::mem::take(&mut *self.own_flights.lock().unwrap_or_else(PoisonError::into_inner));
        if let (false, Ok(setup)) = (own_flights.is_empty(), &self.setup) {
            drop(own_flights);
            tell_news(setup, self.out);
        }
    }

    /// Whether there is such a profile at all.
    pub(super) fn knows(&self, profile: &ProfileName) -> bool {
        self.setup().is_ok_and(|setup| {
            setup.all_profiles().is_ok_and(|all| all.contains(profile)) || setup.config.knows(profile)
        })
    }

    pub(super) fn tell(&self, failure: &Failure) {
        self.out.error_line(failure);
    }
}

fn no_hosts(name: &ProfileName) -> String {
    format!(
        "{name} serves no host: in [profile.{}], write hosts = [\"HOST\"]",
        crate::config::section_key(name.as_str())
    )
}

fn ambiguous(server: &ServerName, names: &[&ProfileName]) -> Failure {
    let listed = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and ");
    let first = names.first().map_or("PROFILE", |name| name.as_str());
    Failure::new(ErrorKind::Config, format!("the profiles {listed} both serve {server}")).with_hint(format!(
        "name one in the call of the helper, as `keepalive helper git {first}`, or write hosts in their sections so that \
         one serves it"
    ))
}

/// Ends of requests, for the tests of the protocols.
#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub(in crate::cli::helper) fn served(token: &str, settings: ConsumerSettings, lives: i64) -> Served {
        let now = Timestamp::from_secs(1_790_000_000);
        let token = TokenOutput {
            access_token: token.into(),
            token_type: "Bearer".into(),
            expires_at: Some(Timestamp::from_secs(1_790_000_000 + lives)),
            assumed: false,
            scope: None,
            generation: crate::credential::Generation::NONE,
            id_token: None,
        };
        Served::Token(Box::new(ServedToken { token, settings, now }))
    }

    pub(in crate::cli::helper) fn refused(message: &str) -> Served {
        let failure = Failure::new(ErrorKind::NoCredential, message).with_hint("keepalive login work");
        Served::Failed(NoToken { failure, status: CommandStatus::NeedsLogin })
    }
}
