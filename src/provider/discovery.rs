//! Discovers a provider's endpoints from its issuer (RFC 8414, OpenID Connect Discovery), and remembers them.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::PrepareError;
use crate::clock::Timestamp;
use crate::credential::redaction::SentSecrets;
use crate::outcome::{ErrorKind, Failure};
use crate::sys::durable;

/// How long metadata is used if the server does not say. Servers change endpoints rarely, and announce it.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The limits for what a server may say about that. Less would cost a request for metadata with every refresh; more
/// would outlast the announcement of a move.
const MAX_AGE_LIMITS: RangeInclusive<Duration> = Duration::from_secs(300)..=Duration::from_secs(7 * 24 * 3600);
/// How long old metadata is used after an issuer could not be reached, before it is asked again.
const STALE_RETRY_INTERVAL: Duration = Duration::from_secs(300);

/// The endpoints of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    pub issuer: String,
    pub token_endpoint: Url,
    pub authorization_endpoint: Option<Url>,
    pub device_authorization_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    /// RFC 9207 §3: the server names itself in every redirect.
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// The scopes that the server lists. Advice only, so a list in another form is no reason to refuse the document.
    #[serde(default, deserialize_with = "lenient_list")]
    pub scopes_supported: Vec<String>,
}

fn lenient_list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let listed = value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned));
    Ok(listed.collect())
}

impl Metadata {
    /// A discovered endpoint, if it is as safe as the token endpoint must be.
    pub fn safe_endpoint(&self, endpoint: Option<&Url>) -> Option<Url> {
        endpoint.filter(|url| url.scheme() == "https" || url.origin() == self.token_endpoint.origin()).cloned()
    }

    /// Every endpoint that is named, and what it is.
    fn endpoints(&self) -> impl Iterator<Item = (&'static str, &Url)> {
        let optional = [
            ("authorization endpoint", self.authorization_endpoint.as_ref()),
            ("device authorization endpoint", self.device_authorization_endpoint.as_ref()),
            ("revocation endpoint", self.revocation_endpoint.as_ref()),
        ];
        let named = optional.into_iter().filter_map(|(what, url)| Some((what, url?)));
        std::iter::once(("token endpoint", &self.token_endpoint)).chain(named)
    }
}

/// The issuer whose metadata is wanted, and what is required of the response.
#[derive(Clone, Copy, Debug)]
pub struct IssuerPolicy<'a> {
    pub issuer: &'a Url,
    /// Endpoints must be https at this host or below it.
    pub endpoint_domain: Option<&'a str>,
    /// The secrets in the headers of the request, which no text of the response may show.
    pub sent: &'a SentSecrets,
}

/// A response to a request for metadata.
pub struct MetadataResponse {
    pub status: u16,
    pub body: Vec<u8>,
    /// How long it may be used without looking again.
    pub max_age: Duration,
}

#[derive(Serialize, Deserialize)]
struct CachedMetadata {
    metadata: Metadata,
    fetched_at: Timestamp,
    max_age_s: u64,
}

impl CachedMetadata {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.fetched_at <= now && now.since(self.fetched_at) < Duration::from_secs(self.max_age_s)
    }

    /// Not remembering costs one more request next time, nothing else.
    fn write_cache(&self, path: &Path) {
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::from);
        let dir = path.parent().unwrap_or(path);
        let _unimportant =
            bytes.and_then(|bytes| durable::create_dir(dir).and_then(|()| durable::replace(path, &bytes)));
    }
}

/// Fetches a document, or says why that failed.
type Fetch<'a> = dyn Fn(Url) -> Result<MetadataResponse, String> + 'a;

/// The metadata of an issuer: as remembered in `dir` if fresh, else fetched; if that fails, as remembered however old.
pub fn load_metadata(
    whom: IssuerPolicy<'_>,
    dir: &Path,
    now: Timestamp,
    fetch: &Fetch<'_>,
) -> Result<Metadata, PrepareError> {
    let issuer = whom.issuer;
    let path = dir.join(format!("{}.json", digest(issuer.as_str())));
    let remembered = read_cache(&path, whom);
    if let Some(r) = remembered.as_ref().filter(|r| r.is_fresh(now)) {
        return Ok(r.metadata.clone());
    }
    let (metadata, fresh_for) = match (discover(whom, fetch), remembered) {
        (Ok(found), _) => found,
        (Err(failure), None) => return Err(failure),
        (Err(PrepareError::Unreachable(f) | PrepareError::Config(f)), Some(old)) => {
            tracing::warn!(event = "provider.warning", %issuer, since = %old.fetched_at, "{}; using the endpoints that were discovered earlier", f.message);
            // Not asked again with every refresh of every profile: an issuer that is down makes each attempt long.
            (old.metadata, STALE_RETRY_INTERVAL)
        }
    };
    let remembered = CachedMetadata { metadata, fetched_at: now, max_age_s: fresh_for.as_secs() };
    remembered.write_cache(&path);
    Ok(remembered.metadata)
}

