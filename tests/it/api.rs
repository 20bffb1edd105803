//! The daemon's socket as programs use it: tokens, failures, long polls, and what a client cannot do to it.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use super::support::api_client::{ApiClient, Reply};
use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;
use super::support::{eventually, root};

const TOKEN: &str = "/v1/profiles/demo/token";

fn error(reply: &Reply) -> (String, String) {
    let error = &reply.json()["error"];
    let text = |member: &str| error[member].as_str().unwrap_or_default().to_owned();
    (text("kind"), format!("{} {}", text("message"), text("hint")))
}

#[test]
fn token_is_given_with_its_expiry_and_generation() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let printed = sandbox.keepalive(&["token", "demo", "--json"]).exits(0).json();
    let _daemon = sandbox.daemon();
    let reply = ApiClient::get(&sandbox, TOKEN).expect(200);
    for (field, value) in [
        ("content-type", "application/json"),
        ("etag", "\"1\""),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("keepalive-protocol", "2"),
        ("x-content-type-options", "nosniff"),
        ("keep-alive", "timeout=10"),
    ] {
        assert_eq!(reply.field(field), Some(value), "{reply:#?}");
    }
    let body = reply.json();
    for (member, value) in printed.as_object().unwrap().iter().filter(|(member, _)| *member != "expires_in") {
        assert_eq!(&body[member], value, "{member}");
    }
    assert_eq!((&body["profile"], &body["outcome"]), (&"demo".into(), &"fresh".into()));
    assert_eq!(body["warnings"], serde_json::json!([]));
    assert!((1..600).contains(&body["expires_in"].as_u64().unwrap()), "{body}");
    assert!(!reply.body.contains(&server.current_refresh_token(0)) && !reply.body.contains("refresh_token"));
    assert_eq!(server.counts().refresh_requests, 0);
    // No token lives that long, so it is refreshed at half of its life, which is not over.
    let warned = ApiClient::get(&sandbox, &format!("{TOKEN}?min_valid=2h")).expect(200).json();
    assert!(warned["warnings"][0].as_str().unwrap().contains("no token of this provider lasts that long"), "{warned}");
}

