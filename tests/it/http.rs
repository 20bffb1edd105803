//! The way to a server, and what a request looks like that goes there: private authorities, proxies, headers, bodies, codes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault, MetadataBehaviour};
use super::support::sandbox::Sandbox;
use super::support::tls_terminator::{NAME, TlsTerminator};
use super::support::token_family::RotationMode;
use super::support::tunnel_proxy::TunnelProxy;

const JSON: &str = "content-type: application/json\r\n";

/// A sandbox with a credential at whatever provider these keys make.
fn signed_in(server: &AuthServer, keys: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    configure(&sandbox, keys);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox
}

fn configure(sandbox: &Sandbox, keys: &str) {
    let provider = format!("[provider.acme]\nclient_id = \"public\"\n{keys}");
    sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n"));
}

fn trusting(ca: &Path) -> String {
    format!("ca_file = \"{}\"\n", ca.display())
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn private_authority_is_trusted_only_if_ca_file_names_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let tls = TlsTerminator::in_front_of(server.url());
    let endpoint = format!("token_endpoint = \"https://localhost:{}/token\"\n", tls.address().port());
    let sandbox = signed_in(&server, &endpoint);
    let run = sandbox.refresh(&["--force"]).exits(75);
    let result = run.result();
    let error = &result["error"];
    let at = &result["retry_at"].as_str().unwrap()[..19];
    let again = format!("nothing was sent; no run tries by itself before {at}Z, a command does at once");
    assert_eq!(error["hint"], *again, "{run:#?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("issued by \"test-authority\", is refused: UnknownIssuer"), "{run:#?}");
    assert!(message.contains("ca_file in the provider's section, or SSL_CERT_FILE"), "{run:#?}");
    assert_eq!(sandbox.status()["state"], "fresh", "no doubt comes of a certificate");
    assert_eq!(server.counts().refresh_requests, 0);
    let sandbox = signed_in(&server, &format!("{endpoint}{}", trusting(&tls.ca())));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn daemon_reads_a_replaced_ca_file() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let (tls, other) = (TlsTerminator::in_front_of(server.url()), TlsTerminator::in_front_of(server.url()));
    let sandbox = Sandbox::new();
    let ca = sandbox.path("home/ca.pem");
    std::fs::copy(tls.ca(), &ca).unwrap();
    let endpoint = format!("token_endpoint = \"https://localhost:{}/token\"\n", tls.address().port());
    configure(&sandbox, &format!("{endpoint}{}", trusting(&ca)));
    sandbox.import("demo", &server.mint()).exits(0);
    let daemon = sandbox.daemon();
    server.wait_for("it trusts the first", |c| c.refresh_ok >= 1);
    std::fs::write(&ca, "").unwrap();
    daemon.wait_for_line("still using its previous content");
    std::fs::copy(other.ca(), &ca).unwrap();
    daemon.wait_for_line("certificate");
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn endpoints_within_endpoint_domain_are_discovered_over_tls() {
    let server = AuthServer::start(RotationMode::Strict);
    let tls = TlsTerminator::in_front_of(server.url());
    let issuer = format!("https://localhost:{}", tls.address().port());
    let document = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token")});
    server.set_metadata(MetadataBehaviour::Custom(JSON, document));
    let keys = format!("issuer = \"{issuer}\"\nendpoint_domain = \"localhost\"\n{}", trusting(&tls.ca()));
    let sandbox = signed_in(&server, &keys);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[test]
fn unusable_ca_file_is_a_config_error() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let ca = sandbox.path("home/ca.pem");
    configure(&sandbox, &format!("token_endpoint = \"https://localhost:1/token\"\n{}", trusting(&ca)));
    for text in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let run = sandbox.import("demo", &server.mint());
        run.exits(78)
            .says(&format!("cannot use {}", ca.display()))
            .says("ca_file must be a file with certificates in PEM");
    }
}