/// The cached metadata, if it would be accepted today.
fn read_cache(path: &Path, whom: IssuerPolicy<'_>) -> Option<CachedMetadata> {
    let bytes = durable::read(path).ok()??;
    let remembered: CachedMetadata = serde_json::from_slice(&bytes).ok()?;
    check_metadata(whom, &remembered.metadata).is_ok().then_some(remembered)
}

/// Fetches the metadata, whatever is cached. Also returns how long it may be used.
pub(super) fn discover(whom: IssuerPolicy<'_>, fetch: &Fetch<'_>) -> Result<(Metadata, Duration), PrepareError> {
    let issuer = whom.issuer;
    let (mut reasons, mut refused) = (Vec::new(), Vec::new());
    for url in well_known_urls(issuer) {
        let path = url.path().to_owned();
        let document = match fetch(url) {
            Ok(document) => document,
            Err(why) => {
                reasons.push((path, why));
                continue;
            }
        };
        if document.status != 200 {
            reasons.push((path, format!("the server returned {}", document.status)));
            continue;
        }
        match serde_json::from_slice::<Metadata>(&document.body) {
            Ok(metadata) => match check_metadata(whom, &metadata) {
                Ok(()) => return Ok((metadata, document.max_age)),
                Err(why) => refused.push(format!("{path}: {why}")),
            },
            // The error of the parser may quote the server.
            Err(e) => reasons.push((path, whom.sent.printable(&format!("not metadata: {e}")))),
        }
    }
    if !refused.is_empty() {
        let message = format!("the metadata of {issuer} cannot be trusted: {}", refused.join("; "));
        let hint = "nothing was sent; check `issuer` in the provider's section";
        return Err(PrepareError::Config(Failure::new(ErrorKind::Discovery, message).with_hint(hint)));
    }
    let message = format!("cannot discover the endpoints of {issuer}: {}", once_each(&reasons));
    let hint = "check the network and `issuer`, or set token_endpoint in the provider's section";
    Err(PrepareError::Unreachable(Failure::new(ErrorKind::Discovery, message).with_hint(hint)))
}

/// Why each path gave nothing; one reason for all of them stands once.
fn once_each(reasons: &[(String, String)]) -> String {
    match reasons {
        [(_, first), more @ ..] if more.iter().all(|(_, why)| why == first) => {
            let paths: Vec<_> = reasons.iter().map(|(path, _)| path.as_str()).collect();
            format!("{first} ({})", paths.join(" and "))
        }
        _ => reasons.iter().map(|(path, why)| format!("{path}: {why}")).collect::<Vec<_>>().join("; "),
    }
}

/// RFC 8414 puts the well-known part between host and path, OpenID Connect after the path.
fn well_known_urls(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let at = |p: String| {
        let mut url = issuer.clone();
        url.set_path(&p);
        url
    };
    vec![
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ]
}

/// Whether metadata may be trusted to say where tokens go (RFC 8414 §§3.3 and 6.2).
fn check_metadata(whom: IssuerPolicy<'_>, metadata: &Metadata) -> Result<(), String> {
    if !is_same_issuer(&metadata.issuer, whom.issuer) {
        return Err(format!("it is for issuer {}", whom.sent.printable(&metadata.issuer)));
    }
    if let Some(domain) = whom.endpoint_domain {
        return match metadata.endpoints().find(|(_, url)| !is_https_below(domain, url)) {
            Some((what, url)) => {
                let origin = whom.sent.printable(&url.origin().ascii_serialization());
                Err(format!("its {what} is at {origin}, not https at {domain} or a subdomain (endpoint_domain)"))
            }
            None => Ok(()),
        };
    }
    let endpoint = &metadata.token_endpoint;
    let is_ours = whom.issuer.scheme() == "http" && endpoint.origin() == whom.issuer.origin();
    let is_safe = endpoint.scheme() == "https" || is_ours;
    if is_safe { Ok(()) } else { Err("its token endpoint is not https".into()) }
}