#[test]
fn one_connection_serves_many_requests_and_one_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(60));
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    eventually("it is too old for the wish", || {
        let body = client.request("GET", &format!("{TOKEN}?min_valid=56s"), "").expect(200).json();
        (body["outcome"] == "refreshed").then(|| assert_eq!(body["generation"], 2))
    });
    let pong = client.request("GET", "/v1/ping", "").expect(200).json();
    assert_eq!((&pong["protocol"], &pong["version"]), (&"2".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn failures_have_one_shape_and_a_status_that_says_what_helps() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let profiles = "[profile.demo]\nprovider = \"acme\"\n[profile.empty]\nprovider = \"acme\"\n";
    sandbox.file_store(&format!("{}{profiles}", server.provider("")));
    let only_refresh = || serde_json::json!({"refresh_token": server.mint()["refresh_token"]}).to_string();
    server.script([Fault::Respond(401, "", r#"{"error":"invalid_client"}"#)]);
    sandbox.keepalive_with_input(&["import", "refused", "--provider", "acme"], &only_refresh()).exits(0);
    let _daemon = sandbox.daemon();
    let get = |name: &str| ApiClient::get(&sandbox, &format!("/v1/profiles/{name}/token"));
    let reply = get("dem").expect(404);
    let (kind, words) = error(&reply);
    assert!(kind == "unknown_profile" && words.contains("did you mean \"demo\"?"), "{words}");
    assert_eq!(reply.json()["profile"], "dem");
    let reply = get("empty").expect(409);
    assert_eq!(reply.json()["outcome"], "needs_login");
    assert!(error(&reply).1.contains("keepalive login empty"), "{reply:#?}");
    let reply = get("refused").expect(409);
    assert_eq!(reply.json()["outcome"], "config_error", "{reply:#?}");
    assert_eq!(reply.field("retry-after"), None);
    server.script([Fault::Respond(429, "retry-after: 60\r\n", "")]);
    sandbox.keepalive_with_input(&["import", "slow", "--provider", "acme"], &only_refresh()).exits(0);
    let reply = get("slow").expect(503);
    let body = reply.json();
    assert_eq!((&body["outcome"], &body["error"]["kind"]), (&"deferred".into(), &"throttled".into()), "{body}");
    let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait) && body["retry_at"].as_str().unwrap().ends_with('Z'), "{reply:#?}");
}

#[test]
fn wrong_requests_name_what_was_probably_meant() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    for (method, target, status, words) in [
        ("GET", "/v1/profile", 404, "did you mean /v1/profiles?"),
        ("GET", "/kah_secret", 404, "there is no such path"),
        ("POST", "/v1/token", 404, "there is no such path"),
        ("GET", "/v1/profiles/demo/token?min_vald=5m", 400, "did you mean min_valid?"),
        ("GET", "/v1/profiles/demo?verbose=1", 400, "verbose"),
        ("GET", "/v1/profiles/de%20mo/token", 400, "a profile name is made of"),
        ("GET", "/v1/profiles/%ff/token", 400, "is not UTF-8"),
        ("POST", "/v1/profiles/demo/token", 405, "use GET"),
        ("OPTIONS", "/v1/ping", 405, "use GET"),
    ] {
        let reply = client.request(method, target, "").expect(status);
        let (kind, said) = error(&reply);
        assert!(kind == "usage" && said.contains(words), "{method} {target}: {said}");
        assert!(!reply.body.contains("kah_secret") && reply.field("cache-control") == Some("no-store"));
        assert_eq!(reply.field("allow").is_some(), status == 405, "{reply:#?}");
    }
    // What may stand in a name may be encoded.
    assert_eq!(client.request("GET", "/v1/profiles/d%65mo", "").expect(200).json()["profile"], "demo");
}

#[test]
fn client_with_other_places_is_told_so() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    let config = sandbox.path("config/keepalive/config.toml");
    let state = sandbox.path("state/keepalive");
    let same = format!(
        "keepalive-protocol: 2\r\nkeepalive-config: {}\r\nkeepalive-state: {}\r\n",
        config.display(),
        state.display()
    );
    client.request("GET", TOKEN, &same).expect(200);
    for other in ["keepalive-protocol: 1\r\n", "keepalive-config: /etc/other.toml\r\n", "keepalive-state: /var\r\n"] {
        let reply = client.request("GET", TOKEN, other).expect(412);
        assert!(!reply.body.contains("access_token"), "{reply:#?}");
    }
    let other = sandbox.path("home/other.toml");
    std::fs::copy(config, &other).unwrap();
    let run = sandbox.keepalive(&["-v", "--config", other.to_str().unwrap(), "token", "demo"]).exits(0);
    assert!(run.stderr.contains("the daemon has another configuration"), "{run:?}");
    let run = sandbox.keepalive(&["-v", "token", "demo"]).exits(0);
    assert!(run.stderr.contains("the daemon answered"), "{run:?}");
    drop(daemon);
}

