//! `keepalive helper`: the protocols by which git, Docker, cargo, Bazel and OpenClaw ask another program for a credential.
//!
//! Each protocol is a file of pure functions, from the request to what is wanted and from the result to the answer.
//! `session` finds profiles and tokens; only this file reads stdin and prints.

mod bazel;
mod cargo;
mod choice;
mod docker;
mod git;
pub(super) mod names;
mod openclaw;
mod session;

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;

use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::clock::{Clock, Moment};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;
use crate::sys::clock::SystemClock;
use cargo::{CargoRequest, IndexRequest};
use git::GitRequest;
use openclaw::{SecretAnswer, SecretRequest};
use session::{BrokenSetup, HelperReply, HelperSession, Served};

/// Answer a program that asks for a credential, as git, Docker and cargo do
///
/// Speaks the protocol of that program on stdin and stdout. Only servers that a profile names as its `hosts` get its token,
/// over https or on this machine. Without PROFILE the one whose hosts match is used.
///
/// Tested with git, skopeo and cargo. The answers to Docker's own command, Bazel and OpenClaw follow their specifications.
#[derive(Debug, Args)]
pub struct HelperArgs {
    /// The program that asks
    #[arg(value_enum, value_name = "KIND", required_unless_present = "install_links")]
    kind: Option<HelperKind>,
    /// The only profile that may be used
    #[arg(value_name = "PROFILE", add = ArgValueCandidates::new(completion::profiles))]
    profile: Option<String>,
    /// What is asked for; the program adds it
    #[arg(value_name = "VERB")]
    verb: Option<String>,
    /// Make the links git-credential-keepalive and docker-credential-keepalive in DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "kind")]
    install_links: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HelperKind {
    /// credential.helper of git
    Git,
    /// credHelpers of Docker, podman and skopeo
    Docker,
    /// credential-provider of cargo
    Cargo,
    /// --credential_helper of Bazel
    Bazel,
    /// An exec SecretRef of OpenClaw
    Openclaw,
}

/// The longest request.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

impl HelperKind {
    /// The word of the protocol that may stand last; cargo and OpenClaw have none.
    fn has_verbs(self) -> bool {
        matches!(self, Self::Git | Self::Docker | Self::Bazel)
    }

    /// How long the program waits, a little less.
    fn budget(self) -> Duration {
        Duration::from_secs(if self == Self::Openclaw { 4 } else { 10 })
    }
}

/// The profile and the verb of a call. A word alone is the verb, where there are verbs. (pure)
fn split_words(kind: HelperKind, first: Option<&str>, second: Option<&str>) -> Result<HelperCall, Failure> {
    let (profile, verb) = match (first, second) {
        (Some(word), None) if kind.has_verbs() => (None, Some(word)),
        both => both,
    };
    if let (Some(verb), false) = (verb, kind.has_verbs()) {
        return Err(Failure::new(ErrorKind::Usage, format!("unexpected word {verb:?}")));
    }
    let profile = profile.map(str::parse).transpose().map_err(|e: crate::profile::BadProfileName| {
        Failure::new(ErrorKind::Usage, e.to_string()).with_hint("keepalive helper --help")
    })?;
    Ok(HelperCall { profile, verb: verb.unwrap_or_default().to_owned() })
}

#[derive(Debug, PartialEq, Eq)]
struct HelperCall {
    profile: Option<ProfileName>,
    verb: String,
}

pub(super) fn run(args: &HelperArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let Some(kind) = args.kind else {
        return install_links(args.install_links.as_deref().unwrap_or(std::path::Path::new(".")), out);
    };
    let call = match split_words(kind, args.profile.as_deref(), args.verb.as_deref()) {
        Ok(call) => call,
        Err(failure) => {
            out.error_line(&failure);
            return CommandStatus::Usage;
        }
    };
    let mut session = HelperSession::new(BrokenSetup::or_setup(global), call.profile, kind.budget(), out);
    let reply = match kind {
        HelperKind::Git => git_reply(&session, &call.verb),
        HelperKind::Docker => docker_reply(&session, &call.verb),
        HelperKind::Bazel => bazel_reply(&session, &call.verb),
        HelperKind::Openclaw => return openclaw_run(&session, out),
        HelperKind::Cargo => return serve_cargo(&mut session, out),
    };
    if let Some(failure) = &reply.error {
        out.error_line(failure);
    }
    out.data(&reply.stdout);
    session.land();
    reply.status
}

fn install_links(dir: &std::path::Path, out: &Output) -> CommandStatus {
    match names::install(dir) {
        Ok(lines) => {
            lines.iter().for_each(|line| out.line(line));
            CommandStatus::Ok
        }
        Err(failure) => {
            out.fail(&failure);
            CommandStatus::Failed
        }
    }
}

/// Git ignores what it does not know, and expects the same of a helper.
fn git_reply(session: &HelperSession<'_>, verb: &str) -> HelperReply {
    let request = GitRequest::parse(&read_block());
    match verb {
        "get" => request.answer(session.serve(&request.servers())),
        "erase" => {
            session.report_rejected(&request.servers(), request.shown());
            HelperReply::silent()
        }
        _ => HelperReply::silent(),
    }
}

fn docker_reply(session: &HelperSession<'_>, verb: &str) -> HelperReply {
    match verb {
        "get" => {
            let registry = read_all();
            docker::answer(&registry, session.serve(&docker::servers(&registry)))
        }
        "list" => docker::list(session.candidates()),
        "store" => {
            read_all();
            docker::store()
        }
        "erase" => {
            read_all();
            HelperReply::silent()
        }
        other => docker::unknown(other),
    }
}

fn bazel_reply(session: &HelperSession<'_>, verb: &str) -> HelperReply {
    if verb != "get" {
        let failure = Failure::new(ErrorKind::Usage, format!("unknown verb {verb:?}"));
        return bazel::failed(failure.with_hint("Bazel calls a helper with get"));
    }
    match bazel::servers(&read_all()) {
        Ok(servers) => bazel::answer(session.serve(&servers)),
        Err(failure) => bazel::failed(failure),
    }
}

/// Each id has its own thread, and all of them one budget. What comes later than that is completed once the answer is out.
fn openclaw_run(session: &HelperSession<'_>, out: &Output) -> CommandStatus {
    let ends = Ends::of(HelperKind::Openclaw.budget());
    let request = match SecretRequest::parse(&read_all()) {
        Ok(request) => request,
        Err(failure) => {
            out.error_line(&failure);
            return CommandStatus::Failed;
        }
    };
    let (tell, told) = mpsc::channel();
    std::thread::scope(|s| {
        for (number, id) in request.ids.iter().enumerate() {
            let tell = tell.clone();
            let ask = move || drop(tell.send((number, secret(session, id))));
            // Without a thread it has no answer in time.
            drop(std::thread::Builder::new().spawn_scoped(s, ask));
        }
        drop(tell);
        let mut answers: Vec<Option<SecretAnswer>> = request.ids.iter().map(|_| None).collect();
        while let Ok((number, answer)) = told.recv_timeout(ends.left()) {
            if let Some(place) = answers.get_mut(number) {
                *place = Some(answer);
            }
        }
        for answer in &answers {
            if let Some(SecretAnswer::Failed(none)) = answer {
                out.error_line(&none.failure);
            }
        }
        let answers = request.ids.iter().cloned().zip(answers.into_iter().map(|a| a.unwrap_or(SecretAnswer::Late)));
        out.data(&openclaw::answer(answers.collect()).stdout);
    });
    session.land();
    CommandStatus::Ok
}

fn secret(session: &HelperSession<'_>, id: &str) -> SecretAnswer {
    let Ok(profile) = id.parse::<ProfileName>() else { return SecretAnswer::NotFound };
    if session.named().is_some_and(|named| *named != profile) {
        return SecretAnswer::NotNamed;
    }
    match session.token(&profile) {
        Ok((token, _)) => SecretAnswer::Token(token),
        Err(none) if none.failure.kind == ErrorKind::NoCredential && !session.knows(&profile) => SecretAnswer::NotFound,
        Err(none) => SecretAnswer::Failed(none),
    }
}

/// When the time of a program is over.
struct Ends {
    began: Moment,
    budget: Duration,
}

impl Ends {
    fn of(budget: Duration) -> Self {
        Self { began: SystemClock.now(), budget }
    }

