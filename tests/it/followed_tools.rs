//! Tools that are followed: when their stores count as signed out, and when they cannot be followed at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::other_tools::{codex, codex_store, copies, now, sandbox, write};
use super::support::auth_server::AuthServer;
use super::support::other_tool;
use super::support::sandbox::{Run, Sandbox};
use super::support::token_family::RotationMode;

const FOLLOWING: &str = "[profile.p]\nprovider = \"acme\"\nfollow = true";

fn follow(server: &AuthServer) -> Sandbox {
    sandbox(server, "acme", FOLLOWING)
}

fn refresh(sandbox: &Sandbox) -> Run {
    sandbox.keepalive(&["--json", "refresh", "-p", "p", "--force"])
}

/// One sign-in in the shape that OpenClaw, opencode and pi write.
fn oauth(answer: &Value, account: &str) -> Value {
    json!({"type": "oauth", "provider": "acme", "access": answer["access_token"],
        "refresh": answer["refresh_token"], "expires": ends(answer) * 1000, "accountId": account})
}

/// When an access token ends, in seconds.
fn ends(answer: &Value) -> u64 {
    now() + answer["expires_in"].as_u64().unwrap()
}

/// One sign-in with the names of RFC 6749.
fn plain(answer: &Value, account: &str) -> Value {
    json!({"type": "acme", "access_token": answer["access_token"], "refresh_token": answer["refresh_token"],
        "expired": ends(answer), "account_id": account})
}

/// A tool's store with one entry under a name.
struct Shape {
    tool: &'static str,
    /// The file to import, and the name of the account in it.
    file: fn(&str) -> PathBuf,
    content: fn(&str, &Value, &str) -> Value,
    name: fn(&str) -> Option<String>,
}

const SHAPES: [Shape; 5] = [
    Shape {
        tool: "openclaw",
        file: |_| "claw/agents/main/agent/auth-profiles.json".into(),
        content: |name, answer, account| json!({"version": 1, "profiles": {name: oauth(answer, account)}}),
        name: |name| Some(name.to_owned()),
    },
    Shape {
        tool: "opencode",
        file: |_| "opencode.json".into(),
        content: |name, answer, account| json!({name: oauth(answer, account)}),
        name: |name| Some(name.to_owned()),
    },
    Shape {
        tool: "hermes",
        file: |_| "hermes.json".into(),
        content: |name, answer, account| {
            json!({"credential_pool": {"acme": [{"label": name, "id": name,
            "access_token": answer["access_token"], "refresh_token": answer["refresh_token"],
            "account_id": account, "expires_at": ends(answer)}]}})
        },
        name: |name| Some(format!("acme/{name}")),
    },
    Shape {
        tool: "cliproxy",
        file: |name| format!("proxy/{name}.json").into(),
        content: |_, answer, account| plain(answer, account),
        name: |_| None,
    },
    Shape {
        tool: "grok",
        file: |_| "grok.json".into(),
        content: |name, answer, account| {
            json!({name: {"key": answer["access_token"], "user_id": account,
            "refresh_token": answer["refresh_token"], "expires_at": ends(answer)}})
        },
        name: |name| Some(name.to_owned()),
    },
];

impl Shape {
    fn path(&self, sandbox: &Sandbox, name: &str) -> PathBuf {
        sandbox.path("home").join((self.file)(name))
    }

    /// Writes the store with one entry, and removes the file of the other name.
    fn write(&self, sandbox: &Sandbox, name: &str, answer: &Value, account: &str) {
        for old in ["mine", "work"] {
            std::fs::remove_file(self.path(sandbox, old)).ok();
        }
        write(&self.path(sandbox, name), (self.content)(name, answer, account).to_string());
    }

    /// Writes the store with two entries.
    fn write_both(&self, sandbox: &Sandbox, mine: &Value, work: &Value) {
        let (a, b) = ((self.content)("mine", mine, "ada"), (self.content)("work", work, "ada"));
        match self.path(sandbox, "mine") == self.path(sandbox, "work") {
            true => write(&self.path(sandbox, "mine"), merged(a, b).to_string()),
            false => [("mine", a), ("work", b)].iter().for_each(|(name, of)| {
                write(&self.path(sandbox, name), of.to_string());
            }),
        }
    }