/// A stand-in for the daemon: it answers `replies`, each to one request, on the first connection alone.
#[test]
fn command_asks_the_daemon_on_one_connection() {
    let sandbox = Sandbox::new();
    sandbox.file_store("[profile.demo]\nprovider = \"xai\"\n");
    let dir = sandbox.path("run/keepalive");
    std::fs::create_dir_all(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("keepalive.sock")).unwrap();
    let token = r#"{"profile":"demo","access_token":"canary-at","token_type":"Bearer","expires_at":null,"expires_in":9,"scope":null,"generation":7,"outcome":"fresh","warnings":[]}"#;
    let run = sandbox.spawn(&["token", "demo", "--min-valid", "5m"]);
    let (mut stream, _) = listener.accept().unwrap();
    let mut requests = Vec::new();
    for reply in [r#"{"pid":1}"#, token] {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        requests.push(String::from_utf8(request).unwrap());
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{reply}", reply.len()).unwrap();
    }
    let run = run.finish().exits(0);
    assert_eq!(run.stdout, "canary-at\n");
    assert!(requests[0].starts_with("GET /v1/ping HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[1].starts_with("GET /v1/profiles/demo/token?min_valid=300000ms&timeout="), "{requests:?}");
    assert!(requests.iter().all(|request| request.contains("keepalive-protocol: 2\r\n")), "{requests:?}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "there was one connection");
}

#[test]
fn long_poll_waits_for_a_newer_generation_and_refreshes_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(60));
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    let reply = client.request("GET", &format!("{TOKEN}?newer_than=1"), "").expect(204);
    assert_eq!((reply.body.as_str(), reply.field("keepalive-protocol")), ("", Some("2")));
    client.request("GET", &format!("{TOKEN}?newer_than=1&wait=50ms"), "").expect(204);
    assert_eq!(client.request("GET", &format!("{TOKEN}?newer_than=0"), "").expect(200).json()["generation"], 1);
    assert_eq!(server.counts().refresh_requests, 0);
    // Another process refreshes.
    client.send("GET", &format!("{TOKEN}?newer_than=1&wait=5m"), "");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(client.reply().expect(200).json()["generation"], 2);
    // The daemon itself does.
    let gate = server.hold(HoldPoint::AfterCommit);
    client.send("GET", &format!("{TOKEN}?newer_than=2&wait=5m"), "");
    let mut other = ApiClient::connect(&sandbox);
    eventually("a refresh by the daemon", || {
        other.send("GET", &format!("{TOKEN}?min_valid=56s&timeout=100ms"), "");
        other.reply();
        (server.counts().refresh_requests == 2).then_some(())
    });
    gate.wait_reached();
    drop(gate);
    assert_eq!(client.reply().expect(200).json()["generation"], 3);
    assert_eq!(
        error(&ApiClient::get(&sandbox, "/v1/profiles/none/token?newer_than=1").expect(404)).0,
        "unknown_profile"
    );
}

#[test]
fn status_and_health_are_those_of_the_command() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let profiles = "[profile.demo]\nprovider = \"acme\"\n[profile.empty]\nprovider = \"acme\"\n";
    sandbox.file_store(&format!("{}{profiles}", server.provider("")));
    let _daemon = sandbox.daemon();
    // When the next refresh is, each process reckons by its own look at two clocks.
    let without_plan = |mut profile: serde_json::Value| {
        let planned = profile.as_object_mut().and_then(|profile| profile.remove("refresh_at"));
        assert!(planned.is_some(), "{profile}");
        profile
    };
    let all = |document: serde_json::Value| -> Vec<_> {
        document["profiles"].as_array().unwrap().iter().cloned().map(without_plan).collect()
    };
    let printed = all(sandbox.keepalive(&["--json", "status"]).json());
    assert_eq!(all(ApiClient::get(&sandbox, "/v1/profiles").expect(200).json()), printed);
    assert_eq!(without_plan(ApiClient::get(&sandbox, "/v1/profiles/demo").expect(200).json()), printed[0]);
    ApiClient::get(&sandbox, "/v1/profiles/none").expect(404);
    let health = ApiClient::get(&sandbox, "/v1/health").expect(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["profiles"], serde_json::json!({"fresh": 1, "no_credential": 1}));
    assert!(health["uptime_s"].is_u64() && health["version"] == env!("CARGO_PKG_VERSION"), "{health}");
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let fields = "x: y\r\n".repeat(150);
    ApiClient::connect(&sandbox).request("GET", TOKEN, &fields).expect(431);
    let mut client = ApiClient::connect(&sandbox);
    // It is closed before all of it is sent.
    let _refused = client.stream.write_all(format!("GET /{} HTTP/1.1\r\n", "x".repeat(2_000_000)).as_bytes());
    assert!(client.try_reply().is_none_or(|reply| [414, 431].contains(&reply.status)));
    let mut client = ApiClient::connect(&sandbox);
    let reply =
        client.request("GET", TOKEN, &format!("content-length: 20000\r\n\r\n{}", "x".repeat(20_000))).expect(413);
    assert_eq!(reply.field("connection"), Some("close"));
    // Its body is not waited for.
    ApiClient::connect(&sandbox).request("GET", TOKEN, "content-length: 20000\r\n").expect(413);
    let reply = ApiClient::connect(&sandbox).request("GET", TOKEN, "content-length: 5\r\n").expect(408);
    assert_eq!(error(&reply).0, "usage");
    ApiClient::get(&sandbox, TOKEN).expect(200);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.split_whitespace().nth(3).unwrap().parse::<u64>().unwrap() >= 1024, "{files}");
}

