//! The library: a `Keeper` in the runtimes of other programs, and agents that share one login by it.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Barrier, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use keepalive::{DaemonUse, Demand, Generation, Keeper, TokenError};

use super::support::auth_server::{AuthServer, Fault, HoldPoint};
use super::support::model_api::ModelApi;
use super::support::sandbox::{Process, Sandbox};
use super::support::token_family::RotationMode;
use super::support::{cargo, eventually, root};

const LANES: usize = 4;
const TASKS: usize = 8;
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A keeper of this process in the places of a sandbox, without its daemon.
fn keeper(sandbox: &Sandbox) -> Keeper {
    let builder = Keeper::builder().config(sandbox.path("config/keepalive/config.toml"));
    builder.state_dir(sandbox.path("state/keepalive")).daemon(DaemonUse::Never).open().unwrap()
}

fn valid_for(seconds: u64) -> Demand {
    Demand::ValidFor(Duration::from_secs(seconds))
}

/// A server that takes no refresh token twice, and a login there whose access token has ended.
fn signed_in_long_ago() -> (Arc<AuthServer>, Sandbox) {
    let server = Arc::new(AuthServer::start(RotationMode::Strict));
    let sandbox = Sandbox::signed_in(&server);
    sandbox.age_token("demo", TEN_MINUTES);
    (server, sandbox)
}

/// `contrib/examples/agent.rs`, built once.
fn example() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let arguments = ["build", "--example", "agent", "--locked", "--offline", "--message-format=json"];
        let out = cargo().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let artifacts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let built =
            artifacts.filter(|a| a["target"]["name"] == "agent").find_map(|a| Some(a["executable"].as_str()?.into()));
        built.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&out.stderr)))
    };
    BUILT.get_or_init(build).clone()
}

/// A running agent. A line on its standard input is a turn of its eight tasks.
struct Agent {
    process: Process,
    turns: ChildStdin,
}

impl Agent {
    fn start(sandbox: &Sandbox, api: &ModelApi) -> Self {
        let mut command = sandbox.command(&example());
        command.args(["demo", &format!("{}/v1/responses", api.url)]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let turns = child.stdin.take().unwrap();
        Self { process: Process::new(child), turns }
    }

    fn take_turn(&mut self) {
        self.turns.write_all(b"\n").unwrap();
    }

    /// Ends it; what it said of its turns.
    fn finish(self) -> String {
        drop(self.turns);
        self.process.finish().exits(0).stdout
    }
}

#[track_caller]
fn assert_one_refresh_each(server: &AuthServer, lifetimes: usize) {
    let counts = server.settled_counts();
    assert_eq!((counts.refresh_requests, counts.refresh_ok), (lifetimes, lifetimes), "{counts:?}");
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0), "{counts:?}");
}

#[test]
fn eight_tasks_of_an_agent_share_one_refresh() {
    let (server, sandbox) = signed_in_long_ago();
    let api = ModelApi::start(&server);
    let mut agent = Agent::start(&sandbox, &api);
    agent.take_turn();
    let said = agent.finish();
    assert_eq!(said, "turn 1: 8 tasks used generation 2; the API took 8 calls, 0 of them with a second token\n");
    assert_eq!(api.served().len(), TASKS);
    assert_one_refresh_each(&server, 1);
}

#[test]
fn agent_gets_its_tokens_from_the_daemon_that_has_the_key() {
    let (server, sandbox) = signed_in_long_ago();
    let api = ModelApi::start(&server);
    let daemon = sandbox.daemon();
    eventually("it has refreshed", || (sandbox.status()["generation"] == 2).then_some(()));
    std::fs::remove_file(sandbox.path("home/key")).unwrap();
    let mut agent = Agent::start(&sandbox, &api);
    agent.process.wait_for_line("demo has generation 2");
    agent.take_turn();
    eventually("the tasks have called", || (api.served().len() == TASKS).then_some(()));
    // The next one is told by the daemon.
    sandbox.age_token("demo", TEN_MINUTES);
    agent.process.wait_for_line("demo has generation 3");
    agent.take_turn();
    let said = agent.finish();
    assert!(
        said.contains("turn 1: 8 tasks used generation 2; ") && said.contains("turn 2: 8 tasks used generation 3; ")
    );
    daemon.terminate();
    daemon.finish().exits(0);
    assert_one_refresh_each(&server, 2);
}

