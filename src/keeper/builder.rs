//! The settings of a [`Keeper`].

use std::path::PathBuf;
use std::time::Duration;

use super::{Keeper, OpenError};
use crate::access::obtain::DaemonUse;
use crate::access::setup::{self, Setup};
use crate::sys::background::BackgroundRuntime;
use crate::sys::paths::Environment;

/// As long as `keepalive token` waits.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens a [`Keeper`] with other settings; made by [`Keeper::builder`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use keepalive::{DaemonUse, Keeper};
///
/// let keeper = Keeper::builder()
///     .config("/etc/agent/keepalive.toml")
///     .state_dir("/var/lib/agent/keepalive")
///     .daemon(DaemonUse::Never)
///     .timeout(Duration::from_secs(20))
///     .open()?;
/// # Ok::<(), keepalive::OpenError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is opened before `open`"]
pub struct KeeperBuilder {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    daemon: DaemonUse,
    timeout: Option<Duration>,
}

impl KeeperBuilder {
    /// Reads the configuration from this file, as `--config` does. It must exist.
    pub fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.config = Some(file.into());
        self
    }

    /// Keeps journals, sealed credentials and locks in this directory, as `KEEPALIVE_STATE_DIR` does. All processes that
    /// share a login must name the same one.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Whether a running daemon is asked. [`DaemonUse::Prefer`] is the default.
    pub fn daemon(mut self, daemon: DaemonUse) -> Self {
        self.daemon = daemon;
        self
    }

    /// How long [`Keeper::token`] waits for a refresh, by this process or another one. 60 seconds is the default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Opens the configuration and the store. Nothing is sent, and no secret is read.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the configuration is invalid, or if no thread can be had.
    pub fn open(self) -> Result<Keeper, OpenError> {
        let places = Environment::from_env_except(self.config.as_deref(), self.state_dir.as_deref());
        let setup = Setup::new(places).map_err(OpenError::of_config)?;
        setup::log_warnings(&setup.config);
        let (engine, _) = setup.engine(false).map_err(OpenError::of_outcome)?;
        let waits = BackgroundRuntime::start("keeper").map_err(|error| OpenError::no_thread(&error))?;
        Ok(Keeper::new(setup, engine, self.daemon, self.timeout.unwrap_or(DEFAULT_TIMEOUT), waits))
    }
}
