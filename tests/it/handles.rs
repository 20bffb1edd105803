//! Handles and the TCP listener: who is given a token there, and who is not.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::api_client::{ApiClient, Reply, free_port};
use super::support::auth_server::AuthServer;
use super::support::sandbox::{Process, Sandbox};
use super::support::token_family::RotationMode;
use super::support::{eventually, eventually_within};

const TOKEN: &str = "/v1/profiles/demo/token";

/// A daemon with a listener on TCP.
pub struct Served {
    pub server: AuthServer,
    pub sandbox: Sandbox,
    pub daemon: Process,
    pub port: u16,
}

impl Served {
    pub fn start() -> Self {
        Self::start_with(AuthServer::start(RotationMode::Strict), "-v")
    }

    pub fn start_with(server: AuthServer, verbosity: &str) -> Self {
        let sandbox = Sandbox::signed_in(&server);
        let port = free_port();
        configure(&sandbox, &server, port);
        let daemon = sandbox.spawn(&[verbosity, "daemon"]);
        daemon.wait_for_line("listening on 127.0.0.1");
        Self { server, sandbox, daemon, port }
    }

    pub fn client(&self) -> ApiClient {
        ApiClient::connect_tcp(self.port)
    }

    /// A new handle of the profile `demo`.
    pub fn handle(&self, more: &[&str]) -> String {
        create(&self.sandbox, &[&["demo"], more].concat())
    }

    pub fn get(&self, target: &str, handle: &str) -> Reply {
        self.client().request("GET", target, &bearer(handle))
    }
}

fn configure(sandbox: &Sandbox, server: &AuthServer, port: u16) {
    let broker = format!("[broker]\nlisten = \"127.0.0.1:{port}\"\n");
    let profiles = "[profile.demo]\nprovider = \"acme\"\n[profile.other]\nprovider = \"acme\"\n";
    sandbox.file_store(&format!("{broker}{}{profiles}", server.provider("")));
}

fn create(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let run = sandbox.keepalive(&[&["handle", "create"], arguments].concat()).exits(0);
    run.stdout.strip_suffix('\n').unwrap().to_owned()
}

pub fn bearer(handle: &str) -> String {
    format!("authorization: Bearer {handle}\r\n")
}

fn kind(reply: &Reply) -> String {
    reply.json()["error"]["kind"].as_str().unwrap().to_owned()
}

/// An unsigned token that names an account.
pub fn jwt(subject: &str) -> String {
    super::other_tools::jwt(&json!({ "sub": subject }))
}

#[test]
fn handle_is_printed_once_and_kept_as_its_hash() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let run = sandbox.keepalive(&["handle", "create", "demo", "--name", "ci", "--floor", "5m30s"]).exits(0);
    let handle = run.stdout.strip_suffix('\n').unwrap();
    assert!(
        handle.len() == 53
            && handle.starts_with("kah_")
            && handle.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    );
    assert!(!run.stderr.contains("kah_") && run.stderr.contains("listen"), "{run:?}");
    let metrics = sandbox.keepalive(&["--json", "handle", "create", "--metrics", "--any-user"]).exits(0).json();
    assert_eq!(
        (&metrics["metrics"], &metrics["profile"], &metrics["any_user"]),
        (&json!(true), &Value::Null, &json!(true))
    );
    let list = sandbox.keepalive(&["--json", "handle", "list"]).exits(0).json();
    let first = &list["handles"][0];
    assert_eq!(
        (&first["name"], &first["profile"], &first["min_valid_s"], &first["floor_s"], &first["last_used_at"]),
        (&json!("ci"), &json!("demo"), &json!(600), &json!(330), &Value::Null)
    );
    let id = first["id"].as_str().unwrap();
    let shown = sandbox.keepalive(&["handle", "list"]).exits(0).says(id).says("metrics").says("floor 5m 30s").stdout;
    let kept = std::fs::read_to_string(sandbox.path("state/keepalive/handles.json")).unwrap();
    assert!(![shown, kept, list.to_string()].iter().any(|text| text.contains("kah_")));
    sandbox.keepalive(&["handle", "revoke", "ci", "none"]).exits(1).says("there is no handle none");
    sandbox.keepalive(&["handle", "revoke", metrics["id"].as_str().unwrap()]).exits(0).says("is revoked");
    let run = sandbox.keepalive(&["handle", "revoke", handle]).exits(1);
    assert!(!run.stderr.contains("kah_"), "{run:?}");
    sandbox.keepalive(&["handle", "list"]).exits(0).says("no handles");
}

