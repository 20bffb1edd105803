//! Every store as it was found, read: what it holds, whose that is, until when, and why some of it is refused.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::credential::expiry::RefreshTokenEnd;
use crate::credential::external::{AccountIdentity, AccountMatch, ExternalCredential};
use crate::credential::secret::RefreshToken;
use crate::import_sources::tool_stores::read;
use crate::import_sources::tools::Tool;
use crate::import_sources::{
    ToolAccount, ToolStoreError, agents, config_files, json as stores, openclaw, select_account,
};

macro_rules! store {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/stores/", $name)).as_slice()
    };
}

fn only(entries: Result<Vec<ToolAccount>, ToolStoreError>) -> ExternalCredential {
    select_account(entries.unwrap(), None).unwrap().credential.unwrap()
}

fn is(foreign: &ExternalCredential, refresh: &str) -> bool {
    foreign.response.refresh == RefreshToken::new(refresh)
}

fn ends(foreign: &ExternalCredential) -> Timestamp {
    foreign.response.expiry.access_expiry().unwrap()
}

fn who(subject: Option<&str>, account: Option<&str>, email: &str) -> AccountIdentity {
    let text = |t: &str| t.to_owned();
    AccountIdentity { subject: subject.map(text), account: account.map(text), email: Some(email.into()) }
}

#[test]
fn codex_login_is_read_with_identity_and_jwt_expiry() {
    let found = only(stores::codex(store!("codex-chatgpt.json")));
    assert!(is(&found, "rt-fake-1"));
    assert_eq!(found.identity, who(Some("user-ada"), Some("acct-1"), "ada@acme.example"));
    assert_eq!(found.client_id.as_deref(), Some("app_EMoamEEZ73f0CkXaXp7hrann"));
    assert_eq!(ends(&found), Timestamp::from_secs(1_795_610_634), "the JWT says so, and nothing else does");
    assert_eq!(found.written_at, Timestamp::parse_rfc3339("2026-11-25T02:43:54.761924532Z"));
}

