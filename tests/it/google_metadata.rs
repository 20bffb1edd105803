//! The metadata server of Google's cloud: the requests that Google's libraries make, and who is not served.

use serde_json::json;

use super::support::api_client::{ApiClient, Reply, free_port};
use super::support::auth_server::AuthServer;
use super::support::eventually;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";
const FLAVOR: &str = "metadata-flavor: Google\r\n";

fn get(port: u16, target: &str) -> Reply {
    let reply = ApiClient::connect_tcp(port).request("GET", target, FLAVOR);
    assert_eq!(reply.field("metadata-flavor"), Some("Google"), "{reply:#?}");
    reply
}

#[test]
fn libraries_of_google_get_a_token_without_a_handle() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let port = free_port();
    let section = format!("[[broker.gce]]\nlisten = \"127.0.0.1:{port}\"\nprofile = \"demo\"\nproject = \"p-1\"\n");
    let profile = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(""));
    sandbox.file_store(&format!("{section}{profile}"));
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("listening on 127.0.0.1:{port}"));
    for (target, body) in [
        ("/", "computeMetadata/\n"),
        ("/computeMetadata/v1/instance", "service-accounts/\n"),
        ("/computeMetadata/v1/project/project-id", "p-1"),
        (&format!("{ACCOUNT}/email"), "default"),
    ] {
        assert_eq!(get(port, target).expect(200).body, body, "{target}");
    }
    let about = get(port, &format!("{ACCOUNT}/?recursive=true")).expect(200).json();
    assert_eq!(about["email"], "default");
    let token = get(port, &format!("{ACCOUNT}/token?scopes=a")).expect(200).json();
    assert!(server.is_live(token["access_token"].as_str().unwrap()));
    assert_eq!(token["token_type"], json!("Bearer"));
    assert!((1..=600).contains(&token["expires_in"].as_u64().unwrap()), "{token}");
    for (fields, status) in
        [("", 403), ("metadata-flavor: Other\r\n", 403), ("metadata-flavor: Google\r\norigin: x\r\n", 403)]
    {
        let reply = ApiClient::connect_tcp(port).request("GET", &format!("{ACCOUNT}/token"), fields).expect(status);
        assert!(!reply.body.contains("access_token"), "{reply:#?}");
    }
    let evil = format!("GET {ACCOUNT}/token HTTP/1.1\r\nhost: metadata.google.internal\r\n{FLAVOR}\r\n");
    ApiClient::connect_tcp(port).raw(&evil).expect(421);
    get(port, "/v1/ping").expect(404);
    sandbox.keepalive(&["logout", "demo", "--forget"]);
    get(port, &format!("{ACCOUNT}/token")).expect(404);
    // The section goes, and so does the listener.
    sandbox.file_store(&profile);
    daemon.wait_for_line("configuration reloaded");
    eventually("it is closed", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
}

#[test]
fn metadata_server_needs_an_address_and_a_profile() {
    let sandbox = Sandbox::new();
    for (keys, words) in [
        ("listen = \"0.0.0.0:80\"\nprofile = \"x\"", "127.0.0.1 or [::1]"),
        ("listen = \"127.0.0.1:80\"", "write profile = \"google\""),
        ("profile = \"x\"", "write listen = \"127.0.0.1:8766\""),
        ("profil = \"x\"", "did you mean \"profile\"?"),
    ] {
        sandbox.file_store(&format!("[[broker.gce]]\n{keys}\n"));
        sandbox.keepalive(&["daemon"]).exits(78).says(words);
    }
}

/// What was lost: a metadata server, as only the log told that it does not listen.
#[test]
fn metadata_server_that_cannot_listen_is_told() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (squatter.local_addr().unwrap().port(), free_port());
    let gce = |port, profile| format!("[[broker.gce]]\nlisten = \"127.0.0.1:{port}\"\nprofile = \"{profile}\"\n");
    let profile = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(""));
    sandbox.file_store(&format!("{}{}{profile}", gce(taken, "demo"), gce(free, "demmo")));
    let daemon = sandbox.daemon();
    daemon.wait_for_line(&format!("cannot listen on 127.0.0.1:{taken}"));
    daemon.wait_for_line(&format!("listening on 127.0.0.1:{free}"));
    for command in ["status", "doctor"] {
        let run = sandbox.keepalive(&[command]).says(&format!("cannot listen on 127.0.0.1:{taken}"));
        run.says("in [[broker.gce]]").says("no profile \"demmo\"; did you mean \"demo\"?");
    }
    let status = sandbox.keepalive(&["--json", "status"]).json();
    let servers = &status["metadata_servers"];
    assert_eq!((&status["listener"], &servers[0]["state"]), (&json!(null), &json!("failed")), "{status}");
    assert_eq!((&servers[1]["profile"], &servers[1]["state"]), (&json!("demmo"), &json!("listening")), "{status}");
    assert_eq!(ApiClient::get(&sandbox, "/v1/profiles").expect(200).json()["metadata_servers"], *servers);
    drop(squatter);
    // The other one goes, and is told of no more.
    sandbox.file_store(&format!("{}{profile}", gce(taken, "demo")));
    daemon.wait_for_line(&format!("listening on 127.0.0.1:{taken}"));
    eventually("it is told", || (!sandbox.keepalive(&["status"]).exits(0).stderr.contains("listen")).then_some(()));
    let told = std::fs::read_to_string(sandbox.path("state/keepalive/listener.json")).unwrap();
    assert!(!told.contains(&free.to_string()), "{told}");
}

#[test]
fn address_of_two_listeners_is_a_mistake() {
    let sandbox = Sandbox::new();
    let gce = "[[broker.gce]]\nlisten = \"127.0.0.1:8766\"\nprofile = \"x\"\n";
    sandbox.file_store(&format!("[broker]\nlisten = \"127.0.0.1:8766\"\n{gce}"));
    sandbox.keepalive(&["status"]).exits(78).says("the address of [broker], too");
    sandbox.file_store(&format!("{gce}{gce}"));
    sandbox.keepalive(&["status"]).exits(78).says("the address of [[broker.gce]] of x, too");
}
