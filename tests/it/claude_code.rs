//! The report that keepalive was made for, with Claude Code itself: several runs at once when the access token ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::other_tools::{now, sandbox, write};
use super::support::auth_server::{AuthServer, Fault};
use super::support::eventually_within;
use super::support::model_api::ModelApi;
use super::support::sandbox::{Process, Sandbox};
use super::support::token_family::RotationMode;
use super::support::vendor_hosts::VendorHosts;

const RUNS: usize = 3;
const LIFE: Duration = Duration::from_secs(120);
const CLIENT: &str = "9d1c250a-e61b-44d9-88ed-5944d1962f5e";

/// Claude Code, signed in at a server that takes no refresh token twice, and the API that it talks to.
struct ClaudeCode {
    sandbox: Sandbox,
    server: Arc<AuthServer>,
    api: ModelApi,
    hosts: VendorHosts,
}

impl ClaudeCode {
    /// What it has is old enough that it refreshes before its next request.
    fn signed_in() -> Self {
        let server = Arc::new(AuthServer::start(RotationMode::Strict));
        server.set_access_life(LIFE);
        let (sandbox, api) = (sandbox(&server, "anthropic", ""), ModelApi::start(&server));
        let answer = server.mint();
        let oauth = json!({"accessToken": answer["access_token"], "refreshToken": answer["refresh_token"],
            "expiresAt": (now() + 20) * 1000, "scopes": ["user:inference", "user:profile"], "subscriptionType": "max"});
        write(&sandbox.path("home/.claude/.credentials.json"), json!({"claudeAiOauth": oauth}).to_string());
        let account = json!({"accountUuid": "u1", "emailAddress": "ada@acme.example", "organizationUuid": "o1"});
        let about = json!({"hasCompletedOnboarding": true, "oauthAccount": account});
        write(&sandbox.path("home/.claude.json"), about.to_string());
        let hosts = VendorHosts::served_by(&api, &["platform.claude.com", "api.anthropic.com"]);
        Self { sandbox, server, api, hosts }
    }

    /// As `signed_in`, and it refreshes by itself. `fault`: of its first request.
    fn alone(fault: Option<Fault>) -> Self {
        let claude = Self::signed_in();
        claude.server.set_client(CLIENT);
        // It refreshes five minutes ahead.
        claude.server.set_access_life(Duration::from_secs(900));
        claude.server.script(fault);
        // Without these scopes it takes itself for signed out.
        let scope = json!({"scope": "user:inference user:profile"});
        claude.server.script(std::iter::repeat_n(Fault::ReplaceMembers(scope), 100));
        claude
    }

    fn start_turn(&self) -> Process {
        let mut command = self.sandbox.command(&program());
        command.args(["-p", "hi"]).env("ANTHROPIC_BASE_URL", &self.api.url).envs(self.hosts.environment());
        Process::new(command.spawn().expect("Claude Code is needed: contrib/test --long installs it"))
    }

    /// Runs it several times at once, each for one turn.
    fn run_turns(&self) {
        let runs: Vec<Process> = (0..RUNS).map(|_| self.start_turn()).collect();
        for run in runs {
            assert!(run.finish_slowly().exits(0).stdout.contains("hello"));
        }
    }

    fn stored(&self) -> Value {
        let file = std::fs::read(self.sandbox.path("home/.claude/.credentials.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["claudeAiOauth"].clone()
    }
}

/// The program that `contrib/test --long` installs.
fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/long/node_modules/.bin/claude")
}

/// Claude Code 2.1.332 has a lock for its own processes.
#[ignore = "needs Claude Code; contrib/test --long runs it"]
#[test]
fn three_runs_of_claude_code_alone_make_one_refresh() {
    let claude = ClaudeCode::alone(None);
    claude.run_turns();
    let counts = claude.server.settled_counts();
    assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (1, 0, 0), "{counts:?}");
}

#[ignore = "needs Claude Code; contrib/test --long runs it"]
#[test]
fn claude_code_alone_ends_the_family_after_a_lost_response() {
    let claude = ClaudeCode::alone(Some(Fault::DropAfter));
    claude.start_turn().finish_slowly();
    claude.start_turn().finish_slowly();
    let counts = claude.server.settled_counts();
    assert!(counts.presented_again > 0 && counts.families_revoked == 1, "{counts:?}");
    assert_eq!(claude.stored()["refreshToken"], "", "it has signed itself out");
}

#[ignore = "needs Claude Code; contrib/test --long runs it"]
#[test]
fn three_runs_of_claude_code_go_on_when_keepalive_feeds_it() {
    let claude = ClaudeCode::signed_in();
    let mut token = claude.stored()["accessToken"].clone();
    claude.sandbox.keepalive(&["feed", "claude", "anthropic", "--yes"]).exits(0);
    let daemon = claude.sandbox.daemon();
    for expiry in 1..=2 {
        token = eventually_within(10, &format!("the file has another token, {expiry}"), || {
            let newest = claude.stored()["accessToken"].clone();
            (newest != token).then_some(newest)
        });
        claude.run_turns();
    }
    daemon.terminate();
    daemon.finish().exits(0);
    let counts = claude.server.settled_counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0), "{counts:?}");
    let refreshes = claude.server.events_from(0);
    assert!(refreshes.len() >= 2 && refreshes.len() == counts.refresh_requests, "{counts:?}");
    assert!(refreshes.windows(2).all(|two| two[1].at - two[0].at > LIFE / 4), "one for an expiry: {refreshes:?}");
    let served = claude.api.served();
    assert!(served.len() == 2 * RUNS && served.iter().all(|(_, status)| *status == 200), "{served:?}");
    assert_eq!(claude.api.token_requests(), 0);
}

#[ignore = "needs Claude Code; contrib/test --long runs it"]
#[test]
fn claude_code_reads_its_file_again_when_its_token_is_rejected() {
    let claude = ClaudeCode::signed_in();
    claude.sandbox.keepalive(&["feed", "claude", "anthropic", "--yes"]).exits(0);
    let turns = claude.api.hold();
    let run = claude.start_turn();
    turns.wait_reached();
    claude.sandbox.keepalive(&["refresh", "-p", "anthropic", "--force"]).exits(0);
    drop(turns);
    assert!(run.finish_slowly().exits(0).stdout.contains("hello"));
    let statuses: Vec<u16> = claude.api.served().into_iter().map(|(_, status)| status).collect();
    assert_eq!((statuses, claude.api.token_requests()), (vec![401, 200], 0));
    assert_eq!(claude.server.settled_counts().presented_again, 0);
}
