//! Probes whether a provider can be reached, with no token, secret or cookie in the request. `doctor` uses it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AGE, DATE, HeaderMap};
use url::Url;

use crate::clock::{Clock, Timestamp};
use crate::outcome::Failure;
use crate::profile::Provider;
use crate::provider::discovery;
use crate::provider::discovery::{IssuerPolicy, Metadata};
use crate::provider::http::HttpEndpoint;
use crate::provider::request_encoding;
use crate::provider::{PrepareError, TokenEndpoint, tls};

/// The time limit of one probe, because a person waits for all of them.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that responded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reachable {
    pub status: u16,
    pub round_trip: Duration,
    /// How many milliseconds the local clock is ahead of the server's; `None` if the response had no date.
    pub clock_ahead_ms: Option<i64>,
}

/// A server that did not respond: the step that failed, and the error text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    pub step: ConnectionStep,
    pub reason: String,
}

/// The steps up to a response, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionStep {
    Dns,
    Proxy,
    Tcp,
    Tls,
    Response,
}

impl HttpEndpoint {
    /// Whether the client secret or key can be read from where the user keeps it. Makes no network request.
    pub fn check_client_auth(&self, provider: &Provider) -> Result<(), Failure> {
        // With a configured endpoint nothing has to be discovered.
        let named = provider.token_endpoint.clone().or_else(|| provider.issuer.clone());
        let named = Arc::new(Provider { token_endpoint: named, ..provider.clone() });
        match self.prepare(&named, "") {
            Ok(_) => Ok(()),
            Err(PrepareError::Config(failure) | PrepareError::Unreachable(failure)) => Err(failure),
        }
    }

    /// Fetches the issuer's metadata as if nothing were cached.
    pub fn rediscover(&self, provider: &Provider, issuer: &Url) -> Result<Metadata, Failure> {
        let hasty = with_short_timeouts(provider);
        let sent = request_encoding::secret_headers(provider);
        let whom = IssuerPolicy { issuer, endpoint_domain: provider.endpoint_domain.as_deref(), sent: &sent };
        match discovery::discover(whom, &|url| self.fetch_metadata(&hasty, url)) {
            Ok((metadata, _)) => Ok(metadata),
            Err(PrepareError::Config(failure) | PrepareError::Unreachable(failure)) => Err(failure),
        }
    }

    /// Sends a HEAD request without query or the user's headers. Any response counts.
    pub fn probe(&self, provider: &Provider, endpoint: &Url, clock: &dyn Clock) -> Result<Reachable, Unreachable> {
        let hasty = with_short_timeouts(provider);
        let unable = |why| Unreachable { step: ConnectionStep::Tls, reason: why };
        let client = self.client(&hasty, endpoint).map_err(|f| unable(f.message))?;
        let mut url = endpoint.clone();
        url.set_query(None);
        let before = clock.now();
        let asked =
            self.runtime().block_on(async { tokio::time::timeout(PROBE_TIMEOUT, client.head(url).send()).await });
        let after = clock.now();
        match asked {
            Ok(Ok(response)) => Ok(Reachable {
                status: response.status().as_u16(),
                round_trip: after.elapsed_since(&before).unwrap_or_default(),
                clock_ahead_ms: clock_offset_ms(response.headers(), after.wall),
            }),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(_) => Err(Unreachable {
                step: ConnectionStep::Response,
                reason: format!("timed out after {} s", PROBE_TIMEOUT.as_secs()),
            }),
        }
    }
}

/// The provider with time limits for a person who waits.
fn with_short_timeouts(provider: &Provider) -> Provider {
    let mut hasty = provider.clone();
    hasty.policy.connect_timeout = hasty.policy.connect_timeout.min(PROBE_TIMEOUT);
    hasty.policy.timeout = hasty.policy.timeout.min(PROBE_TIMEOUT);
    hasty
}

/// How far `now` is ahead of a `Date` (RFC 9110 §6.6.1). A cached response is as old as its `Age` says.
fn clock_offset_ms(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let date = crate::provider::http_date(headers.get(DATE)?.to_str().ok()?.trim())?;
    let age = headers.get(AGE).and_then(|v| v.to_str().ok()?.trim().parse::<i64>().ok()).unwrap_or(0);
    let there = date.as_millis().saturating_add(age.clamp(0, 86_400).saturating_mul(1000));
    Some(now.as_millis().saturating_sub(there))
}