/// Rule 41.
#[test]
fn revoked_access_token_costs_eight_tasks_one_refresh() {
    for has_daemon in [false, true] {
        let server = Arc::new(AuthServer::start(RotationMode::Strict));
        let sandbox = Sandbox::signed_in(&server);
        // One that is younger than a minute is not suspected.
        sandbox.age_token("demo", Duration::from_secs(120));
        let api = ModelApi::start(&server);
        let _daemon = has_daemon.then(|| sandbox.daemon());
        server.end_access(sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim());
        let mut agent = Agent::start(&sandbox, &api);
        agent.take_turn();
        let said = agent.finish();
        assert!(said.starts_with("turn 1: 8 tasks used generation 2; the API took 8 calls, "), "{said}");
        assert_eq!(server.counts().refresh_requests, 1, "{said}");
    }
}

/// A token request as a program makes it that holds the refresh token itself; the status.
fn refresh_alone(server: &AuthServer, refresh_token: &str) -> String {
    let body = format!("grant_type=refresh_token&client_id=public&refresh_token={refresh_token}");
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    let form = "content-type: application/x-www-form-urlencoded\r\nconnection: close";
    write!(stream, "POST /token HTTP/1.1\r\nhost: x\r\n{form}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn four_lane_workers_alone_end_the_family() {
    let server = AuthServer::start(RotationMode::Strict);
    let refresh_token = server.mint()["refresh_token"].as_str().unwrap().to_owned();
    let answers = server.hold(HoldPoint::AfterCommit);
    let statuses: Vec<String> = thread::scope(|scope| {
        let lane = || scope.spawn(|| refresh_alone(&server, &refresh_token));
        let lanes: Vec<_> = (0..LANES).map(|_| lane()).collect();
        server.wait_for("all have sent it", |counts| counts.refresh_requests == LANES);
        drop(answers);
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let counts = server.settled_counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (LANES - 1, 1), "{counts:?} {statuses:?}");
    assert!(!server.is_family_alive(0), "all lanes are signed out");
}

#[test]
fn four_lane_workers_with_a_keeper_refresh_once_a_lifetime() {
    let (server, sandbox) = signed_in_long_ago();
    let api = ModelApi::start(&server);
    let mut agents: Vec<Agent> = (0..LANES).map(|_| Agent::start(&sandbox, &api)).collect();
    let keepers: Vec<Keeper> = (0..LANES).map(|_| keeper(&sandbox)).collect();
    for lifetime in 1..=2 {
        let start = Barrier::new(LANES + 1);
        let tokens: Vec<_> = thread::scope(|scope| {
            let lane = |keeper| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    Keeper::token_blocking(keeper, "demo", valid_for(600)).unwrap()
                })
            };
            let lanes: Vec<_> = keepers.iter().map(lane).collect();
            agents.iter_mut().for_each(Agent::take_turn);
            start.wait();
            lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        assert!(tokens.iter().all(|token| token.generation == Generation::new(lifetime as u64 + 1)), "{tokens:?}");
        assert!(tokens.iter().all(|token| server.is_live(token.access_token.expose())));
        eventually("all agents have called", || (api.served().len() == lifetime * LANES * TASKS).then_some(()));
        assert_one_refresh_each(&server, lifetime);
        sandbox.age_token("demo", TEN_MINUTES);
    }
    // The token has ended once more, and no one needs it.
    for agent in agents {
        assert_eq!(agent.finish().matches("the API took 8 calls, 0 of them").count(), 2);
    }
    let distinct: BTreeSet<String> = api.served().into_iter().map(|(token, _)| token).collect();
    assert_eq!(distinct.len(), 2, "one token for each lifetime");
}

#[test]
fn four_lane_workers_beside_a_daemon_never_refresh_themselves() {
    let server = Arc::new(AuthServer::start(RotationMode::Strict));
    server.keep_old_access_tokens();
    server.set_access_life(Duration::from_secs(8));
    let sandbox = Sandbox::signed_in(&server);
    let api = ModelApi::start(&server);
    let daemon = sandbox.daemon();
    let mut agents: Vec<Agent> = (0..LANES).map(|_| Agent::start(&sandbox, &api)).collect();
    for lifetime in 1..=2 {
        eventually("the daemon has refreshed", || (server.counts().refresh_ok >= lifetime).then_some(()));
        agents.iter_mut().for_each(Agent::take_turn);
        eventually("all agents have called", || (api.served().len() == lifetime * LANES * TASKS).then_some(()));
    }
    for agent in agents {
        assert_eq!(agent.finish().matches("the API took 8 calls, 0 of them").count(), 2);
    }
    daemon.terminate();
    daemon.finish().exits(0);
    let generation = sandbox.status()["generation"].as_u64().unwrap() as usize;
    assert_one_refresh_each(&server, generation - 1);
}

/// Polls a future by no runtime at all.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn keeper_serves_every_runtime_and_none() {
    let (server, sandbox) = signed_in_long_ago();
    let keeper = keeper(&sandbox);
    let generation = |token: Result<keepalive::Token, TokenError>| token.unwrap().generation.get();
    let of = |keeper: &Keeper| {
        let keeper = keeper.clone();
        async move { keeper.token("demo", valid_for(60)).await }
    };
    assert_eq!(generation(keeper.token_blocking("demo", valid_for(60))), 2);
    assert_eq!(generation(block_on(of(&keeper))), 2);
    // Neither its clock nor its sockets are needed.
    let one_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(generation(one_thread.block_on(of(&keeper))), 2);
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    assert_eq!(generation(several.block_on(several.spawn(of(&keeper))).unwrap()), 2);
    // The last one may go inside a runtime.
    one_thread.block_on(async { drop(keeper) });
    assert_one_refresh_each(&server, 1);
}