    /// A profile that follows the entry `mine`.
    fn followed(&self, server: &AuthServer) -> (Sandbox, Value) {
        let (sandbox, answer) = (follow(server), server.mint());
        self.write(&sandbox, "mine", &answer, "ada");
        let file = self.path(&sandbox, "mine");
        let file = file.to_str().unwrap();
        let import = ["import", "p", "--provider", "acme", "--from", self.tool, file];
        let name = (self.name)("mine");
        let account = name.iter().flat_map(|name| ["--account", name]);
        sandbox.keepalive(&import.into_iter().chain(account).collect::<Vec<_>>()).exits(0);
        (sandbox, answer)
    }
}

/// Two values of one form as one: members and items of both.
fn merged(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Object(mut a), Value::Object(b)) => {
            for (name, more) in b {
                let one = a.remove(&name);
                a.insert(name, one.map_or(more.clone(), |one| merged(one, more)));
            }
            Value::Object(a)
        }
        (Value::Array(a), Value::Array(b)) => a.into_iter().chain(b).collect(),
        (a, _) => a,
    }
}

/// Rule 39. What was lost: the family, when a tool had the spent token in one entry, and the live one in another.
#[test]
fn live_token_beside_a_consumed_copy_is_never_sent() {
    for shape in &SHAPES {
        let server = AuthServer::start(RotationMode::Strict);
        let (sandbox, answer) = shape.followed(&server);
        let mut newer = other_tool::refresh(&server, other_tool::token(&answer));
        newer["expires_in"] = json!(9000);
        shape.write(&sandbox, "mine", &newer, "ada");
        refresh(&sandbox).exits(0).says("adopted generation 2");
        shape.write_both(&sandbox, &answer, &newer);
        let error = refresh(&sandbox).exits(75).result()["error"].clone();
        assert_eq!(error["kind"], "tool_first", "{}: {error}", shape.tool);
        assert!(copies(&sandbox).contains("still has a copy"), "{}: {}", shape.tool, copies(&sandbox));
        // The copy alone stands for no one.
        shape.write(&sandbox, "mine", &answer, "ada");
        refresh(&sandbox).exits(0);
        let counts = server.counts();
        assert_eq!((counts.refresh_ok, counts.presented_again, counts.families_revoked), (2, 0, 0), "{}", shape.tool);
    }
}

/// Rule 39. What was lost: the profile, which waited for good because a second account had got the name of its entry.
#[test]
fn our_account_is_found_among_entries_of_one_name() {
    let server = AuthServer::start(RotationMode::Strict);
    let hermes = SHAPES.iter().find(|shape| shape.tool == "hermes").unwrap();
    let (sandbox, answer) = hermes.followed(&server);
    let entry = |id: &str, answer: &Value, account: &str| {
        let mut content = (hermes.content)("mine", answer, account)["credential_pool"]["acme"][0].clone();
        content["id"] = json!(id);
        content
    };
    let pool = |entries: Value| {
        let file = json!({"credential_pool": {"acme": entries}}).to_string();
        write(&hermes.path(&sandbox, "mine"), file);
    };
    let bob = entry("b", &server.mint(), "bob");
    pool(json!([bob, entry("a", &answer, "ada")]));
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
    let mut newer = other_tool::refresh(&server, other_tool::token(&answer));
    newer["expires_in"] = json!(9000);
    pool(json!([bob, entry("a", &newer, "ada")]));
    refresh(&sandbox).exits(0).says("adopted generation 2");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
}

