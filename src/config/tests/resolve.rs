//! Defaults, precedence, and how built-in providers are overridden.

use std::time::Duration;

use super::*;
use crate::profile::{
    Audience, BodyEncoding, ClientAuth, GraceSemantics, KeySource, Policy, Rotation, SecretSource, StoreKind,
    StoreSettings,
};
use crate::schedule::Schedule;

const ACME: &str = "[provider.acme]\nissuer = \"https://login.acme.example\"\nclient_id = \"me\"\n";
const GRACE: &str = "rotation = \"grace\"\nreuse_grace = \"2m\"\n";

fn fixed(seconds: u64) -> Margin {
    Margin::Fixed(Duration::from_secs(seconds))
}

/// The configuration of a user who has written none.
fn nowhere() -> Config {
    Config::load(Path::new("/nowhere/config.toml"), false, None).unwrap()
}

#[test]
fn profile_named_like_its_provider_needs_no_configuration() {
    let config = nowhere();
    assert_eq!(config.path, None);
    let xai = profile(&config, "xai");
    assert_eq!(xai.provider.issuer.as_ref().unwrap().as_str(), "https://auth.x.ai/");
    assert_eq!((xai.margin, xai.schedule), (fixed(7200), None));
    assert_eq!(config.store.kind, StoreKind::Keyring { service: "keepalive".into() });
}

#[test]
fn every_built_in_provider_has_a_description_and_a_source() {
    let config = parsed("");
    assert!(config.providers.len() >= 19 && config.warnings.is_empty());
    for provider in config.providers.values() {
        let name = &provider.name;
        assert!(provider.known.len() > 30 && provider.source.len() > 30, "{name}");
        let is_day = |day: &String| day.len() == 10 && day.starts_with("20");
        assert!(provider.verified.as_ref().is_none_or(is_day), "{name}: {:?}", provider.verified);
        let is_sure = !provider.source.contains("unconfirmed");
        assert!(provider.verified.is_some() || !is_sure, "{name} has not been verified, and must say of what");
        let has_server = provider.issuer.is_some() || provider.token_endpoint.is_some();
        assert_ne!(has_server, !provider.issuer_example.is_empty(), "{name}: an issuer, or what one looks like");
        assert_eq!(provider.concurrency, 8, "{name} cites no reason for fewer");
    }
}

#[test]
fn every_built_in_grace_fits_two_attempts_and_is_verified() {
    for provider in parsed("").providers.values() {
        let (name, policy) = (&provider.name, &provider.policy);
        let is_grace = policy.rotation == Rotation::Grace;
        assert_eq!(is_grace, !policy.reuse_grace.is_zero(), "{name}");
        assert!(!is_grace || policy.grace_fits(), "{name} needs {:?}", policy.required_grace());
        // None of them is longer than the longest that a vendor documents.
        assert!(policy.reuse_grace <= Duration::from_secs(600), "{name}");
        assert!(!is_grace || provider.verified.is_some(), "{name}: no grace on hearsay");
    }
}

#[test]
fn margin_is_short_if_refresh_ends_the_old_access_token() {
    for provider in parsed("").providers.values() {
        let kills = provider.known.contains("old access token die");
        let Some(Margin::Fixed(margin)) = provider.margin.filter(|_| kills) else {
            assert!(!kills, "{} has no margin of its own", provider.name);
            continue;
        };
        let modest = Duration::from_secs(300)..=Duration::from_secs(900);
        assert!(modest.contains(&margin) && margin < provider.default_lifetime / 5, "{}", provider.name);
    }
}

#[test]
fn every_built_in_provider_loads_once_it_is_complete() {
    let built_in = parsed("");
    for (name, provider) in &built_in.providers {
        let mut section = format!("[provider.{name}]\ntimeout = \"5s\"\n");
        if !provider.issuer_example.is_empty() {
            section += "issuer = \"https://issuer.example\"\n";
        }
        if provider.client_id.is_empty() {
            section += "client_id = \"me\"\n";
        }
        if provider.client_auth != ClientAuth::None {
            section += "client_secret = { env = \"S\" }\n";
        }
        let config = parsed(&section);
        assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
        let mine = profile(&config, name).provider;
        assert_eq!((&mine.known, mine.policy.rotation), (&provider.known, provider.policy.rotation));
    }
}

