//! Mirrors: what other programs get after each refresh, what is left alone, and that none of them gets the refresh token.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::support::auth_server::AuthServer;
use super::support::eventually;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

/// A sandbox whose profile `demo` has these mirrors. `AT` in them is the home directory.
fn mirrored(server: &AuthServer, mirrors: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    configure(&sandbox, server, mirrors);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox
}

fn configure(sandbox: &Sandbox, server: &AuthServer, mirrors: &str) {
    let mirrors = mirrors.replace("AT", &sandbox.path("home").display().to_string());
    sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n{mirrors}", server.provider("")));
}

fn text(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path("home").join(name)).unwrap()
}

fn document(sandbox: &Sandbox, name: &str) -> Value {
    serde_json::from_str(&text(sandbox, name)).unwrap()
}

fn token(sandbox: &Sandbox) -> String {
    sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned()
}

fn mirror(sandbox: &Sandbox) -> Value {
    sandbox.status()["mirrors"][0].clone()
}

const FILE: &str = "[[profile.demo.mirror]]\nkind = \"file\"\npath = \"AT/token\"\n";
const JSON: &str = "[[profile.demo.mirror]]\nkind = \"json\"\npath = \"AT/auth.json\"\nset = { \"/tokens/access\" = \"access_token\", \"/expires\" = \"expires_at_unix_ms\" }\n";

#[test]
fn file_has_the_newest_token_after_each_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, FILE);
    assert_eq!(text(&sandbox, "token"), token(&sandbox), "after the import");
    for generation in 2..5 {
        sandbox.refresh(&["--force"]).exits(0);
        assert_eq!(text(&sandbox, "token"), token(&sandbox));
        let path = sandbox.path("home/token").display().to_string();
        assert_eq!(
            mirror(&sandbox),
            json!({"path": path, "generation": generation, "state": "current", "error": null})
        );
    }
    let mode = std::fs::metadata(sandbox.path("home/token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn document_keeps_what_is_not_ours() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let before = "{\n  \"z\": 1.50,\n  \"tokens\": {\"other\": \"kept\"},\n  \"a\": [1, 2]\n}\n";
    std::fs::write(sandbox.path("home/auth.json"), before).unwrap();
    configure(&sandbox, &server, JSON);
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let now = document(&sandbox, "auth.json");
    assert_eq!(now["tokens"]["access"], token(&sandbox));
    assert!(now["expires"].as_i64().unwrap() > 1_700_000_000_000);
    let text = text(&sandbox, "auth.json");
    assert!(
        text.starts_with("{\n  \"z\": 1.50,\n  \"tokens\": {\"other\": \"kept\",") && text.contains("\"a\": [1, 2]"),
        "{text}"
    );
}

#[test]
fn template_and_directory_have_values_of_one_credential() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("home/netrc"), "machine api login {{ profile }} password {{ access_token }}\n")
        .unwrap();
    let template = "[[profile.demo.mirror]]\nkind = \"template\"\nsource = \"AT/netrc\"\npath = \"AT/out/netrc\"\n";
    let dir = "[[profile.demo.mirror]]\nkind = \"dir\"\npath = \"AT/pod\"\nfiles = { token = \"access_token\", n = \"generation\" }\n";
    configure(&sandbox, &server, &format!("{template}{dir}"));
    sandbox.import("demo", &server.mint()).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let token = token(&sandbox);
    assert_eq!(text(&sandbox, "out/netrc"), format!("machine api login demo password {token}\n"));
    assert_eq!((text(&sandbox, "pod/token"), text(&sandbox, "pod/n")), (token, "2".to_owned()));
    assert!(std::fs::symlink_metadata(sandbox.path("home/pod/..data")).unwrap().is_symlink());
    std::fs::write(sandbox.path("home/netrc"), "{{ no_such_value }}").unwrap();
    sandbox.refresh(&["--force"]).exits(0).says("has a mistake in line 1");
    assert_eq!(mirror(&sandbox)["state"], "failed");
    assert!(text(&sandbox, "out/netrc").starts_with("machine api"), "the old one stays");
}

