//! `login` against a certified authorization server, with a scripted person in the browser's place.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use url::Url;

use super::support::auth_server::{AuthServer, Fault};
use super::support::browser_user::{BrowserUser, install_browser, wait_for_url};
use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::{PROGRAM, Process, Sandbox};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

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
                // They name the process that took them last.
                false if path.to_string_lossy().ends_with("lock") => {}
                false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    assert!(files.len() > 2, "{files:?}");
    files
}

fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(k, _)| k == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn browser_login_stores_a_credential_that_refreshes() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["--json", "login", "demo"]);
    let url = wait_for_url(&seen);
    let redirect = Url::parse(&parameter(&url, "redirect_uri")).unwrap();
    assert_eq!(parameter(&url, "code_challenge_method"), "S256");
    let page = BrowserUser::new("ada").sign_in(&url);
    assert_eq!((page.status, page.url.path()), (200, "/callback"));
    assert!(page.text.contains("You can close this page"), "{}", page.text);
    let run = login.finish().exits(0).says("demo: signed in as ada, valid until 2").says("no daemon is running");
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
fn login_output_and_arguments_contain_no_secret() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["-vv", "login", "demo"]);
    let url = wait_for_url(&seen);
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", login.id())).unwrap();
    assert!(arguments.contains("login"), "{arguments}");
    let page = BrowserUser::new("ada").sign_in(&url);
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
fn confidential_client_signs_in_and_refreshes() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = Sandbox::new();
    let provider = server.confidential(&sandbox.path("home/secret"));
    sandbox.file_store(&format!("{provider}{SCOPES}"));
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "work", "--provider", "oidc"]);
    BrowserUser::new("ada").sign_in(&wait_for_url(&seen));
    login.finish().exits(0).says("work: signed in as ada");
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn login_replaces_a_rejected_credential() {
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
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    BrowserUser::new("ada").sign_in(&wait_for_url(&seen));
    login.finish().exits(0);
    let status = sandbox.status();
    assert_eq!((&status["state"], &status["generation"]), (&json!("fresh"), &json!(3)));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.counts().presented_again, 1, "the thief's alone");
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn interrupted_or_denied_login_changes_nothing() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let before = stored(&sandbox);
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    wait_for_url(&seen);
    login.wait_for_line("for the browser");
    let exit = login.interrupt(1);
    login.finish().exits(exit).says("interrupted").says("nothing was changed");
    let login = sandbox.spawn(&["login", "demo"]);
    let page = BrowserUser::refusing("ada").sign_in(&wait_for_url(&seen));
    assert!(page.status == 400 && page.text.contains("Not signed in"), "{}", page.text);
    login.finish().exits(1).says("oidc returned access_denied");
    assert_eq!(stored(&sandbox), before);
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn device_and_paste_logins_can_be_interrupted() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    for (way, words) in [("--device", "waiting up to 10m …"), ("--paste", "waiting up to 10m for your input")] {
        let command = sandbox.keepalive_command(&["login", "demo", way]).stdin(Stdio::piped()).spawn().unwrap();
        let login = Process::new(command);
        login.wait_for_line(words);
        login.terminate();
        login.finish().exits(1).says("interrupted").says("nothing was changed");
    }
    sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn login_accepts_a_redirect_on_ipv6_loopback() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at_with(&server, "redirect_uri = \"http://[::1]/callback\"\n");
    let seen = install_browser(&mut sandbox);
    if TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 says so.
        sandbox.keepalive(&["login", "demo"]).exits(1).says("cannot listen on the loopback address");
        return;
    }
    let login = sandbox.spawn(&["login", "demo"]);
    let page = BrowserUser::new("ada").sign_in(&wait_for_url(&seen));
    assert_eq!((page.status, page.url.host_str()), (200, Some("[::1]")));
    login.finish().exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn redirect_with_a_wrong_state_or_issuer_is_refused() {
    let server = OidcProvider::start(60, 0);
    let mut sandbox = at(&server);
    let seen = install_browser(&mut sandbox);
    let login = sandbox.spawn(&["login", "demo"]);
    let url = wait_for_url(&seen);
    let (redirect, state) = (parameter(&url, "redirect_uri"), parameter(&url, "state"));
    let mut visitor = BrowserUser::new("mallory");
    let mut get = |tail: &str| visitor.get(&format!("{redirect}{tail}").parse().unwrap());
    assert_eq!(get("?code=c&state=guessed").status, 400);
    assert_eq!(get("/../favicon.ico").status, 404);
    login.wait_for_line("ignored a redirect: it has an unknown state");
    let at = format!("127.0.0.1:{}", redirect.parse::<url::Url>().unwrap().port().unwrap());
    let mut stream = TcpStream::connect(&at).unwrap();
    write!(stream, "GET /callback?code=c&state={state} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
    login.wait_for_line("ignored a redirect: it is for another host");
    let page = get(&format!("?code=c&state={state}&iss=https%3A%2F%2Fevil.example"));
    assert_eq!(page.status, 400);
    login.finish().exits(1).says("the redirect comes from https://evil.example");
    let login = sandbox.spawn(&["login", "demo"]);
    let url = wait_for_url(&seen);
    let (redirect, state) = (parameter(&url, "redirect_uri"), parameter(&url, "state"));
    BrowserUser::new("mallory").get(&format!("{redirect}?code=c&state={state}").parse().unwrap());
    login.finish().exits(1).says("the redirect comes from an unnamed server");
    sandbox.keepalive(&["status", "-p", "demo"]).exits(77);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn registered_port_is_bound_on_both_loopbacks_or_refused() {
    let server = OidcProvider::start(60, 0);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut sandbox = at_with(&server, &format!("redirect_uri = \"http://localhost:{port}/auth/callback\"\n"));
    let seen = install_browser(&mut sandbox);
    sandbox.keepalive(&["login", "demo"]).exits(1).says(&format!("cannot listen on port {port}")).says("--paste");
    drop(taken);
    let login = sandbox.spawn(&["login", "demo"]);
    let url = wait_for_url(&seen);
    assert_eq!(parameter(&url, "redirect_uri"), format!("http://localhost:{port}/auth/callback"));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(TcpStream::connect(("::1", port)).is_ok());
    }
    BrowserUser::new("ada").sign_in(&url);
    login.finish().exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn login_without_a_browser_uses_the_device_flow() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    let login = sandbox.spawn(&["login", "demo"]);
    login.wait_for_line("no browser on this machine; use another device");
    login.wait_for_line("enter the code");
    let complete = url_said(&login, &format!("{}/device?user_code=", server.issuer()));
    let page = BrowserUser::new("grace").sign_in(&complete);
    assert!(page.text.contains("Sign-in Success"), "{}", page.text);
    login.finish().exits(0).says("demo: signed in as grace, valid until 2");
    sandbox.refresh(&["--force"]).exits(0);
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn login_accepts_a_pasted_url_or_code() {
    let server = OidcProvider::start(60, 0);
    let sandbox = at(&server);
    for (generation, is_bare) in [(1, false), (2, true)] {
        let mut child = sandbox.keepalive_command(&["login", "demo", "--paste"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let login = Process::new(child);
        let url = url_said(&login, &format!("{}/auth?", server.issuer()));
        writeln!(keyboard, "\nnot what was asked for\nhttp://127.0.0.1:1/callback?code=x&state=old").unwrap();
        login.wait_for_line("that line is empty; paste the address");
        login.wait_for_line("neither a URL nor a code; paste again");
        login.wait_for_line("belongs to another login; paste again");
        let back = BrowserUser::new("ada").sign_in_without_going_back(&url);
        let pasted = if is_bare { parameter(back.as_str(), "code") } else { back.to_string() };
        writeln!(keyboard, "{pasted}").unwrap();
        login.finish().exits(0).says("demo: signed in as ada");
        assert_eq!(sandbox.status()["generation"], generation);
    }
    sandbox.keepalive(&["login", "demo", "--paste"]).exits(1).says("no usable address or code was entered");
    assert_eq!(sandbox.status()["generation"], 2);
}

/// A sandbox without a browser at a server that can misbehave.
fn with_device_flow(server: &AuthServer) -> Sandbox {
    let sandbox = Sandbox::new();
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", server.url());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device)));
    sandbox
}

const PENDING: Fault =
    Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"authorization_pending"}"#);
const SLOW_DOWN: Fault = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"slow_down"}"#);

#[test]
fn device_login_keeps_the_interval_and_survives_lost_responses() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    server.script([PENDING, Fault::DropBefore, SLOW_DOWN]);
    let begun = std::time::Instant::now();
    let run = sandbox.keepalive(&["login", "demo", "--device"]).exits(0);
    // 1 s, 1 s, 2 s after the connection that failed, 5 s more after slow_down.
    assert!(begun.elapsed().as_secs() >= 11, "{:?}", begun.elapsed());
    run.says("enter the code AB-CD").says("still waiting").says("demo: signed in, valid until");
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn pending_device_code_is_known_in_every_spelling() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    let json = "content-type: application/json\r\n";
    server.script([
        Fault::Respond(400, json, r#"{"errorCode":"AuthorizationPending"}"#),
        Fault::Respond(400, json, r#"{"__type":"AuthorizationPendingException","message":"Authorization is pending"}"#),
    ]);
    let run = sandbox.keepalive(&["login", "demo", "--device"]).exits(0);
    assert!(!run.stderr.contains("still waiting"), "{run:#?}");
}

#[test]
fn stopped_login_says_that_its_grant_is_lost() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let before = stored(&sandbox);
    let lock = std::fs::File::open(sandbox.lock_file("demo")).unwrap();
    lock.lock().unwrap();
    let login = sandbox.spawn(&["login", "demo", "--device"]);
    login.wait_for_line("the new one is stored after that");
    let exit = login.interrupt(75);
    login
        .finish()
        .exits(exit)
        .says("what this sign-in was granted is not stored and is lost")
        .says("keepalive login demo");
    drop(lock);
    assert_eq!(stored(&sandbox), before);
}

/// A refused code, as of a typing error, and then the right one.
#[test]
fn refused_paste_is_asked_for_again() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_browser(&server, "exit 1");
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    let mut child = sandbox.keepalive_command(&["login", "demo", "--paste"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let login = Process::new(child);
    writeln!(keyboard, "rubbish").unwrap();
    login.wait_for_line("that is no code of this sign-in, or it has ended; paste again");
    writeln!(keyboard, "code").unwrap();
    login.finish().exits(0).says("demo: signed in");
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#)]);
    let run = sandbox.keepalive_with_input(&["login", "demo", "--paste"], "rubbish\n");
    run.exits(1).says("acme returned invalid_grant");
}

#[test]
fn expired_or_denied_device_code_changes_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    let before = stored(&sandbox);
    for (status, body, exit, words) in [
        (400, r#"{"error":"expired_token"}"#, 1, "the code expired"),
        (400, r#"{"error":"access_denied"}"#, 1, "acme returned access_denied"),
        (401, r#"{"error":"invalid_client"}"#, 78, "check client_id"),
        (403, r#"{"status":403,"message":"invalid client secret"}"#, 78, "check client_id"),
        (400, r#"{"error":"deleted_client"}"#, 78, "check client_id"),
        (
            200,
            r#"{"access_token":"at","expires_in":60}"#,
            78,
            "allow refresh tokens in the client's settings there; requested scopes: none; if",
        ),
    ] {
        server.script([Fault::Respond(status, "content-type: application/json\r\n", body)]);
        sandbox.keepalive(&["login", "demo"]).exits(exit).says(words);
    }
    assert_eq!(stored(&sandbox), before);
    let provider = server.provider(&format!("device_authorization_endpoint = \"{}/device\"\n{SCOPES}", server.url()));
    sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n"));
    server.script([Fault::Respond(200, "content-type: application/json\r\n", r#"{"access_token":"at"}"#)]);
    sandbox.keepalive(&["login", "demo"]).exits(78).says("some servers need prompt=consent");
}

#[test]
fn impossible_login_is_refused_before_any_sign_in() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider("")));
    sandbox.keepalive(&["login", "demo"]).exits(78).says("provider acme has no authorization_endpoint");
    sandbox
        .keepalive(&["login", "demo", "--device"])
        .exits(78)
        .says("provider acme has no device_authorization_endpoint");
    sandbox.keepalive(&["login", "demo", "--device", "--paste"]).exits(2);
    sandbox.keepalive(&["login", "demo", "--provider", "xai"]).exits(78).says("is configured for acme, not for xai");
    sandbox.keepalive(&["login", "nobody"]).exits(77).says("no profile \"nobody\"");
    let with_device = with_device_flow(&server);
    std::fs::remove_file(with_device.path("home/key")).unwrap();
    let run = with_device.keepalive(&["login", "demo"]).exits(78).says("the key file").says("does not exist");
    assert!(!run.stderr.contains("enter the code"), "{run:#?}");
}

#[test]
fn store_that_would_refuse_a_login_is_found_before_it() {
    let server = AuthServer::start(RotationMode::Strict);
    for what in ["ledger", "ledger.lock", "tokens", "profiles/other/record.json"] {
        let sandbox = with_device_flow(&server);
        sandbox.import("demo", &server.mint()).exits(0);
        let store = sandbox.path("state/keepalive");
        for file in ["ledger", "ledger.lock"] {
            std::fs::remove_file(store.join(file)).unwrap_or_default();
        }
        std::fs::remove_dir_all(store.join("tokens")).unwrap_or_default();
        match what {
            "tokens" => std::fs::write(store.join(what), "").unwrap(),
            _ => std::fs::create_dir_all(store.join(what)).unwrap(),
        }
        let run = sandbox.keepalive(&["login", "demo"]).exits(69).says(what);
        assert!(!run.stderr.contains("enter the code"), "{what}: {run:#?}");
        sandbox.import("demo", &server.mint()).exits(69).says(what);
    }
}

#[test]
fn login_ends_in_doubt_and_may_change_the_provider() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    sandbox.import("demo", &server.mint()).exits(0);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]).exits(75);
    assert_eq!(sandbox.status()["state"], "in_doubt");
    sandbox.keepalive(&["login", "demo"]).exits(0);
    assert_eq!(sandbox.status()["state"], "fresh");
    sandbox.refresh(&["--force"]).exits(0);
    let other = AuthServer::start(RotationMode::Strict);
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

/// Rule 22.
#[test]
fn login_with_an_unchanged_refresh_token_clears_a_rejection() {
    let server = AuthServer::start(RotationMode::NoRotation { echo: false });
    let sandbox = Sandbox::new();
    let device = format!("rotation = \"none\"\ndevice_authorization_endpoint = \"{}/device\"\n", server.url());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device)));
    let mut answer = server.mint();
    answer["expires_in"] = json!(1);
    sandbox.import("demo", &answer).exits(0);
    let same = || Fault::ReplaceMembers(json!({"refresh_token": answer["refresh_token"]}));
    let dead = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
    let mut tokens = vec![answer["access_token"].as_str().unwrap().to_owned()];
    for is_dead in [false, true] {
        if is_dead {
            server.script([dead.clone()]);
            sandbox.refresh(&["--force"]).exits(77);
            sandbox.import("demo", &answer).exits(1).says("been used or rejected before").says("once more: --replace");
        }
        server.script([same()]);
        sandbox.keepalive(&["login", "demo"]).exits(0).says("demo: signed in, valid until 2");
        assert_eq!(sandbox.status()["state"], "fresh");
        let requests = server.counts().refresh_requests;
        let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
        assert!(!tokens.contains(&token), "it is the one that the login brought");
        tokens.push(token);
        assert_eq!(server.counts().refresh_requests, requests);
    }
    sandbox.refresh(&["--force"]).exits(0);
}

/// A sandbox whose `BROWSER` is a script with these lines; the URL is its first argument.
fn with_browser(server: &AuthServer, lines: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    let endpoint = format!("authorization_endpoint = \"{}/auth\"\n", server.url());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&endpoint)));
    let script = sandbox.path("home/script");
    std::fs::write(&script, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    sandbox.set_env("BROWSER", script.to_str().unwrap());
    sandbox
}