#[test]
fn another_issuer_replaces_every_built_in_endpoint() {
    let text = "issuer = \"https://login.microsoftonline.com/tenant/v2.0\"\nclient_id = \"me\"\n";
    let microsoft = profile(&parsed(&format!("[provider.microsoft]\n{text}")), "microsoft").provider;
    assert_eq!(microsoft.issuer.as_ref().unwrap().path(), "/tenant/v2.0");
    let endpoints = [&microsoft.token_endpoint, &microsoft.authorization_endpoint, &microsoft.revocation_endpoint];
    assert_eq!(endpoints, [&None, &None, &None]);
    let xai = profile(&parsed("[provider.xai]\nissuer = \"https://x.example\"\n"), "xai").provider;
    assert_eq!((&xai.device_authorization_endpoint, &xai.endpoint_domain), (&None, &None));
    assert_eq!(profile(&nowhere(), "xai").provider.endpoint_domain.as_deref(), Some("x.ai"));
}

#[test]
fn a_built_in_provider_is_overridden_key_by_key() {
    let config = parsed(
        "[provider.github]\nclient_id = \"Iv1.me\"\nheaders = { accept = \"text/plain\", X-Team = \"a\" }\n[provider.xai]\ntimeout = \"5s\"\n",
    );
    let github = &config.providers["github"];
    assert_eq!(github.client_id, "Iv1.me");
    assert_eq!(github.token_endpoint.as_ref().unwrap().path(), "/login/oauth/access_token");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(github.headers, [header("accept", "text/plain"), header("X-Team", "a")]);
    assert!(github.source.ends_with("; changed here: client_id, headers"), "{}", github.source);
    assert!(github.verified.is_some());
    let xai = &config.providers["xai"];
    assert_eq!(xai.policy.timeout, Duration::from_secs(5));
    assert_eq!(xai.client_id, "b1a00492-073a-47ea-816f-4c329264a828");
}

#[test]
fn every_key_of_a_provider_is_read() {
    let config = parsed(
        r#"[provider.acme]
        authorization_endpoint = "https://login.acme.example/authorize?audience=api"
        token_endpoint = "http://[::1]:8080/token"
        device_authorization_endpoint = "http://127.9.9.9/device"
        revocation_endpoint = "http://localhost/revoke"
        redirect_uri = "http://localhost:1455/auth/callback"
        client_id = "me"
        client_auth = "private_key_jwt"
        client_key = { file = "~/acme.pem" }
        client_key_id = "k1"
        assertion_audience = "https://login.acme.example/realm"
        scopes = ["a", "b"]
        rotation = "grace"
        reuse_grace = "2m"
        grace_semantics = "multi"
        last_chance = false
        trust_503 = true
        concurrency = 3
        settle = "1s"
        timeout = "2s"
        connect_timeout = "500ms"
        headers = { Zeta = "1", "Alpha" = "2" }
        parameters = { resource = "https://api", audience = "b" }
        body = "json"
        dead_codes = ["gone"]
        client_codes = ["who"]
        endpoint_domain = "Acme.example"
        ca_file = "roots.pem"
        margin = "12.5%"
        default_lifetime = "2h""#,
    );
    let acme = &config.providers["acme"];
    assert_eq!(acme.authorization_endpoint.as_ref().unwrap().query(), Some("audience=api"));
    assert_eq!(acme.redirect_uri.as_ref().unwrap().port(), Some(1455));
    assert_eq!(acme.client_auth, ClientAuth::PrivateKeyJwt);
    assert_eq!(acme.client_key, Some(SecretSource::File("/home/me/acme.pem".into())));
    assert_eq!(acme.client_key_id.as_deref(), Some("k1"));
    assert_eq!(acme.assertion_audience, Audience::Other("https://login.acme.example/realm".into()));
    assert_eq!(acme.parameters[0], ("resource".into(), "https://api".into()));
    assert_eq!((&acme.dead_codes[..], &acme.client_codes[..]), (&["gone".to_owned()][..], &["who".to_owned()][..]));
    assert_eq!(acme.endpoint_domain.as_deref(), Some("acme.example"));
    assert_eq!(acme.ca_file, Some("/etc/ka/roots.pem".into()));
    assert_eq!(acme.headers[0].0, "Zeta", "headers keep their order");
    assert_eq!((acme.concurrency, acme.body, acme.margin), (3, BodyEncoding::Json, Some(Margin::Share(125))));
    assert_eq!(acme.default_lifetime, Duration::from_secs(7200));
    let expected = Policy {
        rotation: Rotation::Grace,
        reuse_grace: Duration::from_secs(120),
        grace_semantics: GraceSemantics::Multi,
        last_chance: false,
        trust_503: true,
        settle: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_millis(500),
    };
    assert_eq!(acme.policy, expected);
    assert!(config.warnings.is_empty());
}