/// A login afterwards fills them again.
#[test]
fn logout_takes_the_token_out_of_mirrors() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("home/auth.json"), "{\"tokens\": {\"other\": \"kept\"}}").unwrap();
    configure(&sandbox, &server, &format!("{FILE}{JSON}"));
    for _ in ["first", "again"] {
        sandbox.import("demo", &server.mint()).exits(0);
        let access = token(&sandbox);
        assert_eq!(
            (text(&sandbox, "token"), &document(&sandbox, "auth.json")["tokens"]["access"]),
            (access.clone(), &json!(access))
        );
        sandbox.keepalive(&["logout", "demo", "--forget"]);
        assert!(!sandbox.path("home/token").exists());
        assert_eq!(document(&sandbox, "auth.json"), json!({"tokens": {"other": "kept"}}));
    }
}

#[test]
fn change_by_another_program_is_a_conflict_and_stays() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, &format!("{FILE}{JSON}"));
    std::fs::write(sandbox.path("home/token"), "theirs").unwrap();
    let theirs = "{\"tokens\":{\"access\":\"theirs\"}}";
    std::fs::write(sandbox.path("home/auth.json"), theirs).unwrap();
    let run = sandbox.refresh(&["--force"]).exits(0);
    assert_eq!((run.result()["outcome"].as_str(), text(&sandbox, "token").as_str()), (Some("refreshed"), "theirs"));
    assert_eq!(text(&sandbox, "auth.json"), theirs);
    assert_eq!(run.stderr.matches("warning: demo: mirror ").count(), 2, "{run:?}");
    let run = sandbox.refresh(&["--force"]).exits(0);
    assert!(!run.stderr.contains("mirror"), "it is told once: {run:?}");
    let run = sandbox.keepalive(&["--json", "status", "-p", "demo"]).exits(75);
    let mirrors = &run.profile()["mirrors"];
    assert!(mirrors.as_array().unwrap().iter().all(|m| m["state"] == "conflict" && m["error"]["kind"] == "mirror"));
    assert_eq!(mirrors[0]["generation"], 1);
    sandbox.keepalive(&["status"]).exits(75).says("mirror: conflict:").says("hint: if that is not needed: rm ");
    let doctor = sandbox.keepalive(&["doctor"]).exits(75).stdout;
    assert!(doctor.matches("is left as it is").count() == 2 && !doctor.contains("has expired"), "{doctor}");
    std::fs::remove_file(sandbox.path("home/token")).unwrap();
    std::fs::write(sandbox.path("home/auth.json"), "{}").unwrap();
    sandbox.keepalive(&["refresh"]).exits(0);
    sandbox.keepalive(&["status"]).exits(0);
    assert_eq!(text(&sandbox, "token"), token(&sandbox));
}

#[test]
fn document_with_comments_is_left_alone() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let theirs = "{ // mine\n \"tokens\": {} }";
    std::fs::write(sandbox.path("home/auth.json"), theirs).unwrap();
    configure(&sandbox, &server, JSON);
    sandbox.import("demo", &server.mint()).exits(0).says("is not JSON");
    assert_eq!((text(&sandbox, "auth.json").as_str(), mirror(&sandbox)["state"].as_str()), (theirs, Some("conflict")));
}

#[test]
fn failing_mirror_changes_no_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, "[[profile.demo.mirror]]\nkind = \"file\"\npath = \"AT/open/token\"\n");
    let dir = sandbox.path("home/open");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let run = sandbox.refresh(&["--force"]).exits(0);
    assert_eq!((&run.result()["outcome"], &run.result()["error"]), (&json!("refreshed"), &Value::Null));
    let run = run.says("can be written by other users; chmod go-w");
    assert!(run.stderr.contains("warning: demo: mirror"), "{run:?}");
    assert_eq!(mirror(&sandbox)["state"], "failed");
    sandbox.keepalive(&["status"]).exits(0);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.keepalive(&["refresh"]).exits(0);
    assert_eq!(text(&sandbox, "open/token"), token(&sandbox));
}