#[test]
fn handle_needs_a_profile_with_a_credential() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.keepalive(&["handle", "create"]).exits(2);
    sandbox.keepalive(&["handle", "create", "demo", "--metrics"]).exits(2);
    sandbox.keepalive(&["handle", "create", "--metrics", "--floor", "5m"]).exits(2);
    sandbox.keepalive(&["handle", "create", "acme"]).exits(77).says("keepalive login acme");
    sandbox.keepalive(&["handle", "create", "dem"]).exits(77).says("did you mean \"demo\"?");
    assert!(!sandbox.path("state/keepalive/handles.json").exists());
}

/// What was lost: two handles of two profiles, to one `revoke` by a name that both had.
#[test]
fn name_is_that_of_one_handle() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    configure(&sandbox, &server, free_port());
    create(&sandbox, &["demo", "--name", "one"]);
    let list = || sandbox.keepalive(&["--json", "handle", "list"]).json()["handles"].clone();
    let id = list()[0]["id"].as_str().unwrap().to_owned();
    for name in ["one", &id] {
        let run = sandbox.keepalive(&["handle", "create", "demo", "--name", name]).exits(2);
        run.says(&format!("is called {name} already")).says(&format!("keepalive handle revoke {id}"));
    }
    sandbox.keepalive(&["handle", "create", "demo", "--expires", "0s"]).exits(2).says("it would have ended already");
    sandbox.keepalive(&["handle", "create", "demo", "--floor", "9999d"]).exits(2).says("none is ever above the floor");
    assert_eq!(list().as_array().unwrap().len(), 1);
    create(&sandbox, &["demo", "--name", "two", "--min-valid", "3m", "--floor", "5m"]);
    let shown = sandbox.keepalive(&["handle", "list"]).exits(0);
    assert!(shown.stdout.contains("floor 5m") && !shown.stdout.contains("min-valid 5m"), "{shown:?}");
}

/// What was lost: the reason, of a request that may be repeated.
#[test]
fn handles_that_cannot_be_read_are_told_with_an_outcome() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let path = served.sandbox.path("state/keepalive/handles.json");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    served.sandbox.keepalive(&["doctor"]).says("handles.json has mode 0666").says("chmod 600");
    std::fs::write(&path, "{}").unwrap();
    let reply = served.get(TOKEN, &handle).expect(503);
    assert_eq!((reply.json()["outcome"].as_str(), reply.field("retry-after")), (Some("store_unavailable"), Some("30")));
}

#[test]
fn token_is_given_on_tcp_for_a_handle_of_its_profile() {
    let served = Served::start();
    let handle = served.handle(&[]);
    let reply = served.get(TOKEN, &handle).expect(200);
    assert_eq!((reply.field("etag"), reply.field("access-control-allow-origin")), (Some("\"1\""), None));
    let local = ApiClient::get(&served.sandbox, TOKEN).expect(200).json();
    assert_eq!(reply.json()["access_token"], local["access_token"]);
    let list = served.sandbox.keepalive(&["--json", "handle", "list"]).json();
    assert!(list["handles"][0]["last_used_at"].as_str().unwrap().ends_with('Z'), "{list}");
    let metrics = create(&served.sandbox, &["--metrics"]);
    let page = served.get("/metrics", &metrics).expect(200).body;
    assert!(page.contains("keepalive_connections{listener=\"tcp\"} 1.0\n"), "{page}");
    for (target, handle, status) in [
        ("/v1/profiles/other/token", handle.as_str(), 403),
        ("/metrics", &handle, 403),
        (TOKEN, &metrics, 403),
        ("/v1/profiles", &handle, 403),
        ("/v1/health", &handle, 403),
        ("/v1/nothing", &handle, 404),
    ] {
        let reply = served.get(target, handle).expect(status);
        assert!(reply.field("www-authenticate").is_none() && !reply.body.contains("access_token"), "{target}");
    }
    let mut client = served.client();
    for target in [TOKEN, "/metrics", "/v1/profiles", &format!("{TOKEN}?handle={handle}")] {
        let reply = client.request("GET", target, "").expect(401);
        assert_eq!((reply.field("www-authenticate"), kind(&reply).as_str()), (Some("Bearer"), "unauthorized"));
        assert!(!reply.body.contains("kah_") || reply.body.contains("kah_..."), "{reply:#?}");
    }
    let reply = served.client().request("GET", &format!("/{handle}"), "").expect(404);
    assert!(!reply.body.contains("kah_"), "{reply:#?}");
    assert_eq!(client.request("GET", "/v1/ping", "").expect(200).json(), json!({"protocol": "2"}));
    // The socket has no such paths.
    ApiClient::connect(&served.sandbox).post("/oauth/token", "", "").expect(404);
}

