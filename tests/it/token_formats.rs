//! `token --format`: the programs that read a format get through with it, and a failure prints no part of one.

use std::path::Path;

use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, Fault};
use super::support::guarded_files::GuardedFiles;
use super::support::sandbox::{PROGRAM, Sandbox};
use super::support::token_family::RotationMode;

fn printed(sandbox: &Sandbox, format: &str) -> String {
    sandbox.keepalive(&["token", "demo", "--format", format]).exits(0).stdout
}

fn shell(sandbox: &Sandbox, script: &str) -> String {
    let mut bash = sandbox.command(Path::new("bash"));
    let out = bash.args(["-euo", "pipefail", "-c", script]).env("KEEPALIVE", PROGRAM).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn each_format_has_the_token_and_its_end() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let token = printed(&sandbox, "raw").trim().to_owned();
    assert!(server.is_live(&token));
    assert_eq!(printed(&sandbox, "header"), format!("Authorization: Bearer {token}\n"));
    assert_eq!(printed(&sandbox, "curl"), format!("header = \"Authorization: Bearer {token}\"\n"));
    let parsed = |format: &str| -> Value { serde_json::from_str(&printed(&sandbox, format)).unwrap() };
    let document = parsed("json");
    assert_eq!(
        (&document["profile"], &document["outcome"], &document["warnings"]),
        (&json!("demo"), &json!("fresh"), &json!([]))
    );
    let left = document["expires_in"].as_u64().unwrap();
    assert!((500..=600).contains(&left), "{document}");
    let kubectl = parsed("kubectl");
    assert_eq!((&kubectl["kind"], &kubectl["status"]["token"]), (&json!("ExecCredential"), &json!(token)));
    assert!(kubectl["status"]["expirationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(parsed("grok")["access_token"], json!(token));
    let value = shell(
        &sandbox,
        "eval \"$($KEEPALIVE token demo --format env --env MINE)\"; echo \"$MINE $KEEPALIVE_EXPIRES_AT\"",
    );
    assert!(value.starts_with(&format!("{token} 20")), "{value}");
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 41.
#[test]
fn grok_gets_another_token_after_a_rejection() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let before = printed(&sandbox, "raw");
    sandbox.age_token("demo", std::time::Duration::from_secs(120));
    sandbox.set_env("GROK_AUTH_EXPIRED", "1");
    assert_eq!(printed(&sandbox, "raw"), before, "another program's variable");
    for _ in 0..2 {
        let given: Value = serde_json::from_str(&printed(&sandbox, "grok")).unwrap();
        assert!(server.is_live(given["access_token"].as_str().unwrap()) && given["access_token"] != before.trim());
    }
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn failing_format_prints_one_line_and_no_output() {
    let sandbox = Sandbox::new();
    sandbox.file_store("");
    for format in ["raw", "header", "curl", "env", "kubectl", "grok"] {
        let run = sandbox.keepalive(&["token", "nobody", "--format", format]).exits(77);
        assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:?}");
        assert!(run.stderr.contains("keepalive login nobody"), "{run:?}");
    }
    // Google's client shows the message of a document, and only after the exit status 0.
    let run = sandbox.keepalive(&["token", "nobody", "--format", "gcloud-executable"]).exits(0);
    let document = run.json();
    assert_eq!((&document["success"], &document["version"]), (&json!(false), &json!(1)));
    assert!(document["message"].as_str().unwrap().contains("keepalive login nobody"), "{document}");
    sandbox.keepalive(&["token", "nobody", "--env", "X"]).exits(2).says("--env is for --format env");
    sandbox.keepalive(&["token", "nobody", "--format", "env", "--env", "1X"]).exits(2);
}

/// An ID token, unsigned.
fn id_token(exp: i64) -> String {
    use base64::Engine as _;
    let part = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.sig", part(json!({"alg": "none"})), part(json!({"sub": "me", "exp": exp})))
}

#[test]
fn id_token_is_given_only_to_those_that_ask_for_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let mine = id_token(chrono::Utc::now().timestamp() + 3600);
    server.script([Fault::ReplaceMembers(json!({"id_token": mine}))]);
    sandbox.refresh(&["--force"]).exits(0);
    let look = |sandbox: &Sandbox| {
        let with = sandbox.keepalive(&["token", "demo", "--format", "json", "--id-token"]).exits(0).json();
        assert_eq!(with["id_token"], json!(mine));
        assert!(!printed(sandbox, "json").contains("id_token"));
        let google: Value = serde_json::from_str(&printed(sandbox, "gcloud-executable")).unwrap();
        assert_eq!((&google["success"], &google["id_token"]), (&json!(true), &json!(mine)));
        assert_eq!(google["token_type"], "urn:ietf:params:oauth:token-type:id_token");
        assert!(google.get("access_token").is_none());
    };
    look(&sandbox);
    let _daemon = sandbox.daemon();
    look(&sandbox);
}

#[ignore = "needs curl; contrib/test runs it"]
#[test]
fn curl_sends_the_token_from_its_configuration_or_a_header() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let wanted = printed(&sandbox, "raw").trim().to_owned();
    std::fs::create_dir_all(sandbox.path("web")).unwrap();
    std::fs::write(sandbox.path("web/me"), "it is me").unwrap();
    let files = GuardedFiles::serve(&sandbox.path("web"), "Bearer", move |request| {
        request.authorization() == Some(("Bearer".into(), wanted.clone()))
    });
    let url = format!("{}/me", files.url());
    let by_config = format!("$KEEPALIVE token demo --format curl | curl -fsS -K - {url}");
    let by_header = format!("curl -fsS -H @<($KEEPALIVE token demo --format header) {url}");
    assert_eq!([shell(&sandbox, &by_config), shell(&sandbox, &by_header)], ["it is me", "it is me"]);
}