#[test]
fn every_example_in_a_hint_is_valid() {
    let examples = keys::PROVIDER.iter().filter(|key| !["client_secret", "client_key"].contains(&key.name));
    let lines: String = examples.map(|key| format!("{} = {}\n", key.name, key.example)).collect();
    assert_eq!(parsed(&format!("[provider.acme]\n{lines}")).providers["acme"].concurrency, 8);
    let examples = keys::PROFILE.iter().chain(keys::CONSUMERS).map(|key| format!("{} = {}\n", key.name, key.example));
    parsed(&format!("[profile.p]\n{}", examples.collect::<String>()));
    for section in
        ["client_auth = \"client_secret_basic\"\nclient_secret", "client_auth = \"private_key_jwt\"\nclient_key"]
    {
        for key in keys::SECRET {
            parsed(&format!("{ACME}{section} = {{ {} = {} }}", key.name, key.example));
        }
    }
    for key in keys::STORE_KEY {
        parsed(&format!("[store]\nkind = \"file\"\nkey = {{ {} = {} }}", key.name, key.example));
    }
}

#[test]
fn hosts_of_a_profile_replace_those_of_its_provider() {
    let config = parsed(
        "[provider.github]\nclient_id = \"me\"\n[provider.gitlab]\nclient_id = \"me\"\nissuer = \"https://gitlab.acme.example\"\n\
         [profile.a]\nprovider = \"github\"\n[profile.b]\nprovider = \"github\"\nhosts = []\ngit_username = \"me\"\n\
         [profile.c]\nprovider = \"gitlab\"\n[profile.d]\nprovider = \"gitlab\"\nhosts = [\"gitlab.acme.example\"]",
    );
    let hosts = |name: &str| {
        let consumers = profile(&config, name).consumers;
        (
            consumers.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            consumers.git_username().to_owned(),
        )
    };
    assert_eq!(hosts("a"), ("github.com gist.github.com".to_owned(), "x-access-token".to_owned()));
    assert_eq!(hosts("github"), hosts("a"), "without a section too");
    assert_eq!(hosts("b"), (String::new(), "me".to_owned()));
    assert_eq!(hosts("c"), (String::new(), "oauth2".to_owned()), "tokens of another server are not for gitlab.com");
    assert_eq!(hosts("d").0, "gitlab.acme.example");
    assert_eq!(profile(&config, "xai").consumers.env.as_deref(), Some("XAI_API_KEY"));
}

#[test]
fn the_margin_nearest_to_the_profile_wins() {
    let config = parsed(
        "margin = \"30m\"\n[provider.github]\nclient_id = \"me\"\n[profile.a]\nprovider = \"xai\"\nmargin = \"2h\"\n[profile.b]\nprovider = \"xai\"\n[profile.c]\nprovider = \"github\"",
    );
    assert_eq!(profile(&config, "a").margin, fixed(7200));
    assert_eq!(profile(&config, "b").margin, fixed(7200), "the provider's");
    assert_eq!(profile(&config, "c").margin, fixed(600), "the provider's");
    assert_eq!(profile(&config, "github").margin, fixed(600), "without a section too");
    assert_eq!(profile(&config, "openai").margin, fixed(1800));
}

