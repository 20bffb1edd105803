//! Completion of commands, options, and the names of profiles and providers. The script of a shell calls the program at each
//! request, with [`paths::COMPLETE`] set.

use clap::CommandFactory;
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, CompletionCandidate, Shell};

use super::{Cli, Colour, GlobalArgs};
use crate::access::setup::{self, Setup};
use crate::sys::paths;
use crate::sys::paths::Environment;

/// Answers a request of a shell, and ends the process if this is one.
pub(super) fn answer_request() {
    CompleteEnv::with_factory(Cli::command).var(paths::COMPLETE).complete();
}

/// The script that a shell reads once. It finds the program in the path.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    if let Some(adapter) = Shells::builtins().completer(&shell.to_string()) {
        // Writing to memory does not fail.
        let _done = adapter.write_registration(paths::COMPLETE, "keepalive", "keepalive", "keepalive", &mut script);
    }
    let text = String::from_utf8_lossy(&script);
    let text = if shell == Shell::Bash { with_colons(&text) } else { text.into_owned() };
    format!("{}\n", text.trim()).into_bytes()
}

/// To bash a colon ends a word, so that it asks for less than a name like `xai:default`, and replaces less.
const JOIN_WORDS: &str = r#"() {
    local keepalive_before=
    if [[ $COMP_WORDBREAKS == *:* && $COMP_LINE == *:* ]]; then
        local COMP_WORDS COMP_CWORD keepalive_line=${COMP_LINE:0:COMP_POINT}
        IFS=' ' read -ra COMP_WORDS <<< "$keepalive_line"
        [[ $keepalive_line == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        set -- "$1" "${COMP_WORDS[COMP_CWORD]}" "$3"
        [[ $2 == *:* ]] && keepalive_before=${2%:*}:
    fi
"#;
const CUT_REPLIES: &str = r#"
    COMPREPLY=("${COMPREPLY[@]#"$keepalive_before"}")
}
"#;

fn with_colons(script: &str) -> String {
    script.replacen("() {\n", JOIN_WORDS, 1).replacen("\n}\n", CUT_REPLIES, 1)
}

/// The names of the profiles. Whatever is wrong is no concern of a completion.
pub(super) fn profiles() -> Vec<CompletionCandidate> {
    let global = GlobalArgs { config: None, json: false, quiet: true, verbose: 0, color: Colour::Never };
    let names = Setup::new(global.places()).ok().and_then(|setup| setup.all_profiles().ok()).unwrap_or_default();
    names.iter().map(|name| CompletionCandidate::new(name.as_str())).collect()
}

/// The names of the providers, built-in and configured.
pub(super) fn providers() -> Vec<CompletionCandidate> {
    let config = setup::load(&Environment::from_env(None));
    config.map_or_else(|_| Vec::new(), |config| config.providers.keys().map(CompletionCandidate::new).collect())
}
