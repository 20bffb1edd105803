//! The library's surface: a [`Keeper`] gives the tasks of a program access tokens, by the same way as the commands get them.

mod builder;
mod changes;
mod error;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::access::obtain::{DaemonUse, FoundToken, MissingToken, TokenSource, TokenWish};
use crate::access::setup::Setup;
use crate::credential::Generation;
use crate::engine::rejected_token::RejectionReport;
use crate::engine::{DRAIN_TIMEOUT, Engine};
use crate::profile::ProfileName;
use crate::sys::background::BackgroundRuntime;
use crate::sys::threads;
pub use builder::KeeperBuilder;
pub use error::{Failure, OpenError, TokenError};
pub use token::{Demand, Token};

/// How long a token is valid at least that replaces a rejected one, unless none of its provider lives so long.
const MIN_VALID_AFTER_REJECTION: Duration = Duration::from_secs(60);

/// Hands out access tokens, and has them refreshed when they are due: by the daemon if one is running, otherwise itself.
///
/// It is cheap to clone, and all clones share their refreshes: of eight tasks that ask at once, one refreshes and all get the
/// result. Processes exclude each other by a lock in the state directory, so that holds for them, too.
///
/// It has threads of its own. So it needs no runtime of its caller, and a runtime of one thread is not held up.
///
/// # When it ends
///
/// Dropping the last clone blocks its thread while a refresh of this process is under way: at most 45 seconds, and as long
/// again while files of other programs get the new token (`[[profile.NAME.mirror]]`). Hooks (`[hooks]`) may take the time that
/// they are allowed. In a task, call [`Keeper::shutdown`] before. **A call of [`std::process::exit`] cuts a refresh off**, as a
/// crash does: nothing is lost, but the next run may find that the refresh token was sent and its response is unknown, and at
/// some providers a person must sign in again.
#[derive(Clone)]
pub struct Keeper {
    ending: Arc<Ending>,
}

/// Completes what is under way when the last [`Keeper`] goes.
struct Ending {
    parts: Arc<KeeperParts>,
}

/// What callers use that may outlive the last [`Keeper`].
struct KeeperParts {
    setup: Setup,
    engine: Engine,
    daemon: DaemonUse,
    timeout: Duration,
    /// Apart from that of the exchanges: a refresh must not lack a thread because many wait for it.
    waits: BackgroundRuntime,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({:?})", self.ending.parts.engine)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.parts.land();
    }
}

impl Keeper {
    /// Opens the configuration and the store of this user, where the commands find them: `KEEPALIVE_CONFIG`,
    /// `KEEPALIVE_STATE_DIR` and `KEEPALIVE_SOCKET`, or else the XDG directories (keepalive(1)).
    ///
    /// Nothing is sent, and no secret is read. The configuration stays as it was read here.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the configuration is invalid, or if no thread can be had.
    pub fn open() -> Result<Self, OpenError> {
        Self::builder().open()
    }

    /// Opens with other settings than [`Keeper::open`].
    pub fn builder() -> KeeperBuilder {
        KeeperBuilder::default()
    }

    fn new(setup: Setup, engine: Engine, daemon: DaemonUse, timeout: Duration, waits: BackgroundRuntime) -> Self {
        let parts = Arc::new(KeeperParts { setup, engine, daemon, timeout, waits });
        Self { ending: Arc::new(Ending { parts }) }
    }

    /// An access token of a profile that meets the demand, after a refresh if that is needed (RFC 6749, section 6).
    ///
    /// When it returns a token that a refresh brought, the response and its refresh token are durable. A token that is
    /// still valid is returned also if its refresh fails: [`Token::warnings`] says so.
    ///
    /// Waits for at most [`KeeperBuilder::timeout`]. Dropping the future gives up the wait and not the refresh, which goes
    /// on. It may be polled by any executor.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if there is no valid token. [`TokenError::is_transient`] says whether to ask again.
    pub async fn token(&self, profile: &str, demand: Demand) -> Result<Token, TokenError> {
        let name = profile_name(profile)?;
        let parts = Arc::clone(&self.ending.parts);
        let work = move || parts.obtain(name, demand);
        let call = threads::without_panic(|| Ok(self.ending.parts.waits.spawn_blocking(work)));
        call.map_err(|error| TokenError::no_thread(&error))?.await.unwrap_or_else(|_| Err(TokenError::broken()))
    }

    /// As [`Keeper::token`], for a thread: blocks it. It needs no runtime; in a task it would hold up others.
    ///
    /// # Errors
    ///
    /// As [`Keeper::token`].
    pub fn token_blocking(&self, profile: &str, demand: Demand) -> Result<Token, TokenError> {
        self.ending.parts.obtain(profile_name(profile)?, demand)
    }

    /// Waits until a profile has a token after generation `seen`, and returns it. It refreshes nothing, and waits without an
    /// end: drop the future to give up.
    ///
    /// The daemon tells of a new token at once. Without one, the journal of the profile is looked at once a second.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if there is no such profile, or no daemon with [`DaemonUse::Only`]. That a refresh failed is no error
    /// here; it is one of [`Keeper::token`].
    pub async fn changed(&self, profile: &str, seen: Generation) -> Result<Token, TokenError> {
        let parts = Arc::clone(&self.ending.parts);
        let wait = self.ending.parts.waits.spawn(changes::newer_token(parts, profile_name(profile)?, seen));
        let mut wait = changes::Wait(wait);
        (&mut wait.0).await.unwrap_or_else(|_| Err(TokenError::broken()))
    }

    /// Waits for the refreshes of this process that are under way, for at most as long as a drop of the last clone would.
    /// From now on no clone sends anything: those that are left return tokens that are valid, and errors.
    pub async fn shutdown(self) {
        let parts = Arc::clone(&self.ending.parts);
        let call = threads::without_panic(|| Ok(self.ending.parts.waits.spawn_blocking(move || parts.land())));
        if let Ok(call) = call {
            // What a panic left undone, the drop does.
            let _landed = call.await;
        }
    }
}

impl KeeperParts {
    fn obtain(&self, profile: ProfileName, demand: Demand) -> Result<Token, TokenError> {
        let (min_valid, rejection) = match demand {
            Demand::ValidFor(min_valid) => (min_valid, None),
            Demand::Rejected(generation) => (MIN_VALID_AFTER_REJECTION, Some(RejectionReport::proven(generation))),
        };
        let wish = TokenWish { profile, min_valid, timeout: self.timeout, id_token: false, rejection };
        let engine = || Ok(self.engine.clone());
        let source = TokenSource { setup: &self.setup, daemon: self.daemon, engine: &engine, is_one_shot: false };
        self.handed_out(&wish.profile, source.obtain(&wish, &|| {}))
    }

    fn handed_out(&self, profile: &ProfileName, found: Result<FoundToken, MissingToken>) -> Result<Token, TokenError> {
        let mut found = found?;
        found.warnings.extend(self.setup.mirrors().take_news());
        Token::new(profile, found)
    }

    /// Sends nothing more, and waits for what was sent.
    fn land(&self) {
        for name in self.engine.drain_with(DRAIN_TIMEOUT) {
            tracing::error!(
                event = "refresh.in_doubt",
                profile = %name,
                "the refresh did not finish in time; its outcome is in doubt"
            );
        }
    }
}

fn profile_name(text: &str) -> Result<ProfileName, TokenError> {
    text.parse().map_err(|error| TokenError::no_such_name(&error))
}
