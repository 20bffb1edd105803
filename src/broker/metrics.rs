//! What is counted of the API and shown of the profiles, for Prometheus. No label and no value is a secret.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde_json::Value;

use super::limits::{ConnectionTable, ListenerKind};
use crate::clock::Timestamp;
use crate::engine::FlightSummary;
use crate::engine::rejected_token::RejectionAnswer;
use crate::profile::ProfileName;

/// With more profiles than that, only their states are counted.
const MAX_PROFILES: usize = 1_000;
/// The words of `status --json`.
const STATES: [&str; 9] = [
    "fresh",
    "due",
    "expired",
    "deferred",
    "in_doubt",
    "needs_login",
    "config_error",
    "store_unavailable",
    "no_credential",
];
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

/// What is counted while the daemon runs.
pub(super) struct Metrics {
    registry: Registry,
    requests: Counters<2>,
    durations: Family<Labels<1>, Histogram, fn() -> Histogram>,
    refreshes: Counters<2>,
    refresh_durations: Family<Labels<2>, Histogram, fn() -> Histogram>,
    connections_refused: Counters<2>,
    reported_rejected: Counters<2>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("keepalive");
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 4.0, 9));
        let durations = Family::new_with_constructor(buckets);
        let refresh_buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.05, 2.0, 11));
        let (refreshes, refresh_durations) = (Counters::<2>::default(), Family::new_with_constructor(refresh_buckets));
        let (requests, connections_refused, reported_rejected) =
            (Counters::<2>::default(), Counters::<2>::default(), Counters::<2>::default());
        registry.register("requests", "Requests that were answered", requests.clone());
        registry.register("request_duration_seconds", "How long the answers took", durations.clone());
        registry.register("refreshes", "Refreshes of the daemon that have ended", refreshes.clone());
        registry.register("refresh_duration_seconds", "How long they took", refresh_durations.clone());
        registry.register("connections_refused", "Connections that were refused", connections_refused.clone());
        registry.register(
            "reported_rejected",
            "Access tokens that callers reported as rejected",
            reported_rejected.clone(),
        );
        Self { registry, requests, durations, refreshes, refresh_durations, connections_refused, reported_rejected }
    }

    pub(super) fn count_request(&self, route: &'static str, status: u16, took: Duration) {
        let route = ("route", Cow::Borrowed(route));
        self.requests.get_or_create(&[route.clone(), ("code", status.to_string().into())]).inc();
        self.durations.get_or_create(&[route]).observe(took.as_secs_f64());
    }

    pub(super) fn count_refresh(&self, end: &FlightSummary) {
        let labels = [("provider", end.provider.clone().into()), ("outcome", end.outcome.to_string().into())];
        self.refreshes.get_or_create(&labels).inc();
        self.refresh_durations.get_or_create(&labels).observe(end.took.as_secs_f64());
    }

    pub(super) fn count_refused_connection(&self, kind: ListenerKind, reason: &'static str) {
        self.connections_refused.get_or_create(&[("listener", kind.word().into()), ("reason", reason.into())]).inc();
    }

    pub(super) fn count_rejected(&self, profile: &ProfileName, answer: RejectionAnswer) {
        let acted = match answer {
            RejectionAnswer::Newer => "newer",
            RejectionAnswer::Refreshed => "refreshed",
            RejectionAnswer::TooSoon => "too_soon",
        };
        let profile = Cow::Owned(profile.to_string());
        self.reported_rejected.get_or_create(&[("profile", profile), ("acted", acted.into())]).inc();
    }

    /// All of it as text. `profiles`: as `status --json` shows them. `per_profile`: whether each of them has series; if that
    /// is not said, unless they are very many.
    pub(super) fn render(
        &self,
        profiles: &[Value],
        per_profile: Option<bool>,
        connections: &ConnectionTable,
    ) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &gauges(profiles, per_profile, connections))?;
        text::encode_registry(&mut page, &self.registry)?;
        Ok(in_text_format(&page))
    }
}

