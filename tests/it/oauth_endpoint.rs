//! The OAuth endpoint and the identity endpoint of Azure: what clients that refresh by themselves are told.

use std::time::Duration;

use serde_json::json;

use super::handles::{Served, bearer, jwt};
use super::support::api_client::{ApiClient, Reply};
use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::just_granted;
use super::support::token_family::RotationMode;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn grant(handle: &str, more: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={handle}{more}")
}

/// From now on, for as long as a test takes.
pub fn always(served: &Served, fault: Fault) {
    served.server.script(std::iter::repeat_n(fault, 200));
}

fn ask(served: &Served, handle: &str) -> Reply {
    served.client().post("/oauth/token", FORM, &grant(handle, ""))
}

/// What a client reads of a failure, which must be in the form of RFC 6749.
#[track_caller]
fn refused(reply: Reply, status: u16, error: &str) -> String {
    let reply = reply.expect(status);
    let body = reply.json();
    assert_eq!(body["error"], error, "{reply:#?}");
    assert_eq!(reply.field("retry-after").is_some(), status == 503, "{reply:#?}");
    assert!(reply.field("www-authenticate").is_none() && reply.field("content-type") == Some(JSON));
    let description = body["error_description"].as_str().unwrap().to_owned();
    assert!(description.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'), "{description}");
    assert!(!reply.body.contains("canary") && !reply.body.contains("kah_"), "{reply:#?}");
    description
}

#[test]
fn handle_is_exchanged_for_the_access_token() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let json = json!({"grant_type": "refresh_token", "refresh_token": handle, "client_id": "x", "scope": null, "n": 1});
    let basic = format!("authorization: Basic eDp5\r\n{}", bearer("nothing"));
    let mut client = served.client();
    let replies = [
        client.post(
            "/oauth/token",
            FORM,
            &grant(&handle, "&client_id=app&client_secret=s&scope=a&resource=r&audience=b"),
        ),
        client.post("/oauth/token", "", &grant(&handle, "&refresh_reason=proactive_expiry")),
        client.post("/oauth/token", "application/json; charset=utf-8", &json.to_string()),
        client.post("/oauth/token", &format!("{FORM}\r\n{}", basic.trim_end()), &grant(&handle, "")),
    ];
    for reply in replies {
        let reply = reply.expect(200);
        let body = reply.json();
        let members: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["access_token", "expires_in", "refresh_token", "token_type"]);
        assert!(served.server.is_live(body["access_token"].as_str().unwrap()));
        assert_eq!((&body["refresh_token"], &body["token_type"]), (&json!(handle), &json!("Bearer")));
        assert!((1..=600).contains(&body["expires_in"].as_u64().unwrap()), "{body}");
        assert_eq!((reply.field("cache-control"), reply.field("pragma")), (Some("no-store"), Some("no-cache")));
    }
    assert_eq!(served.server.counts().refresh_requests, 0);
}

