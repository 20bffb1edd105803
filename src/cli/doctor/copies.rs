//! Whether the tool that a credential came from still holds a copy of it: two holders of one refresh token sign each other
//! out.

use super::Finding;
use crate::adopt::tools::Tool;
use crate::cli::compose::Setup;
use crate::cli::output::Output;
use crate::credential::foreign::Likeness;
use crate::engine::source::Source;
use crate::profile::ProfileName;

pub fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    // That profiles cannot be listed is told elsewhere.
    setup.all_profiles().unwrap_or_default().iter().filter_map(|name| copy(setup, name)).collect()
}

fn good(text: String) -> Finding {
    Finding::good("copy", text)
}

fn warn(text: String, hint: String) -> Finding {
    Finding::warning("copy", text, &hint)
}

/// Looks into the store that a profile came from. `None`: it came from none that can be looked into.
fn copy(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    let (record, profile) = (setup.store.peek(name).ok().flatten()?, setup.profile(name).ok()?);
    let origin = record.origin.as_ref().filter(|o| o.place.is_some() && record.has_credential())?;
    let about = Tool::named(&origin.tool)?.about();
    let shelf = setup.shelf();
    let foreign = match shelf.read(origin, name.as_str()) {
        Ok(foreign) => foreign,
        Err(_) if !profile.follow && shelf.is_gone(origin, name.as_str()) => {
            return Some(good(format!("{name}: {origin} is gone, or signed out")));
        }
        Err(failure) => {
            return Some(warn(format!("{name}: {}", failure.message), failure.hint.unwrap_or_default()));
        }
    };
    // In a store that does not know any more which it is, no fingerprint says anything.
    setup.store.uuid()?;
    let key = setup.store.key(name.as_str()).ok()?;
    let theirs = foreign.granted.refresh.as_ref().map(|token| key.fingerprint(token))?;
    let is_live = record.fingerprint.as_ref() == Some(&theirs);
    let is_spent = setup.store.ledger().contains(&theirs).unwrap_or(false);
    let away = format!("sign out of it here: {}", about.way_out(origin));
    Some(match (is_live, is_spent, profile.follow) {
        (true, _, true) => good(format!("{name}: {origin} is followed, and in step")),
        (true, _, false) => warn(
            format!(
                "{name}: {origin} still holds a live copy of its refresh token: whichever uses it next signs the other out"
            ),
            away,
        ),
        (false, true, _) => warn(
            format!(
                "{name}: {origin} holds a spent copy of its refresh token: by using it, it would end the session of both"
            ),
            away,
        ),
        (false, false, true) if origin.identity.likeness(&foreign.identity) == Likeness::Same => {
            good(format!("{name}: {origin} is followed, and has another token: the next refresh looks at it"))
        }
        (false, false, true) => warn(
            format!("{name}: {origin} is followed, but what it holds is not known to be of the same account"),
            format!("{} --replace, or follow = false", origin.import_command(name.as_str())),
        ),
        (false, false, false) => good(format!("{name}: {origin} holds no copy of its refresh token")),
    })
}
