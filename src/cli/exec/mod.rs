//! `keepalive exec`: runs a command with an access token in its environment.

mod child;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;

use super::obtain::{NoToken, TokenWish, check_carriable, obtain};
use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::access::setup::Setup;
use crate::cli::warnings::tell_news;
use crate::engine::access_token::TokenOutput;
use crate::engine::rejected_token::RejectionReport;
use crate::events;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{ProfileName, SecretSource};
use crate::sys::{paths, process};
use child::Runner;

/// Run a command with an access token in its environment
///
/// Gets the token first, and then becomes the command: its process, signals and exit status are the command's own. An
/// environment cannot change, so a command that runs longer than its token lives must ask again: with `keepalive token`, over
/// the daemon's socket (KEEPALIVE_SOCKET), or by a file that keepalive keeps current. The command has none of the variables
/// that the configuration reads secrets from, so where there are such, `keepalive token` in it needs the daemon.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Profile whose token the command gets
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profile: ProfileName,
    /// Put the token into this variable; repeatable [default: the profile's env, or KEEPALIVE_ACCESS_TOKEN]
    #[arg(long, value_name = "NAME", value_parser = super::variable_name)]
    env: Vec<String>,
    /// Refresh unless the token is valid for at least DUR
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "10m")]
    min_valid: Duration,
    /// Wait at most DUR for a refresh by another process
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "60s")]
    timeout: Duration,
    /// Run the command once more if it ends with the status N and there is a newer token then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    refresh_on_exit_status: Option<u8>,
    /// The command, and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, allow_hyphen_values = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// What a shell ends with for a command that it cannot find, or cannot run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(super) fn run(args: &ExecArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let run = || {
        refuse_option(args)?;
        let setup = Setup::new(global.places()).map_err(NoToken::of_config)?;
        // The command waits for its token, and for no one else's.
        setup.mirrors().limit_waits(Some(Duration::ZERO));
        let token = token(args, &setup, None, out)?;
        match args.refresh_on_exit_status {
            None => Err(become_command(args, &setup, &token)),
            Some(status) => run_as_child(args, status, &setup, token, out),
        }
    };
    run().unwrap_or_else(|NoToken { failure, status }| {
        out.fail(&failure);
        status
    })
}

/// All that follows the profile may be the command's own, so a misspelt option of ours looks like a command.
fn refuse_option(args: &ExecArgs) -> Result<(), NoToken> {
    let program = args.command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    if !program.starts_with('-') {
        return Ok(());
    }
    let failure = Failure::new(ErrorKind::Usage, format!("unexpected option {program}"))
        .with_hint("keepalive exec --help lists the options; they stand before the command");
    Err(NoToken { failure, status: CommandStatus::Usage })
}

/// The token, with the refreshes of this process landed: nothing of them would survive what follows.
fn token(
    args: &ExecArgs,
    setup: &Setup,
    rejection: Option<RejectionReport>,
    out: &Output,
) -> Result<TokenOutput, NoToken> {
    let wish = TokenWish {
        profile: args.profile.clone(),
        min_valid: args.min_valid,
        timeout: args.timeout,
        id_token: false,
        rejection,
    };
    let explain = || out.info(&format!("{}: waiting for a refresh in progress …", args.profile));
    let obtained = obtain(setup, &wish, &explain)?;
    check_carriable(&obtained.token.access_token)
        .map_err(|failure| NoToken { failure, status: CommandStatus::Failed })?;
    obtained.warn(&args.profile, out);
    let (token, own_flights) = obtained.into_parts();
    drop(own_flights);
    tell_news(setup, out);
    Ok(token)
}

/// The command with its environment. The secrets that keepalive itself is given there are not for it.
fn command(args: &ExecArgs, setup: &Setup, token: &TokenOutput) -> Result<Command, NoToken> {
    let [program, rest @ ..] = &args.command[..] else {
        let failure = Failure::new(ErrorKind::Usage, "no command is given");
        return Err(NoToken { failure, status: CommandStatus::Usage });
    };
    let mut command = Command::new(program);
    command.args(rest).env_remove(paths::PARENT);
    for name in own_secrets(setup) {
        command.env_remove(name);
    }
    let of_profile = setup.profile(&args.profile).ok().and_then(|profile| profile.consumers.env);
    let usual = of_profile.as_deref().unwrap_or(paths::TOKEN);
    let asked = args.env.iter().map(String::as_str);
    command.envs(asked.chain(args.env.is_empty().then_some(usual)).map(|name| (name, &token.access_token)));
    command.env(paths::PROFILE, args.profile.as_str()).env(paths::SOCKET, &setup.environment.socket);
    match token.expires_at {
        Some(at) => command.env(paths::EXPIRES_AT, at.to_the_second().to_string()),
        None => command.env_remove(paths::EXPIRES_AT),
    };
    events::exec_starts(&args.profile, token.generation);
    Ok(command)
}

/// The variables that the configuration reads client secrets and keys from.
fn own_secrets(setup: &Setup) -> impl Iterator<Item = &str> {
    let sources = setup.config.providers.values().flat_map(|provider| [&provider.client_secret, &provider.client_key]);
    sources.filter_map(|source| match source {
        Some(SecretSource::Env(name)) => Some(name.as_str()),
        _ => None,
    })
}

/// Returns only if that fails.
fn become_command(args: &ExecArgs, setup: &Setup, token: &TokenOutput) -> NoToken {
    match command(args, setup, token) {
        Ok(mut command) => {
            process::soften();
            cannot_run(args, &command.exec())
        }
        Err(none) => none,
    }
}

fn run_as_child(
    args: &ExecArgs,
    refresh_on: u8,
    setup: &Setup,
    token: TokenOutput,
    out: &Output,
) -> Result<CommandStatus, NoToken> {
    let failed = |e: io::Error| cannot_run(args, &e);
    let runner = Runner::new().map_err(failed)?;
    let status = runner.run(&mut command(args, setup, &token)?).map_err(failed)?;
    if status != refresh_on || runner.is_stopping() {
        return Ok(CommandStatus::Child(status));
    }
    // A failure to get a newer one is told by the command's own end.
    let rejection = Some(RejectionReport::unproven(Some(token.generation)));
    let newer = self::token(args, setup, rejection, out).ok().filter(|newer| newer.generation > token.generation);
    let Some(newer) = newer.filter(|_| !runner.is_stopping()) else {
        events::exec_again(&args.profile, "there is no newer token");
        return Ok(CommandStatus::Child(status));
    };
    events::exec_again(&args.profile, "there is a newer token");
    runner.run(&mut command(args, setup, &newer)?).map_err(failed).map(CommandStatus::Child)
}

fn cannot_run(args: &ExecArgs, error: &io::Error) -> NoToken {
    let program = args.command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    let (status, hint) = match error.kind() {
        io::ErrorKind::NotFound => (NOT_FOUND, "check its name, PATH, and the interpreter in its first line"),
        io::ErrorKind::PermissionDenied => (NOT_EXECUTABLE, "it must be a program, or a script with mode +x"),
        _ => (NOT_EXECUTABLE, "try it in a shell"),
    };
    let failure = Failure::new(ErrorKind::Exec, format!("cannot run `{program}`: {error}")).with_hint(hint);
    NoToken { failure, status: CommandStatus::Child(status) }
}
