//! Gets an access token for a command, which may be stopped by a signal and completes its own refreshes.

use std::cell::RefCell;

use super::output::{CommandStatus, Output};
use super::signals;
pub(super) use crate::access::obtain::TokenWish;
use crate::access::obtain::{DaemonUse, MissingToken, TokenSource};
use crate::access::setup::Setup;
use crate::engine::Engine;
use crate::engine::access_token::TokenOutput;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;

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

/// The refreshes that this process has begun, after which mirrors and hooks may have news. One that was sent must be completed,
/// so dropping this waits for them.
#[derive(Default)]
pub(super) struct OwnFlights(RefCell<Option<Engine>>);

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
}

impl From<MissingToken> for NoToken {
    fn from(missing: MissingToken) -> Self {
        let status = match CommandStatus::from_outcome(&Outcome::new(missing.outcome)) {
            CommandStatus::Ok => CommandStatus::TryAgain,
            status => status,
        };
        Self { failure: missing.failure, status }
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
    }
}

/// Gets a token. `explain` is called if that takes a while, because another process refreshes.
pub(super) fn obtain(setup: &Setup, wish: &TokenWish, explain: &dyn Fn()) -> Result<ObtainedToken, NoToken> {
    let own_flights = OwnFlights::default();
    setup.leave_hooks_behind();
    let engine = || {
        let (engine, endpoint) = setup.engine(false)?;
        signals::stop_on_signal(&endpoint, &engine, |_| {});
        own_flights.0.replace(Some(engine.clone()));
        Ok(engine)
    };
    let source = TokenSource { setup, daemon: DaemonUse::Prefer, engine: &engine, is_one_shot: true };
    let found = source.obtain(wish, explain)?;
    Ok(ObtainedToken { token: found.token, outcome: found.outcome, warnings: found.warnings, own_flights })
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
