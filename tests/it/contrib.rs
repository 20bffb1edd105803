//! Manual pages, completions and the sample configuration say what the program does. `KEEPALIVE_BLESS=1` writes the
//! generated ones anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use clap_complete::Shell;
use keepalive::cli::{Cli, completion_script, daemon_manual, manual, manual_of_command, synopsis};
use keepalive::config::Config;
use keepalive::events::EVENTS;
use keepalive::profile::consumers::CONSUMERS;

use super::support::root;
use super::support::sandbox::{PROGRAM, Sandbox};

/// Compares a checked-in file with what it must be, or writes it.
fn check(path: &Path, generated: &[u8]) {
    if std::env::var_os("KEEPALIVE_BLESS").is_some() {
        std::fs::write(path, generated).unwrap();
    }
    let there = std::fs::read(path).unwrap_or_default();
    assert!(there == generated, "{} is stale: KEEPALIVE_BLESS=1 cargo test --test it contrib", path.display());
}

fn pages() -> Vec<(String, Vec<u8>)> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let usage = "keepalive [--config FILE] [--json] [-q|-v...] [--color WHEN] COMMAND [ARGUMENT]...";
    let (name, text) = page(&command.clone().override_usage(usage), "keepalive".into());
    let mut pages = vec![(name, [&text, manual().as_bytes()].concat())];
    for sub in command.get_subcommands() {
        let title = format!("keepalive-{}", sub.get_name());
        // The page of a subcommand shows how it is called.
        let name: &'static str = title.clone().leak();
        let usage = synopsis(sub, &format!("keepalive {}", sub.get_name()));
        let full = sub.clone().name(name).bin_name(title.replacen('-', " ", 1)).display_name(name);
        let own = full.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg }).override_usage(usage);
        let (file, text) = page(&own, title);
        let text = without_subcommands(text);
        let more = if sub.get_name() == "daemon" { daemon_manual() } else { String::new() };
        let rest = subcommand_sections(sub) + &manual_of_command(sub.get_name());
        pages.push((file, [&text, more.as_bytes(), rest.as_bytes()].concat()));
    }
    pages
}

/// Without the list of pages that are not there: the actions stand in the page itself.
fn without_subcommands(page: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(page).unwrap();
    let Some((before, list)) = text.split_once(".SH SUBCOMMANDS\n") else { return text.into_bytes() };
    let rest = list.find(".SH ").map_or("", |at| &list[at..]);
    format!("{before}{rest}").into_bytes()
}

/// The options of each action of a command that has some.
fn subcommand_sections(command: &clap::Command) -> String {
    let section = |action: &clap::Command| {
        let name = format!("keepalive {} {}", command.get_name(), action.get_name());
        let own = action.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        let own = own.mut_args(|arg| if arg.get_id() == "help" { arg.hide(true) } else { arg });
        let (_, text) = page(&own, "x".into());
        let text = String::from_utf8(text).unwrap();
        let about = action.get_about().map(ToString::to_string).unwrap_or_default();
        let lists = [".SH ARGUMENTS\n", ".SH OPTIONS\n"].iter().filter_map(|head| {
            let (_, rest) = text.split_once(head)?;
            Some(rest.split(".SH ").next().unwrap_or(rest).to_owned())
        });
        let usage = synopsis(action, &name).replace('-', "\\-");
        format!(".SH \"{}\"\n{usage}\n.PP\n{about}.\n{}", name.to_uppercase(), lists.collect::<String>())
    };
    command.get_subcommands().map(section).collect()
}

fn page(command: &clap::Command, title: String) -> (String, Vec<u8>) {
    let man = clap_mangen::Man::new(command.clone()).title(title.to_uppercase()).date("2026-11-24").manual("keepalive");
    let mut text = Vec::new();
    man.render(&mut text).unwrap();
    let text = with_arguments_first(&without_double_breaks(&String::from_utf8(text).unwrap()));
    (format!("{title}.1"), with_bold_code(&text).into_bytes())
}

/// The generator puts arguments behind all options.
fn with_arguments_first(text: &str) -> String {
    let Some((head, options)) = text.split_once(".SH OPTIONS\n") else { return text.to_owned() };
    let end = options.find(".SH ").unwrap_or(options.len());
    let (options, rest) = options.split_at(end);
    let first = [".TP\n<\\fI", ".TP\n[\\fI"].iter().filter_map(|start| options.find(start)).min();
    let (options, arguments) = options.split_at(first.unwrap_or(options.len()));
    let arguments = if arguments.is_empty() { String::new() } else { format!(".SH ARGUMENTS\n{arguments}") };
    format!("{head}{arguments}.SH OPTIONS\n{options}{rest}")
}

/// What stands between backticks is typed as it is.
fn with_bold_code(text: &str) -> String {
    let mut parts = text.split('`');
    let mut bold = parts.next().unwrap_or_default().to_owned();
    for (n, part) in parts.enumerate() {
        bold.push_str(if n % 2 == 0 { "\\fB" } else { "\\fR" });
        bold.push_str(part);
    }
    bold
}