#[test]
fn malformed_requests_are_told_apart() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let mut client = served.client();
    let twice = grant(&handle, "&refresh_token=x");
    let nested = json!({"grant_type": "refresh_token", "refresh_token": [handle]}).to_string();
    for (content_type, body, status, error) in [
        (FORM, "", 400, "invalid_request"),
        (FORM, "grant_type=refresh_token", 400, "invalid_request"),
        (FORM, "grant_type=refresh_token&refresh_token=", 400, "invalid_request"),
        (FORM, "grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        (FORM, &twice, 400, "invalid_request"),
        (JSON, &nested, 400, "invalid_request"),
        (JSON, "[]", 400, "invalid_request"),
        ("text/plain", &grant(&handle, ""), 415, "invalid_request"),
        (FORM, &grant("rt.1.abc", ""), 400, "invalid_grant"),
    ] {
        refused(client.post("/oauth/token", content_type, body), status, error);
    }
    let told = refused(client.post("/oauth/token", FORM, &grant(&handle[..52], "")), 400, "invalid_grant");
    assert!(told.contains("mistyped or cut"), "{told}");
    let big = "x".repeat(20_000);
    refused(client.post("/oauth/token", FORM, &big), 413, "invalid_request");
    let mut client = served.client();
    let reply = client.request("GET", &format!("/oauth/token?refresh_token={handle}"), "").expect(405);
    assert!(reply.json()["error"].is_string() && reply.field("allow") == Some("POST"), "{reply:#?}");
    let evil = "POST /oauth/token HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n";
    refused(served.client().raw(evil), 421, "invalid_request");
    let origin = format!("{FORM}\r\norigin: https://evil.example");
    refused(served.client().post("/oauth/token", &origin, &grant(&handle, "")), 403, "access_denied");
    refused(served.client().request("GET", "/oauth/authorize?client_id=x", ""), 400, "unsupported_response_type");
    for path in ["/oauth/device_authorization", "/oauth/register"] {
        refused(served.client().post(path, FORM, ""), 400, "unauthorized_client");
    }
    served.client().request("GET", "/.well-known/openid-configuration", "").expect(404);
    let list = served.sandbox.keepalive(&["--json", "handle", "list"]).json();
    served.sandbox.keepalive(&["handle", "revoke", list["handles"][0]["id"].as_str().unwrap()]).exits(0);
    refused(ask(&served, &handle), 400, "invalid_grant");
}

/// Signs in with a token of 10 minutes that was granted so many seconds ago.
pub fn sign_in_late(served: &Served, profile: &str, seconds: i64) {
    let mut answer = served.server.mint();
    answer["obtained_at"] = (chrono::Utc::now().timestamp_millis() - seconds * 1000).into();
    served.sandbox.keepalive_with_input(&["import", profile, "--replace"], &answer.to_string());
}

#[test]
fn failures_say_whether_a_person_must_act() {
    let served = Served::start();
    served.sandbox.import("other", &served.server.mint()).exits(0);
    let other = served.sandbox.keepalive(&["handle", "create", "other"]).exits(0).stdout.trim().to_owned();
    let handle = served.handle(&[]);
    // While the access token lives, a refresh that fails is no failure.
    let dead = r#"{"error":"invalid_grant"}"#;
    served.server.script([Fault::Respond(400, "content-type: application/json\r\n", dead)]);
    served.sandbox.keepalive(&["refresh", "-p", "other", "--force"]).exits(77);
    ask(&served, &other).expect(200);
    always(&served, Fault::Respond(429, "retry-after: 60\r\n", ""));
    served.sandbox.refresh(&["--force"]).exits(75);
    ask(&served, &handle).expect(200);
    sign_in_late(&served, "demo", 700);
    let told = refused(ask(&served, &handle), 503, "temporarily_unavailable");
    assert!(told.starts_with("demo: "), "{told}");
    served.sandbox.keepalive(&["logout", "other", "--forget"]);
    refused(ask(&served, &other), 400, "invalid_grant");
}