#[test]
fn silent_clients_lose_their_connection_and_delay_nobody() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let began = std::time::Instant::now();
    let mut idle = ApiClient::connect(&sandbox);
    let mut used = ApiClient::connect(&sandbox);
    used.request("GET", "/v1/ping", "").expect(200);
    let mut half = ApiClient::connect(&sandbox);
    half.stream.write_all(b"GET /v1/ping HTTP/1.1\r\nhost").unwrap();
    // It asks and asks, and reads nothing.
    let mut deaf = ApiClient::connect(&sandbox);
    let deaf = std::thread::spawn(move || {
        while deaf.stream.write_all(b"GET /v1/ping HTTP/1.1\r\nhost: k\r\n\r\n").is_ok() {}
        began.elapsed()
    });
    for _ in 0..20 {
        ApiClient::get(&sandbox, TOKEN).expect(200);
    }
    let cut = deaf.join().unwrap();
    assert!((8..15).contains(&cut.as_secs()), "{cut:?}");
    for client in [&mut idle, &mut used, &mut half] {
        assert!(client.try_reply().is_none_or(|reply| reply.status == 408));
    }
    let cut = began.elapsed();
    assert!((13..25).contains(&cut.as_secs()), "{cut:?}");
}

#[test]
fn connection_idle_longest_makes_room_for_a_new_one() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut clients: Vec<_> = (0..300)
        .map(|_| {
            let mut client = ApiClient::connect(&sandbox);
            client.request("GET", "/v1/ping", "").expect(200);
            client
        })
        .collect();
    let (oldest, rest) = clients.split_at_mut(44);
    assert!(oldest.iter_mut().all(|client| client.try_reply().is_none()));
    rest.last_mut().unwrap().request("GET", TOKEN, "").expect(200);
    rest[0].request("GET", TOKEN, "").expect(200);
}

#[test]
fn only_so_many_requests_wait_for_a_newer_generation() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let poll = || {
        let mut client = ApiClient::connect(&sandbox);
        client.send("GET", &format!("{TOKEN}?newer_than=1&wait=5m"), "");
        client
    };
    let mut waiting: Vec<_> = (0..64).map(|_| poll()).collect();
    // One more comes before the last of them, or is refused.
    let refused = eventually("all places are taken", || {
        let mut client = poll();
        let refused = client.reply_within(Duration::from_millis(200));
        waiting.extend(refused.is_none().then_some(client));
        refused
    });
    assert_eq!(error(&refused.expect(503)).0, "busy");
    ApiClient::get(&sandbox, TOKEN).expect(200);
    sandbox.refresh(&["--force"]).exits(0);
    let replies: Vec<Reply> = waiting.iter_mut().map(ApiClient::reply).collect();
    let served: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(served.len(), 64);
    assert!(served.iter().all(|reply| reply.json()["generation"] == 2));
}

/// Rule 41.
#[test]
fn two_hundred_complaints_make_one_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    // A younger token is not refreshed for a complaint.
    sandbox.age_token("demo", Duration::from_secs(120));
    let _daemon = sandbox.daemon();
    let mut clients: Vec<_> = (0..200).map(|_| ApiClient::connect(&sandbox)).collect();
    clients.iter_mut().for_each(|client| client.send("GET", &format!("{TOKEN}?rejected=1"), ""));
    for client in &mut clients {
        let reply = client.reply().expect(200);
        assert_eq!(reply.json()["generation"], 2, "{reply:#?}");
    }
    assert_eq!(server.counts().refresh_requests, 1);
    let client = &mut clients[0];
    for seen in [1, 2] {
        let reply = client.request("GET", &format!("{TOKEN}?rejected={seen}"), "").expect(200);
        assert_eq!(reply.json()["generation"], 2);
    }
    let reply = client.request("GET", &format!("{TOKEN}?rejected=3"), "").expect(400);
    assert_eq!(error(&reply).0, "usage");
    assert_eq!(server.counts().refresh_requests, 1);
    let journal = std::fs::read_to_string(sandbox.path("state/keepalive/profiles/demo/record.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&journal).unwrap()["suspicion"]["step"], 0);
    let page = client.request("GET", "/metrics", "").expect(200).body;
    assert!(page.contains("keepalive_reported_rejected_total{profile=\"demo\",acted=\"newer\"}"), "{page}");
}

#[test]
fn metrics_show_profiles_and_requests_and_no_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    let token = client.request("GET", TOKEN, "").expect(200).json()["access_token"].as_str().unwrap().to_owned();
    let reply = client.request("GET", "/metrics", "").expect(200);
    assert_eq!(reply.field("content-type"), Some("text/plain; version=0.0.4"));
    for words in [
        "keepalive_requests_total{route=\"/v1/profiles/{profile}/token\",code=\"200\"} 1\n",
        "keepalive_generation{profile=\"demo\",provider=\"acme\"} 1.0\n",
        "keepalive_profile_state{profile=\"demo\",state=\"fresh\"} 1.0\n",
        "keepalive_profiles{state=\"fresh\"} 1.0\n",
        "keepalive_connections{listener=\"socket\"} 1.0\n",
    ] {
        assert!(reply.body.contains(words), "no {words} in {}", reply.body);
    }
    assert!(!reply.body.contains(&token) && !reply.body.contains(&server.current_refresh_token(0)));
}