#[test]
fn a_profile_inherits_the_schedule_and_may_change_its_zone() {
    let config = parsed(
        "schedule = \"@daily\"\n[profile.a]\nprovider = \"xai\"\ntimezone = \"UTC\"\n[profile.b]\nprovider = \"xai\"\nschedule = \"@hourly\"",
    );
    let schedule = |text, utc| Some(Schedule::parse(text, utc).unwrap());
    assert_eq!(profile(&config, "a").schedule, schedule("@daily", true));
    assert_eq!(profile(&config, "b").schedule, schedule("@hourly", false));
    assert_eq!(profile(&config, "openai").schedule, schedule("@daily", false));
    let utc = parsed("timezone = \"UTC\"\nschedule = \"@daily\"\n[profile.xai]\ntimezone = \"local\"");
    assert_eq!(profile(&utc, "openai").schedule, schedule("@daily", true));
    assert_eq!(profile(&utc, "xai").schedule, schedule("@daily", false));
}

#[test]
fn provider_comes_from_section_then_caller_then_name() {
    let config =
        parsed("[profile.work]\nmargin = \"1h\"\n[profile.xai]\nprovider = \"openai\"\n[profile.\"a:b@c+d.e\"]\n");
    let provider = |name: &str, given: Option<&str>| {
        config.profile(&name.parse().unwrap(), given).map(|p| p.provider.name.clone()).map_err(|e| e.to_string())
    };
    assert_eq!(provider("work", Some("xai")), Ok("xai".into()));
    assert_eq!(provider("xai", Some("anthropic")), Ok("openai".into()));
    assert_eq!(provider("openai", None), Ok("openai".into()));
    assert_eq!(provider("anything", Some("anthropic")), Ok("anthropic".into()));
    assert_eq!(config.profile(&"work".parse().unwrap(), Some("xai")).unwrap().margin, fixed(3600));
    let names: Vec<String> = config.profile_names().map(ToString::to_string).collect();
    assert_eq!(names, ["a:b@c+d.e", "work", "xai"]);
}

#[test]
fn profile_without_a_provider_is_refused_with_a_hint() {
    let config = parsed("[profile.work]\nmargin = \"1h\"\n");
    let refused = |name: &str, given: Option<&str>| {
        let error = config.profile(&name.parse().unwrap(), given).unwrap_err();
        (error.to_string(), error.hint().unwrap().to_owned())
    };
    assert_eq!(
        refused("work", None),
        (
            "/etc/ka/config.toml:1: profile work: its section names no provider, and it has no credential".into(),
            "to create it: keepalive login work --provider NAME, or set provider in [profile.work]; `keepalive providers` lists the names".into()
        )
    );
    assert_eq!(
        refused("work", Some("gogle")),
        (
            "/etc/ka/config.toml: profile work: provider \"gogle\" is not known".into(),
            "did you mean \"google\"?".into()
        )
    );
    assert_eq!(
        refused("google", None),
        (
            "/etc/ka/config.toml: profile google: provider \"google\" cannot be used yet: client_id is missing".into(),
            "in [provider.google], register a client with the provider (https://console.cloud.google.com/apis/credentials) and write client_id = \"...\" and client_secret = { file = \"PATH\" }".into()
        )
    );
    let error = nowhere().profile(&"work".parse().unwrap(), None).unwrap_err();
    assert_eq!(error.to_string(), "profile work: it is not configured and is not a known provider");
}

#[test]
fn store_settings_are_read_for_files_and_for_a_keyring() {
    let config = parsed(
        "[store]\nkind = \"file\"\npath = \"~/sealed\"\nkey = { credential = \"ka.key\" }\nallow_network_filesystem = true",
    );
    let expected = StoreSettings {
        kind: StoreKind::File { key: KeySource::Credential("ka.key".into()) },
        path: Some("/home/me/sealed".into()),
        allow_network_filesystem: true,
    };
    assert_eq!(config.store, expected);
    let named = parsed("[store]\nservice = \"elsewhere\"");
    assert_eq!(named.store.kind, StoreKind::Keyring { service: "elsewhere".into() });
}