#[test]
fn codex_login_without_refresh_token_is_refused_with_a_reason() {
    let what = |bytes: &[u8]| stores::codex(bytes).unwrap_err().message;
    assert_eq!(what(store!("codex-apikey.json")), "Codex is signed in with an API key, which needs no refresh");
    assert_eq!(what(b"{}"), "Codex is not signed in");
    assert_eq!(
        what(br#"{"auth_mode":"agentIdentity","tokens":null}"#),
        "Codex is signed in by \"agentIdentity\", which has no refresh token"
    );
    assert!(what(b"{\"tokens\":{").starts_with("it is not a JSON object"));
    let entries = stores::codex(br#"{"tokens":{"access_token":"","refresh_token":""}}"#).unwrap();
    let none = select_account(entries, None).unwrap().credential.unwrap_err();
    assert_eq!(none.message, "it has no refresh token");
}

#[test]
fn claude_expiry_is_in_milliseconds_and_identity_is_unknown() {
    let found = only(stores::claude(store!("claude.json")));
    assert!(is(&found, "fake-rt-claude"));
    assert_eq!(ends(&found), Timestamp::from_millis(4_102_444_800_123));
    assert_eq!(found.response.refresh_end, Some(RefreshTokenEnd::At(Timestamp::from_millis(4_103_740_800_000))));
    assert_eq!(found.response.scope.as_deref(), Some("user:inference user:profile"));
    assert_eq!(found.identity.compare(&found.identity), AccountMatch::Unknown);
    // The login of an MCP server is not Claude's.
    assert_eq!(
        stores::claude(br#"{"mcpOAuth":{}}"#).unwrap_err().message,
        "Claude Code is not signed in with a subscription"
    );
}

#[test]
fn grok_login_with_several_accounts_needs_one_named() {
    let entries = || stores::grok(store!("grok.json")).unwrap();
    let trouble = select_account(entries(), None).unwrap_err();
    assert_eq!(trouble.message, "it has several accounts");
    assert!(trouble.hint.contains("https://auth.x.ai::b1a00492-073a-47ea-816f-4c329264a828 (ada@acme.example)"));
    for name in ["https://auth.x.ai::b1a00492-073a-47ea-816f-4c329264a828", "ADA@acme.example"] {
        let found = select_account(entries(), Some(name)).unwrap().credential.unwrap();
        assert!(is(&found, "fake-rt-grok"));
        assert_eq!(found.identity, who(Some("user-ada"), None, "ada@acme.example"));
        assert_eq!(found.issuer.as_deref(), Some("https://auth.x.ai"));
        assert_eq!(ends(&found), Timestamp::from_millis(4_102_444_800_500));
    }
    let stranger = select_account(entries(), Some("eve@acme.example")).unwrap_err();
    assert!(stranger.hint.starts_with("it has https://"), "{stranger:?}");
    let key = select_account(entries(), Some("https://api.x.ai::key")).unwrap().credential.unwrap_err();
    assert_eq!(key.message, "it has no refresh token");
    let external = br#"{"a::b":{"key":"k","auth_mode":"external","refresh_token":"for reference"}}"#;
    let external = select_account(stores::grok(external).unwrap(), None).unwrap().credential.unwrap_err();
    assert_eq!(external.message, "its token comes from an external sign-in command");
    let team = br#"{"a::b":{"key":"k","user_id":"u","principal_id":"team-1","refresh_token":"r"}}"#;
    assert_eq!(only(stores::grok(team)).identity.account.as_deref(), Some("team-1"));
    assert_eq!(stores::grok(b"{}").unwrap_err().message, "Grok is not signed in");
}

#[test]
fn gemini_identity_comes_from_the_id_token() {
    let found = only(stores::gemini(store!("gemini.json")));
    assert!(is(&found, "fake-rt-gemini"));
    assert_eq!(found.identity, who(Some("1234567890"), None, "ada@acme.example"));
    assert_eq!(found.client_id.as_deref(), Some("gemini-client.apps.example"));
    assert_eq!(ends(&found), Timestamp::from_millis(4_102_444_800_000));
}

#[test]
fn openclaw_login_with_several_profiles_needs_one_named() {
    let entries = || openclaw::read(store!("openclaw.json")).unwrap();
    let ada = select_account(entries(), Some("xai:ada@acme.example")).unwrap();
    assert_eq!(ada.provider.as_deref(), Some("xai"));
    let ada = ada.credential.unwrap();
    assert!(is(&ada, "fake-rt-xai-1"));
    assert_eq!(ada.identity, who(None, Some("acct-9"), "ada@acme.example"));
    assert_eq!(ends(&ada), Timestamp::from_millis(4_102_444_800_000));
    let several = select_account(entries(), None).unwrap_err();
    assert_eq!(
        several.hint,
        "name one with --account: anthropic:default (it is of type \"api_key\", which has no refresh token), \
         openai:default (acct-1), xai:ada@acme.example, xai:bob@acme.example, \
         xai:pasted (it is of type \"token\", which has no refresh token)"
    );
    let token = select_account(entries(), Some("xai:pasted")).unwrap().credential.unwrap_err();
    assert_eq!(token.message, "it is of type \"token\", which has no refresh token");
}

#[test]
fn openclaw_marker_of_a_failed_refresh_is_not_a_token() {
    let entries = openclaw::read(store!("openclaw-fenced.json")).unwrap();
    let fenced = select_account(entries, Some("openai:default")).unwrap().credential.unwrap_err();
    assert_eq!(fenced.message, "a refresh by OpenClaw failed and lost its token");
    assert!(fenced.hint.contains("openclaw models auth login --profile-id openai:default"));
}

#[test]
fn any_part_of_an_openclaw_refresh_marker_is_not_a_token() {
    let fence = "openclaw-oauth-refresh-fence:v1:6b8e21aa93811c66b47ec2f856b5d0b8";
    let row = |access: String, refresh: String| {
        let profile = json!({"type": "oauth", "provider": "xai", "access": access, "refresh": refresh, "expires": 1});
        let row = json!({"version": 1, "profiles": {"xai:default": profile}}).to_string();
        select_account(openclaw::read(row.as_bytes()).unwrap(), None).unwrap().credential
    };
    let pending = row(format!("{fence}:access:00"), format!("{fence}:refresh:00")).unwrap_err();
    assert_eq!(pending.message, "OpenClaw is refreshing it right now");
    for (access, refresh) in [
        ("at".to_owned(), format!("{fence}:refresh:00")),
        (format!("{fence}:access:00"), "rt".to_owned()),
        ("at".to_owned(), "openclaw-oauth-refresh-fence:v2:unheard-of".to_owned()),
    ] {
        assert_eq!(row(access, refresh).unwrap_err().message, pending.message);
    }
    assert!(row("at".into(), "rt".into()).is_ok());
}

#[test]
fn openclaw_profiles_are_read_from_both_databases() {
    let mut rows = store!("openclaw.json").to_vec();
    rows.extend_from_slice(br#"{"version":1,"profiles":{"xai:agent":{"type":"oauth","provider":"xai","access":"a","refresh":"agents","expires":9}}}"#);
    let found = select_account(openclaw::read(&rows).unwrap(), Some("xai:agent")).unwrap().credential.unwrap();
    assert!(is(&found, "agents"));
    assert_eq!(openclaw::read(b"\n").unwrap_err().message, "it has no auth profile");
}

#[test]
fn oidc_agent_login_gives_no_access_token() {
    let found = only(stores::oidc_agent(store!("oidc-agent.json")));
    assert!(is(&found, "fake-rt-oidc-1") && found.response.access.is_none());
    assert_eq!(found.issuer.as_deref(), Some("http://127.0.0.1:18350/"));
    assert_eq!(found.client_id.as_deref(), Some("oidc-client"));
}

#[test]
fn malformed_tool_login_gives_no_token_and_no_panic() {
    let odd =
        [json!(null), json!(7), json!([]), json!({}), json!("x"), json!({"tokens": []}), json!({"a": {"key": 1}})];
    let nested = |v: &Value| json!({"tokens": v, "claudeAiOauth": v, "profiles": {"p": v}, "refresh_token": v});
    for value in odd.iter().cloned().chain(odd.iter().map(nested)) {
        let bytes = value.to_string().into_bytes();
        for read in [
            stores::codex,
            stores::claude,
            stores::grok,
            stores::gemini,
            openclaw::read,
            stores::oidc_agent,
            agents::by_provider,
            agents::hermes,
            agents::litellm,
            agents::cliproxy,
            agents::mcp_remote,
            config_files::rclone,
            config_files::gh_hosts,
        ] {
            let tokens = read(&bytes).into_iter().flatten().filter(|entry| entry.credential.is_ok()).count();
            assert!(tokens == 0 || value["refresh_token"] == "x", "{value}");
        }
        assert!(crate::import_sources::pizauth::read(&bytes).is_err());
    }
}

#[test]
fn pizauth_dump_is_read_and_a_truncated_one_is_refused() {
    let entries = || crate::import_sources::pizauth::read(store!("pizauth.dump")).unwrap();
    let found = select_account(entries(), None).unwrap();
    assert_eq!(found.id, "acme", "the other account has no token");
    let found = found.credential.unwrap();
    assert!(is(&found, "fake-rt-piz"));
    assert_eq!(found.client_id.as_deref(), Some("piz-client"));
    assert_eq!(found.issuer.as_deref(), Some("http://127.0.0.1:18332/oauth/token"));
    assert_eq!(ends(&found).since(found.written_at.unwrap()).as_secs(), 3600);
    assert_eq!(
        select_account(entries(), Some("empty")).unwrap().credential.unwrap_err().message,
        "pizauth has no token for it"
    );
    let mut torn = store!("pizauth.dump").to_vec();
    torn.pop();
    assert_eq!(crate::import_sources::pizauth::read(&torn).unwrap_err().message, "it is not a pizauth dump");
}

#[test]
fn fed_store_is_not_called_signed_out() {
    let fed = |entries: Result<Vec<ToolAccount>, ToolStoreError>| {
        select_account(entries.unwrap(), None).unwrap().credential.unwrap_err() == ToolStoreError::fed()
    };
    let codex = |mode: &str, refresh: Value| {
        let file = json!({"auth_mode": mode, "tokens": {"access_token": "a", "refresh_token": refresh}});
        fed(stores::codex(file.to_string().as_bytes()))
    };
    assert!(codex("chatgptAuthTokens", json!("")) && codex("chatgptAuthTokens", json!("any")));
    assert!(codex("chatgpt", json!("")) && codex("chatgpt", json!("kah_0123456789")));
    assert!(fed(stores::claude(br#"{"claudeAiOauth":{"accessToken":"a","expiresAt":1,"scopes":[]}}"#)));
    assert!(fed(agents::by_provider(br#"{"openai":{"type":"oauth","refresh":"","access":"a","expires":1}}"#)));
    // What Claude Code writes when its refresh token was refused.
    let blank = br#"{"claudeAiOauth":{"accessToken":"","refreshToken":"","expiresAt":0}}"#;
    assert!(!fed(stores::claude(blank)));
}

#[test]
fn claude_account_is_read_from_its_own_file() {
    let file = json!({"numStartups": 3, "oauthAccount": {
        "accountUuid": "u-1", "organizationUuid": "o-1", "emailAddress": "ada@acme.example"}});
    let found = stores::claude_account(file.to_string().as_bytes()).unwrap();
    assert_eq!(found, who(Some("u-1"), Some("o-1"), "ada@acme.example"));
    assert_eq!(stores::claude_account(br#"{"oauthAccount":{"emailAddress":"ada@acme.example"}}"#), None);
    assert_eq!(stores::claude_account(b"{}"), None);
}

#[test]
fn opencode_login_is_read_by_provider() {
    let entries = || agents::by_provider(store!("opencode.json")).unwrap();
    let openai = select_account(entries(), Some("openai")).unwrap();
    assert_eq!(openai.provider.as_deref(), Some("openai"));
    let found = openai.credential.unwrap();
    assert!(is(&found, "fake-rt-opencode"));
    assert_eq!(
        (found.identity.account.as_deref(), ends(&found)),
        (Some("acct-1"), Timestamp::from_millis(1_790_003_600_000))
    );
    let copilot = select_account(entries(), Some("github-copilot")).unwrap().credential.unwrap_err();
    assert_eq!(copilot.message, "a sign-in for GitHub Copilot has no refresh token of OAuth");
    let key = select_account(entries(), Some("openrouter")).unwrap().credential.unwrap_err();
    assert_eq!(key.message, "it is of type \"api\", which has no refresh token");
    assert_eq!(agents::by_provider(b"{}").unwrap_err().message, "it has no sign-in");
}

#[test]
fn pi_login_is_read_by_provider() {
    let found = agents::by_provider(store!("pi.json")).unwrap();
    let found = select_account(found, None).unwrap();
    assert_eq!((found.id.as_str(), found.provider.as_deref()), ("openai-codex", Some("openai")));
    assert!(is(&found.credential.unwrap(), "fake-rt-pi"));
}

#[test]
fn hermes_login_is_read_from_states_and_pool() {
    let entries = || agents::hermes(store!("hermes.json")).unwrap();
    let names: Vec<_> = entries().into_iter().map(|entry| (entry.id, entry.provider.unwrap_or_default())).collect();
    let name = |id: &str, provider: &str| (id.to_owned(), provider.to_owned());
    assert_eq!(names, [name("nous", "nous"), name("openai-codex", "openai"), name("anthropic/work", "anthropic")]);
    let codex = select_account(entries(), Some("openai-codex")).unwrap().credential.unwrap();
    assert!(is(&codex, "fake-rt-hermes"));
    assert_eq!(codex.response.expiry.issued_at, Timestamp::parse_rfc3339("2026-09-21T13:00:00Z"));
    let nous = select_account(entries(), Some("nous")).unwrap().credential.unwrap();
    assert_eq!((nous.client_id.as_deref(), ends(&nous)), (Some("hermes-cli"), Timestamp::from_secs(1_790_001_240)));
}

#[test]
fn litellm_login_is_read_with_its_account() {
    let found = only(agents::litellm(store!("litellm.json")));
    assert!(is(&found, "fake-rt-litellm"));
    assert_eq!(
        (found.identity.account.as_deref(), ends(&found)),
        (Some("acct-1"), Timestamp::from_secs(1_790_003_600))
    );
}

#[test]
fn cliproxy_login_is_read_from_a_file_and_a_directory() {
    let one = agents::cliproxy(store!("cliproxy-claude.json")).unwrap();
    assert_eq!(one[0].provider.as_deref(), Some("anthropic"));
    let found = only(Ok(one));
    assert!(is(&found, "fake-rt-cliproxy"));
    assert_eq!(
        (found.identity.email.as_deref(), ends(&found)),
        (Some("ada@acme.example"), Timestamp::from_secs(1_790_001_240))
    );
    let file: Value = serde_json::from_slice(store!("cliproxy-claude.json")).unwrap();
    let google = json!({"type": "gemini", "email": "bob@acme.example", "token": {
        "access_token": "a", "refresh_token": "r2", "expiry": "2026-09-21T14:34:00Z", "client_id": "g"}});
    let dir = json!({"claude-ada.json": file, "gemini-bob.json": google, "settings.json": {"x": 1}}).to_string();
    let bob = select_account(agents::cliproxy(dir.as_bytes()).unwrap(), Some("bob@acme.example")).unwrap();
    assert_eq!((bob.id.as_str(), bob.provider.as_deref()), ("gemini-bob", Some("google")));
    assert_eq!(bob.credential.unwrap().client_id.as_deref(), Some("g"));
}

#[test]
fn mcp_remote_login_is_read_with_its_client() {
    let dir = json!({
        "0a1b_tokens.json": serde_json::from_slice::<Value>(store!("mcp-remote_tokens.json")).unwrap(),
        "0a1b_client_info.json": {"client_id": "dyn-1", "redirect_uris": []},
        "ffff_lock.json": {"pid": 1},
    });
    let found = agents::mcp_remote(dir.to_string().as_bytes()).unwrap();
    assert_eq!(found[0].id, "0a1b");
    let found = only(Ok(found));
    assert!(is(&found, "fake-rt-mcp"));
    assert_eq!((found.client_id.as_deref(), found.issuer.as_deref()), (Some("dyn-1"), Some("http://127.0.0.1:44623")));
}

#[test]
fn rclone_remote_is_read_with_its_client() {
    let entries = || config_files::rclone(store!("rclone.conf")).unwrap();
    let drive = select_account(entries(), Some("mine")).unwrap();
    assert_eq!(drive.provider.as_deref(), Some("google"));
    let drive = drive.credential.unwrap();
    assert!(is(&drive, "fake-rt-rclone-1"));
    assert_eq!(drive.client_id.as_deref(), Some("own-client.apps.example"));
    assert_eq!(ends(&drive), Timestamp::from_millis(1_715_068_800_123));
    let shared = select_account(entries(), Some("shared")).unwrap().credential.unwrap();
    assert_eq!(shared.client_id.as_deref(), Some("202264815644.apps.googleusercontent.com"), "rclone's own");
    assert_eq!(entries().len(), 2, "a remote without a token is none");
    let encrypted = b"# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc=\n";
    assert_eq!(config_files::rclone(encrypted).unwrap_err().message, "it is encrypted with a password");
}

#[test]
fn gh_token_needs_no_refresh_and_that_is_said() {
    let entries = config_files::gh_hosts(store!("gh-hosts.yml")).unwrap();
    let found = select_account(entries, Some("github.com")).unwrap().credential.unwrap_err();
    assert!(found.message.starts_with("the GitHub CLI has a token that does not end"), "{}", found.message);
    let rotating = b"github.com:\n    oauth_token: a\n    refresh_token: r\n    user: ada\n";
    assert!(is(&only(config_files::gh_hosts(rotating)), "r"));
    assert_eq!(config_files::gh_hosts(b"").unwrap_err().message, "the GitHub CLI is not signed in");
}

#[test]
fn entries_of_one_name_are_told_apart() {
    let pool = |entries: Value| {
        let file = json!({"credential_pool": {"openai-codex": entries}}).to_string();
        read(Tool::Hermes, file.as_bytes()).unwrap()
    };
    let entry = |id: &str, label: &str, token: &str| json!({"id": id, "label": label, "access_token": "a", "refresh_token": token});
    let two = || pool(json!([entry("aa", "ada@x", "r1"), entry("bb", "ada@x", "r2")]));
    for wanted in [None, Some("openai-codex/ada@x")] {
        let several = select_account(two(), wanted).unwrap_err();
        assert_eq!(several.message, "it has several accounts");
        assert!(several.hint.ends_with("openai-codex/ada@x#aa, openai-codex/ada@x#bb"), "{several:?}");
    }
    for (wanted, token) in [("aa", "r1"), ("bb", "r2"), ("openai-codex/ada@x#bb", "r2")] {
        assert!(is(&select_account(two(), Some(wanted)).unwrap().credential.unwrap(), token), "{wanted}");
    }
    // Rows of both databases of OpenClaw.
    let row = |email: &str, token: &str| {
        let profile = json!({"type": "oauth", "provider": "xai", "access": "a", "refresh": token, "email": email});
        json!({"version": 1, "profiles": {"xai:default": profile}}).to_string()
    };
    let rows = |a: String, b: String| read(Tool::OpenClaw, format!("{a}\n{b}\n").as_bytes()).unwrap();
    let two = || rows(row("ada@x", "r1"), row("bob@x", "r2"));
    assert_eq!(select_account(two(), Some("xai:default")).unwrap_err().message, "it has several accounts");
    let bob = select_account(two(), Some("bob@x")).unwrap();
    assert_eq!(bob.id, "xai:default#bob@x");
    assert!(is(&bob.credential.unwrap(), "r2"));
    assert_eq!(select_account(two(), Some("xai:default#bob@x")).unwrap().id, "xai:default#bob@x");
    let alike = rows(row("ada@x", "r1"), row("ada@x", "r2"));
    assert_eq!(alike.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["xai:default#1", "xai:default#2"]);
    // A copy is the same sign-in.
    assert_eq!(rows(row("ada@x", "r1"), row("ada@x", "r1"))[0].id, "xai:default");
}

#[test]
fn older_openclaw_file_is_read() {
    let profiles = json!({"version": 1, "profiles": {"xai:default": {"type": "oauth", "provider": "xai",
        "access": "a", "refresh": "r1", "expires": 1}}});
    for text in [profiles.to_string(), serde_json::to_string_pretty(&profiles).unwrap()] {
        assert!(is(&only(openclaw::read(text.as_bytes())), "r1"), "{text}");
    }
    assert!(!openclaw::read(b"{\n  \"version\": 1,\n").unwrap_err().is_signed_out);
}

#[test]
fn sign_in_that_hermes_gave_up_is_not_imported() {
    let file = json!({"credential_pool": {"nous": [{"id": "a", "label": "work", "access_token": "a",
        "refresh_token": "r", "last_status": "dead"}]}});
    let found = select_account(agents::hermes(file.to_string().as_bytes()).unwrap(), None).unwrap();
    assert!(found.credential.unwrap_err().message.contains("marked it as dead"));
}

#[test]
fn packed_token_of_an_opencode_plugin_is_unpacked() {
    let file = json!({"google": {"type": "oauth", "refresh": "1//rt|project|managed", "access": "a", "expires": 1}});
    assert!(is(&only(agents::by_provider(file.to_string().as_bytes())), "1//rt"));
    let other = json!({"acme": {"type": "oauth", "refresh": "a|b", "access": "a", "expires": 1}});
    assert!(is(&only(agents::by_provider(other.to_string().as_bytes())), "a|b"));
}

#[test]
fn older_file_of_pi_is_read_without_a_type() {
    let found = only(agents::by_provider(br#"{"anthropic":{"refresh":"r1","access":"a","expires":1}}"#));
    assert!(is(&found, "r1"));
}

#[test]
fn store_without_a_refresh_token_is_fed_whatever_the_tool() {
    let fed = |entries: Result<Vec<ToolAccount>, ToolStoreError>| {
        select_account(entries.unwrap(), None).unwrap().credential.unwrap_err() == ToolStoreError::fed()
    };
    let tokens = json!({"access_token": "a", "refresh_token": "", "expires_at": 1});
    assert!(fed(stores::gemini(tokens.to_string().as_bytes())) && fed(agents::litellm(tokens.to_string().as_bytes())));
    assert!(fed(agents::mcp_remote(tokens.to_string().as_bytes())));
    assert!(fed(agents::hermes(json!({"providers": {"nous": tokens}}).to_string().as_bytes())));
    assert!(fed(agents::cliproxy(br#"{"type":"codex","access_token":"a","refresh_token":""}"#)));
    assert!(fed(openclaw::read(br#"{"profiles":{"x":{"type":"oauth","provider":"xai","access":"a","refresh":""}}}"#)));
    assert!(fed(config_files::rclone(b"[a]\ntype = drive\ntoken = {\"access_token\":\"a\"}\n")));
}

/// Rule 39. What was lost: the family of a tool that had begun to write its sign-in in another form.
#[test]
fn sign_in_of_an_unknown_form_is_not_called_signed_out() {
    let is_signed_out = |tool, file: &Value| match read(tool, file.to_string().as_bytes()) {
        Err(trouble) => trouble.is_signed_out,
        Ok(entries) => entries.iter().all(|entry| entry.credential.as_ref().is_err_and(|e| e.is_signed_out)),
    };
    let later = json!({"v2": {"refresh_token": "r1"}});
    let typed = json!({"type": "oauth2", "refresh": "r1"});
    for (tool, file) in [
        (Tool::Codex, json!({"auth_mode": "chatgpt", "tokens": "enc:AAAA"})),
        (Tool::Codex, json!({"tokens": [{"refresh_token": "r1"}]})),
        (Tool::Codex, json!({"tokens": 7})),
        (Tool::Codex, json!({"tokens": later})),
        (Tool::Codex, json!({"auth_mode": "chatgpt", "sessions": [{"tokens": {"refreshToken": "r1"}}]})),
        (Tool::Claude, json!({"claudeAiOauth": "enc:AAAA"})),
        (Tool::Claude, json!({"claudeAiOauth": [later]})),
        (Tool::Opencode, json!({"openai": "enc"})),
        (Tool::Opencode, json!({"openai": [typed]})),
        (Tool::Opencode, json!({"openai": typed})),
        (Tool::Pi, json!({"openai-codex": [typed]})),
        (Tool::Grok, json!({"https://auth.x.ai::cid": "enc"})),
        (Tool::Hermes, json!({"providers": {"openai-codex": "enc"}})),
        (Tool::Hermes, json!({"providers": [later]})),
        (Tool::Hermes, json!({"providers": {"openai-codex": {"tokens": "enc"}}})),
        (Tool::Hermes, json!({"providers": {}, "credential_pool": {"openai-codex": later}})),
        (Tool::Hermes, json!({"credential_pool": {"openai-codex": ["enc"]}})),
        (Tool::LiteLlm, json!({"access_token": "a", "tokens": later})),
        (Tool::Gemini, json!({"token": {"refresh_token": "r1"}})),
        (Tool::CliProxy, json!({"a.json": later})),
        (Tool::McpRemote, json!({"a_tokens.json": [later]})),
        (Tool::McpRemote, json!({"a_tokens.json": "enc"})),
        (Tool::McpRemote, json!({"refresh_token": "r1"})),
        (Tool::OpenClaw, json!({"profiles": {"x": "enc"}})),
        (Tool::OpenClaw, json!({"profiles": {"x": typed}})),
        // Its tokens are in an encrypted file of its own.
        (Tool::OpenClaw, json!({"profiles": {"x": {"type": "oauth", "access": "", "oauthRef": {"id": "0"}}}})),
    ] {
        assert!(!is_signed_out(tool, &file), "{tool:?}: {file}");
    }
    for (tool, file) in [
        (Tool::Codex, json!({"auth_mode": "agentIdentity", "last_refresh": "2026-11-25T02:43:54Z"})),
        (Tool::Claude, json!({"claudeAiOauth": null, "mcpOAuth": {"x": {"refreshToken": "q"}}})),
        (Tool::Opencode, json!({"openai": {"type": "api", "key": "k"}, "version": 2})),
        (Tool::Hermes, json!({"providers": {"x": {"tokens": {}}}, "credential_pool": {"x": []}})),
        (Tool::CliProxy, json!({"models.json": {"list": ["a"]}})),
        (Tool::OpenClaw, json!({"profiles": {"x": {"type": "oauth", "access": "", "refresh": "", "oauthRef": null}}})),
    ] {
        assert!(is_signed_out(tool, &file), "{tool:?}: {file}");
    }
}
