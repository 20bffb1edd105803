//! Gets an access token: from the daemon if one is running, otherwise from the store. The commands and the library use it.

use std::sync::Arc;
use std::time::Duration;

use crate::access::setup::Setup;
use crate::broker::client::{self, NoAnswer};
use crate::broker::{BrokerRequest, BrokerResponse, DaemonPlaces};
use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::engine::Engine;
use crate::engine::access_token::{TokenOutput, TokenResult};
use crate::engine::rejected_token::{RejectionReport, UnknownGeneration};
use crate::events;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;

/// Which token is wanted, and how long it is waited for.
#[derive(Clone, Debug)]
pub struct TokenWish {
    pub profile: ProfileName,
    pub min_valid: Duration,
    pub timeout: Duration,
    /// With the ID token, too.
    pub id_token: bool,
    /// An API has rejected the token that was had before.
    pub rejection: Option<RejectionReport>,
}

/// A token, and how the refresh before it ended.
#[derive(Debug)]
pub struct FoundToken {
    pub token: TokenOutput,
    pub outcome: OutcomeKind,
    pub warnings: Vec<String>,
}

/// Why there is none.
#[derive(Debug)]
pub struct MissingToken {
    pub failure: Failure,
    pub outcome: OutcomeKind,
    pub retry_at: Option<Timestamp>,
    /// There is no such profile.
    pub is_unknown: bool,
}

/// Whether a running daemon is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DaemonUse {
    /// If there is one for this configuration and state directory; otherwise the store is used.
    #[default]
    Prefer,
    /// The store is always used.
    Never,
    /// Without one there is no token: this process opens no credential and refreshes nothing.
    Only,
}

/// Where tokens come from.
pub struct TokenSource<'a> {
    pub setup: &'a Setup,
    pub daemon: DaemonUse,
    /// The engine of this process, for what no daemon does.
    pub engine: &'a dyn Fn() -> Result<Engine, Outcome>,
    /// The process ends after this token. It must complete a refresh that it has sent, so it waits for what that brings.
    pub is_one_shot: bool,
}

/// No token lives that long, and longer times cannot be written in a request to the daemon.
const LONGEST_WISH: Duration = Duration::from_secs(1 << 32);

impl TokenWish {
    /// Whether the daemon's API has words for all of it.
    fn can_be_told(&self) -> bool {
        self.rejection.is_none_or(|report| report.is_proven && report.generation.is_some())
    }
}

impl MissingToken {
    fn of_outcome(outcome: Outcome) -> Self {
        let failure = outcome.error.unwrap_or_else(no_token);
        let is_unknown = failure.kind == ErrorKind::UnknownProfile;
        Self { failure, outcome: outcome.kind, retry_at: outcome.retry_at, is_unknown }
    }

    /// With the name of the profile in the message.
    fn named(self, profile: &ProfileName) -> Self {
        Self { failure: with_profile_name(profile, self.failure), ..self }
    }
}

impl TokenSource<'_> {
    /// Gets a token. `explain` is called if that takes a while, because another process refreshes.
    pub fn obtain(&self, wish: &TokenWish, explain: &dyn Fn()) -> Result<FoundToken, MissingToken> {
        let began = self.setup.clock.now();
        // What a caller only takes to be the cause is not told to the daemon, whose API believes what it is told.
        let theirs = match if wish.can_be_told() { self.ask_daemon(wish) } else { Ok(None) } {
            Ok(None) => None,
            Ok(Some(reply)) => {
                // The daemon may run with another configuration, or may not have read ours yet.
                let may_be_news = reply.token.is_none() && self.daemon != DaemonUse::Only && settles_nothing(&reply);
                if !may_be_news {
                    events::token_from_daemon(&wish.profile);
                    return of_daemon(reply, &wish.profile);
                }
                if !is_config(&reply) {
                    events::token_from_store("the daemon does not know the profile");
                }
                Some(reply)
            }
            Err(none) if self.daemon == DaemonUse::Only => return Err(without_daemon(none)),
            Err(none) => {
                events::token_from_store(none.reason());
                None
            }
        };
        // A daemon that stopped responding has used up some of the time.
        let left = wish.timeout.saturating_sub(self.setup.clock.now().time_since(&began));
        self.use_store(&TokenWish { timeout: left, ..wish.clone() }, theirs, explain)
    }

    /// `None`: the store is to be used without asking.
    fn ask_daemon(&self, wish: &TokenWish) -> Result<Option<BrokerResponse>, NoAnswer> {
        if self.daemon == DaemonUse::Never {
            return Ok(None);
        }
        let environment = &self.setup.environment;
        if environment.active_profiles.iter().any(|name| name == wish.profile.as_str()) {
            events::token_from_store("keepalive runs this command for the profile");
            return Ok(None);
        }
        let millis = |d: Duration| u64::try_from(d.min(LONGEST_WISH).as_millis()).unwrap_or(u64::MAX);
        let request = BrokerRequest {
            profile: wish.profile.clone(),
            min_valid_ms: millis(wish.min_valid),
            timeout_ms: millis(wish.timeout),
            id_token: wish.id_token,
            rejected: wish.rejection.filter(|report| report.is_proven).and_then(|report| report.generation),
        };
        client::request_token(&DaemonPlaces::of(environment), &*self.setup.clock, &request).map(Some)
    }

    /// `theirs`: the daemon's error, if another configuration may be the cause. It counts if only a daemon has the key.
    fn use_store(
        &self,
        wish: &TokenWish,
        theirs: Option<BrokerResponse>,
        explain: &dyn Fn(),
    ) -> Result<FoundToken, MissingToken> {
        let view = self.setup.store.view(&wish.profile);
        let profile = match self.setup.profile_of_view(&wish.profile, &view) {
            Ok(profile) => Arc::new(profile),
            Err(outcome) => return Err(without_profile(outcome)),
        };
        let engine = (self.engine)().map_err(MissingToken::of_outcome)?;
        let mut obtained = match wish.rejection {
            None => engine.access_token_seen(&profile, wish.min_valid, view.ok(), wish.timeout, explain),
            Some(report) => {
                engine
                    .access_token_after_rejection(&profile, report, wish.min_valid, wish.timeout, explain)
                    .map_err(|UnknownGeneration(generation)| unknown_generation(&wish.profile, generation))?
                    .0
            }
        };
        if obtained.token.is_none() && self.is_one_shot {
            engine.drain();
            obtained = engine.access_token_now(&profile, wish.min_valid).unwrap_or(obtained);
        }
        let TokenResult { token, outcome, warnings, .. } = obtained;
        let Some(token) = token else {
            let is_keyless = outcome.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Key);
            // Only a daemon may have the key.
            let is_asked_late = !wish.can_be_told() && is_keyless;
            let theirs = if is_asked_late { self.ask_daemon(wish).ok().flatten() } else { theirs.filter(is_config) };
            return match theirs.filter(|_| is_keyless) {
                Some(theirs) => of_daemon(theirs, &wish.profile),
                None => Err(MissingToken::of_outcome(outcome).named(&wish.profile)),
            };
        };
        let token = TokenOutput { id_token: token.id_token.clone().filter(|_| wish.id_token), ..token };
        Ok(FoundToken { token, outcome: outcome.kind, warnings })
    }
}