#[test]
fn a_grace_too_short_for_two_attempts_is_strict() {
    let fits = parsed(&format!("{ACME}{GRACE}"));
    assert_eq!(fits.providers["acme"].policy.rotation, Rotation::Grace);
    let short = parsed(&format!("{ACME}rotation = \"grace\"\nreuse_grace = \"30s\"\n"));
    assert_eq!(short.providers["acme"].policy.rotation, Rotation::Strict);
    assert_eq!(
        warnings(&short),
        [
            "/etc/ka/config.toml:5: [provider.acme] reuse_grace of 30s is too short for two attempts, which take 1m 17s: treated as strict"
        ]
    );
    assert_eq!(short.warnings[0].hint.as_deref(), Some("write timeout = \"6s\", or rotation = \"strict\""));
    let quick = "rotation = \"grace\"\nreuse_grace = \"30s\"\ngrace_semantics = \"same\"\ntimeout = \"14s\"\n";
    assert!(warnings(&parsed(&format!("{ACME}{quick}"))).is_empty());
}

#[test]
fn hint_for_a_short_grace_gives_values_that_fit() {
    for (grace, keys) in [
        ("76s", "timeout = \"29s\""),
        ("23s", "timeout = \"3s\""),
        ("22s", "timeout = \"7s\" and settle = \"5s\""),
        ("5s", "timeout = \"1s\" and settle = \"1s\""),
    ] {
        let text = format!("{ACME}rotation = \"grace\"\nreuse_grace = \"{grace}\"\n");
        let hint = parsed(&text).warnings[0].hint.clone().unwrap();
        assert_eq!(hint, format!("write {keys}, or rotation = \"strict\""), "{grace}");
        let mended = parsed(&format!("{text}{}\n", keys.replace(" and ", "\n")));
        assert!(mended.warnings.is_empty() && mended.providers["acme"].policy.rotation == Rotation::Grace, "{grace}");
    }
    let hopeless = parsed(&format!("{ACME}rotation = \"grace\"\nreuse_grace = \"4s\"\n"));
    assert_eq!(hopeless.warnings[0].hint.as_deref(), Some("write rotation = \"strict\""));
}

#[test]
fn settings_without_effect_are_warned_about() {
    let config = parsed(&format!("margin = \"80%\"\n{ACME}reuse_grace = \"30s\"\ngrace_semantics = \"same\"\n"));
    assert_eq!(
        warnings(&config),
        [
            "/etc/ka/config.toml:1: margin is capped at 50% of the lifetime",
            "/etc/ka/config.toml:5: [provider.acme] reuse_grace has no effect without rotation = \"grace\"",
            "/etc/ka/config.toml:6: [provider.acme] grace_semantics has no effect without rotation = \"grace\"",
        ]
    );
    let config = parsed(&format!("{ACME}client_key_id = \"k\"\nassertion_audience = \"token_endpoint\"\n"));
    assert_eq!(
        warnings(&config),
        [
            "/etc/ka/config.toml:4: [provider.acme] client_key_id has no effect without client_auth = \"private_key_jwt\"",
            "/etc/ka/config.toml:5: [provider.acme] assertion_audience has no effect without client_auth = \"private_key_jwt\"",
        ]
    );
}

#[test]
fn config_error_names_line_column_and_key() {
    let text = "# ü\n[profile.\"xai:default\"]\nprovider = \"xai\"\nmargin  = \"0%\"\n";
    let error = Config::parse(text, Path::new("c.toml"), None).unwrap_err();
    let [finding] = error.mistakes() else { panic!("{error:?}") };
    assert_eq!(finding.position, Some(Position { line: 4, column: 11 }));
    assert_eq!(finding.key, "profile.\"xai:default\".margin");
    assert!(finding.message.starts_with("[profile.\"xai:default\"] margin must be"), "{}", finding.message);
}

#[test]
fn config_errors_never_repeat_a_secret() {
    for line in [
        "client_secret = \"hunter2\"",
        "client_secret = hunter2",
        "client_secret = { file = 5 } # hunter2",
        "client_key = \"hunter2\"",
        "headers = { Authorization = \"hunter2\\n\" }",
        "token_endpoint = \"https://me:hunter2@acme.example\"",
        "token_endpoint = \"http://acme.example/?key=hunter2\"",
    ] {
        let error = Config::parse(&format!("{ACME}{line}\n"), Path::new("c.toml"), None).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