/// What the browser of a person brings back, for the URL that `login` shows.
fn go_back_from(server: &AuthServer, login: &Process) {
    let url = url_said(login, &format!("{}/auth?", server.url()));
    let redirect = format!("{}?code=c&state={}", parameter(&url, "redirect_uri"), parameter(&url, "state"));
    assert_eq!(BrowserUser::new("ada").get(&redirect.parse().unwrap()).status, 200);
}

/// A person waited ten minutes for a browser that had failed at once.
#[test]
fn browser_that_fails_is_told_and_the_link_still_works() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_browser(&server, "exit 3");
    let login = sandbox.spawn(&["login", "demo"]);
    login.wait_for_line("no browser opened: `");
    go_back_from(&server, &login);
    let run = login.finish().exits(0).says("script` failed with exit status: 3; open the link above by hand");
    run.says("sign in with --paste");
}

#[test]
fn browser_in_the_foreground_is_no_failure() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_browser(&server, "read line <fifo");
    let fifo = sandbox.path("home/fifo");
    assert!(sandbox.command(Path::new("mkfifo")).arg(&fifo).status().unwrap().success());
    let login = sandbox.spawn(&["login", "demo"]);
    // It is open on both sides once the browser runs.
    let window = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    go_back_from(&server, &login);
    let run = login.finish().exits(0).says("demo: signed in");
    assert!(!run.stderr.contains("no browser opened"), "{run:#?}");
    drop(window);
}