/// A page of OpenMetrics in the text format 0.0.4 of Prometheus: there the family of a counter is named as its series.
fn in_text_format(page: &str) -> String {
    let counters: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let renamed = |line: &str| {
        let (word, rest) =
            ["# HELP ", "# TYPE "].into_iter().find_map(|word| Some((word, line.strip_prefix(word)?)))?;
        let (family, rest) = rest.split_once(' ')?;
        counters.contains(&family).then(|| format!("{word}{family}_total {rest}"))
    };
    page.lines().map(|line| renamed(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// What is so at this moment.
fn gauges(profiles: &[Value], per_profile: Option<bool>, connections: &ConnectionTable) -> Registry {
    let mut registry = Registry::with_prefix("keepalive");
    let build = gauge(&mut registry, "build_info", "The version that runs");
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION").into())]).set(1.0);
    let open = gauge(&mut registry, "connections", "Connections that are open");
    for kind in ListenerKind::ALL {
        open.get_or_create(&[("listener", kind.word().into())]).set(connections.taken(kind) as f64);
    }
    let states = gauge(&mut registry, "profiles", "Profiles by their state");
    for state in STATES {
        let count = profiles.iter().filter(|profile| profile["state"] == state).count();
        states.get_or_create(&[("state", state.into())]).set(count as f64);
    }
    add_hooks(&mut registry, profiles);
    if per_profile.unwrap_or(profiles.len() <= MAX_PROFILES) {
        add_profiles(&mut registry, profiles);
        add_mirrors(&mut registry, profiles);
    }
    registry
}

/// How often hooks ran, in any process, as their records have it.
fn add_hooks(registry: &mut Registry, profiles: &[Value]) {
    let runs = Counters::<2>::default();
    registry.register("hook_runs", "Runs of hooks that have ended", runs.clone());
    for hook in profiles.iter().filter_map(|profile| profile["hooks"].as_array()).flatten() {
        let event = hook["event"].as_str().unwrap_or_default();
        let (all, failed) = (hook["runs"].as_u64().unwrap_or(0), hook["failures"].as_u64().unwrap_or(0));
        for (result, count) in [("ok", all.saturating_sub(failed)), ("failed", failed)] {
            runs.get_or_create(&[("event", event.to_owned().into()), ("result", result.into())]).inc_by(count);
        }
    }
}

/// What is so of each profile.
fn add_profiles(registry: &mut Registry, profiles: &[Value]) {
    let text = |profile: &Value, member: &str| profile[member].as_str().unwrap_or_default().to_owned();
    let time = |profile: &Value, member: &str| {
        let at = Timestamp::parse_rfc3339(profile[member].as_str()?)?;
        Some(at.as_millis() as f64 / 1000.0)
    };
    let times = [
        ("expires_at", "access_token_expiry_timestamp_seconds", "When the access token expires"),
        ("refresh_at", "refresh_due_timestamp_seconds", "When the next refresh is planned"),
        ("login_by", "login_by_timestamp_seconds", "When the refresh token ends"),
    ];
    let of_whom = |profile: &Value| {
        [("profile", text(profile, "profile").into()), ("provider", text(profile, "provider").into())]
    };
    for (member, name, help) in times {
        let family = gauge::<2>(registry, name, help);
        for profile in profiles {
            if let Some(at) = time(profile, member) {
                family.get_or_create(&of_whom(profile)).set(at);
            }
        }
    }
    let generations = gauge::<2>(registry, "generation", "The number of the credential");
    let states = gauge::<2>(registry, "profile_state", "The state of the profile: 1 for the one it is in");
    for profile in profiles {
        if let Some(generation) = profile["generation"].as_u64() {
            generations.get_or_create(&of_whom(profile)).set(generation as f64);
        }
        for state in STATES {
            let is_in = f64::from(u8::from(profile["state"] == state));
            states.get_or_create(&[("profile", text(profile, "profile").into()), ("state", state.into())]).set(is_in);
        }
    }
}

/// Which mirrors have the newest token.
fn add_mirrors(registry: &mut Registry, profiles: &[Value]) {
    let current = gauge::<2>(registry, "mirror_current", "Whether the mirror has the newest access token");
    for profile in profiles {
        for mirror in profile["mirrors"].as_array().into_iter().flatten() {
            let text = |value: &Value| Cow::Owned(value.as_str().unwrap_or_default().to_owned());
            let is_current = f64::from(u8::from(mirror["state"] == "current"));
            let labels = [("profile", text(&profile["profile"])), ("mirror", text(&mirror["path"]))];
            current.get_or_create(&labels).set(is_current);
        }
    }
}

fn gauge<const N: usize>(registry: &mut Registry, name: &str, help: &str) -> Gauges<N> {
    let family = Gauges::<N>::default();
    registry.register(name, help, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outcome::{OutcomeKind, ProfileState};

    #[test]
    fn page_has_a_series_for_each_profile_and_request() {
        let metrics = Metrics::new();
        metrics.count_request("/v1/ping", 200, Duration::from_millis(3));
        let took = Duration::from_millis(700);
        metrics.count_refresh(&FlightSummary { provider: "acme".into(), outcome: OutcomeKind::Refreshed, took });
        metrics.count_rejected(&"p".parse().unwrap(), RejectionAnswer::TooSoon);
        let profile = json!({"profile": "p", "provider": "acme", "state": "fresh", "generation": 7,
            "expires_at": "2026-11-30T12:00:00Z", "refresh_at": null, "login_by": null,
            "mirrors": [{"path": "/a", "state": "current"}, {"path": "/b", "state": "conflict"}],
            "hooks": [{"event": "needs_login", "runs": 3, "failures": 1}]});
        let connections = ConnectionTable::new(2, 1);
        let _open = connections.enter(ListenerKind::Tcp).unwrap();
        let page = metrics.render(std::slice::from_ref(&profile), None, &connections).unwrap();
        for line in [
            "keepalive_requests_total{route=\"/v1/ping\",code=\"200\"} 1",
            "keepalive_request_duration_seconds_count{route=\"/v1/ping\"} 1",
            "keepalive_refreshes_total{provider=\"acme\",outcome=\"refreshed\"} 1",
            "keepalive_refresh_duration_seconds_count{provider=\"acme\",outcome=\"refreshed\"} 1",
            "keepalive_reported_rejected_total{profile=\"p\",acted=\"too_soon\"} 1",
            "keepalive_access_token_expiry_timestamp_seconds{profile=\"p\",provider=\"acme\"} 1796040000.0",
            "keepalive_hook_runs_total{event=\"needs_login\",result=\"ok\"} 2",
            "keepalive_hook_runs_total{event=\"needs_login\",result=\"failed\"} 1",
            "keepalive_generation{profile=\"p\",provider=\"acme\"} 7.0",
            "keepalive_profile_state{profile=\"p\",state=\"fresh\"} 1.0",
            "keepalive_profile_state{profile=\"p\",state=\"due\"} 0.0",
            "keepalive_profiles{state=\"fresh\"} 1.0",
            "keepalive_connections{listener=\"socket\"} 0.0",
            "keepalive_connections{listener=\"tcp\"} 1.0",
            "keepalive_mirror_current{profile=\"p\",mirror=\"/a\"} 1.0",
            "keepalive_mirror_current{profile=\"p\",mirror=\"/b\"} 0.0",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
        }
        assert!(!page.contains("refresh_due_timestamp_seconds{"), "no time is known");
        // A series without the type of its family counts as untyped.
        assert!(page.contains("# TYPE keepalive_requests_total counter\n") && !page.contains("# EOF"), "{page}");
        let short = metrics.render(&[profile], Some(false), &connections).unwrap();
        assert!(short.contains("keepalive_profiles{state=\"fresh\"} 1.0") && !short.contains("keepalive_generation{"));
    }

    #[test]
    fn every_state_has_a_series() {
        for state in [ProfileState::Fresh, ProfileState::StoreUnavailable, ProfileState::NoCredential] {
            assert!(STATES.contains(&state.to_string().as_str()), "{state}");
        }
    }
}
