//! `feed`: other programs get their own file with an access token and without a refresh token, and it can be taken back.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::other_tools::{codex, codex_store, jwt, now, sandbox, write};
use super::support::auth_server::AuthServer;
use super::support::other_tool;
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

fn document(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn config(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("config/keepalive/config.toml")).unwrap()
}

fn token(sandbox: &Sandbox, profile: &str) -> String {
    sandbox.keepalive(&["token", profile]).exits(0).stdout.trim().to_owned()
}

/// Claude Code signed in at a server, in a sandbox.
fn claude(server: &AuthServer) -> (Sandbox, PathBuf, Value) {
    let sandbox = sandbox(server, "anthropic", "");
    let (file, answer) = (sandbox.path("home/.claude/.credentials.json"), server.mint());
    let store = json!({"claudeAiOauth": {
        "accessToken": answer["access_token"], "refreshToken": answer["refresh_token"], "expiresAt": (now() + 600) * 1000,
        "refreshTokenExpiresAt": (now() + 6000) * 1000, "scopes": ["user:inference", "user:profile"], "subscriptionType": "max"},
        "mcpOAuth": {"x": {"refreshToken": "theirs"}}});
    write(&file, serde_json::to_string_pretty(&store).unwrap());
    write(
        &sandbox.path("home/.claude.json"),
        json!({"oauthAccount": {"accountUuid": "u1", "emailAddress": "ada@acme.example", "organizationUuid": "o1"}})
            .to_string(),
    );
    (sandbox, file, answer)
}

#[test]
fn codex_is_taken_over_and_fed_without_a_refresh_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex(&server, "");
    let before = document(&file);
    let dry = sandbox.keepalive(&["feed", "codex", "openai", "--dry-run"]).exits(0);
    assert!(
        dry.stderr.contains("[[profile.openai.mirror]]") && dry.stderr.contains("/auth_mode: \"chatgptAuthTokens\""),
        "{dry:?}"
    );
    assert_eq!(document(&file), before);
    sandbox.keepalive(&["feed", "codex", "openai"]).exits(1).says("add --yes");
    assert_eq!(document(&file), before);
    let run = sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(0).says("Codex is fed by openai");
    assert!(!format!("{run:?}").contains(other_tool::token(&answer)));
    let fed = document(&file);
    assert_eq!(
        (&fed["auth_mode"], &fed["tokens"]["refresh_token"], &fed["tokens"]["account_id"], &fed["tokens"]["id_token"]),
        (&json!("chatgptAuthTokens"), &json!(""), &before["tokens"]["account_id"], &before["tokens"]["id_token"])
    );
    assert_eq!(fed["tokens"]["access_token"], token(&sandbox, "openai"));
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    assert_eq!(document(&file)["tokens"]["access_token"], token(&sandbox, "openai"));
    let (text, configured) = (std::fs::read_to_string(&file).unwrap(), config(&sandbox));
    sandbox.keepalive(&["feed", "codex", "openai"]).exits(0).says("is already fed by openai");
    assert_eq!((std::fs::read_to_string(&file).unwrap(), config(&sandbox)), (text, configured));
    let doctor = sandbox.keepalive(&["-v", "doctor"]);
    assert!(doctor.stdout.contains("is fed: it has an access token and no refresh token"), "{doctor:?}");
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(1).says("feeds it");
    let counts = server.counts();
    assert_eq!((counts.refresh_requests, counts.presented_again), (1, 0));
}

#[test]
fn undo_leaves_no_token_and_puts_none_back() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = codex(&server, "");
    let mut store = document(&file);
    store["extra"] = json!({"kept": true});
    write(&file, store.to_string());
    let configured = config(&sandbox);
    sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(0);
    for _ in 0..10 {
        sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    }
    assert_eq!(document(&file)["tokens"]["access_token"], token(&sandbox, "openai"));
    let run = sandbox
        .keepalive(&["feed", "codex", "openai", "--undo", "--yes"])
        .exits(0)
        .says("to sign in there: codex login");
    assert!(!format!("{run:?}").contains("canary"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("canary") && !text.contains(other_tool::token(&answer)) && !text.contains("chatgptAuthTokens"),
        "{text}"
    );
    let left = document(&file);
    assert_eq!(
        (&left["extra"], &left["auth_mode"], &left["tokens"]),
        (&json!({"kept": true}), &store["auth_mode"], &Value::Null)
    );
    assert_eq!(config(&sandbox), configured);
    sandbox.keepalive(&["feed", "codex", "openai", "--undo"]).exits(0).says("nothing to undo");
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    assert_eq!(document(&file), left);
}

