//! The report that keepalive was made for, with Codex itself: several runs at once when the access token ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::other_tools::{jwt, now, sandbox, write};
use super::support::api_client::{ApiClient, free_port};
use super::support::auth_server::{AuthServer, Fault, HoldPoint};
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
    token_url: String,
}

impl Codex {
    /// What it has is old enough that it refreshes before its next request.
    fn signed_in() -> Self {
        Self::signed_in_with(Duration::from_secs(20), "")
    }

    /// `more`: of the configuration.
    fn signed_in_with(life: Duration, more: &str) -> Self {
        let server = Arc::new(AuthServer::start(RotationMode::Strict));
        server.set_access_life(life);
        server.keep_old_access_tokens();
        let (sandbox, api) = (sandbox(&server, "openai", more), ModelApi::start(&server));
        let answer = server.mint();
        let id_token = jwt(&json!({"sub": "ada", "exp": now() + 3600, "email": "ada@acme.example",
            NAME_OF_ACCOUNT: {"chatgpt_account_id": "acct-1", "chatgpt_user_id": "user-1", "chatgpt_plan_type": "pro"}}));
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
        let token_url = format!("{}/token", server.url());
        Self { sandbox, server, api, token_url }
    }

    /// Puts a handle in the place of its refresh token, and the daemon in that of its token endpoint. `change`: what else it has.
    fn with_handle(port: u16, change: impl Fn(&mut Value)) -> (Self, Process) {
        let listener = format!("[broker]\nlisten = \"127.0.0.1:{port}\"\n");
        let mut codex = Self::signed_in_with(Duration::from_secs(900), &listener);
        let file = codex.sandbox.path("home/.codex/auth.json");
        let change_file = |change: &dyn Fn(&mut Value)| {
            let mut document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            change(&mut document);
            write(&file, document.to_string());
        };
        change_file(&change);
        codex.sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
        let made = codex.sandbox.keepalive(&["handle", "create", "openai", "--id-token", "--floor", "5m30s"]).exits(0);
        change_file(&|document| document["tokens"]["refresh_token"] = made.stdout.trim().into());
        codex.token_url = format!("http://127.0.0.1:{port}/oauth/token");
        let daemon = codex.sandbox.daemon();
        daemon.wait_for_line("listening on 127.0.0.1");
        (codex, daemon)
    }

    fn start_turn(&self) -> Process {
        let mut command = self.sandbox.command(&program());
        command.args(["exec", "--skip-git-repo-check", "hi"]);
        command.env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", &self.token_url);
        // Nothing leaves this machine.
        command.envs([("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "127.0.0.1")]);
        Process::new(command.spawn().unwrap())
    }

    /// Starts it several times at once, each for one turn.
    fn start_turns(&self) -> Vec<Process> {
        (0..RUNS).map(|_| self.start_turn()).collect()
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

#[ignore = "needs Codex; contrib/test runs it"]
#[test]
fn codex_reads_its_file_again_when_its_token_is_rejected() {
    let codex = Codex::signed_in_with(Duration::from_secs(900), "");
    codex.sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(0);
    let before = codex.sandbox.keepalive(&["token", "openai"]).exits(0).stdout.trim().to_owned();
    let turns = codex.api.hold();
    let run = codex.start_turn();
    turns.wait_reached();
    codex.sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    codex.server.end_access(&before);
    let ours = codex.server.counts();
    drop(turns);
    assert!(run.finish().exits(0).stdout.contains("hello"));
    let served = codex.api.served();
    assert!(
        served.first() == Some(&(before, 401)) && served.last().is_some_and(|(_, status)| *status == 200),
        "{served:?}"
    );
    assert_eq!(codex.server.settled_counts(), ours, "Codex itself asks for no token");
}

#[ignore = "needs Codex; contrib/test runs it"]
#[test]
fn three_runs_of_codex_with_a_handle_make_one_refresh() {
    let (codex, _daemon) = Codex::with_handle(free_port(), |_| {});
    for run in codex.start_turns() {
        assert!(run.finish().exits(0).stdout.contains("hello"));
    }
    let counts = codex.server.settled_counts();
    assert_eq!((counts.refresh_requests, counts.presented_again, counts.families_revoked), (1, 0, 0), "{counts:?}");
    let kept: Value =
        serde_json::from_slice(&std::fs::read(codex.sandbox.path("home/.codex/auth.json")).unwrap()).unwrap();
    assert!(kept["tokens"]["refresh_token"].as_str().unwrap().starts_with("kah_"), "{kept}");
    assert!(codex.server.is_live(kept["tokens"]["access_token"].as_str().unwrap()));
    let page = ApiClient::get(&codex.sandbox, "/metrics").expect(200).body;
    assert!(page.contains("keepalive_requests_total{route=\"/oauth/token\",code=\"200\"} "), "{page}");
}

/// With an answer of 200 and such a token it would ask again at once, for ever.
#[ignore = "needs Codex; contrib/test runs it"]
#[test]
fn codex_with_a_short_token_and_no_provider_ends() {
    let short = |document: &mut Value| {
        document["tokens"]["access_token"] = jwt(&json!({"exp": now() + 240})).into();
        document["last_refresh"] = chrono::Utc::now().to_rfc3339().into();
    };
    let (codex, _daemon) = Codex::with_handle(free_port(), short);
    codex.server.script(std::iter::repeat_n(Fault::Respond(429, "retry-after: 60\r\n", ""), 1000));
    let began = std::time::Instant::now();
    for run in codex.start_turns() {
        run.finish();
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let page = ApiClient::get(&codex.sandbox, "/metrics").expect(200).body;
    let count = |code: &str| {
        let series = format!("keepalive_requests_total{{route=\"/oauth/token\",code=\"{code}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<usize>().ok()).unwrap_or(0)
    };
    assert!(count("200") == 0 && (1..=40 * RUNS).contains(&count("503")), "{page}");
}
