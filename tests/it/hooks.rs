//! Hooks: what a program of the user is told, and when; that it cannot hold up a refresh, and that it sees no secret.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::auth_server::{AuthServer, Fault};
use super::support::eventually;
use super::support::sandbox::{PROGRAM, Sandbox, just_granted};
use super::support::simultaneous::run_at_once;
use super::support::token_family::RotationMode;

const DEAD: Fault = Fault::Respond(400, "content-type: application/json\r\n", r#"{"error":"invalid_grant"}"#);
const SLOW_DOWN: Fault = Fault::Respond(429, "content-type: text/plain\r\n", "later");

/// Appends what it is told to `told`.
const TELL: &str = "cat >> $HOME/told";

/// A sandbox with the profile `demo` and these hooks, in which `HOOK` is a script with the lines given.
fn hooked(server: &AuthServer, hooks: &str, script: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    write_script(&sandbox, "hook", script);
    configure(&sandbox, server, hooks);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox
}

fn configure(sandbox: &Sandbox, server: &AuthServer, hooks: &str) {
    let hooks = hooks.replace("HOOK", &format!("[\"{}\"]", sandbox.path("home/hook").display()));
    let provider = server.provider("");
    sandbox.file_store(&format!("{provider}[profile.demo]\nprovider = \"acme\"\n[hooks]\n{hooks}\n"));
}

fn write_script(sandbox: &Sandbox, name: &str, lines: &str) -> PathBuf {
    let path = sandbox.path("home").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn lines(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(sandbox.path("home").join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What the hook was told, in order.
fn told(sandbox: &Sandbox) -> Vec<Value> {
    lines(sandbox, "told").iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(sandbox: &Sandbox) -> Vec<String> {
    told(sandbox).iter().map(|told| told["event"].as_str().unwrap().to_owned()).collect()
}

/// The profile's refresh token is rejected.
fn lose_login(server: &AuthServer, sandbox: &Sandbox) {
    server.script([DEAD]);
    sandbox.refresh(&["--force"]).exits(77);
}

#[test]
fn login_that_is_needed_is_told_once_under_ten_runs() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_needs_login = HOOK\non_refreshed = HOOK", TELL);
    lose_login(&server, &sandbox);
    let message = told(&sandbox)[0].clone();
    let members: Vec<&str> = message.as_object().unwrap().keys().map(String::as_str).collect();
    let all =
        ["at", "error", "event", "expires_at", "generation", "host", "outcome", "profile", "provider", "retry_at"];
    assert_eq!(members, all);
    for (member, value) in [
        ("event", json!("needs_login")),
        ("profile", json!("demo")),
        ("provider", json!("acme")),
        ("outcome", json!("needs_login")),
        ("generation", json!(1)),
        ("retry_at", Value::Null),
    ] {
        assert_eq!(message[member], value, "{message}");
    }
    assert_eq!(
        (&message["error"], &message["expires_at"]),
        (&sandbox.status()["error"], &sandbox.status()["expires_at"])
    );
    for run in run_at_once(&sandbox, &vec![vec!["refresh"]; 10]) {
        run.exits(77);
    }
    server.script([DEAD]);
    for _ in 0..3 {
        sandbox.refresh(&["--force"]).exits(77);
    }
    assert_eq!(events(&sandbox), ["needs_login"]);
    let hook = &sandbox.status()["hooks"][0];
    assert_eq!((&hook["event"], &hook["result"], &hook["runs"]), (&json!("needs_login"), &json!("ok"), &json!(1)));
}

#[test]
fn runs_and_a_daemon_at_once_tell_it_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_needs_login = HOOK\nnotify = \"off\"", "sleep 0.2; cat >> $HOME/told");
    configure(&sandbox, &server, "");
    lose_login(&server, &sandbox);
    configure(&sandbox, &server, "on_needs_login = HOOK");
    let daemon = sandbox.spawn(&["-v", "daemon"]);
    run_at_once(&sandbox, &vec![vec!["refresh"]; 10]);
    daemon.wait_for_line("daemon is up");
    eventually("one of them tells it", || (!told(&sandbox).is_empty()).then_some(()));
    run_at_once(&sandbox, &vec![vec!["refresh"]; 6]);
    daemon.terminate();
    daemon.finish().exits(0);
    assert_eq!(events(&sandbox), ["needs_login"]);
}

#[test]
fn reminder_is_repeated_by_runs_and_by_a_daemon() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_needs_login = HOOK\nremind = \"1s\"", TELL);
    lose_login(&server, &sandbox);
    eventually("a run repeats it", || {
        sandbox.keepalive(&["refresh"]);
        (told(&sandbox).len() == 2).then_some(())
    });
    let _daemon = sandbox.daemon();
    eventually("a daemon repeats it by itself", || (told(&sandbox).len() >= 4).then_some(()));
    assert_eq!(server.counts().refresh_requests, 1);
}

