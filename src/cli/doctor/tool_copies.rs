//! Checks whether the tool that a credential came from still has a copy: two holders of one refresh token sign each
//! other out.

use crate::access::setup::Setup;
use crate::cli::doctor::Finding;
use crate::cli::output::Output;
use crate::credential::external::{AccountMatch, ExternalCredential, ImportSource};
use crate::credential::secret::Fingerprint;
use crate::engine::refresh::followed_stores::{FollowedStores, OtherEntry, StoreContent, tool_refreshes_first};
use crate::engine::refresh::other_entries::{Holder, OurToken, unknown_holder};
use crate::import_sources::ToolStores;
use crate::import_sources::tools::Tool;
use crate::profile::{Profile, ProfileName};
use crate::store::keys::sealing_key::SealingKey;

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

/// What the tool that a profile came from holds; `Err`: what is to be said if it holds nothing, or cannot be read.
/// `holder`: which of its entries holds our token. `is_consumed`: whether that is consumed which a credential has.
fn read_copy(
    shelf: &ToolStores,
    name: &ProfileName,
    origin: &ImportSource,
    profile: &Profile,
    holder: impl Fn(Vec<OtherEntry>) -> Holder,
    is_consumed: impl Fn(&ExternalCredential) -> bool,
) -> Result<Box<ExternalCredential>, Finding> {
    let is_followed = profile.follow;
    let found = shelf.read(origin, name.as_str());
    let why = match &found {
        Ok(StoreContent::Credential(external)) if is_consumed(external) => format!("{origin} has a consumed token"),
        Ok(StoreContent::SignedOut(why)) => why.clone(),
        Ok(StoreContent::Credential(_)) | Err(_) => String::new(),
    };
    let entries = if why.is_empty() { Vec::new() } else { shelf.all_entries(origin, name.as_str()) };
    let is_only_one = entries.is_empty();
    match (holder(entries), found) {
        (Holder::Ours(entry), _) => Err(warn(
            format!("{name}: {} still has a copy of the refresh token, in {entry}", origin.tool),
            format!(
                "import it again, so that this entry is known: {} --replace",
                entry.origin(origin).import_command(name.as_str())
            ),
        )),
        (Holder::Unknown(entry), _) if is_followed && profile.provider.policy.rotates() => {
            let failure = unknown_holder(origin, &why, &entry, name.as_str());
            Err(warn(format!("{name}: {}", failure.message), failure.hint.unwrap_or_default()))
        }
        (Holder::SameAccount(external), _) | (_, Ok(StoreContent::Credential(external))) => Ok(external),
        (_, Ok(StoreContent::SignedOut(_))) if shelf.is_fed(origin, name.as_str()) => {
            Err(good(format!("{name}: {origin} is fed: it has an access token and no refresh token")))
        }
        (_, Ok(StoreContent::SignedOut(why))) if is_followed => {
            Err(good(format!("{name}: {} is signed out ({why}): keepalive goes on alone", origin.tool)))
        }
        (_, Ok(StoreContent::SignedOut(_))) if is_only_one => {
            Err(good(format!("{name}: {origin} has been removed or signed out")))
        }
        (_, Ok(StoreContent::SignedOut(_))) => Err(good(format!("{name}: {origin} has no copy of the refresh token"))),
        (_, Err(failure)) => {
            let failure = failure.with_names(name.as_str(), None);
            Err(warn(format!("{name}: {}", failure.message), failure.hint.unwrap_or_default()))
        }
    }
}

/// Which of the tool's other entries holds the token of this fingerprint. Without the key none can be compared.
fn find_holder(setup: &Setup, ours: &OurToken<'_>, key: Option<&SealingKey>, entries: Vec<OtherEntry>) -> Holder {
    let Some(key) = key else { return Holder::None };
    let is_consumed = |theirs: &Fingerprint| setup.store.ledger().is_consumed(theirs).unwrap_or(false);
    ours.holder(entries, |token| key.fingerprint(token), is_consumed)
}

/// Reads the store that a profile came from. `None`: there is none, or it cannot be read.
fn check_copy(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    let (journal, profile) = (setup.store.peek(name).ok().flatten()?, setup.profile(name).ok()?);
    let origin = journal.origin.as_ref().filter(|o| o.location.is_some() && journal.has_credential())?;
    let about = Tool::from_name(&origin.tool)?.info();
    let shelf = setup.tool_stores();
    // In a store that does not know its own UUID no fingerprint can be compared.
    let key = setup.store.uuid().and_then(|_| setup.store.keys().load(name.as_str()).ok());
    let ours = OurToken { origin, client_id: &profile.provider.client_id, fingerprint: journal.fingerprint.clone() };
    let holder = |entries| find_holder(setup, &ours, key.as_deref(), entries);
    let fingerprint =
        |external: &ExternalCredential| Some(key.as_ref()?.fingerprint(external.response.refresh.as_ref()?));
    let is_consumed = |token: Fingerprint| setup.store.ledger().is_consumed(&token).unwrap_or(false);
    let foreign = match read_copy(&shelf, name, origin, &profile, holder, |e| fingerprint(e).is_some_and(is_consumed)) {
        Ok(foreign) => foreign,
        Err(finding) => return Some(finding),
    };
    let theirs = fingerprint(&foreign)?;
    let is_live = journal.fingerprint.as_ref() == Some(&theirs);
    let is_spent = is_consumed(theirs);
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
