//! Tools that are followed: when their stores count as signed out, and when they cannot be followed at all.

use std::path::{Path, PathBuf};

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
        "refresh": answer["refresh_token"], "expires": (now() + 600) * 1000, "accountId": account})
}

/// One sign-in with the names of RFC 6749.
fn plain(answer: &Value, account: &str) -> Value {
    json!({"type": "acme", "access_token": answer["access_token"], "refresh_token": answer["refresh_token"],
        "expired": now() + 600, "account_id": account})
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
            "account_id": account}]}})
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
            "refresh_token": answer["refresh_token"], "expires_at": now() + 600}})
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
        "expiresAt": (now() + 600) * 1000});
    write(&sandbox.path("home/.claude/.credentials.json"), json!({"claudeAiOauth": tokens}).to_string());
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