#[test]
fn one_shot_token_and_daemon_write_mirrors() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(30));
    let sandbox = mirrored(&server, FILE);
    server.set_access_life(Duration::from_secs(3600));
    sandbox.keepalive(&["token", "demo", "--min-valid", "29s"]).exits(0);
    sandbox.keepalive(&["token", "demo", "--min-valid", "10m"]).exits(0);
    assert_eq!(text(&sandbox, "token"), token(&sandbox));
    std::fs::remove_file(sandbox.path("home/token")).unwrap();
    let _daemon = sandbox.daemon();
    let newest = token(&sandbox);
    eventually("the daemon looks at its start", || {
        (std::fs::read_to_string(sandbox.path("home/token")).ok()? == newest).then_some(())
    });
    configure(&sandbox, &server, &FILE.replace("token", "other"));
    eventually("the daemon looks after a reload", || {
        (std::fs::read_to_string(sandbox.path("home/other")).ok()? == newest).then_some(())
    });
}

#[test]
fn fed_profile_is_refreshed_six_minutes_ahead() {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(1200));
    let sandbox = mirrored(&server, "");
    let left = |sandbox: &Sandbox| {
        let at = |status: &Value, key: &str| keepalive::clock::Timestamp::parse_rfc3339(status[key].as_str()?);
        let status = sandbox.status();
        at(&status, "expires_at").unwrap().since(at(&status, "refresh_at").unwrap()).as_secs()
    };
    assert!((240..=270).contains(&left(&sandbox)), "a fifth");
    configure(&sandbox, &server, FILE);
    assert!((360..=400).contains(&left(&sandbox)), "{}", left(&sandbox));
    let section = |margin: &str| format!("margin = \"{margin}\"\n{FILE}");
    configure(&sandbox, &server, &section("1m"));
    assert!((360..=400).contains(&left(&sandbox)));
    configure(&sandbox, &server, &section("8m"));
    assert!((480..=530).contains(&left(&sandbox)));
}

#[test]
fn mistakes_of_a_mirror_are_told_at_once() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::new();
    let wrong = "[[profile.demo.mirror]]\nkind = \"fil\"\n[[profile.demo.mirror]]\nkind = \"json\"\nset = { \"a\" = \"access_token\", \"/b\" = \"refresh_token\" }\n\
                 [[profile.demo.mirror]]\nkind = \"codex\"\nentry = \"x\"\n[[profile.demo.mirror]]\npath = \"/x\"\n\
                 [[profile.demo.mirror]]\nkind = \"file\"\npath = \"/\"\n[[profile.demo.mirror]]\nkind = \"file\"\npath = \"~/\"\n\
                 [[profile.demo.mirror]]\nkind = \"json\"\npath = \"~/j\"\nset = { \"/t\" = \"access_token\", \"/t/at\" = \"expires_at\" }\n";
    configure(&sandbox, &server, wrong);
    let run = sandbox.keepalive(&["doctor"]).exits(78);
    for words in [
        "did you mean \"file\"?",
        "path is missing",
        "\"a\" is not a JSON pointer to a member",
        "not \"refresh_token\"",
        "a mirror of this kind does not use \"entry\"",
        "kind is missing",
        "set has \"/t\" and \"/t/at\", which is a part of it",
    ] {
        assert!(run.stdout.contains(words), "no {words:?} in {run:#?}");
    }
    assert_eq!(run.stdout.matches("no file can take its place").count(), 2, "{run:#?}");
}

#[test]
fn no_mirror_or_record_has_the_refresh_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, &format!("{FILE}{JSON}"));
    let run = sandbox.keepalive(&["-vv", "refresh", "-p", "demo", "--force"]).exits(0);
    assert!(run.stderr.contains("mirror.written") || run.stderr.contains("mirror written"), "{run:?}");
    assert!(!run.stderr.contains("canary"), "{run:?}");
    let state = sandbox.path("state/keepalive/mirrors");
    for entry in std::fs::read_dir(state).unwrap().map(Result::unwrap) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        assert!(!text.contains("canary"), "{text}");
    }
    for name in ["token", "auth.json"] {
        assert!(!text(&sandbox, name).contains("canary-rt"));
    }
}

/// The system calls of a mirror write, with which it can be interrupted.
const EFFECTS: &str =
    "openat,open,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,mkdir,fchmod,fchown,close";

fn strace(sandbox: &Sandbox, options: &[&str], arguments: &[&str]) -> std::process::Command {
    let mut strace = sandbox.command(Path::new("strace"));
    strace.args(["-f", "-qq", "-o", "/dev/null"]).args(options).arg(super::support::sandbox::PROGRAM).args(arguments);
    strace
}

