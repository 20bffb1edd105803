//! Learns the interval between one-shot runs, so that runs too far apart to keep a token alive can say so. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::profile::Profile;

/// How many gaps must agree before they count.
const MIN_GAPS: usize = 3;

/// The times of the latest unattended runs over all profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHistory {
    runs: Vec<Timestamp>,
    /// When a timer or a line of the crontab was installed that makes such runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    installed: Option<Timestamp>,
}

impl RunHistory {
    /// That of a timer that was just installed, and has not run yet.
    pub fn installed(now: Timestamp) -> Self {
        Self { runs: Vec::new(), installed: Some(now) }
    }

    /// Adds a run, and drops those that are not needed any more.
    pub fn record_run(&mut self, now: Timestamp) {
        self.runs.push(now);
        let surplus = self.runs.len().saturating_sub(MIN_GAPS + 1);
        self.runs.drain(..surplus);
    }

    pub fn last(&self) -> Option<Timestamp> {
        self.runs.last().copied()
    }

    /// Since when runs can be expected: the last one, or the installation.
    pub fn since(&self) -> Option<Timestamp> {
        self.last().max(self.installed)
    }

    /// The shortest of the latest gaps; `None` until there are enough. A run by hand makes one gap small, so a large
    /// result is regular.
    pub fn interval(&self) -> Option<Duration> {
        self.gaps()?.min()
    }

    /// The longest of the latest gaps; `None` until there are enough.
    pub fn longest_gap(&self) -> Option<Duration> {
        self.gaps()?.max()
    }

    fn gaps(&self) -> Option<impl Iterator<Item = Duration>> {
        let gaps = self.runs.windows(2).map(|pair| pair[1].since(pair[0]));
        (self.runs.len() > MIN_GAPS).then_some(gaps)
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
        assert_eq!(runs(&[0, 600, 605, 1200]).longest_gap(), Some(S(600)));
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