#[test]
fn dead_refresh_token_is_an_invalid_grant() {
    let served = Served::start();
    let handle = served.handle(&[]);
    always(&served, Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#));
    sign_in_late(&served, "demo", 700);
    assert_eq!(refused(ask(&served, &handle), 400, "invalid_grant"), "demo needs a login: keepalive login demo");
}

/// A client would throw the handle away for an invalid_grant, and needs it once the configuration is mended.
#[test]
fn wrong_configuration_throws_no_handle_away() {
    let served = Served::start();
    let handle = served.handle(&[]);
    always(&served, Fault::Respond(401, "", r#"{"error":"invalid_client"}"#));
    sign_in_late(&served, "demo", 700);
    refused(ask(&served, &handle), 503, "temporarily_unavailable");
}

/// A program that refreshes five minutes before the end would ask again at once, for ever.
#[test]
fn token_below_the_floor_counts_as_none() {
    let served = Served::start();
    let (plain, floor) = (served.handle(&[]), served.handle(&["--floor", "5m30s"]));
    ask(&served, &floor).expect(200);
    always(&served, Fault::Respond(429, "retry-after: 60\r\n", ""));
    sign_in_late(&served, "demo", 400);
    ask(&served, &plain).expect(200);
    refused(ask(&served, &floor), 503, "temporarily_unavailable");
    let body = grant(&floor, "&refresh_reason=unauthorized_recovery");
    refused(served.client().post("/oauth/token", FORM, &body), 503, "temporarily_unavailable");
    served.get("/v1/profiles/demo/token", &floor).expect(503);
    served.get("/v1/profiles/demo/token", &plain).expect(200);
}

/// Rule 41.
#[test]
fn rejected_tokens_of_many_clients_make_one_refresh() {
    let served = Served::start();
    let handle = served.handle(&["--min-valid", "1s"]);
    served.sandbox.age_token("demo", Duration::from_secs(120));
    let recovery = grant(&handle, "&refresh_reason=unauthorized_recovery");
    let first = ask(&served, &handle).expect(200).json();
    let mut clients: Vec<ApiClient> = (0..20).map(|_| served.client()).collect();
    for client in &mut clients {
        let fields = format!("content-length: {}\r\n", recovery.len());
        client.send("POST", "/oauth/token", &fields);
        std::io::Write::write_all(&mut client.stream, recovery.as_bytes()).unwrap();
    }
    for client in &mut clients {
        let given = client.reply().expect(200).json();
        assert!(given["access_token"] != first["access_token"] && given["refresh_token"] == json!(handle));
    }
    for _ in 0..3 {
        served.client().post("/oauth/token", FORM, &recovery).expect(200);
    }
    assert_eq!(served.server.counts().refresh_requests, 1);
}

#[test]
fn id_token_is_given_only_if_the_handle_says_so() {
    let served = Served::start();
    let mut answer = served.server.mint();
    answer["id_token"] = jwt("ada").into();
    served.sandbox.keepalive_with_input(&["import", "demo", "--replace"], &just_granted(&answer).to_string()).exits(0);
    let (with, without) = (served.handle(&["--id-token"]), served.handle(&[]));
    assert_eq!(ask(&served, &with).expect(200).json()["id_token"], jwt("ada"));
    assert!(ask(&served, &without).expect(200).json().get("id_token").is_none());
    let mut answer = served.server.mint();
    answer["id_token"] = "opaque".into();
    served.sandbox.keepalive_with_input(&["import", "demo", "--replace"], &just_granted(&answer).to_string()).exits(0);
    assert!(ask(&served, &with).expect(200).json().get("id_token").is_none());
}

#[test]
fn revocation_ends_the_handle_and_asks_no_provider() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let mut client = served.client();
    for body in ["token=rt.1.abc", "token=kah_x", "", "a=b"] {
        assert_eq!(client.post("/oauth/revoke", FORM, body).expect(200).body, "");
    }
    ask(&served, &handle).expect(200);
    let body = json!({"token": handle, "token_type_hint": "refresh_token"}).to_string();
    for _ in 0..2 {
        assert_eq!(client.post("/oauth/revoke", JSON, &body).expect(200).body, "");
    }
    refused(ask(&served, &handle), 400, "invalid_grant");
    assert!(served.server.revoked().is_empty() && served.server.counts().refresh_requests == 0);
    served.sandbox.keepalive(&["token", "demo"]).exits(0);
}

#[test]
fn metadata_names_the_endpoints() {
    let served = Served::start();
    let document = served.client().request("GET", "/.well-known/oauth-authorization-server", "").expect(200).json();
    let issuer = format!("http://127.0.0.1:{}", served.port);
    assert_eq!(document["issuer"], issuer);
    assert_eq!(document["token_endpoint"], format!("{issuer}/oauth/token"));
    assert_eq!(document["revocation_endpoint"], format!("{issuer}/oauth/revoke"));
    assert_eq!(document["grant_types_supported"], json!(["refresh_token"]));
}

#[test]
fn azure_client_gets_a_token_for_its_resource() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let mut client = served.client();
    let mut get = |query: &str, handle: &str| {
        client.request("GET", &format!("/msi/token?{query}"), &format!("x-identity-header: {handle}\r\n"))
    };
    let reply = get("api-version=2019-08-01&resource=https%3A%2F%2Fapi.example%2F", &handle).expect(200).json();
    assert!(served.server.is_live(reply["access_token"].as_str().unwrap()));
    assert_eq!((&reply["resource"], &reply["token_type"]), (&json!("https://api.example/"), &json!("Bearer")));
    let end: i64 = reply["expires_on"].as_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&(end - chrono::Utc::now().timestamp())), "{reply}");
    let failed = |reply: Reply, status: u16| {
        let body = reply.expect(status).json();
        assert_eq!(body["statusCode"], status, "{body}");
        assert_eq!(body["message"], body["error"]["message"]);
        body
    };
    failed(get("api-version=2019-08-01", &handle), 400);
    assert_eq!(failed(get("resource=r", &handle[..50]), 400)["error"]["code"], "invalid_grant");
    served.sandbox.keepalive(&["logout", "demo", "--forget"]);
    failed(get("resource=r", &handle), 400);
    served.client().request("GET", "/msi/token?resource=r", "").expect(400);
}

