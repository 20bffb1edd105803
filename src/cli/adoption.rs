//! As long as a tool holds a copy of a credential that was taken over from it: what `doctor` and `status` say, and how to
//! sign out there.

use serde_json::{Value, json};

use super::compose::Setup;
use crate::adopt::tools::{About, Tool};
use crate::credential::foreign::{Likeness, Origin};
use crate::engine::source::Source;
use crate::profile::Profile;
use crate::store::record::Record;

/// How to sign out of a tool on this machine, and not at the provider.
pub fn way_out(about: &About, origin: &Origin) -> String {
    format!("{}{}", sign_out(about, origin), never(about))
}

fn sign_out(about: &About, origin: &Origin) -> String {
    let is_no_file = origin.place.as_ref().is_some_and(|place| !std::path::Path::new(place).exists());
    if about.tool == Tool::Codex && is_no_file {
        return "remove the item \"Codex Auth\" from the keyring".into();
    }
    let place = origin.place.as_deref().unwrap_or("its store");
    about.sign_out.replace("PLACE", place).replace("ACCOUNT", origin.account.as_deref().unwrap_or("it"))
}

fn never(about: &About) -> String {
    match about.never {
        "" => String::new(),
        command => format!(" (not by {command})"),
    }
}

/// What the tool that a profile came from holds now, for `doctor`.
pub enum Copy {
    /// It has no copy of ours.
    Gone(String),
    Followed(String),
    /// It has: what, and what to do.
    Held(String, String),
    /// Nobody can tell.
    Unknown(String, String),
}

/// Looks into the store that a profile came from. `None`: it came from none that can be looked into.
pub fn copy(setup: &Setup, record: &Record, profile: &Profile) -> Option<Copy> {
    let origin = record.origin.as_ref().filter(|o| o.place.is_some() && record.has_credential())?;
    let about = Tool::named(&origin.tool)?.about();
    let name = &profile.name;
    let shelf = setup.shelf();
    let foreign = match shelf.read(origin, name.as_str()) {
        Ok(foreign) => foreign,
        Err(_) if !profile.follow && shelf.is_gone(origin, name.as_str()) => {
            return Some(Copy::Gone(format!("{name}: {origin} is gone")));
        }
        Err(failure) => {
            return Some(Copy::Unknown(format!("{name}: {}", failure.message), failure.hint.unwrap_or_default()));
        }
    };
    let key = setup.store.key(name.as_str()).ok()?;
    let theirs = foreign.granted.refresh.as_ref().map(|token| key.fingerprint(token))?;
    let is_live = record.fingerprint.as_ref() == Some(&theirs);
    let is_spent = setup.store.ledger().contains(&theirs).unwrap_or(false);
    let away = format!("sign out of it here: {}", way_out(about, origin));
    Some(match (is_live, is_spent, profile.follow) {
        (true, _, true) => Copy::Followed(format!("{name}: {origin} is followed, and in step")),
        (true, _, false) => Copy::Held(
            format!(
                "{name}: {origin} still holds a live copy of its refresh token: whichever uses it next signs the other out"
            ),
            away,
        ),
        (false, true, _) => Copy::Held(
            format!(
                "{name}: {origin} holds a spent copy of its refresh token: by using it, it would end the session of both"
            ),
            away,
        ),
        (false, false, true) if origin.identity.likeness(&foreign.identity) == Likeness::Same => {
            Copy::Followed(format!("{name}: {origin} is followed, and has another token: the next refresh looks at it"))
        }
        (false, false, true) => Copy::Unknown(
            format!("{name}: {origin} is followed, but what it holds is not known to be of the same account"),
            format!("{} --replace, or follow = false", origin.import_command(name.as_str())),
        ),
        (false, false, false) => Copy::Gone(format!("{name}: {origin} holds no copy of its refresh token")),
    })
}

/// Where a profile came from, for `status --json`.
pub fn to_json(record: Option<&Record>, is_followed: bool) -> Value {
    match record.and_then(|r| r.origin.as_ref()) {
        None => Value::Null,
        Some(o) => json!({
            "tool": o.tool,
            "place": o.place,
            "account": o.account,
            "identity": o.identity.name(),
            "followed": is_followed,
        }),
    }
}
