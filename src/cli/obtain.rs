//! Gets an access token for a command: from the daemon if one is running, otherwise from the store.

use std::sync::Arc;
use std::time::Duration;

use super::output::{CommandStatus, Output};
use super::setup::Setup;
use crate::broker::{BrokerRequest, BrokerResponse, DaemonPlaces, client};
use crate::credential::Generation;
use crate::engine::Engine;
use crate::engine::access_token::TokenOutput;
use crate::engine::rejected_token::{RejectionReport, UnknownGeneration};
use crate::events;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;

/// Which token is wanted, and how long it is waited for.
#[derive(Clone, Debug)]
pub(super) struct TokenWish {
    pub profile: ProfileName,
    pub min_valid: Duration,
    pub timeout: Duration,
    /// With the ID token, too.
    pub id_token: bool,
    /// An API has rejected the token that was had before.
    pub rejection: Option<RejectionReport>,
}

/// A token, and how the refresh before it ended.
pub(super) struct ObtainedToken {
    pub token: TokenOutput,
    pub outcome: OutcomeKind,
    pub warnings: Vec<String>,
    /// Waited for when this is dropped: the caller uses the token first.
    own_flights: OwnFlights,
}

/// Why there is none, and how a command ends for it.
#[derive(Debug)]
pub(super) struct NoToken {
    pub failure: Failure,
    pub status: CommandStatus,
}

/// The refreshes that this process has begun, after which mirrors may have news ([`Setup::tell_news`]). One that was sent must be completed, so dropping this waits for them.
pub(super) struct OwnFlights(Option<Engine>);

impl Drop for OwnFlights {
    fn drop(&mut self) {
        if let Some(engine) = self.0.take() {
            engine.drain();
        }
    }
}

impl NoToken {
    pub(super) fn of_config(failure: Failure) -> Self {
        Self { failure, status: CommandStatus::Config }
    }

    fn of_outcome(outcome: &Outcome, profile: &ProfileName) -> Self {
        let failure = outcome.error.clone().unwrap_or_else(no_token);
        let status = match CommandStatus::from_outcome(outcome) {
            CommandStatus::Ok => CommandStatus::TryAgain,
            status => status,
        };
        Self { failure: with_profile_name(profile, failure), status }
    }
}

impl ObtainedToken {
    /// The token, and what must be waited for once it is handed out.
    pub(super) fn into_parts(self) -> (TokenOutput, OwnFlights) {
        (self.token, self.own_flights)
    }

    /// Tells what is amiss although there is a token.
    pub(super) fn warn(&self, profile: &ProfileName, out: &Output) {
        for warning in &self.warnings {
            out.warn(&format!("{profile}: {warning}"));
        }
        if self.outcome == OutcomeKind::NeedsLogin {
            out.warn(&format!("sign in again before it expires: keepalive login {profile}"));
        }
    }
}

/// Gets a token. `explain` is called if that takes a while, because another process refreshes.
pub(super) fn obtain(setup: &Setup, wish: &TokenWish, explain: &dyn Fn()) -> Result<ObtainedToken, NoToken> {
    let began = setup.clock.now();
    // What a caller only takes to be the cause is not told to the daemon, whose API believes what it is told.
    let can_tell = wish.rejection.is_none_or(|report| report.is_proven && report.generation.is_some());
    let reply = if can_tell { from_daemon(setup, wish) } else { None };
    let theirs = match reply {
        // The daemon may run with another configuration, or may not have read ours yet.
        Some(reply) if reply.token.is_none() && reply.outcome == OutcomeKind::ConfigError => Some(reply),
        Some(reply) => {
            events::token_from_daemon(&wish.profile);
            return of_daemon(reply, &wish.profile);
        }
        None => None,
    };
    // A daemon that stopped responding has used up some of the time.
    let left = wish.timeout.saturating_sub(setup.clock.now().time_since(&began));
    from_store(setup, &TokenWish { timeout: left, ..wish.clone() }, theirs, explain)
}

