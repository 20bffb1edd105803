//! Nothing hangs: a process that is stopped, a thread that cannot be had, a pipe in the place of a file. Each wait ends,
//! names what it waits for and who has it, and costs no other profile anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use keepalive::sys::lockfile::LockFile;
use rustix::fs::{FileType, Mode};
use serde_json::json;

use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::eventually;
use super::support::sandbox::{PROGRAM, Process, Run, Sandbox};
use super::support::token_family::RotationMode;

/// The exit statuses that the manual has.
const STATUSES: [i32; 7] = [0, 1, 2, 69, 75, 77, 78];

/// Runs a script in the sandbox's environment; `$0` is the program.
fn run_in_shell(sandbox: &Sandbox, script: &str) -> Run {
    let mut command = sandbox.command(Path::new("sh"));
    command.args(["-c", script, PROGRAM]);
    Process::new(command.spawn().unwrap()).finish()
}

/// A library that gives no thread from the n-th on, built here.
fn without_threads(sandbox: &Sandbox) -> PathBuf {
    let (source, library) = (sandbox.path("no_threads.c"), sandbox.path("no_threads.so"));
    let text = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <pthread.h>
        #include <stdatomic.h>
        #include <stdlib.h>
        int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *p) {
            static atomic_int calls;
            int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
            return ++calls >= atoi(getenv("THREADS_UNTIL")) ? EAGAIN : real(t, a, f, p);
        }"#;
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(built.unwrap().success());
    library
}

#[test]
fn refresh_ends_at_its_timeout_and_names_the_holder() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let holder = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    holder.pause();
    let run = sandbox.keepalive(&["refresh", "-p", "demo", "--force", "--timeout", "1s", "--json"]).exits(75);
    assert_eq!(run.result()["error"]["kind"], "busy", "{run:#?}");
    let words = format!("pid {} (stopped) has the lock of the profile", holder.id());
    run.says(&words).says(&format!("kill -CONT {}", holder.id()));
    holder.signal(rustix::process::Signal::CONT);
    drop(gate);
    holder.finish().exits(0);
    assert_eq!(server.settled_counts().presented_again, 0);
}

#[test]
fn import_waits_for_a_profile_without_the_store_lock() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in_with(&server, "[profile.other]\nprovider = \"acme\"\n");
    let held = LockFile::acquire(&sandbox.lock_file("demo")).unwrap();
    let answer = sandbox.path("home/answer");
    std::fs::write(&answer, server.mint().to_string()).unwrap();
    let file = answer.display().to_string();
    let waiting = sandbox.spawn(&["import", "demo", "--replace", &file]);
    waiting.wait_for_line(&format!("waiting for pid {}", std::process::id()));
    sandbox.import("other", &server.mint()).exits(0);
    drop(held);
    waiting.finish().exits(0);
}

/// Rule 4.
#[test]
fn token_lock_keeps_no_other_token_and_leaves_no_file() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let running = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    let locks = || std::fs::read_dir(sandbox.path("state/keepalive/tokens")).unwrap().flatten().collect::<Vec<_>>();
    let [lock] = &locks()[..] else { panic!("one token is locked: {:?}", locks()) };
    assert_eq!(lock.file_name().len(), 32, "it is named by the whole fingerprint");
    drop(gate);
    running.finish().exits(0);
    assert!(locks().is_empty(), "{:?}", locks());
}

#[test]
fn lock_that_is_held_for_long_is_told_with_its_holder() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let path = sandbox.lock_file("demo");
    let _held = LockFile::acquire(&path).unwrap();
    let words = format!("pid {} has had the lock of the profile for", std::process::id());
    let quiet = sandbox.keepalive(&["status"]).exits(0);
    assert!(!quiet.stderr.contains(&words), "{quiet:#?}");
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    sandbox.keepalive(&["status"]).exits(0).says(&words);
    sandbox.keepalive(&["doctor"]).says(&words);
}

