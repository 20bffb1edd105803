//! Discovers a provider's endpoints from its issuer (RFC 8414, OpenID Connect Discovery), and remembers them.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use crate::clock::Timestamp;
use crate::outcome::Failure;
use crate::sys::durable;

/// How long metadata is used without looking again. Servers change endpoints rarely, and announce it.
const FRESH_FOR: Duration = Duration::from_secs(24 * 3600);

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
}

impl Metadata {
    /// A discovered endpoint, if it is as safe as the token endpoint must be.
    pub fn safe(&self, endpoint: Option<&Url>) -> Option<Url> {
        endpoint.filter(|url| url.scheme() == "https" || url.origin() == self.token_endpoint.origin()).cloned()
    }
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    metadata: Metadata,
    fetched_at: Timestamp,
}

/// Gets a document: status and body, or why not.
type Fetch<'a> = dyn Fn(Url) -> Result<(u16, Vec<u8>), String> + 'a;

/// The metadata of `issuer`: as remembered in `dir` if young, else fetched; if that fails, as remembered however old.
pub fn metadata(issuer: &Url, dir: &Path, now: Timestamp, fetch: &Fetch<'_>) -> Result<Metadata, Failure> {
    let path = dir.join(format!("{}.json", digest(issuer.as_str())));
    let remembered = recall(&path, issuer);
    if let Some(r) = &remembered
        && now.since(r.fetched_at) < FRESH_FOR
        && r.fetched_at <= now
    {
        return Ok(r.metadata.clone());
    }
    match discover(issuer, fetch) {
        Ok(metadata) => {
            let remembered = Remembered { metadata, fetched_at: now };
            // Not remembering costs one more request next time, nothing else.
            let _unimportant = serde_json::to_vec(&remembered)
                .map_err(std::io::Error::from)
                .and_then(|bytes| durable::create_dir(dir).and_then(|()| durable::replace(&path, &bytes)));
            Ok(remembered.metadata)
        }
        Err(failure) => remembered.map(|r| r.metadata).ok_or(failure),
    }
}

fn recall(path: &Path, issuer: &Url) -> Option<Remembered> {
    let bytes = durable::read(path).ok()??;
    let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
    is_same_issuer(&remembered.metadata.issuer, issuer).then_some(remembered)
}

/// Asks for the metadata, whatever is remembered.
pub(super) fn discover(issuer: &Url, fetch: &Fetch<'_>) -> Result<Metadata, Failure> {
    let mut reasons = Vec::new();
    for url in well_known(issuer) {
        match fetch(url.clone()).and_then(|(status, body)| check(issuer, status, &body)) {
            Ok(metadata) => return Ok(metadata),
            Err(why) => reasons.push(format!("{}: {why}", url.path())),
        }
    }
    Err(Failure::new("discovery", format!("cannot discover the endpoints of {issuer}: {}", reasons.join("; ")))
        .hint("check `issuer`, or name token_endpoint in the provider's section"))
}

/// RFC 8414 puts the well-known part between host and path, OpenID Connect after the path.
fn well_known(issuer: &Url) -> Vec<Url> {
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

fn check(issuer: &Url, status: u16, body: &[u8]) -> Result<Metadata, String> {
    if status != 200 {
        return Err(format!("the server answered {status}"));
    }
    let metadata: Metadata = serde_json::from_slice(body).map_err(|e| format!("not metadata: {e}"))?;
    if !is_same_issuer(&metadata.issuer, issuer) {
        return Err(format!("it speaks for {}", crate::credential::response::printable(&metadata.issuer)));
    }
    let endpoint = &metadata.token_endpoint;
    let is_safe = endpoint.scheme() == "https" || (issuer.scheme() == "http" && endpoint.origin() == issuer.origin());
    if is_safe { Ok(metadata) } else { Err("its token endpoint is not https".into()) }
}

fn is_same_issuer(text: &str, issuer: &Url) -> bool {
    text.trim_end_matches('/') == issuer.as_str().trim_end_matches('/')
}

fn digest(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    hash.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn issuer() -> Url {
        "https://login.example/tenant".parse().unwrap()
    }

    fn document(issuer: &str, token_endpoint: &str) -> Vec<u8> {
        serde_json::json!({"issuer": issuer, "token_endpoint": token_endpoint, "jwks_uri": "x"})
            .to_string()
            .into_bytes()
    }

    const T0: Timestamp = Timestamp::from_secs(1_790_000_000);

    #[test]
    fn both_places_are_tried_and_the_answer_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let asked = RefCell::new(Vec::new());
        let fetch = |url: Url| {
            asked.borrow_mut().push(url.path().to_owned());
            match url.path().ends_with("openid-configuration") {
                true => Ok((200, document("https://login.example/tenant/", "https://login.example/token"))),
                false => Ok((404, vec![])),
            }
        };
        let m = metadata(&issuer(), dir.path(), T0, &fetch).unwrap();
        assert_eq!(m.token_endpoint.as_str(), "https://login.example/token");
        let paths = ["/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/openid-configuration"];
        assert_eq!(*asked.borrow(), paths);
        let never = |_: Url| -> Result<(u16, Vec<u8>), String> { panic!("asked again") };
        assert_eq!(metadata(&issuer(), dir.path(), T0.plus(Duration::from_secs(3600)), &never).unwrap(), m);
        let down = |_: Url| Err("down".to_owned());
        let late = T0.plus(Duration::from_secs(90 * 86400));
        assert_eq!(metadata(&issuer(), dir.path(), late, &down).unwrap(), m);
    }

    #[test]
    fn metadata_of_another_issuer_or_an_unsafe_endpoint_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (who, endpoint, why) in [
            ("https://evil.example", "https://evil.example/token", "it speaks for https://evil.example"),
            ("https://login.example/tenant", "http://login.example/token", "its token endpoint is not https"),
        ] {
            let fetch = |_: Url| Ok((200, document(who, endpoint)));
            let failure = metadata(&issuer(), dir.path(), T0, &fetch).unwrap_err();
            assert!(failure.message.contains(why), "{}", failure.message);
        }
    }
}
