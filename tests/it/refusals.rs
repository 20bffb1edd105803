//! Refusals as real servers write them: what the program makes of their words, and what of them it shows.

use std::sync::Arc;

use super::support::auth_server::{AuthServer, CustomResponse, Fault, Issued};
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

const JSON: &str = "content-type: application/json\r\n";
const PAGE: &str = "<!doctype html><html><title>Sign in to the hotel</title></html>";

/// A first refresh that ends with this response.
fn refused(status: u16, headers: &'static str, body: &'static str) -> (AuthServer, Sandbox, Run) {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(status, headers, body)]);
    let run = sandbox.refresh(&["--force"]);
    (server, sandbox, run)
}

/// Rule 22. The threads are those of the unit tests of `provider::classify`.
#[test]
fn dead_token_is_named_whatever_the_server_calls_it() {
    for (status, body, words) in [
        (
            403,
            r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#,
            "refresh_token is invalid",
        ),
        (400, r#"{"status":400,"message":"Invalid refresh token"}"#, "acme returned 400 Invalid refresh token"),
        (
            400,
            r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#,
            "BAD_REFRESH_TOKEN: missing or invalid",
        ),
        (
            400,
            r#"{"error":"interaction_required","error_description":"AADSTS50076: use MFA"}"#,
            "acme wants a new sign-in",
        ),
        (400, r#"{"error":"login_required"}"#, "acme wants a new sign-in"),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"AADSTS53003: blocked","suberror":"message_only"}"#,
            "names a condition that may pass",
        ),
        (400, r#"{"error":"invalid_grant"}"#, "acme no longer accepts this login; sign in again: keepalive login demo"),
        (400, "The refresh token has expired.", "acme returned 400 The refresh token has expired."),
    ] {
        let (server, sandbox, run) = refused(status, JSON, body);
        run.exits(77).says(words);
        assert_eq!(sandbox.status()["state"], "needs_login", "{body}");
        sandbox.refresh(&[]).exits(77);
        assert_eq!(server.counts().refresh_requests, 1, "{body}");
    }
}

#[test]
fn unknown_refusal_shows_the_words_and_names_dead_codes() {
    let (_server, sandbox, run) = refused(400, JSON, r#"{"error":"E4711","message":"ask the operator"}"#);
    let run = run.exits(75).says("acme returned 400 E4711: ask the operator");
    let run = run.says("dead_codes = [\"E4711\"] in [provider.acme]");
    assert!(!run.stderr.contains("unaffected"), "that is not known: {run:#?}");
    assert_eq!(sandbox.status()["state"], "fresh");
}

/// A code of every bad request in `dead_codes` would end a living token.
#[test]
fn only_a_code_of_its_own_is_offered_as_dead() {
    for (body, words) in [
        (
            r#"{"error":{"code":400,"message":"USER_NOT_FOUND","status":"INVALID_ARGUMENT"}}"#,
            "dead_codes = [\"USER_NOT_FOUND\"]",
        ),
        (r#"{"error":"Bad Request","message":"no"}"#, "the server did not say why"),
        (r#"{"error":"access_denied"}"#, "the server did not say why"),
        (r#"{"error":"APP_QUOTA"}"#, "if it means that the client is refused: client_codes = [\"APP_QUOTA\"]"),
    ] {
        let (_server, _sandbox, run) = refused(400, JSON, body);
        run.exits(75).says(words);
    }
}

/// Rule 24.
#[test]
fn client_refused_in_words_is_a_config_error() {
    for (status, body) in [
        (403, r#"{"status":403,"message":"invalid client secret"}"#),
        (400, r#"{"status":"BAD_CLIENT_ID","message":"missing or unknown client id"}"#),
        (200, r#"{"ok":false,"error":"bad_client_secret"}"#),
        (401, r#"{"error":"deleted_client"}"#),
        (400, r#"{"errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}"#),
        (400, r#"{"message":"User pool client abc does not exist."}"#),
        (401, "Client authentication failed"),
    ] {
        let (_server, sandbox, run) = refused(status, JSON, body);
        let run = run.exits(78).says("check client_id").says("keepalive login demo");
        assert!(!run.stderr.contains("dead_codes"), "{run:#?}");
        assert_eq!(run.result()["error"]["kind"], "client_refused", "{body}");
        assert_eq!(sandbox.status()["state"], "config_error", "{body}");
    }
    let challenge = "www-authenticate: Basic realm=\"a\", error=\"invalid_client\"\r\n";
    refused(401, challenge, "").2.exits(78).says("returned 401 invalid_client");
    refused(401, "www-authenticate: Bearer error=\"invalid_token\"\r\n", "").2.exits(75).says("an empty body");
}

#[test]
fn condition_beside_invalid_grant_is_named() {
    for words in ["ip restricted", "login hours restricted", "VPN required"] {
        let body = format!(r#"{{"error":"invalid_grant","error_description":"{words}"}}"#);
        let (_server, _sandbox, run) = refused(400, JSON, Box::leak(body.into_boxed_str()));
        run.exits(77).says("names a condition that may pass").says("refresh --force -p demo");
    }
}

#[test]
fn condition_that_may_pass_is_tried_again() {
    let body = r#"{"error":"access_denied","error_description":"blocked by policy: outside of business hours"}"#;
    let (_server, sandbox, run) = refused(403, JSON, body);
    run.exits(75).says("a condition that may pass").says("outside of business hours");
    assert_eq!(sandbox.status()["state"], "fresh");
}

/// Rule 23.
#[test]
fn page_of_something_else_is_named_for_what_it_is() {
    for (status, body, words) in [
        (403, PAGE, "acme returned 403 and a web page (HTML), which no token endpoint writes"),
        (
            404,
            "<?xml version=\"1.0\"?><Error/>",
            "acme returned 404 and an XML document, which no token endpoint writes",
        ),
        (400, "", "acme returned 400 and an empty body"),
    ] {
        let (_server, sandbox, run) = refused(status, "", body);
        run.exits(75).says(words);
        assert_eq!(sandbox.status()["state"], "fresh", "{body}");
    }
    refused(200, "", PAGE).2.exits(75).says("the server returned 200 and a web page (HTML)");
}

#[test]
fn gateway_503_signs_nobody_out() {
    let (_server, sandbox, run) = refused(503, "content-type: text/plain\r\n", "no healthy upstream");
    run.exits(75).says("the refresh token is unaffected");
    assert_eq!(sandbox.status()["state"], "fresh");
    let (_server, _sandbox, run) = refused(503, "content-type: text/plain\r\n", "upstream request timeout");
    run.exits(75).says("may have been consumed").says("trust_503 = true in [provider.acme]");
}

/// Rule 24.
#[test]
fn client_error_after_a_refresh_means_the_token() {
    let body = r#"{"error":"invalid_request"}"#;
    let (server, sandbox, run) = refused(400, JSON, body);
    run.exits(78).says("keepalive login demo");
    drop((server, sandbox));
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.refresh(&["--force"]).exits(0);
    server.script([Fault::Respond(400, JSON, body)]);
    sandbox.refresh(&["--force"]).exits(77).says("the same request was accepted before");
}

/// Rule 22.
#[test]
fn rejection_ends_when_the_client_is_mended() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, JSON, r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    sandbox.refresh(&[]).exits(77);
    assert_eq!(server.counts().refresh_requests, 1);
    let config = sandbox.path("config/keepalive/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let mended = text.replace("[provider.acme]", "[provider.acme]\nparameters = { tenant = \"7\" }");
    std::fs::write(&config, mended).unwrap();
    sandbox.refresh(&[]).exits(0);
    assert_eq!((server.counts().refresh_requests, server.counts().refresh_ok), (2, 1));
    assert_eq!(sandbox.status()["state"], "fresh");
}

/// The rejection stands, and what the person changed is told with it.
#[test]
fn other_client_after_a_rejection_is_named() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, JSON, r#"{"error":"invalid_grant"}"#)]);
    sandbox.refresh(&["--force"]).exits(77);
    let config = sandbox.path("config/keepalive/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("client_id = \"public\"", "client_id = \"other\"")).unwrap();
    let told = "was issued to client public";
    sandbox.refresh(&[]).exits(77).says("invalid_grant").says(told).says("restore [provider.acme]");
    sandbox.refresh(&["--force"]).exits(78).says(told);
    let status = sandbox.status();
    assert!(status["error"]["message"].as_str().unwrap().contains(told), "{status}");
    assert_eq!(server.counts().refresh_requests, 1);
}

/// Quotes what was sent, in the ways in which servers write it.
fn quoting(status: &'static str, code: &'static str, secret: &'static str) -> Fault {
    let response = move |issued: &Issued| {
        let percent = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let sent = &issued.sent;
        let basic = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("{}:{}", percent("public"), percent(secret)),
        );
        let words = format!(
            "{} {} client_secret={secret}&x={} Basic {basic} no",
            &sent[..sent.len().min(20)],
            sent,
            percent(secret)
        );
        let body = serde_json::json!({"error": code, "error_description": words}).to_string();
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{JSON}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    Fault::Custom(CustomResponse { commits: false, response: Arc::new(response) })
}

/// Rule 37.
#[test]
fn quoted_secrets_of_a_request_are_shown_nowhere() {
    const SECRET: &str = "s3cr3t+/ of the client";
    for (status, code, exit) in [
        ("503 Service Unavailable", "temporarily_unavailable", 75),
        ("401 Unauthorized", "invalid_client", 78),
        ("400 Bad Request", "invalid_grant", 77),
        ("400 Bad Request", "E4711", 75),
    ] {
        let server = AuthServer::start(RotationMode::Strict);
        let mut sandbox = Sandbox::new();
        sandbox.set_env("CLIENT_SECRET", SECRET);
        let provider =
            server.provider("client_auth = \"client_secret_basic\"\nclient_secret = { env = \"CLIENT_SECRET\" }");
        sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n"));
        sandbox.import("demo", &server.mint()).exits(0);
        let sent = server.current_refresh_token(0);
        server.script([quoting(status, code, SECRET)]);
        let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force", "--json"]).exits(exit).says(" no");
        let record = std::fs::read_to_string(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
        let status = sandbox.keepalive(&["status", "--json"]);
        let doctor = sandbox.keepalive(&["doctor"]);
        let shown =
            [run.stdout, run.stderr, record, status.stdout, status.stderr, doctor.stdout, doctor.stderr].concat();
        for secret in [sent.as_str(), "s3cr3t", "s3cr3t%2B%2F", "czNjcjN0"] {
            assert!(!shown.contains(secret), "{code}: {secret} in {shown}");
        }
    }
}