#[ignore = "needs gnome-keyring; contrib/test runs it"]
#[test]
fn login_publishes_to_the_keyring_unless_it_is_locked() {
    let server = AuthServer::start(RotationMode::Strict);
    let device = format!("device_authorization_endpoint = \"{}/device\"\n", server.url());
    let text = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device));
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    sandbox.keepalive(&["login", "demo"]).exits(0);
    assert_eq!(sandbox.status()["publication"], "published");
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
    server.script([Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"access_denied"}"#)]);
    sandbox.keepalive(&["login", "demo"]).exits(1);
    let keys = bus.secret_tool(&["search", "--all", "service", "keepalive-key"], "");
    assert!(!(keys.stdout + &keys.stderr).contains("username"), "a first login that failed leaves no key");
    let mut sandbox = Sandbox::new();
    sandbox.config(&text);
    let _bus = SessionBus::start(&mut sandbox, KeyringState::Locked);
    let run = sandbox.keepalive(&["login", "demo"]).exits(69).says("the keyring is locked");
    assert!(!run.stderr.contains("enter the code"), "{run:#?}");
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn device_login_shows_a_qr_code_and_countdown_on_a_terminal() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = with_device_flow(&server);
    let mut script = sandbox.command(Path::new("script"));
    script.args(["-qefc", &format!("{PROGRAM} login demo"), "/dev/null"]).env("TERM", "xterm");
    let out = script.output().expect("script is needed: contrib/test installs it");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("████ ▄▄▄▄▄ █") && text.contains("\r  0:20 left"), "{text}");
}

#[test]
fn interrupt_ends_the_wait_for_a_device_code_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", silent.local_addr().unwrap());
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!(
        "[provider.acme]\ntoken_endpoint = \"{at}/token\"\ndevice_authorization_endpoint = \"{at}/device\"\n\
         client_id = \"me\"\ntimeout = \"2s\"\n[profile.demo]\nprovider = \"acme\"\n"
    ));
    let login = sandbox.spawn(&["login", "demo", "--device"]);
    let (_asked, _) = silent.accept().unwrap();
    let exit = login.interrupt(75);
    let shown = login.finish().exits(exit).stderr;
    assert_eq!(shown.contains("cannot get a device code"), exit == 75, "{shown}");
}