#[test]
fn pages_of_other_sites_get_no_token() {
    let served = Served::start();
    let (handle, port) = (served.handle(&[]), served.port);
    let auth = bearer(&handle);
    let ask = |host: &str, fields: &str| {
        served.client().raw(&format!("GET {TOKEN} HTTP/1.1\r\nhost: {host}\r\n{fields}{auth}\r\n"))
    };
    ask(&format!("127.0.0.1:{port}"), "").expect(200);
    ask(&format!("localhost:{port}"), "").expect(200);
    let own = format!("127.0.0.1:{port}");
    for (host, fields, status) in [
        (format!("evil.example:{port}"), String::new(), 421),
        ("127.0.0.1".into(), String::new(), 421),
        (own.clone(), "origin: https://evil.example\r\n".into(), 403),
        (own.clone(), format!("origin: http://127.0.0.1:{port}\r\n"), 403),
        (own.clone(), "sec-fetch-site: cross-site\r\n".into(), 403),
        (own.clone(), "x-forwarded-for: 10.0.0.1\r\n".into(), 403),
        (own.clone(), "forwarded: for=10.0.0.1\r\n".into(), 403),
    ] {
        let reply = ask(&host, &fields).expect(status);
        assert!(!reply.body.contains("access_token") && !reply.head.contains("access-control"), "{reply:#?}");
    }
    served.client().raw(&format!("GET http://evil.example{TOKEN} HTTP/1.1\r\nhost: {own}\r\n{auth}\r\n")).expect(421);
    served.client().raw(&format!("GET {TOKEN} HTTP/1.0\r\nhost: {own}\r\n{auth}\r\n")).expect(505);
    served.client().request("OPTIONS", TOKEN, "").expect(405);
    let upgrade = format!("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: \r\n{auth}");
    served.client().request("GET", TOKEN, &upgrade).expect(200);
}

