//! A file with many mistakes is told of all of them at once, and of nothing that only follows from one.

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    let error = Config::parse(text, Path::new("c.toml"), None).expect_err(text);
    error.mistakes().iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_is_told_in_one_run() {
    let text = r#"margn = "20%"
schedule = "every day"
timezone = "Mars"

[daemon]
x = 1

[store]
kind = "fil"
zzz = 1

[provider.acme]
issuer = "http://acme.example"
client_id = 5
client_auth = "basic"
scopes = ["openid mail", 5]
rotation = "strickt"
timeout = "30"
headers = { "a b" = "x", "A" = 5 }

[provider.beta]
issuer = "https://beta.example"
client_id = "me"
rotation = "grace"

[profile.work]
provider = "acme"
margin = "0%"
folow = true

[profile.home]
provider = "acne"
"#;
    let lines: Vec<usize> = mistakes(text).iter().map(|m| m.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(lines, [1, 2, 3, 5, 9, 10, 13, 14, 15, 16, 16, 17, 18, 19, 19, 24, 28, 29, 32]);
}

#[test]
fn what_follows_from_a_mistake_is_not_told() {
    assert_eq!(
        mistakes(
            "[provider.acme]\nissuer = \"https://a.example\"\nclint_id = \"x\"\n[profile.p]\nprovider = \"acme\"\n[store]\nknd = \"file\"\n"
        ),
        ["c.toml:3: [provider.acme] unknown key \"clint_id\"", "c.toml:7: [store] unknown key \"knd\""]
    );
}

/// Each was told only once the rest of its section, or of the file, was right.
#[test]
fn mistake_is_told_whatever_else_is_wrong() {
    let lines = |text: &str| -> Vec<usize> {
        mistakes(text).iter().map(|m| m.split(':').nth(1).unwrap().parse().unwrap()).collect()
    };
    // A client, a secret and a server that are missing, beside a value that is wrong.
    assert_eq!(lines("[provider.acme]\nissuer = \"https://a.example\"\ntimeout = \"30\"\n"), [1, 3]);
    assert_eq!(lines("[provider.acme]\ntimeout = \"30\"\n"), [1, 1, 2]);
    let auth =
        "[provider.acme]\nissuer = \"https://a.example\"\nclient_id = \"x\"\nclient_auth = \"client_secret_basic\"\n";
    assert_eq!(lines(&format!("{auth}margin = \"0%\"\nrotation = \"grace\"\nzzz = 1\n")), [4, 5, 6, 7]);
    // The store.
    assert_eq!(lines("[store]\nkind = \"file\"\nservice = \"x\"\npath = \"\"\n"), [2, 3, 4]);
    assert_eq!(lines("[store]\nkind = \"file\"\nkey = { fil = \"x\", fole = \"y\" }\n"), [3, 3]);
    // A line that is no TOML hides only what may stand in its own section.
    assert_eq!(lines("[provider.acme]\nissuer = \"https://a.example\"\n[profile.p]\nmargin = 2h\n"), [1, 4]);
    assert_eq!(lines("[provider.acme]\nissuer = \"https://a.example\"\nclient_id = x\n"), [3]);
}

/// The name in the order of the file; whether a credential names a provider is not known here.
fn incomplete(text: &str) -> Vec<String> {
    let error = Config::parse(text, Path::new("c.toml"), None).expect_err(text);
    let told = error.with_incomplete_profiles(|name| name.as_str() == "stored");
    told.mistakes().iter().filter(|m| m.message.starts_with("profile ")).map(ToString::to_string).collect()
}

#[test]
fn profile_without_a_provider_is_told_with_the_others() {
    let text = "[profile.work]\nmargin = \"1h\"\n[profile.stored]\n[profile.xai]\n[profile.google]\n[profile.home]\nprovider = 5\n";
    assert_eq!(
        incomplete(text),
        [
            "c.toml:1: profile work: its section names no provider, and it has no credential",
            "c.toml:5: profile google: provider \"google\" cannot be used yet: client_id is missing"
        ]
    );
    // The name is there, written wrongly; or the store is not known.
    for follows in [
        "[profile.work]\nprovder = \"xai\"\n",
        "[profile.work]\nprovider = xai\n",
        "[profile.work]\n[store]\npath = \"\"\n",
    ] {
        assert_eq!(incomplete(follows), Vec::<String>::new(), "{follows}");
    }
    assert_eq!(incomplete("[profile.work]\n[profile.other]\nmargin = 2h\n").len(), 1);
}

#[test]
fn syntax_errors_do_not_hide_other_mistakes() {
    let text = "margin = 2h\n[profile.xai:default]\nmargin = \"2h\"\n[profile.xai]\nfolow = true\nmargin = \"0%\"\n";
    let told = mistakes(text);
    let lines: Vec<_> = told.iter().map(|m| m.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["c.toml:1", "c.toml:2", "c.toml:5", "c.toml:6"], "{told:#?}");
}

#[test]
fn mistake_shows_its_line_and_where_it_is() {
    let error = Config::parse("# x\nmargin  = \"0%\" # y\n", Path::new("c.toml"), None).unwrap_err();
    let excerpt = error.mistakes()[0].excerpt.clone().unwrap();
    assert_eq!((excerpt.text.as_str(), excerpt.indent, excerpt.length), ("margin  = \"0%\"", 10, 4));
}

#[test]
fn a_section_without_a_provider_is_found_by_its_line() {
    let config = parsed("margin = \"10%\"\n[profile.q]\nmargin = \"20%\"\n");
    let error = config.profile(&"q".parse().unwrap(), None).unwrap_err();
    assert!(
        error.to_string().starts_with("/etc/ka/config.toml:2: profile q: its section names no provider"),
        "{error}"
    );
}
