//! What goes wrong around a feed: a file that cannot be written, a run that is killed, a sign-in of another kind, a program
//! that hangs. No refresh token is spent that a program still holds, and nothing of a person's is lost.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::other_tools::{codex, codex_store, sandbox, write};
use super::support::auth_server::{AuthServer, Fault};
use super::support::eventually;
use super::support::other_tool;
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

const FEED: [&str; 4] = ["feed", "codex", "openai", "--yes"];

fn document(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn config(sandbox: &Sandbox) -> String {
    text(&sandbox.path("config/keepalive/config.toml"))
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Codex signed in, with an access token whose age cannot be told: a refresh must replace it.
fn codex_of_unknown_age(server: &AuthServer) -> (Sandbox, PathBuf, Value) {
    let (sandbox, file, answer) = codex(server, "");
    let mut store = document(&file);
    store["tokens"]["access_token"] = json!("opaque");
    store["last_refresh"] = json!(null);
    write(&file, store.to_string());
    chmod(file.parent().unwrap(), 0o700);
    (sandbox, file, answer)
}

/// Codex fed, in a file that has more than keepalive writes.
fn fed_codex(server: &AuthServer) -> (Sandbox, PathBuf) {
    let (sandbox, file, _) = codex(server, "");
    chmod(file.parent().unwrap(), 0o700);
    sandbox.keepalive(&FEED).exits(0);
    (sandbox, file)
}

fn lock(file: &Path) -> File {
    let lock = File::create(file.with_file_name("auth.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// What was lost: the family. The token was spent, and Codex kept it, because its file could not be written.
#[test]
fn feed_that_cannot_write_sends_and_takes_nothing() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, _) = codex_of_unknown_age(&server);
    let (dir, before, configured) = (file.parent().unwrap().to_owned(), text(&file), config(&sandbox));
    let unchanged = |run: Run| {
        assert_eq!((text(&file), config(&sandbox)), (before.clone(), configured.clone()), "{run:?}");
        assert_eq!(server.counts().refresh_requests, 0, "{run:?}");
        assert!(!sandbox.path("state/keepalive/profiles/openai/sealed").exists(), "{run:?}");
    };
    chmod(&dir, 0o775);
    unchanged(sandbox.keepalive(&FEED).exits(78).says("can be written by other users"));
    chmod(&dir, 0o700);
    let held = lock(&file);
    unchanged(sandbox.keepalive(&FEED).exits(75).says("has the lock of its file").says("run it again when"));
    drop(held);
    let theirs = before.replacen('{', "{ // mine\n", 1);
    for (broken, why) in [
        (theirs.as_str(), "is not JSON"),
        ("[]", "is not a JSON object"),
        (r#"{"tokens":"x"}"#, "has no object at /tokens"),
        (r#"{"tokens":{"access_token":"a","access_token":"b"}}"#, "twice"),
    ] {
        write(&file, broken);
        sandbox.keepalive_with_input(&["import", "openai"], &server.mint().to_string()).exits(0);
        let run = sandbox.keepalive(&FEED).exits(78).says(why).says("move it away");
        assert_eq!((text(&file).as_str(), config(&sandbox)), (broken, configured.clone()), "{run:?}");
        sandbox.keepalive(&["logout", "openai", "--forget"]);
    }
}

/// What was lost: the family, between the request and the write.
#[test]
fn refresh_token_is_out_of_the_file_before_it_is_sent() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex_of_unknown_age(&server);
    server.script([Fault::DropAfter]);
    let run = sandbox.keepalive(&FEED).exits(75);
    let fed = document(&file);
    assert_eq!((&fed["tokens"]["refresh_token"], &fed["tokens"]["access_token"]), (&json!(""), &json!("opaque")));
    assert_eq!(fed["auth_mode"], "chatgptAuthTokens", "it posts nothing in that mode");
    assert!(!text(&file).contains(other_tool::token(&answer)), "{run:?}");
    assert_eq!(server.counts().refresh_requests, 1);
    sandbox.keepalive(&["feed", "codex", "openai", "--undo", "--yes"]).exits(0);
    assert_eq!((&document(&file)["auth_mode"], &document(&file)["tokens"]), (&json!("chatgpt"), &Value::Null));
}

/// Rule 39. What was lost: the family, when a feed was killed half-way.
#[test]
fn feed_killed_half_way_is_finished_by_the_next_one() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex_of_unknown_age(&server);
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    let mirror = format!("\n[[profile.openai.mirror]]\nkind = \"codex\"\npath = \"{}\"\n", file.display());
    sandbox.config(&format!("{}{mirror}", config(&sandbox)));
    let run = sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(75);
    let run = run.says("has the same refresh token").says("take it out of there: keepalive feed codex openai");
    assert_eq!(
        (server.counts().refresh_requests, text(&file).contains(other_tool::token(&answer))),
        (0, true),
        "{run:?}"
    );
    sandbox.keepalive(&["token", "openai"]).says("has the same refresh token");
    sandbox.keepalive(&FEED).exits(0).says("is fed by openai");
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    assert!(!text(&file).contains("canary-rt"));
    assert_eq!((server.counts().presented_again, document(&file)["tokens"]["refresh_token"].as_str()), (0, Some("")));
}

/// What was lost: the way on. The error of a feed that failed was told again and again.
#[test]
fn feed_goes_on_after_a_failure_that_was_mended() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, _) = codex_of_unknown_age(&server);
    sandbox.keepalive(&FEED).exits(0);
    chmod(file.parent().unwrap(), 0o775);
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0).says("can be written by other users");
    chmod(file.parent().unwrap(), 0o700);
    let mut again = codex_store(&server.mint(), "ada");
    again["tokens"]["access_token"] = json!("opaque");
    again["last_refresh"] = json!(null);
    write(&file, again.to_string());
    sandbox.keepalive(&["import", "openai", "--from", "codex", "--replace"]).exits(0);
    sandbox.keepalive(&FEED).exits(0).says("is fed by openai");
    assert_eq!(document(&file)["tokens"]["refresh_token"], "");
}

