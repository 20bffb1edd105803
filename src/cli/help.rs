//! What the help and the manual of a command say beyond its options: examples, exit status, and where to read on.

use clap::{Arg, Command, CommandFactory};

use super::Cli;

/// One command: examples with what they do, the exit statuses it can have besides 0 to 2, and other manual pages.
struct Page {
    command: &'static str,
    examples: &'static [(&'static str, &'static str)],
    statuses: &'static [u8],
    see_also: &'static [&'static str],
}

const PAGES: &[Page] = &[
    Page {
        command: "login",
        examples: &[
            ("keepalive login xai", "Sign in to a built-in provider; the profile gets its name"),
            (
                "keepalive login work --issuer https://login.acme.example --client-id my-client",
                "Sign in to a provider that is not configured, and add it",
            ),
            ("keepalive login work --provider acme", "Sign in to a provider of your configuration, as profile work"),
            ("keepalive login work --device", "Sign in on another device"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-import(1)", "keepalive-providers(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "logout",
        examples: &[("keepalive logout work", "Revoke the refresh token and delete the credential")],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-login(1)"],
    },
    Page {
        command: "import",
        examples: &[
            ("keepalive import work --provider acme response.json", "Import the token response in a file"),
            ("keepalive import openai --from codex", "Take over the credential of Codex"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-login(1)", "keepalive-doctor(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "feed",
        examples: &[
            ("keepalive feed codex openai", "Take over the sign-in of Codex, and feed it from then on"),
            ("keepalive feed claude work --dry-run", "Show what would be changed for Claude Code"),
            ("keepalive feed codex openai --undo", "Take it back"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-import(1)", "keepalive-status(1)", "keepalive.toml(5)", "keepalive-consumers(7)"],
    },
    Page {
        command: "handle",
        examples: &[
            ("keepalive handle create work --name ci", "Make a handle for the access token of a profile"),
            (
                "keepalive handle create openai --floor 5m30s --id-token",
                "For a program that asks again at once if it gets a token with less than five minutes left",
            ),
            ("keepalive handle create --metrics", "For Prometheus"),
            ("keepalive handle list", "Show which there are, and when each was used last"),
            ("keepalive handle revoke ci", "Revoke one by its name, or by its id"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-daemon(1)", "keepalive-logout(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "refresh",
        examples: &[
            ("keepalive refresh", "Refresh what is due"),
            (
                "keepalive --quiet refresh --lookahead 10m",
                "From cron, every 10 minutes: what stays wrong is told once a day",
            ),
            ("keepalive refresh -p work --force", "Refresh one profile now"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-daemon(1)", "keepalive-status(1)"],
    },
    Page {
        command: "daemon",
        examples: &[
            ("keepalive service install", "Run it as a service of your user"),
            ("keepalive daemon", "Run it in this terminal, until Ctrl-C"),
        ],
        statuses: &[78],
        see_also: &["keepalive-refresh(1)", "keepalive-status(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "token",
        examples: &[
            ("curl -H \"$(keepalive token work --format header)\" https://api.acme.example/me", "Use a token once"),
            ("TOKEN=$(keepalive token work --min-valid 10m) || exit", "Get one that lasts for the rest of a script"),
            (
                "keepalive token work --format curl | curl -K - https://api.acme.example/me",
                "Use one without showing it to other users in the list of processes",
            ),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-exec(1)", "keepalive-helper(1)", "keepalive-refresh(1)", "keepalive-consumers(7)"],
    },
    Page {
        command: "exec",
        examples: &[
            ("keepalive exec xai -- python agent.py", "Run a program with XAI_API_KEY set to a fresh token"),
            ("keepalive exec github --env GITHUB_TOKEN -- make release", "Name the variable"),
            (
                "keepalive exec work --refresh-on-exit-status 41 -- ./sync",
                "Run it once more, with a newer token, if it ends with 41",
            ),
        ],
        statuses: &[69, 75, 77, 78, 126, 127],
        see_also: &["keepalive-token(1)", "keepalive-helper(1)"],
    },
    Page {
        command: "helper",
        examples: &[
            (
                "git config --global credential.helper '!keepalive helper git'",
                "Give git the tokens of the profiles whose hosts match",
            ),
            ("keepalive helper --install-links ~/.local/bin", "Make the links by which git and Docker find a helper"),
            (
                "printf reg.acme.example | keepalive helper docker get",
                "See what Docker would get, with {\"credHelpers\": {\"reg.acme.example\": \"keepalive\"}} in its config.json",
            ),
            ("exec keepalive helper bazel work \"$@\"", "A script for --credential_helper of Bazel"),
            (
                "printf 'protocol=https\\nhost=git.acme.example\\n' | keepalive helper git work get",
                "See what git would get of one profile",
            ),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-token(1)", "keepalive.toml(5)", "keepalive-consumers(7)", "gitcredentials(7)"],
    },
    Page {
        command: "status",
        examples: &[
            ("keepalive status", "Show all profiles"),
            ("keepalive -v status -p work", "Show one, with exact times"),
            (
                "keepalive status --json | jq -r '.profiles[] | select(.state == \"needs_login\").profile'",
                "List who must sign in",
            ),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-doctor(1)"],
    },
    Page {
        command: "doctor",
        examples: &[
            ("keepalive doctor", "Show the problems, and what to do"),
            ("keepalive -v doctor", "Show the checks that passed, too"),
        ],
        statuses: &[69, 75, 77, 78],
        see_also: &["keepalive-status(1)"],
    },
    Page {
        command: "providers",
        examples: &[
            ("keepalive providers", "List the providers"),
            ("keepalive providers google", "Show how one behaves, and which client it needs"),
        ],
        statuses: &[78],
        see_also: &["keepalive-login(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "init",
        examples: &[
            ("keepalive init --store file", "Choose encrypted files, on a machine without a keyring"),
            ("keepalive init --store keyring --yes", "Choose the keyring, from a script"),
        ],
        statuses: &[69, 78],
        see_also: &["keepalive-login(1)", "keepalive.toml(5)"],
    },
    Page {
        command: "service",
        examples: &[
            ("keepalive service install", "Install and start the daemon as a unit of systemd, lingering included"),
            ("keepalive service install --cron", "Without systemd: a run of cron every ten minutes"),
            ("keepalive service status", "Show whether it runs"),
        ],
        statuses: &[78],
        see_also: &["keepalive-daemon(1)", "keepalive-refresh(1)", "systemctl(1)", "crontab(1)"],
    },
    Page {
        command: "rehearse",
        examples: &[("keepalive rehearse", "Test this machine before it gets a real token")],
        statuses: &[69, 78],
        see_also: &["keepalive-doctor(1)"],
    },
    Page {
        command: "completions",
        examples: &[
            ("source <(keepalive completions bash)", "In ~/.bashrc"),
            ("source <(keepalive completions zsh)", "In ~/.zshrc, after compinit"),
            ("keepalive completions fish | source", "In ~/.config/fish/config.fish"),
        ],
        statuses: &[],
        see_also: &[],
    },
];

/// Every exit status, in few words.
const STATUSES: &[(u8, &str)] = &[
    (0, "success, or nothing to do"),
    (1, "another error; the message says which"),
    (2, "wrong usage"),
    (69, "the credential store cannot be used; nothing was sent"),
    (75, "a temporary failure, to be retried"),
    (77, "sign in again, or there is no such profile"),
    (78, "the configuration is wrong, or the provider rejects the client"),
    (126, "the command cannot be run; any other status is the command's own"),
    (127, "the command is not found"),
];

impl Page {
    fn of(command: &str) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.command == command)
    }

    fn statuses(&self) -> impl Iterator<Item = &'static (u8, &'static str)> {
        STATUSES.iter().filter(|(code, _)| *code <= 2 || self.statuses.contains(code))
    }

    fn see_also(&self) -> String {
        std::iter::once("keepalive(1)").chain(self.see_also.iter().copied()).collect::<Vec<_>>().join(", ")
    }

    fn long_help(&self) -> String {
        let mut text = String::from("Examples:\n");
        for (line, what) in self.examples {
            text.push_str(&format!("  {line}\n      {what}\n"));
        }
        text.push_str("\nExit status:\n");
        for (code, what) in self.statuses() {
            text.push_str(&format!("  {code:<3} {what}\n"));
        }
        text.push_str(&format!("\nSee also: {}", self.see_also()));
        text
    }
}

/// The command line with what the help says beyond the options. Where no help is asked for, that is left out: it would
/// cost each call some time.
pub(super) fn command() -> Command {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let is_help = words.is_empty() || words.iter().any(|word| word == "-h" || word == "--help" || word == "help");
    if is_help { command_with_help() } else { Cli::command() }
}

fn command_with_help() -> Command {
    let mut command = Cli::command();
    // The options of every command are given to each when it is built; only then can they be hidden there.
    command.build();
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in &names {
        command = command.mut_subcommand(name, |sub| {
            let sub = sub.mut_args(|arg| if arg.is_global_set() { arg.hide_short_help(true) } else { arg });
            match Page::of(name) {
                None => sub,
                Some(page) => sub
                    .after_help(format!("Global options: keepalive -h. Examples: keepalive {name} --help"))
                    .after_long_help(page.long_help()),
            }
        });
    }
    command
}

/// How a command is called, with the values of its options.
pub fn synopsis(command: &Command, name: &str) -> String {
    let is_shown = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    let word = |arg: &Arg| {
        let values = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = values.map(|values| values.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(" "));
        let many = if matches!(arg.get_action(), clap::ArgAction::Append) { "..." } else { "" };
        let text = match (arg.get_short(), arg.get_long(), value) {
            (_, Some(long), Some(value)) => format!("--{long} {value}"),
            (_, Some(long), None) => format!("--{long}"),
            (Some(short), None, _) => format!("-{short}"),
            (None, None, value) => value.unwrap_or_else(|| arg.get_id().as_str().to_uppercase()),
        };
        if arg.is_required_set() { format!("{text}{many}") } else { format!("[{text}]{many}") }
    };
    let options = command.get_arguments().filter(is_shown).filter(|arg| !arg.is_positional());
    let positionals = command.get_arguments().filter(is_shown).filter(|arg| arg.is_positional());
    let actions: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let action = (!actions.is_empty()).then(|| format!("{} [ARGUMENT]...", actions.join("|")));
    let words: Vec<String> = options.chain(positionals).map(word).chain(action).collect();
    std::iter::once(name.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// What the manual page of a command says beyond its options, as roff.
pub fn manual_of_command(name: &str) -> String {
    let Some(page) = Page::of(name) else { return String::new() };
    let escaped = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    let mut text = String::from(".SH EXAMPLES\n");
    for (line, what) in page.examples {
        text.push_str(&format!(".TP\n\\&{}\n{what}.\n", escaped(line)));
    }
    text.push_str(".SH EXIT STATUS\n");
    for (code, what) in page.statuses() {
        text.push_str(&format!(".TP\n.B {code}\n{what}\n"));
    }
    text.push_str(".SH SEE ALSO\n");
    let pages = std::iter::once("keepalive(1)").chain(page.see_also.iter().copied());
    let lines: Vec<String> =
        pages.map(|page| page.replacen('(', " (", 1)).map(|page| format!(".BR {}", escaped(&page))).collect();
    text.push_str(&lines.join(" ,\n"));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_that_parse() {
        for sub in Cli::command().get_subcommands() {
            let page = Page::of(sub.get_name()).unwrap_or_else(|| panic!("{} has no page", sub.get_name()));
            for (line, _) in page.examples {
                let Some(at) = line.find("keepalive ") else { continue };
                let call = line[at..].split([')', '|', '\'']).next().unwrap();
                if line.starts_with("systemctl") {
                    continue;
                }
                assert!(Cli::command().try_get_matches_from(call.split_whitespace()).is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn short_help_of_a_command_leaves_out_the_global_options() {
        let mut command = command_with_help();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let (short, long) = (sub.render_help().to_string(), sub.render_long_help().to_string());
            assert!(!short.contains("--color") && short.contains("keepalive -h"), "{short}");
            assert!(short.lines().count() <= 24, "{short}");
            assert!(long.contains("--color") && long.contains("Examples:") && long.contains("Exit status:"), "{long}");
        }
        assert!(command.render_help().to_string().contains("--color"));
    }
}