fn is_https_below(domain: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_there = host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    url.scheme() == "https" && is_there
}

fn is_same_issuer(text: &str, issuer: &Url) -> bool {
    text.trim_end_matches('/') == issuer.as_str().trim_end_matches('/')
}

/// How long a document is used, by its `Cache-Control` (RFC 9111 §5.2.2).
pub fn max_age(cache_control: Option<&str>) -> Duration {
    let mut found = None;
    for directive in cache_control.unwrap_or_default().split(',') {
        let directive = directive.trim().to_ascii_lowercase();
        match directive.split_once('=') {
            None if directive == "no-store" || directive == "no-cache" => return *MAX_AGE_LIMITS.start(),
            Some(("max-age", seconds)) => found = found.or(seconds.trim_matches('"').parse().ok()),
            None | Some(_) => {}
        }
    }
    let max_age = found.map_or(DEFAULT_MAX_AGE, Duration::from_secs);
    max_age.clamp(*MAX_AGE_LIMITS.start(), *MAX_AGE_LIMITS.end())
}

fn digest(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hex::encode(&hash[..16])
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    const T0: Timestamp = Timestamp::from_secs(1_790_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn issuer() -> Url {
        "https://login.example/tenant".parse().unwrap()
    }

    fn document(body: &serde_json::Value) -> MetadataResponse {
        MetadataResponse { status: 200, body: body.to_string().into_bytes(), max_age: DEFAULT_MAX_AGE }
    }

    fn named(issuer: &str, token_endpoint: &str) -> MetadataResponse {
        document(&serde_json::json!({"issuer": issuer, "token_endpoint": token_endpoint, "jwks_uri": "x"}))
    }

    fn good() -> MetadataResponse {
        named("https://login.example/tenant", "https://login.example/token")
    }

    struct CacheFixture {
        dir: tempfile::TempDir,
        domain: Option<&'static str>,
    }

    impl CacheFixture {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap(), domain: None }
        }

        fn load(&self, now: Timestamp, fetch: &Fetch<'_>) -> Result<Metadata, String> {
            let issuer = issuer();
            let sent = SentSecrets::default();
            let whom = IssuerPolicy { issuer: &issuer, endpoint_domain: self.domain, sent: &sent };
            load_metadata(whom, self.dir.path(), now, fetch).map_err(|e| match e {
                PrepareError::Config(f) => format!("config: {}", f.message),
                PrepareError::Unreachable(f) => format!("unreachable: {}", f.message),
            })
        }
    }

    fn never(_: Url) -> Result<MetadataResponse, String> {
        panic!("asked again")
    }

    #[test]
    fn both_metadata_locations_are_tried_and_the_result_cached() {
        let place = CacheFixture::new();
        let asked = RefCell::new(Vec::new());
        let fetch = |url: Url| {
            asked.borrow_mut().push(url.path().to_owned());
            match url.path().ends_with("openid-configuration") {
                true => Ok(named("https://login.example/tenant/", "https://login.example/token")),
                false => Ok(MetadataResponse { status: 404, body: vec![], max_age: DEFAULT_MAX_AGE }),
            }
        };
        let m = place.load(T0, &fetch).unwrap();
        assert_eq!(m.token_endpoint.as_str(), "https://login.example/token");
        let paths = ["/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/openid-configuration"];
        assert_eq!(*asked.borrow(), paths);
        assert_eq!(place.load(T0.plus(HOUR), &never).unwrap(), m);
    }

    #[test]
    fn stale_metadata_is_used_while_the_issuer_is_down() {
        let place = CacheFixture::new();
        let m = place.load(T0, &|_| Ok(good())).unwrap();
        let asked = Cell::new(0);
        let down = |_: Url| {
            asked.set(asked.get() + 1);
            Err("down".to_owned())
        };
        let late = T0.plus(90 * 24 * HOUR);
        assert_eq!(place.load(late, &down).unwrap(), m);
        assert_eq!(place.load(late.plus(STALE_RETRY_INTERVAL / 2), &down).unwrap(), m);
        assert_eq!(asked.get(), 2, "both places, and not with every refresh");
        assert_eq!(place.load(late.plus(STALE_RETRY_INTERVAL), &down).unwrap(), m);
        assert_eq!(asked.get(), 4);
        let other = || named("https://login.example/tenant", "https://login.example/new");
        let back = place.load(late.plus(2 * STALE_RETRY_INTERVAL), &|_| Ok(other())).unwrap();
        assert_eq!(back.token_endpoint.path(), "/new");
    }

    #[test]
    fn metadata_is_cached_for_max_age_within_bounds() {
        for (header, seconds) in [
            (None, 86_400),
            (Some("public"), 86_400),
            (Some("max-age=3600"), 3600),
            (Some("public, Max-Age=\"3600\", immutable"), 3600),
            (Some("max-age=1"), 300),
            (Some("max-age=99999999"), 604_800),
            (Some("max-age=soon"), 86_400),
            (Some("max-age=3600, no-cache"), 300),
            (Some("no-store"), 300),
        ] {
            assert_eq!(max_age(header), Duration::from_secs(seconds), "{header:?}");
        }
        let place = CacheFixture::new();
        place.load(T0, &|_| Ok(MetadataResponse { max_age: HOUR, ..good() })).unwrap();
        place.load(T0.plus(HOUR - Duration::from_secs(1)), &never).unwrap();
        let asked = Cell::new(false);
        let fetch = |_: Url| {
            asked.set(true);
            Ok(good())
        };
        place.load(T0.plus(HOUR), &fetch).unwrap();
        assert!(asked.get());
        let stepped_back = Cell::new(false);
        let fetch = |_: Url| {
            stepped_back.set(true);
            Ok(good())
        };
        place.load(T0, &fetch).unwrap();
        assert!(stepped_back.get(), "what comes from the future is no cache");
    }

    #[test]
    fn one_reason_for_both_paths_stands_once() {
        let reasons = |second: &str| [("/a".to_owned(), "cannot connect".to_owned()), ("/b".into(), second.into())];
        assert_eq!(once_each(&reasons("cannot connect")), "cannot connect (/a and /b)");
        assert_eq!(once_each(&reasons("gone")), "/a: cannot connect; /b: gone");
    }

    #[test]
    fn metadata_of_another_issuer_or_unsafe_endpoint_is_refused() {
        for (who, endpoint, why) in [
            ("https://evil.example", "https://evil.example/token", "it is for issuer https://evil.example"),
            ("https://login.example", "https://login.example/token", "it is for issuer https://login.example"),
            ("https://login.example/tenant", "http://login.example/token", "its token endpoint is not https"),
        ] {
            let error = CacheFixture::new().load(T0, &|_| Ok(named(who, endpoint))).unwrap_err();
            assert!(error.starts_with("config: ") && error.contains(why), "{error}");
        }
        let place = CacheFixture::new();
        let m = place.load(T0, &|_| Ok(good())).unwrap();
        let evil = |_: Url| Ok(named("https://evil.example", "https://evil.example/token"));
        assert_eq!(place.load(T0.plus(48 * HOUR), &evil).unwrap(), m, "what was trusted before serves on");
    }

    #[test]
    fn every_endpoint_must_be_below_the_required_domain() {
        let with = |endpoint: &str, url: &str| {
            let mut m = serde_json::json!({"issuer": "https://login.example/tenant",
                                           "token_endpoint": "https://x.example/token"});
            m[endpoint] = url.into();
            m
        };
        let place = CacheFixture { domain: Some("x.example"), ..CacheFixture::new() };
        for (endpoint, url, why) in [
            ("token_endpoint", "https://evil.example/t", "its token endpoint is at https://evil.example, not"),
            ("token_endpoint", "https://evilx.example/t", "its token endpoint is at https://evilx.example, not"),
            ("token_endpoint", "https://x.example.evil/t", "its token endpoint is at"),
            ("token_endpoint", "http://x.example/t", "its token endpoint is at http://x.example, not https"),
            ("authorization_endpoint", "https://evil.example/a", "its authorization endpoint is at"),
            ("device_authorization_endpoint", "https://evil.example/d", "its device authorization endpoint is at"),
            ("revocation_endpoint", "https://evil.example/r", "its revocation endpoint is at"),
        ] {
            let error = place.load(T0, &|_| Ok(document(&with(endpoint, url)))).unwrap_err();
            assert!(error.starts_with("config: ") && error.contains(why), "{error}");
        }
        let good = with("revocation_endpoint", "https://auth.X.example:8443/r");
        let m = place.load(T0, &|_| Ok(document(&good))).unwrap();
        assert_eq!(place.load(T0, &never).unwrap(), m);
        // What was remembered before the demand was made is not trusted either.
        let place = CacheFixture { domain: Some("login.example"), ..place };
        assert!(place.load(T0, &|_| Err("down".into())).unwrap_err().starts_with("unreachable: "));
    }
}