/// Rule 39. What was lost: the family, when the tool's directory was moved and its environment named the new one.
#[test]
fn moved_directory_of_a_tool_is_never_raced() {
    let server = AuthServer::start(RotationMode::Strict);
    let (mut sandbox, file, _) = codex(&server, "[profile.openai]\nfollow = true");
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    std::fs::rename(file.parent().unwrap(), sandbox.path("home/elsewhere")).unwrap();
    let elsewhere = sandbox.path("home/elsewhere");
    sandbox.set_env("CODEX_HOME", elsewhere.to_str().unwrap());
    let force = ["--json", "refresh", "-p", "openai", "--force"];
    let error = sandbox.keepalive(&force).exits(75).result()["error"].clone();
    assert_eq!(error["kind"], "tool_first", "{error}");
    assert!(error["message"].as_str().unwrap().contains(elsewhere.to_str().unwrap()), "{error}");
    // Where it is on a disk that is not there, nothing is known.
    let disk = sandbox.path("home/disk");
    std::os::unix::fs::symlink("/nowhere", &disk).unwrap();
    sandbox.set_env("CODEX_HOME", disk.join("codex").to_str().unwrap());
    assert_eq!(sandbox.keepalive(&force).exits(75).result()["error"]["kind"], "source");
    assert_eq!(server.counts().refresh_requests, 0);
    // Another account is there.
    sandbox.set_env("CODEX_HOME", elsewhere.to_str().unwrap());
    write(&elsewhere.join("auth.json"), codex_store(&server.mint(), "bob").to_string());
    sandbox.keepalive(&force).exits(0).says("goes on alone");
    assert_eq!((server.counts().refresh_ok, server.counts().presented_again), (1, 0));
}

/// Rule 39. What was lost: the family, when the tool replayed the token that keepalive had spent.
#[test]
fn token_under_another_name_is_never_raced() {
    for shape in &SHAPES {
        let server = AuthServer::start(RotationMode::Strict);
        let (sandbox, answer) = shape.followed(&server);
        shape.write(&sandbox, "work", &answer, "ada");
        let error = refresh(&sandbox).exits(75).result()["error"].clone();
        assert_eq!(error["kind"], "tool_first", "{}: {error}", shape.tool);
        assert!(copies(&sandbox).contains("still has a copy"), "{}: {}", shape.tool, copies(&sandbox));
        assert_eq!(server.counts().refresh_requests, 0, "{}", shape.tool);
        // Another account took its place: the tool is signed out of ours.
        shape.write(&sandbox, "work", &server.mint(), "bob");
        refresh(&sandbox).exits(0).says("goes on alone");
        assert_eq!((server.counts().refresh_ok, server.counts().presented_again), (1, 0), "{}", shape.tool);
    }
}

/// Rule 39.
#[test]
fn token_rotated_under_another_name_is_adopted_or_unknown() {
    for shape in &SHAPES {
        let server = AuthServer::start(RotationMode::Strict);
        let (sandbox, answer) = shape.followed(&server);
        let mut newer = other_tool::refresh(&server, other_tool::token(&answer));
        newer["expires_in"] = json!(900);
        shape.write(&sandbox, "work", &newer, "ada");
        let run = refresh(&sandbox);
        assert_eq!(server.counts().refresh_requests, 1, "{}: that was the tool's: {run:?}", shape.tool);
        assert_eq!((server.counts().presented_again, server.counts().families_revoked), (0, 0));
        // What is not named cannot be told apart.
        shape.write(&sandbox, "work", &newer, "");
        assert_ne!(refresh(&sandbox).result()["outcome"], "refreshed", "{}", shape.tool);
        assert_eq!(server.counts().refresh_requests, 1, "{}", shape.tool);
    }
}

/// Rule 39. Of the sign-ins that a store has, one of another provider is no reason to wait.
#[test]
fn sign_in_of_another_provider_does_not_stop_the_refresh() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    let file = sandbox.path("home/opencode.json");
    let other = json!({"type": "oauth", "access": "a", "refresh": "r", "expires": 1});
    write(&file, json!({"openai": oauth(&answer, "ada"), "anthropic": other}).to_string());
    let import = ["import", "p", "--provider", "acme", "--from", "opencode", "--account", "openai"];
    sandbox.keepalive(&[&import[..], &[file.to_str().unwrap()]].concat()).exits(0);
    write(&file, json!({"anthropic": other}).to_string());
    refresh(&sandbox).exits(0).says("goes on alone");
    assert_eq!((server.counts().refresh_ok, server.counts().presented_again), (1, 0));
}

