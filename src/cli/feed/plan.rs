//! What a feed would change: the configuration, the program's file, and the credential that is taken over from it.

use std::path::{Path, PathBuf};

use super::{FeedArgs, checks};
use crate::access::setup::Setup;
use crate::cli::import::ImportArgs;
use crate::cli::output::Output;
use crate::cli::store_choice;
use crate::config::addition::Addition;
use crate::credential::external::{AccountIdentity, AccountMatch};
use crate::import_sources::tools::Tool;
use crate::import_sources::{FoundCredential, Selector};
use crate::mirror;
use crate::mirror::SeenFile;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::Profile;
use crate::profile::consumers::{Consumer, Delivery, EntryName};
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::store::journal::Journal;

/// The change as it is shown and made.
pub(super) struct FeedPlan {
    pub(super) mirror: Mirror,
    /// The section to add; `None`: it is there.
    pub(super) addition: Option<Addition>,
    /// The import that comes first.
    pub(super) import: Option<ImportArgs>,
    /// The file as it was looked at: this and nothing else is overwritten.
    pub(super) seen: SeenFile,
    /// What a person should know of the sign-in that is there.
    note: Option<String>,
    lines: Vec<String>,
    pub(super) profile: Profile,
}

fn config(failure: Failure) -> Outcome {
    let kind = match failure.kind {
        ErrorKind::NoCredential => OutcomeKind::NeedsLogin,
        ErrorKind::Busy => OutcomeKind::Deferred,
        _ => OutcomeKind::ConfigError,
    };
    Outcome::new(kind).with_error(failure)
}

impl FeedPlan {
    pub(super) fn of(args: &FeedArgs, setup: &Setup) -> Result<Self, Outcome> {
        let path = path(args, setup).map_err(config)?;
        let journal = setup.store.peek(&args.profile).map_err(|e| e.outcome())?;
        let journal = journal.filter(Journal::has_credential);
        let stored = journal.as_ref().and_then(|journal| journal.binding.as_ref()).map(|b| b.provider.as_str());
        let profile = setup.config.profile(&args.profile, stored.or(args.consumer.provider));
        let profile = profile.map_err(|e| config(e.to_failure()))?;
        let form = MirrorForm::Consumer { consumer: args.consumer, entry: args.entry.clone() };
        let mirror = Mirror { form, path: path.clone() };
        checks::provider(args, setup, &profile).map_err(config)?;
        checks::follow(args, &profile, journal.as_ref()).map_err(config)?;
        checks::other_profiles(args, setup, &profile, &mirror).map_err(config)?;
        let found = path.as_deref().and_then(|path| find_sign_in(args, setup, &profile, path));
        let has_found = found.is_some();
        let (import, note) = decide(args, setup, journal.as_ref(), found).map_err(config)?;
        let look = setup.mirrors().look(&profile, &mirror).map_err(config)?;
        let rival = if has_found { None } else { checks::rival(args, &look).map_err(config)? };
        let lines = mirror::changes(&mirror, &profile);
        let note = note.or(rival);
        let mut plan = Self { mirror, addition: None, import, seen: look.seen, note, lines, profile };
        if !plan.profile.mirrors.iter().any(|there| plan.is_same(setup, there)) {
            let addition = plan.section(args, setup);
            addition.preview().and_then(|_| addition.check_writable()).map_err(|e| config(e.to_failure()))?;
            plan.addition = Some(addition);
        }
        Ok(plan)
    }

    /// The plan under the locks of the file. Another run may have made the change, or a part of it; another file, or another
    /// sign-in in it, than the person agreed to is not touched.
    pub(super) fn looked_at_again(self, args: &FeedArgs, setup: &mut Setup) -> Result<Self, Outcome> {
        setup.reload_config().map_err(config)?;
        let now = Self::of(args, setup)?;
        if now.is_done() || (now.seen == self.seen && now.import.is_some() == self.import.is_some()) {
            return Ok(now);
        }
        let failure = Failure::new(ErrorKind::Busy, format!("{} was changed meanwhile", args.consumer.title));
        Err(Outcome::new(OutcomeKind::Deferred).with_error(failure.with_hint("run it again")))
    }

    /// The plan with the file as this run has written it.
    pub(super) fn with_seen(self, seen: SeenFile) -> Self {
        Self { seen, ..self }
    }

    fn section(&self, args: &FeedArgs, setup: &Setup) -> Addition {
        let mut addition = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
        addition.add_mirror(
            args.profile.as_str(),
            args.consumer.name,
            self.mirror.path.as_deref(),
            args.entry.as_deref(),
        );
        addition
    }

    /// Whether a mirror of the configuration is the one that is asked for.
    pub(super) fn is_same(&self, setup: &Setup, there: &Mirror) -> bool {
        setup.mirrors().is_same_target((&self.profile, &self.mirror), (&self.profile, there))
    }

    /// Whether nothing is left to agree to.
    pub(super) fn is_done(&self) -> bool {
        self.addition.is_none() && self.import.is_none() && self.note.is_none()
    }

    pub(super) fn shown_path(&self) -> Option<&Path> {
        self.mirror.path.as_deref()
    }

    /// Shows the exact change.
    pub(super) fn show(&self, args: &FeedArgs, out: &Output) {
        if self.is_done() {
            return;
        }
        let title = args.consumer.title;
        if let Some(note) = &self.note {
            out.prompt(note);
        }
        if let Some(addition) = &self.addition {
            out.prompt(&format!("added to {}:\n", addition.path().display()));
            out.prompt_lines(&store_choice::indented(addition.text()));
        }
        match &self.mirror.path {
            Some(path) => {
                out.prompt(&format!(
                    "written to {} now and after each refresh; its other members stay:\n",
                    path.display()
                ));
            }
            None => out.prompt("run now and after each refresh, with the access token on its standard input:\n"),
        }
        out.prompt_lines(&store_choice::indented(&self.lines.join("\n")));
        out.prompt(&format!(
            "{title} gets no refresh token, so it refreshes nothing. Tried with: {}.",
            args.consumer.tested
        ));
    }
}

