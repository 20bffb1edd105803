//! `keepalive feed --undo`: takes back what a feed wrote, and no more. It can be repeated until it is done.

use serde_json::json;

use super::{FeedArgs, FeedFailure, agree, config, of_outcome, try_again};
use crate::access::setup::Setup;
use crate::cli::GlobalArgs;
use crate::cli::output::{CommandStatus, Output};
use crate::cli::store_choice;
use crate::config::addition::Addition;
use crate::mirror;
use crate::mirror::Undone;
use crate::profile::Profile;
use crate::profile::mirror::{Mirror, MirrorForm};
use crate::store::journal::Journal;

/// What is taken back.
struct UndoPlan {
    mirror: Mirror,
    /// The end of its section; `None`: an earlier run has removed that, or a person.
    removal: Option<Addition>,
    /// How many others of that program there are.
    others: usize,
}

pub(super) fn undo(args: &FeedArgs, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, FeedFailure> {
    let mut setup = Setup::new(global.places()).map_err(config)?;
    let profile = setup.profile(&args.profile).map_err(of_outcome)?;
    let Some(plan) = plan(args, &setup, &profile)? else {
        out.info(&format!("{} is not fed by {}; nothing to undo", args.consumer.title, args.profile));
        if out.is_json {
            out.json(&json!({ "consumer": args.consumer.name, "profile": args.profile, "changed": false }));
        }
        return Ok(CommandStatus::Ok);
    };
    show(args, &plan, out);
    if args.dry_run {
        out.info("nothing was changed (--dry-run)");
        return Ok(CommandStatus::Ok);
    }
    agree(args, out)?;
    let held = setup.mirrors().hold_for_undo(&profile, &plan.mirror).map_err(try_again)?;
    // First the configuration, so that no other process writes it again.
    if let Some(removal) = &plan.removal {
        let new = removal.preview().map_err(|e| config(e.to_failure()))?;
        removal.write(&store_choice::config_lock(&setup)).map_err(|e| config(e.to_failure()))?;
        setup.use_config(new);
    }
    let undone = setup.mirrors().undo_held(&profile, &plan.mirror, &held).map_err(try_again)?;
    tell(args, &setup, undone, out);
    if plan.others > 0 {
        out.info(&format!("{} is fed in another place, too; to end that, repeat this", args.consumer.title));
    }
    if out.is_json {
        let file = format!("{undone:?}");
        out.json(&json!({ "consumer": args.consumer.name, "profile": args.profile, "changed": true, "file": file }));
    }
    Ok(CommandStatus::Ok)
}

fn plan(args: &FeedArgs, setup: &Setup, profile: &Profile) -> Result<Option<UndoPlan>, FeedFailure> {
    let is_meant = |mirror: &Mirror| is_meant(args, setup, mirror);
    let configured = profile.mirrors.iter().enumerate().filter(|(_, mirror)| is_meant(mirror));
    let mut configured: Vec<(usize, Mirror)> = configured.map(|(index, mirror)| (index, mirror.clone())).collect();
    let mut left = setup.mirrors().left_behind(profile, args.consumer);
    left.retain(is_meant);
    let others = (configured.len() + left.len()).saturating_sub(1);
    if configured.is_empty() {
        return Ok(left.into_iter().next().map(|mirror| UndoPlan { mirror, removal: None, others }));
    }
    let (index, mirror) = configured.swap_remove(0);
    let mut removal = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    removal.remove_mirror(args.profile.as_str(), index);
    removal.preview().and_then(|_| removal.check_writable()).map_err(|e| config(e.to_failure()))?;
    Ok(Some(UndoPlan { mirror, removal: Some(removal), others }))
}

fn show(args: &FeedArgs, plan: &UndoPlan, out: &Output) {
    let section = plan.removal.as_ref().map_or(String::new(), |removal| {
        format!("the mirror {} of {} from {}, and ", args.consumer.name, args.profile, removal.path().display())
    });
    let place = plan.mirror.path.as_ref().map_or("there".to_owned(), |path| format!("to {}", path.display()));
    out.prompt(&format!(
        "removed: {section}what keepalive wrote {place}. No refresh token is put back: one that was taken over is consumed"
    ));
}

/// Whether a mirror of the profile is the one that is named.
fn is_meant(args: &FeedArgs, setup: &Setup, mirror: &Mirror) -> bool {
    let MirrorForm::Consumer { consumer, entry } = &mirror.form else { return false };
    let asked = args.path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let usual = || mirror::usual_path(consumer, &setup.environment.tool_dirs);
    *consumer == args.consumer
        && (args.entry.is_none() || args.entry == *entry)
        && (asked.is_none() || asked == mirror.path.clone().or_else(usual))
}

fn tell(args: &FeedArgs, setup: &Setup, undone: Undone, out: &Output) {
    let (title, profile) = (args.consumer.title, &args.profile);
    out.info(&match undone {
        Undone::FileRemoved => format!("{title} is not fed any more; its file had nothing else, and is gone"),
        Undone::MembersRemoved => format!("{title} is not fed any more; what else its file has is as it was"),
        Undone::Untouched => {
            format!("{title} is not fed any more; its file has no token that keepalive wrote, and is left as it is")
        }
        Undone::InProgram => {
            format!("{title} is not fed any more; its profile keeps the last access token until that expires")
        }
    });
    let journal = setup.store.peek(profile).ok().flatten();
    let own = match journal.is_some_and(|journal| Journal::has_credential(&journal)) {
        true => format!("; {profile} keeps its own credential, so do not import that sign-in into it"),
        false => String::new(),
    };
    out.info(&format!("to sign in there: {}{own}", args.consumer.sign_in));
}
