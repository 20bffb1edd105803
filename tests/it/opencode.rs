//! The report that keepalive was made for, with opencode itself: several runs at once when the access token ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::other_tools::{now, sandbox, write};
use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::eventually_within;
use super::support::model_api::ModelApi;
use super::support::sandbox::{Process, Sandbox};
use super::support::token_family::RotationMode;
use super::support::vendor_hosts::VendorHosts;

const RUNS: usize = 3;
const LIFE: Duration = Duration::from_secs(120);
const CLIENT: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// opencode, signed in at a server that takes no refresh token twice, and the API that it talks to.
struct Opencode {
    sandbox: Sandbox,
    server: Arc<AuthServer>,
    api: ModelApi,
    hosts: VendorHosts,
}

impl Opencode {
    /// Its access token has ended: it refreshes no earlier.
    fn signed_in() -> Self {
        let server = Arc::new(AuthServer::start(RotationMode::Strict));
        server.set_access_life(LIFE);
        server.keep_old_access_tokens();
        let (sandbox, api) = (sandbox(&server, "openai", ""), ModelApi::start(&server));
        let answer = server.mint();
        let openai = json!({"type": "oauth", "access": answer["access_token"], "refresh": answer["refresh_token"],
            "expires": (now() - 5) * 1000, "accountId": "acct-1"});
        write(&sandbox.path("data/opencode/auth.json"), json!({"openai": openai}).to_string());
        let hosts = VendorHosts::served_by(&api, &["auth.openai.com", "chatgpt.com"]);
        let opencode = Self { sandbox, server, api, hosts };
        // Its first start makes its database; several first starts at once fail.
        Process::new(opencode.command(&["session", "list"]).spawn().unwrap()).finish_slowly().exits(0);
        opencode
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(&program());
        command.args(arguments).envs(self.hosts.environment());
        command.envs([("OPENCODE_DISABLE_MODELS_FETCH", "1"), ("OPENCODE_DISABLE_AUTOUPDATE", "1")]);
        command
    }

    /// Starts it several times at once, each for one turn.
    fn start_turns(&self) -> Vec<Process> {
        let start = |_| {
            let mut command = self.command(&["run", "-m", "openai/gpt-5.5", "hi"]);
            Process::new(command.spawn().expect("opencode is needed: contrib/test --long installs it"))
        };
        (0..RUNS).map(start).collect()
    }

    fn stored(&self) -> Value {
        let file = std::fs::read(self.sandbox.path("data/opencode/auth.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["openai"].clone()
    }
}

/// The program that `contrib/test --long` installs.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/long/node_modules/.bin/opencode")
}

#[ignore = "needs opencode; contrib/test --long runs it"]
#[test]
fn three_runs_of_opencode_alone_end_the_family() {
    let opencode = Opencode::signed_in();
    opencode.server.set_client(CLIENT);
    let answers = opencode.server.hold(HoldPoint::AfterCommit);
    let runs = opencode.start_turns();
    eventually_within(30, "all have sent it", || (opencode.server.counts().refresh_requests >= RUNS).then_some(()));
    drop(answers);
    for run in runs {
        run.finish_slowly();
    }
    let counts = opencode.server.settled_counts();
    assert!(counts.presented_again > 0 && counts.families_revoked == 1, "{counts:?}");
}

#[ignore = "needs opencode; contrib/test --long runs it"]
#[test]
fn three_runs_of_opencode_go_on_when_keepalive_feeds_it() {
    let opencode = Opencode::signed_in();
    let mut token = opencode.stored()["access"].clone();
    opencode.sandbox.keepalive(&["feed", "opencode", "openai", "--yes"]).exits(0);
    let daemon = opencode.sandbox.daemon();
    for expiry in 1..=2 {
        token = eventually_within(10, &format!("the file has another token, {expiry}"), || {
            let newest = opencode.stored()["access"].clone();
            (newest != token).then_some(newest)
        });
        for run in opencode.start_turns() {
            assert!(run.finish_slowly().exits(0).stdout.contains("hello"), "expiry {expiry}");
        }
    }
    daemon.terminate();
    daemon.finish().exits(0);
    let counts = opencode.server.settled_counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0), "{counts:?}");
    let refreshes = opencode.server.events_from(0);
    assert!(refreshes.len() >= 2 && refreshes.len() == counts.refresh_requests, "{counts:?}");
    assert!(refreshes.windows(2).all(|two| two[1].at - two[0].at > LIFE / 4), "one for an expiry: {refreshes:?}");
    let served = opencode.api.served();
    assert!(served.len() >= 2 * RUNS && served.iter().all(|(_, status)| *status == 200), "{served:?}");
    assert_eq!(opencode.api.token_requests(), 0);
}
