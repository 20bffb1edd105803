//! `exec`: the command runs as if a shell had started it, with a token in its environment and nowhere else.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use super::support::auth_server::AuthServer;
use super::support::eventually;
use super::support::sandbox::{PROGRAM, Process, Sandbox};
use super::support::token_family::RotationMode;

fn signed_in(server: &AuthServer, keys: &str) -> Sandbox {
    // Longer than a command is promised one for.
    server.set_access_life(std::time::Duration::from_secs(3600));
    let sandbox = Sandbox::signed_in(server);
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n{keys}\n", server.provider("")));
    sandbox
}

#[test]
fn command_gets_the_token_in_the_variables_that_were_named() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "env = \"ACME_TOKEN\"");
    let env = |words: &[&str]| {
        let run = sandbox.keepalive(&[&["exec", "demo"], words, &["--", "env"]].concat()).exits(0);
        assert!(run.stderr.is_empty(), "{run:?}");
        move |name: &str| {
            let value = run.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            value.map(str::to_owned)
        }
    };
    let usual = env(&[]);
    assert!(server.is_live(&usual("ACME_TOKEN").unwrap()) && usual("KEEPALIVE_ACCESS_TOKEN").is_none());
    assert_eq!(usual("KEEPALIVE_PROFILE").as_deref(), Some("demo"));
    assert!(usual("KEEPALIVE_EXPIRES_AT").unwrap().ends_with('Z'));
    assert_eq!(usual("KEEPALIVE_SOCKET").unwrap(), sandbox.path("run/keepalive/keepalive.sock").display().to_string());
    let named = env(&["--env", "A", "--env", "B"]);
    assert!(named("A").is_some() && named("A") == named("B") && named("ACME_TOKEN").is_none());
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn own_secrets_are_not_inherited() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = signed_in(
        &server,
        "[provider.other]\nissuer = \"https://other.example\"\nclient_id = \"c\"\nclient_auth = \"client_secret_basic\"\nclient_secret = { env = \"OTHER_SECRET\" }",
    );
    sandbox.set_env("OTHER_SECRET", "canary-secret");
    sandbox.set_env("UNRELATED", "stays");
    let run = sandbox.keepalive(&["exec", "demo", "env"]).exits(0);
    assert!(!run.stdout.contains("canary-secret") && run.stdout.contains("UNRELATED=stays"), "{run:?}");
}

/// What a process inherits, as far as the system shows it.
const PROBE: &str = "umask; ulimit -a; grep -E '^(Sig(Blk|Ign)|NoNewPrivs|Seccomp):' /proc/self/status; \
                     cat /proc/self/coredump_filter /proc/self/oom_score_adj; ls /proc/self/fd | wc -l";

/// Without signals 32 and 33, which are the C library's own: it may start a process with these ignored.
fn without_internal_signals(shown: &str) -> String {
    let line = |line: &str| match line.strip_prefix("SigIgn:\t") {
        Some(mask) => format!("SigIgn:\t{:x}\n", u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31)),
        None => format!("{line}\n"),
    };
    shown.lines().map(line).collect()
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn command_inherits_what_a_shell_would_give_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    for settings in ["umask 027; ulimit -S -c unlimited 2>/dev/null", "umask 002; ulimit -S -c 0; trap '' HUP USR1"] {
        let probe = |before: &str| {
            let mut shell = sandbox.command(Path::new("bash"));
            let script = format!("{settings}; {before} bash -c \"$PROBE\"");
            let out = shell.args(["-c", &script]).env("PROBE", PROBE).env("KEEPALIVE", PROGRAM).output().unwrap();
            assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
            without_internal_signals(&String::from_utf8(out.stdout).unwrap())
        };
        let plain = probe("");
        assert!(plain.lines().count() > 10, "{plain}");
        assert_eq!(probe("$KEEPALIVE exec demo --"), plain);
        assert_eq!(probe("$KEEPALIVE exec demo --refresh-on-exit-status 9 --"), plain);
    }
}

#[test]
fn command_takes_the_place_of_the_process() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let process = sandbox.spawn(&["exec", "demo", "--", "sh", "-c", "echo $$; exit 7"]);
    let pid = process.id();
    let run = process.finish().exits(7);
    assert_eq!(run.stdout.trim(), pid.to_string());
}

#[test]
fn command_that_cannot_run_is_126_or_127() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    for more in [&[][..], &["--refresh-on-exit-status", "9"]] {
        let exec = |command: &str| sandbox.keepalive(&[&["exec", "demo"], more, &["--", command]].concat());
        exec("no-such-command").exits(127).says("cannot run `no-such-command`");
        exec(sandbox.path("home/key").to_str().unwrap()).exits(126);
    }
    sandbox.keepalive(&["exec", "demo"]).exits(2);
    sandbox.keepalive(&["exec", "demo", "--evn", "X", "--", "true"]).exits(2).says("unexpected option --evn");
}

#[test]
fn command_is_not_started_without_a_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let run = sandbox.keepalive(&["exec", "nobody", "--", "echo", "started"]).exits(77);
    assert!(!run.stdout.contains("started"), "{run:?}");
}