#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn killed_write_leaves_the_old_or_the_new_file_whole() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, "");
    std::fs::write(sandbox.path("home/auth.json"), "{\"mine\": [1, 2], \"tokens\": {\"x\": \"y\"}}").unwrap();
    configure(&sandbox, &server, JSON);
    sandbox.keepalive(&["refresh"]).exits(0);
    let (file, records) = (sandbox.path("home/auth.json"), sandbox.path("state/keepalive/mirrors"));
    let old = std::fs::read_to_string(&file).unwrap();
    let record = std::fs::read_dir(&records).unwrap().map(|e| e.unwrap().path());
    let record = record.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
    let old_record = std::fs::read(&record).unwrap();
    configure(&sandbox, &server, "");
    sandbox.refresh(&["--force"]).exits(0);
    configure(&sandbox, &server, JSON);
    let mut new = None;
    let mut is_over = false;
    for n in (1..).take_while(|n| *n < 1000) {
        std::fs::write(&file, &old).unwrap();
        std::fs::write(&record, &old_record).unwrap();
        let inject = format!("inject={EFFECTS}:signal=SIGKILL:when={n}");
        let out = strace(&sandbox, &["-e", &inject], &["refresh", "-p", "demo"]).output().expect("strace is needed");
        let now = std::fs::read_to_string(&file).unwrap();
        let value: Value = serde_json::from_str(&now).unwrap();
        assert_eq!((&value["mine"], &value["tokens"]["x"]), (&json!([1, 2]), &json!("y")), "at {n}: {now}");
        assert!(now == old || Some(&now) == new.as_ref() || new.is_none(), "at {n}: {now}");
        // The next run brings it up to date, whatever the kill left.
        sandbox.keepalive(&["refresh"]).exits(0);
        let after = std::fs::read_to_string(&file).unwrap();
        assert_eq!(new.get_or_insert_with(|| after.clone()), &after, "at {n}");
        is_over = out.status.success();
        if is_over {
            break;
        }
    }
    assert!(is_over && new.unwrap().contains(&token(&sandbox)));
}

#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn older_generation_never_lands_last() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, FILE);
    let temporary = sandbox.path("home/.token.new").display().to_string();
    // It stops between the sync of the new file and its renaming.
    let options = ["-P", temporary.as_str(), "-e", "trace=openat", "-e", "inject=openat:signal=SIGSTOP:when=1"];
    let mut seventh = strace(&sandbox, &options, &["refresh", "-p", "demo", "--force"]).spawn().unwrap();
    let locks = sandbox.path("state/keepalive/mirrors");
    let pid = eventually("the first writer stands still", || {
        let lock = std::fs::read_dir(&locks).unwrap().map(|e| e.unwrap().path());
        let lock = lock.into_iter().find(|path| path.extension().is_some_and(|end| end == "lock"))?;
        let pid = std::fs::read_to_string(lock).ok()?.trim().to_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit(") ").next()?.chars().next()?;
        ['T', 't'].contains(&state).then_some(pid)
    });
    assert_eq!(sandbox.status()["generation"], 2);
    let eighth = sandbox.spawn(&["refresh", "-p", "demo", "--force"]);
    eventually("the second one has refreshed", || (sandbox.status()["generation"] == 3).then_some(()));
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(seventh.wait().unwrap().success());
    eighth.finish().exits(0);
    assert_eq!(text(&sandbox, "token"), token(&sandbox));
    assert_eq!((&mirror(&sandbox)["generation"], &mirror(&sandbox)["state"]), (&json!(3), &json!("current")));
}

#[test]
fn mirror_that_is_intact_needs_no_key() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = mirrored(&server, &format!("{FILE}{JSON}"));
    std::fs::rename(sandbox.path("home/key"), sandbox.path("home/away")).unwrap();
    let run = sandbox.keepalive(&["refresh"]);
    assert!(!run.stderr.contains("mirror"), "{run:?}");
    std::fs::remove_file(sandbox.path("home/token")).unwrap();
    sandbox.keepalive(&["refresh"]).says("mirror");
    std::fs::rename(sandbox.path("home/away"), sandbox.path("home/key")).unwrap();
    sandbox.keepalive(&["refresh"]).exits(0);
    assert_eq!(text(&sandbox, "token"), token(&sandbox));
}
