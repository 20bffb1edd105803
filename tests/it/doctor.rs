//! `doctor` asks the providers: what it finds, what it says to do, and that it sends nothing that counts.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::auth_server::AuthServer;
use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

const DEMO: &str = "[profile.demo]\nprovider = \"acme\"\n";

fn doctor(sandbox: &Sandbox) -> Run {
    sandbox.keepalive(&["--json", "doctor"])
}

/// The findings about one thing, as `(level, message, hint)`.
fn about(run: &Run, what: &str) -> Vec<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = run.json()["findings"].as_array().unwrap().clone();
    let of_it = all.iter().filter(|f| f["what"] == what);
    of_it.map(|f| (text(&f["level"]), text(&f["message"]), text(&f["hint"]))).collect()
}

#[track_caller]
fn only(run: &Run, what: &str, level: &str, message: &str, hint: &str) {
    let found = about(run, what);
    let is_it = |f: &(String, String, String)| f.0 == level && f.1.contains(message) && f.2.contains(hint);
    assert!(found.iter().any(is_it), "no {level} {what} with {message:?} and {hint:?} in {found:#?}");
}

/// A profile without a login: 77, or worse.
fn configured(rest: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{rest}{DEMO}"));
    sandbox
}

#[ignore = "needs oidc-provider; contrib/test runs it"]
#[test]
fn doctor_reports_a_healthy_provider_and_sends_no_token() {
    let server = OidcProvider::start(60, 0);
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"oidc\"\n", server.provider()));
    sandbox.import("demo", &server.mint()).exits(0);
    let run = doctor(&sandbox).exits(0);
    only(&run, "discovery", "good", &format!("the metadata of {}/ is valid", server.issuer()), "");
    only(&run, "provider", "good", "(token, authorization, device, revocation endpoints) responds in", "");
    only(&run, "redirect", "good", "loopback redirect: any free port", "");
    assert_eq!(about(&run, "clock").len(), 1, "the clocks agree, so only that of this machine is spoken of");
    assert_eq!(server.counts().refresh_requests, 0);
    sandbox.keepalive(&["-v", "doctor"]).exits(0).says("good  discovery: oidc");
    sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(0);
}

#[test]
fn doctors_that_run_at_once_do_not_disturb_each_other() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for _ in 0..4 {
        let running: Vec<_> = (0..4).map(|_| sandbox.spawn(&["--json", "doctor"])).collect();
        for run in running.into_iter().map(|process| process.finish()) {
            only(&run, "store directory", "good", "is private and writable", "");
        }
    }
}

#[test]
fn doctor_exits_as_status_does_for_a_rejected_credential() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = configured(&server.provider(""));
    sandbox.import("demo", &json!({"access_token": "at", "refresh_token": "unknown", "expires_in": 600})).exits(0);
    only(&doctor(&sandbox).exits(0), "profile", "good", "demo: ok", "");
    sandbox.refresh(&["--force"]).exits(77);
    only(&doctor(&sandbox).exits(77), "profile", "bad", "cannot be refreshed: acme returned", "keepalive login demo");
}

#[test]
fn doctor_probes_only_providers_that_profiles_use() {
    let (used, other) = (AuthServer::start(RotationMode::Strict), AuthServer::start(RotationMode::Strict));
    let rest = format!("{}{}", used.provider(""), other.provider("").replace("acme", "emca"));
    let run = doctor(&configured(&rest)).exits(77);
    let found = about(&run, "provider");
    assert!(found.len() == 1 && found[0].1.starts_with("acme: "), "{found:?}");
    assert_eq!(used.counts().refresh_requests, 0);
    let sandbox = Sandbox::new();
    sandbox.file_store("");
    assert_eq!(about(&doctor(&sandbox).exits(0), "provider"), []);
}

#[test]
fn doctor_reports_a_wrong_clock_and_its_difference() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = configured(&server.provider(""));
    let now = chrono::Utc::now();
    for (minutes, words) in [(-11, "ahead of that of acme"), (11, "behind that of acme")] {
        server.set_date(&(now + chrono::TimeDelta::minutes(minutes)).to_rfc2822().replace("+0000", "GMT"));
        let run = doctor(&sandbox).exits(77);
        only(&run, "clock", "warning", words, "timedatectl set-ntp true");
        let told = &about(&run, "clock")[1].1;
        assert!(told.contains("is 11m") || told.contains("is 10m"), "{told}");
    }
    server.set_date(&(now + chrono::TimeDelta::minutes(4)).to_rfc2822());
    assert_eq!(about(&doctor(&sandbox).exits(77), "clock").len(), 1);
}

