//! A store that cannot take the response of a refresh: `status` and `doctor` say so before a run meets it, and as it does.

use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::support::auth_server::AuthServer;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

fn pipe(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}

fn link(path: &Path) {
    std::os::unix::fs::symlink("/nowhere", path).unwrap();
}

fn directory(path: &Path) {
    std::fs::create_dir(path).unwrap();
}

fn file(path: &Path) {
    std::fs::write(path, "").unwrap();
}

/// A path in the store, what comes in its place, and what is said of it. It stops even root, whom no mode keeps out.
type ObstacleCase = (&'static str, fn(&Path), &'static str);

const OBSTACLES: [ObstacleCase; 10] = [
    ("profiles/demo/lock", pipe, "is a pipe, and not a file"),
    ("profiles/demo/lock", link, "is a symbolic link, and not a file"),
    ("profiles/demo/lock", directory, "is a directory, and not a file"),
    ("profiles/demo/received", pipe, "is a pipe, and not a file"),
    ("profiles/demo/received", directory, "is a directory, and not a file"),
    ("profiles/demo/received", link, "is a symbolic link, and not a file"),
    ("profiles/demo/.received.new", directory, "is a directory, and not a file"),
    ("profiles/demo/.record.json.new", directory, "is a directory, and not a file"),
    ("tokens", file, "is a file, and not a directory"),
    ("tokens", link, "is a symbolic link that leads nowhere, and not a directory"),
];

fn remove(path: &Path) {
    let Ok(about) = std::fs::symlink_metadata(path) else { return };
    if about.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
}

/// The row of the profile, which `status` shows with this exit status.
#[track_caller]
fn shown(sandbox: &Sandbox, exit: i32) -> Value {
    sandbox.keepalive(&["--json", "status"]).exits(exit).json()["profiles"][0].clone()
}

#[test]
fn obstacle_in_the_store_is_told_before_a_refresh_meets_it() {
    let server = AuthServer::start(RotationMode::Strict);
    for (path, put, words) in OBSTACLES {
        let sandbox = Sandbox::signed_in(&server);
        let place = sandbox.path("state/keepalive").join(path);
        println!("{path} {words}");
        let (words, hint) = (format!("{} {words}", place.display()), format!("move {} away", place.display()));
        assert_eq!(shown(&sandbox, 0)["error"], Value::Null);
        remove(&place);
        put(&place);
        // The access token lives on, and before its margin that is no failure yet.
        let row = shown(&sandbox, 0);
        assert_eq!((&row["state"], &row["error"]["message"]), (&"fresh".into(), &words.clone().into()));
        sandbox.keepalive(&["status"]).exits(0).says("fresh, but the next refresh would fail").says(&hint);
        sandbox.keepalive(&["doctor"]).exits(69).says(&words).says(&hint);
        sandbox.keepalive(&["refresh", "-p", "demo", "--force"]).exits(69).says(path.rsplit('/').next().unwrap());
        sandbox.keepalive(&["token", "demo"]).exits(0);
        remove(&place);
        assert_eq!(shown(&sandbox, 0)["error"], Value::Null);
        sandbox.keepalive(&["doctor"]).exits(0);
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

/// What a login was granted, it cannot ask for again.
#[test]
fn login_that_could_not_be_stored_asks_the_server_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let server = AuthServer::start(RotationMode::Strict);
    for (path, put, words) in OBSTACLES {
        let sandbox = Sandbox::signed_in(&server);
        let place = sandbox.path("state/keepalive").join(path);
        remove(&place);
        put(&place);
        let device = format!("device_authorization_endpoint = \"http://{}\"\n", silent.local_addr().unwrap());
        sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(&device)));
        sandbox.keepalive(&["login", "demo", "--device"]).exits(69).says(words);
        assert!(silent.accept().is_err(), "{path}");
    }
}

#[test]
fn due_profile_that_cannot_be_stored_is_store_unavailable() {
    let server = AuthServer::start(RotationMode::Strict);
    for (path, put, words) in OBSTACLES {
        let sandbox = Sandbox::signed_in(&server);
        sandbox.keepalive_with_input(&["import", "demo", "--replace"], &server.mint().to_string()).exits(0);
        assert_eq!(shown(&sandbox, 0)["state"], "due");
        let place = sandbox.path("state/keepalive").join(path);
        remove(&place);
        put(&place);
        for _ in 0..2 {
            let row = shown(&sandbox, 69);
            assert_eq!((&row["state"], &row["error"]["kind"]), (&"store_unavailable".into(), &"io".into()));
            sandbox.keepalive(&["status"]).exits(69).says(words);
            sandbox.keepalive(&["doctor"]).exits(69).says(words);
            sandbox.keepalive(&["refresh"]).exits(69);
        }
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn one_obstacle_of_all_profiles_is_one_finding() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for profile in ["first", "second"] {
        let answer = server.mint().to_string();
        sandbox.keepalive_with_input(&["import", profile, "--provider", "acme"], &answer).exits(0);
    }
    let tokens = sandbox.path("state/keepalive/tokens");
    remove(&tokens);
    file(&tokens);
    let told = sandbox.keepalive(&["doctor"]).exits(69).says("1 problem");
    assert_eq!(told.stdout.matches("a refresh could not be stored").count(), 1, "{told:#?}");
}

#[test]
fn size_limit_is_told_by_status_and_doctor() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    for (command, exit) in [("status", 0), ("doctor", 69), ("refresh --force", 69)] {
        let mut shell = sandbox.command(Path::new("sh"));
        shell.args(["-c", &format!("ulimit -f 1000; exec \"$0\" {command}"), super::support::sandbox::PROGRAM]);
        let run = super::support::sandbox::Process::new(shell.spawn().unwrap()).finish().exits(exit);
        run.says("raise the limit: ulimit -f unlimited");
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 8.
#[ignore = "needs root; contrib/test runs it"]
#[test]
fn response_that_could_not_get_its_name_is_not_asked_for() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let sealed = sandbox.path("state/keepalive/profiles/demo/sealed");
    let open = std::fs::File::open(&sealed).unwrap();
    let flags = ioctl_getflags(&open).unwrap();
    ioctl_setflags(&open, flags | IFlags::IMMUTABLE).expect("root may, on ext4, xfs and btrfs");
    let runs = [&["refresh", "--force"][..], &["doctor"], &["status"]].map(|command| sandbox.keepalive(command));
    ioctl_setflags(&open, flags).unwrap();
    assert_eq!(runs.map(|run| run.says(&format!("chattr -i -a {}", sealed.display())).status), [69, 69, 0]);
    assert_eq!(server.counts().refresh_requests, 0);
    sandbox.refresh(&["--force"]).exits(0);
}

#[test]
fn store_json_that_is_no_file_is_told_by_status() {
    let server = AuthServer::start(RotationMode::Strict);
    for put in [pipe, link, directory] {
        let sandbox = Sandbox::signed_in(&server);
        let place = sandbox.path("state/keepalive/store.json");
        remove(&place);
        put(&place);
        assert_eq!(shown(&sandbox, 69)["state"], "store_unavailable");
        sandbox.keepalive(&["status"]).exits(69).says(&format!("move {} away", place.display()));
        for command in [&["token", "demo"][..], &["refresh", "--force"], &["doctor"]] {
            sandbox.keepalive(command).exits(69);
        }
        remove(&place);
        sandbox.refresh(&["--force"]).exits(0);
    }
    assert_eq!(server.counts().presented_again, 0);
}
