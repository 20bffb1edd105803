//! Checks whether the providers of the profiles can be reached, and whether they fit the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use url::Url;

use super::Finding;
use crate::access::setup::Setup;
use crate::cli::output::{CommandStatus, Output};
use crate::clock::Clock;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Provider;
use crate::provider::discovery::Metadata;
use crate::provider::http::HttpEndpoint;
use crate::provider::probe::{ConnectionStep, Reachable, Unreachable};
use crate::signin::loopback::LoopbackListener;
use crate::signin::redirect_uri::Redirect;
use crate::sys::threads;

/// Above this, times are misjudged: most servers allow five minutes.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Probes all providers at once: each takes a few seconds at most.
pub(super) fn check(setup: &Setup, out: &Output) -> Vec<Finding> {
    let providers = used_providers(setup);
    if providers.is_empty() {
        return Vec::new();
    }
    let endpoint = match setup.engine(false) {
        Ok((_, endpoint)) => endpoint,
        Err(outcome) => return vec![Finding::from_outcome("provider", &outcome)],
    };
    let done = AtomicUsize::new(0);
    let tell = || {
        let n = done.fetch_add(1, Ordering::SeqCst);
        out.progress(&format!("checking the providers, {n} of {} done", providers.len()));
    };
    tell();
    let (endpoint, clock) = (endpoint.as_ref(), setup.clock.as_ref());
    let findings = threads::map(providers.len(), providers.iter().collect(), |provider| {
        let findings = ProviderCheck { endpoint, provider, clock }.findings();
        tell();
        findings
    });
    let findings = findings.into_iter().flatten().collect();
    out.end_countdown();
    findings
}

/// The providers that profiles use, each once. Errors of a profile are reported elsewhere.
fn used_providers(setup: &Setup) -> Vec<Arc<Provider>> {
    let names = setup.all_profiles().unwrap_or_default();
    let providers =
        names.iter().filter_map(|name| setup.profile(name).ok()).map(|p| (p.provider.name.clone(), p.provider));
    providers.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// The check of one provider.
struct ProviderCheck<'a> {
    endpoint: &'a HttpEndpoint,
    provider: &'a Provider,
    clock: &'a dyn Clock,
}

impl ProviderCheck<'_> {
    fn findings(&self) -> Vec<Finding> {
        // A command that fetches a secret may take as long as a server.
        let checks = threads::map(2, vec![true, false], |is_network| match is_network {
            true => self.check_network(),
            false => self.check_client().into_iter().collect(),
        });
        checks.into_iter().flatten().chain([self.check_redirect()]).collect()
    }

    /// Checks what the client needs: secret or key, and certificates.
    fn check_client(&self) -> Option<Finding> {
        let p = self.provider;
        let good = |what: &str| Some(Finding::good("client", format!("the {what} of {} is usable", p.name)));
        match self.endpoint.check_client_auth(p) {
            Err(failure) => Some(Finding::bad("client", failure, CommandStatus::Config)),
            Ok(()) if p.client_secret.is_some() => good("secret"),
            Ok(()) if p.client_key.is_some() => good("private key"),
            Ok(()) => None,
        }
    }

    /// Discovery comes first, because it names the endpoints. A server that cannot be reached is asked nothing more.
    fn check_network(&self) -> Vec<Finding> {
        let name = &self.provider.name;
        let mut findings = Vec::new();
        let (mut metadata, mut absent) = (None, None);
        if let Some(issuer) = &self.provider.issuer {
            match self.endpoint.probe(self.provider, issuer, self.clock) {
                Err(absence) => {
                    findings.push(unreachable(name, &["issuer"], issuer, &absence));
                    absent = Some(issuer.origin());
                }
                Ok(_) => match self.endpoint.rediscover(self.provider, issuer) {
                    Ok(found) => {
                        findings.push(Finding::good("discovery", format!("{name}: the metadata of {issuer} is valid")));
                        metadata = Some(found);
                    }
                    Err(failure) => findings.push(self.discovery_finding(failure)),
                },
            }
        }
        let mut origins = self.origins(metadata.as_ref());
        origins.retain(|(_, url)| Some(url.origin()) != absent);
        let presences = threads::map(origins.len(), origins.iter().collect(), |(_, url)| {
            self.endpoint.probe(self.provider, url, self.clock)
        });
        let mut furthest: Option<i64> = None;
        for ((endpoints, url), presence) in origins.iter().zip(presences) {
            match presence {
                Ok(presence) => {
                    furthest = [furthest, presence.clock_ahead_ms].into_iter().flatten().max_by_key(|ms| ms.abs());
                    findings.push(reachable(name, endpoints, url, presence));
                }
                Err(absence) => findings.push(unreachable(name, endpoints, url, &absence)),
            }
        }
        findings.extend(furthest.and_then(|ms| clock_skew(name, ms)));
        findings
    }

    fn discovery_finding(&self, failure: Failure) -> Finding {
        if self.provider.token_endpoint.is_some() {
            let hint = failure.hint.unwrap_or_else(|| "check `issuer`".into());
            return Finding::warning("discovery", format!("{}: {}", self.provider.name, failure.message), &hint);
        }
        let message = format!("{}: {}", self.provider.name, failure.message);
        Finding::bad("discovery", Failure { message, ..failure }, CommandStatus::Config)
    }

    /// The endpoints, grouped by origin, with one URL per origin to probe.
    fn origins(&self, metadata: Option<&Metadata>) -> Vec<(Vec<&'static str>, Url)> {
        let p = self.provider;
        let known = |own: &Option<Url>, found: Option<&Url>| own.clone().or_else(|| found.cloned());
        let of = |pick: fn(&Metadata) -> Option<&Url>| metadata.and_then(pick);
        let endpoints = [
            ("token", known(&p.token_endpoint, of(|m| Some(&m.token_endpoint)))),
            ("authorization", known(&p.authorization_endpoint, of(|m| m.authorization_endpoint.as_ref()))),
            ("device", known(&p.device_authorization_endpoint, of(|m| m.device_authorization_endpoint.as_ref()))),
            ("revocation", known(&p.revocation_endpoint, of(|m| m.revocation_endpoint.as_ref()))),
        ];
        let mut origins: Vec<(Vec<&'static str>, Url)> = Vec::new();
        for (what, url) in endpoints.into_iter().filter_map(|(what, url)| Some((what, url?))) {
            match origins.iter_mut().find(|(_, there)| there.origin() == url.origin()) {
                Some((kinds, _)) => kinds.push(what),
                None => origins.push((vec![what], url)),
            }
        }
        origins
    }

    fn check_redirect(&self) -> Finding {
        let name = &self.provider.name;
        let redirect = Redirect::of(self.provider.redirect_uri.as_ref());
        if let Redirect::External(url) = &redirect {
            return Finding::good("redirect", format!("{name}: redirect {url} is not on this machine: login --paste"));
        }
        match (LoopbackListener::bind(&redirect, self.endpoint.runtime().handle()), redirect.fixed_port()) {
            (Ok(_), Some(port)) => Finding::good("redirect", format!("{name}: loopback redirect: port {port} is free")),
            (Ok(_), None) => Finding::good("redirect", format!("{name}: loopback redirect: any free port")),
            (Err(failure), _) => {
                let hint = failure.hint.unwrap_or_else(|| "use --paste".into());
                Finding::warning("redirect", format!("{name}: {}", failure.message), &hint)
            }
        }
    }
}

