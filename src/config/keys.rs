//! Every key that a configuration may hold, with an example of its value.

use super::error::{alternatives, nearest};

/// A key and how its value is written.
pub(super) struct Key {
    pub name: &'static str,
    pub example: &'static str,
}

const fn key(name: &'static str, example: &'static str) -> Key {
    Key { name, example }
}

pub(super) const TOP: &[Key] = &[
    key("margin", "\"20%\""),
    key("schedule", "\"*/10 * * * *\""),
    key("timezone", "\"UTC\""),
    key("store", "{ kind = \"keyring\" }"),
    key("broker", "{ listen = \"127.0.0.1:8765\" }"),
    key("hooks", "{ on_needs_login = [\"/usr/local/bin/tell-me\"] }"),
    key("provider", "{ acme = { issuer = \"https://login.acme.example\", client_id = \"...\" } }"),
    key("profile", "{ work = { provider = \"acme\" } }"),
];

pub(super) const STORE: &[Key] = &[
    key("kind", "\"keyring\""),
    key("path", "\"~/keepalive\""),
    key("key", "{ file = \"~/keepalive.key\" }"),
    key("service", "\"keepalive\""),
    key("allow_network_filesystem", "false"),
];

/// What the daemon offers to other programs.
pub(super) const BROKER: &[Key] = &[
    key("listen", "\"127.0.0.1:8765\""),
    key("metrics_per_profile", "false"),
    key("gce", "[{ listen = \"127.0.0.1:8766\", profile = \"google\" }]"),
];

/// A metadata server of Google's cloud.
pub(super) const GCE: &[Key] =
    &[key("listen", "\"127.0.0.1:8766\""), key("profile", "\"google\""), key("project", "\"my-project\"")];

pub(super) const PROVIDER: &[Key] = &[
    key("issuer", "\"https://login.acme.example\""),
    key("authorization_endpoint", "\"https://login.acme.example/authorize\""),
    key("token_endpoint", "\"https://login.acme.example/token\""),
    key("device_authorization_endpoint", "\"https://login.acme.example/device\""),
    key("revocation_endpoint", "\"https://login.acme.example/revoke\""),
    key("redirect_uri", "\"http://127.0.0.1/callback\""),
    key("client_id", "\"...\""),
    key("client_auth", "\"none\""),
    key("client_secret", "{ file = \"~/acme.secret\" }"),
    key("client_key", "{ file = \"~/acme.pem\" }"),
    key("client_key_id", "\"key-1\""),
    key("assertion_audience", "\"issuer\""),
    key("scopes", "[\"openid\", \"offline_access\"]"),
    key("rotation", "\"strict\""),
    key("reuse_grace", "\"30s\""),
    key("grace_semantics", "\"latest\""),
    key("last_chance", "true"),
    key("trust_503", "false"),
    key("concurrency", "8"),
    key("settle", "\"15s\""),
    key("timeout", "\"30s\""),
    key("connect_timeout", "\"10s\""),
    key("headers", "{ \"User-Agent\" = \"...\" }"),
    key("parameters", "{ resource = \"https://api.acme.example\" }"),
    key("body", "\"form\""),
    key("dead_codes", "[\"account_inactive\"]"),
    key("client_codes", "[\"bad_client_secret\"]"),
    key("endpoint_domain", "\"acme.example\""),
    key("ca_file", "\"~/acme.pem\""),
    key("margin", "\"20%\""),
    key("default_lifetime", "\"1h\""),
    key("max_lifetime", "\"1h\""),
];

/// The keys of a built-in provider for its known behaviour, the source of these facts, the day on which they were read
/// there, and an example of an issuer where every customer has one.
pub(super) const BUILT_IN: &[Key] = &[
    key("known", "\"...\""),
    key("source", "\"...\""),
    key("verified", "\"2026-11-24\""),
    key("issuer_example", "\"...\""),
    key("register", "\"https://...\""),
];

pub(super) const PROFILE: &[Key] = &[
    key("provider", "\"xai\""),
    key("scopes", "[\"openid\", \"offline_access\"]"),
    key("margin", "\"2h\""),
    key("schedule", "\"0 */4 * * *\""),
    key("timezone", "\"UTC\""),
    key("follow", "false"),
    key("hooks", "{ on_needs_login = [\"/usr/local/bin/tell-me\"] }"),
    key("mirror", "[{ kind = \"file\", path = \"~/token\" }]"),
];