#[test]
fn handle_that_is_cut_revoked_or_expired_is_refused() {
    let served = Served::start();
    let (handle, short) = (served.handle(&["--name", "a"]), served.handle(&["--expires", "1ms"]));
    let mut client = served.client();
    let mut ask = |handle: &str| {
        let reply = client.request("GET", TOKEN, &bearer(handle)).expect(401);
        assert!(!reply.body.contains(handle), "{reply:#?}");
        reply.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(ask(&handle[..52]).contains("mistyped or cut"));
    assert!(ask(&served.server.current_refresh_token(0)).contains("no handle of keepalive"));
    assert!(ask(&short).contains("expired"));
    served.get(TOKEN, &handle).expect(200);
    served.sandbox.keepalive(&["handle", "revoke", "a"]).exits(0);
    assert!(ask(&handle).contains("revoked"));
    // What cannot be read is no reason to throw a handle away.
    let handles = served.sandbox.path("state/keepalive/handles.json");
    let good = std::fs::read(&handles).unwrap();
    std::fs::write(&handles, "{").unwrap();
    assert!(served.get(TOKEN, &short).expect(503).field("retry-after").is_some());
    served.sandbox.keepalive(&["handle", "list"]).exits(69);
    served.sandbox.keepalive(&["doctor"]).says("handles.json");
    std::fs::write(&handles, good).unwrap();
    ask(&short);
}

#[test]
fn logout_revokes_the_handles_of_its_profile() {
    let served = Served::start();
    let handle = served.handle(&[]);
    served.sandbox.import("other", &served.server.mint()).exits(0);
    let other = create(&served.sandbox, &["other"]);
    served.sandbox.keepalive(&["logout", "demo", "--forget"]).says("1 handle revoked");
    served.get(TOKEN, &handle).expect(401);
    served.get("/v1/profiles/other/token", &other).expect(200);
    served.sandbox.import("demo", &served.server.mint()).exits(0);
    served.get(TOKEN, &handle).expect(401);
}

#[test]
fn handle_is_refused_after_a_login_as_another_account() {
    let served = Served::start();
    let sign_in = |subject: &str| {
        let mut answer = served.server.mint();
        answer["id_token"] = jwt(subject).into();
        let answer = super::support::sandbox::just_granted(&answer).to_string();
        served.sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer).exits(0);
    };
    let without = served.handle(&[]);
    sign_in("ada");
    let handle = served.handle(&["--id-token"]);
    served.get(TOKEN, &handle).expect(200);
    sign_in("ada");
    let given = served.get(&format!("{TOKEN}?id_token=true"), &handle).expect(200).json();
    assert_eq!((&given["id_token"], &given["generation"]), (&jwt("ada").into(), &3.into()));
    assert!(served.get(&format!("{TOKEN}?id_token=true"), &without).expect(200).json()["id_token"].is_null());
    sign_in("bob");
    let reply = served.get(TOKEN, &handle).expect(403);
    assert!(reply.body.contains("now another account") && !reply.body.contains("access_token"), "{reply:#?}");
    let body = format!("grant_type=refresh_token&refresh_token={handle}");
    let reply = served.client().post("/oauth/token", "", &body).expect(400).json();
    assert_eq!(reply["error"], "invalid_grant");
    assert!(reply["error_description"].as_str().unwrap().contains("now another account"), "{reply}");
    // Of whose account nothing was known when it was made, nothing can be said.
    served.get(TOKEN, &without).expect(200);
}

#[test]
fn taken_port_holds_up_no_refresh_and_is_taken_when_free() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    configure(&sandbox, &server, port);
    let listener = |sandbox: &Sandbox| sandbox.keepalive(&["--json", "status"]).json()["listener"].clone();
    assert_eq!(listener(&sandbox)["state"], "no_daemon");
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("cannot listen on 127.0.0.1:{port}"));
    let told = listener(&sandbox);
    assert_eq!((&told["state"], &told["error"]["kind"]), (&json!("failed"), &json!("socket")), "{told}");
    assert_eq!(ApiClient::get(&sandbox, "/v1/profiles").expect(200).json()["listener"], told);
    // The other profile has no credential.
    sandbox.keepalive(&["status"]).exits(77).says("cannot listen on").says("another program has the port");
    sandbox.keepalive(&["doctor"]).says("cannot listen on");
    server.set_access_life(Duration::from_secs(2));
    sandbox.refresh(&["--force"]).exits(0);
    server.wait_for("two refreshes of the daemon", |counts| counts.refresh_ok >= 3);
    server.set_access_life(Duration::from_secs(600));
    drop(squatter);
    // By itself it tries again within 30 seconds.
    if std::env::var_os("KEEPALIVE_LONG").is_none() {
        daemon.signal(rustix::process::Signal::HUP);
    }
    let listening = format!("listening on 127.0.0.1:{port}");
    eventually_within(0, "it listens", || daemon.stderr_so_far().contains(&listening).then_some(()));
    eventually("the daemon has told it", || (listener(&sandbox)["state"] == "listening").then_some(()));
    sandbox.keepalive(&["-v", "doctor"]).says(&format!("listening on 127.0.0.1:{port}"));
    let handle = create(&sandbox, &["demo"]);
    ApiClient::connect_tcp(port).request("GET", TOKEN, &bearer(&handle)).expect(200);
    // Another port in the configuration.
    let second = free_port();
    configure(&sandbox, &server, second);
    daemon.wait_for_line(&format!("listening on 127.0.0.1:{second}"));
    ApiClient::connect_tcp(second).request("GET", TOKEN, &bearer(&handle)).expect(200);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    daemon.terminate();
    daemon.finish().exits(0);
    assert!(!sandbox.path("state/keepalive/listener.json").exists());
}

