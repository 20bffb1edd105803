//! What is logged: one function per event, so that a call is one line; and the table of the events and their fields, from
//! which LOG EVENTS in keepalive-daemon(1) is made.
//!
//! No function takes a secret. Of a fingerprint only the beginning is logged.

mod hooks;
mod programs;

use std::fmt::Display;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

pub use self::programs::*;
use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
pub use crate::events::hooks::{hook_done, hook_failed, hook_starts, hook_trouble, hook_waits, login_due};
use crate::outcome::{Failure, Outcome, OutcomeKind, ProfileState};
use crate::profile::{Profile, ProfileName};

/// An event as the manual lists it.
#[derive(Clone, Copy, Debug)]
pub struct EventInfo {
    /// The value of the field `event`.
    pub name: &'static str,
    /// The lowest level that it is logged at.
    pub level: &'static str,
    pub text: &'static str,
}

const fn event(name: &'static str, level: &'static str, text: &'static str) -> EventInfo {
    EventInfo { name, level, text }
}

/// All events, in the order of the manual.
pub const EVENTS: [EventInfo; 58] = [
    event("daemon.up", "info", "The daemon accepts requests."),
    event("listener.up", "info", "The daemon accepts requests on TCP."),
    event("listener.failed", "error", "The daemon cannot listen on TCP; it tries again each 30 s."),
    event("daemon.watching", "info", "How many profiles the daemon refreshes, and which is next."),
    event("daemon.reload", "info", "The configuration was read again."),
    event("daemon.stop", "info", "The daemon is stopping, or has stopped."),
    event("refresh.ok", "info", "New tokens were received and stored."),
    event("refresh.deferred", "warn", "No new token for now; retry_at says when keepalive tries again."),
    event("refresh.in_doubt", "error", "The refresh token was sent and no usable response arrived."),
    event("refresh.warning", "warn", "A refresh ended with a warning."),
    event("login.needed", "error", "Only a new login helps."),
    event("config.error", "error", "The configuration or the client must be corrected."),
    event(
        "config.warning",
        "warn",
        "Something in the configuration has no effect or another effect than it seems to have.",
    ),
    event("store.unavailable", "error", "The store or the keyring could not be read or written."),
    event("recovered", "info", "A profile that needed attention no longer does."),
    event("adopted", "info", "A newer credential of the followed tool was stored."),
    event("follow.alone", "warn", "The followed tool is signed out, so keepalive goes on alone."),
    event("mirror.written", "info", "A mirror has the newest access token."),
    event("mirror.failed", "warn", "A mirror was not written; the refresh itself is not affected."),
    event("login.due", "warn", "The refresh token ends in some days, and no refresh prolongs it."),
    event(
        "hook.failed",
        "warn",
        "A hook or a notification failed; stderr has its last words. The refresh is not affected.",
    ),
    event("logout", "info", "A profile was signed out by this command."),
    event("profile.gone", "info", "A profile was signed out by another process."),
    event("network.changed", "info", "The network has changed, so profiles that reached no server are tried again."),
    event("schedule.warning", "warn", "The schedule or the rate cannot keep every token fresh."),
    event(
        "provider.warning",
        "warn",
        "Something of the provider could not be read; the previous content stays in use.",
    ),
    event("socket.warning", "warn", "A client could not be served."),
    event("internal", "error", "An error in keepalive itself. Report it."),
    event("refresh.due", "debug", "A refresh is needed, and why."),
    event("refresh.fresh", "debug", "No refresh is needed, and why."),
    event("flight.lead", "debug", "This caller starts the refresh; others that ask meanwhile follow it."),
    event("flight.follow", "debug", "A refresh of this process is under way; this caller waits for its outcome."),
    event("flight.done", "debug", "The refresh ended; waited_ms is how long this caller waited."),
    event("flight.shared", "debug", "Another process refreshed meanwhile; its outcome is taken (rule 26)."),
    event("lock.wait", "debug", "A lock or a place at the provider is taken; keepalive waits for it."),
    event("lock.acquired", "debug", "The lock of the profile is held; waited_ms is how long that took."),
    event("response.recovered", "debug", "A response was found that a process received and did not settle."),
    event("send.admitted", "debug", "A request may be sent, and under which rule."),
    event("send.denied", "debug", "No request may be sent, and why."),
    event("send.done", "debug", "The refresh token was sent and a response arrived."),
    event("send.lost", "debug", "The refresh token was sent and no whole response arrived."),
    event(
        "send.stopped",
        "debug",
        "The refresh token was not sent: no connection, or the check before the send failed.",
    ),
    event("response.class", "debug", "What a response without tokens means for the refresh token."),
    event("ledger.write", "debug", "The ledger notes a token as consumed, in doubt, or cleared."),
    event("schedule.next", "debug", "When the daemon checks a profile next, and why then."),
    event("schedule.held", "debug", "A refresh waits: too many were started, or the provider is down."),
    event("token.daemon", "debug", "The access token comes from the running daemon."),
    event("token.store", "debug", "The access token comes from the store without a daemon, and why."),
    event("helper.serves", "debug", "A credential helper gives out the token of a profile for one of its hosts."),
    event("helper.declines", "debug", "A credential helper gives out nothing, and why."),
    event("exec.start", "debug", "keepalive exec starts its command; the token has this generation."),
    event("exec.again", "debug", "The command of keepalive exec runs once more, or does not, and why."),
    event("hook.start", "debug", "A hook is run, for the event in hook."),
    event("hook.done", "debug", "A hook or a notification has done its work."),
    event("hook.waits", "debug", "What a hook is told waits until the one before it has ended."),
    event("socket.request", "debug", "A request of a program was answered: its path and the status of the response."),
    event("socket.closed", "debug", "A client closed its connection early."),
    event("step", "trace", "A single step of keepalive, such as a file that is written."),
];