/// Rule 39. What was lost: the family of Codex, which had moved its sign-in and refreshed it there.
#[test]
fn encrypted_store_of_a_tool_is_unknown_and_not_signed_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex(&server, "[profile.openai]\nfollow = true");
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    let age = sandbox.path("home/.codex/secrets/codex_auth.age");
    other_tool::refresh(&server, other_tool::token(&answer));
    write(&age, "age");
    let force = ["--json", "refresh", "-p", "openai", "--force"];
    for signed_out in [None, Some("{}")] {
        std::fs::remove_file(&file).ok();
        signed_out.inspect(|content| write(&file, content));
        let error = sandbox.keepalive(&force).exits(75).result()["error"].clone();
        assert_eq!(error["kind"], "source", "{error}");
        assert!(error["message"].as_str().unwrap().contains(age.to_str().unwrap()), "{error}");
        assert!(copies(&sandbox).contains("warning") && copies(&sandbox).contains("codex_auth.age"));
    }
    std::fs::remove_file(&file).unwrap();
    sandbox
        .keepalive(&["import", "second", "--from", "codex"])
        .exits(1)
        .says("codex_auth.age")
        .says("secret_auth_storage");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
    // Without it Codex is signed out.
    std::fs::remove_file(&age).unwrap();
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, _) = codex(&server, "[profile.openai]\nfollow = true");
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    std::fs::remove_file(&file).unwrap();
    sandbox.keepalive(&force).exits(0).says("goes on alone");
}

fn claude(sandbox: &Sandbox, answer: &Value) {
    let tokens = json!({"accessToken": answer["access_token"], "refreshToken": answer["refresh_token"],
        "expiresAt": ends(answer) * 1000});
    write(&sandbox.path("home/.claude/.credentials.json"), json!({"claudeAiOauth": tokens}).to_string());
}

/// The account of Claude Code, and how long ago it was written; as [`claude`] for the tokens.
fn claude_account(sandbox: &Sandbox, name: &str, age: u64) {
    let file = sandbox.path("home/.claude.json");
    write(&file, json!({"oauthAccount": {"accountUuid": name, "emailAddress": format!("{name}@x")}}).to_string());
    set_age(&file, age);
}

fn set_age(file: &Path, age: u64) {
    let at = SystemTime::now() - Duration::from_secs(age);
    std::fs::File::options().append(true).open(file).unwrap().set_modified(at).unwrap();
}

/// Rule 39. What was lost: an access token of bob, handed out as ada's.
#[test]
fn tokens_before_their_account_is_named_are_not_adopted() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    let tokens = sandbox.path("home/.claude/.credentials.json");
    let signs_in = |answer: &Value, age: u64| {
        claude(&sandbox, answer);
        set_age(&tokens, age);
    };
    claude_account(&sandbox, "ada", 300);
    signs_in(&answer, 200);
    sandbox.keepalive(&["import", "p", "--provider", "acme", "--from", "claude"]).exits(0);
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
    let mut of_bob = server.mint();
    of_bob["expires_in"] = json!(9000);
    signs_in(&of_bob, 1);
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "source");
    claude_account(&sandbox, "bob", 0);
    assert_eq!(refresh(&sandbox).exits(78).result()["error"]["kind"], "conflict");
    let handed_out = sandbox.keepalive(&["token", "p"]).exits(0).stdout;
    assert_eq!(handed_out.trim(), answer["access_token"].as_str().unwrap());
    // Refreshed by the tool, which names the account again, or has named no other one for a while.
    let mut rotated = other_tool::refresh(&server, other_tool::token(&answer));
    for (expires, age, account_age) in [(9000, 10, 5), (19000, 60, 200)] {
        rotated = match expires {
            9000 => rotated,
            _ => other_tool::refresh(&server, other_tool::token(&rotated)),
        };
        rotated["expires_in"] = json!(expires);
        signs_in(&rotated, age);
        claude_account(&sandbox, "ada", account_age);
        refresh(&sandbox).exits(0).says("adopted generation");
    }
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (2, 0));
}

