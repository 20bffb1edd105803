//! Output and exit status: data on stdout, messages on stderr.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Colour, GlobalArgs, layout};
use crate::clock::Timestamp;
use crate::engine::status::ProfileStatus;
use crate::outcome::{Diagnostic, ErrorKind, Failure, Outcome, OutcomeKind, Position, ProfileState, Publication};
use crate::profile::ProfileName;
use crate::sys::journal;
use crate::sys::journal::Priority;
use crate::sys::paths;

/// The exit status. The order of the variants is from best to worst; of several the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandStatus {
    /// Fresh, refreshed, or nothing to do.
    Ok,
    /// Any other error.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Not possible now; it will be tried again. `EX_TEMPFAIL` of sysexits.h.
    TryAgain,
    /// The credential store cannot be used. `EX_UNAVAILABLE`.
    StoreUnavailable,
    /// Sign in again. `EX_NOPERM`.
    NeedsLogin,
    /// Correct the configuration. `EX_CONFIG`.
    Config,
    /// Ctrl-C ended it before it was done: 128 + `SIGINT`, as a shell shows it.
    Interrupted,
    /// What the command of `exec` ended with.
    Child(u8),
}

impl CommandStatus {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::TryAgain => 75,
            Self::StoreUnavailable => 69,
            Self::NeedsLogin => 77,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::Child(status) => status,
        }
    }

    pub fn from_outcome(outcome: &Outcome) -> Self {
        let is_pending = outcome.publication == Publication::PublishPending;
        match outcome.kind {
            OutcomeKind::Refreshed | OutcomeKind::Fresh if is_pending => Self::TryAgain,
            OutcomeKind::Refreshed | OutcomeKind::Fresh => Self::Ok,
            OutcomeKind::Deferred | OutcomeKind::InDoubt => Self::TryAgain,
            OutcomeKind::NeedsLogin => Self::NeedsLogin,
            OutcomeKind::ConfigError => Self::Config,
            OutcomeKind::StoreUnavailable => Self::StoreUnavailable,
        }
    }

    /// What a command ends with that failed before it had a result of its own.
    pub fn of_failed(outcome: Outcome) -> (Self, Failure) {
        let status = Self::from_outcome(&outcome);
        (status, outcome.error.unwrap_or_else(|| Failure::new(ErrorKind::Broken, "the reason is not known")))
    }

    pub fn from_status(status: &ProfileStatus, publication: Publication) -> Self {
        match status.state {
            ProfileState::ConfigError => Self::Config,
            ProfileState::NeedsLogin | ProfileState::NoCredential => Self::NeedsLogin,
            ProfileState::StoreUnavailable => Self::StoreUnavailable,
            ProfileState::Expired | ProfileState::Deferred | ProfileState::InDoubt => Self::TryAgain,
            ProfileState::Fresh | ProfileState::Due if publication == Publication::PublishPending => Self::TryAgain,
            // Inside its margin. Before that, a failure is shown and is no harm yet.
            ProfileState::Due if status.last_failure.is_some() => Self::TryAgain,
            ProfileState::Fresh | ProfileState::Due => Self::Ok,
        }
    }
}

impl From<CommandStatus> for ExitCode {
    fn from(status: CommandStatus) -> Self {
        Self::from(status.code())
    }
}

/// The two streams, and how to use them.
#[derive(Debug)]
pub struct Output {
    pub is_json: bool,
    is_quiet: bool,
    pub verbosity: u8,
    color_choice: ColorChoice,
    /// The last line is a countdown, to which other messages must not be appended.
    has_countdown: AtomicBool,
    /// A question waits for its answer.
    is_asking: AtomicBool,
    /// What is said goes to the journal of systemd, which reads priorities.
    is_journal: bool,
    /// Why stdout did not take what was printed, the first time.
    stdout_error: OnceLock<io::Error>,
}

/// The size limit of an answer to a question.
const MAX_ANSWER_BYTES: u64 = 1024;

pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// What to do: never less legible than what is wrong.
pub(super) const HINT: Style = Style::new().bold();