/// What was lost: a sign-in by API key, at the next refresh; and after an undo, the key's mode.
#[test]
fn sign_in_by_api_key_while_fed_is_a_conflict() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file) = fed_codex(&server);
    let by_key = r#"{"auth_mode":"apikey","OPENAI_API_KEY":"sk-mine","tokens":null}"#;
    write(&file, by_key);
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0).says("/auth_mode \"apikey\"");
    assert_eq!(text(&file), by_key);
    sandbox.keepalive(&["status"]).exits(75).says("keepalive feed codex openai");
    sandbox.keepalive(&["feed", "codex", "openai", "--dry-run"]).exits(0).says("--undo puts that back");
    sandbox.keepalive(&FEED).exits(0);
    assert_eq!(document(&file)["auth_mode"], "chatgptAuthTokens");
    sandbox.keepalive(&["feed", "codex", "openai", "--undo", "--yes"]).exits(0);
    let left = document(&file);
    assert_eq!((&left["auth_mode"], &left["OPENAI_API_KEY"]), (&json!("apikey"), &json!("sk-mine")));
}

#[test]
fn sign_in_in_codex_while_fed_is_a_conflict() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file) = fed_codex(&server);
    let theirs = codex_store(&server.mint(), "ada").to_string();
    write(&file, &theirs);
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0).says("a sign-in of another kind");
    let _daemon = sandbox.daemon();
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    assert_eq!(text(&file), theirs);
    let status = sandbox.keepalive(&["--json", "status"]).exits(75).profile();
    assert_eq!(status["mirrors"][0]["state"], "conflict", "{status}");
    let counts = server.counts();
    assert_eq!((counts.presented_again, counts.families_revoked), (0, 0), "{counts:?}");
}

/// What was lost: a sign-in that an import cannot read, without a question.
#[test]
fn sign_in_of_unknown_form_needs_replace() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let file = sandbox.path("data/opencode/auth.json");
    let theirs = r#"{"acme":{"type":"wellknown","key":"k","token":"t","refresh":"r"}}"#;
    write(&file, theirs);
    sandbox.keepalive(&["feed", "opencode", "demo", "--yes"]).exits(1).says("--replace");
    assert_eq!((text(&file).as_str(), config(&sandbox).contains("mirror")), (theirs, false));
    sandbox.keepalive(&["feed", "opencode", "demo", "--yes", "--replace"]).exits(0);
    assert_eq!(document(&file)["acme"]["type"], "oauth");
}