pub(super) const MIRROR: &[Key] = &[
    key("kind", "\"file\""),
    key("path", "\"~/token\""),
    key("set", "{ \"/tokens/access_token\" = \"access_token\" }"),
    key("source", "\"~/netrc.template\""),
    key("files", "{ token = \"access_token\" }"),
    key("entry", "\"openai\""),
];

/// What is run when something happens to a profile.
pub(super) const HOOKS: &[Key] = &[
    key("on_needs_login", "[\"/usr/local/bin/tell-me\"]"),
    key("on_deferred", "[\"/usr/local/bin/tell-me\"]"),
    key("on_recovered", "[\"/usr/local/bin/tell-me\"]"),
    key("on_login_due", "[\"/usr/local/bin/tell-me\"]"),
    key("on_refreshed", "[\"systemctl\", \"--user\", \"reload\", \"agent\"]"),
    key("timeout", "\"30s\""),
    key("remind", "\"4h\""),
    key("token", "false"),
    key("notify", "\"auto\""),
];

/// How the profile's access token is handed to other programs.
pub(super) const CONSUMERS: &[Key] = &[
    key("hosts", "[\"git.acme.example\"]"),
    key("git_username", "\"oauth2\""),
    key("git_auth", "\"basic\""),
    key("docker_username", "\"oauth2accesstoken\""),
    key("cargo_scheme", "\"Bearer\""),
    key("env", "\"ACME_TOKEN\""),
];

pub(super) const STORE_KEY: &[Key] = &[
    key("credential", "\"keepalive.key\""),
    key("file", "\"~/.secrets/keepalive\""),
    key("command", "[\"pass\", \"show\", \"keepalive\"]"),
];

pub(super) const SECRET: &[Key] = &[
    key("env", "\"ACME_CLIENT_SECRET\""),
    key("file", "\"~/.secrets/keepalive\""),
    key("command", "[\"pass\", \"show\", \"keepalive\"]"),
    key("keyring", "\"acme-client\""),
];

/// The sections whose keys a user may put into the wrong section.
const SECTIONS: &[(&str, &[Key])] = &[
    ("[profile.NAME]", PROFILE),
    ("[profile.NAME]", CONSUMERS),
    ("[provider.NAME]", PROVIDER),
    ("[store]", STORE),
    ("[broker]", BROKER),
    ("[[broker.gce]]", GCE),
    ("[hooks]", HOOKS),
    ("[[profile.NAME.mirror]]", MIRROR),
    ("the top of the file", TOP),
];

/// Longer lists of keys are no help.
const MAX_LISTED: usize = 8;

/// The names of all keys of a user's file.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().flat_map(|(_, keys)| keys.iter()).map(|key| key.name)
}

/// What to write instead of an unknown key: the nearest key of this section, or the section that it belongs to.
pub(super) fn suggestion(unknown: &str, here: &[&[Key]]) -> String {
    let known = || here.iter().flat_map(|keys| keys.iter()).map(|key| key.name);
    if let Some(name) = nearest(unknown, known()) {
        return format!("did you mean {name:?}?");
    }
    if let Some((home, _)) = SECTIONS.iter().find(|(_, keys)| keys.iter().any(|key| key.name == unknown)) {
        return format!("{unknown:?} belongs in {home}");
    }
    let names: Vec<String> = known().map(str::to_owned).collect();
    if names.len() > MAX_LISTED {
        return "keepalive.toml(5) explains the keys of this section".to_owned();
    }
    format!("the keys allowed here are {}", alternatives(&names).replace(" or ", " and "))
}

/// An example of a value of this key.
pub(super) fn example(name: &str) -> Option<&'static str> {
    // Profiles first: there `provider` is a name, at the top a section.
    let all = [PROFILE, TOP, STORE, BROKER, GCE, PROVIDER, STORE_KEY, SECRET, MIRROR, HOOKS, CONSUMERS, BUILT_IN];
    all.iter().flat_map(|keys| keys.iter()).find(|key| key.name == name).map(|key| key.example)
}