#[test]
fn listener_must_be_on_loopback_with_a_port() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for wrong in ["0.0.0.0:80", "127.0.0.1:0", "localhost:80", "127.0.0.1"] {
        sandbox.file_store(&format!("[broker]\nlisten = \"{wrong}\"\n{}", server.provider("")));
        let run = sandbox.keepalive(&["daemon"]).exits(78);
        assert!(run.stderr.contains("[broker] listen") && run.stderr.contains("127.0.0.1:8765"), "{run:?}");
    }
    sandbox.file_store(&format!("[broker]\nlistne = \"127.0.0.1:80\"\n{}", server.provider("")));
    sandbox.keepalive(&["daemon"]).exits(78).says("did you mean \"listen\"?");
}

#[test]
fn tcp_clients_leave_room_for_those_on_the_socket() {
    let served = Served::start();
    let mut clients: Vec<_> = (0..160)
        .map(|_| {
            let mut client = served.client();
            client.request("GET", "/v1/ping", "").expect(200);
            client
        })
        .collect();
    let (oldest, rest) = clients.split_at_mut(32);
    assert!(oldest.iter_mut().all(|client| client.try_reply().is_none()));
    rest[0].request("GET", "/v1/ping", "").expect(200);
    let page = ApiClient::get(&served.sandbox, "/metrics").expect(200).body;
    assert!(page.contains("keepalive_connections{listener=\"tcp\"} 128.0\n"), "{page}");
    assert!(page.contains("keepalive_connections{listener=\"socket\"} 1.0\n"), "{page}");
}

#[test]
fn metrics_of_each_profile_can_be_left_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let rest = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(""));
    sandbox.file_store(&format!("[broker]\nmetrics_per_profile = false\n{rest}"));
    let _daemon = sandbox.daemon();
    let page = ApiClient::get(&sandbox, "/metrics").expect(200).body;
    assert!(page.contains("keepalive_profiles{state=\"fresh\"} 1.0\n") && !page.contains("profile=\"demo\""), "{page}");
}

/// As user 65534 asks for a token, what curl prints: the status.
fn as_other_user(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(arguments);
    std::os::unix::process::CommandExt::uid(&mut curl, 65534);
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

#[ignore = "needs root and curl; contrib/test runs it"]
#[test]
fn other_user_is_refused_unless_the_handle_is_for_all() {
    let served = Served::start();
    let url = format!("http://127.0.0.1:{}{TOKEN}", served.port);
    let ask = |handle: &str| as_other_user(&["-H", &format!("Authorization: Bearer {handle}"), &url]);
    let (own, shared) = (served.handle(&[]), served.handle(&["--any-user"]));
    assert_eq!((ask(&own), ask(&shared)), ("403".to_owned(), "200".to_owned()));
    let token = format!("http://127.0.0.1:{}/oauth/token", served.port);
    let post =
        |handle: &str| as_other_user(&["-d", &format!("grant_type=refresh_token&refresh_token={handle}"), &token]);
    assert_eq!((post(&own), post(&shared)), ("403".to_owned(), "200".to_owned()));
    // The socket, if its directory let the user in.
    let socket = served.sandbox.path("run/keepalive/keepalive.sock");
    for place in socket.ancestors().skip(1).take(3).chain([socket.as_path()]) {
        std::fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let socket = socket.to_str().unwrap();
    assert_eq!(as_other_user(&["--unix-socket", socket, "http://k/v1/ping"]), "000");
    served.daemon.wait_for_line("rejected a connection from another user");
}