/// Rule 27.
#[test]
fn dropped_future_leaves_its_flight_to_the_last_keeper() {
    let (server, sandbox) = signed_in_long_ago();
    let keeper = keeper(&sandbox);
    let answer = server.hold(HoldPoint::AfterCommit);
    {
        let mut token = pin!(keeper.token("demo", valid_for(60)));
        assert!(token.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        answer.wait_reached();
    }
    assert_eq!(sandbox.status()["generation"], 1);
    let last = thread::spawn(move || drop(keeper));
    drop(answer);
    last.join().unwrap();
    let status = sandbox.status();
    assert_eq!((&status["generation"], &status["state"]), (&2.into(), &"fresh".into()), "{status}");
    assert_one_refresh_each(&server, 1);
}

#[test]
fn shutdown_completes_a_flight_and_its_clones_send_nothing() {
    let (server, sandbox) = signed_in_long_ago();
    let keeper = keeper(&sandbox);
    let clone = keeper.clone();
    block_on(keeper.token("demo", valid_for(60))).unwrap();
    block_on(keeper.shutdown());
    assert_eq!(clone.token_blocking("demo", valid_for(60)).unwrap().generation.get(), 2);
    sandbox.age_token("demo", TEN_MINUTES);
    // By its sealed credential it lives.
    let token = clone.token_blocking("demo", valid_for(60)).unwrap();
    assert!(token.warnings()[0].starts_with("not refreshed: "), "{:?}", token.warnings());
    assert_one_refresh_each(&server, 1);
}

/// Rule 41.
#[test]
fn token_that_an_api_rejected_is_refreshed_once_for_all() {
    let server = Arc::new(AuthServer::start(RotationMode::Strict));
    let sandbox = Sandbox::signed_in(&server);
    sandbox.age_token("demo", Duration::from_secs(120));
    let first = Generation::FIRST;
    let tokens: Vec<_> = thread::scope(|scope| {
        let ask = |_| scope.spawn(|| keeper(&sandbox).token_blocking("demo", Demand::Rejected(first)).unwrap());
        let asking: Vec<_> = (0..TASKS).map(ask).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(tokens.iter().all(|token| token.generation == first.next()), "{tokens:?}");
    let again = keeper(&sandbox).token_blocking("demo", Demand::Rejected(first.next())).unwrap();
    assert_eq!(again.generation, first.next(), "it is a moment old");
    assert_one_refresh_each(&server, 1);
    let unknown = keeper(&sandbox).token_blocking("demo", Demand::Rejected(Generation::new(9))).unwrap_err();
    assert!(matches!(&unknown, TokenError::Config(failure) if failure.kind() == "conflict"), "{unknown:?}");
}

#[test]
fn change_by_another_process_is_told_without_a_daemon() {
    let (_server, sandbox) = signed_in_long_ago();
    let keeper = keeper(&sandbox);
    let waiting = {
        let keeper = keeper.clone();
        thread::spawn(move || block_on(keeper.changed("demo", Generation::FIRST)))
    };
    // One that is given up.
    {
        let mut changed = pin!(keeper.changed("demo", Generation::FIRST));
        assert!(changed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    sandbox.refresh(&[]).exits(0);
    let token = waiting.join().unwrap().unwrap();
    assert_eq!((token.generation.get(), token.token_type(), token.scope()), (2, "Bearer", Some("a b")));
    assert_eq!(block_on(keeper.changed("demo", Generation::FIRST)).unwrap().generation.get(), 2, "it is there already");
    assert!(matches!(block_on(keeper.changed("none", Generation::FIRST)), Err(TokenError::UnknownProfile(_))));
}

#[test]
fn change_by_another_process_is_told_while_the_daemon_hangs() {
    let (server, sandbox) = signed_in_long_ago();
    let api = ModelApi::start(&server);
    let daemon = sandbox.daemon();
    let agent = Agent::start(&sandbox, &api);
    agent.process.wait_for_line("demo has generation 2");
    daemon.signal(rustix::process::Signal::STOP);
    sandbox.refresh(&["--force"]).exits(0);
    agent.process.wait_for_line("demo has generation 3");
    agent.finish();
    daemon.signal(rustix::process::Signal::CONT);
    assert_one_refresh_each(&server, 2);
}

#[test]
fn error_says_who_must_act_as_the_exit_status_does() {
    let (server, sandbox) = signed_in_long_ago();
    let only_refresh = serde_json::json!({"refresh_token": server.mint()["refresh_token"]});
    sandbox.keepalive_with_input(&["import", "bare", "--provider", "acme"], &only_refresh.to_string()).exits(0);
    let without = keeper(&sandbox);
    let told = |result: Result<keepalive::Token, TokenError>| {
        let error = result.unwrap_err();
        (error.failure().kind().to_owned(), error.exit_status(), error.is_transient())
    };
    assert_eq!(told(without.token_blocking("demos", valid_for(60))), ("no_credential".into(), 77, false));
    assert_eq!(told(without.token_blocking("no name", valid_for(60))), ("unknown_profile".into(), 77, false));
    server.script([Fault::Respond(429, "retry-after: 60\r\n", "")]);
    let later = without.token_blocking("bare", valid_for(60)).unwrap_err();
    assert!(matches!(&later, TokenError::TryAgain { retry_at: Some(_), .. }), "{later:?}");
    assert_eq!((later.failure().kind(), later.exit_status()), ("throttled", 75));
    let only = Keeper::builder().config(sandbox.path("config/keepalive/config.toml"));
    let only = only.state_dir(sandbox.path("state/keepalive")).daemon(DaemonUse::Only).open().unwrap();
    assert_eq!(told(only.token_blocking("demo", valid_for(60))), ("no_daemon".into(), 75, true));
    assert_eq!(told(block_on(only.changed("demo", Generation::NONE))), ("no_daemon".into(), 75, true));
    sandbox.config("[profile.demo]\nprovidr = \"acme\"\n");
    let wrong = Keeper::builder().config(sandbox.path("config/keepalive/config.toml")).open().unwrap_err();
    assert_eq!((wrong.failure().kind(), wrong.exit_status()), ("config", 78));
}

/// The names of a library are promises. What is public for the tests is hidden.
#[test]
fn surface_of_the_library_has_the_agreed_names() {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut names = BTreeSet::new();
    let mut is_hidden = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("pub use ") {
            Some(path) if !is_hidden => {
                let last = path.rsplit("::").next().unwrap().trim_end_matches([';', '}']);
                let list = path.split_once('{').map_or(last, |(_, list)| list.trim_end_matches("};"));
                names.extend(list.split(", ").map(str::to_owned));
            }
            _ => {}
        }
        assert!(is_hidden || !line.starts_with("pub mod "), "{line}");
        is_hidden = line.contains("doc(hidden)") || (is_hidden && line.starts_with("#["));
    }
    let agreed = [
        "AccessToken",
        "DaemonUse",
        "Demand",
        "Failure",
        "Generation",
        "Keeper",
        "KeeperBuilder",
        "OpenError",
        "Token",
        "TokenError",
    ];
    assert_eq!(names, agreed.map(str::to_owned).into());
}
