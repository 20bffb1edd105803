//! `token --format`: the programs that read a format get through with it, and a failure prints no part of one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

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

/// What a mail server answers to each command.
fn smtp_answer(line: &str, is_data: &mut bool) -> Option<&'static str> {
    let word = line.split(' ').next().unwrap_or_default();
    match word {
        "." if *is_data => {
            *is_data = false;
            Some("250 taken")
        }
        _ if *is_data => None,
        "EHLO" => Some("250-localhost\r\n250 AUTH XOAUTH2"),
        "AUTH" => Some("334 "),
        "DATA" => {
            *is_data = true;
            Some("354 go on")
        }
        "QUIT" => Some("221 bye"),
        _ => Some("250 ok"),
    }
}

/// Serves one sender; the credential that it gave.
fn mail_server(listener: TcpListener) -> String {
    use base64::Engine as _;
    let mut stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(super::support::PATIENCE)).unwrap();
    stream.write_all(b"220 localhost\r\n").unwrap();
    let (mut given, mut is_data, mut is_asked) = (String::new(), false, false);
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        if is_asked {
            given = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(&line).unwrap()).unwrap();
        }
        let answer = if is_asked { Some("235 welcome") } else { smtp_answer(&line, &mut is_data) };
        is_asked = line == "AUTH XOAUTH2";
        if let Some(answer) = answer {
            stream.write_all(format!("{answer}\r\n").as_bytes()).unwrap();
        }
    }
    given
}

#[ignore = "needs msmtp; contrib/test runs it"]
#[test]
fn msmtp_signs_in_with_the_raw_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let token = printed(&sandbox, "raw").trim().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mail = std::thread::spawn(move || mail_server(listener));
    let config = sandbox.path("home/msmtprc");
    let command = format!("passwordeval {PROGRAM} token demo");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\ntls off\nauth xoauth2\nuser me@acme.example\nfrom me@acme.example\n{command}\n"
    );
    std::fs::write(&config, text).unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut msmtp = sandbox.command(Path::new("msmtp"));
    msmtp.arg("-C").arg(&config).arg("you@acme.example").stdin(Stdio::piped());
    let mut child = msmtp.spawn().expect("msmtp is needed: contrib/test installs it");
    child.stdin.take().unwrap().write_all(b"Subject: hello\n\nhello\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(mail.join().unwrap(), format!("user=me@acme.example\x01auth=Bearer {token}\x01\x01"));
}