/// Why there is no token of a profile that cannot be had itself.
pub fn without_profile(outcome: Outcome) -> MissingToken {
    let missing = MissingToken::of_outcome(outcome);
    let is_unknown = missing.failure.kind == ErrorKind::NoCredential;
    MissingToken { is_unknown, ..missing }
}

/// Whether a daemon with the configuration of this process might answer otherwise.
fn settles_nothing(reply: &BrokerResponse) -> bool {
    is_config(reply) || reply.error.as_ref().is_some_and(|error| error.kind == ErrorKind::UnknownProfile)
}

fn is_config(reply: &BrokerResponse) -> bool {
    reply.outcome == OutcomeKind::ConfigError
}

/// The daemon's answer.
pub fn of_daemon(reply: BrokerResponse, profile: &ProfileName) -> Result<FoundToken, MissingToken> {
    let Some(token) = reply.token else {
        let outcome = Outcome { error: reply.error, retry_at: reply.retry_at, ..Outcome::new(reply.outcome) };
        return Err(MissingToken::of_outcome(outcome).named(profile));
    };
    Ok(FoundToken { token, outcome: reply.outcome, warnings: reply.warnings })
}

/// Why there is no token where only a daemon may give it.
pub fn without_daemon(none: NoAnswer) -> MissingToken {
    let (outcome, failure) = match none {
        NoAnswer::NoDaemon(reason) => {
            let failure = Failure::new(ErrorKind::NoDaemon, reason).with_hint("start it: keepalive service install");
            (OutcomeKind::Deferred, failure)
        }
        NoAnswer::Refused(failure) => (OutcomeKind::ConfigError, failure),
    };
    MissingToken { failure, outcome, retry_at: None, is_unknown: false }
}

/// The store was replaced since the token was had.
fn unknown_generation(profile: &ProfileName, generation: Generation) -> MissingToken {
    let message = format!("{profile}: there has been no generation {generation}");
    let failure = Failure::new(ErrorKind::Conflict, message);
    MissingToken { failure, outcome: OutcomeKind::ConfigError, retry_at: None, is_unknown: false }
}

/// The failure with the profile's name in front, if it lacks it.
fn with_profile_name(name: &ProfileName, failure: Failure) -> Failure {
    let is_named = failure.message.split_whitespace().any(|word| word.trim_end_matches(':') == name.as_str());
    if is_named { failure } else { Failure { message: format!("{name}: {}", failure.message), ..failure } }
}

fn no_token() -> Failure {
    Failure::new(ErrorKind::NoToken, "there is no valid access token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_profile_once() {
        let told = |name: &str, message: &str| {
            with_profile_name(&name.parse().unwrap(), Failure::new(ErrorKind::Io, message)).message
        };
        assert_eq!(told("w", "acme returned 429 slow"), "w: acme returned 429 slow");
        assert_eq!(told("w", "profile w: provider \"no\" is not known"), "profile w: provider \"no\" is not known");
        assert_eq!(told("w", "there is no credential for profile w"), "there is no credential for profile w");
    }
}