/// What was lost: the file of another account, which another keepalive fed.
#[test]
fn fed_file_of_another_account_is_not_overwritten() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file) = fed_codex(&server);
    let mut other = document(&file);
    (other["tokens"]["account_id"], other["tokens"]["access_token"]) = (json!("acct-2"), json!("theirs"));
    write(&file, other.to_string());
    sandbox.keepalive(&FEED).exits(1).says("belongs to the account acct-2").says("--replace");
    assert_eq!(document(&file), other);
    sandbox.keepalive(&["feed", "codex", "openai", "--yes", "--replace"]).exits(0);
}

/// What was lost: a token, sent to another company.
#[test]
fn program_of_another_provider_is_not_fed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.keepalive(&["feed", "codex", "demo", "--yes"]).exits(1).says("Codex uses tokens of openai");
    assert!(!sandbox.path("home/.codex").exists() && !config(&sandbox).contains("mirror"));
}

/// What was lost: the token of each of two profiles, at each refresh of the other.
#[test]
fn program_that_another_profile_feeds_is_not_fed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    sandbox.keepalive(&["feed", "opencode", "demo", "--yes"]).exits(0);
    sandbox.import("two", &server.mint());
    sandbox.keepalive_with_input(&["import", "two", "--provider", "acme"], &server.mint().to_string()).exits(0);
    sandbox
        .keepalive(&["feed", "opencode", "two", "--yes"])
        .exits(1)
        .says("is fed by demo already")
        .says("keepalive feed opencode demo --undo");
    let twice = "\n[[profile.two.mirror]]\nkind = \"opencode\"\nentry = \"acme\"\n";
    let path = sandbox.path("data/opencode/auth.json");
    sandbox.config(&format!("{}{twice}path = \"{}\"\n", config(&sandbox), path.display()));
    sandbox.keepalive(&["status"]).exits(78).says("has a mirror in the same place");
}

/// What was lost: the second file, of which a feed said that it is fed already.
#[test]
fn mirror_in_the_usual_place_is_no_mirror_elsewhere() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file) = fed_codex(&server);
    let path = format!("path = \"{}\"\n", file.display());
    sandbox.config(&config(&sandbox).replace(&path, ""));
    sandbox.keepalive(&FEED).exits(0).says("is already fed by openai");
    let other = sandbox.path("home/elsewhere/auth.json");
    let elsewhere = ["--path", other.to_str().unwrap()];
    sandbox.keepalive(&[&FEED[..], &elsewhere].concat()).exits(0).says("is fed by openai");
    assert_eq!(document(&other)["tokens"]["refresh_token"], "");
    let undo = ["feed", "codex", "openai", "--undo", "--yes", "--path", file.to_str().unwrap()];
    sandbox.keepalive(&undo).exits(0).says("is not fed any more");
    assert!(other.exists() && !text(&file).contains("access_token"));
}

/// What was lost: the access token, which no command took out of the file after an undo that failed.
#[test]
fn undo_can_be_repeated_until_it_is_done() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file) = fed_codex(&server);
    let undo = ["feed", "codex", "openai", "--undo", "--yes"];
    let (before, configured) = (text(&file), config(&sandbox));
    let held = lock(&file);
    sandbox.keepalive(&undo).exits(75).says("run it again when");
    assert_eq!((text(&file), config(&sandbox)), (before, configured.clone()));
    drop(held);
    // Killed between the configuration and the file.
    let end = configured.find("[[profile.openai.mirror]]").unwrap();
    sandbox.config(&configured[..end]);
    sandbox.keepalive(&undo).exits(0).says("Codex is not fed any more");
    assert!(!text(&file).contains("access_token"), "{}", text(&file));
    sandbox.keepalive(&undo).exits(0).says("nothing to undo");
}

/// What was lost: two of four feeds, which were told to write the configuration themselves.
#[test]
fn feeds_at_once_all_succeed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let at = |n: usize| sandbox.path("home").join(format!("{n}_tokens.json")).display().to_string();
    let runs: Vec<_> =
        (0..3).map(|n| sandbox.spawn(&["feed", "mcp-remote", "demo", "--yes", "--path", &at(n)])).collect();
    runs.into_iter().for_each(|run| drop(run.finish().exits(0)));
    assert_eq!(config(&sandbox).matches("[[profile.demo.mirror]]").count(), 3);
    // Of one place, one makes it and the others see it.
    let again: Vec<_> = (0..3).map(|_| sandbox.spawn(&["feed", "opencode", "demo", "--yes"])).collect();
    again.into_iter().for_each(|run| drop(run.finish().exits(0)));
    assert_eq!(config(&sandbox).matches("kind = \"opencode\"").count(), 1);
}

