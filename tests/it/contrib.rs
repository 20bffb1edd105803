//! Manual pages, completions and the sample configuration say what the program does. `KEEPALIVE_BLESS=1` writes the
//! generated ones anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use clap_complete::Shell;
use keepalive::cli::{Cli, daemon_manual, manual};
use keepalive::config::Config;
use keepalive::events::EVENTS;

use super::support::root;
use super::support::sandbox::Sandbox;

/// Compares a checked-in file with what it must be, or writes it.
fn check(path: &Path, generated: &[u8]) {
    if std::env::var_os("KEEPALIVE_BLESS").is_some() {
        std::fs::write(path, generated).unwrap();
    }
    let there = std::fs::read(path).unwrap_or_default();
    assert!(there == generated, "{} is stale: KEEPALIVE_BLESS=1 cargo test --test it contrib", path.display());
}

fn pages() -> Vec<(String, Vec<u8>)> {
    let command = Cli::command().disable_help_subcommand(true);
    let (name, text) = page(&command, "keepalive".into());
    let mut pages = vec![(name, [&text, manual().as_bytes()].concat())];
    for sub in command.get_subcommands() {
        let title = format!("keepalive-{}", sub.get_name());
        // The page of a subcommand shows how it is called.
        let name: &'static str = title.clone().leak();
        let full = sub.clone().name(name).bin_name(title.replacen('-', " ", 1)).display_name(name);
        let (file, text) = page(&full, title);
        let more = if sub.get_name() == "daemon" { daemon_manual() } else { String::new() };
        pages.push((file, [&text, more.as_bytes()].concat()));
    }
    pages
}

fn page(command: &clap::Command, title: String) -> (String, Vec<u8>) {
    let man = clap_mangen::Man::new(command.clone()).title(title.to_uppercase()).date("2026-11-24").manual("keepalive");
    let mut text = Vec::new();
    man.render(&mut text).unwrap();
    (format!("{title}.1"), without_double_breaks(&text))
}

/// The generator breaks lines around an empty one, which does nothing more and which mandoc warns of.
fn without_double_breaks(text: &[u8]) -> Vec<u8> {
    String::from_utf8(text.to_vec()).unwrap().replace(".br\n\n.br\n", ".sp\n").into_bytes()
}

#[test]
fn man_pages_match_the_commands() {
    let pages = pages();
    for (name, text) in &pages {
        check(&root().join("man").join(name), text);
    }
    for file in std::fs::read_dir(root().join("man")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let is_of_a_command = pages.iter().any(|(name, _)| *name == file) || !file.ends_with(".1");
        assert!(is_of_a_command, "man/{file} is of no command");
    }
}

#[ignore = "needs mandoc; contrib/test runs it"]
#[test]
fn man_pages_pass_mandoc_lint() {
    for entry in std::fs::read_dir(root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        let out = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&path)
            .output()
            .expect("mandoc is needed: contrib/test installs it");
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{}", said);
    }
}

#[test]
fn shell_completions_match_the_commands() {
    for (shell, file) in [(Shell::Bash, "keepalive.bash"), (Shell::Zsh, "_keepalive"), (Shell::Fish, "keepalive.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "keepalive", &mut script);
        check(&root().join("contrib/completions").join(file), &script);
        let printed = Sandbox::new().keepalive(&["completions", &shell.to_string()]).exits(0);
        assert_eq!(printed.stdout.as_bytes(), script);
    }
}

fn example() -> String {
    std::fs::read_to_string(root().join("contrib/keepalive.example.toml")).unwrap()
}

#[test]
fn sample_configuration_is_valid_and_shows_every_key() {
    let config = Config::parse(&example(), Path::new("example"), Some(Path::new("/home/u"))).unwrap();
    assert_eq!(config.profile_names().count(), 1);
    let example = format!("\n{}", example());
    let is_shown = |key: &String| {
        let lines = ["\n", "\n# ", "{ "].iter().any(|start| example.contains(&format!("{start}{key} = ")));
        lines || [']', '.'].iter().any(|end| example.contains(&format!("\n[{key}{end}")))
    };
    let missing: Vec<_> = keys().into_iter().filter(|key| !is_shown(key)).collect();
    assert!(missing.is_empty(), "the sample lacks {missing:?}");
}

#[test]
fn the_configuration_page_explains_every_key() {
    let page = std::fs::read_to_string(root().join("man/keepalive.toml.5")).unwrap();
    let missing: Vec<_> = keys().into_iter().filter(|key| !explains(&page, key)).collect();
    assert!(missing.is_empty(), "keepalive.toml(5) lacks {missing:?}");
}

fn explains(page: &str, key: &str) -> bool {
    let forms = [format!(".It Cm {key}\n"), format!(".Ss [{key}"), format!(".Ql {{ {key} = ")];
    forms.iter().any(|form| page.contains(form))
}

/// Every key of the configuration, as its reader names them when it meets one that it does not know.
fn keys() -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("src/config/keys.rs")).unwrap();
    // What only the built-in table says is no key of a user's file.
    let (before, rest) = source.split_once("const BUILT_IN").unwrap();
    let (_, after) = rest.split_once("];").unwrap();
    let key_of = |line: &str| Some(line.trim().strip_prefix("key(\"")?.split_once('"')?.0.to_owned());
    let keys: BTreeSet<String> = before.lines().chain(after.lines()).filter_map(key_of).collect();
    assert!(keys.len() > 25 && keys.contains("client_id"), "{keys:?}");
    keys
}

/// The name of an event in each call of a log macro, or the call if it has none.
fn logged_events(text: &str) -> Vec<String> {
    let calls = text.split("event = ").skip(1);
    let name = |rest: &str| Some(rest.strip_prefix('"')?.split_once('"')?.0.to_owned());
    calls.filter_map(name).collect()
}

/// The log calls of a file that name no event first.
fn anonymous_log_calls(file: &str, text: &str) -> Vec<String> {
    let levels = ["trace", "debug", "info", "warn", "error"].map(|level| format!("tracing::{level}!("));
    let calls = levels.iter().flat_map(|call| text.split(call.as_str()).skip(1));
    let anonymous = calls.filter(|rest| !rest.trim_start().starts_with("event = "));
    anonymous.map(|rest| format!("{file}: {}", rest.lines().next().unwrap_or_default())).collect()
}

#[test]
fn every_log_event_is_in_the_table_and_is_logged() {
    let sources = super::tidy::files("src", ".rs");
    let code = || sources.iter().map(|(file, text)| (file, super::tidy::code(text)));
    let anonymous: Vec<_> = code().flat_map(|(file, text)| anonymous_log_calls(file, text)).collect();
    assert!(anonymous.is_empty(), "log calls without an event: {anonymous:#?}");
    let logged: BTreeSet<_> = code().flat_map(|(_, text)| logged_events(text)).collect();
    let table: BTreeSet<_> = EVENTS.iter().map(|event| event.name.to_owned()).collect();
    assert_eq!(logged, table);
    assert_eq!(table.len(), EVENTS.len(), "an event is in the table twice");
    assert_eq!(anonymous_log_calls("f", "tracing::info!(\"x\");").len(), 1);
}
