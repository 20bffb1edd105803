//! The command line: its commands and options, and the function of each command.

mod completion;
mod daemon;
mod doctor;
mod exec;
mod feed;
mod handle;
mod help;
mod helper;
mod import;
mod init;
mod layout;
mod listener_state;
mod live_profiles;
mod logging;
mod login;
mod logout;
mod obtain;
mod output;
mod providers;
mod quick;
mod refresh;
mod refresher;
pub mod rehearse;
mod service;
mod signals;
mod status;
mod store_choice;
mod token;
mod told;
mod usage_error;
mod warnings;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::profile::{ProfileName, is_variable_name};
use crate::sys::paths::Environment;
use crate::sys::{paths, process, threads, tool_process};
use output::{CommandStatus, Output};

/// Keeps OAuth credentials alive: one refresh at a time, nothing replayed, nothing lost.
///
/// OAuth access tokens expire. Most providers rotate the refresh token at each use, and revoke the whole login if an old
/// one is used again. keepalive refreshes each profile a set time before expiry, from its daemon, from cron or by hand.
/// However many processes ask at once, one request is made and all of them get its outcome.
#[derive(Debug, Parser)]
#[command(name = "keepalive", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Read the configuration from FILE instead of the default location
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print one JSON document; `daemon` logs one JSON object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Only print errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log the decisions and the reasons for them; -vv for every step
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Colour::Auto)]
    pub color: Colour,
}

impl GlobalArgs {
    /// The places of this run.
    fn places(&self) -> Environment {
        let own_program = std::env::current_exe().ok();
        Environment { own_program, ..Environment::from_env(self.config.as_deref()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Login(login::LoginArgs),
    Logout(logout::LogoutArgs),
    Import(import::ImportArgs),
    Feed(feed::FeedArgs),
    Handle(handle::HandleArgs),
    Refresh(refresh::RefreshArgs),
    Daemon(daemon::DaemonArgs),
    Token(token::TokenArgs),
    Exec(exec::ExecArgs),
    Helper(helper::HelperArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Providers(providers::ProvidersArgs),
    Rehearse(rehearse::RehearseArgs),
    Init(init::InitArgs),
    Service(service::ServiceArgs),
    /// Print a completion script for a shell
    Completions {
        /// Shell to print the script for
        shell: Shell,
    },
}

impl Command {
    /// Whether it may ask or wait before it sends anything.
    fn waits_for_person(&self) -> bool {
        match self {
            Self::Login(_) | Self::Logout(_) | Self::Import(_) | Self::Feed(_) | Self::Doctor(_) => true,
            Self::Rehearse(_) | Self::Init(_) | Self::Service(_) => true,
            Self::Handle(_) | Self::Refresh(_) | Self::Daemon(_) | Self::Token(_) | Self::Exec(_) | Self::Helper(_) => {
                false
            }
            Self::Status(_) | Self::Providers(_) | Self::Completions { .. } => false,
        }
    }
}

/// What keepalive-daemon(1) says beyond the help, as roff: the API on its socket, and the events of the log.
pub fn daemon_manual() -> String {
    crate::broker::MANUAL.to_owned() + &crate::events::manual()
}

pub use completion::script as completion_script;
pub use help::{manual_of_command, synopsis};

/// What keepalive(1) says beyond the help, as roff: exit status, files, environment, and the kinds of errors.
pub fn manual() -> String {
    const PLACE_OF_KINDS: &str = ".\\\" The kinds of src/outcome/error_kind.rs stand here.\n";
    include_str!("manual.roff").replace(PLACE_OF_KINDS, &crate::outcome::ErrorKind::manual())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::clock::parse_duration(text)
}

fn profile_name(text: &str) -> Result<ProfileName, String> {
    text.parse::<ProfileName>().map_err(|e| e.to_string())
}

fn variable_name(text: &str) -> Result<String, String> {
    match is_variable_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a variable's name is made of letters, digits and _, and begins with no digit".into()),
    }
}

/// Runs the program and returns its exit status.
pub fn main() -> ExitCode {
    process::harden();
    std::panic::set_hook(Box::new(report_panic));
    process::outlive_file_size_limit();
    completion::answer_request();
    if let Some(started) = tool_process::start_left_behind(&paths::arguments()) {
        return if started.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let words = helper::names::written_out(paths::arguments());
    let used = match quick::run(&words) {
        Ok(status) => return status.into(),
        Err(used) => used,
    };
    let cli = match help::command().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage_error::report_parse_error(&error),
    };
    let output = Arc::new(Output::new(&cli.global));
    // Whatever was under way is in the journal. The hook has told of it.
    let status = catch_unwind(AssertUnwindSafe(|| run(&cli, used, &output))).unwrap_or(CommandStatus::Failed);
    signals::exit_status(output.finish(status)).into()
}

/// Says in one line that something went wrong that cannot: the exit status of such a run is 1.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if threads::is_panic_caught() {
        return;
    }
    let what = threads::panic_text(panic.payload());
    let place = panic.location().map_or(String::new(), |place| format!(" at {place}"));
    // Standard error may be closed.
    drop(writeln!(std::io::stderr(), "error: internal error: {what}{place}\n  hint: please report this line"));
}

/// `used`: the time that was spent on the early path.
fn run(cli: &Cli, used: Duration, out: &Arc<Output>) -> CommandStatus {
    let global = &cli.global;
    let places = global.places();
    if let Some(parent) = places.parent_pid {
        process::exit_with_parent(parent);
    }
    if !matches!(cli.command, Command::Daemon(_)) {
        logging::init_for_command(global, &places, out);
    }
    if cli.command.waits_for_person() {
        signals::exit_on_interrupt(out);
    }
    match &cli.command {
        Command::Token(args) => token::run(args, global, used, out),
        Command::Exec(args) => exec::run(args, global, out),
        Command::Helper(args) => helper::run(args, global, out),
        Command::Refresh(args) => refresh::run(args, global, out),
        Command::Status(args) => status::run(args, global, out),
        Command::Login(args) => login::run(args, global, out),
        Command::Logout(args) => logout::run(args, global, out),
        Command::Import(args) => import::run(args, global, out),
        Command::Feed(args) => feed::run(args, global, out),
        Command::Handle(args) => handle::run(args, global, out),
        Command::Daemon(args) => daemon::run(args, global, out),
        Command::Doctor(args) => doctor::run(args, global, out),
        Command::Providers(args) => providers::run(args, global, out),
        Command::Rehearse(args) => rehearse::run(args, global, out),
        Command::Init(args) => init::run(args, global, out),
        Command::Service(args) => service::run(args, global, out),
        Command::Completions { shell } => {
            out.data(&String::from_utf8_lossy(&completion::script(*shell)));
            CommandStatus::Ok
        }
    }
}
