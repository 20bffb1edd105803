//! What a configuration means, and what is said about a bad one, to the letter.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("config.toml"), Some(Path::new("/home/u")))
}

/// The message and the hint.
fn refused(text: &str) -> (String, String) {
    let error = parse(text).expect_err("must be refused");
    (error.to_string(), error.hint.unwrap_or_default())
}

const ACME: &str = "[provider.acme]\nissuer = \"https://login.acme.example\"\nclient_id = \"c\"\n";

fn name(text: &str) -> ProfileName {
    text.parse().unwrap()
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.store.kind, StoreKind::Keyring { service: "keepalive".into() });
    assert_eq!(config.profile(&name("xai"), None).unwrap().provider.name, "xai");
    assert_eq!(config.profile(&name("work"), Some("google")).unwrap().provider.name, "google");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_contracts_example_is_understood() {
    let config = parse(
        r#"
margin   = "20%"
schedule = "*/10 * * * *"
[store]
kind = "file"
path = "~/vault"
key  = { file = "~/key" }
[provider.acme]
issuer = "https://login.acme.example"
client_id = "c"
client_auth = "client_secret_basic"
client_secret = { env = "ACME" }
scopes = ["openid", "offline_access"]
rotation = "grace"
reuse_grace = "2m"
grace_semantics = "same"
headers = { "User-Agent" = "x" }
body = "json"
timeout = "10s"
[profile.xai]
provider = "xai"
margin   = "2h"
schedule = "0 */4 * * *"
timezone = "UTC"
[profile."work:a"]
provider = "acme"
"#,
    )
    .unwrap();
    assert_eq!(config.store.path.as_deref(), Some(Path::new("/home/u/vault")));
    assert_eq!(config.store.kind, StoreKind::File { key: KeySource::File("/home/u/key".into()) });
    let xai = &config.profiles[&name("xai")];
    assert_eq!(xai.margin, Margin::Fixed(Duration::from_secs(7200)));
    assert_eq!(xai.schedule, Some(Schedule::parse("0 */4 * * *", true).unwrap()));
    let work = &config.profiles[&name("work:a")];
    assert_eq!(work.margin, Margin::Share(200));
    assert_eq!(work.schedule.as_ref().unwrap().as_str(), "*/10 * * * *");
    assert_eq!(work.provider.policy.reuse_grace, Duration::from_secs(120));
    assert_eq!(work.provider.client_secret, Some(SecretSource::Env("ACME".into())));
}

#[test]
fn a_built_in_provider_is_overridden_key_by_key() {
    let config = parse("[provider.xai]\nclient_id = \"mine\"").unwrap();
    let xai = &config.providers["xai"];
    assert_eq!((xai.client_id.as_str(), xai.issuer.as_ref().unwrap().as_str()), ("mine", "https://auth.x.ai/"));
}

#[test]
fn every_built_in_provider_is_valid_and_names_its_source() {
    let shapes: file::File = toml::from_str(BUILT_IN).unwrap();
    let config = parse("").unwrap();
    assert_eq!(config.providers.len(), shapes.provider.len());
    assert!(config.providers.len() >= 6);
    for provider in config.providers.values() {
        assert!(!provider.source.is_empty(), "{}", provider.name);
    }
}