/// The file, always whole: another process may have other variables in its environment. `None`: there is none.
fn path(args: &FeedArgs, setup: &Setup) -> Result<Option<PathBuf>, Failure> {
    let consumer = args.consumer;
    let usage = |message: String, hint: &str| Failure::new(ErrorKind::Input, message).with_hint(hint);
    if matches!(consumer.delivery, Delivery::Command { .. }) {
        return match args.path {
            Some(_) => {
                Err(usage(format!("{} is fed by its own program, not by a file", consumer.title), "leave --path out"))
            }
            None => Ok(None),
        };
    }
    if args.entry.is_some() && consumer.entry == EntryName::Single {
        return Err(usage(format!("the file of {} has one sign-in", consumer.title), "leave --entry out"));
    }
    let given = args.path.clone().or_else(|| mirror::usual_path(consumer, &setup.environment.tool_dirs));
    let path = given.ok_or_else(|| {
        usage(
            format!("which file of {} is meant is not known", consumer.title),
            "name it: --path FILE; of mcp-remote it is HASH_tokens.json in ~/.mcp-auth/mcp-remote-v1",
        )
    })?;
    Ok(Some(std::path::absolute(&path).unwrap_or(path)))
}

/// A sign-in with a refresh token that is in the program's file.
fn find_sign_in(args: &FeedArgs, setup: &Setup, profile: &Profile, path: &Path) -> Option<(Tool, FoundCredential)> {
    let tool = Tool::from_name(args.consumer.tool?)?;
    let account = entry(args.consumer, args.entry.as_deref(), profile);
    let selector = Selector { file: Some(path.to_owned()), account };
    // What cannot be read is left alone by the mirror, which tells why.
    setup.tool_stores().read_account(tool, &selector).ok().map(|found| (tool, found))
}

fn entry(consumer: &Consumer, given: Option<&str>, profile: &Profile) -> Option<String> {
    let name = given.map_or_else(|| consumer.entry_of(&profile.provider.name), str::to_owned);
    (!name.is_empty()).then_some(name)
}

/// Whether the sign-in that is there is taken over, or overwritten.
fn decide(
    args: &FeedArgs,
    setup: &Setup,
    journal: Option<&Journal>,
    found: Option<(Tool, FoundCredential)>,
) -> Result<(Option<ImportArgs>, Option<String>), Failure> {
    let (name, title) = (&args.profile, args.consumer.title);
    let Some((tool, found)) = found else {
        return match journal {
            Some(_) => Ok((None, None)),
            None => Err(Failure::new(
                ErrorKind::NoCredential,
                format!("{name} has no credential, and {title} is not signed in"),
            )
            .with_hint(format!("sign in first: keepalive login {name}"))),
        };
    };
    if found.origin.is_in_keyring {
        let message = format!("{title} keeps its sign-in in the keyring, and does not read its file");
        return Err(Failure::new(ErrorKind::Source, message)
            .with_hint("set cli_auth_credentials_store = \"file\" in its config.toml, and run this again"));
    }
    let whose = found.origin.identity.display_name().map_or(String::new(), |name| format!(" of {name}"));
    let Some(journal) = journal else {
        let note = format!(
            "taken over from {title}: its sign-in{whose}, which only keepalive refreshes from then on. A running {title} should \
             be restarted"
        );
        return Ok((Some(ImportArgs::for_feed(name, tool, &found.origin, args.replace)), Some(note)));
    };
    let ours = own_identity(setup, journal);
    let likeness = ours.compare(&found.origin.identity);
    let note = format!("overwritten: the sign-in{whose} that {title} has; its refresh token is used no more");
    match likeness {
        AccountMatch::Same => Ok((None, Some(note))),
        _ if has_our_token(setup, journal, &found) => Ok((None, Some(note))),
        AccountMatch::Different | AccountMatch::Unknown if args.replace => Ok((None, Some(note))),
        AccountMatch::Different | AccountMatch::Unknown => {
            let (ours, theirs) = ours.distinct_names(&found.origin.identity);
            let what = if likeness == AccountMatch::Different { "belongs to" } else { "may belong to" };
            let message = format!("{title} is signed in, and that {what} {theirs}; {name} belongs to {ours}");
            let hint = format!(
                "to overwrite it: --replace; to keep it, feed it from a profile of its own: keepalive feed {} OTHER",
                args.consumer.name
            );
            Err(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
        }
    }
}

/// Whether the sign-in has the refresh token of the profile, or one that the profile has used before.
fn has_our_token(setup: &Setup, journal: &Journal, found: &FoundCredential) -> bool {
    let Some(token) = &found.credential.response.refresh else { return false };
    let Ok(key) = setup.store.keys().load(journal.profile.as_str()) else { return false };
    let theirs = key.fingerprint(token);
    journal.fingerprint.as_ref() == Some(&theirs) || setup.store.ledger().is_consumed(&theirs).unwrap_or(false)
}

/// The account of the profile, as far as it is known.
fn own_identity(setup: &Setup, journal: &Journal) -> AccountIdentity {
    let of_origin = journal.origin.as_ref().map(|origin| origin.identity.clone()).unwrap_or_default();
    let snapshot = setup.store.snapshot(&journal.profile).ok().flatten();
    let of_token = snapshot.and_then(|snapshot| snapshot.grant.id_token.as_ref().map(AccountIdentity::from_jwt));
    of_origin.merged_with(of_token.unwrap_or_default())
}
