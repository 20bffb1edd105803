//! `keepalive init`: makes the configuration and, for the file store, its key.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::GlobalArgs;
use super::output::{CommandStatus, Output};
use super::store_choice::{self, NewFileStore};
use crate::access::setup::Setup;
use crate::config::addition::Addition;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{KeySource, StoreKind};

/// Choose the store, and create the configuration and the key that it needs
///
/// Asks once, and changes nothing that is there. keyring: credentials are encrypted with a key in the OS keyring, and a copy
/// for other programs is kept there. file: the key is a file beside the configuration; for machines without a keyring.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Store to use; by default the keyring, if there is one
    #[arg(long, value_enum, value_name = "KIND")]
    store: Option<StoreChoice>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreChoice {
    /// The keyring of the operating system
    Keyring,
    /// Encrypted files, with their key in a file
    File,
}

type InitFailure = (CommandStatus, Failure);

pub(super) fn run(args: &InitArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let done = Setup::for_new_config(global.places()).map_err(config).and_then(|setup| init(args, &setup, out));
    match done {
        Ok(document) => {
            if out.is_json {
                out.json(&document);
            }
            CommandStatus::Ok
        }
        Err((status, failure)) => {
            out.fail(&failure);
            status
        }
    }
}

fn config(failure: Failure) -> InitFailure {
    (CommandStatus::Config, failure)
}

fn init(args: &InitArgs, setup: &Setup, out: &Output) -> Result<serde_json::Value, InitFailure> {
    let path = setup.environment.config.display().to_string();
    let made = if setup.config.has_store_section {
        keep_section(args, setup, out)?
    } else {
        match chosen(args, setup, out)? {
            StoreChoice::Keyring => add_keyring_store(args, setup, out)?,
            StoreChoice::File => add_file_store(args, setup, out)?,
        }
    };
    let kind = made.kind;
    out.info(&match made.is_new {
        true => format!("credentials will be kept in the {kind} store; next: keepalive login PROFILE"),
        false => format!("{path} has [store] kind = \"{kind}\" already; nothing to do"),
    });
    Ok(json!({ "config": path, "store": kind, "changed": made.is_new }))
}

struct Made {
    kind: &'static str,
    is_new: bool,
}

/// A `[store]` that is there stays; only a key file that it names and that was never made is made.
fn keep_section(args: &InitArgs, setup: &Setup, out: &Output) -> Result<Made, InitFailure> {
    let (kind, word) = match &setup.config.store.kind {
        StoreKind::Keyring { .. } => (StoreChoice::Keyring, "keyring"),
        StoreKind::File { .. } => (StoreChoice::File, "file"),
    };
    if args.store.is_some_and(|wanted| wanted != kind) {
        let message = format!("{} has [store] kind = \"{word}\"", setup.environment.config.display());
        let hint = "nothing that is there is changed; edit the section if no credential is stored yet";
        return Err(config(Failure::new(ErrorKind::Config, message).with_hint(hint)));
    }
    let is_new = match &setup.config.store.kind {
        StoreKind::File { key: KeySource::File(key) } if std::fs::symlink_metadata(key).is_err() => {
            refuse_if_sealed(setup)?;
            agree(args, out, &format!("a yes creates the key {}, which [store] names", key.display()), "")?;
            store_choice::create_key(key).map_err(|f| (CommandStatus::Failed, f))?;
            out.info(&format!("created the key {}", key.display()));
            true
        }
        StoreKind::File { key: KeySource::File(key) } => {
            store_choice::check_key(key).map_err(config)?;
            false
        }
        StoreKind::File { .. } | StoreKind::Keyring { .. } => false,
    };
    Ok(Made { kind: word, is_new })
}

/// The store that was asked for; else the keyring if there is one, and at a terminal the files if not.
fn chosen(args: &InitArgs, setup: &Setup, out: &Output) -> Result<StoreChoice, InitFailure> {
    match (args.store, store_choice::missing_keyring(setup)) {
        (Some(kind), _) => Ok(kind),
        (None, Some(_)) if out.can_ask() && !args.yes => Ok(StoreChoice::File),
        (None, _) => Ok(StoreChoice::Keyring),
    }
}

fn add_keyring_store(args: &InitArgs, setup: &Setup, out: &Output) -> Result<Made, InitFailure> {
    if let Some(Err(error)) = setup.store.keyring().map(|keyring| keyring.check()) {
        let failure = Failure::new(error.error_kind(), error.to_string()).with_hint(error.hint());
        return Err((CommandStatus::StoreUnavailable, failure));
    }
    let mut addition = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    addition.add_keyring_store();
    addition.preview().and_then(|_| addition.check_writable()).map_err(|e| config(e.to_failure()))?;
    agree(args, out, &format!("this is added to {}:\n", addition.path().display()), &indented(&addition))?;
    addition.write(&store_choice::config_lock(setup)).map_err(|e| config(e.to_failure()))?;
    out.info(&format!("added [store] kind = \"keyring\" to {}", addition.path().display()));
    Ok(Made { kind: "keyring", is_new: true })
}

fn add_file_store(args: &InitArgs, setup: &Setup, out: &Output) -> Result<Made, InitFailure> {
    refuse_if_sealed(setup)?;
    let store = NewFileStore::plan(&setup.environment.config).map_err(config)?;
    let mut addition = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    addition.add_file_store(store.key());
    addition.preview().and_then(|_| addition.check_writable()).map_err(|e| config(e.to_failure()))?;
    let path = addition.path().display();
    agree(args, out, &format!("a yes {}, and adds to {path}:\n", store.text()), &indented(&addition))?;
    store.create(&addition, &store_choice::config_lock(setup), out).map_err(config)?;
    Ok(Made { kind: "file", is_new: true })
}

fn indented(addition: &Addition) -> String {
    store_choice::indented(addition.text())
}

/// A new key would open nothing of what is stored.
fn refuse_if_sealed(setup: &Setup) -> Result<(), InitFailure> {
    let has_credentials = store_choice::has_credentials(setup).map_err(|e| CommandStatus::of_failed(e.outcome()))?;
    if !has_credentials {
        return Ok(());
    }
    let dir = setup.store.layout().dir().display().to_string();
    let message = format!("{dir} has credentials that a new key would not open");
    let hint = "bring back the keyring or the key that they are sealed with; or log out of every profile first";
    Err(config(Failure::new(ErrorKind::Key, message).with_hint(hint)))
}

/// Asks whether to do `what`, which adds `lines`.
fn agree(args: &InitArgs, out: &Output, what: &str, lines: &str) -> Result<(), InitFailure> {
    if args.yes {
        return Ok(());
    }
    if !out.can_ask() {
        let failure = Failure::new(ErrorKind::Declined, "there is no terminal to ask at; nothing was changed");
        return Err((CommandStatus::Failed, failure.with_hint("add --yes")));
    }
    out.prompt(what);
    if !lines.is_empty() {
        out.prompt_lines(lines);
    }
    match out.ask("Do it?") {
        Some(true) => Ok(()),
        Some(false) | None => Err((CommandStatus::Failed, store_choice::declined())),
    }
}
