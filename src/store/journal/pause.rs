//! Until when the journal forbids requests, and what ends that besides time, or lets a person overrule it. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::store::journal::Journal;

/// How long a person waits before a token that was refused is sent once more.
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
    /// The request was refused without a reason that we know. It may be the client's, and a person may have mended it.
    Unexplained,
}

impl Journal {
    /// Forbids requests before `at`, which was decided at this moment; `None` allows them at once.
    pub fn set_not_before(&mut self, at: Option<Timestamp>, told: Option<&Moment>) {
        self.not_before = at;
        self.not_before_set_at = told.cloned().filter(|_| at.is_some());
        self.pause = None;
    }

    /// Until when no request is allowed, if that is not over.
    pub fn blocked_until(&self, now: &Moment) -> Option<Timestamp> {
        now.pending_until(self.not_before?, self.not_before_set_at.as_ref())
    }

    /// As [`Journal::set_not_before`], by a pause that not only time ends.
    pub fn pause(&mut self, at: Timestamp, told: &Moment, pause: Pause) {
        self.set_not_before(Some(at), Some(told));
        self.pause = Some(pause);
    }

    /// Whether a person may have a request made although the last one was refused without a reason that we know: not within
    /// a minute, and not for a token in doubt, whose next request may be the last one that is allowed.
    pub fn may_be_overruled(&self, now: &Moment) -> bool {
        let is_old = self.not_before_set_at.as_ref().is_none_or(|at| now.time_since(at) >= FORCE_INTERVAL);
        is_old && self.open_intent().is_none()
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
