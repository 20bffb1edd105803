//! Learns the interval between one-shot runs, so that runs too far apart to keep a token alive can say so. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::profile::Profile;

/// How many gaps must agree before they count.
const MIN_GAPS: usize = 3;

/// The times of the latest runs over all profiles that no person watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHistory(Vec<Timestamp>);

impl RunHistory {
    /// Adds a run, and drops those that are not needed any more.
    pub fn record_run(&mut self, now: Timestamp) {
        self.0.push(now);
        let surplus = self.0.len().saturating_sub(MIN_GAPS + 1);
        self.0.drain(..surplus);
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.0.last().copied()
    }

    /// The shortest of the latest gaps; `None` until there are enough. A run by hand makes one gap small, so a large
    /// result is regular.
    pub fn interval(&self) -> Option<Duration> {
        let gaps = self.0.windows(2).map(|pair| pair[1].since(pair[0]));
        (self.0.len() > MIN_GAPS).then(|| gaps.min()).flatten()
    }
}

/// The reason why runs this far apart cannot keep a profile alive, if so: its token can expire between two of them.
pub fn sparse_runs_warning(
    profile: &Profile,
    lifetime: Duration,
    interval: Duration,
    lookahead: Duration,
) -> Option<String> {
    let name = &profile.name;
    let apart = humantime::format_duration(Duration::from_secs(interval.as_secs()));
    if interval >= lifetime {
        let life = humantime::format_duration(Duration::from_secs(lifetime.as_secs()));
        return Some(format!("{name}: runs are {apart} apart, but its tokens expire after {life}: run more often"));
    }
    (interval > profile.margin.of(lifetime) + lookahead).then(|| {
        // Whole minutes, rounded up, because runs are never quite regular.
        let wanted = humantime::format_duration(Duration::from_secs((interval.as_secs() / 60 + 1) * 60));
        format!(
            "{name}: runs are {apart} apart, so its token can expire between two runs: add --lookahead \"{wanted}\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn runs(at: &[i64]) -> RunHistory {
        let mut runs = RunHistory::default();
        at.iter().for_each(|s| runs.record_run(Timestamp::from_secs(*s)));
        runs
    }

    #[test]
    fn run_interval_needs_three_gaps_that_agree() {
        assert_eq!(runs(&[0, 600, 1200]).interval(), None);
        assert_eq!(runs(&[0, 600, 1200, 1800]).interval(), Some(S(600)));
        assert_eq!(runs(&[0, 600, 605, 1200]).interval(), Some(S(5)), "somebody looked by hand");
        assert_eq!(runs(&[0, 599, 600, 1200, 1800, 2400]).interval(), Some(S(600)), "that is long ago");
        assert_eq!(runs(&[1800, 1200, 600, 0]).interval(), Some(S(0)), "a clock that was set back");
    }

    /// Rule 34.
    #[test]
    fn runs_too_far_apart_suggest_a_sufficient_lookahead() {
        let config =
            crate::config::Config::parse("[profile.xai]\nmargin = \"10m\"", std::path::Path::new("c"), None).unwrap();
        let profile = config.profile(&"xai".parse().unwrap(), None).unwrap();
        let told = |interval, lookahead| sparse_runs_warning(&profile, S(3600), S(interval), S(lookahead));
        assert_eq!(told(600, 0), None);
        assert_eq!(
            told(900, 0).unwrap(),
            "xai: runs are 15m apart, so its token can expire between two runs: add --lookahead \"16m\""
        );
        assert_eq!(told(900, 301), None);
        assert_eq!(told(3600, 3600).unwrap(), "xai: runs are 1h apart, but its tokens expire after 1h: run more often");
    }
}