/// Rule 39. What was lost: an access token of bob, which was imported as ada's and handed out for ever.
#[test]
fn token_that_the_tool_names_for_another_is_not_handed_out() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    let tokens = sandbox.path("home/.claude/.credentials.json");
    let import = ["import", "p", "--provider", "acme", "--from", "claude"];
    claude_account(&sandbox, "ada", 300);
    claude(&sandbox, &answer);
    sandbox.keepalive(&import).exits(0);
    // The account is written first, and the tokens may follow in a moment.
    claude_account(&sandbox, "bob", 0);
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
    sandbox.keepalive(&["token", "p"]).exits(0);
    claude_account(&sandbox, "bob", 100);
    set_age(&tokens, 200);
    let error = refresh(&sandbox).exits(78).result()["error"].clone();
    assert_eq!(error["kind"], "conflict", "{error}");
    sandbox.keepalive(&["token", "p"]).exits(78).says("names another account");
    // A sign-out of the tool does not change whose token it is.
    std::fs::remove_file(&tokens).unwrap();
    assert_eq!(refresh(&sandbox).exits(78).result()["error"]["kind"], "conflict");
    // A person agrees.
    claude(&sandbox, &answer);
    sandbox.keepalive(&[&import[..], &["--replace"]].concat()).exits(0);
    sandbox.keepalive(&["token", "p"]).exits(0);
    assert_eq!(server.counts().refresh_requests, 0);
}

/// Rule 39. What was lost: the family, because the tool's token could never be adopted.
#[test]
fn follow_without_an_account_is_refused_where_it_rotates() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    claude(&sandbox, &answer);
    let import = ["import", "p", "--provider", "acme", "--from", "claude"];
    let run = sandbox.keepalive(&import).exits(78).says("does not name its account").says("remove follow = true");
    assert!(run.stderr.contains("remove the member \"claudeAiOauth\""), "{run:?}");
    // A person turned it on later.
    let section = |follow: bool| {
        format!(
            "[provider.acme]\ntoken_endpoint = \"{}/token\"\nclient_id = \"public\"\n[profile.p]\nprovider = \"acme\"\nfollow = {follow}",
            server.url()
        )
    };
    sandbox.file_store(&section(false));
    sandbox.keepalive(&import).exits(0);
    sandbox.file_store(&section(true));
    other_tool::refresh(&server, other_tool::token(&answer));
    std::fs::remove_file(sandbox.path("home/.claude/.credentials.json")).unwrap();
    let error = refresh(&sandbox).exits(78).result()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("does not name its account"), "{error}");
    assert_eq!((server.counts().refresh_requests, server.counts().presented_again), (1, 0));
    // Named, it is followed.
    write(&sandbox.path("home/.claude/.claude.json"), json!({"oauthAccount": {"accountUuid": "u"}}).to_string());
    claude(&sandbox, &server.mint());
    sandbox.keepalive(&[&import[..], &["--replace"]].concat()).exits(0);
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
}

#[test]
fn follow_of_what_cannot_be_read_again_is_refused_at_import() {
    let server = AuthServer::start(RotationMode::Strict);
    for provider in ["", "rotation = \"none\"\n"] {
        let sandbox = sandbox(&server, "acme", &format!("{provider}{FOLLOWING}"));
        let store = json!({"tokens": {"access_token": "a", "refresh_token": "r1", "account_id": "x"}}).to_string();
        let import = ["import", "p", "--provider", "acme", "--from", "codex"];
        for file in ["-", "/dev/stdin", "/proc/self/fd/0"] {
            let path = sandbox.path("home/stdin.json");
            write(&path, &store);
            let mut command = sandbox.keepalive_command(&[&import[..], &[file]].concat());
            let run = command.stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(78), "{file}: {said}");
            assert!(said.contains("cannot be read again") && said.contains("remove follow = true"), "{said}");
        }
        assert_ne!(sandbox.keepalive(&["--json", "status"]).profile()["generation"], 1);
    }
}

/// What was lost: the token that Codex held, which was sent from another directory.
#[test]
fn relative_directory_of_a_tool_is_stored_whole() {
    let server = AuthServer::start(RotationMode::Strict);
    for (variable, tool, file) in [
        ("CODEX_HOME", "codex", "auth.json"),
        ("CHATGPT_TOKEN_DIR", "litellm", "auth.json"),
        ("HERMES_HOME", "hermes", "auth.json"),
    ] {
        let (mut sandbox, answer) = (follow(&server), server.mint());
        let tokens = json!({"access_token": answer["access_token"], "refresh_token": answer["refresh_token"],
            "account_id": "x", "expires_at": now() + 600});
        let store = match tool {
            "litellm" => tokens,
            "hermes" => json!({"providers": {"acme": {"tokens": tokens}}}),
            _ => json!({"tokens": tokens}),
        };
        write(&sandbox.path("home/one/x").join(file), store.to_string());
        std::fs::create_dir_all(sandbox.path("home/two/x")).unwrap();
        sandbox.set_env(variable, "x");
        let within = |dir: &str, arguments: &[&str]| {
            sandbox.keepalive_command(arguments).current_dir(sandbox.path("home").join(dir)).output().unwrap()
        };
        let run = within("one", &["import", "p", "--provider", "acme", "--from", tool]);
        assert!(run.status.success(), "{run:?}");
        let run = within("two", &["refresh", "-p", "p", "--force"]);
        assert_eq!(run.status.code(), Some(75), "{tool}: {run:?}");
    }
    assert_eq!(server.counts().refresh_requests, 0);
}

