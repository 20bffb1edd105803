//! What a person at a terminal sees, as files to look at: `tests/screens/*.txt`. `KEEPALIVE_BLESS=1` writes them anew.

use std::fs::File;
use std::io::{Read, Seek};
use std::time::Duration;

use regex::Regex;

use super::support::auth_server::{AuthServer, Fault};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;
use super::support::{eventually, root};

/// What differs from run to run, and the fixed word for it.
const REDACTIONS: [(&str, &str); 9] = [
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", "YYYY-MM-DDThh:mm:ssZ"),
    ("in [0-9]{2}m", "in NNm"),
    ("[0-9]s ago", "Ns ago"),
    ("valid for [0-9]+ s", "valid for N s"),
    ("127[.]0[.]0[.]1:[0-9]+", "127.0.0.1:PORT"),
    ("/[^ ]*/keepalive-test-[A-Za-z0-9]+", "/SANDBOX"),
    (r"\b[0-9a-f]{16}\b", "KEY-ID"),
    ("filesystem: [a-z0-9]+", "filesystem: FILESYSTEM"),
    ("responds in [0-9]+ ms", "responds in N ms"),
];

/// Long enough that every time to come is shown in minutes of two digits, so that columns keep their width.
const LIFE: Duration = Duration::from_secs(45 * 60);

fn redact(text: &str) -> String {
    REDACTIONS
        .iter()
        .fold(text.to_owned(), |text, (shape, word)| Regex::new(shape).unwrap().replace_all(&text, *word).into_owned())
}

/// Runs the program with both outputs on one screen, and compares that with `tests/screens/NAME.txt`.
#[track_caller]
fn shows(sandbox: &Sandbox, name: &str, line: &str) {
    let screen = sandbox.path("screen");
    let output = File::options().create(true).truncate(true).write(true).read(true).open(&screen).unwrap();
    let mut command = sandbox.keepalive_command(&line.split(' ').collect::<Vec<_>>());
    command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
    let status = command.status().unwrap();
    let (mut output, mut text) = (output, String::new());
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    let shown = redact(&format!("$ keepalive {line}\n{text}[{status}]\n"));
    let path = root().join(format!("tests/screens/{name}.txt"));
    if std::env::var_os("KEEPALIVE_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == expected, "{name}.txt says:\n{expected}\nshown is:\n{shown}\nKEEPALIVE_BLESS=1 writes it anew");
}

fn started() -> AuthServer {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(LIFE);
    server
}

const JSON: &str = "content-type: application/json\r\n";

#[test]
fn screens_show_a_healthy_profile() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    shows(&sandbox, "status-fresh", "status");
    shows(&sandbox, "token-fresh", "token demo");
    shows(&sandbox, "doctor-fresh", "doctor");
    shows(&sandbox, "refresh-not-due", "refresh");
    shows(&sandbox, "refresh-forced", "refresh --force");
}

#[test]
fn screens_show_a_profile_that_is_due() {
    let server = started();
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    let mut response = server.mint();
    response["expires_in"] = 1.into();
    sandbox.import("demo", &response).exits(0);
    eventually("the token expires", || (sandbox.status()["state"] == "expired").then_some(()));
    shows(&sandbox, "status-due", "status");
    shows(&sandbox, "refresh-due", "refresh");
}

#[test]
fn screens_show_a_failed_last_attempt() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(429, "retry-after: 2400\r\n", "")]);
    shows(&sandbox, "refresh-throttled", "refresh --force");
    shows(&sandbox, "status-throttled", "status");
    shows(&sandbox, "doctor-throttled", "doctor");
}

#[test]
fn screens_show_a_profile_that_needs_login() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(400, JSON, r#"{"error":"invalid_grant"}"#)]);
    shows(&sandbox, "refresh-needs-login", "refresh --force");
    shows(&sandbox, "status-needs-login", "status");
    shows(&sandbox, "doctor-needs-login", "doctor");
    shows(&sandbox, "token-needs-login", "token demo --min-valid 1h");
}

#[test]
fn screens_show_a_token_in_doubt() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::CommitThen(503, "")]);
    shows(&sandbox, "refresh-in-doubt", "refresh --force");
    shows(&sandbox, "status-in-doubt", "status");
    shows(&sandbox, "doctor-in-doubt", "doctor");
}

#[test]
fn screens_show_a_configuration_error() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    server.script([Fault::Respond(401, JSON, r#"{"error":"invalid_client"}"#)]);
    shows(&sandbox, "refresh-configuration-error", "refresh --force");
    shows(&sandbox, "status-configuration-error", "status");
    shows(&sandbox, "doctor-configuration-error", "doctor");
}

#[test]
fn screens_show_an_unavailable_store() {
    let server = started();
    let sandbox = Sandbox::signed_in(&server);
    std::fs::write(sandbox.path("state/keepalive/profiles/demo/sealed"), "damaged").unwrap();
    shows(&sandbox, "status-store-unavailable", "status");
    shows(&sandbox, "doctor-store-unavailable", "doctor");
    shows(&sandbox, "token-store-unavailable", "token demo");
    shows(&sandbox, "refresh-store-unavailable", "refresh");
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    shows(&sandbox, "status-key-missing", "status");
}

#[test]
fn screens_show_logins_and_logouts() {
    let server = started();
    let sandbox = Sandbox::new();
    let profile = "[profile.demo]\nprovider = \"acme\"\n";
    sandbox.file_store(&format!("{}{profile}", server.provider("")));
    shows(&sandbox, "status-no-credential", "status");
    shows(&sandbox, "token-no-credential", "token demo");
    shows(&sandbox, "login-impossible", "login demo");
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", server.url());
    sandbox.file_store(&format!("{}{device}{profile}", server.provider("")));
    server.script([Fault::Respond(400, JSON, r#"{"error":"access_denied"}"#)]);
    shows(&sandbox, "login-denied", "login demo");
    shows(&sandbox, "login", "login demo");
    shows(&sandbox, "logout-not-revoked", "logout demo");
    sandbox.file_store(&format!("{}{device}{profile}", server.provider_with_revocation([])));
    sandbox.keepalive(&["login", "demo"]).exits(0);
    shows(&sandbox, "logout", "logout demo");
}

/// A file that no test compares would go on showing an old screen.
#[test]
fn every_screen_file_belongs_to_a_test() {
    let source = include_str!("screens.rs");
    let files: Vec<_> = std::fs::read_dir(root().join("tests/screens")).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.len() >= 15, "{files:?}");
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "{} belongs to no test", file.display());
    }
}
