//! From nothing to a living credential: `login` without a configuration, `init`, and the offer of the file store.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;

use super::support::auth_server::{AuthServer, Fault, MetadataBehaviour};
use super::support::browser_user::BrowserUser;
use super::support::oidc_provider::OidcProvider;
use super::support::sandbox::{PROGRAM, Process, Run, Sandbox};
use super::support::token_family::RotationMode;

const JSON: &str = "content-type: application/json\r\n";

/// A server whose metadata has a device endpoint and lists these scopes.
fn server(scopes: serde_json::Value) -> AuthServer {
    let server = AuthServer::start(RotationMode::Strict);
    let url = server.url();
    let metadata = json!({"issuer": url, "token_endpoint": format!("{url}/token"), "scopes_supported": scopes,
                          "device_authorization_endpoint": format!("{url}/device")});
    server.set_metadata(MetadataBehaviour::Custom(JSON, metadata));
    server
}

/// A home in which nothing is configured, not even a directory.
fn bare() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::remove_dir_all(sandbox.path("config")).unwrap();
    sandbox
}

fn with_file_store() -> Sandbox {
    let sandbox = bare();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
    sandbox
}

fn login(server: &AuthServer, profile: &str, more: &[&str]) -> Vec<String> {
    let words = ["login", profile, "--issuer", server.url(), "--client-id", "public"];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn run(sandbox: &Sandbox, words: &[String]) -> Run {
    sandbox.keepalive(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn config(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("config/keepalive/config.toml")).unwrap_or_default()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn three_commands_lead_to_a_living_credential() {
    let server = server(json!(["openid", "offline_access", "api"]));
    let sandbox = bare();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0).says("created the key");
    run(&sandbox, &login(&server, "work", &["--yes"])).exits(0).says("added [provider.work] to");
    let token = sandbox.keepalive(&["token", "work"]).exits(0).stdout;
    assert!(server.is_live(token.trim()));
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
    let text = config(&sandbox);
    assert!(text.contains("[store]\nkind = \"file\"\n"), "{text}");
    assert!(text.contains("scopes = [\"openid\", \"offline_access\"]\n"), "{text}");
    let file = |name: &str| sandbox.path("config/keepalive").join(name);
    assert_eq!((mode(&file("config.toml")), mode(&file("store.key"))), (0o600, 0o600));
    assert_eq!((mode(&sandbox.path("config/keepalive")), mode(&sandbox.path("config"))), (0o700, 0o700));
    // Again, and for a second profile: the provider is there already.
    run(&sandbox, &login(&server, "work", &[])).exits(0).says("work has a live credential (valid until 2");
    assert_eq!(config(&sandbox), text);
    run(&sandbox, &login(&server, "home", &["--yes"])).exits(0).says("added [profile.home] to");
    assert!(config(&sandbox).ends_with("\n[profile.home]\nprovider = \"work\"\n"), "{}", config(&sandbox));
}

#[test]
fn failed_or_unconfirmed_login_leaves_the_configuration() {
    let server = server(json!(["openid", "offline_access"]));
    let sandbox = with_file_store();
    let before = config(&sandbox);
    let run_once = |more: &[&str]| run(&sandbox, &login(&server, "work", more));
    run_once(&[]).exits(78).says("add --yes to add these lines").says("[provider.work]").says("client_id = \"public\"");
    assert_eq!(server.counts().refresh_requests, 0);
    server.script([Fault::Respond(400, JSON, r#"{"error":"access_denied"}"#)]);
    run_once(&["--yes"]).exits(1).says("check scopes in [provider.work]; requested: openid offline_access");
    assert_eq!(config(&sandbox), before);
    sandbox.keepalive(&["login", "work", "--issuer", "http://acme.example", "--client-id", "c"]).exits(2);
    sandbox.keepalive(&["login", "work", "--issuer", server.url()]).exits(2);
    sandbox.keepalive(&["login", "work", "--client-id", "c"]).exits(78).says("--issuer is needed");
    run(&sandbox, &login(&server, "xai", &["--yes"])).exits(78).says("xai is a built-in provider");
    assert_eq!(config(&sandbox), before);
}

#[test]
fn login_never_changes_a_section_that_is_there() {
    let server = server(json!(["openid"]));
    let sandbox = Sandbox::new();
    sandbox.file_store("# mine\n[provider.work]\nissuer = \"https://other.example\"\nclient_id = \"other\"");
    let before = config(&sandbox);
    run(&sandbox, &login(&server, "work", &["--yes"])).exits(78).says("is not changed").says("--provider NAME");
    assert_eq!(config(&sandbox), before);
    run(&sandbox, &login(&server, "work", &["--yes", "--provider", "acme"])).exits(0).says("[provider.acme]");
    let after = config(&sandbox);
    assert!(after.starts_with(&before) && after.contains("\n[profile.work]\nprovider = \"acme\"\n"), "{after}");
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
}

/// A server refused a login without scopes, and nothing pointed to them.
#[test]
fn scopes_default_to_what_the_server_lists_and_a_lack_is_told() {
    for (listed, shown, written) in [
        (
            json!(["openid", "offline_access"]),
            "requesting the scopes openid offline_access",
            Some("[\"openid\", \"offline_access\"]"),
        ),
        (json!(["openid"]), "does not list offline_access", Some("[\"openid\"]")),
        (json!(null), "no scopes are requested: ", None),
        (json!({"odd": 1}), "does not list openid and offline_access", None),
    ] {
        let server = server(listed);
        let sandbox = with_file_store();
        run(&sandbox, &login(&server, "work", &["--yes"])).exits(0).says(shown);
        let text = config(&sandbox);
        assert_eq!(text.lines().find_map(|line| line.strip_prefix("scopes = ")), written, "{text}");
    }
    let server = server(json!(["openid", "offline_access", "api"]));
    let sandbox = with_file_store();
    let more = ["--yes", "--scope", "api", "--scope", "more"];
    let shown = run(&sandbox, &login(&server, "work", &more)).exits(0);
    shown.says("the server does not list more").says("without the scope offline_access");
    assert!(config(&sandbox).contains("scopes = [\"api\", \"more\"]\n"));
    // A provider that is configured without scopes gets the default, too.
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!("[provider.acme]\nissuer = \"{}\"\nclient_id = \"public\"\n", server.url()));
    sandbox.keepalive(&["login", "acme"]).exits(0).says("requesting the scopes openid offline_access");
}

/// The sections were announced as added, and `status` then had a profile without a credential.
#[test]
fn login_without_a_refresh_token_adds_nothing() {
    let server = server(json!(["openid", "api"]));
    let sandbox = with_file_store();
    let before = config(&sandbox);
    server.script([Fault::Respond(200, JSON, r#"{"access_token":"a","token_type":"Bearer","expires_in":60}"#)]);
    let shown = run(&sandbox, &login(&server, "work", &["--yes", "--scope", "api"])).exits(78);
    let shown = shown.says("nothing was added to").says("requested scopes: api;").says("--scope");
    assert!(!shown.stderr.contains("added ["), "{shown:#?}");
    assert_eq!(config(&sandbox), before);
    sandbox.keepalive(&["status"]).exits(0);
    // No section of the configuration could be mended.
    server.script([Fault::Respond(401, JSON, r#"{"error":"invalid_client"}"#)]);
    let shown = run(&sandbox, &login(&server, "work", &["--yes"])).exits(78).says("check --client-id");
    shown.says("a client with a secret needs a section of your own: [provider.work]");
}

/// The next login of the profile asked for less.
#[test]
fn scopes_of_the_command_line_are_kept_for_the_next_login() {
    let server = server(json!(["openid", "offline_access", "api"]));
    let sandbox = with_file_store();
    run(&sandbox, &login(&server, "work", &["--yes"])).exits(0);
    let before = config(&sandbox);
    let requested = |words: &[&str]| {
        server.script([Fault::Respond(400, JSON, r#"{"error":"access_denied"}"#)]);
        let shown = sandbox.keepalive(words).exits(1).stderr;
        shown.lines().find_map(|line| Some(line.split_once("requested: ")?.1.to_owned())).unwrap()
    };
    let once = sandbox.keepalive(&["login", "work", "--scope", "api"]).exits(0);
    once.says("for this login only; to keep them, set scopes in [profile.work]");
    assert_eq!((config(&sandbox), requested(&["login", "work"])), (before.clone(), "openid offline_access".into()));
    sandbox.keepalive(&["login", "work", "--scope", "api", "--yes"]).exits(0).says("added [profile.work] to");
    let kept = format!("{before}\n[profile.work]\nprovider = \"work\"\nscopes = [\"api\"]\n");
    assert_eq!((config(&sandbox), requested(&["login", "work"])), (kept.clone(), "api".into()));
    run(&sandbox, &login(&server, "home", &["--yes", "--scope", "api", "--scope", "openid"])).exits(0);
    assert_eq!(requested(&["login", "home"]), "api openid");
    // What is there is not changed, but the command line wins.
    assert_eq!(requested(&["login", "work", "--scope", "openid", "--yes"]), "openid");
    assert!(config(&sandbox).starts_with(&kept));
}

/// It named a provider that was there, and each run named one of two things that were missing.
#[test]
fn login_without_a_terminal_names_all_that_is_missing() {
    let server = server(json!(["openid"]));
    let sandbox = with_file_store();
    run(&sandbox, &login(&server, "work", &["--yes"])).exits(0);
    let shown = run(&sandbox, &login(&server, "w9", &[])).exits(78).says("the configuration lacks [profile.w9]");
    assert!(!shown.stderr.contains("[provider."), "{shown:#?}");
    let shown = run(&bare(), &login(&server, "work", &[])).exits(69).says("keepalive init --store file");
    shown.says("then repeat the login with --yes, which adds [provider.work] to");
}

#[test]
fn init_changes_nothing_that_is_there() {
    let sandbox = with_file_store();
    let key = sandbox.path("config/keepalive/store.key");
    let (text, bytes) = (config(&sandbox), std::fs::read(&key).unwrap());
    sandbox.keepalive(&["init"]).exits(0).says("nothing to do");
    sandbox.keepalive(&["init", "--store", "keyring", "--yes"]).exits(78).says("has [store] kind = \"file\"");
    assert_eq!((config(&sandbox), std::fs::read(&key).unwrap()), (text.clone(), bytes.clone()));
    // A key without a section is used; a section without its key gets one.
    std::fs::remove_file(sandbox.path("config/keepalive/config.toml")).unwrap();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(0);
    assert_eq!((config(&sandbox), std::fs::read(&key).unwrap()), (text.clone(), bytes));
    std::fs::remove_file(&key).unwrap();
    sandbox.keepalive(&["init", "--yes"]).exits(0).says("created the key");
    let server = AuthServer::start(RotationMode::Strict);
    sandbox.config(&format!("{text}{}", server.provider("")));
    sandbox.import("acme", &server.mint()).exits(0);
    std::fs::remove_file(&key).unwrap();
    sandbox.keepalive(&["init", "--yes"]).exits(78).says("has credentials that a new key would not open");
    assert!(!key.exists());
    // What is no key is not replaced.
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("config/keepalive/store.key"), "mine").unwrap();
    std::fs::set_permissions(sandbox.path("config/keepalive/store.key"), PermissionsExt::from_mode(0o600)).unwrap();
    sandbox.keepalive(&["init", "--store", "file", "--yes"]).exits(78).says("is not 32 bytes");
    assert_eq!(std::fs::read(sandbox.path("config/keepalive/store.key")).unwrap(), b"mine");
}

#[test]
fn missing_keyring_names_init_where_nobody_can_be_asked() {
    let server = server(json!(["openid"]));
    let sandbox = bare();
    let shown = run(&sandbox, &login(&server, "work", &["--yes"])).exits(69).says("keepalive init --store file");
    assert!(!shown.stderr.contains("enter the code"), "{shown:#?}");
    sandbox.keepalive(&["init"]).exits(69).says("keepalive init --store file");
    sandbox.keepalive(&["init", "--store", "file"]).exits(1).says("add --yes");
    assert_eq!(config(&sandbox), "");
    assert!(!sandbox.path("config").exists());
}

/// With no keyring and a server that did not respond, only the server was told.
#[test]
fn login_and_import_check_the_store_before_any_request() {
    let server = server(json!(["openid"]));
    let provider = format!("[provider.acme]\nissuer = \"{}\"\nclient_id = \"public\"\n", server.url());
    let key = |sandbox: &Sandbox| sandbox.path("home/key");
    let no_keyring = Sandbox::new();
    let with_key = |change: &dyn Fn(&Path)| {
        let sandbox = Sandbox::new();
        sandbox.file_store(&provider);
        change(&key(&sandbox));
        sandbox
    };
    let no_key = with_key(&|key| std::fs::remove_file(key).unwrap());
    let open_key = with_key(&|key| std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap());
    let no_place = with_key(&|_| {});
    std::fs::write(no_place.path("state/keepalive"), "").unwrap();
    for (sandbox, exit, words) in [
        (&no_keyring, 69, "keepalive init --store file"),
        (&no_key, 78, "does not exist"),
        (&open_key, 78, "chmod 600"),
        (&no_place, 69, "cannot create"),
    ] {
        let shown = run(sandbox, &login(&server, "acme", &["--yes"])).exits(exit).says(words);
        assert!(!shown.stderr.contains("enter the code"), "{shown:#?}");
        sandbox.config(&format!("{}{provider}", config(sandbox).replace(&provider, "")));
        sandbox.import("acme", &server.mint()).exits(exit).says(words);
    }
    assert_eq!((server.metadata_requests(), server.settled_counts().refresh_requests), (0, 0));
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("http://{dead}");
    let words = ["login", "work", "--issuer", &issuer, "--client-id", "public", "--yes"];
    no_keyring.keepalive(&words).exits(69).says("keepalive init --store file");
    with_file_store().keepalive(&words).exits(75).says("cannot connect");
}

/// Runs the program at a terminal where a person types.
fn at_terminal(sandbox: &Sandbox, line: &str, typed: &str) -> (bool, String) {
    let mut script = sandbox.command(Path::new("script"));
    script.args(["-qefc", &format!("{PROGRAM} {line}"), "/dev/null"]).env("TERM", "xterm").stdin(Stdio::piped());
    let mut child = script.spawn().expect("script is needed: contrib/test installs it");
    child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn one_yes_makes_store_key_and_sections() {
    let server = server(json!(["openid", "offline_access"]));
    let sandbox = bare();
    let line = login(&server, "work", &[]).join(" ");
    let (is_ok, shown) = at_terminal(&sandbox, &line, "n\n");
    assert!(!is_ok && shown.contains("there is no session bus") && shown.contains("nothing was changed"), "{shown}");
    assert!(!sandbox.path("config").exists());
    let (is_ok, shown) = at_terminal(&sandbox, &line, "y\n");
    assert!(is_ok && shown.contains("[provider.work]") && shown.contains("work: signed in"), "{shown}");
    assert_eq!(shown.matches("[y/N]").count(), 1, "{shown}");
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
    let text = config(&sandbox);
    assert!(text.starts_with("[store]\nkind = \"file\"\n") && text.contains("\n\n[provider.work]\n"), "{text}");
}

#[ignore = "needs script; contrib/test runs it"]
#[test]
fn import_at_a_terminal_offers_the_file_store() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    sandbox.config(&server.provider(""));
    std::fs::write(sandbox.path("home/response.json"), server.mint().to_string()).unwrap();
    let (is_ok, shown) = at_terminal(&sandbox, "import acme response.json", "y\n");
    assert!(is_ok && shown.contains("created the key"), "{shown}");
    sandbox.keepalive(&["refresh", "--force"]).exits(0);
}

/// "Nothing was changed", though this run had made a key and a section.
#[ignore = "needs script; contrib/test runs it"]
#[test]
fn interrupted_login_names_the_store_that_it_made() {
    if keepalive::sys::process::ignores_signal(rustix::process::Signal::INT.as_raw()) {
        return;
    }
    let server = server(json!(["openid"]));
    let pending = Fault::Respond(400, JSON, r#"{"error":"authorization_pending"}"#);
    server.script(std::iter::repeat_n(pending, 20));
    let sandbox = bare();
    let line = format!("{PROGRAM} {}", login(&server, "work", &[]).join(" "));
    let start = || {
        let mut shell = sandbox.command(Path::new("sh"));
        shell
            .args(["-c", &format!("script -qec '{line}' /dev/null >&2; echo exit $? >&2")])
            .env("TERM", "xterm")
            .stdin(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let keyboard = child.stdin.take().unwrap();
        (keyboard, Process::new(child))
    };
    let (mut keyboard, run) = start();
    run.wait_for_line("[provider.work]");
    keyboard.write_all(b"\x03").unwrap();
    run.wait_for_line("exit 130");
    assert!(run.stderr_so_far().contains("interrupted; nothing was changed"), "{}", run.stderr_so_far());
    assert!(!sandbox.path("config").exists());
    drop((keyboard, run));
    let (mut keyboard, run) = start();
    keyboard.write_all(b"y\n").unwrap();
    run.wait_for_line("enter the code");
    keyboard.write_all(b"\x03").unwrap();
    run.wait_for_line("exit 130");
    let shown = run.stderr_so_far();
    for words in ["created the key", "its key stay; nothing else was added", "interrupted", "nothing else was changed"]
    {
        assert!(shown.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{shown}");
    }
    assert!(config(&sandbox).contains("[store]") && !config(&sandbox).contains("[provider"));
}

/// Eight steps, four edits of a file and three failed logins it was.
#[ignore = "needs oidc-provider and script; contrib/test runs it"]
#[test]
fn one_command_and_one_yes_sign_in_at_a_real_server() {
    let server = OidcProvider::start(60, 0);
    let sandbox = bare();
    let line = format!("{PROGRAM} login work --issuer {} --client-id public", server.issuer());
    let mut shell = sandbox.command(Path::new("sh"));
    shell.args(["-c", &format!("script -qefc '{line}' /dev/null >&2")]).env("TERM", "xterm").stdin(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(b"y\n").unwrap();
    let login = Process::new(child);
    let page = format!("{}/device?user_code=", server.issuer());
    login.wait_for_line(&page);
    let said = login.stderr_so_far();
    let complete = said.split_whitespace().find(|word| word.starts_with(&page)).unwrap();
    BrowserUser::new("ada").sign_in(complete);
    login.finish().exits(0).says("work: signed in as ada").says("added [provider.work]");
    let token = sandbox.keepalive(&["token", "work", "--min-valid", "1s"]).exits(0).stdout;
    assert!(server.accepts(token.trim()));
    sandbox.keepalive(&["refresh", "-p", "work", "--force"]).exits(0);
    assert_eq!(server.counts().refresh_ok, 1);
}
