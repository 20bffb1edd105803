//! Two mirrors in one place would overwrite each other at each refresh: a mistake of the configuration.

use std::path::{Path, PathBuf};

use super::error::Diagnostic;
use crate::profile::ProfileName;
use crate::profile::consumers::{Consumer, Delivery};
use crate::profile::mirror::{Mirror, MirrorForm};

/// What one mirror writes.
struct Claim {
    profile: ProfileName,
    place: ClaimedPlace,
    /// The members of a document, as JSON pointers; `None`: all of it.
    members: Option<Vec<String>>,
}

#[derive(PartialEq, Eq)]
enum ClaimedPlace {
    File(PathBuf),
    /// The usual file of a program, or the program itself.
    Of(&'static str),
}

/// The mirrors that were read so far.
#[derive(Default)]
pub(super) struct MirrorClaims(Vec<Claim>);

impl MirrorClaims {
    /// Adds a mirror. `Err`: the profile that has one in the same place. `provider`: of the profile, if that is known here.
    pub(super) fn add(
        &mut self,
        profile: &ProfileName,
        mirror: &Mirror,
        provider: Option<&str>,
    ) -> Result<(), ProfileName> {
        let Some(claim) = claim(profile, mirror, provider) else { return Ok(()) };
        let rival = self.0.iter().find(|other| other.place == claim.place && overlap(&other.members, &claim.members));
        let found = rival.map_or(Ok(()), |rival| Err(rival.profile.clone()));
        self.0.push(claim);
        found
    }
}

/// The mistake, in words.
pub(super) fn mistake(place: Diagnostic, name: &ProfileName, rival: &ProfileName) -> Diagnostic {
    let whose = if name == rival { "this profile".to_owned() } else { format!("profile {rival}") };
    let message =
        format!("{}: {whose} has a mirror in the same place, and each would overwrite the other", place.message);
    Diagnostic { message, hint: Some("remove one of the two".into()), ..place }
}

/// `None`: what it writes depends on what is not known here.
fn claim(profile: &ProfileName, mirror: &Mirror, provider: Option<&str>) -> Option<Claim> {
    let (place, members) = match &mirror.form {
        MirrorForm::File | MirrorForm::Template { .. } | MirrorForm::Directory { .. } => (None, None),
        MirrorForm::Json { set } => (None, Some(set.iter().map(|(pointer, _)| pointer.clone()).collect())),
        MirrorForm::Consumer { consumer, entry } => {
            let entry = match entry {
                Some(entry) => entry.clone(),
                None if consumer.entry_of("a") == consumer.entry_of("b") => String::new(),
                None => consumer.entry_of(provider?),
            };
            (Some(consumer.name), Some(members(consumer, &entry)))
        }
    };
    let place = match (&mirror.path, place) {
        (Some(path), _) => ClaimedPlace::File(plain(path)),
        (None, Some(program)) => ClaimedPlace::Of(program),
        (None, None) => return None,
    };
    Some(Claim { profile: profile.clone(), place, members })
}

fn members(consumer: &Consumer, entry: &str) -> Vec<String> {
    match &consumer.delivery {
        Delivery::Document { fields, .. } => {
            let escaped = entry.replace('~', "~0").replace('/', "~1");
            fields.iter().map(|field| field.pointer.replace("ENTRY", &escaped)).collect()
        }
        Delivery::Command { .. } => vec![format!("/{entry}")],
    }
}

/// Whether one member is another's, or within it.
fn overlap(a: &Option<Vec<String>>, b: &Option<Vec<String>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    a.iter().any(|a| b.iter().any(|b| is_within(a, b) || is_within(b, a)))
}

/// The path without `.` and doubled slashes.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::mirror::MirrorValue;

    fn consumer(name: &str, path: Option<&str>, entry: Option<&str>) -> Mirror {
        let consumer = Consumer::from_name(name).unwrap();
        Mirror { form: MirrorForm::Consumer { consumer, entry: entry.map(Into::into) }, path: path.map(Into::into) }
    }

    fn json(path: &str, pointer: &str) -> Mirror {
        Mirror {
            form: MirrorForm::Json { set: vec![(pointer.into(), MirrorValue::AccessToken)] },
            path: Some(path.into()),
        }
    }

    fn file(path: &str) -> Mirror {
        Mirror { form: MirrorForm::File, path: Some(path.into()) }
    }

    fn clash(a: &Mirror, b: &Mirror) -> bool {
        let (mut claims, one, two) = (MirrorClaims::default(), "one".parse().unwrap(), "two".parse().unwrap());
        claims.add(&one, a, Some("acme")).unwrap();
        claims.add(&two, b, Some("acme")).is_err_and(|rival| rival == one)
    }

    /// What was lost: the token of each of two profiles, in turn.
    #[test]
    fn two_mirrors_in_one_place_are_a_mistake() {
        assert!(clash(&file("/a"), &file("/a")) && clash(&file("/a/./b"), &json("/a/b", "/x")));
        assert!(!clash(&file("/a"), &file("/b")));
        assert!(clash(&json("/a", "/x"), &json("/a", "/x/y")) && !clash(&json("/a", "/x"), &json("/a", "/xy")));
        assert!(clash(&consumer("codex", None, None), &consumer("codex", None, None)));
        assert!(!clash(&consumer("codex", Some("/a"), None), &consumer("codex", Some("/b"), None)));
        assert!(clash(&consumer("codex", Some("/a"), None), &json("/a", "/tokens/access_token")));
        assert!(clash(&consumer("opencode", None, None), &consumer("opencode", None, Some("acme"))));
        assert!(!clash(&consumer("opencode", None, Some("x")), &consumer("opencode", None, Some("acme"))));
        assert!(clash(&consumer("openclaw", None, None), &consumer("openclaw", None, None)));
    }
}