#[test]
fn errors_name_place_key_and_remedy() {
    for (text, message, hint) in [
        ("margn = \"2h\"", "config.toml:1: margn: unknown key `margn`", "did you mean `margin`?"),
        (
            "[provider.acme]\nclient_ids = \"x\"",
            "config.toml:2: provider.acme.client_ids: unknown key `client_ids`",
            "did you mean `client_id`?",
        ),
        ("[profil.x]\nprovider = \"xai\"", "config.toml:1: profil.x: unknown key `profil`", "did you mean `profile`?"),
        ("[store]\nkind = \"files\"", "config.toml:2: store.kind: unknown value `files`", "did you mean `file`?"),
        (
            "\nmargin = \"100%\"",
            "config.toml:2: margin: \"100%\" is no margin: write a duration (\"2h\") or a share (\"20%\", above 0% and below 100%)",
            "",
        ),
        (
            "margin = \"0s\"",
            "config.toml:1: margin: \"0s\" is no margin: write a duration (\"2h\") or a share (\"20%\", above 0% and below 100%)",
            "",
        ),
        (
            "[provider.a]\nissuer = \"http://a.example\"",
            "config.toml:2: provider.a.issuer: \"http://a.example\" must be https (http is for this machine only)",
            "",
        ),
        (
            "[provider.a]\ntoken_endpoint = \"https://u:p@a.example\"",
            "config.toml:2: provider.a.token_endpoint: \"https://u:p@a.example\" cannot carry a user name, a password or a fragment",
            "",
        ),
        (
            "[provider.a]\ntimeout = \"soon\"",
            "config.toml:2: provider.a.timeout: \"soon\" is no duration: write \"90s\", \"15m\", \"2h\" or \"1d 12h\"",
            "",
        ),
        (
            "# x\n[provider.a]\nissuer = \"https://a.example\"",
            "config.toml:2: provider.a: `client_id` is missing",
            "set it to the id of the client registered at the provider",
        ),
        (
            "[provider.a]\nclient_id = \"c\"",
            "config.toml:1: provider.a: neither `issuer` nor `token_endpoint` is set",
            "set issuer = \"https://…\"",
        ),
        (
            "[profile.p]\nprovider = \"xia\"",
            "config.toml:1: profile.p: there is no provider `xia`",
            "did you mean `xai`?",
        ),
        (
            "[profile.\"a b\"]\nprovider = \"xai\"",
            "config.toml:1: profile.a b: a profile name is made of letters, digits and `._:@+-`, not ' '",
            "",
        ),
        (
            "[store]\nkind = \"file\"",
            "config.toml:1: store: kind = \"file\" needs a `key`",
            "(umask 077; head -c 32 /dev/urandom > ~/.config/keepalive/key), then key = { file = \"~/.config/keepalive/key\" }",
        ),
        (
            "[profile.xai]\nschedule = \"0 0 30 2 *\"",
            "config.toml:1: profile.xai: schedule = \"0 0 30 2 *\": this schedule never comes",
            "for example \"*/10 * * * *\": minute, hour, day, month, day of week",
        ),
        (
            "[profile.xai]\nfollow = true",
            "config.toml:1: profile.xai: follow = true is not supported yet",
            "remove `follow`",
        ),
    ] {
        assert_eq!(refused(text), (message.to_owned(), hint.to_owned()), "{text}");
    }
}

#[test]
fn wrong_combinations_are_refused() {
    for (text, message) in [
        ("client_auth = \"client_secret_post\"", "this `client_auth` needs a `client_secret`"),
        ("client_secret = { env = \"X\" }", "a `client_secret` without `client_auth`"),
        ("rotation = \"grace\"", "rotation = \"grace\" needs `reuse_grace`"),
        ("timeout = \"0s\"", "a timeout cannot be zero"),
        ("concurrency = 0", "`default_lifetime` and `concurrency` cannot be zero"),
        ("headers = { \"X Y\" = \"z\" }", "\"X Y\" is no valid HTTP header"),
        ("headers = { \"X\" = \"a\\nb\" }", "\"X\" is no valid HTTP header"),
    ] {
        let error = parse(&format!("{ACME}{text}")).unwrap_err();
        assert_eq!((error.message.as_str(), error.line), (message, Some(1)), "{text}");
    }
}

#[test]
fn broken_toml_is_placed() {
    let error = parse("[store]\nkind = ").unwrap_err();
    assert_eq!(error.line, Some(2));
}

#[test]
fn a_grace_too_short_for_its_timeouts_is_a_warning() {
    let config = parse(&format!("{ACME}rotation = \"grace\"\nreuse_grace = \"30s\"")).unwrap();
    assert_eq!(
        config.warnings,
        ["provider acme: two timeouts of 30 s do not fit into reuse_grace = 30 s: it is treated as strict"]
    );
}

#[test]
fn a_profile_without_provider_says_what_to_write() {
    let error = parse("").unwrap().profile(&name("work"), None).unwrap_err();
    assert_eq!(error.to_string(), "config.toml: profile work has no provider");
    assert_eq!(error.hint.unwrap(), "name one with --provider, or write [profile.work] provider = \"…\"");
}

#[test]
fn ten_thousand_profiles_load() {
    let text: String = (0..10_000).map(|i| format!("[profile.p{i}]\nprovider = \"xai\"\nmargin = \"2h\"\n")).collect();
    assert_eq!(parse(&text).unwrap().profiles.len(), 10_000);
}

#[cfg(unix)]
#[test]
fn r38_a_file_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    assert!(Config::load(&path, false, None).is_ok());
    assert!(Config::load(&path, true, None).is_err());
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
    let error = Config::load(&path, true, None).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.hint.unwrap()),
        ("can be written by other users", format!("chmod go-w {}", path.display()))
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Config::load(&path, true, None).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(text in "(\\[(store|provider\\.a|profile\\.p)\\]\n|(kind|key|margin|issuer|client_id|timeout|schedule) = (\"[ -~]{0,12}\"|[0-9]{1,4}|true)\n|[ -~\n]{0,6}){0,12}") {
        let _checked = parse(&text);
    }
}
