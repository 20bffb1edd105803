//! What durability costs: a refresh by the engine (lock, intent, seal, ledger, journal, each synced) against the bare
//! exchange that it wraps, in turns, at the same server; and what thousands of profiles cost. `cargo bench`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the bans are the program's; tests live in the real world"
)]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../it/support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keepalive::clock::Clock;
use keepalive::config::Config;
use keepalive::engine::Engine;
use keepalive::outcome::OutcomeKind;
use keepalive::profile::{Profile, ProfileName};
use keepalive::provider::http::HttpEndpoint;
use keepalive::store::Store;
use keepalive::sys::clock::SystemClock;
use serde_json::{Value, json};

use support::api_client::ApiClient;
use support::auth_server::AuthServer;
use support::oidc_provider::OidcProvider;
use support::sandbox::{PROGRAM, Sandbox};
use support::token_family::RotationMode;

const ROUNDS: usize = 200;

fn main() {
    // `cargo bench -- api` measures the socket alone, and `cargo bench -- token` a warm `keepalive token`.
    let is_asked_for = |name: &str| std::env::args().any(|argument| argument == name);
    if is_asked_for("api") {
        return api_requests();
    }
    if is_asked_for("token") {
        return warm_token();
    }
    least();
    let server = AuthServer::start(RotationMode::Strict);
    compare("embedded server, at once", &format!("{}/token", server.url()), &|| server.mint());
    server.set_response_delay(Duration::from_millis(50));
    compare("embedded server, after 50 ms", &format!("{}/token", server.url()), &|| server.mint());
    let real = OidcProvider::start(600, 0);
    compare("oidc-provider", &format!("{}/token", real.issuer()), &|| real.mint());
    let far = OidcProvider::start(600, 100);
    compare("oidc-provider, 100 ms away", &format!("{}/token", far.issuer()), &|| far.mint());
    many_profiles();
    imports();
    refresh_cpu(&server);
    api_requests();
    warm_token();
}

/// A run of `keepalive token` beside a daemon, against the least that any program takes, in turns. Of pizauth and oidc-agent
/// each runs if it is installed, and has an account of the name `demo`.
fn warm_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let lines: [&[&str]; 5] = [
        &["true"],
        &[PROGRAM, "--version"],
        &[PROGRAM, "token", "demo"],
        &["pizauth", "show", "demo"],
        &["oidc-token", "demo"],
    ];
    let run = |line: &[&str]| {
        let mut command = sandbox.command(Path::new(line[0]));
        let begin = Instant::now();
        let ended = command.args(&line[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success()).then(|| begin.elapsed())
    };
    let mut least = [Duration::MAX; 5];
    for _ in 0..ROUNDS {
        for (line, least) in lines.iter().zip(&mut least) {
            *least = run(line).unwrap_or(Duration::MAX).min(*least);
        }
    }
    let base = least[0].as_secs_f64();
    for (line, least) in lines.iter().zip(least) {
        let name = line.join(" ").replace(PROGRAM, "keepalive");
        match least {
            Duration::MAX => println!("{name}: did not run"),
            least => println!("{name}: {least:.2?}, {:.2} times `true`", least.as_secs_f64() / base),
        }
    }
}

/// Requests a second on the daemon's socket, by clients that keep their connections, beside many that only hold one.
fn api_requests() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 5_000;
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let _daemon = sandbox.daemon();
    let measure = |target: &str| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut client = ApiClient::connect(&sandbox);
                    (0..REQUESTS).for_each(|_| drop(client.request("GET", target, "").expect(200)));
                });
            }
        });
        (CLIENTS * REQUESTS) as f64 / start.elapsed().as_secs_f64()
    };
    let token = "/v1/profiles/demo/token";
    let (ping, alone) = (measure("/v1/ping"), measure(token));
    let _idle: Vec<_> = (0..100).map(|_| ApiClient::connect(&sandbox)).collect();
    let is_over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut dripping = ApiClient::connect(&sandbox);
                let bytes = b"GET /v1/ping HTTP/1.1\r\nhost: k\r\n".iter().cycle();
                for byte in bytes.take_while(|_| !is_over.load(Ordering::SeqCst)) {
                    // The daemon closes it in the end.
                    if dripping.stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
        }
        let beside = measure(token);
        is_over.store(true, Ordering::SeqCst);
        beside
    });
    println!(
        "socket: {ping:.0} pings, {alone:.0} tokens a second; {beside:.0} beside 100 idle and 10 dripping clients"
    );
}

