//! Asks a provider whether it is there, with no token, secret or cookie in the question: what `doctor` says of the network.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use reqwest::header::{AGE, DATE, HeaderMap};
use url::Url;

use super::discovery::{self, Metadata, Whom};
use super::http::HttpEndpoint;
use super::{PrepareError, TokenEndpoint};
use crate::clock::{Clock, Timestamp};
use crate::outcome::Failure;
use crate::profile::Provider;

/// Longest that one question may take: somebody waits for all of them.
const LIMIT: Duration = Duration::from_secs(3);

/// A server that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    pub status: u16,
    pub took: Duration,
    /// By how many milliseconds the clock here is ahead of the server's; `None` if it did not tell the time.
    pub ahead_ms: Option<i64>,
}

/// A server that did not: at which step, and in whose words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    pub step: Step,
    pub why: String,
}

/// What has to work for an answer, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Name,
    Proxy,
    Connection,
    Tls,
    Answer,
}

impl HttpEndpoint {
    /// Whether all that a request needs besides the token can be had from where the user keeps it. Asks no network.
    pub fn check_client(&self, provider: &Provider) -> Result<(), Failure> {
        // With an endpoint named, nothing has to be discovered.
        let named = provider.token_endpoint.clone().or_else(|| provider.issuer.clone());
        let named = Arc::new(Provider { token_endpoint: named, ..provider.clone() });
        match self.prepare(&named, "") {
            Ok(_) => Ok(()),
            Err(PrepareError::Config(failure) | PrepareError::Unreachable(failure)) => Err(failure),
        }
    }

    /// Looks for the issuer's metadata as if nothing were remembered of it.
    pub fn rediscover(&self, provider: &Provider, issuer: &Url) -> Result<Metadata, Failure> {
        let hasty = hasty(provider);
        let whom = Whom { issuer, domain: provider.endpoint_domain.as_deref() };
        match discovery::discover(whom, &|url| self.get(&hasty, url)) {
            Ok((metadata, _)) => Ok(metadata),
            Err(PrepareError::Config(failure) | PrepareError::Unreachable(failure)) => Err(failure),
        }
    }

    /// Asks an endpoint for nothing (HEAD, without query or headers of the user's): any answer is one.
    pub fn knock(&self, provider: &Provider, endpoint: &Url, clock: &dyn Clock) -> Result<Presence, Absence> {
        let hasty = hasty(provider);
        let unable = |why| Absence { step: Step::Tls, why };
        let client = self.client(&hasty, endpoint).map_err(|f| unable(f.message))?;
        let mut url = endpoint.clone();
        url.set_query(None);
        let before = clock.now();
        let asked = self.runtime().block_on(async { tokio::time::timeout(LIMIT, client.head(url).send()).await });
        let after = clock.now();
        match asked {
            Ok(Ok(response)) => Ok(Presence {
                status: response.status().as_u16(),
                took: after.elapsed_since(&before).unwrap_or_default(),
                ahead_ms: ahead(response.headers(), after.wall),
            }),
            Ok(Err(error)) => Err(absence(&error)),
            Err(_) => Err(Absence { step: Step::Answer, why: format!("no response within {} s", LIMIT.as_secs()) }),
        }
    }
}

/// The provider for somebody who waits.
fn hasty(provider: &Provider) -> Provider {
    let mut hasty = provider.clone();
    hasty.policy.connect_timeout = hasty.policy.connect_timeout.min(LIMIT);
    hasty.policy.timeout = hasty.policy.timeout.min(LIMIT);
    hasty
}

/// How far `now` is ahead of a `Date` (RFC 9110 §6.6.1); what a cache gives out is as old as its `Age` says.
fn ahead(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let date = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
    let age = headers.get(AGE).and_then(|v| v.to_str().ok()?.trim().parse::<i64>().ok()).unwrap_or(0);
    let there = date.timestamp_millis().saturating_add(age.clamp(0, 86_400).saturating_mul(1000));
    Some(now.as_millis().saturating_sub(there))
}

fn absence(error: &reqwest::Error) -> Absence {
    let mut words = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push(cause.to_string());
        source = cause.source();
    }
    let why = words.last().cloned().unwrap_or_else(|| "the request failed".into());
    let step = if error.is_timeout() { timed_out(error) } else { step(&words.join(": ").to_ascii_lowercase()) };
    Absence { step, why }
}

fn timed_out(error: &reqwest::Error) -> Step {
    if error.is_connect() { Step::Connection } else { Step::Answer }
}

/// The step that a chain of causes speaks of. The library has no other way to say it.
fn step(chain: &str) -> Step {
    let speaks_of = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if speaks_of(&["tunnel", "proxy", "socks"]) {
        Step::Proxy
    } else if speaks_of(&["dns error", "failed to lookup"]) {
        Step::Name
    } else if speaks_of(&["certificate", "tls", "alert", "handshake", "corrupt message"]) {
        Step::Tls
    } else if speaks_of(&["tcp connect", "os error"]) {
        Step::Connection
    } else {
        Step::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_compared_with_what_the_server_says() {
        let now = Timestamp::parse("2026-11-24T12:00:00Z").unwrap();
        let said = |date: &str, age: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().unwrap());
            if !age.is_empty() {
                headers.insert(AGE, age.parse().unwrap());
            }
            ahead(&headers, now)
        };
        assert_eq!(said("Tue, 24 Nov 2026 11:50:00 GMT", ""), Some(600_000));
        assert_eq!(said("Tue, 24 Nov 2026 12:10:00 GMT", ""), Some(-600_000));
        assert_eq!(said("Tue, 24 Nov 2026 11:50:00 GMT", "540"), Some(60_000));
        assert_eq!(said("yesterday", ""), None);
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_step_that_failed_is_told_from_its_words() {
        for (words, meant) in [
            ("client error (connect): dns error: failed to lookup address information", Step::Name),
            ("client error (connect): tcp connect error: connection refused (os error 111)", Step::Connection),
            ("client error (connect): invalid peer certificate: unknownissuer", Step::Tls),
            ("client error (connect): tunnel error: unsuccessful", Step::Proxy),
            ("connection closed before message completed", Step::Answer),
        ] {
            assert_eq!(step(words), meant, "{words}");
        }
    }
}