#[test]
fn file_that_was_made_by_a_feed_goes_with_it() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server, "openai", "");
    let mut answer = server.mint();
    answer["id_token"] = json!(jwt(&json!({"sub": "ada", "account_id": "acct-1"})));
    sandbox.keepalive_with_input(&["import", "openai"], &answer.to_string()).exits(0);
    sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(0);
    let file = sandbox.path("home/.codex/auth.json");
    let fed = document(&file);
    assert_eq!((&fed["tokens"]["account_id"], &fed["OPENAI_API_KEY"]), (&json!("acct-1"), &Value::Null));
    sandbox.keepalive(&["refresh", "-p", "openai", "--force"]).exits(0);
    assert_eq!(document(&file)["tokens"]["id_token"], fed["tokens"]["id_token"], "the server sent none since");
    sandbox.keepalive(&["feed", "codex", "openai", "--undo", "--yes"]).exits(0).says("is gone");
    assert!(!file.exists());
}

#[test]
fn claude_keeps_its_siblings_and_loses_its_refresh_token() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, answer) = claude(&server);
    sandbox.keepalive(&["feed", "claude", "anthropic", "--yes"]).exits(0);
    sandbox.keepalive(&["refresh", "-p", "anthropic", "--force"]).exits(0);
    let fed = document(&file);
    let oauth = &fed["claudeAiOauth"];
    assert_eq!(oauth["accessToken"], token(&sandbox, "anthropic"));
    assert!(oauth.get("refreshToken").is_none() && oauth.get("refreshTokenExpiresAt").is_none(), "{fed}");
    assert_eq!(
        (&oauth["scopes"], &oauth["subscriptionType"]),
        (&json!(["user:inference", "user:profile"]), &json!("max"))
    );
    assert_eq!(fed["mcpOAuth"]["x"]["refreshToken"], "theirs");
    assert!(oauth["expiresAt"].as_u64().unwrap() > now() * 1000);
    assert!(!sandbox.path("home/.claude/.oauth_refresh.lock").exists());
    assert!(!std::fs::read_to_string(&file).unwrap().contains(other_tool::token(&answer)));
    // Claude Code, or a person, signs in there: it stays.
    let theirs =
        json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r", "expiresAt": 1, "scopes": []}}).to_string();
    write(&file, &theirs);
    sandbox.keepalive(&["refresh", "-p", "anthropic", "--force"]).exits(0).says("has a refresh token of its own");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), theirs);
    sandbox.keepalive(&["status"]).exits(75).says("keepalive feed claude anthropic");
    sandbox.keepalive(&["feed", "claude", "anthropic", "--yes"]).exits(0).says("overwritten: the sign-in");
    assert_eq!(document(&file)["claudeAiOauth"]["accessToken"], token(&sandbox, "anthropic"));
    sandbox.keepalive(&["status"]).exits(0);
}

#[test]
fn sign_in_of_another_account_is_not_overwritten() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, _) = codex(&server, "");
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    let theirs = codex_store(&server.mint(), "eve").to_string();
    write(&file, &theirs);
    let run = sandbox
        .keepalive(&["feed", "codex", "openai", "--yes"])
        .exits(1)
        .says("belongs to eve@acme.example")
        .says("--replace");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), theirs, "{run:?}");
    assert!(!config(&sandbox).contains("mirror"));
    sandbox.keepalive(&["feed", "codex", "openai", "--yes", "--replace"]).exits(0);
    assert_eq!(document(&file)["tokens"]["access_token"], token(&sandbox, "openai"));
}

#[test]
fn followed_program_is_not_fed() {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, file, _) = codex(&server, "[profile.openai]\nfollow = true");
    let before = document(&file);
    sandbox.keepalive(&["import", "openai", "--from", "codex"]).exits(0);
    sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(78).says("remove follow = true");
    sandbox.file_store(&format!(
        "[provider.openai]\ntoken_endpoint = \"{}/token\"\nclient_id = \"public\"\n[profile.openai]\nfollow = true\n[[profile.openai.mirror]]\nkind = \"codex\"\n",
        server.url()
    ));
    sandbox.keepalive(&["refresh", "-p", "openai"]);
    let mirror = sandbox.keepalive(&["--json", "status"]).profile()["mirrors"][0].clone();
    assert_eq!(
        (&mirror["state"], mirror["error"]["hint"].as_str().unwrap().contains("follow = true")),
        (&json!("failed"), true)
    );
    assert_eq!(document(&file), before);
}