/// The fields that events share, in the order of the manual.
pub const FIELDS: [(&str, &str); 22] = [
    ("event", "The name of the event."),
    ("profile", "The name of the profile."),
    ("provider", "The name of the provider."),
    ("outcome", "How a refresh ended: the word of refresh --json."),
    ("state", "How the profile stands: the word of status --json."),
    ("generation", "The number of the credential; it grows by one with each new token."),
    ("kind", "The kind of the error; see ERRORS in keepalive(1)."),
    ("hint", "What to do."),
    ("reason", "Why it was decided so."),
    ("mirror", "The file, directory or program that gets an access token."),
    ("listener", "What a request came by: socket or tcp."),
    ("handle", "The id of the handle that a request came with."),
    ("hook", "What a hook is run for: the event that it is told."),
    ("stderr", "The end of what a hook wrote to standard error, without tokens that keepalive knows."),
    ("rule", "The number of the rule in src/PROTOCOL.md."),
    ("retry_at", "When keepalive tries again."),
    ("at", "When the next check is."),
    ("expires_at", "When the access token expires."),
    ("waited_ms", "Milliseconds waited."),
    ("status", "The HTTP status of a response."),
    ("class", "The class of a response: token_rejected, throttled, client_rejected, unclassified or ambiguous."),
    ("token", "The first digits of a token's fingerprint, which is a keyed hash."),
];

