//! `keepalive token`: prints an access token that is valid for long enough, in the form that a program reads.

pub(super) mod format;

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::obtain::{NoToken, TokenWish, obtain};
use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::access::setup::Setup;
use crate::cli::warnings::tell_news;
use crate::clock::Timestamp;
use crate::engine::access_token::TokenOutput;
use crate::engine::rejected_token::RejectionReport;
use crate::outcome::{ErrorKind, Failure, OutcomeKind};
use crate::profile::ProfileName;
use crate::sys::paths;
use format::{Format, FormatInput, gcloud_failure, render};

/// Print an access token, refreshing it if necessary
///
/// Asks the daemon if one is running, otherwise the store. If the refresh fails and the token is still valid, prints the
/// token with a warning.
///
/// The formats for Google's clients and Grok Build follow their documentation; the others were tried with their programs.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Profile whose token to print
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    pub(super) profile: ProfileName,
    /// Refresh unless the token is valid for at least DUR [default: 60s; for grok 10m]
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub(super) min_valid: Option<Duration>,
    /// Output format
    #[arg(long, value_enum, value_name = "F", default_value_t = Format::Raw)]
    pub(super) format: Format,
    /// Wait at most DUR. A refresh by another process continues; one that this command sent is always finished first
    /// [default: 60s, or less if the reader of the format waits less]
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub(super) timeout: Option<Duration>,
    /// Put the ID token into the JSON, too, if there is one
    #[arg(long)]
    pub(super) id_token: bool,
    /// Name of the variable of --format env [default: KEEPALIVE_ACCESS_TOKEN]
    #[arg(long, value_name = "NAME", value_parser = super::variable_name)]
    pub(super) env: Option<String>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl TokenArgs {
    fn format(&self, out: &Output) -> Format {
        if out.is_json { Format::Json } else { self.format }
    }

    pub(super) fn wish(&self, format: Format) -> TokenWish {
        // Grok begins to ask again 5 minutes before the end.
        let min_valid = if format == Format::Grok { 10 * MINUTE } else { MINUTE };
        TokenWish {
            profile: self.profile.clone(),
            min_valid: self.min_valid.unwrap_or(min_valid),
            timeout: self.timeout.unwrap_or(patience(format)),
            id_token: self.id_token || format == Format::GcloudExecutable,
            rejection: (format == Format::Grok && paths::is_grok_token_rejected())
                .then_some(RejectionReport::unproven(None)),
        }
    }

    /// The token as text.
    pub(super) fn rendered(
        &self,
        format: Format,
        token: &TokenOutput,
        outcome: OutcomeKind,
        warnings: &[String],
        now: Timestamp,
    ) -> Result<String, Failure> {
        let exec_info = paths::kubernetes_exec_info();
        let (variable, exec_info) = (self.env.as_deref().unwrap_or(paths::TOKEN), exec_info.as_deref());
        render(format, &FormatInput { profile: &self.profile, token, outcome, warnings, now, variable, exec_info })
    }
}

/// How long a program waits for a token in this format, a little less.
fn patience(format: Format) -> Duration {
    match format {
        Format::Raw | Format::Json | Format::Header | Format::Curl | Format::Env => MINUTE,
        Format::Kubectl => MINUTE / 2,
        Format::GcloudExecutable => Duration::from_secs(25),
        Format::Grok => Duration::from_secs(6),
    }
}

/// `used`: so much of the time that it may take is over.
pub(super) fn run(args: &TokenArgs, global: &GlobalArgs, used: Duration, out: &Output) -> CommandStatus {
    let format = args.format(out);
    if args.env.is_some() && format != Format::Env {
        let failure = Failure::new(ErrorKind::Usage, "--env is for --format env").with_hint("write --format env, too");
        return refuse(format, NoToken { failure, status: CommandStatus::Usage }, out);
    }
    if out.is_json && !matches!(args.format, Format::Raw | Format::Json) {
        let failure =
            Failure::new(ErrorKind::Usage, "--json and --format ask for two forms").with_hint("leave one out");
        return refuse(format, NoToken { failure, status: CommandStatus::Usage }, out);
    }
    let explain = || out.info(&format!("{}: waiting for a refresh in progress …", args.profile));
    let setup = match Setup::new(global.places()) {
        Ok(setup) => setup,
        Err(failure) => return refuse(format, NoToken::of_config(failure), out),
    };
    setup.mirrors().limit_waits(Some(Duration::ZERO));
    let wish = args.wish(format);
    let wish = TokenWish { timeout: wish.timeout.saturating_sub(used), ..wish };
    let printed = obtain(&setup, &wish, &explain).and_then(|obtained| {
        let (token, now) = (&obtained.token, setup.clock.now().wall);
        let text = args
            .rendered(format, token, obtained.outcome, &obtained.warnings, now)
            .map_err(|failure| NoToken { failure, status: CommandStatus::Failed })?;
        obtained.warn(&args.profile, out);
        out.data(&text);
        Ok(())
    });
    tell_news(&setup, out);
    printed.map_or_else(|none| refuse(format, none, out), |()| CommandStatus::Ok)
}

/// Ends without a token. A program gets one line on stderr, and a person more; so does a script that prints a token, of a
/// configuration with mistakes: their lines are needed to mend it.
fn refuse(format: Format, none: NoToken, out: &Output) -> CommandStatus {
    let NoToken { failure, status } = none;
    if format == Format::GcloudExecutable {
        out.error_line(&failure);
        out.json(&gcloud_failure(&failure));
        return CommandStatus::Ok;
    }
    let is_about_lines = format == Format::Raw && !failure.mistakes.is_empty();
    if out.is_json || out.is_terminal() || is_about_lines {
        out.fail(&failure);
    } else {
        out.error_line(&failure);
    }
    status
}