/// A program `openclaw` that does this with its token.
fn openclaw(server: &AuthServer, script: &str) -> Sandbox {
    let mut sandbox = Sandbox::signed_in(server);
    let bin = sandbox.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    write(&bin.join("openclaw"), format!("#!/bin/sh\n{script}\n"));
    chmod(&bin.join("openclaw"), 0o755);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    sandbox.set_env("PATH", &path);
    sandbox
}

/// What was lost: two minutes of each run, to a program that hangs.
#[test]
fn hanging_program_delays_no_run() {
    let server = AuthServer::start(RotationMode::Strict);
    let script = "cat > \"$HOME/pasted\"; [ -e \"$HOME/hang\" ] || exit 0; echo $$ > \"$HOME/pid\"; exec sleep 600";
    let sandbox = openclaw(&server, script);
    sandbox.keepalive(&["feed", "openclaw", "demo", "--yes"]).exits(0);
    let newest = |sandbox: &Sandbox| sandbox.keepalive(&["token", "demo"]).exits(0).stdout.trim().to_owned();
    write(&sandbox.path("home/hang"), "");
    sandbox.refresh(&["--force"]).exits(0);
    let pid = eventually("it hangs", || text_of(&sandbox.path("home/pid"))?.trim().parse::<i32>().ok());
    // While it does, it is not run again, and not waited for.
    sandbox.refresh(&["--force"]).exits(0);
    sandbox.keepalive(&["exec", "demo", "--", "true"]).exits(0);
    assert_eq!(text_of(&sandbox.path("home/pid")).unwrap().trim(), pid.to_string());
    std::fs::remove_file(sandbox.path("home/hang")).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    eventually("the failure is noted", || (sandbox.status()["mirrors"][0]["state"] == "failed").then_some(()));
    sandbox.keepalive(&["refresh"]).exits(0);
    eventually("the newest is given to it", || {
        (text_of(&sandbox.path("home/pasted"))? == newest(&sandbox)).then_some(())
    });
}

fn text_of(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|text| !text.is_empty())
}

#[test]
fn program_that_is_missing_is_named_before_anything_is_changed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let configured = config(&sandbox);
    sandbox.keepalive(&["feed", "openclaw", "demo", "--yes"]).exits(78).says("install openclaw");
    assert_eq!(config(&sandbox), configured);
}

/// What was lost: a sign-in that could not be imported left a mirror behind.
#[test]
fn feed_whose_import_fails_leaves_the_configuration() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex(&server, "");
    chmod(file.parent().unwrap(), 0o700);
    // Consumed here, and restored there.
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    sandbox.keepalive(&["logout", "openai", "--forget"]);
    let configured = config(&sandbox);
    let run = sandbox.keepalive(&FEED);
    assert!(run.status != 0 && text(&file).contains(other_tool::token(&answer)), "{run:?}");
    assert_eq!(config(&sandbox), configured, "{run:?}");
}

/// What was lost: the lock of Claude Code, for ever, to a run that was killed.
#[ignore = "needs strace; contrib/test runs it"]
#[test]
fn lock_of_a_killed_run_does_not_stop_the_next() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server, "anthropic", "");
    let answer = super::support::sandbox::just_granted(&server.mint()).to_string();
    sandbox.keepalive_with_input(&["import", "anthropic"], &answer).exits(0);
    let file = sandbox.path("home/.claude/.credentials.json");
    write(&file, r#"{"claudeAiOauth":{"scopes":["user:inference"]}}"#);
    chmod(file.parent().unwrap(), 0o700);
    sandbox.keepalive(&["feed", "claude", "anthropic", "--yes"]).exits(0);
    let lock = file.with_file_name(".oauth_refresh.lock");
    let mut strace = sandbox.command(Path::new("strace"));
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=rmdir", "-e", "inject=rmdir:signal=SIGKILL"]);
    let killed = strace.arg(super::support::sandbox::PROGRAM).args(["refresh", "-p", "anthropic", "--force"]).output();
    assert!(!killed.unwrap().status.success() && lock.is_dir());
    sandbox.keepalive(&["refresh", "-p", "anthropic", "--force"]).exits(0);
    let token = sandbox.keepalive(&["token", "anthropic"]).exits(0).stdout.trim().to_owned();
    assert_eq!(
        (document(&file)["claudeAiOauth"]["accessToken"].as_str(), lock.exists()),
        (Some(token.as_str()), false)
    );
}