#[test]
fn login_ends_it_and_that_is_told() {
    let server = AuthServer::start(RotationMode::Strict);
    let hooks = "on_needs_login = HOOK\non_recovered = HOOK";
    for has_daemon in [false, true] {
        let sandbox = hooked(&server, hooks, TELL);
        lose_login(&server, &sandbox);
        let daemon = has_daemon.then(|| sandbox.daemon());
        sandbox.import("demo", &server.mint()).exits(0);
        sandbox.keepalive(&["refresh"]).exits(0);
        eventually("it is told", || (told(&sandbox).len() == 2).then_some(()));
        drop(daemon);
        let recovered = &told(&sandbox)[1];
        assert_eq!((&recovered["event"], &recovered["outcome"]), (&json!("recovered"), &json!("fresh")));
        assert_eq!((&recovered["error"], &recovered["generation"]), (&Value::Null, &json!(2)));
        lose_login(&server, &sandbox);
        assert_eq!(events(&sandbox), ["needs_login", "recovered", "needs_login"], "it is another one");
    }
}

#[test]
fn refresh_gives_the_access_token_on_standard_input_alone() {
    let server = AuthServer::start(RotationMode::Strict);
    let look = "cat >> $HOME/told; tr '\\0' '\\n' < /proc/$$/environ > $HOME/env; tr '\\0' ' ' < /proc/$$/cmdline > $HOME/argv; pwd > $HOME/cwd; \
                read -r _ _ _ _ group _ < /proc/$$/stat; echo $group > $HOME/group; echo $$ >> $HOME/group";
    let mut sandbox = hooked(&server, "on_refreshed = HOOK\ntoken = true\non_needs_login = HOOK", look);
    sandbox.set_env("SECRET_OF_THE_USER", "canary-env");
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(0);
    let access = sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
    let message = told(&sandbox)[0].clone();
    assert_eq!((&message["event"], &message["access_token"]), (&json!("refreshed"), &json!(access)));
    assert_eq!((&message["outcome"], &message["generation"]), (&json!("refreshed"), &json!(2)));
    let set: Vec<String> = lines(&sandbox, "env").iter().map(|v| v.split_once('=').unwrap().0.to_owned()).collect();
    for name in ["PATH", "HOME", "LANG", "XDG_STATE_HOME", "DBUS_SESSION_BUS_ADDRESS"] {
        assert!(set.iter().any(|set| set == name), "no {name} in {set:?}");
    }
    let own = ["KEEPALIVE_EVENT=refreshed", "KEEPALIVE_PROFILE=demo", "KEEPALIVE_WITHIN=demo"];
    assert!(own.iter().all(|own| lines(&sandbox, "env").iter().any(|set| set == own)));
    let is_named = |name: &str| name.starts_with("XDG_") || name.starts_with("KEEPALIVE_") || name == "PWD";
    let others: Vec<_> = set.iter().filter(|name| !is_named(name)).collect();
    assert_eq!(others.len(), 4, "{others:?}");
    assert_eq!(lines(&sandbox, "cwd"), ["/"]);
    let group = lines(&sandbox, "group");
    assert_eq!(group[0], group[1], "a process group of its own");
    lose_login(&server, &sandbox);
    assert!(told(&sandbox)[1].get("access_token").is_none());
    for name in ["env", "argv"] {
        assert!(!lines(&sandbox, name).join("\n").contains("canary"), "{name}");
    }
    let text = lines(&sandbox, "told").join("\n");
    assert!(!text.contains("canary-rt") && text.matches("canary").count() == 1, "{text}");
    for entry in std::fs::read_dir(sandbox.path("state/keepalive/hooks")).unwrap().map(Result::unwrap) {
        assert!(!std::fs::read_to_string(entry.path()).unwrap().contains("canary"));
    }
}