fn endpoint_names(endpoints: &[&str]) -> String {
    let plural = if endpoints.len() > 1 { "s" } else { "" };
    if endpoints == ["issuer"] { "issuer".into() } else { format!("{} endpoint{plural}", endpoints.join(", ")) }
}

fn reachable(name: &str, endpoints: &[&str], url: &Url, presence: Reachable) -> Finding {
    let origin = url.origin().ascii_serialization();
    let text =
        format!("{name}: {origin} ({}) responds in {} ms", endpoint_names(endpoints), presence.round_trip.as_millis());
    if presence.status < 500 {
        return Finding::good("provider", text);
    }
    Finding::warning(
        "provider",
        format!("{text}, but with status {}", presence.status),
        "see the provider's status page",
    )
}

fn unreachable(name: &str, endpoints: &[&str], url: &Url, absence: &Unreachable) -> Finding {
    let host = url.host_str().unwrap_or_default();
    let (step, hint) = match absence.step {
        ConnectionStep::Dns => {
            ("host name not found", format!("check the address, and the network: getent hosts {host}"))
        }
        ConnectionStep::Proxy => {
            ("the proxy refuses the connection", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY".to_owned())
        }
        ConnectionStep::Tcp => {
            ("no connection", "check network, firewall and the port; behind a proxy, set HTTPS_PROXY".to_owned())
        }
        ConnectionStep::Tls => (
            "TLS failed",
            format!(
                "if it uses a private CA, set ca_file in [provider.{name}]; otherwise check the address, the port and the clock"
            ),
        ),
        ConnectionStep::Response => ("no response", "try again; see the provider's status page".to_owned()),
    };
    let origin = url.origin().ascii_serialization();
    let message = format!("{name}: cannot reach {origin} ({}): {step}: {}", endpoint_names(endpoints), absence.reason);
    Finding::bad("provider", Failure::new(ErrorKind::Network, message).with_hint(hint), CommandStatus::TryAgain)
}

fn clock_skew(name: &str, ahead_ms: i64) -> Option<Finding> {
    let by = Duration::from_millis(ahead_ms.unsigned_abs());
    let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
    (by > MAX_CLOCK_SKEW).then(|| {
        let by = humantime::format_duration(Duration::from_secs(by.as_secs()));
        let text = format!(
            "the local clock is {by} {way} that of {name}: tokens with an absolute expiry time are refreshed too \
             early or too late, and signed client assertions are rejected"
        );
        Finding::warning("clock", text, "set it: timedatectl set-ntp true")
    })
}