/// LOG EVENTS of keepalive-daemon(1), as roff.
pub fn manual() -> String {
    let mut text = String::from(
        ".SH \"LOG EVENTS\"\nEach line of the log has the field\n.BR event ,\nin the text and as a member of the JSON \
         objects. The level is the lowest one that the event is logged at: debug needs\n.BR \\-v ,\ntrace needs\n.BR \
         \\-vv .\n",
    );
    for EventInfo { name, level, text: what } in EVENTS {
        let _infallible = writeln!(text, ".TP\n.BR {name} \" ({level})\"\n{}", what.replace('-', "\\-"));
    }
    text.push_str(".SH \"LOG FIELDS\"\nA field is absent where it has no value.\n");
    for (name, what) in FIELDS {
        let _infallible = writeln!(text, ".TP\n.B {name}\n{}", what.replace('-', "\\-"));
    }
    text.push_str(
        ".SH \"LOG UNDER SYSTEMD\"\nIf standard error is the journal's stream (see\n.B JOURNAL_STREAM\nin \
         .BR systemd.exec (5)),\na line begins with its priority as in\n.BR sd\\-daemon (3),\nwhich the journal removes, and \
         has no time of its own. The fields follow the message as\n.IR name = value .\n",
    );
    text
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A duration for people: its two largest units.
fn rough(wait: Duration) -> String {
    let seconds = wait.as_secs();
    let unit = if seconds >= 86_400 {
        3600
    } else if seconds >= 3600 {
        60
    } else {
        1
    };
    humantime::format_duration(Duration::from_secs(seconds - seconds % unit)).to_string()
}

// ---- The daemon ----

pub fn daemon_up(socket: &Path) {
    let socket = socket.display();
    tracing::info!(event = "daemon.up", pid = std::process::id(), %socket, "keepalive daemon is up");
}

/// `next`: the profile that is checked first, and how long until then.
pub fn daemon_watching(profiles: usize, next: Option<(&ProfileName, Duration)>) {
    let count = if profiles == 1 { "1 profile".to_owned() } else { format!("{profiles} profiles") };
    let next = match next {
        Some((name, wait)) if wait < Duration::from_secs(1) => format!("next: {name} now"),
        Some((name, wait)) => format!("next: {name} in {}", rough(wait)),
        None if profiles == 0 => "sign in with keepalive login".into(),
        None => "none can be refreshed; see keepalive status".into(),
    };
    tracing::info!(event = "daemon.watching", profiles, "watching {count}; {next}");
}

// ---- Outcomes ----

pub fn refreshed(profile: &Profile, generation: Generation, expires_at: Option<Timestamp>) {
    let expires_at = expires_at.map(|at| tracing::field::display(at.to_the_second()));
    let (generation, provider) = (generation.get(), profile.provider.name.as_str());
    tracing::info!(event = "refresh.ok", profile = %profile.name, provider, generation, expires_at, "refreshed");
}

/// `mirror`: its file or directory, or the program.
pub fn mirror_written(profile: &ProfileName, mirror: &str, generation: Generation) {
    tracing::info!(event = "mirror.written", profile = %profile, mirror, generation = generation.get(), "mirror written");
}

pub fn mirror_failed(profile: &ProfileName, mirror: &str, failure: &Failure) {
    let (kind, hint) = (failure.kind.word(), failure.hint.as_deref());
    tracing::warn!(event = "mirror.failed", profile = %profile, mirror, kind, hint, "mirror: {}", failure.message);
}

/// How a refresh ended that brought no token. `is_news`: the profile did not stand so before.
pub fn refresh_failed(profile: &ProfileName, provider: &str, outcome: &Outcome, is_news: bool) {
    let error = outcome.error.as_ref().map_or("", |e| e.message.as_str());
    let kind = outcome.error.as_ref().map(|e| e.kind.word());
    let hint = outcome.error.as_ref().and_then(|e| e.hint.as_deref());
    let retry_at = outcome.retry_at.map(tracing::field::display);
    let generation = (outcome.generation != Generation::NONE).then_some(outcome.generation.get());
    let lead = if is_news { "needs attention: " } else { "" };
    macro_rules! failed {
        ($level:ident, event = $event:literal, $lead:expr) => {
            tracing::$level!(
                event = $event,
                profile = %profile,
                provider,
                outcome = %outcome.kind,
                generation,
                kind,
                hint,
                retry_at,
                "{}{error}",
                $lead
            )
        };
    }
    match outcome.kind {
        OutcomeKind::Fresh | OutcomeKind::Refreshed => {}
        OutcomeKind::Deferred => failed!(warn, event = "refresh.deferred", "deferred: "),
        OutcomeKind::InDoubt => failed!(error, event = "refresh.in_doubt", lead),
        OutcomeKind::NeedsLogin => failed!(error, event = "login.needed", lead),
        OutcomeKind::ConfigError => failed!(error, event = "config.error", lead),
        OutcomeKind::StoreUnavailable => failed!(error, event = "store.unavailable", lead),
    }
}

/// A profile was found to need a person, without a refresh.
pub fn needs_attention(profile: &ProfileName, state: ProfileState, error: Option<&Failure>) {
    let message = error.map_or("", |e| e.message.as_str());
    let (kind, hint) = (error.map(|e| e.kind.word()), error.and_then(|e| e.hint.as_deref()));
    macro_rules! attention {
        (event = $event:literal) => {
            tracing::error!(event = $event, profile = %profile, %state, kind, hint, "needs attention: {message}")
        };
    }
    match state {
        ProfileState::InDoubt => attention!(event = "refresh.in_doubt"),
        ProfileState::NeedsLogin => attention!(event = "login.needed"),
        ProfileState::StoreUnavailable => attention!(event = "store.unavailable"),
        _ => attention!(event = "config.error"),
    }
}

pub fn adopted(profile: &Profile, generation: Generation) {
    let (generation, provider) = (generation.get(), profile.provider.name.as_str());
    tracing::info!(event = "adopted", profile = %profile.name, provider, generation, "adopted");
}

pub fn goes_on_alone(profile: &Profile, told: &str) {
    tracing::warn!(event = "follow.alone", profile = %profile.name, "{told}");
}

// ---- Decisions ----

pub fn due(profile: &Profile, generation: Generation, reason: &str) {
    let (generation, provider) = (generation.get(), profile.provider.name.as_str());
    tracing::debug!(event = "refresh.due", profile = %profile.name, provider, generation, reason, "a refresh is due");
}

pub fn fresh(profile: &Profile, generation: Generation, expires_at: Option<Timestamp>, reason: &str) {
    let (generation, provider) = (generation.get(), profile.provider.name.as_str());
    let expires_at = expires_at.map(tracing::field::display);
    tracing::debug!(
        event = "refresh.fresh",
        profile = %profile.name,
        provider,
        generation,
        expires_at,
        reason,
        "no refresh is due"
    );
}

pub fn flight(profile: &ProfileName, is_follower: bool) {
    if is_follower {
        tracing::debug!(event = "flight.follow", profile = %profile, "a refresh is in progress; following it");
    } else {
        tracing::debug!(event = "flight.lead", profile = %profile, "leading a refresh");
    }
}

pub fn flight_done(profile: &ProfileName, outcome: Option<OutcomeKind>, waited: Duration) {
    let (outcome, waited_ms) = (outcome.map(tracing::field::display), millis(waited));
    tracing::debug!(event = "flight.done", profile = %profile, outcome, waited_ms, "the wait for the refresh is over");
}

pub fn flight_shared(profile: &ProfileName, outcome: &Outcome) {
    let (outcome, rule) = (outcome.kind, 26);
    tracing::debug!(event = "flight.shared", profile = %profile, %outcome, rule, "another process refreshed meanwhile");
}

pub fn lock_wait(profile: &ProfileName, reason: &str) {
    tracing::debug!(event = "lock.wait", profile = %profile, reason, "waiting for a lock");
}

pub fn provider_wait(provider: &str) {
    tracing::debug!(
        event = "lock.wait",
        provider,
        reason = "concurrency",
        "waiting for another refresh at the provider"
    );
}

pub fn lock_acquired(profile: &ProfileName, waited: Duration) {
    tracing::debug!(event = "lock.acquired", profile = %profile, waited_ms = millis(waited), "the profile is locked");
}

pub fn response_recovered(profile: &ProfileName, generation: Generation) {
    let generation = generation.get();
    tracing::debug!(event = "response.recovered", profile = %profile, generation, "settling a response of an earlier run");
}

pub fn send_admitted(profile: &ProfileName, rule: Option<u8>, reason: &str) {
    tracing::debug!(event = "send.admitted", profile = %profile, rule, reason, "a request may be sent");
}

pub fn send_denied(profile: &ProfileName, rule: Option<u8>, outcome: &Outcome) {
    let retry_at = outcome.retry_at.map(tracing::field::display);
    let reason = outcome.error.as_ref().map(|e| e.message.as_str());
    let outcome = outcome.kind;
    tracing::debug!(event = "send.denied", profile = %profile, %outcome, rule, reason, retry_at, "no request may be sent");
}

pub fn sent(profile: &ProfileName, status: u16) {
    tracing::debug!(event = "send.done", profile = %profile, status, "a response arrived");
}

pub fn response_lost(profile: &ProfileName, reason: &str) {
    tracing::debug!(event = "send.lost", profile = %profile, reason, "sent, but no whole response arrived");
}

pub fn not_sent(profile: &ProfileName, reason: &str) {
    tracing::debug!(event = "send.stopped", profile = %profile, reason, "nothing was sent");
}

pub fn response_class(profile: &Profile, status: u16, class: &str, code: Option<&str>) {
    let provider = profile.provider.name.as_str();
    tracing::debug!(event = "response.class", profile = %profile.name, provider, status, class, code, "the response is classified");
}

/// `mark`: what stands before the fingerprint in the line of the ledger.
pub fn ledger_write(token: &Fingerprint, mark: &str) {
    let reason = match mark {
        "" => "consumed",
        "-" => "cleared",
        _ => "in doubt",
    };
    tracing::debug!(event = "ledger.write", ?token, reason, "the ledger gets an entry");
}

/// `next`: when the profile is checked next; `None`: when a person has acted.
pub fn schedule_next(
    profile: &ProfileName,
    state: Option<ProfileState>,
    next: Option<(Timestamp, Duration)>,
    reason: &str,
) {
    let state = state.map(tracing::field::display);
    let Some((at, wait)) = next else {
        tracing::debug!(event = "schedule.next", profile = %profile, state, reason, "no check is planned");
        return;
    };
    let at = at.to_the_second();
    tracing::debug!(event = "schedule.next", profile = %profile, state, %at, reason, "next check in {}", rough(wait));
}

pub fn schedule_held(profile: &ProfileName, provider: &str, is_down: bool, wait: Duration) {
    let reason = if is_down { "the provider is down" } else { "too many refreshes were started" };
    tracing::debug!(event = "schedule.held", profile = %profile, provider, reason, "the refresh waits {}", rough(wait));
}

pub fn token_from_daemon(profile: &ProfileName) {
    tracing::debug!(event = "token.daemon", profile = %profile, "the daemon answered");
}

pub fn token_from_store(reason: &str) {
    tracing::debug!(event = "token.store", reason, "no daemon is used");
}

// ---- Steps ----

/// A step, told with `-vv`.
pub fn step(profile: &dyn Display, what: &str) {
    tracing::trace!(event = "step", profile = %profile, "{what}");
}

/// A step at a provider.
pub fn provider_step(provider: &str, what: &str) {
    tracing::trace!(event = "step", provider, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_their_two_largest_units() {
        let rough = |secs| rough(Duration::from_secs(secs));
        assert_eq!([rough(7_803), rough(61), rough(90_061)], ["2h 10m", "1m 1s", "1day 1h"]);
    }
}
