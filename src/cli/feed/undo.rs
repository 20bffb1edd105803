//! `keepalive feed --undo`: takes back what a feed wrote, and no more.

use serde_json::json;

use super::{FeedArgs, FeedFailure, agree, config, of_outcome};
use crate::access::setup::Setup;
use crate::cli::GlobalArgs;
use crate::cli::output::{CommandStatus, Output};
use crate::cli::store_choice;
use crate::config::addition::Addition;
use crate::mirror::Undone;
use crate::profile::ProfileName;
use crate::profile::mirror::{Mirror, MirrorForm};

pub(super) fn undo(args: &FeedArgs, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, FeedFailure> {
    let mut setup = Setup::new(global.places()).map_err(config)?;
    let profile = setup.profile(&args.profile).map_err(of_outcome)?;
    let Some(index) = profile.mirrors.iter().position(|mirror| is_meant(args, mirror)) else {
        out.info(&format!("{} is not fed by {}; nothing to undo", args.consumer.title, args.profile));
        if out.is_json {
            out.json(&json!({ "consumer": args.consumer.name, "profile": args.profile, "changed": false }));
        }
        return Ok(CommandStatus::Ok);
    };
    let mirror = profile.mirrors[index].clone();
    let mut removal = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    removal.remove_mirror(args.profile.as_str(), index);
    let new = removal.preview().map_err(|e| config(e.to_failure()))?;
    removal.check_writable().map_err(|e| config(e.to_failure()))?;
    out.prompt(&format!(
        "removed: the mirror {} of {} from {}, and what keepalive wrote {}. No refresh token is put back: one that was taken \
         over is consumed",
        args.consumer.name,
        args.profile,
        removal.path().display(),
        mirror.path.as_ref().map_or("there".to_owned(), |path| format!("to {}", path.display())),
    ));
    if args.dry_run {
        out.info("nothing was changed (--dry-run)");
        return Ok(CommandStatus::Ok);
    }
    agree(args, out)?;
    // First the configuration, so that no other process writes it again.
    removal.write(&store_choice::config_lock(&setup)).map_err(|e| config(e.to_failure()))?;
    setup.use_config(new);
    let undone = setup.mirrors().undo(&profile, &mirror).map_err(|failure| (CommandStatus::TryAgain, failure))?;
    tell(args, &profile.name, undone, out);
    if out.is_json {
        let file = format!("{undone:?}");
        out.json(&json!({ "consumer": args.consumer.name, "profile": args.profile, "changed": true, "file": file }));
    }
    Ok(CommandStatus::Ok)
}

/// Whether a mirror of the profile is the one that is named.
fn is_meant(args: &FeedArgs, mirror: &Mirror) -> bool {
    let MirrorForm::Consumer { consumer, entry } = &mirror.form else { return false };
    let path = args.path.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    *consumer == args.consumer
        && (args.entry.is_none() || args.entry == *entry)
        && (path.is_none() || path == mirror.path)
}

fn tell(args: &FeedArgs, profile: &ProfileName, undone: Undone, out: &Output) {
    let title = args.consumer.title;
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
    out.info(&format!(
        "to sign in there: {}; {profile} keeps its own credential, so do not import that sign-in into it",
        args.consumer.sign_in
    ));
}
