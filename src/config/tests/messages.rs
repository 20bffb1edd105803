//! What each mistake in a configuration is told: the whole message and the whole hint.

use super::*;

/// Each case: the text, the message, the hint.
fn check(cases: &[(&str, &str, &str)]) {
    for (text, message, hint) in cases {
        let error = Config::parse(text, Path::new("config.toml"), None).expect_err(text);
        assert_eq!(error.to_string(), *message, "{text}");
        assert_eq!(error.hint(), Some(*hint), "{text}");
    }
}

/// A provider that is right, and one line more.
macro_rules! acme {
    ($line:literal) => {
        concat!("[provider.acme]\nissuer = \"https://login.acme.example\"\nclient_id = \"me\"\n", $line)
    };
}

#[test]
fn unknown_keys_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"client_ids = "x""#),
            r#"config.toml:4: [provider.acme] unknown key "client_ids""#,
            r#"did you mean "client_id"?"#,
        ),
        (r#"margn = "20%""#, r#"config.toml:1: unknown key "margn""#, r#"did you mean "margin"?"#),
        (r#"issuer = "x""#, r#"config.toml:1: unknown key "issuer""#, r#""issuer" belongs in [provider.NAME]"#),
        (
            "[store]
zzz = 1",
            r#"config.toml:2: [store] unknown key "zzz""#,
            "the keys allowed here are kind, path, key, service and allow_network_filesystem",
        ),
        (
            r#"[profile.xai]
client_id = "x""#,
            r#"config.toml:2: [profile.xai] unknown key "client_id""#,
            r#""client_id" belongs in [provider.NAME]"#,
        ),
        (
            r#"[providers.acme]
issuer = "x""#,
            "config.toml:1: unknown section [providers]",
            "did you mean [provider.NAME]?",
        ),
        (
            "[daemon]
x = 1",
            "config.toml:1: unknown section [daemon]",
            "the sections are [store], [broker], [hooks], [provider.NAME] and [profile.NAME]",
        ),
        (
            r#"[profile.work.mail]
provider = "xai""#,
            r#"config.toml:1: [profile.work] unknown section "mail""#,
            r#"if this is one name with a dot, write [profile."work.mail"]"#,
        ),
        (
            acme!(r#"verified = "me""#),
            r#"config.toml:4: [provider.acme] unknown key "verified""#,
            "keepalive.toml(5) explains the keys of this section",
        ),
        (
            r#"["a\u001b[31mb"]
x = 1"#,
            r#"config.toml:1: unknown section ["a\u{1b}[31mb"]"#,
            "the sections are [store], [broker], [hooks], [provider.NAME] and [profile.NAME]",
        ),
    ]);
}