/// All of the above, watched at the highest verbosity.
#[test]
fn no_handle_and_no_token_is_in_logs_metrics_or_errors() {
    let served = Served::start_with(AuthServer::start(RotationMode::Strict), "-vvv");
    let handle = served.handle(&["--name", "canary-name"]);
    let metrics = served.sandbox.keepalive(&["handle", "create", "--metrics"]).exits(0).stdout.trim().to_owned();
    let mut said = Vec::new();
    let cut = &handle[..50];
    for presented in [handle.as_str(), cut, &metrics] {
        for body in
            [grant(presented, ""), grant(presented, "&refresh_reason=unauthorized_recovery"), format!("x={presented}")]
        {
            let reply = served.client().post("/oauth/token", FORM, &body);
            said.extend((reply.status != 200).then_some(reply.body));
        }
        for target in ["/v1/profiles/demo/token", "/v1/profiles/none/token", "/metrics", &format!("/v1/{presented}")] {
            let reply = served.get(target, presented);
            said.extend((reply.status != 200 || target == "/metrics").then_some(reply.body));
        }
        let target = format!("/v1/profiles/demo/token?{presented}=1");
        said.push(served.get(&target, presented).body);
        let fields = format!("x-identity-header: {presented}\r\n");
        let reply = served.client().request("GET", "/msi/token?resource=r", &fields);
        said.extend((reply.status != 200).then_some(reply.body));
    }
    let refresh = served.sandbox.refresh(&["--force"]).exits(0);
    served.client().post("/oauth/revoke", FORM, &format!("token={handle}")).expect(200);
    said.extend([refresh.stdout, refresh.stderr, served.daemon.stderr_so_far()]);
    let process =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", served.daemon.id())).unwrap_or_default();
    said.extend([process("cmdline"), process("environ")]);
    for file in ["handles.json", "listener.json"] {
        said.push(std::fs::read_to_string(served.sandbox.path("state/keepalive").join(file)).unwrap());
    }
    for text in said {
        let text = text.replace("kah_...", "");
        for secret in ["kah_", "canary-at", "canary-rt", &handle[4..30], &metrics[4..30]] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let log = served.daemon.stderr_so_far();
    assert!(log.contains("listener=\"tcp\"") && log.contains("/oauth/token"), "{log}");
}
