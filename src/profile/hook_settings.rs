//! What is run when something happens to a profile: the events, and the settings of `[hooks]`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a hook is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookEvent {
    /// Only a new login helps.
    NeedsLogin,
    /// Refreshes fail, and the access token is running out.
    Deferred,
    /// What one of these two was run for is over.
    Recovered,
    /// The refresh token ends in some days, and no refresh prolongs it.
    LoginDue,
    /// There is a new access token.
    Refreshed,
}

impl HookEvent {
    pub const ALL: [Self; 5] = [Self::NeedsLogin, Self::Deferred, Self::Recovered, Self::LoginDue, Self::Refreshed];

    /// The word that a hook is told.
    pub fn word(self) -> &'static str {
        self.key().trim_start_matches("on_")
    }

    /// The key of the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::NeedsLogin => "on_needs_login",
            Self::Deferred => "on_deferred",
            Self::Recovered => "on_recovered",
            Self::LoginDue => "on_login_due",
            Self::Refreshed => "on_refreshed",
        }
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether a person is told on the desktop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DesktopNotices {
    /// Where there is a desktop, and a program that shows notifications.
    #[default]
    Auto,
    Off,
}

/// The hooks of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// A program with its arguments for each event that has one.
    pub commands: BTreeMap<HookEvent, Vec<String>>,
    /// How long one may run.
    pub timeout: Duration,
    /// How often it is repeated that a login is needed.
    pub remind: Duration,
    /// The hook for a refresh is given the access token.
    pub gives_token: bool,
    pub notices: DesktopNotices,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            commands: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            remind: Duration::from_secs(4 * 3600),
            gives_token: false,
            notices: DesktopNotices::Auto,
        }
    }
}