#[test]
fn token_below_min_valid_is_refreshed_before_the_command() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let only_refresh = serde_json::json!({"refresh_token": server.mint()["refresh_token"]});
    sandbox.keepalive_with_input(&["import", "bare", "--provider", "acme"], &only_refresh.to_string()).exits(0);
    let run = sandbox.keepalive(&["exec", "bare", "--", "sh", "-c", "echo $KEEPALIVE_ACCESS_TOKEN"]).exits(0);
    assert!(server.is_live(run.stdout.trim()), "{run:?}");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
}

/// A command that says that it is there, and then its signals, and that lives until SIGTERM.
const LISTENS: &str = "trap 'echo usr1 >&2' USR1; trap 'echo term >&2; exit 3' TERM; echo pid $$ >&2; while :; do read -r -t 0.1 x <&3; done 3<>fifo";

fn listening(sandbox: &Sandbox) -> (Process, u32) {
    let fifo = sandbox.path("home/fifo");
    if !fifo.exists() {
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    }
    let words = ["exec", "demo", "--refresh-on-exit-status", "41", "--", "bash", "-c", LISTENS];
    let process = Process::new(sandbox.keepalive_command(&words).stdin(Stdio::null()).spawn().unwrap());
    process.wait_for_line("pid ");
    let line = process.stderr_so_far();
    let pid = line.lines().find_map(|line| line.strip_prefix("pid ")).unwrap().parse().unwrap();
    (process, pid)
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn child_form_passes_signals_on_and_keeps_the_status() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let (process, child) = listening(&sandbox);
    assert_ne!(process.id(), child);
    process.signal(Signal::USR1);
    process.wait_for_line("usr1");
    process.terminate();
    process.finish().exits(3).says("term");
    let run = sandbox.keepalive(&["exec", "demo", "--refresh-on-exit-status", "41", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(run.status, 128 + 9);
}

fn state_of(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap()[..1].to_owned()
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn stopped_child_stops_its_parent_until_it_goes_on() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let (process, child) = listening(&sandbox);
    let child_pid = rustix::process::Pid::from_raw(child as i32).unwrap();
    rustix::process::kill_process(child_pid, Signal::STOP).unwrap();
    eventually("the parent is stopped", || (state_of(process.id()) == "T").then_some(()));
    process.signal(Signal::CONT);
    eventually("the child goes on", || (state_of(child) != "T").then_some(()));
    process.terminate();
    process.finish().exits(3);
}

#[ignore = "needs bash; contrib/test runs it"]
#[test]
fn token_is_in_the_childs_environment_alone() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    let token = sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
    let (process, child) = listening(&sandbox);
    let of = |pid: u32, file: &str| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
    };
    assert!(of(child, "environ").contains(&token));
    for file in ["environ", "cmdline"] {
        assert!(!of(process.id(), file).contains("canary-"), "{file}");
    }
    assert!(!of(child, "cmdline").contains("canary-"));
    process.terminate();
    process.finish().exits(3);
    let run = sandbox.keepalive(&["-vv", "exec", "demo", "--", "true"]).exits(0);
    assert!(run.stderr.contains("exec.start") && !run.stderr.contains("canary-"), "{run:?}");
}

/// Writes down the token that it gets, and ends with 41; the first time of all there is a newer one by then, if `refreshes`.
fn agent(refreshes: bool) -> String {
    let refresh = "[ ! -e again ] && : >again && $KEEPALIVE refresh -p demo --force >/dev/null";
    format!("echo $KEEPALIVE_ACCESS_TOKEN >>tokens; {}; exit 41", if refreshes { refresh } else { ":" })
}

#[test]
fn command_runs_again_only_with_a_newer_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = signed_in(&server, "");
    sandbox.set_env("KEEPALIVE", PROGRAM);
    for (refreshes, runs) in [(true, 2), (false, 1)] {
        let script = agent(refreshes);
        sandbox.keepalive(&["exec", "demo", "--refresh-on-exit-status", "41", "--", "sh", "-c", &script]).exits(41);
        let tokens = std::fs::read_to_string(sandbox.path("home/tokens")).unwrap();
        std::fs::remove_file(sandbox.path("home/tokens")).unwrap();
        let tokens: Vec<&str> = tokens.lines().collect();
        assert_eq!(tokens.len(), runs);
        assert!(runs == 1 || tokens[0] != tokens[1], "{tokens:?}");
    }
    let other = ["exec", "demo", "--refresh-on-exit-status", "40", "--", "sh", "-c", &agent(true)];
    sandbox.keepalive(&other).exits(41);
    assert_eq!(std::fs::read_to_string(sandbox.path("home/tokens")).unwrap().lines().count(), 1);
}

/// Rule 41.
#[test]
fn command_that_says_its_token_is_rejected_gets_one_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = signed_in(&server, "");
    sandbox.age_token("demo", std::time::Duration::from_secs(120));
    let exec = || {
        let script = agent(false);
        sandbox.keepalive(&["exec", "demo", "--refresh-on-exit-status", "41", "--", "sh", "-c", &script]).exits(41);
        let tokens = std::fs::read_to_string(sandbox.path("home/tokens")).unwrap();
        std::fs::remove_file(sandbox.path("home/tokens")).unwrap();
        tokens.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let tokens = exec();
    assert!(tokens.len() == 2 && tokens[0] != tokens[1], "{tokens:?}");
    assert_eq!(exec(), tokens[1..], "the token is new");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
}
