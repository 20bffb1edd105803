//! Waits of the journal that not only time ends, or that a person may overrule. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::store::journal::Journal;

/// How long a person waits before a rejected token is sent once more again.
const FORCE_INTERVAL: Duration = Duration::from_secs(60);

/// A pause that not only time ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub cause: PauseCause,
    /// The client and the endpoint that it came from, as `client_mark` of an intent has them: others are tried at once.
    pub client: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// No connection came about, so the server has asked for no pause: it binds the daemon's plan, and no person (rule 6).
    Unsent,
    /// The server refused the request without a reason, which may be the client's.
    Unexplained,
}

impl Journal {
    /// As [`Journal::set_not_before`], by a pause that not only time ends.
    pub fn pause(&mut self, at: Timestamp, told: &Moment, pause: Pause) {
        self.set_not_before(Some(at), Some(told));
        self.pause = Some(pause);
    }

    /// Until when no person has a rejected token sent once more, if one was a moment ago.
    pub fn forced_until(&self, now: &Moment) -> Option<Timestamp> {
        let under_way = self.intent.as_ref().filter(|intent| intent.is_forced).map(|intent| &intent.last_sent);
        let left = FORCE_INTERVAL.saturating_sub(now.time_since(under_way.or(self.forced_at.as_ref())?));
        (!left.is_zero()).then(|| now.wall.plus(left))
    }

    /// The attempt that is under way ends; when a person had it made, that is kept.
    pub fn note_forced_send(&mut self) {
        if let Some(intent) = self.intent.as_ref().filter(|intent| intent.is_forced) {
            self.forced_at = Some(intent.last_sent.clone());
        }
    }
}