#[test]
fn hook_that_asks_for_its_own_token_gets_the_stored_one() {
    let server = AuthServer::start(RotationMode::Strict);
    let ask =
        format!("{PROGRAM} token demo --min-valid 9m > $HOME/token 2> $HOME/said; {PROGRAM} refresh --force; {TELL}");
    let sandbox = hooked(&server, "on_refreshed = HOOK", &ask);
    for has_daemon in [false, true] {
        let daemon = has_daemon.then(|| sandbox.daemon());
        let before = server.counts().refresh_requests;
        sandbox.refresh(&["--force"]).exits(0);
        eventually("it is told", || (told(&sandbox).len() == 1 + usize::from(has_daemon)).then_some(()));
        let newest = sandbox.keepalive(&["token", "demo"]).exits(0).stdout;
        assert_eq!(lines(&sandbox, "token"), [newest.trim()], "{:?}", lines(&sandbox, "said"));
        assert!(
            lines(&sandbox, "said").is_empty(),
            "a token that is new is not doubted: {:?}",
            lines(&sandbox, "said")
        );
        assert_eq!(server.counts().refresh_requests, before + 1);
        drop(daemon);
    }
}

/// It forks, it ignores SIGTERM, and it never reads its input.
#[test]
fn hook_that_hangs_is_killed_with_its_group_and_changes_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let hang = "trap '' TERM; sleep 600 & echo $! >> $HOME/pids; echo $$ >> $HOME/pids; while :; do sleep 1; done";
    let sandbox = hooked(&server, "on_refreshed = HOOK\ntimeout = \"300ms\"\ntoken = true", hang);
    let begun = Instant::now();
    let run = sandbox.refresh(&["--force"]).exits(0);
    assert_eq!((&run.result()["outcome"], &run.result()["error"]), (&json!("refreshed"), &Value::Null));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(run.stderr.contains("on_refreshed failed: not done within 300ms"), "{run:?}");
    assert_eq!(lines(&sandbox, "pids").len(), 2);
    eventually("its processes are gone", || lines(&sandbox, "pids").iter().all(|pid| is_gone(pid)).then_some(()));
    let hook = sandbox.status()["hooks"][0].clone();
    assert_eq!((&hook["result"], &hook["error"]["kind"]), (&json!("timed_out"), &json!("hook")));
    sandbox.keepalive(&["status"]).exits(0).says("the hook on_refreshed failed");
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

#[test]
fn hook_that_hangs_delays_no_refresh_and_events_collapse() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(4));
    let wait = "cat >> $HOME/told; while [ ! -e $HOME/go ]; do sleep 0.05; done";
    let sandbox = hooked(&server, "on_refreshed = HOOK", wait);
    let _daemon = sandbox.daemon();
    eventually("it refreshes while a hook hangs", || (server.counts().refresh_ok >= 4).then_some(()));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(told(&sandbox).len(), 1, "one at a time, across processes");
    server.set_access_life(Duration::from_secs(3600));
    sandbox.refresh(&["--force"]).exits(0);
    let newest = sandbox.status()["generation"].as_u64().unwrap();
    std::fs::write(sandbox.path("home/go"), "").unwrap();
    eventually("the newest is told", || (told(&sandbox).last()?["generation"].as_u64()? >= newest).then_some(()));
    assert_eq!(told(&sandbox).len(), 2, "{:?}", told(&sandbox));
}

/// Goes on until it is told to end.
const HANG: &str = "echo $$ >> $HOME/pids; cat >> $HOME/told; while [ ! -e $HOME/go ]; do sleep 0.05; done";

/// Gives the profile an access token that has expired.
fn expire(server: &AuthServer, sandbox: &Sandbox) {
    let mut answer = server.mint();
    answer["obtained_at"] = 1_000_000_000.into();
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &answer.to_string()).exits(0);
}

