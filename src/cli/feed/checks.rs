//! What forbids a feed, found out before anything is changed.

use super::FeedArgs;
use crate::access::setup::Setup;
use crate::mirror;
use crate::mirror::{FileLook, Rival};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Profile;
use crate::profile::mirror::Mirror;
use crate::store::journal::Journal;

/// A program that knows one provider sends its token there, whosever it is.
pub(super) fn provider(args: &FeedArgs, setup: &Setup, profile: &Profile) -> Result<(), Failure> {
    let ours = &profile.provider;
    let Some(theirs) = args.consumer.provider.filter(|theirs| *theirs != ours.name && !args.replace) else {
        return Ok(());
    };
    // A section of the user's for the same client.
    if setup.config.providers.get(theirs).is_some_and(|theirs| theirs.client_id == ours.client_id) {
        return Ok(());
    }
    let title = args.consumer.title;
    let message = format!("{title} uses tokens of {theirs}, and {} has those of {}", args.profile, ours.name);
    let hint = format!("feed it from a profile of {theirs}; if {} is the same service: --replace", ours.name);
    Err(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
}

/// A program cannot be the one that refreshes, and be fed.
pub(super) fn follow(args: &FeedArgs, profile: &Profile, journal: Option<&Journal>) -> Result<(), Failure> {
    let origin = journal.and_then(|journal| journal.origin.as_ref());
    let is_followed = origin.is_none_or(|origin| Some(origin.tool.as_str()) == args.consumer.tool);
    match profile.follow && is_followed {
        true => Err(mirror::follows_itself(profile, args.consumer)),
        false => Ok(()),
    }
}

/// Two profiles would overwrite each other's token.
pub(super) fn other_profiles(
    args: &FeedArgs,
    setup: &Setup,
    profile: &Profile,
    mirror: &Mirror,
) -> Result<(), Failure> {
    let others = setup.config.profile_names().filter(|name| **name != args.profile && setup.config.has_mirrors(name));
    let feeds = |other: &Profile| {
        other.mirrors.iter().any(|there| setup.mirrors().is_same_target((profile, mirror), (other, there)))
    };
    let Some(other) = others.filter_map(|name| setup.profile(name).ok()).find(feeds) else { return Ok(()) };
    let message = format!("{} is fed by {} already", args.consumer.title, other.name);
    let path = args.path.as_ref().map_or(String::new(), |path| format!(" --path {}", path.display()));
    let hint = format!("end that first: keepalive feed {} {}{path} --undo", args.consumer.name, other.name);
    Err(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
}

/// What a person is told before a sign-in is overwritten that is not to be imported. `Err`: it is another account's, or may
/// be.
pub(super) fn rival(args: &FeedArgs, look: &FileLook) -> Result<Option<String>, Failure> {
    let title = args.consumer.title;
    let hint = format!(
        "to overwrite it: --replace; to keep it, feed it from a profile of its own: keepalive feed {} OTHER",
        args.consumer.name
    );
    match &look.rival {
        None => Ok(None),
        Some((Rival::OtherKind, why)) if !look.has_refresh_token => {
            Ok(Some(format!("{title} uses its tokens instead from then on: {why}. --undo puts that back")))
        }
        Some((_, why)) if args.replace => Ok(Some(format!("overwritten, although {why}"))),
        Some((_, why)) => {
            let message = format!("the file of {title} is not to be overwritten: {why}");
            Err(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
        }
    }
}