#[test]
fn thread_that_cannot_be_had_ends_a_refresh_before_it_sends() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let library = without_threads(&sandbox).display().to_string();
    sandbox.set_env("LD_PRELOAD", &library);
    let spent = json!({"access_token": "at", "refresh_token": "rt-of-another-tool"}).to_string();
    for until in 1..=9 {
        sandbox.set_env("THREADS_UNTIL", &until.to_string());
        for command in [
            &["refresh", "-p", "demo", "--force"][..],
            &["token", "demo"],
            &["status"],
            &["doctor"],
            &["import", "other", "--provider", "acme"],
            &["logout", "other"],
        ] {
            let run = sandbox.keepalive_with_input(command, &spent);
            assert!(STATUSES.contains(&run.status), "{command:?} with threads until {until}: {run:#?}");
            assert_ne!(run.status, 78, "{command:?} with threads until {until}: the configuration is right");
        }
    }
    sandbox.set_env("THREADS_UNTIL", "1000");
    sandbox.refresh(&["--force"]).exits(0);
    assert_eq!(server.settled_counts().presented_again, 0);
}

/// A runtime that gets one of its threads and not the other waits for the first without an end.
#[test]
fn daemon_without_threads_ends_and_says_so() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let library = without_threads(&sandbox).display().to_string();
    sandbox.set_env("LD_PRELOAD", &library);
    for until in 1..=3 {
        sandbox.set_env("THREADS_UNTIL", &until.to_string());
        sandbox.spawn(&["daemon"]).finish().exits(75).says("cannot start");
    }
}

#[test]
fn file_size_limit_is_an_error_and_nothing_is_sent() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    run_in_shell(&sandbox, "ulimit -f 1000; exec \"$0\" refresh -p demo --force").exits(69).says("cannot reserve");
    for command in ["refresh -p demo --force", "token demo", "status", "doctor", "logout demo", "rehearse"] {
        let run = run_in_shell(&sandbox, &format!("ulimit -f 0; exec \"$0\" {command}"));
        assert!(STATUSES.contains(&run.status), "{command}: {run:#?}");
    }
    assert_eq!(server.settled_counts().refresh_requests, 0);
}

#[test]
fn few_descriptors_are_an_error_of_the_table() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for limit in 4..=16 {
        for command in ["refresh -p demo --force", "token demo", "status"] {
            let run = run_in_shell(&sandbox, &format!("ulimit -n {limit}; exec \"$0\" {command}"));
            assert!(STATUSES.contains(&run.status), "{command} with {limit} descriptors: {run:#?}");
        }
    }
    assert_eq!(server.settled_counts().presented_again, 0);
}

#[test]
fn file_without_an_end_is_an_error() {
    let server = AuthServer::start(RotationMode::Strict);
    for key in
        ["ca_file = \"/dev/zero\"", "client_auth = \"client_secret_post\"\nclient_secret = { file = \"/dev/zero\" }"]
    {
        let sandbox = Sandbox::signed_in(&server);
        sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(key)));
        sandbox.keepalive(&["refresh", "--force"]).exits(78).says("/dev/zero").says("larger than 16 MiB");
    }
    assert_eq!(server.settled_counts().refresh_requests, 0);
}

#[test]
fn pipe_in_the_place_of_a_file_is_refused_not_waited_for() {
    let server = AuthServer::start(RotationMode::Strict);
    let files = ["profiles/demo/record.json", "profiles/demo/sealed", "profiles/demo/lock", "ledger", "store.json"];
    for file in
        files.map(|file| format!("state/keepalive/{file}")).into_iter().chain(["config/keepalive/config.toml".into()])
    {
        let sandbox = Sandbox::signed_in(&server);
        let path = sandbox.path(&file);
        let _absent = std::fs::remove_file(&path);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for command in [&["status"][..], &["token", "demo"], &["refresh", "-p", "demo", "--force", "--timeout", "20s"]]
        {
            let run = sandbox.keepalive(command);
            assert!(STATUSES.contains(&run.status), "{command:?} with a pipe as {file}: {run:#?}");
        }
    }
}

/// What was lost: a profile whose next refresh stood in the table, and which a stopped daemon let expire.
#[test]
fn status_tells_of_a_daemon_that_is_stopped() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let daemon = sandbox.daemon();
    let told = |run: Run| run.stderr.contains("does not run on");
    assert!(!told(sandbox.keepalive(&["status"]).exits(0)));
    daemon.signal(rustix::process::Signal::STOP);
    eventually("it is told", || told(sandbox.keepalive(&["status"]).exits(0)).then_some(()));
    sandbox.keepalive(&["status"]).says(&format!("kill -CONT {}", daemon.id()));
    daemon.signal(rustix::process::Signal::CONT);
}