#[test]
fn doctor_names_the_connection_step_that_failed() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = doctor(&configured(&format!(
        "[provider.acme]\ntoken_endpoint = \"http://{closed}/token\"\nclient_id = \"c\"\n"
    )));
    let run = run.exits(77);
    only(&run, "provider", "bad", &format!("cannot reach http://{closed} (token endpoint): no connection"), "firewall");
    // It speaks, but not TLS.
    let server = AuthServer::start(RotationMode::Strict);
    let at = server.url().replace("http:", "https:");
    let provider = format!("[provider.acme]\ntoken_endpoint = \"{at}/token\"\nclient_id = \"c\"\n");
    only(&doctor(&configured(&provider)).exits(77), "provider", "bad", "TLS failed", "ca_file in [provider.acme]");
    let with_ca = format!("{provider}ca_file = \"~/no-such.pem\"\n");
    only(&doctor(&configured(&with_ca)).exits(78), "client", "bad", "no-such.pem", "ca_file");
    let issuer = format!("[provider.acme]\nissuer = \"http://{closed}\"\nclient_id = \"c\"\n");
    let named = format!("{issuer}token_endpoint = \"{}/token\"\n", server.url());
    let run = doctor(&configured(&named)).exits(77);
    only(&run, "provider", "bad", "(issuer): ", "");
    only(&run, "provider", "good", "(token endpoint) responds", "");
}

#[test]
fn doctor_gives_up_on_silent_servers_within_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    let begin = Instant::now();
    let mut rest = String::new();
    for name in ["one", "two", "three"] {
        rest.push_str(&format!("[provider.{name}]\nissuer = \"http://{at}\"\nclient_id = \"c\"\n"));
        rest.push_str(&format!("[profile.{name}]\nprovider = \"{name}\"\n"));
    }
    let sandbox = Sandbox::new();
    sandbox.file_store(&rest);
    let run = doctor(&sandbox).exits(77);
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    only(&run, "provider", "bad", "three: cannot reach http://127.0.0.1", "try again");
    assert!(about(&run, "provider").iter().all(|f| f.1.contains("no response: timed out after 3 s")));
}

#[test]
fn doctor_reports_metadata_of_another_issuer() {
    let server = AuthServer::start(RotationMode::Strict);
    let issuer = server.url().replace("127.0.0.1", "localhost");
    let rest = format!("[provider.acme]\nissuer = \"{issuer}\"\nclient_id = \"c\"\n");
    only(
        &doctor(&configured(&rest)).exits(78),
        "discovery",
        "bad",
        "it is for issuer http://127.0.0.1",
        "check `issuer`",
    );
    // A user who names the endpoint can do without discovery.
    let rest = format!("{rest}token_endpoint = \"{}/token\"\n", server.url());
    only(&doctor(&configured(&rest)).exits(77), "discovery", "warning", "it is for issuer http://127.0.0.1", "");
}

#[test]
fn doctor_warns_of_a_redirect_port_in_use() {
    let server = AuthServer::start(RotationMode::Strict);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let redirect = format!("redirect_uri = \"http://127.0.0.1:{port}/callback\"");
    let sandbox = configured(&server.provider(&redirect));
    only(&doctor(&sandbox).exits(77), "redirect", "warning", &format!("port {port}"), "--paste");
    drop(taken);
    only(&doctor(&sandbox).exits(77), "redirect", "good", &format!("port {port} is free"), "");
    let sandbox = configured(&server.provider("redirect_uri = \"https://acme.example/code\""));
    only(&doctor(&sandbox).exits(77), "redirect", "good", "is not on this machine: login --paste", "");
}

#[test]
fn doctor_checks_the_client_secret_without_printing_it() {
    let server = AuthServer::start(RotationMode::Strict);
    for (source, why) in [
        ("{ env = \"ACME_SECRET\" }", "the variable ACME_SECRET is not set"),
        ("{ file = \"~/secret\" }", "No such file"),
        ("{ command = [\"cat\", \"secret\"] }", "cannot read the client secret of acme"),
        ("{ keyring = \"acme\" }", "this store has no keyring"),
    ] {
        let auth = format!(
            "client_auth = \"client_secret_post\"\nclient_secret = {source}\nheaders = {{ X-Key = \"canary-secret\" }}"
        );
        let mut sandbox = configured(&server.provider(&auth));
        only(&doctor(&sandbox).exits(78), "client", "bad", why, "check client_secret in [provider.acme]");
        if source.contains("keyring") {
            continue;
        }
        sandbox.set_env("ACME_SECRET", "canary-secret");
        std::fs::write(sandbox.path("home/secret"), "canary-secret\n").unwrap();
        let run = doctor(&sandbox).exits(77);
        only(&run, "client", "good", "the secret of acme is usable", "");
        only(&run, "provider", "good", "(token endpoint) responds", "");
        assert!(!format!("{run:?}").contains("canary-secret"));
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn doctor_names_who_else_may_use_the_store_directory() {
    let sandbox = Sandbox::signed_in(&AuthServer::start(RotationMode::Strict));
    let dir = sandbox.path("state/keepalive");
    for (mode, words) in [
        (0o750, "has mode 0750: its group may read and execute"),
        (0o720, "has mode 0720: its group may write"),
        (0o701, "has mode 0701: others may execute"),
    ] {
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        only(&doctor(&sandbox), "store directory", "bad", words, "chmod 700");
    }
}
