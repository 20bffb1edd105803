//! Checks whether the tool that a credential came from still has a copy: two holders of one refresh token sign each
//! other out.

use crate::cli::doctor::Finding;
use crate::cli::output::Output;
use crate::cli::setup::Setup;
use crate::credential::external::{AccountMatch, ExternalCredential, ImportSource};
use crate::engine::refresh::followed_stores::{FollowedStores, StoreContent, tool_refreshes_first};
use crate::import_sources::ToolStores;
use crate::import_sources::tools::Tool;
use crate::profile::ProfileName;

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    // That profiles cannot be listed is reported elsewhere.
    setup.all_profiles().unwrap_or_default().iter().filter_map(|name| check_copy(setup, name)).collect()
}

fn good(text: String) -> Finding {
    Finding::good("copy", text)
}

fn warn(text: String, hint: String) -> Finding {
    Finding::warning("copy", text, &hint)
}

/// What the store that a profile came from holds; `Err`: what is to be said if it holds nothing, or cannot be read.
fn read_copy(
    shelf: &ToolStores,
    name: &ProfileName,
    origin: &ImportSource,
    is_followed: bool,
) -> Result<Box<ExternalCredential>, Finding> {
    match shelf.read(origin, name.as_str()) {
        Ok(StoreContent::Credential(foreign)) => Ok(foreign),
        Ok(StoreContent::SignedOut(_)) if shelf.is_fed(origin, name.as_str()) => {
            Err(good(format!("{name}: {origin} is fed: it has an access token and no refresh token")))
        }
        Ok(StoreContent::SignedOut(why)) if is_followed => {
            Err(good(format!("{name}: {} is signed out ({why}): keepalive goes on alone", origin.tool)))
        }
        Ok(StoreContent::SignedOut(_)) => Err(good(format!("{name}: {origin} has been removed or signed out"))),
        Err(failure) => {
            let failure = failure.with_names(name.as_str(), None);
            Err(warn(format!("{name}: {}", failure.message), failure.hint.unwrap_or_default()))
        }
    }
}

/// Reads the store that a profile came from. `None`: there is none, or it cannot be read.
fn check_copy(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    let (journal, profile) = (setup.store.peek(name).ok().flatten()?, setup.profile(name).ok()?);
    let origin = journal.origin.as_ref().filter(|o| o.location.is_some() && journal.has_credential())?;
    let about = Tool::from_name(&origin.tool)?.info();
    let shelf = setup.tool_stores();
    let foreign = match read_copy(&shelf, name, origin, profile.follow) {
        Ok(foreign) => foreign,
        Err(finding) => return Some(finding),
    };
    // In a store that does not know its own UUID no fingerprint can be compared.
    setup.store.uuid()?;
    let key = setup.store.keys().load(name.as_str()).ok()?;
    let theirs = foreign.response.refresh.as_ref().map(|token| key.fingerprint(token))?;
    let is_live = journal.fingerprint.as_ref() == Some(&theirs);
    let is_spent = setup.store.ledger().is_consumed(&theirs).unwrap_or(false);
    let waits = profile.follow && profile.provider.policy.rotates();
    let is_over = journal.validity.as_ref().is_some_and(|v| v.remaining(&setup.clock.now()).is_zero());
    if is_live && waits {
        let failure = tool_refreshes_first(origin, &shelf.about(origin));
        return Some(match is_over {
            true => warn(format!("{name}: the access token has expired, and {}", failure.message), failure.hint?),
            false => good(format!(
                "{name}: following {origin}; it has the same token, and {} refreshes it first",
                origin.tool
            )),
        });
    }
    let away = format!("sign out of that tool on this machine: {}", about.sign_out_hint(origin));
    Some(match (is_live, is_spent, profile.follow) {
        (true, _, true) => good(format!("{name}: following {origin}; it has the same token")),
        (true, _, false) => warn(
            format!(
                "{name}: {origin} still has a copy of the refresh token; whichever of the two uses it next signs the other out"
            ),
            away,
        ),
        (false, true, _) => warn(
            format!(
                "{name}: {origin} has a consumed refresh token of this profile; if it uses that token, both are signed out"
            ),
            away,
        ),
        (false, false, true) if origin.identity.compare(&foreign.identity) == AccountMatch::Same => {
            good(format!("{name}: following {origin}; it has a different token, which the next refresh will check"))
        }
        (false, false, true) => warn(
            format!("{name}: following {origin}, but its token may belong to another account"),
            format!(
                "to use that token: {} --replace; to keep this one: follow = false",
                origin.import_command(name.as_str())
            ),
        ),
        (false, false, false) => good(format!("{name}: {origin} has no copy of the refresh token")),
    })
}