/// What was lost: 25 seconds of a program that waits 7 for its token, to a hook.
#[test]
fn hook_that_hangs_delays_no_token_and_no_command() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_refreshed = HOOK", HANG);
    let children = "read children < /proc/$$/task/$$/children; echo children:$children";
    let exec = ["exec", "demo", "--", "sh", "-c", children];
    for (n, words) in [&["token", "demo"][..], &exec, &["token", "demo", "--format", "grok"]].into_iter().enumerate() {
        expire(&server, &sandbox);
        let run = sandbox.keepalive(words).exits(0);
        assert_eq!(server.counts().refresh_requests, n + 1);
        assert!(!run.stdout.contains("children:") || run.stdout == "children:\n", "{run:?}");
        let pids = || Some(lines(&sandbox, "pids")).filter(|pids| pids.len() == 1);
        let pids = eventually("a hook runs", pids);
        assert!(!is_gone(&pids[0]), "the run has waited for it");
    }
    std::fs::write(sandbox.path("home/go"), "").unwrap();
    eventually("what came last is told, too", || (told(&sandbox).last()?["generation"] == 7).then_some(()));
    eventually("that is noted", || (sandbox.status()["hooks"][0]["runs"] == 2).then_some(()));
    assert_eq!(sandbox.status()["hooks"][0]["result"], "ok");
}

#[test]
fn hook_that_was_left_behind_has_its_time_limit() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_refreshed = HOOK\ntimeout = \"300ms\"", HANG);
    expire(&server, &sandbox);
    sandbox.keepalive(&["token", "demo"]).exits(0);
    eventually("it is ended", || (sandbox.status()["hooks"][0]["result"] == "timed_out").then_some(()));
    assert!(lines(&sandbox, "pids").iter().all(|pid| is_gone(pid)));
}

#[test]
fn hook_that_says_much_costs_no_memory() {
    let server = AuthServer::start(RotationMode::Strict);
    let say = "head -c 300000000 /dev/zero >&2; head -c 100000000 /dev/zero; cat >> $HOME/told; exit 3";
    let sandbox = hooked(&server, "on_refreshed = HOOK", say);
    let daemon = sandbox.daemon();
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = peak();
    sandbox.refresh(&["--force"]).exits(0);
    let sandbox = &sandbox;
    server.set_access_life(Duration::from_secs(3));
    sandbox.refresh(&["--force"]).exits(0);
    daemon.wait_for_line("hook.failed");
    assert!(peak() < before + 32 * 1024, "{} kB, and {} kB before", peak(), before);
}