fn of_daemon(reply: BrokerResponse, profile: &ProfileName) -> Result<ObtainedToken, NoToken> {
    let Some(token) = reply.token else {
        let outcome = Outcome { error: reply.error, ..Outcome::new(reply.outcome) };
        return Err(NoToken::of_outcome(&outcome, profile));
    };
    Ok(ObtainedToken { token, outcome: reply.outcome, warnings: reply.warnings, own_flights: OwnFlights(None) })
}

fn from_daemon(setup: &Setup, wish: &TokenWish) -> Option<BrokerResponse> {
    if setup.environment.active_profiles.iter().any(|name| name == wish.profile.as_str()) {
        events::token_from_store("keepalive runs this command for the profile");
        return None;
    }
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX / 2);
    let request = BrokerRequest {
        profile: wish.profile.clone(),
        min_valid_ms: millis(wish.min_valid),
        timeout_ms: millis(wish.timeout),
        id_token: wish.id_token,
        rejected: wish.rejection.filter(|report| report.is_proven).and_then(|report| report.generation),
    };
    client::request_token(&DaemonPlaces::of(&setup.environment), &*setup.clock, &request)
}

/// `theirs`: the daemon's error, if another configuration may be the cause. It counts if only a daemon has the key.
fn from_store(
    setup: &Setup,
    wish: &TokenWish,
    theirs: Option<BrokerResponse>,
    explain: &dyn Fn(),
) -> Result<ObtainedToken, NoToken> {
    let view = setup.store.view(&wish.profile);
    let profile = match setup.profile_of_view(&wish.profile, &view) {
        Ok(profile) => Arc::new(profile),
        Err(outcome) => {
            let status = CommandStatus::from_outcome(&outcome);
            return Err(NoToken { failure: outcome.error.unwrap_or_else(no_token), status });
        }
    };
    let (engine, endpoint) = setup.engine(false).map_err(|outcome| {
        let (status, failure) = CommandStatus::of_failed(outcome);
        NoToken { failure, status }
    })?;
    super::signals::stop_on_signal(&endpoint, &engine, |_| {});
    let mut obtained = match wish.rejection {
        None => engine.access_token_seen(&profile, wish.min_valid, view.ok(), wish.timeout, explain),
        Some(report) => {
            engine
                .access_token_after_rejection(&profile, report, wish.min_valid, wish.timeout, explain)
                .map_err(|UnknownGeneration(generation)| unknown_generation(&wish.profile, generation))?
                .0
        }
    };
    if obtained.token.is_none() {
        // This run must complete its own flight anyway, so it waits for the result.
        engine.drain();
        obtained = engine.access_token_now(&profile, wish.min_valid).unwrap_or(obtained);
    }
    let outcome = obtained.outcome;
    let own_flights = OwnFlights(Some(engine));
    let Some(token) = obtained.token else {
        let is_keyless = outcome.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Key);
        // Only a daemon may have the key.
        let theirs = if wish.rejection.is_some() && is_keyless { from_daemon(setup, wish) } else { theirs };
        return match theirs.filter(|_| is_keyless) {
            Some(theirs) => of_daemon(theirs, &wish.profile),
            None => Err(NoToken::of_outcome(&outcome, &wish.profile)),
        };
    };
    let token = TokenOutput { id_token: token.id_token.clone().filter(|_| wish.id_token), ..token };
    Ok(ObtainedToken { token, outcome: outcome.kind, warnings: obtained.warnings, own_flights })
}

/// The store was replaced since the token was had.
fn unknown_generation(profile: &ProfileName, generation: Generation) -> NoToken {
    let message = format!("{profile}: there has been no generation {generation}");
    NoToken { failure: Failure::new(ErrorKind::Conflict, message), status: CommandStatus::Config }
}

/// Refuses a token that could end a line, add a header, or begin another argument: only JSON carries it whole.
pub(super) fn check_carriable(token: &str) -> Result<(), Failure> {
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let message = "the access token has a character that only JSON can carry";
    Err(Failure::new(ErrorKind::Format, message)
        .with_hint("keepalive token --format json prints it; tell the provider"))
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