#[test]
fn each_program_gets_its_own_form() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = Sandbox::signed_in(&server);
    let at = |name: &str| sandbox.path("home").join(name);
    let feed = |consumer: &str, more: &[&str]| {
        sandbox.keepalive(&[&["feed", consumer, "demo", "--yes"], more].concat()).exits(0);
    };
    write(&at("mcp/a_tokens.json"), "{\"scope\":\"old\"}");
    let mcp = at("mcp/a_tokens.json").display().to_string();
    write(&sandbox.path("data/opencode/auth.json"), "{\"other\":{\"type\":\"api\",\"key\":\"k\"}}");
    feed("mcp-remote", &["--path", &mcp]);
    feed("opencode", &["--entry", "openai"]);
    feed("pi", &[]);
    // They know one provider.
    for consumer in ["gemini", "litellm"] {
        feed(consumer, &["--replace"]);
    }
    sandbox.refresh(&["--force"]).exits(0);
    let token = token(&sandbox, "demo");
    let opencode = document(&sandbox.path("data/opencode/auth.json"));
    assert_eq!((&opencode["openai"]["access"], &opencode["openai"]["refresh"]), (&json!(token), &json!("")));
    assert_eq!(opencode["other"]["key"], "k");
    let pi = document(&at(".pi/agent/auth.json"));
    assert_eq!((&pi["acme"]["access"], &pi["acme"]["type"]), (&json!(token), &json!("oauth")));
    let gemini = document(&at(".gemini/oauth_creds.json"));
    assert!(gemini["access_token"] == token && gemini["expiry_date"].as_u64().unwrap() > now() * 1000);
    let litellm = document(&at(".config/litellm/chatgpt/auth.json"));
    assert!(litellm["access_token"] == token && litellm["expires_at"].as_u64().unwrap() < now() * 1000);
    let mcp = document(&at("mcp/a_tokens.json"));
    assert!(mcp["access_token"] == token && mcp["expires_in"].as_u64().unwrap() > 0 && mcp["token_type"] == "Bearer");
    for document in [gemini, litellm, mcp] {
        assert!(document.get("refresh_token").is_none(), "{document}");
    }
    sandbox.keepalive(&["feed", "mcp-remote", "demo"]).exits(1).says("--path FILE");
}

#[test]
fn openclaw_gets_its_token_on_standard_input() {
    let server = AuthServer::start(RotationMode::Strict);
    let mut sandbox = Sandbox::signed_in(&server);
    let bin = sandbox.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\necho \"$*\" >> \"$HOME/calls\"\ncat > \"$HOME/pasted\"\n[ ! -e \"$HOME/fail\" ] || { echo 'no gateway' >&2; exit 1; }\n";
    std::fs::write(bin.join("openclaw"), script).unwrap();
    std::fs::set_permissions(bin.join("openclaw"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    sandbox.set_env("PATH", &path);
    sandbox.keepalive(&["feed", "openclaw", "demo", "--yes"]).exits(0);
    sandbox.refresh(&["--force"]).exits(0);
    let read = |name: &str| std::fs::read_to_string(sandbox.path("home").join(name)).unwrap();
    assert_eq!(read("pasted"), token(&sandbox, "demo"));
    let calls = read("calls");
    assert_eq!(calls.lines().count(), 2, "once for each generation: {calls}");
    assert!(
        calls.starts_with("models auth paste-token --provider acme --profile-id acme:keepalive --expires-in "),
        "{calls}"
    );
    assert!(!calls.contains("canary"));
    write(&sandbox.path("home/fail"), "");
    sandbox.refresh(&["--force"]).exits(0).says("`openclaw models auth paste-token` failed: no gateway");
    assert_eq!(sandbox.status()["mirrors"][0]["state"], "failed");
    std::fs::remove_file(sandbox.path("home/fail")).unwrap();
    sandbox.keepalive(&["refresh"]).exits(0);
    assert_eq!(sandbox.status()["mirrors"][0]["state"], "current");
}

#[test]
fn profile_without_a_sign_in_is_not_fed() {
    let server = AuthServer::start(RotationMode::Strict);
    let sandbox = sandbox(&server, "openai", "");
    sandbox.keepalive(&["feed", "codex", "openai", "--yes"]).exits(77).says("keepalive login openai");
    assert!(!sandbox.path("home/.codex").exists() && !config(&sandbox).contains("mirror"));
}
