//! What an unattended run that only tells errors has told already. cron mails whatever a run prints, so a failure that
//! stands would be mailed at every run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::sys::durable;

/// A failure that stands is told again after this time. A little less than a day, so that a daily run tells it daily.
const REPEAT_AFTER: Duration = Duration::from_secs(23 * 3600);

/// The last failure of each profile that was told. It is advice: a file that cannot be read or written makes everything
/// news.
pub(super) struct ToldFailures {
    path: PathBuf,
    told: BTreeMap<String, Told>,
    is_changed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    kind: String,
    at: Timestamp,
}

impl ToldFailures {
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("told.json");
        let told =
            durable::read_foreign(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, told, is_changed: false }
    }

    /// Notes how a profile stands (`kind` is empty when it is well), and says whether that is to be told.
    pub(super) fn is_news(&mut self, profile: &str, kind: &str, now: Timestamp) -> bool {
        if kind.is_empty() {
            self.is_changed |= self.told.remove(profile).is_some();
            return true;
        }
        let is_known = |told: &Told| told.kind == kind && told.at <= now && now.since(told.at) < REPEAT_AFTER;
        if self.told.get(profile).is_some_and(is_known) {
            return false;
        }
        self.told.insert(profile.to_owned(), Told { kind: kind.to_owned(), at: now });
        self.is_changed = true;
        true
    }

    pub(super) fn save(self) {
        if let (true, Ok(bytes)) = (self.is_changed, serde_json::to_vec(&self.told)) {
            let _advice = durable::replace(&self.path, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_failure_is_told_once_a_day_and_when_it_changes() {
        let mut told = ToldFailures { path: PathBuf::new(), told: BTreeMap::new(), is_changed: false };
        let at = |minutes: i64| Timestamp::from_secs(1_790_000_000 + minutes * 60);
        let mut tell = |kind: &str, minutes| told.is_news("p", kind, at(minutes));
        assert!(tell("invalid_grant", 0));
        assert!(!tell("invalid_grant", 10) && !tell("invalid_grant", 20));
        assert!(tell("network", 30) && !tell("network", 40));
        assert!(tell("", 50) && tell("network", 60), "it was well in between");
        assert!(!tell("network", 60 + 22 * 60) && tell("network", 60 + 23 * 60));
        assert!(tell("network", 0), "the clock was set back");
    }
}