/// A provider elsewhere, at a name that no server has.
fn elsewhere(tls: &TlsTerminator) -> String {
    format!("token_endpoint = \"https://{NAME}/token\"\n{}", trusting(&tls.ca()))
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn https_proxy_is_used_unless_no_proxy_names_the_host() {
    let server = AuthServer::start(RotationMode::Strict);
    let tls = TlsTerminator::in_front_of(server.url());
    let proxy = TunnelProxy::start(Some(tls.address()));
    let mut sandbox = signed_in(&server, &elsewhere(&tls));
    sandbox.set_env("HTTPS_PROXY", &proxy.url());
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.requests(), [format!("CONNECT {NAME}:443 HTTP/1.1")]);
    sandbox.set_env("NO_PROXY", NAME);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(proxy.requests().len(), 1);
    assert_eq!((server.counts().refresh_requests, server.counts().refresh_ok), (1, 1));
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn proxy_refusal_sends_nothing_and_leaves_the_profile_fresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let tls = TlsTerminator::in_front_of(server.url());
    let proxy = TunnelProxy::start(None);
    let mut sandbox = signed_in(&server, &elsewhere(&tls));
    sandbox.set_env("ALL_PROXY", &proxy.url());
    let run = sandbox.refresh(&["--force"]).exits(75);
    let hint = run.result()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.starts_with("nothing was sent; no run tries by itself before "), "{hint}");
    assert!(!proxy.requests().is_empty());
    assert_eq!(sandbox.status()["state"], "fresh");
    assert_eq!(server.counts().refresh_requests, 0);
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn socks_proxy_is_used_and_named_when_it_refuses() {
    let server = AuthServer::start(RotationMode::Strict);
    let tls = TlsTerminator::in_front_of(server.url());
    let proxy = TunnelProxy::start(Some(tls.address()));
    let mut sandbox = signed_in(&server, &elsewhere(&tls));
    sandbox.set_env("ALL_PROXY", &proxy.socks_url());
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.requests(), [format!("SOCKS {NAME}:443")]);
    // A scheme has no case.
    sandbox.set_env("ALL_PROXY", &proxy.socks_url().replace("socks", "SOCKS"));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.requests().len(), 2);
    let refusing = TunnelProxy::start(None);
    sandbox.set_env("ALL_PROXY", &refusing.socks_url());
    let named = format!("through the proxy {} (ALL_PROXY)", refusing.socks_url());
    let run = sandbox.refresh(&["--force"]).exits(75);
    let message = run.result()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&named), "{message}");
    assert_eq!((server.counts().refresh_requests, server.counts().refresh_ok), (2, 2));
}

#[test]
fn proxy_that_cannot_work_is_a_config_error() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    configure(&sandbox, &format!("token_endpoint = \"https://{NAME}/token\"\n"));
    sandbox.import("demo", &server.mint()).exits(0);
    let mut sandbox = sandbox;
    sandbox.set_env("HTTPS_PROXY", "socks6://me:hunter2@127.0.0.1:1080");
    let run = sandbox.refresh(&["--force"]).exits(78).says("HTTPS_PROXY does not name a proxy that can be used");
    assert!(!(run.stdout + &run.stderr).contains("hunter2"));
    assert_eq!(sandbox.status()["state"], "fresh");
}

#[test]
fn loopback_is_never_reached_through_a_proxy() {
    let server = AuthServer::start(RotationMode::Strict);
    let proxy = TunnelProxy::start(None);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let mut sandbox = signed_in(&server, &endpoint);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        sandbox.set_env(name, &proxy.url());
    }
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.requests().len(), 0);
}

/// The values of a header of the newest token request.
fn header(server: &AuthServer, name: &str) -> Vec<String> {
    let headers = server.last_headers();
    headers.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

#[test]
fn configured_headers_override_the_default_headers() {
    let server = AuthServer::start(RotationMode::Strict);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let sandbox = signed_in(&server, &endpoint);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(header(&server, "user-agent"), [concat!("keepalive/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(header(&server, "accept"), ["application/json"]);
    let own = "headers = { \"User-Agent\" = \"acme/1.0\", X-Team = \"a b\", accept = \"application/vnd.acme+json\" }\n";
    configure(&sandbox, &format!("{endpoint}{own}"));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(header(&server, "user-agent"), ["acme/1.0"]);
    assert_eq!(header(&server, "x-team"), ["a b"]);
    assert_eq!(header(&server, "accept"), ["application/vnd.acme+json"]);
}

#[test]
fn request_body_is_form_or_json_with_extra_parameters() {
    let server = AuthServer::start(RotationMode::Strict);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let more = "parameters = { resource = \"https://api.acme.example/?a&b\", audience = \"x y\" }\n";
    for (body, kind) in [("form", "application/x-www-form-urlencoded"), ("json", "application/json")] {
        let sandbox = signed_in(&server, &format!("{endpoint}{more}body = \"{body}\"\n"));
        sandbox.refresh(&["--force"]).exits(0);
        assert_eq!(header(&server, "content-type"), [kind]);
        let form = server.last_form();
        let member = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(member("resource"), Some("https://api.acme.example/?a&b"), "{form:?}");
        assert_eq!((member("audience"), member("grant_type")), (Some("x y"), Some("refresh_token")));
    }
}

#[test]
fn configured_error_codes_decide_the_outcome() {
    let server = AuthServer::start(RotationMode::Strict);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let codes = "dead_codes = [\"account_inactive\"]\nclient_codes = [\"bad_client_secret\"]\n";
    for (answer, exit, state) in [
        (r#"{"ok":false,"error":"account_inactive"}"#, 77, "needs_login"),
        (r#"{"ok":false,"error":"bad_client_secret"}"#, 78, "config_error"),
        (r#"{"ok":false,"error":"somebody_elses"}"#, 75, "fresh"),
    ] {
        let sandbox = signed_in(&server, &format!("{endpoint}{codes}"));
        server.script([Fault::Respond(200, JSON, answer)]);
        sandbox.refresh(&["--force"]).exits(exit);
        assert_eq!(sandbox.status()["state"], state);
    }
}