fn told_hint(sandbox: &Sandbox) -> String {
    refresh(sandbox).exits(78).result()["error"]["hint"].as_str().unwrap().to_owned()
}

/// What was lost: the hint led to the tool's usual store, with a third account.
#[test]
fn hint_of_a_conflict_names_the_file_that_was_imported() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    let file: &Path = &sandbox.path("home/my logins/auth.json");
    write(file, codex_store(&answer, "ada").to_string());
    let import = ["import", "p", "--provider", "acme", "--from", "codex", file.to_str().unwrap()];
    sandbox.keepalive(&import).exits(0);
    write(file, codex_store(&server.mint(), "bob").to_string());
    let hint = told_hint(&sandbox);
    assert!(hint.contains(&format!("keepalive import p --from codex '{}' --replace", file.display())), "{hint}");
}

#[test]
fn older_openclaw_file_is_found_in_its_usual_place() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (follow(&server), server.mint());
    let file = sandbox.path("home/.openclaw/agents/main/agent/auth-profiles.json");
    write(&file, json!({"version": 1, "profiles": {"acme:default": oauth(&answer, "ada")}}).to_string());
    let import = ["import", "p", "--provider", "acme", "--from", "openclaw"];
    sandbox.keepalive(&import).exits(0).says(file.to_str().unwrap());
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
    // Torn is unknown.
    write(&file, "{\n \"version\":");
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "source");
    // Moved to another agent.
    std::fs::remove_file(&file).unwrap();
    let moved = sandbox.path("home/.openclaw/agents/two/agent/auth-profiles.json");
    write(&moved, json!({"version": 1, "profiles": {"acme:other": oauth(&answer, "ada")}}).to_string());
    assert_eq!(refresh(&sandbox).exits(75).result()["error"]["kind"], "tool_first");
    assert_eq!(server.counts().refresh_requests, 0);
}

#[test]
fn import_says_that_the_refresh_token_has_ended() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (sandbox(&server, "acme", ""), server.mint());
    let tokens = json!({"accessToken": "a", "refreshToken": answer["refresh_token"],
        "expiresAt": (now() + 600) * 1000, "refreshTokenExpiresAt": (now() - 600) * 1000});
    write(&sandbox.path("home/.claude/.credentials.json"), json!({"claudeAiOauth": tokens}).to_string());
    let import = ["import", "one", "--provider", "acme", "--from", "claude"];
    sandbox.keepalive(&import).exits(0).says("its refresh token ended 20").says("keepalive login one");
    let file = sandbox.path("home/response.json");
    let response = json!({"access_token": "b", "refresh_token": "ended", "expires_in": 600, "refresh_token_expires_at": now() - 600});
    write(&file, response.to_string());
    let import = ["import", "two", "--provider", "acme", file.to_str().unwrap()];
    sandbox.keepalive(&import).exits(0).says("its refresh token ended 20");
}

#[test]
fn import_without_a_provider_says_how_to_name_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, answer) = (sandbox(&server, "acme", ""), server.mint());
    let file = sandbox.path("home/.mcp-auth/mcp-remote-v1/0a1b_tokens.json");
    write(&file, json!({"access_token": "a", "refresh_token": answer["refresh_token"], "expires_in": 600}).to_string());
    let import = ["import", "one", "--from", "mcp-remote"];
    sandbox.keepalive(&import).says("keepalive import one --from mcp-remote --provider NAME");
    sandbox.keepalive(&[&import[..], &["--provider", "acme"]].concat()).exits(0);
}
