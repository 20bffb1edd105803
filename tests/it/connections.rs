//! The way to a server, and what a request looks like that goes there: private authorities, proxies, headers, bodies, codes.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::support::authserver::{AuthServer, Fault, Metadata};
use super::support::family::Mode;
use super::support::proxy::Proxy;
use super::support::sandbox::Sandbox;
use super::support::tls::{NAME, TlsFront};

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
fn a_private_authority_is_trusted_where_it_is_named() {
    let server = AuthServer::start(Mode::Strict);
    let tls = TlsFront::before(server.url());
    let endpoint = format!("token_endpoint = \"https://localhost:{}/token\"\n", tls.address().port());
    let sandbox = signed_in(&server, &endpoint);
    let run = sandbox.refresh(&["--force"]).exits(75);
    let error = &run.result()["error"];
    let again = format!("nothing was sent; it will be tried again at {}", run.result()["retry_at"].as_str().unwrap());
    assert_eq!(error["hint"], *again, "{run:#?}");
    assert!(error["message"].as_str().unwrap().contains("certificate"), "{run:#?}");
    assert_eq!(sandbox.status()["state"], "fresh", "no doubt comes of a certificate");
    assert_eq!(server.counts().refresh_requests, 0);
    let sandbox = signed_in(&server, &format!("{endpoint}{}", trusting(&tls.ca())));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn a_daemon_reads_a_file_of_authorities_that_was_replaced() {
    let server = AuthServer::start(Mode::Strict);
    server.set_access_life(Duration::from_secs(2));
    let (tls, other) = (TlsFront::before(server.url()), TlsFront::before(server.url()));
    let sandbox = Sandbox::new();
    let ca = sandbox.path("home/ca.pem");
    std::fs::copy(tls.ca(), &ca).unwrap();
    let endpoint = format!("token_endpoint = \"https://localhost:{}/token\"\n", tls.address().port());
    configure(&sandbox, &format!("{endpoint}{}", trusting(&ca)));
    sandbox.import("demo", &server.mint()).exits(0);
    let daemon = sandbox.daemon();
    server.wait_for("it trusts the first", |c| c.refresh_ok >= 1);
    std::fs::write(&ca, "").unwrap();
    daemon.wait_for_line("what was in it before stays in force");
    std::fs::copy(other.ca(), &ca).unwrap();
    daemon.wait_for_line("certificate");
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn endpoints_below_the_domain_are_discovered_over_tls() {
    let server = AuthServer::start(Mode::Strict);
    let tls = TlsFront::before(server.url());
    let issuer = format!("https://localhost:{}", tls.address().port());
    let document = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token")});
    server.set_metadata(Metadata::Other(JSON, document));
    let keys = format!("issuer = \"{issuer}\"\nendpoint_domain = \"localhost\"\n{}", trusting(&tls.ca()));
    let sandbox = signed_in(&server, &keys);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_a_matter_of_configuration() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::new();
    let ca = sandbox.path("home/ca.pem");
    configure(&sandbox, &format!("token_endpoint = \"https://localhost:1/token\"\n{}", trusting(&ca)));
    for text in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")] {
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let run = sandbox.import("demo", &server.mint());
        run.exits(78).says(&format!("cannot use {}", ca.display())).says("ca_file must name certificates in PEM");
    }
}

/// A provider elsewhere, at a name that no server has.
fn elsewhere(tls: &TlsFront) -> String {
    format!("token_endpoint = \"https://{NAME}/token\"\n{}", trusting(&tls.ca()))
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn other_machines_are_reached_through_the_proxy_of_the_environment() {
    let server = AuthServer::start(Mode::Strict);
    let tls = TlsFront::before(server.url());
    let proxy = Proxy::start(Some(tls.address()));
    let mut sandbox = signed_in(&server, &elsewhere(&tls));
    sandbox.set_env("HTTPS_PROXY", &proxy.url());
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.asked(), [format!("CONNECT {NAME}:443 HTTP/1.1")]);
    sandbox.set_env("NO_PROXY", NAME);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(proxy.asked().len(), 1);
    assert_eq!((server.counts().refresh_requests, server.counts().refresh_ok), (1, 1));
}

#[ignore = "needs openssl; contrib/test runs it"]
#[test]
fn a_proxy_that_refuses_costs_nothing() {
    let server = AuthServer::start(Mode::Strict);
    let tls = TlsFront::before(server.url());
    let proxy = Proxy::start(None);
    let mut sandbox = signed_in(&server, &elsewhere(&tls));
    sandbox.set_env("ALL_PROXY", &proxy.url());
    let run = sandbox.refresh(&["--force"]).exits(75);
    let hint = run.result()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.starts_with("nothing was sent; it will be tried again at "), "{hint}");
    assert!(!proxy.asked().is_empty());
    assert_eq!(sandbox.status()["state"], "fresh");
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn this_machine_is_never_reached_through_a_proxy() {
    let server = AuthServer::start(Mode::Strict);
    let proxy = Proxy::start(None);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let mut sandbox = signed_in(&server, &endpoint);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        sandbox.set_env(name, &proxy.url());
    }
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(proxy.asked().len(), 0);
}

/// The values of a header of the newest token request.
fn header(server: &AuthServer, name: &str) -> Vec<String> {
    let headers = server.last_headers();
    headers.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
}

#[test]
fn headers_are_added_and_those_of_the_user_go_first() {
    let server = AuthServer::start(Mode::Strict);
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
fn a_body_is_a_form_or_json_and_has_the_providers_parameters() {
    let server = AuthServer::start(Mode::Strict);
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
fn codes_of_the_providers_own_mean_what_its_section_says() {
    let server = AuthServer::start(Mode::Strict);
    let endpoint = format!("token_endpoint = \"{}/token\"\n", server.url());
    let codes = "dead_codes = [\"account_inactive\"]\nclient_codes = [\"bad_client_secret\"]\n";
    for (answer, exit, state) in [
        (r#"{"ok":false,"error":"account_inactive"}"#, 77, "needs_login"),
        (r#"{"ok":false,"error":"bad_client_secret"}"#, 78, "config_error"),
        (r#"{"ok":false,"error":"somebody_elses"}"#, 75, "fresh"),
    ] {
        let sandbox = signed_in(&server, &format!("{endpoint}{codes}"));
        server.script([Fault::Answer(200, JSON, answer)]);
        sandbox.refresh(&["--force"]).exits(exit);
        assert_eq!(sandbox.status()["state"], state);
    }
}