fn unreachable(error: &reqwest::Error) -> Unreachable {
    let causes: Vec<_> = std::iter::successors(error.source(), |&cause| cause.source()).collect();
    let by_tls = causes.iter().find_map(|cause| tls::refusal_text(*cause));
    let why = by_tls.or_else(|| causes.last().map(ToString::to_string)).unwrap_or_else(|| "the request failed".into());
    let step = if error.is_timeout() { timeout_step(error) } else { failed_step(&causes) };
    Unreachable { step, reason: why }
}

fn timeout_step(error: &reqwest::Error) -> ConnectionStep {
    if error.is_connect() { ConnectionStep::Tcp } else { ConnectionStep::Response }
}

/// The step that failed, by the outermost cause that names one.
fn failed_step(causes: &[&(dyn Error + 'static)]) -> ConnectionStep {
    causes
        .iter()
        .find_map(|cause| step_by_type(*cause).or_else(|| step_by_text(*cause)))
        .unwrap_or(ConnectionStep::Response)
}

fn step_by_type(cause: &(dyn Error + 'static)) -> Option<ConnectionStep> {
    if cause.is::<rustls::Error>() {
        return Some(ConnectionStep::Tls);
    }
    let error = cause.downcast_ref::<io::Error>()?;
    match error.get_ref() {
        // The inner error of an I/O error is not among its sources.
        Some(inner) => step_by_type(inner),
        None => error.raw_os_error().map(|_| ConnectionStep::Tcp),
    }
}

/// The HTTP library does not export the types of these errors, so their text decides.
fn step_by_text(cause: &dyn Error) -> Option<ConnectionStep> {
    let text = cause.to_string().to_ascii_lowercase();
    let speaks_of = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if speaks_of(&["tunnel", "proxy", "socks"]) {
        Some(ConnectionStep::Proxy)
    } else if speaks_of(&["dns error", "failed to lookup"]) {
        Some(ConnectionStep::Dns)
    } else if speaks_of(&["tls", "handshake"]) {
        Some(ConnectionStep::Tls)
    } else if speaks_of(&["tcp connect"]) {
        Some(ConnectionStep::Tcp)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_skew_is_computed_from_date_and_age_headers() {
        let now = Timestamp::parse_rfc3339("2026-11-24T12:00:00Z").unwrap();
        let skew = |date: &str, age: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().unwrap());
            if !age.is_empty() {
                headers.insert(AGE, age.parse().unwrap());
            }
            clock_offset_ms(&headers, now)
        };
        assert_eq!(skew("Tue, 24 Nov 2026 11:50:00 GMT", ""), Some(600_000));
        assert_eq!(skew("Tue, 24 Nov 2026 12:10:00 GMT", ""), Some(-600_000));
        assert_eq!(skew("Tue, 24 Nov 2026 11:50:00 GMT", "540"), Some(60_000));
        assert_eq!(skew("yesterday", ""), None);
        assert_eq!(clock_offset_ms(&HeaderMap::new(), now), None);
    }

    /// An error of a type that only its text tells, as the HTTP library's are.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Wrapper(&'static str, #[source] Box<dyn Error + 'static>);

    #[test]
    fn a_failed_step_is_told_by_type_and_then_by_text() {
        let refused = || io::Error::from_raw_os_error(111);
        let alert = || rustls::Error::AlertReceived(rustls::AlertDescription::CertificateUnknown);
        let causes: [(Box<dyn Error>, ConnectionStep); 8] = [
            (
                Box::new(Wrapper("dns error", Box::new(io::Error::other("failed to lookup address information")))),
                ConnectionStep::Dns,
            ),
            (Box::new(Wrapper("dns error", Box::new(refused()))), ConnectionStep::Dns),
            (Box::new(Wrapper("tcp connect error", Box::new(refused()))), ConnectionStep::Tcp),
            (Box::new(refused()), ConnectionStep::Tcp),
            (Box::new(io::Error::new(io::ErrorKind::InvalidData, alert())), ConnectionStep::Tls),
            (Box::new(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")), ConnectionStep::Tls),
            (
                Box::new(Wrapper("tunnel error: failed to create underlying connection", Box::new(refused()))),
                ConnectionStep::Proxy,
            ),
            (Box::new(io::Error::other("connection closed before message completed")), ConnectionStep::Response),
        ];
        for (cause, meant) in causes {
            let outer = Wrapper("client error (Connect)", cause);
            let chain: Vec<_> =
                std::iter::successors(Some(&outer as &(dyn Error + 'static)), |&e| e.source()).collect();
            assert_eq!(failed_step(&chain), meant, "{outer:?}");
        }
    }
}
