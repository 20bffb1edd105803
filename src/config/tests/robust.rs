//! The configuration file as an opponent: random, mutilated, huge, missing, writable by others.

use proptest::prelude::*;

use super::*;

/// A configuration with one of everything.
const FULL: &str = r#"margin = "20%"
schedule = "*/10 * * * *"
timezone = "UTC"

[store]
kind = "file"
path = "~/sealed"
key = { command = ["pass", "show", "ka"] }

[provider.acme]
issuer = "https://login.acme.example"
client_id = "me"
client_auth = "client_secret_basic"
client_secret = { env = "SECRET" }
scopes = ["openid", "offline_access"]
rotation = "grace"
reuse_grace = "2m"
grace_semantics = "latest"
headers = { "User-Agent" = "me/1", "X-Ü" = "x" }
concurrency = 0x10

[profile."xai:default"]
provider = "xai"
margin = "2h"
schedule = "0 0 */4 * * mon-fri 2026-2030"
timezone = "local"
follow = false

[profile.work]
provider = "acme"
"#;

/// Reads it, and tells all that there is to tell of it.
fn read_and_show(text: &str) {
    match Config::parse(text, Path::new("c.toml"), Some(Path::new("/home/me"))) {
        Ok(config) => drop(format!("{config:?}")),
        Err(e) => {
            let shown = e.to_string();
            assert!(shown.starts_with("c.toml:") && !shown.chars().any(char::is_control), "{shown:?}");
            assert!(e.hint().is_some_and(|hint| !hint.is_empty()), "no hint: {shown}");
        }
    }
}

proptest! {
    #[test]
    fn config_parser_never_panics_on_any_text(text in "\\PC{0,200}", lines in "([a-z_]{1,12}( = |\\.)[\"\\[{}a-z0-9%: ]{0,12}\n?){0,8}") {
        read_and_show(&text);
        read_and_show(&lines);
    }

    #[test]
    fn config_parser_never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_and_show(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn config_parser_never_panics_on_a_damaged_file(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[\\PC\n\t\"]{0,6}"), 1..5),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, length, patch) in cuts {
            let from = at.index(text.len() + 1);
            let to = (from + length).min(text.len());
            text.splice(from..to, patch.chars());
        }
        read_and_show(&text.into_iter().collect::<String>());
    }

    #[test]
    fn config_parser_never_panics_on_any_value(line in 0usize..FULL.lines().count(), value in "([\"'][-\\PC]{0,20}[\"']|[-0-9.a-fxT:]{1,12}|\\[.{0,8}\\])") {
        let swap = |(at, text): (usize, &str)| match text.split_once('=') {
            Some((key, _)) if at == line => format!("{key} = {value}\n"),
            _ => format!("{text}\n"),
        };
        read_and_show(&FULL.lines().enumerate().map(swap).collect::<String>());
    }

    #[test]
    fn duration_parser_never_panics_on_any_text(text in "\\PC{0,30}", figures in "[-0-9.]{0,25}[a-zµ% ]{0,6}") {
        for text in [&text, &figures] {
            drop(duration::parse_duration(text));
            drop(duration::margin(text));
        }
    }
}

#[test]
fn ten_thousand_profiles_load() {
    let one = |n: usize| {
        format!(
            "[profile.p{n}]\nprovider = \"xai\"\nmargin = \"{}m\"\nschedule = \"{} */4 * * *\"\n",
            n % 50 + 1,
            n % 60
        )
    };
    let text: String = (0..10_000).map(one).collect();
    let config = parsed(&text);
    assert_eq!(config.profile_names().count(), 10_000);
    let wrong = format!("{text}[profile.last]\nprovidr = \"xai\"\n");
    let error = Config::parse(&wrong, Path::new("c.toml"), None).unwrap_err();
    assert_eq!(error.to_string(), "c.toml:40002: [profile.last] unknown key \"providr\"");
}

#[cfg(unix)]
mod on_disk {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory with a `config.toml` of this text and mode.
    fn written(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn refused(path: &Path) -> (String, String) {
        let error = Config::load(path, true, None).unwrap_err();
        let plain = |text: &str| text.replace(&path.display().to_string(), "config.toml");
        (plain(&error.to_string()), plain(error.hint().unwrap()))
    }

    #[test]
    fn config_file_not_writable_by_others_is_read() {
        for mode in [0o600, 0o644, 0o400] {
            let (_directory, path) = written(b"margin = \"1h\"", mode);
            assert_eq!(Config::load(&path, true, None).unwrap().path, Some(path), "{mode:o}");
        }
    }

    #[test]
    fn config_file_writable_by_others_is_refused() {
        for (mode, message) in [
            (
                0o664,
                "config.toml: has mode 0664: its group may write; refusing it, because it names commands that keepalive runs",
            ),
            (
                0o602,
                "config.toml: has mode 0602: others may write; refusing it, because it names commands that keepalive runs",
            ),
            (
                0o666,
                "config.toml: has mode 0666: its group and others may write; refusing it, because it names commands that keepalive runs",
            ),
        ] {
            let (_directory, path) = written(b"", mode);
            assert_eq!(refused(&path), (message.into(), "chmod go-w config.toml".into()));
        }
    }

    #[test]
    fn unusable_config_file_is_told_with_its_mistakes() {
        let (_directory, path) =
            written(b"margin = \"0%\"\nschedule = \"\xff\"\n# caf\xe9\n[profile.p]\nfolow = true\n", 0o664);
        let error = Config::load(&path, true, None).unwrap_err();
        let told: Vec<_> =
            error.mistakes().iter().map(|m| (m.position.map(|at| (at.line, at.column)), m.excerpt.is_some())).collect();
        assert_eq!(
            told,
            [(None, false), (Some((1, 10)), true), (Some((2, 13)), true), (Some((3, 6)), false), (Some((5, 1)), true)]
        );
    }

    #[test]
    fn only_an_explicitly_named_config_file_must_exist() {
        let (directory, _) = written(b"", 0o600);
        let through_a_file = directory.path().join("config.toml/../none.toml");
        let error = Config::load(&through_a_file, false, None).unwrap_err();
        assert!(error.to_string().contains("Not a directory"), "that is not an absent file: {error}");
        let absent = directory.path().join("none.toml");
        assert_eq!(Config::load(&absent, false, None).unwrap().path, None);
        let (message, hint) = refused(&absent);
        assert_eq!(message, "config.toml: does not exist");
        assert_eq!(hint, "create it, or leave out --config and KEEPALIVE_CONFIG");
    }

    #[test]
    fn unreadable_config_file_is_reported_with_its_reason() {
        let (_directory, path) = written(b"margin = \"1h\"\n# \xff\n", 0o600);
        assert_eq!(refused(&path), ("config.toml:2: the line is not UTF-8".into(), "save the file as UTF-8".into()));
        let (directory, _) = written(b"", 0o600);
        let told = refused(directory.path()).0;
        assert!(told.starts_with("config.toml: cannot be read: "), "{told}");
        let (_directory, path) = written(&b"\xff\n".repeat(21), 0o600);
        assert_eq!(refused(&path).0, "config.toml: is not a text in UTF-8");
        let (_directory, path) = written(&vec![b'#'; 17 << 20], 0o600);
        assert_eq!(refused(&path).0, "config.toml: is larger than 16 MiB, so it cannot be a configuration");
    }

    #[test]
    fn the_null_device_is_an_empty_configuration() {
        assert!(Config::load(Path::new("/dev/null"), true, None).unwrap().warnings.is_empty());
    }
}
