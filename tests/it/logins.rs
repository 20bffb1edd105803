//! `login` against a certified authorization server, with a scripted person in the browser's place.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use url::Url;

use super::support::authserver::{AuthServer, Fault};
use super::support::bus::{Bus, Keyring};
use super::support::family::Mode;
use super::support::oidc::OidcProvider;
use super::support::person::{Person, give_browser, url_given};
use super::support::sandbox::{PROGRAM, Process, Sandbox};

const SCOPES: &str = "scopes = [\"openid\", \"offline_access\", \"api\"]\n";

fn at(server: &OidcProvider) -> Sandbox {
    at_with(server, "")
}

fn at_with(server: &OidcProvider, extra: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}{SCOPES}{extra}[profile.demo]\nprovider = \"oidc\"\n", server.provider()));
    sandbox
}

/// The first URL on stderr that begins so, once it is there.
fn url_said(process: &Process, beginning: &str) -> String {
    process.wait_for_line(beginning);
    let said = process.stderr_so_far();
    said.split_whitespace().find(|word| word.starts_with(beginning)).unwrap().to_owned()
}

/// Every file of the store but the remembered metadata, byte for byte.
fn stored(sandbox: &Sandbox) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut stack = vec![sandbox.path("state/keepalive")];
    while let Some(dir) = stack.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true if path.ends_with("metadata") => {}
                true => stack.push(path),
                false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    assert!(files.len() > 3, "{files:?}");
    files
}

fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(k, _)| k == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_browser_login_brings_a_credential_that_is_kept_alive() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["--json", "login", "demo"]);
    let url = url_given(&seen);
    let redirect = Url::parse(&parameter(&url, "redirect_uri")).unwrap();
    assert_eq!(parameter(&url, "code_challenge_method"), "S256");
    let page = Person::new("ada").sign_in(&url);
    assert_eq!((page.status, page.url.path()), (200, "/callback"));
    assert!(page.text.contains("You can close this page"), "{}", page.text);
    let run = login.finish().exits(0).says("demo: signed in as ada, fresh until 2").says(", next refresh 2");
    let document = run.json();
    assert_eq!((&document["account"], &document["generation"]), (&json!("ada"), &json!(1)));
    let port = redirect.port().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is closed");
    let token = sandbox.keepalive(&["token", "demo", "--min-valid", "1s"]).exits(0).stdout;
    assert!(server.accepts(token.trim()));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn nothing_that_is_secret_is_said_or_seen() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["-vv", "login", "demo"]);
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", login.id())).unwrap_or_default();
    let url = url_given(&seen);
    let page = Person::new("ada").sign_in(&url);
    let run = login.finish().exits(0);
    let code = parameter(page.url.as_str(), "code");
    for text in [&run.stderr, &run.stdout, &arguments, &page.text] {
        assert!(!text.contains(&code) && !text.contains("code_verifier"), "{text}");
    }
    let token = sandbox.keepalive(&["token", "demo", "--min-valid", "1s"]).exits(0).stdout;
    assert!(!run.stderr.contains(token.trim()));
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_client_with_a_secret_signs_in_and_refreshes() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = Sandbox::new();
    let provider = server.confidential(&sandbox.path("home/secret"));
    sandbox.file_store(&format!("{provider}{SCOPES}"));
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "work", "--provider", "oidc"]);
    Person::new("ada").sign_in(&url_given(&seen));
    login.finish().exits(0).says("work: signed in as ada");
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_dead_credential_is_replaced_and_needs_login_goes_away() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let first = server.mint();
    sandbox.import("demo", &first).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let thief = at(&server);
    thief.import("demo", &first).exits(0);
    thief.refresh(&["--force"]).exits(77);
    sandbox.refresh(&["--force"]).exits(77);
    assert_eq!(sandbox.status()["state"], "needs_login");
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    Person::new("ada").sign_in(&url_given(&seen));
    login.finish().exits(0);
    let status = sandbox.status();
    assert_eq!((&status["state"], &status["generation"]), (&json!("fresh"), &json!(3)));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 1, "the thief's alone");
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn one_that_is_interrupted_or_refused_changes_nothing() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let before = stored(&sandbox);
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    url_given(&seen);
    login.wait_for_line("waiting for the browser");
    login.interrupt();
    login.finish().exits(1).says("interrupted; nothing was changed");
    let login = sandbox.spawn(&["login", "demo"]);
    let page = Person::refusing("ada").sign_in(&url_given(&seen));
    assert!(page.status == 400 && page.text.contains("Not signed in"), "{}", page.text);
    login.finish().exits(1).says("oidc says access_denied");
    assert_eq!(stored(&sandbox), before);
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn every_wait_can_be_interrupted() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    for (way, words) in
        [("--device", "waiting, for 10m at most"), ("--paste", "waiting for the paste, for 10m at most")]
    {
        let command = sandbox.keepalive_command(&["login", "demo", way]).stdin(Stdio::piped()).spawn().unwrap();
        let login = Process::new(command);
        login.wait_for_line(words);
        login.terminate();
        login.finish().exits(1).says("interrupted; nothing was changed");
    }
    sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn the_other_loopback_address_will_do() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at_with(&server, "redirect_uri = \"http://[::1]/callback\"\n");
    let seen = give_browser(&mut sandbox);
    if TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 says so.
        sandbox.keepalive(&["login", "demo"]).exits(1).says("cannot listen on loopback");
        return;
    }
    let login = sandbox.spawn(&["login", "demo"]);
    let page = Person::new("ada").sign_in(&url_given(&seen));
    assert_eq!((page.status, page.url.host_str()), (200, Some("[::1]")));
    login.finish().exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_redirect_of_another_attempt_or_server_brings_nothing() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = give_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    let url = url_given(&seen);
    let (redirect, state) = (parameter(&url, "redirect_uri"), parameter(&url, "state"));
    let mut visitor = Person::new("mallory");
    let mut get = |tail: &str| visitor.get(&format!("{redirect}{tail}").parse().unwrap());
    assert_eq!(get("?code=c&state=guessed").status, 400);
    assert_eq!(get("/../favicon.ico").status, 404);
    login.wait_for_line("a redirect was turned away: it had another state");
    let page = get(&format!("?code=c&state={state}&iss=https%3A%2F%2Fevil.example"));
    assert_eq!(page.status, 400);
    login.finish().exits(1).says("the redirect comes from https://evil.example");
    let login = sandbox.spawn(&["login", "demo"]);
    let url = url_given(&seen);
    let (redirect, state) = (parameter(&url, "redirect_uri"), parameter(&url, "state"));
    Person::new("mallory").get(&format!("{redirect}?code=c&state={state}").parse().unwrap());
    login.finish().exits(1).says("the redirect comes from nobody");
    sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_registered_port_is_used_in_both_families_or_not_at_all() {
    let server = OidcProvider::start(60, 0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut sandbox = at_with(&server, &format!("redirect_uri = \"http://localhost:{port}/auth/callback\"\n"));
    let seen = give_browser(&mut sandbox);
    sandbox.keepalive(&["login", "demo"]).exits(1).says(&format!("cannot listen on port {port}")).says("--paste");
    drop(taken);
    let login = sandbox.spawn(&["login", "demo"]);
    let url = url_given(&seen);
    assert_eq!(parameter(&url, "redirect_uri"), format!("http://localhost:{port}/auth/callback"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(TcpStream::connect(("::1", port)).is_ok());
    }
    Person::new("ada").sign_in(&url);
    login.finish().exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_machine_without_a_browser_shows_a_code_for_another_device() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    let login = sandbox.spawn(&["login", "demo"]);
    login.wait_for_line("there is no browser on this machine, so another device will do");
    login.wait_for_line("type the code");
    let complete = url_said(&login, &format!("{}/device?user_code=", server.issuer()));
    let page = Person::new("grace").sign_in(&complete);
    assert!(page.text.contains("Sign-in Success"), "{}", page.text);
    login.finish().exits(0).says("demo: signed in as grace, fresh until 2");
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn a_pasted_address_or_code_will_do() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    for (generation, is_bare) in [(1, false), (2, true)] {
        let mut child = sandbox.keepalive_command(&["login", "demo", "--paste"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let login = Process::new(child);
        let url = url_said(&login, &format!("{}/auth?", server.issuer()));
        writeln!(keyboard, "\nnot what was asked for\nhttp://127.0.0.1:1/callback?code=x&state=old").unwrap();
        login.wait_for_line("neither a URL nor a code; paste again");
        login.wait_for_line("belongs to another sign-in; paste again");
        let back = Person::new("ada").sign_in_without_going_back(&url);
        let pasted = if is_bare { parameter(back.as_str(), "code") } else { back.to_string() };
        writeln!(keyboard, "{pasted}").unwrap();
        login.finish().exits(0).says("demo: signed in as ada");
        assert_eq!(sandbox.status()["generation"], generation);
    }
    sandbox.keepalive(&["login", "demo", "--paste"]).exits(1).says("standard input ended");
    assert_eq!(sandbox.status()["generation"], 2);
}

/// A sandbox without a browser at a server that can misbehave.
fn with_device_flow(server: &AuthServer) -> Sandbox {
    let sandbox = Sandbox::new();
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", server.url());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device)));
    sandbox
}

const PENDING: Fault = Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"authorization_pending"}"#);
const SLOW_DOWN: Fault = Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"slow_down"}"#);

#[test]
fn a_device_login_keeps_the_servers_pace_and_outlasts_its_hiccups() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = with_device_flow(&server);
    server.script([PENDING, Fault::DropBefore, SLOW_DOWN]);
    let begun = std::time::Instant::now();
    let run = sandbox.keepalive(&["login", "demo", "--device"]).exits(0);
    // 1 s, 1 s, 2 s after the connection that failed, 5 s more after slow_down.
    assert!(begun.elapsed().as_secs() >= 11, "{:?}", begun.elapsed());
    run.says("type the code AB-CD").says("asking on").says("demo: signed in, fresh until");
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn a_device_code_that_expires_or_is_refused_changes_nothing() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = with_device_flow(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let before = stored(&sandbox);
    for (status, body, exit, words) in [
        (400, r#"{"error":"expired_token"}"#, 1, "the code has expired"),
        (400, r#"{"error":"access_denied"}"#, 1, "acme says access_denied"),
        (401, r#"{"error":"invalid_client"}"#, 78, "check client_id"),
        (
            200,
            r#"{"access_token":"at","expires_in":60}"#,
            78,
            "allow refresh tokens in the client's settings there; where",
        ),
    ] {
        server.script([Fault::Answer(status, "content-type: application/json\r\n", body)]);
        sandbox.keepalive(&["login", "demo"]).exits(exit).says(words);
    }
    assert_eq!(stored(&sandbox), before);
    let provider = server.provider(&format!("device_authorization_endpoint = \"{}/device\"\n{SCOPES}", server.url()));
    sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n"));
    server.script([Fault::Answer(200, "content-type: application/json\r\n", r#"{"access_token":"at"}"#)]);
    sandbox.keepalive(&["login", "demo"]).exits(78).says("some servers want prompt=consent");
}

#[test]
fn what_cannot_be_is_said_before_anybody_signs_in() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox.keepalive(&["login", "demo"]).exits(78).says("acme names no authorization_endpoint");
    sandbox.keepalive(&["login", "demo", "--device"]).exits(78).says("names no device_authorization_endpoint");
    sandbox.keepalive(&["login", "demo", "--device", "--paste"]).exits(2);
    sandbox.keepalive(&["login", "demo", "--provider", "xai"]).exits(78).says("is configured for acme, not for xai");
    sandbox.keepalive(&["login", "nobody"]).exits(78).says("no provider is named for it");
    let with_device = with_device_flow(&server);
    std::fs::remove_file(with_device.path("home/key")).unwrap();
    let run = with_device.keepalive(&["login", "demo"]);
    assert!(!run.stderr.contains("type the code") && run.status != 0, "{run:#?}");
}

#[test]
fn a_login_settles_a_doubt_and_may_lead_to_another_provider() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = with_device_flow(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(sandbox.status()["state"], "in_doubt");
    sandbox.keepalive(&["login", "demo"]).exits(0);
    assert_eq!(sandbox.status()["state"], "fresh");
    sandbox.refresh(&["--force"]).exits(0);
    let other = AuthServer::start(Mode::Strict);
    // Test servers count their tokens: those of the third sign-in are not known here from the first server.
    other.mint();
    other.mint();
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", other.url());
    let provider = other.provider(&device).replace("[provider.acme]", "[provider.other]");
    sandbox.file_store(&provider);
    sandbox.keepalive(&["login", "demo", "--provider", "other"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!((server.counts().presented_again, other.counts().refresh_ok), (0, 1));
}

#[test]
fn r22_a_login_that_brings_the_same_refresh_token_brings_its_access_token_and_clears_a_refusal() {
    let server = AuthServer::start(Mode::NoRotation { echo: false });
    let sandbox = Sandbox::new();
    let device = format!("rotation = \"none\"\ndevice_authorization_endpoint = \"{}/device\"\n", server.url());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device)));
    let mut answer = server.mint();
    answer["expires_in"] = json!(1);
    sandbox.import("demo", &answer).exits(0);
    let same = || Fault::Members(json!({"refresh_token": answer["refresh_token"]}));
    let dead = Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    let mut tokens = vec![answer["access_token"].as_str().unwrap().to_owned()];
    for is_dead in [false, true] {
        if is_dead {
            server.script([dead.clone()]);
            sandbox.refresh(&["--force"]).exits(77);
            sandbox.import("demo", &answer).exits(1).says("already used or refused");
        }
        server.script([same()]);
        sandbox.keepalive(&["login", "demo"]).exits(0).says("demo: signed in, fresh until 2");
        assert_eq!(sandbox.status()["state"], "fresh");
        let requests = server.counts().refresh_requests;
        let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
        assert!(!tokens.contains(&token), "it is the one that the login brought");
        tokens.push(token);
        assert_eq!(server.counts().refresh_requests, requests);
    }
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn a_keyring_gets_the_credential_and_a_locked_one_is_found_out_first() {
    let server = AuthServer::start(Mode::Strict);
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", server.url());
    let text = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device));
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let _bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    sandbox.keepalive(&["login", "demo"]).exits(0);
    assert_eq!(sandbox.status()["publication"], "published");
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let bus = Bus::start(&mut sandbox, Keyring::Unlocked);
    server.script([Fault::Answer(400, "content-type: application/json\r\n", r#"{"error":"access_denied"}"#)]);
    sandbox.keepalive(&["login", "demo"]).exits(1);
    let keys = bus.secret_tool(&["search", "--all", "service", "keepalive-key"], "");
    assert!(!(keys.stdout + &keys.stderr).contains("username"), "a first login that failed leaves no key");
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let _bus = Bus::start(&mut sandbox, Keyring::Locked);
    let run = sandbox.keepalive(&["login", "demo"]).exits(69);
    assert!(!run.stderr.contains("type the code"), "{run:#?}");
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn a_terminal_shows_a_qr_code_and_how_long_there_is() {
    let server = AuthServer::start(Mode::Strict);
    let sandbox = with_device_flow(&server);
    let mut script = sandbox.command(Path::new("script"));
    script.args(["-qefc", &format!("{PROGRAM} login demo"), "/dev/null"]).env("TERM", "xterm");
    let out = script.output().expect("script is needed: contrib/test installs it");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("████ ▄▄▄▄▄ █") && text.contains("\r  0:20 left"), "{text}");
}