/// What was lost: the number of refreshes, to requests for a profile that has nothing to refresh.
#[test]
fn only_tries_count_as_refreshes() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in_with(&server, "[profile.empty]\nprovider = \"acme\"\n");
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    for _ in 0..5 {
        client.request("GET", "/v1/profiles/empty/token", "").expect(409);
    }
    sandbox.age_token("demo", Duration::from_secs(595));
    client.request("GET", "/v1/profiles/demo/token?min_valid=1m", "").expect(200);
    let mut page = || client.request("GET", "/metrics", "").expect(200).body;
    let counted = "keepalive_refreshes_total{provider=\"acme\",outcome=\"refreshed\"} 1\n";
    let page = eventually("the refresh is counted", || Some(page()).filter(|page| page.contains(counted)));
    assert_eq!(page.matches("keepalive_refreshes_total{").count(), 1, "{page}");
}

/// A request costs one look at the journal once the token is known, and a change of the journal is seen.
#[test]
fn token_that_is_known_is_given_without_opening_files() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let mut client = ApiClient::connect(&sandbox);
    client.request("GET", TOKEN, "").expect(200);
    // What cannot be opened any more is not needed.
    let (sealed, away) = (sandbox.path("state/keepalive/profiles/demo/sealed"), sandbox.path("home/sealed"));
    std::fs::rename(&sealed, &away).unwrap();
    assert_eq!(client.request("GET", TOKEN, "").expect(200).json()["warnings"], serde_json::json!([]));
    std::fs::rename(&away, &sealed).unwrap();
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(client.request("GET", TOKEN, "").expect(200).json()["generation"], 2);
}

/// The lines that a page shows, which begin with this text.
fn shown_lines(page: &str, begin: &str) -> String {
    let page = std::fs::read_to_string(root().join("man").join(page)).unwrap();
    let from = page.find(begin).unwrap_or_else(|| panic!("no {begin:?}"));
    let end = page[from..].find("\n.").unwrap();
    page[from..from + end].replace("\\e", "\\")
}

/// The recipes of keepalive-consumers(7).
#[ignore = "needs curl, jq, python3; contrib/test runs it"]
#[test]
fn recipes_for_curl_and_python_get_a_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let printed = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
    let curl = shown_lines("keepalive-consumers.7", "curl -fsS").replace("/xai/", "/demo/");
    let python = shown_lines("keepalive-consumers.7", "import http.client");
    let python = format!("{python}\nprint(token('demo')['access_token'])");
    for (program, script) in [("sh", curl), ("python3", python)] {
        let out = sandbox.command(std::path::Path::new(program)).args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), printed, "{program}: {out:?}");
    }
}

/// `strace` holds each look at a file for minutes.
#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn known_token_is_given_while_the_disk_hangs() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    ApiClient::get(&sandbox, TOKEN).expect(200);
    let mut strace = sandbox.command(Path::new("strace"));
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=statx", "-e", "inject=statx:delay_enter=300s"]);
    for path in ["config/keepalive/config.toml", "state/keepalive/profiles/demo/record.json"] {
        strace.arg("-P").arg(sandbox.path(path));
    }
    let mut strace = strace.args(["-p", &daemon.id().to_string()]).spawn().expect("strace is needed");
    eventually("a look at the configuration hangs", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
        let is_held = |task: &Path| std::fs::read_to_string(task.join("stat")).is_ok_and(|stat| stat.contains(") t "));
        tasks.filter_map(|task| Some(task.ok()?.path())).any(|task| is_held(&task)).then_some(())
    });
    for _ in 0..20 {
        let mut client = ApiClient::connect(&sandbox);
        client.send("GET", TOKEN, "");
        let reply = client.reply_within(Duration::from_secs(10)).expect("an answer without the disk");
        reply.expect(200);
    }
    strace.kill().unwrap();
    strace.wait().unwrap();
    daemon.terminate();
    daemon.finish().exits(0);
}
