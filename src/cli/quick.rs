//! The early path of `keepalive token PROFILE`: a daemon that has a token is asked before the command line is parsed and the
//! configuration is read. Everything else, and every doubt, is left to the full path.

use std::ffi::OsString;
use std::time::Duration;

use clap::ValueEnum;

use super::output::{CommandStatus, Output};
use super::token::TokenArgs;
use super::token::format::Format;
use super::{Colour, GlobalArgs};
use crate::broker::{BrokerRequest, DaemonPlaces, client};
use crate::clock::Clock;
use crate::outcome::OutcomeKind;
use crate::sys::clock::SystemClock;
use crate::sys::paths::Environment;

/// Prints the token that the daemon has. `Err`: the full path decides, and so much time is used up. `words`: the whole command
/// line.
pub(super) fn run(words: &[OsString]) -> Result<CommandStatus, Duration> {
    let began = SystemClock.now();
    answer(words).ok_or_else(|| SystemClock.now().time_since(&began))
}

fn answer(words: &[OsString]) -> Option<CommandStatus> {
    let args = parse(words)?;
    let environment = Environment::from_env(None);
    let is_plain =
        environment.parent_pid.is_none() && environment.active_profiles.is_empty() && environment.log_filter.is_none();
    let wish = args.wish(args.format);
    if !is_plain || wish.rejection.is_some() {
        return None;
    }
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).ok();
    // It is not waited for: the full path says what it waits for, and joins the refresh that this request began.
    let request = BrokerRequest {
        profile: wish.profile,
        min_valid_ms: millis(wish.min_valid)?,
        timeout_ms: 0,
        id_token: wish.id_token,
        rejected: None,
    };
    let reply = client::request_token(&DaemonPlaces::of(&environment), &SystemClock, &request).ok()?;
    let is_well = matches!(reply.outcome, OutcomeKind::Fresh | OutcomeKind::Refreshed) && reply.warnings.is_empty();
    let token = reply.token.filter(|_| is_well)?;
    let text = args.rendered(args.format, &token, reply.outcome, &[], SystemClock.now().wall).ok()?;
    let out = Output::new(&GlobalArgs { config: None, json: false, quiet: false, verbose: 0, color: Colour::Never });
    out.data(&text);
    Some(out.finish(CommandStatus::Ok))
}

/// `token PROFILE` with any of `--min-valid`, `--format` and `--timeout`, each once, in either spelling. (pure)
fn parse(words: &[OsString]) -> Option<TokenArgs> {
    let words: Vec<&str> = words.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let [_, "token", rest @ ..] = words.as_slice() else { return None };
    let (mut profile, mut min_valid, mut format, mut timeout) = (None, None, None, None);
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, value),
            _ if word.starts_with('-') => (*word, *rest.next()?),
            _ => ("", *word),
        };
        let is_first = match option {
            "" => profile.replace(super::profile_name(value).ok()?).is_none(),
            "--min-valid" => min_valid.replace(super::duration(value).ok()?).is_none(),
            "--timeout" => timeout.replace(super::duration(value).ok()?).is_none(),
            "--format" => format.replace(Format::from_str(value, false).ok()?).is_none(),
            _ => false,
        };
        if !is_first {
            return None;
        }
    }
    let format = format.unwrap_or(Format::Raw);
    Some(TokenArgs { profile: profile?, min_valid, format, timeout, id_token: false, env: None })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    /// What the full path makes of the line.
    fn parse_in_full(line: &str) -> Option<TokenArgs> {
        match Cli::try_parse_from(words(line)).ok()?.command {
            Command::Token(args) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn quick_line_means_what_the_full_path_makes_of_it() {
        for line in [
            "keepalive token demo",
            "/usr/bin/keepalive token work:a@b --min-valid 5m",
            "keepalive token --min-valid=1h30m demo --format json --timeout 3s",
            "keepalive token --timeout=0s --format=kubectl demo",
            "keepalive token demo --format grok",
            "keepalive token demo --format gcloud-executable",
        ] {
            let quick = parse(&words(line)).expect(line);
            assert_eq!(format!("{quick:?}"), format!("{:?}", parse_in_full(line).expect(line)), "{line}");
        }
    }

    #[test]
    fn other_lines_are_left_to_the_full_path() {
        for line in [
            "keepalive",
            "keepalive token",
            "keepalive status",
            "keepalive token demo other",
            "keepalive token demo --json",
            "keepalive token demo -v",
            "keepalive -q token demo",
            "keepalive token demo --config /x",
            "keepalive token demo --min-valid",
            "keepalive token demo --min-valid 5",
            "keepalive token demo --min-valid 5m --min-valid 6m",
            "keepalive token demo --min-val 5m",
            "keepalive token demo --format yaml",
            "keepalive token -- demo",
            "keepalive token demo --id-token",
            "keepalive token demo --help",
            "keepalive token ../x",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