impl Output {
    pub fn new(global: &GlobalArgs) -> Self {
        Self {
            is_json: global.json,
            is_quiet: global.quiet,
            verbosity: global.verbose,
            color_choice: color_choice(global.color),
            has_countdown: AtomicBool::new(false),
            is_asking: AtomicBool::new(false),
            is_journal: journal::is_stderr_the_journal(),
            stdout_error: OnceLock::new(),
        }
    }

    /// Prints data as it is.
    pub fn data(&self, text: &str) {
        // After a failed write nothing more is printed, so that the output is a prefix and has no gaps.
        if self.stdout_error.get().is_some() {
            return;
        }
        let mut stdout = AutoStream::new(io::stdout(), self.color_choice).lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            // A reader that closed the pipe wants no more; that is no error.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(e) => {
                let _first = self.stdout_error.set(e);
            }
        }
    }

    /// The exit status for `status`; it is not a success if data was lost.
    pub fn finish(&self, status: CommandStatus) -> CommandStatus {
        let Some(error) = self.stdout_error.get() else { return status };
        let failure = Failure::new(ErrorKind::Output, format!("cannot write to standard output: {error}"))
            .with_hint("only the output is lost; everything that was refreshed or stored is safe");
        self.error(&failure);
        status.max(CommandStatus::Failed)
    }

    pub fn line(&self, text: &str) {
        self.data(&format!("{text}\n"));
    }

    /// Prints text for a person, wrapped at words on a terminal.
    pub fn paragraph(&self, text: &str, indent: usize) {
        self.line(&layout::wrap(&ascii_if_needed(text, io::stdout().is_terminal()), self.width(), indent));
    }

    /// Prints what to do about something said before.
    pub fn hint_line(&self, indent: usize, hint: &str) {
        let text = format!("{}{HINT}hint: {hint}{HINT:#}", " ".repeat(indent));
        self.paragraph(&text, indent + 2);
    }

    /// The width of the terminal that data goes to, if it goes to one.
    pub fn width(&self) -> Option<usize> {
        layout::stdout_width()
    }

    pub fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(e) => self.error(&Failure::new(ErrorKind::Json, e.to_string())),
        }
    }

    /// Prints a message, unless `--quiet` is set.
    pub fn info(&self, text: &str) {
        if !self.is_quiet {
            self.stderr(Priority::Info, text);
        }
    }

    /// Prints a message that a person needs to go on, even with `--quiet`.
    pub fn prompt(&self, text: &str) {
        self.stderr(Priority::Info, text);
    }

    /// Prints lines as they will be in a file: none is wrapped.
    pub fn prompt_lines(&self, lines: &str) {
        self.end_countdown();
        let _gone = writeln!(AutoStream::new(io::stderr(), self.color_choice).lock(), "{lines}");
    }

    /// Whether there is a person to ask.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && self.is_terminal()
    }

    /// Asks a person at the terminal for a yes; anything else is a no. `None`: there is no terminal to ask at.
    pub fn ask(&self, question: &str) -> Option<bool> {
        if !self.can_ask() {
            return None;
        }
        self.end_countdown();
        let mut stderr = io::stderr().lock();
        let _gone = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        drop(stderr);
        let mut line = String::new();
        self.is_asking.store(true, Ordering::Relaxed);
        let _end = io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut line);
        self.is_asking.store(false, Ordering::Relaxed);
        Some(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Whether a person has not answered a question yet.
    pub fn is_asking(&self) -> bool {
        self.is_asking.load(Ordering::Relaxed)
    }

    /// Whether messages go to a terminal.
    pub fn is_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    /// Whether a line can be overwritten, which needs a terminal that obeys control sequences. Colours do not matter.
    fn can_redraw(&self) -> bool {
        !self.is_quiet && self.is_terminal() && !paths::is_terminal_dumb()
    }

    /// Shows progress on one line.
    pub fn progress(&self, text: &str) {
        if !self.can_redraw() {
            return;
        }
        let mut stderr = io::stderr().lock();
        let _gone = write!(stderr, "\r\x1b[K{text} ").and_then(|()| stderr.flush());
        self.has_countdown.store(true, Ordering::Relaxed);
    }

    /// Shows the time left of a wait on one line.
    pub fn countdown(&self, left: Duration) {
        if !self.can_redraw() {
            return;
        }
        let seconds = left.as_secs();
        let mut stderr = io::stderr().lock();
        let _gone = write!(stderr, "\r{:>3}:{:02} left ", seconds / 60, seconds % 60).and_then(|()| stderr.flush());
        self.has_countdown.store(true, Ordering::Relaxed);
    }

    /// Ends the countdown.
    pub fn end_countdown(&self) {
        if self.has_countdown.swap(false, Ordering::Relaxed) {
            let _gone = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }

    pub fn warn(&self, text: &str) {
        if !self.is_quiet {
            self.stderr(Priority::Warning, &format!("{WARN}warning:{WARN:#} {text}"));
        }
    }

    /// Prints the error, its cause and its hint; of a configuration, each mistake with its line.
    pub fn error(&self, failure: &Failure) {
        // The message and the hint of a single one may have been made more precise since it was found.
        if let [] | [_] = &failure.mistakes[..] {
            let excerpt = failure.mistakes.first().and_then(excerpt_lines);
            return self.error_with_hint(&failure.message, excerpt.as_deref(), failure.hint.as_deref());
        }
        for mistake in &failure.mistakes {
            self.error_with_hint(&mistake.to_string(), excerpt_lines(mistake).as_deref(), mistake.hint.as_deref());
        }
        self.stderr(Priority::Error, &format!("the configuration has {} mistakes", failure.mistakes.len()));
    }

    fn error_with_hint(&self, message: &str, excerpt: Option<&str>, hint: Option<&str>) {
        self.stderr(Priority::Error, &format!("{BAD}error:{BAD:#} {message}"));
        if let Some(excerpt) = excerpt {
            self.stderr(Priority::Error, excerpt);
        }
        if let Some(hint) = hint {
            self.stderr(Priority::Error, &format!("{HINT}hint: {hint}{HINT:#}"));
        }
    }

    /// Prints the error and its hint as one line, for a program that shows or logs lines.
    pub fn error_line(&self, failure: &Failure) {
        self.stderr(Priority::Error, &format!("{BAD}error:{BAD:#} {}", failure.in_one_line()));
    }

    /// Prints the error of a command that has no other output; with `--json` as a document.
    pub fn fail(&self, failure: &Failure) {
        self.error(failure);
        if self.is_json {
            self.json(&serde_json::json!({ "error": failure }));
        }
    }

    fn stderr(&self, priority: Priority, text: &str) {
        self.end_countdown();
        let gap = if self.is_asking() { "\n" } else { "" };
        let mut stderr = AutoStream::new(io::stderr(), self.color_choice).lock();
        let priority = if self.is_journal { priority.to_string() } else { String::new() };
        let text = ascii_if_needed(text, self.is_terminal());
        let text = layout::wrap(&text, layout::stderr_width(), 2);
        // The journal would read a second line as an entry of its own, without the priority.
        let text = if self.is_journal { text.replace('\n', &format!("\n{priority}")) } else { text };
        let _gone = writeln!(stderr, "{gap}{priority}{text}");
    }
}

/// The line of a mistake with carets below what is meant.
pub(super) fn excerpt_lines(mistake: &Diagnostic) -> Option<String> {
    let (excerpt, Position { line, .. }) = (mistake.excerpt.as_ref()?, mistake.position?);
    let gutter = " ".repeat(line.to_string().len());
    let marks = format!("{}{}", " ".repeat(excerpt.indent), "^".repeat(excerpt.length));
    Some(format!("  {line} | {}\n  {gutter} | {BAD}{marks}{BAD:#}", excerpt.text))
}

/// The text with three dots for an ellipsis, if the terminal or the locale has none.
fn ascii_if_needed(text: &str, is_terminal: bool) -> String {
    if paths::is_unicode_shown(is_terminal) { text.to_owned() } else { text.replace('\u{2026}', "...") }
}

/// The choice of colours for the printing crates.
fn color_choice(colour: Colour) -> ColorChoice {
    match colour {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    }
}

/// Whether the log on stderr is coloured, as the other messages there are.
pub(super) fn is_stderr_coloured(colour: Colour) -> bool {
    AutoStream::new(io::stderr(), color_choice(colour)).current_choice() == ColorChoice::AlwaysAnsi
}

/// One row of `refresh --json`. `provider`: its name, if it is known.
pub(super) fn outcome_json(name: &ProfileName, provider: Option<&str>, outcome: &Outcome) -> Value {
    json!({
        "profile": name,
        "provider": provider,
        "outcome": outcome.kind,
        "joined": outcome.is_follower,
        "generation": (outcome.generation.get() > 0).then_some(outcome.generation),
        "expires_at": outcome.expires_at,
        "retry_at": outcome.retry_at,
        "publication": outcome.publication,
        "error": outcome.error,
    })
}

/// One line about an outcome, at `now`.
pub(super) fn outcome_line(name: &ProfileName, outcome: &Outcome, now: Timestamp) -> String {
    let (style, word) = match outcome.kind {
        OutcomeKind::Refreshed => (GOOD, "refreshed"),
        OutcomeKind::Fresh => (GOOD, "fresh"),
        OutcomeKind::Deferred => (WARN, "deferred"),
        OutcomeKind::InDoubt => (WARN, "in doubt"),
        OutcomeKind::NeedsLogin => (BAD, "needs login"),
        OutcomeKind::ConfigError => (BAD, "configuration error"),
        OutcomeKind::StoreUnavailable => (BAD, "store unavailable"),
    };
    let mut line = format!("{name}: {style}{word}{style:#}");
    if outcome.is_follower {
        line.push_str(" (by another process)");
    }
    if let Some(at) = outcome.expires_at {
        let verb = if at <= now { "expired" } else { "expires" };
        line.push_str(&format!(", {verb} {}", at.to_the_second()));
    }
    if outcome.generation.get() > 0 {
        line.push_str(&format!(", generation {}", outcome.generation));
    }
    if let Some(at) = outcome.retry_at {
        line.push_str(&format!(", next attempt {}", at.to_the_second()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_ordered_from_ok_to_worst() {
        let order = [
            CommandStatus::Ok,
            CommandStatus::Failed,
            CommandStatus::TryAgain,
            CommandStatus::StoreUnavailable,
            CommandStatus::NeedsLogin,
            CommandStatus::Config,
            CommandStatus::Interrupted,
        ];
        assert_eq!(order.map(CommandStatus::code), [0, 1, 75, 69, 77, 78, 130]);
        assert!(order.is_sorted());
    }

    #[test]
    fn outcome_line_says_expired_of_a_time_that_is_past() {
        let at = Timestamp::from_secs(1_790_000_000);
        let outcome = Outcome { expires_at: Some(at), ..Outcome::new(OutcomeKind::Deferred) };
        let line = |now: Timestamp| outcome_line(&"p".parse().unwrap(), &outcome, now);
        assert!(line(at.plus(Duration::from_secs(1))).contains(", expired 2026"), "{}", line(at));
        assert!(line(Timestamp::from_secs(1_789_999_999)).contains(", expires 2026"));
    }

    #[test]
    fn pending_publication_exits_with_try_again() {
        let mut outcome = Outcome::new(OutcomeKind::Refreshed);
        assert_eq!(CommandStatus::from_outcome(&outcome), CommandStatus::Ok);
        outcome.publication = Publication::PublishPending;
        assert_eq!(CommandStatus::from_outcome(&outcome), CommandStatus::TryAgain);
        let fresh = ProfileStatus::new(ProfileState::Fresh, None, None);
        assert_eq!(CommandStatus::from_status(&fresh, Publication::PublishPending), CommandStatus::TryAgain);
    }

    #[test]
    fn failed_refresh_counts_once_the_margin_is_reached() {
        let failure = Some(Failure::new(ErrorKind::Network, "away"));
        for (state, last_failure, exit) in [
            (ProfileState::Fresh, failure.clone(), CommandStatus::Ok),
            (ProfileState::Due, None, CommandStatus::Ok),
            (ProfileState::Due, failure, CommandStatus::TryAgain),
        ] {
            let status = ProfileStatus { last_failure, ..ProfileStatus::new(state, None, None) };
            assert_eq!(CommandStatus::from_status(&status, Publication::None), exit, "{status:?}");
        }
    }
}