    fn left(&self) -> Duration {
        self.budget.saturating_sub(SystemClock.now().time_since(&self.began))
    }
}

/// A line each way, until cargo closes its end.
fn serve_cargo(session: &mut HelperSession<'_>, out: &Output) -> CommandStatus {
    out.line(&cargo::hello().to_string());
    let usual = session.named().cloned();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return CommandStatus::Failed };
        let answer = match CargoRequest::parse(&line) {
            CargoRequest::Get(request) => cargo_token(session, usual.as_ref(), &request),
            CargoRequest::Login { profile } => {
                let profile = profile.or_else(|| session.named().map(ToString::to_string));
                cargo::failed(&cargo::login(profile.as_deref()))
            }
            CargoRequest::Other => cargo::not_supported(),
            CargoRequest::Malformed(why) => cargo::failed(&cargo::malformed(why)),
        };
        out.line(&answer.to_string());
        session.land();
    }
    CommandStatus::Ok
}

/// `usual`: the profile that the command line names, for a request that names none.
fn cargo_token(
    session: &mut HelperSession<'_>,
    usual: Option<&ProfileName>,
    request: &IndexRequest,
) -> serde_json::Value {
    match request.profile() {
        None => session.set_named(usual.cloned()),
        Some(Ok(profile)) => session.set_named(Some(profile)),
        Some(Err(e)) => return cargo::failed(&Failure::new(ErrorKind::Usage, e.to_string())),
    }
    let servers = request.servers(session.named().is_some());
    let served = session.serve(&servers);
    if let Served::Failed(none) | Served::Unsure(none) = &served {
        session.tell(&none.failure);
    }
    cargo::answer(served)
}

/// Reads lines up to an empty one: git may keep its end open.
fn read_block() -> String {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(MAX_REQUEST_BYTES);
    loop {
        let mut line = Vec::new();
        match input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return text,
            Ok(_) if line == b"\n" => return text,
            Ok(_) => text.push_str(&String::from_utf8_lossy(&line)),
        }
    }
}

fn read_all() -> String {
    let mut bytes = Vec::new();
    // What cannot be read is missed by the protocol.
    let _part = std::io::stdin().lock().take(MAX_REQUEST_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_word_is_the_verb_where_there_are_verbs() {
        let call = |kind, first: Option<&str>, second: Option<&str>| {
            split_words(kind, first, second).map(|call| (call.profile.map(|p| p.to_string()), call.verb)).unwrap()
        };
        assert_eq!(call(HelperKind::Git, Some("get"), None), (None, "get".into()));
        assert_eq!(call(HelperKind::Git, Some("work"), Some("get")), (Some("work".into()), "get".into()));
        assert_eq!(call(HelperKind::Cargo, Some("work"), None), (Some("work".into()), String::new()));
        assert_eq!(call(HelperKind::Openclaw, None, None), (None, String::new()));
        assert!(split_words(HelperKind::Cargo, Some("work"), Some("get")).is_err());
        assert!(split_words(HelperKind::Git, Some("a b"), Some("get")).is_err());
    }
}