#[test]
fn toml_syntax_errors_are_reported_with_a_hint() {
    check(&[
        ("margin = 2h", "config.toml:1: not TOML: a value needs quotes", r#"write it like margin = "2h""#),
        (
            "[profile.xai:default]
",
            r#"config.toml:1: not TOML: a name that contains ":" needs quotes"#,
            r#"write it like [profile."xai:default"]"#,
        ),
        (
            r#"margin = "20%"

margin = "30%""#,
            r#"config.toml:3: not TOML: "margin" is defined twice"#,
            "merge the two, or remove one",
        ),
        (r#"margin = "20%"#, "config.toml:1: not TOML: a string is not closed", r#"close it with ""#),
        (
            "[store",
            "config.toml:1: not TOML: unclosed table, expected `]`",
            "see https://toml.io for how TOML is written",
        ),
        (
            r#"margin = "a\q""#,
            "config.toml:1: not TOML: a backslash is followed by a character that cannot be escaped",
            r#"write \\ for \"#,
        ),
        (
            "[provider.acme]
[provider.acme]",
            r#"config.toml:2: not TOML: "acme" is defined twice"#,
            "merge the two, or remove one",
        ),
    ]);
}

#[test]
fn values_of_a_wrong_type_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"scopes = "openid offline_access""#),
            "config.toml:4: [provider.acme] scopes must be a list of strings, not a string",
            r#"write scopes = ["openid", "offline_access"]"#,
        ),
        (
            acme!(r#"scopes = ["openid", 3]"#),
            "config.toml:4: [provider.acme] scopes must be a list of strings, but contains a number",
            r#"write scopes = ["openid", "offline_access"]"#,
        ),
        (
            acme!(r#"scopes = ["openid offline_access"]"#),
            r#"config.toml:4: [provider.acme] scopes has several scopes in one string: "openid offline_access""#,
            "quote each scope separately, with commas between them",
        ),
        (
            acme!("timeout = 30"),
            "config.toml:4: [provider.acme] timeout must be a string, not a number",
            r#"write timeout = "30s""#,
        ),
        (
            acme!(r#"last_chance = "yes""#),
            "config.toml:4: [provider.acme] last_chance must be true or false, not a string",
            "write last_chance = true or last_chance = false, without quotes",
        ),
        (
            acme!("concurrency = 1.5"),
            "config.toml:4: [provider.acme] concurrency must be a whole number",
            "write concurrency = 8",
        ),
        (
            acme!(r#"concurrency = "4""#),
            "config.toml:4: [provider.acme] concurrency must be a number, not a string",
            "write concurrency = 8",
        ),
        ("margin = 0.2", "config.toml:1: margin must be a string, not a number", r#"write margin = "2h""#),
        (
            r#"provider = "xai""#,
            "config.toml:1: provider must be a section with a name, not a string",
            "write [provider.NAME], and its keys below",
        ),
        (
            r#"[[profile]]
provider = "xai""#,
            "config.toml:1: profile must be a section with a name, not a list",
            "write [profile.NAME], and its keys below",
        ),
        (
            r#"[provider]
issuer = "https://x.example""#,
            r#"config.toml:2: [provider] "issuer" is outside a named section"#,
            "write [provider.NAME], and its keys below",
        ),
        (
            acme!(r#"headers = "x""#),
            "config.toml:4: [provider.acme] headers must be a table, not a string",
            r#"write headers = { "User-Agent" = "..." }"#,
        ),
        ("store = 5", "config.toml:1: store must be a table, not a number", r#"write store = { kind = "keyring" }"#),
        (
            acme!("client_secret = 5"),
            "config.toml:4: [provider.acme] client_secret must be a table, not a number",
            r#"write client_secret = { file = "~/acme.secret" }"#,
        ),
        (
            "schedule = 2026-11-24",
            "config.toml:1: schedule must be a string, not a date",
            r#"write schedule = "0 */4 * * *""#,
        ),
    ]);
}

#[test]
fn bad_durations_and_margins_are_reported_with_a_hint() {
    check(&[
        (
            r#"margin = "0%""#,
            r#"config.toml:1: margin must be above 0% and below 100%, not "0%""#,
            r#"write a share of the lifetime like "20%", or a duration like "90s", "15m" or "2h""#,
        ),
        (
            r#"margin = "100%""#,
            r#"config.toml:1: margin must be above 0% and below 100%, not "100%""#,
            r#"write a share of the lifetime like "20%", or a duration like "90s", "15m" or "2h""#,
        ),
        (
            r#"margin = "-5m""#,
            r#"config.toml:1: margin cannot be negative, as "-5m" is"#,
            r#"write a share of the lifetime like "20%", or a duration like "90s", "15m" or "2h""#,
        ),
        (
            r#"margin = "soon""#,
            r#"config.toml:1: margin "soon" is neither a duration nor a share of the lifetime"#,
            r#"write a share of the lifetime like "20%", or a duration like "90s", "15m" or "2h""#,
        ),
        (
            r#"margin = "0s""#,
            r#"config.toml:1: margin must be between 1ms and 400d, not "0s""#,
            r#"write margin = "2h""#,
        ),
        (
            r#"[profile.xai]
margin = "2 fortnights""#,
            r#"config.toml:2: [profile.xai] margin "2 fortnights" is neither a duration nor a share of the lifetime"#,
            r#"write a share of the lifetime like "20%", or a duration like "90s", "15m" or "2h""#,
        ),
        (
            acme!(r#"timeout = "0s""#),
            r#"config.toml:4: [provider.acme] timeout must be between 1ms and 1h, not "0s""#,
            r#"write timeout = "30s""#,
        ),
        (
            acme!(r#"connect_timeout = "2h""#),
            r#"config.toml:4: [provider.acme] connect_timeout must be between 1ms and 1h, not "2h""#,
            r#"write connect_timeout = "10s""#,
        ),
        (
            acme!(r#"settle = "quick""#),
            r#"config.toml:4: [provider.acme] settle "quick" is not a duration"#,
            r#"write it like "90s", "15m", "2h" or "1d 12h""#,
        ),
        (
            acme!(r#"timeout = "30""#),
            r#"config.toml:4: [provider.acme] timeout "30" is not a duration"#,
            r#"did you mean "30s"?"#,
        ),
        (
            acme!(r#"default_lifetime = "500d""#),
            r#"config.toml:4: [provider.acme] default_lifetime must be between 1s and 400d, not "500d""#,
            r#"write default_lifetime = "1h""#,
        ),
    ]);
}

#[test]
fn bad_schedules_are_reported_with_a_hint() {
    check(&[
        (
            r#"schedule = "* * * *""#,
            "config.toml:1: schedule cannot be used: a cron expression has 5 fields, or 6 to 7 with seconds first, not 4",
            r#"write minute, hour, day of month, month and day of week, as in "*/10 * * * *""#,
        ),
        (
            r#"[profile.xai]
schedule = "75 * * * *""#,
            r#"config.toml:2: [profile.xai] schedule cannot be used: minute "75" is outside 0-59"#,
            "a field is *, a value, a range as 1-5, a step as */10, or a list of these with commas",
        ),
        (
            r#"schedule = "0 0 30 2 *""#,
            "config.toml:1: schedule cannot be used: it never matches any date",
            "check day and month: 30 February does not exist",
        ),
        (
            r#"schedule = "0 0 13 * 5""#,
            "config.toml:1: schedule cannot be used: day of month and day of week are both restricted, and programs disagree on whether both or either must match",
            "write * for one of the two",
        ),
        (
            r#"schedule = "@fortnightly""#,
            r#"config.toml:1: schedule cannot be used: "@fortnightly" is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"#,
            r#"write one of these, or five fields as in "0 */4 * * *""#,
        ),
        (
            r#"schedule = """#,
            "config.toml:1: schedule cannot be used: a cron expression has 5 fields, or 6 to 7 with seconds first, not 0",
            r#"write minute, hour, day of month, month and day of week, as in "*/10 * * * *""#,
        ),
        (
            r#"timezone = "Europe/Berlin""#,
            r#"config.toml:1: timezone must be "UTC" or "local", not "Europe/Berlin""#,
            r#"write timezone = "UTC" or "local""#,
        ),
        (
            r#"timezone = "utc""#,
            r#"config.toml:1: timezone must be "UTC" or "local", not "utc""#,
            r#"did you mean "UTC"?"#,
        ),
    ]);
}

#[test]
fn bad_urls_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"token_endpoint = "login.acme.example/token""#),
            "config.toml:4: [provider.acme] token_endpoint is not a URL: it does not begin with https://",
            r#"write token_endpoint = "https://login.acme.example/token""#,
        ),
        (
            acme!(r#"token_endpoint = "http://login.acme.example/token""#),
            "config.toml:4: [provider.acme] token_endpoint must be https: http is accepted only for loopback addresses",
            r#"write token_endpoint = "https://login.acme.example/token""#,
        ),
        (
            acme!(r#"token_endpoint = "ftp://login.acme.example/token""#),
            r#"config.toml:4: [provider.acme] token_endpoint must be https, not "ftp""#,
            r#"write token_endpoint = "https://login.acme.example/token""#,
        ),
        (
            acme!(r#"token_endpoint = "https://me:hunter2@login.acme.example/token""#),
            "config.toml:4: [provider.acme] token_endpoint must not hold a user name or password",
            "use client_auth and client_secret",
        ),
        (
            acme!(r#"token_endpoint = "https://login.acme.example/token#x""#),
            "config.toml:4: [provider.acme] token_endpoint must not have a fragment",
            "leave out # and what follows",
        ),
        (
            r#"[provider.acme]
issuer = "https://login.acme.example?tenant=1"
client_id = "x""#,
            "config.toml:2: [provider.acme] issuer must not have a query",
            "leave out ? and what follows",
        ),
        (
            acme!(r#"token_endpoint = "https://""#),
            "config.toml:4: [provider.acme] token_endpoint is not a URL: empty host",
            r#"write token_endpoint = "https://login.acme.example/token""#,
        ),
    ]);
}

#[test]
fn incomplete_providers_are_reported_with_a_hint() {
    check(&[
        (
            r#"[provider.acme]
client_id = "x""#,
            "config.toml:1: [provider.acme] issuer or token_endpoint is missing",
            r#"write issuer = "https://...", or set the endpoints"#,
        ),
        (
            r#"[provider.acme]
issuer = "https://x.example""#,
            "config.toml:1: [provider.acme] client_id is missing",
            r#"register a client with the provider and write client_id = "...""#,
        ),
        (
            r#"[provider.acme]
issuer = "https://x.example"
client_id = """#,
            "config.toml:3: [provider.acme] client_id is empty",
            "write the value that the provider gave to your client",
        ),
        (
            acme!(r#"client_auth = "client_secret_basic""#),
            "config.toml:4: [provider.acme] client_secret is missing: client_auth requires it",
            r#"write client_secret = { file = "PATH" }, { env = "NAME" }, { command = [...] } or { keyring = "NAME" }"#,
        ),
        (
            acme!(r#"client_auth = "private_key_jwt""#),
            r#"config.toml:4: [provider.acme] client_key is missing: client_auth = "private_key_jwt" requires it"#,
            r#"write client_key = { file = "PATH" }, a private key in PEM"#,
        ),
        (
            acme!("client_auth = \"private_key_jwt\"\nclient_secret = { env = \"S\" }"),
            r#"config.toml:5: [provider.acme] client_secret is set, but client_auth = "private_key_jwt" does not use it"#,
            "write client_key for the private key, and remove client_secret",
        ),
        (
            acme!(r#"client_key = { env = "S" }"#),
            r#"config.toml:4: [provider.acme] client_key is set, but client_auth = "none" does not use it"#,
            r#"write client_auth = "private_key_jwt", or remove client_key"#,
        ),
        (
            acme!("client_auth = \"private_key_jwt\"\nclient_key = \"\""),
            "config.toml:5: [provider.acme] client_key cannot be written in the configuration itself",
            r#"put it in a separate file: client_key = { file = "PATH" }"#,
        ),
        (
            acme!("client_auth = \"client_secret_basic\"\nclient_secret = \"s3cret\""),
            "config.toml:5: [provider.acme] client_secret cannot be written in the configuration itself",
            r#"put it in a separate file: client_secret = { file = "PATH" }"#,
        ),
        (
            acme!(r#"client_secret = """#),
            r#"config.toml:4: [provider.acme] client_secret is set, but client_auth = "none" does not use it"#,
            r#"write client_auth = "client_secret_basic" or "client_secret_post", or remove client_secret"#,
        ),
        (
            "[provider.acme]\nissuer = \"https://x.example\"\nclient_id = \"a:b\"\nclient_auth = \"client_secret_basic_raw\"\nclient_secret = \"\"",
            "config.toml:3: [provider.acme] client_id has a colon, which ends the user name in Basic credentials (RFC 7617)",
            r#"write client_auth = "client_secret_basic", which encodes it"#,
        ),
        (
            acme!(r#"client_key = "-----BEGIN PRIVATE KEY-----""#),
            "config.toml:4: [provider.acme] client_key cannot be written in the configuration itself",
            r#"put it in a separate file: client_key = { file = "PATH" }"#,
        ),
        (
            "[profile.okta]\nprovider = \"okta\"",
            r#"config.toml:2: [profile.okta] provider "okta" cannot be used yet: issuer is missing: each customer of this provider has a different one"#,
            r#"in [provider.okta], write issuer = "https://YOUR-ORG.okta.com/oauth2/default" with your own values and client_id = "...""#,
        ),
        (
            "[provider.okta]\nclient_id = \"me\"",
            "config.toml:1: [provider.okta] issuer is missing: each customer of this provider has a different one",
            r#"write issuer = "https://YOUR-ORG.okta.com/oauth2/default" with your own values"#,
        ),
        (
            acme!(r#"client_secret = { env = "S" }"#),
            r#"config.toml:4: [provider.acme] client_secret is set, but client_auth = "none" does not use it"#,
            r#"write client_auth = "client_secret_basic" or "client_secret_post", or remove client_secret"#,
        ),
        (
            r#"[provider.google]
client_id = "x""#,
            "config.toml:1: [provider.google] client_secret is missing: client_auth requires it",
            r#"write client_secret = { file = "PATH" }, { env = "NAME" }, { command = [...] } or { keyring = "NAME" }"#,
        ),
        (
            r#"[provider."a b"]
issuer = "https://x.example""#,
            r#"config.toml:1: [provider."a b"] a provider name is made of letters, digits and `._:@+-`, not ' '"#,
            "choose another name, as in [provider.acme]",
        ),
    ]);
}

#[test]
fn bad_secret_sources_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"client_secret = "hunter2""#),
            "config.toml:4: [provider.acme] client_secret cannot be written in the configuration itself",
            r#"put it in a separate file: client_secret = { file = "PATH" }"#,
        ),
        (
            acme!("client_secret = {}"),
            "config.toml:4: [provider.acme.client_secret] needs exactly one of env, file, command or keyring, not 0",
            r#"write { env = "ACME_CLIENT_SECRET" }"#,
        ),
        (
            acme!(r#"client_secret = { env = "A", file = "b" }"#),
            "config.toml:4: [provider.acme.client_secret] needs exactly one of env, file, command or keyring, not 2",
            r#"write { env = "ACME_CLIENT_SECRET" }"#,
        ),
        (
            acme!(r#"client_secret = { vault = "x" }"#),
            r#"config.toml:4: [provider.acme.client_secret] unknown key "vault""#,
            "the keys allowed here are env, file, command and keyring",
        ),
        (
            acme!(r#"client_secret = { env = "A=B" }"#),
            "config.toml:4: [provider.acme.client_secret] env cannot contain '='",
            r#"write env = "ACME_CLIENT_SECRET""#,
        ),
        (
            acme!("client_secret = { command = [] }"),
            "config.toml:4: [provider.acme.client_secret] command does not name a program",
            r#"write command = ["pass", "show", "keepalive"]"#,
        ),
        (
            acme!(r#"client_secret = { command = "pass show x" }"#),
            "config.toml:4: [provider.acme.client_secret] command must be a list of strings, not a string",
            r#"write command = ["pass", "show", "keepalive"]"#,
        ),
        (
            acme!(r#"client_secret = { file = "" }"#),
            "config.toml:4: [provider.acme.client_secret] file is not a path",
            r#"write file = "~/.secrets/keepalive""#,
        ),
        (
            acme!(r#"client_secret = { file = "~bob/x" }"#),
            "config.toml:4: [provider.acme.client_secret] file begins with ~, which is expanded only in ~/",
            "write the whole path",
        ),
    ]);
}

#[test]
fn values_outside_their_choices_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"rotation = "stirct""#),
            r#"config.toml:4: [provider.acme] rotation must be "strict", "grace", "lenient" or "none", not "stirct""#,
            r#"did you mean "strict"?"#,
        ),
        (
            acme!(r#"client_auth = "basic""#),
            r#"config.toml:4: [provider.acme] client_auth must be "none", "client_secret_basic", "client_secret_basic_raw", "client_secret_post" or "private_key_jwt", not "basic""#,
            r#"did you mean "client_secret_basic"?"#,
        ),
        (
            acme!(r#"body = "xml""#),
            r#"config.toml:4: [provider.acme] body must be "form" or "json", not "xml""#,
            r#"write body = "form" or "json""#,
        ),
        (
            acme!(r#"grace_semantics = "any""#),
            r#"config.toml:4: [provider.acme] grace_semantics must be "same", "multi" or "latest", not "any""#,
            r#"write grace_semantics = "same", "multi" or "latest""#,
        ),
        (
            acme!("concurrency = 0"),
            "config.toml:4: [provider.acme] concurrency must be between 1 and 1024, not 0",
            "write concurrency = 8",
        ),
        (
            acme!("concurrency = -3"),
            "config.toml:4: [provider.acme] concurrency must be between 1 and 1024, not -3",
            "write concurrency = 8",
        ),
        (
            r#"[provider.acme]
issuer = "https://login.acme.example"
client_id = "m\u0007e"
"#,
            r#"config.toml:3: [provider.acme] client_id cannot contain '\u{7}'"#,
            r#"write client_id = "...""#,
        ),
    ]);
}

#[test]
fn bad_headers_are_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"headers = { "User Agent" = "x" }"#),
            r#"config.toml:4: [provider.acme] headers has "User Agent", which is not a header name"#,
            r#"write headers = { "User-Agent" = "..." }"#,
        ),
        (
            acme!(r#"headers = { X-A = "secret\r\nX-B: y" }"#),
            "config.toml:4: [provider.acme] headers has a value for X-A that is not plain text",
            "use visible ASCII, without line breaks and without spaces at the ends",
        ),
        (
            acme!(r#"headers = { Host = "x" }"#),
            "config.toml:4: [provider.acme] headers cannot set Host: each request sets its own",
            "leave it out",
        ),
        (
            acme!(r#"headers = { X-A = "1", x-a = "2" }"#),
            "config.toml:4: [provider.acme] headers has x-a twice",
            "remove one of the two",
        ),
        (
            acme!("headers = { X-A = 1 }"),
            "config.toml:4: [provider.acme.headers] X-A must be a string, not a number",
            r#"write X-A = "...""#,
        ),
    ]);
}

#[test]
fn bad_parameters_codes_and_domains_are_reported() {
    check(&[
        (
            acme!(r#"parameters = { client_secret = "x" }"#),
            "config.toml:4: [provider.acme] parameters cannot set client_secret: each request sets its own",
            "leave it out",
        ),
        (
            acme!(r#"parameters = { resource = "" }"#),
            "config.toml:4: [provider.acme.parameters] resource has an empty value",
            r#"write resource = "...""#,
        ),
        (
            acme!(r#"dead_codes = ["a\u0007"]"#),
            r#"config.toml:4: [provider.acme] dead_codes cannot contain '\u{7}'"#,
            r#"write dead_codes = ["account_inactive"]"#,
        ),
        (
            acme!(r#"endpoint_domain = "https://acme.example/""#),
            r#"config.toml:4: [provider.acme] endpoint_domain is not a host name: "https://acme.example/""#,
            r#"write endpoint_domain = "acme.example""#,
        ),
        (
            acme!(r#"assertion_audience = "everybody""#),
            r#"config.toml:4: [provider.acme] assertion_audience must be "issuer", "token_endpoint" or a URI, not "everybody""#,
            r#"write assertion_audience = "issuer""#,
        ),
    ]);
}

#[test]
fn grace_without_its_length_is_reported_with_a_hint() {
    check(&[
        (
            acme!(r#"rotation = "grace""#),
            r#"config.toml:4: [provider.acme] rotation = "grace" needs reuse_grace"#,
            r#"write reuse_grace = "30s", or what the provider documents, and timeout = "6s", so that two attempts fit into it"#,
        ),
        (
            acme!("rotation = \"grace\"\ntimeout = \"5s\""),
            r#"config.toml:4: [provider.acme] rotation = "grace" needs reuse_grace"#,
            r#"write reuse_grace = "30s", or what the provider documents"#,
        ),
    ]);
}

#[test]
fn bad_profiles_are_reported_with_a_hint() {
    check(&[
        (
            r#"[profile.work]
provider = "acmee"
[provider.acme]
issuer = "https://login.acme.example"
client_id = "me"
"#,
            r#"config.toml:2: [profile.work] provider "acmee" is not known"#,
            r#"did you mean "acme"?"#,
        ),
        (
            r#"[profile.work]
provider = "nowhere""#,
            r#"config.toml:2: [profile.work] provider "nowhere" is not known"#,
            "add a section [provider.nowhere]; `keepalive providers` lists the known names",
        ),
        (
            r#"[profile.work]
provider = "no where""#,
            r#"config.toml:2: [profile.work] provider "no where" is not known"#,
            r#"add a section [provider."no where"]; `keepalive providers` lists the known names"#,
        ),
        (
            r#"[profile.work]
provider = "google""#,
            r#"config.toml:2: [profile.work] provider "google" cannot be used yet: client_id is missing"#,
            r#"in [provider.google], register a client with the provider (https://console.cloud.google.com/apis/credentials) and write client_id = "..." and client_secret = { file = "PATH" }"#,
        ),
        (
            r#"[profile."a b"]
provider = "xai""#,
            r#"config.toml:1: [profile."a b"] a profile name is made of letters, digits and `._:@+-`, not ' '"#,
            r#"choose another name, as in [profile.work] or [profile."xai:default"]"#,
        ),
        (
            "[profile.xai]
follow = 1",
            "config.toml:2: [profile.xai] follow must be true or false, not a number",
            "write follow = true or follow = false, without quotes",
        ),
        (
            r#"[profile]
xai = "xai""#,
            r#"config.toml:2: [profile] "xai" is outside a named section"#,
            "write [profile.NAME], and its keys below",
        ),
        (
            "[profile.xai]
provider = 5",
            "config.toml:2: [profile.xai] provider must be a string, not a number",
            r#"write provider = "xai""#,
        ),
    ]);
}

#[test]
fn bad_store_settings_are_reported_with_a_hint() {
    check(&[
        (
            r#"[store]
kind = "file""#,
            r#"config.toml:2: [store] kind = "file" needs a key to encrypt the files"#,
            r#"create one with (umask 077; set -C; head -c 32 /dev/urandom > store.key) and write key = { file = "store.key" }"#,
        ),
        (
            r#"[store]
kind = "sqlite""#,
            r#"config.toml:2: [store] kind must be "keyring" or "file", not "sqlite""#,
            r#"write kind = "keyring" or "file""#,
        ),
        (
            r#"[store]
key = { file = "x" }"#,
            "config.toml:2: [store] key has no effect with kind = \"keyring\": the keyring keeps the key",
            r#"write kind = "file", or remove key"#,
        ),
        (
            r#"[store]
kind = "file"
key = { file = "x" }
service = "y""#,
            "config.toml:4: [store] service has no effect without a keyring",
            r#"write kind = "keyring", or remove service"#,
        ),
        (
            r#"[store]
kind = "file"
key = "MDEyMzQ1""#,
            "config.toml:3: [store] key cannot be written in the configuration itself",
            r#"put it in a separate file: key = { file = "PATH" }"#,
        ),
        (
            r#"[store]
kind = "file"
key = { credential = "a/b" }"#,
            "config.toml:3: [store.key] credential cannot contain '/'",
            r#"write credential = "keepalive.key""#,
        ),
        (
            r#"[store]
path = "~bob/x""#,
            "config.toml:2: [store] path begins with ~, which is expanded only in ~/",
            "write the whole path",
        ),
        (
            r#"[store]
service = """#,
            "config.toml:2: [store] service is empty",
            r#"write service = "keepalive""#,
        ),
        (
            r#"[store]
kind = "file"
key = { keyring = "x" }"#,
            r#"config.toml:3: [store.key] unknown key "keyring""#,
            "the keys allowed here are credential, file and command",
        ),
    ]);
}

#[test]
fn bad_consumer_settings_are_reported_with_a_hint() {
    check(&[
        (
            "[profile.p]\nprovider = \"xai\"\nhosts = [\"http://git.acme.example\"]",
            r#"config.toml:3: [profile.p] hosts has "http://git.acme.example", which must be https: http is accepted only for loopback addresses"#,
            "leave out http://, which means https",
        ),
        (
            "[profile.p]\nprovider = \"xai\"\nhosts = [\"*.example\"]",
            r#"config.toml:3: [profile.p] hosts has "*.example", which means too many hosts"#,
            r#"write two labels or more after *, as in "*.pkg.acme.example""#,
        ),
        (
            "[profile.p]\nprovider = \"xai\"\nhosts = \"git.acme.example\"",
            "config.toml:3: [profile.p] hosts must be a list of strings, not a string",
            r#"write hosts = ["git.acme.example"]"#,
        ),
        (
            "[profile.p]\nprovider = \"xai\"\ngit_auth = \"digest\"",
            r#"config.toml:3: [profile.p] git_auth must be "basic" or "bearer", not "digest""#,
            r#"write git_auth = "basic" or "bearer""#,
        ),
        (
            "[profile.p]\nprovider = \"xai\"\ndocker_username = \"<token>\"",
            r#"config.toml:3: [profile.p] docker_username cannot be "<token>": clients then take the token for a refresh token"#,
            "leave it out, or write the user name that the registry asks for",
        ),
        (
            "[profile.p]\nprovider = \"xai\"\nenv = \"A-B\"",
            r#"config.toml:3: [profile.p] env must name an environment variable, not "A-B""#,
            r#"use letters, digits and _, as in env = "ACME_TOKEN""#,
        ),
        (
            acme!("hosts = []"),
            r#"config.toml:4: [provider.acme] unknown key "hosts""#,
            r#""hosts" belongs in [profile.NAME]"#,
        ),
    ]);
}