/// The generator breaks lines around an empty one, which does nothing more and which mandoc warns of.
fn without_double_breaks(text: &str) -> String {
    text.replace(".br\n\n.br\n", ".sp\n")
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

/// Every program that is fed, asks by a helper, or reads a format has its recipe, with what it was tested with.
#[test]
fn page_of_consumers_has_a_recipe_for_each() {
    let page = std::fs::read_to_string(root().join("man/keepalive-consumers.7")).unwrap();
    for consumer in CONSUMERS {
        assert!(page.contains(&format!("\nkeepalive feed {} ", consumer.name)), "{}", consumer.name);
        let version = consumer.tested.split([';', ',']).next().unwrap_or_default();
        assert!(page.to_lowercase().contains(&version.to_lowercase()), "{}: {version}", consumer.name);
    }
    for recipe in page.split("\n.Ss ").skip(2) {
        let is_judged = ["\nTests", "\nBy hand: ", "\nNot tested"].iter();
        assert!(is_judged.clone().any(|word| recipe.contains(word)), "{}", recipe.lines().next().unwrap_or_default());
    }
    for word in ["git", "docker", "cargo", "bazel", "openclaw"] {
        let is_there = page.contains(&format!("keepalive helper {word}"))
            || ["docker", "cargo"].contains(&word) && page.contains("\"keepalive\"");
        assert!(is_there, "{word}");
    }
    for format in ["curl", "env", "kubectl", "gcloud-executable", "grok"] {
        assert!(
            page.contains(&format!("--format {format}")) || page.contains(&format!("--format, {format}")),
            "{format}"
        );
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
fn shell_completion_scripts_are_those_printed() {
    for (shell, file) in [(Shell::Bash, "keepalive.bash"), (Shell::Zsh, "_keepalive"), (Shell::Fish, "keepalive.fish")]
    {
        let script = completion_script(shell);
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
        let is_list = example.contains(&format!(".{key}]]\n"));
        lines || is_list || [']', '.'].iter().any(|end| example.contains(&format!("\n[{key}{end}")))
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

/// What bash offers for a line, with the program in its path.
fn offers(sandbox: &Sandbox, dir: &Path, line: &str) -> Vec<String> {
    let ask = format!(
        "source {}; COMP_LINE='keepalive {line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDBREAKS=' :'; \
         COMP_WORDS=(keepalive {line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
         _clap_complete_keepalive keepalive \"${{COMP_WORDS[COMP_CWORD]}}\" ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        root().join("contrib/completions/keepalive.bash").display()
    );
    let mut bash = sandbox.command(Path::new("bash"));
    let program = Path::new(PROGRAM).parent().unwrap();
    bash.args(["-c", &ask]).current_dir(dir).env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    let out = bash.output().expect("bash");
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let is_name = |line: &&str| !line.is_empty() && !line.starts_with('-');
    String::from_utf8(out.stdout).unwrap().lines().filter(is_name).map(str::to_owned).collect()
}

/// Files of the directory were offered for profiles and providers.
#[test]
fn bash_completes_names_of_profiles_and_providers_and_no_files() {
    let sandbox = Sandbox::new();
    sandbox.file_store(
        "[profile.\"work-1\"]\nprovider = \"xai\"\n[profile.home]\nprovider = \"xai\"\n\
                        [profile.\"xai:default\"]\nprovider = \"xai\"\n",
    );
    let dir = sandbox.path("files");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("hour.json"), "").unwrap();
    assert_eq!(offers(&sandbox, &dir, "token "), ["home", "work-1", "xai:default"]);
    assert_eq!(offers(&sandbox, &dir, "token xai:d"), ["default"], "a colon ends a word of bash");
    assert_eq!(offers(&sandbox, &dir, "token ho"), ["home"]);
    assert_eq!(offers(&sandbox, &dir, "refresh -p wo"), ["work-1"]);
    assert_eq!(offers(&sandbox, &dir, "login x --provider goo"), ["google"]);
    assert_eq!(offers(&sandbox, &dir, "providers xa"), ["xai"]);
    assert_eq!(offers(&sandbox, &dir, "import home ho"), ["hour.json"]);
    assert_eq!(offers(&sandbox, &dir, "stat"), ["status"]);
    assert!(offers(&sandbox, &dir, "token nothing-like-it").is_empty());
}

#[ignore = "needs install, bash, man and zsh; contrib/test runs it"]
#[test]
fn install_docs_puts_pages_where_man_finds_them() {
    let sandbox = Sandbox::new();
    let prefix = sandbox.path("prefix");
    let installed =
        Command::new(root().join("contrib/install-docs")).arg(&prefix).env_remove("MANPATH").output().unwrap();
    assert!(installed.status.success());
    // Nothing looks there, and the lines that are printed change that.
    let shown = String::from_utf8(installed.stdout).unwrap();
    let runs = |script: &str| Command::new("sh").args(["-c", script]).env_remove("MANPATH").output().unwrap();
    let line = |part| shown.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{shown}")).trim();
    let found = String::from_utf8(runs(&format!("{}; man -w keepalive", line("export MANPATH="))).stdout).unwrap();
    assert!(found.contains(prefix.to_str().unwrap()), "{found}");
    let known = "autoload -Uz compinit; compinit -u -D; echo $_comps[keepalive]";
    let zsh = Command::new("zsh").args(["-f", "-c", &format!("{}; {known}", line("fpath=("))]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&zsh.stdout).trim(), "_keepalive");
    for file in [
        "man/man1/keepalive.1",
        "man/man1/keepalive-token.1",
        "man/man5/keepalive.toml.5",
        "man/man7/keepalive-consumers.7",
        "bash-completion/completions/keepalive",
        "zsh/site-functions/_keepalive",
        "fish/vendor_completions.d/keepalive.fish",
    ] {
        assert!(prefix.join("share").join(file).exists(), "{file}");
    }
}