/// The least that durability can cost on this disk: one file replaced before the request's body (the intent) and one
/// after the answer (its seal). Whatever a server's answer takes is to be seen against this.
fn least() {
    let sandbox = Sandbox::new();
    let (intent, seal) = (sandbox.path("intent"), sandbox.path("seal"));
    let write = |_| {
        let start = Instant::now();
        keepalive::sys::durable::replace(&intent, &[b'i'; 1024]).unwrap();
        keepalive::sys::durable::replace(&seal, &[b's'; 4096]).unwrap();
        start.elapsed()
    };
    let (p50, p95) = percentiles((0..ROUNDS).map(write).collect());
    println!("two files replaced durably: p50 {p50:.2} ms, p95 {p95:.2} ms");
}

/// Refreshes by turns: one through the engine, one bare.
fn compare(name: &str, endpoint: &str, mint: &dyn Fn() -> Value) {
    let sandbox = Sandbox::new();
    sandbox.file_store(&format!(
        "[provider.p]\ntoken_endpoint = \"{endpoint}\"\nclient_id = \"public\"\n[profile.demo]\nprovider = \"p\"\n"
    ));
    sandbox.import("demo", &mint()).exits(0);
    let (engine, profile) = engine(&sandbox);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .build()
        .unwrap();
    let mut token = mint()["refresh_token"].as_str().unwrap().to_owned();
    let (mut durable, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let demand = engine.force_demand(&profile.name).unwrap();
        let outcome = engine.refresh(&profile, demand, Duration::from_secs(30), &|| {});
        durable.push(start.elapsed());
        assert_eq!(outcome.kind, OutcomeKind::Refreshed, "{outcome:?}");

        let start = Instant::now();
        let body = format!("grant_type=refresh_token&client_id=public&refresh_token={token}");
        let answer: Value = runtime.block_on(async {
            let request = client.post(endpoint).header("content-type", "application/x-www-form-urlencoded").body(body);
            serde_json::from_slice(&request.send().await.unwrap().bytes().await.unwrap()).unwrap()
        });
        bare.push(start.elapsed());
        token = answer["refresh_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    }
    let [(d50, d95), (b50, b95)] = [durable, bare].map(percentiles);
    println!(
        "{name:<30} durable p50 {d50:>8.2} ms, p95 {d95:>8.2} ms; bare p50 {b50:>8.2} ms, p95 {b95:>8.2} ms; p50 ratio {:.2}",
        d50 / b50
    );
}

fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1000.0;
    (at(50), at(95))
}

fn engine(sandbox: &Sandbox) -> (Engine, Arc<Profile>) {
    let path = sandbox.path("config/keepalive/config.toml");
    let config = Config::load(&path, true, None).unwrap();
    let state = sandbox.path("state/keepalive");
    let store = Arc::new(Store::new(&config.store, &state, None, || unreachable!("a file store")));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let http = HttpEndpoint::new(Box::new(|_, _| Err("none".into())), Arc::clone(&clock), &state).unwrap();
    let name: ProfileName = "demo".parse().unwrap();
    let profile = Arc::new(config.profile(&name, None).unwrap());
    (Engine::new(store, Arc::new(http), clock, false, Vec::new()), profile)
}

/// How long a configuration of ten thousand profiles takes to read, against one of ten.
fn many_profiles() {
    let text = |n: usize| (0..n).map(|i| format!("[profile.p{i}]\nprovider = \"xai\"\nmargin = \"1h\"\n")).collect();
    let time = |text: String| {
        let start = Instant::now();
        let config = Config::parse(&text, Path::new("config.toml"), None).unwrap();
        (config.profile_names().count(), start.elapsed().as_secs_f64() * 1000.0)
    };
    for n in [10, 10_000] {
        let (count, ms) = time(text(n));
        println!("a configuration of {count} profiles is read in {ms:.1} ms");
    }
}

/// What one import costs beside a hundred and beside two thousand profiles: the asked ratio is two at most.
fn imports() {
    const TIMES: usize = 15;
    let response = |i: String| json!({"access_token": i, "refresh_token": format!("r-{i}"), "expires_in": 3600});
    let mut medians = Vec::new();
    for n in [100, 2000] {
        let sandbox = Sandbox::new();
        let profiles: String = (0..n).map(|i| format!("[profile.p{i}]\nprovider = \"xai\"\n")).collect();
        sandbox.file_store(&profiles);
        let import = |name: String| {
            let arguments = ["import", &name, "--provider", "xai"];
            let start = Instant::now();
            sandbox.keepalive_with_input(&arguments, &response(format!("{n}-{name}")).to_string()).exits(0);
            start.elapsed()
        };
        for i in 0..n {
            import(format!("p{i}"));
        }
        let (p50, p95) = percentiles((0..TIMES).map(|i| import(format!("new{i}"))).collect());
        println!("import beside {n} profiles: p50 {p50:.1} ms, p95 {p95:.1} ms");
        medians.push(p50);
    }
    println!("import beside 2000 profiles against 100: ratio {:.2}", medians[1] / medians[0]);
}

/// The processor time of a refresh of many profiles in one run, against the least that the files of one cost.
fn refresh_cpu(server: &AuthServer) {
    const PROFILES: u32 = 500;
    let sandbox = Sandbox::new();
    sandbox.file_store(&server.provider(""));
    for i in 0..PROFILES {
        let arguments = ["import", &format!("p{i}"), "--provider", "acme"];
        sandbox.keepalive_with_input(&arguments, &server.mint().to_string()).exits(0);
    }
    let cpu = |who| {
        let usage = nix::sys::resource::getrusage(who).unwrap();
        let ms = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 * 1000.0 + t.tv_usec() as f64 / 1000.0;
        ms(usage.user_time()) + ms(usage.system_time())
    };
    let (children, own) = (nix::sys::resource::UsageWho::RUSAGE_CHILDREN, nix::sys::resource::UsageWho::RUSAGE_SELF);
    let before = cpu(children);
    sandbox.keepalive(&["-q", "refresh", "--force"]).exits(0);
    let each = (cpu(children) - before) / f64::from(PROFILES);
    let before = cpu(own);
    (0..PROFILES).for_each(|_| write_as_a_refresh(&sandbox));
    let least = (cpu(own) - before) / f64::from(PROFILES);
    println!("processor time of a refresh: {each:.2} ms, of its files alone {least:.2} ms: ratio {:.2}", each / least);
}

/// The files of one refresh, with all its syncs: response, intent, ledger and journal.
fn write_as_a_refresh(sandbox: &Sandbox) {
    use keepalive::sys::durable;
    let response = durable::StagedFile::create(&sandbox.path("received"), 4 << 20).unwrap();
    durable::replace(&sandbox.path("record"), &[b'i'; 1600]).unwrap();
    response.commit(&[b'r'; 1100]).unwrap();
    std::fs::rename(sandbox.path("received"), sandbox.path("sealed")).unwrap();
    durable::append_line(&sandbox.path("ledger"), &"f".repeat(32)).unwrap();
    durable::replace(&sandbox.path("record"), &[b'j'; 1200]).unwrap();
}