#[test]
fn failing_hook_is_told_without_the_token_it_prints() {
    let server = AuthServer::start(RotationMode::Strict);
    let leak = "read line; echo \"$line\" >&2; echo \"it went wrong\" >&2; exit 3";
    let sandbox = hooked(&server, "on_refreshed = HOOK\ntoken = true", leak);
    let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(0);
    assert!(run.stderr.contains("hook.failed") && run.stderr.contains("it went wrong"), "{run:?}");
    assert!(run.stderr.contains("\\\"event\\\"") || run.stderr.contains("\"event\""), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
    let error = sandbox.status()["hooks"][0]["error"].clone();
    assert_eq!(error["message"], "the hook on_refreshed failed: exit status 3: it went wrong");
    assert!(error["hint"].as_str().unwrap().starts_with("try it: echo '{\"event\":\"refreshed\""));
    sandbox.keepalive(&["doctor"]).says("the hook on_refreshed failed").says("try it:");
    let set_mode = |mode| {
        std::fs::set_permissions(sandbox.path("home/hook"), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap()
    };
    set_mode(0o644);
    sandbox.refresh(&["--force"]).exits(0).says("it may not be run; chmod +x");
    std::fs::write(sandbox.path("home/hook"), "#!/no/such/program\n").unwrap();
    set_mode(0o755);
    sandbox.refresh(&["--force"]).exits(0).says("the program that its first line names is not there");
    write_script(&sandbox, "hook", "exit 0");
    sandbox.refresh(&["--force"]).exits(0);
    let hook = sandbox.status()["hooks"][0].clone();
    assert_eq!((&hook["error"], &hook["runs"], &hook["failures"]), (&Value::Null, &json!(4), &json!(3)));
    std::fs::remove_file(sandbox.path("home/hook")).unwrap();
    sandbox.refresh(&["--force"]).exits(0).says("cannot run `");
    sandbox.keepalive(&["doctor"]).says("the program of on_refreshed is not there");
}

#[test]
fn failing_refresh_is_told_once_when_half_of_the_margin_is_over() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_deferred = HOOK\non_recovered = HOOK\non_refreshed = HOOK", TELL);
    server.script([SLOW_DOWN]);
    sandbox.refresh(&["--force"]).exits(75);
    assert!(events(&sandbox).is_empty(), "there is time");
    server.set_access_life(Duration::from_secs(3));
    sandbox.keepalive_with_input(&["import", "demo", "--replace"], &just_granted(&server.mint()).to_string()).exits(0);
    server.script([SLOW_DOWN, SLOW_DOWN]);
    eventually("it is told", || {
        sandbox.refresh(&[]);
        (!events(&sandbox).is_empty()).then_some(())
    });
    sandbox.refresh(&[]).exits(75);
    assert_eq!(events(&sandbox), ["deferred"]);
    server.set_access_life(Duration::from_secs(600));
    let message = &told(&sandbox)[0];
    assert_eq!((&message["outcome"], &message["error"]["kind"]), (&json!("deferred"), &json!("throttled")));
    assert!(message["retry_at"].is_string(), "{message}");
    eventually("the server has recovered", || (sandbox.refresh(&[]).status == 0).then_some(()));
    let mut events = events(&sandbox);
    events.sort();
    assert_eq!(events, ["deferred", "recovered", "refreshed"]);
}

/// Rule 17.
#[test]
fn token_in_doubt_is_told_at_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_deferred = HOOK", TELL);
    server.script([Fault::DropAfter]);
    sandbox.refresh(&["--force"]);
    sandbox.keepalive(&["refresh"]);
    let outcomes: Vec<Value> = told(&sandbox).iter().map(|told| told["outcome"].clone()).collect();
    assert_eq!(outcomes, ["in_doubt"]);
}

#[test]
fn end_of_a_login_is_told_ahead_if_no_refresh_moves_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let ends_in = |seconds: u64| Fault::ReplaceMembers(json!({"refresh_token_expires_in": seconds}));
    let sandbox = hooked(&server, "on_login_due = HOOK", TELL);
    let day = 24 * 3600;
    let refresh = |seconds| {
        server.script([ends_in(seconds)]);
        sandbox.refresh(&["--force"]).exits(0);
        sandbox.keepalive(&["refresh"]).exits(0);
        events(&sandbox).len()
    };
    assert_eq!(refresh(5 * day), 0, "another refresh may move it");
    assert_eq!([refresh(5 * day - 10), refresh(5 * day - 20), refresh(2 * day)], [1, 1, 2]);
    let message = &told(&sandbox)[0];
    assert_eq!((&message["event"], &message["outcome"]), (&json!("login_due"), &json!("refreshed")));
    assert!(message["login_by"].is_string(), "{message}");
    assert_eq!(sandbox.status()["state"], "fresh");
}

#[test]
fn desktop_shows_a_needed_login_where_there_is_one() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = hooked(&server, "", "");
    write_script(
        &sandbox,
        "notify-send",
        "for word in \"$@\"; do echo \"$word\"; done >> $HOME/shown; echo . >> $HOME/shown",
    );
    lose_login(&server, &sandbox);
    let path = format!("{}:{}", sandbox.path("home").display(), std::env::var("PATH").unwrap());
    sandbox.set_env("PATH", &path);
    sandbox.set_env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    configure(&sandbox, &server, "notify = \"off\"");
    sandbox.keepalive(&["refresh"]).exits(77);
    assert!(lines(&sandbox, "shown").is_empty());
    configure(&sandbox, &server, "");
    for _ in 0..3 {
        sandbox.keepalive(&["refresh"]);
    }
    let shown = lines(&sandbox, "shown");
    assert_eq!(shown[..5], ["-u", "critical", "-a", "keepalive", "keepalive: demo needs a login"], "{shown:?}");
    assert!(shown[5].ends_with("keepalive login demo") && shown.len() == 7, "{shown:?}");
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.keepalive(&["refresh"]).exits(0);
    let shown = lines(&sandbox, "shown");
    assert_eq!((shown.len(), shown[11].as_str()), (14, "keepalive: demo is signed in again"));
}

