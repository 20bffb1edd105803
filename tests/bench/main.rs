//! What durability costs: a refresh by the engine (lock, intent, seal, ledger, journal, each synced) against the bare
//! exchange that it wraps, in turns, at the same server; and what ten thousand profiles cost. `cargo bench`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the bans are the program's; tests live in the real world"
)]

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../it/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keepalive::clock::Clock;
use keepalive::config::Config;
use keepalive::engine::Engine;
use keepalive::outcome::OutcomeKind;
use keepalive::profile::{Profile, ProfileName};
use keepalive::provider::http::HttpEndpoint;
use keepalive::store::Store;
use keepalive::sys::clock::SystemClock;
use serde_json::Value;

use support::auth_server::AuthServer;
use support::oidc_provider::OidcProvider;
use support::sandbox::Sandbox;
use support::token_family::RotationMode;

const ROUNDS: usize = 200;

fn main() {
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
