//! The report that keepalive was made for, with Codex itself: several runs at once when the access token ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::other_tools::{jwt, now, sandbox, write};
use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::eventually;
use super::support::model_api::ModelApi;
use super::support::sandbox::{Process, Sandbox};
use super::support::token_family::RotationMode;

const RUNS: usize = 3;
const NAME_OF_ACCOUNT: &str = "https://api.openai.com/auth";

/// Codex, signed in at a server that takes no refresh token twice, and the API that it talks to.
struct Codex {
    sandbox: Sandbox,
    server: Arc<AuthServer>,
    api: ModelApi,
}

impl Codex {
    /// What it has is old enough that it refreshes before its next request.
    fn signed_in() -> Self {
        let server = Arc::new(AuthServer::start(RotationMode::Strict));
        server.set_access_life(Duration::from_secs(20));
        server.keep_old_access_tokens();
        let (sandbox, api) = (sandbox(&server, "openai", ""), ModelApi::start(&server));
        let answer = server.mint();
        let id_token = jwt(&json!({"sub": "ada", "exp": now() + 3600, "email": "ada@acme.example",
            NAME_OF_ACCOUNT: {"chatgpt_account_id": "acct-1", "chatgpt_plan_type": "pro"}}));
        let tokens = json!({"id_token": id_token, "access_token": answer["access_token"],
            "refresh_token": answer["refresh_token"], "account_id": "acct-1"});
        write(
            &sandbox.path("home/.codex/auth.json"),
            json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "tokens": tokens,
                "last_refresh": "2020-01-01T00:00:00Z"})
            .to_string(),
        );
        let url = &api.url;
        write(
            &sandbox.path("home/.codex/config.toml"),
            format!(
                "model = \"x\"\nmodel_provider = \"mock\"\nchatgpt_base_url = \"{url}/backend-api\"\n\
                 [model_providers.mock]\nname = \"mock\"\nbase_url = \"{url}/v1\"\nwire_api = \"responses\"\n\
                 requires_openai_auth = true\n[analytics]\nenabled = false\n"
            ),
        );
        Self { sandbox, server, api }
    }

    /// Starts it several times at once, each for one turn.
    fn start_turns(&self) -> Vec<Process> {
        let program = program();
        let start = |_| {
            let mut command = self.sandbox.command(&program);
            command.args(["exec", "--skip-git-repo-check", "hi"]);
            command.env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", format!("{}/token", self.server.url()));
            // Nothing leaves this machine.
            command.envs([("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "127.0.0.1")]);
            Process::new(command.spawn().unwrap())
        };
        (0..RUNS).map(start).collect()
    }
}

/// The program that `contrib/test` installs.
fn program() -> PathBuf {
    let platform = format!("{}-{}", std::env::consts::ARCH, "unknown-linux-musl");
    let package = if cfg!(target_arch = "aarch64") { "codex-linux-arm64" } else { "codex-linux-x64" };
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/agents/node_modules/@openai")
        .join(package)
        .join(format!("vendor/{platform}/bin/codex"))
}

#[ignore = "needs Codex; contrib/test runs it"]
#[test]
fn three_runs_of_codex_alone_end_the_family() {
    let codex = Codex::signed_in();
    codex.server.set_client("app_EMoamEEZ73f0CkXaXp7hrann");
    let answers = codex.server.hold(HoldPoint::AfterCommit);
    let runs = codex.start_turns();
    codex.server.wait_for("all have sent it", |counts| counts.refresh_requests >= RUNS);
    drop(answers);
    for run in runs {
        run.finish();
    }
    let counts = codex.server.settled_counts();
    assert!(counts.presented_again > 0 && counts.families_revoked == 1, "{counts:?}");
}

#[ignore = "needs Codex; contrib/test runs it"]
#[test]
fn three_runs_of_codex_go_on_when_keepalive_feeds_it() {
    let codex = Codex::signed_in();
    let sandbox = &codex.sandbox;
    sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(0);
    let daemon = sandbox.daemon();
    for expiry in 1..=2 {
        // The daemon refreshes when half of the lifetime is over, and the file has the new token.
        let file = sandbox.path("home/.codex/auth.json");
        let before = std::fs::read(&file).unwrap();
        eventually("the file has another token", || (std::fs::read(&file).unwrap() != before).then_some(()));
        for run in codex.start_turns() {
            assert!(run.finish().exits(0).stdout.contains("hello"), "expiry {expiry}");
        }
    }
    daemon.terminate();
    daemon.finish().exits(0);
    let counts = codex.server.settled_counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0), "{counts:?}");
    assert_eq!(counts.refresh_ok, counts.refresh_requests);
    let served = codex.api.served();
    assert!(served.len() == 2 * RUNS && served.iter().all(|(_, status)| *status == 200), "{served:?}");
}