#[test]
fn profile_changes_single_settings_of_all() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = hooked(&server, "on_refreshed = HOOK\non_needs_login = HOOK", TELL);
    write_script(&sandbox, "own", "echo '{\"event\":\"own\"}' >> $HOME/told");
    let config = std::fs::read_to_string(sandbox.path("config/keepalive/config.toml")).unwrap();
    let own = "[profile.demo.hooks]\non_refreshed = [\"~/own\"]\n";
    sandbox.config(&format!("{config}{own}"));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(events(&sandbox), ["own"]);
    sandbox.config(&format!("{config}{}", own.replace("\"~/own\"", "")));
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(events(&sandbox), ["own"]);
    lose_login(&server, &sandbox);
    assert_eq!(events(&sandbox), ["own", "needs_login"]);
}

#[test]
fn mistakes_of_hooks_are_told_at_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let wrong = "on_need_login = [\"x\"]\non_refreshed = \"x\"\ntimeout = \"30\"\nremind = \"0s\"\ntoken = \"yes\"\nnotify = \"on\"\n\
                 [profile.demo.hooks]\non_recovered = [5]\n";
    configure(&sandbox, &server, wrong);
    let run = sandbox.keepalive(&["doctor"]).exits(78);
    for words in [
        "did you mean \"on_needs_login\"?",
        "on_refreshed must be a list of strings",
        "did you mean \"30s\"?",
        "remind must be between 1s and 365d",
        "token must be true or false",
        "notify must be \"auto\" or \"off\"",
        "on_recovered must be a list of strings, but contains a number",
    ] {
        assert!(run.stdout.contains(words), "no {words:?} in {run:#?}");
    }
}

#[test]
fn daemon_that_stops_leaves_no_hook_behind() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(3));
    let hang = "trap '' TERM; echo $$ >> $HOME/pids; while :; do sleep 0.1; done";
    let sandbox = hooked(&server, "on_refreshed = HOOK\ntimeout = \"10m\"", hang);
    let daemon = sandbox.daemon();
    eventually("a hook runs", || (!lines(&sandbox, "pids").is_empty()).then_some(()));
    server.set_access_life(Duration::from_secs(600));
    daemon.terminate();
    let begun = Instant::now();
    daemon.finish().exits(0);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    eventually("it is gone", || lines(&sandbox, "pids").iter().all(|pid| is_gone(pid)).then_some(()));
}

/// What was lost: a minute after the stop of a run, to a hook that hangs.
#[test]
fn run_that_is_stopped_ends_its_hook() {
    let server = AuthServer::start(RotationMode::Strict);
    let hang = "trap '' TERM; echo $$ >> $HOME/pids; while :; do sleep 0.1; done";
    let sandbox = hooked(&server, "on_refreshed = HOOK\ntimeout = \"10m\"", hang);
    let run = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    eventually("a hook runs", || (!lines(&sandbox, "pids").is_empty()).then_some(()));
    run.terminate();
    let begun = Instant::now();
    run.finish().exits(0);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    eventually("it is gone", || lines(&sandbox, "pids").iter().all(|pid| is_gone(pid)).then_some(()));
}

/// With thirty seconds for a hook, eight profiles that need a login do not keep cron waiting for four minutes.
#[test]
fn hooks_of_many_profiles_run_at_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    write_script(&sandbox, "hook", "sleep 1; cat >> $HOME/told");
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let profiles: String = names.iter().map(|name| format!("[profile.{name}]\nprovider = \"acme\"\n")).collect();
    let hook = sandbox.path("home/hook").display().to_string();
    let hooks = format!("[hooks]\non_needs_login = [\"{hook}\"]\n");
    sandbox.file_store(&format!("{}{profiles}{hooks}", server.provider("")));
    for name in &names {
        sandbox.import(name, &server.mint()).exits(0);
        server.script([DEAD]);
    }
    let begun = Instant::now();
    let mut arguments = vec!["refresh", "--force"];
    arguments.extend(names.iter().flat_map(|name| ["-p", name]));
    sandbox.keepalive(&arguments).exits(77);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert_eq!(told(&sandbox).len(), 8);
}
