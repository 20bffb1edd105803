//! `[profile.NAME]` and the keys at the top of the file: when to refresh, and the provider of a profile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::consumers;
use super::duration;
use super::error::{ConfigError, Diagnostic, ValueError, nearest_provider, quoted};
use super::hooks::{self, HookKeys};
use super::keys;
use super::mirror;
use super::provider;
use super::section::{Entry, Section};
use super::values;
use crate::credential::freshness::Margin;
use crate::profile::mirror::Mirror;
use crate::profile::{BadProfileName, ConsumerSettings, ProfileName, Provider};
use crate::schedule::Schedule;

/// The timing of a section; at the top of the file, the default for all profiles.
#[derive(Clone, Debug, Default)]
pub(super) struct Timing {
    pub margin: Option<Margin>,
    pub schedule: Option<Schedule>,
    utc: bool,
}

/// A `[profile.NAME]` as written: its provider may be known only from the stored credential.
#[derive(Clone, Debug)]
pub(super) struct ProfileSection {
    pub provider: Option<Arc<Provider>>,
    /// What its logins request instead of the provider's scopes.
    pub scopes: Option<Vec<String>>,
    pub timing: Timing,
    pub follow: bool,
    pub consumers: ConsumerSettings,
    pub mirrors: Vec<Mirror>,
    pub hooks: HookKeys,
    /// Where it stands, for what is found out later.
    pub place: Diagnostic,
}

/// A cache of parsed schedules: ten thousand profiles share a few.
#[derive(Default)]
pub(super) struct ScheduleCache(HashMap<(String, bool), Schedule>);

impl ScheduleCache {
    fn get_or_parse(&mut self, text: &str, utc: bool) -> Result<Schedule, ValueError> {
        let key = (text.to_owned(), utc);
        if let Some(schedule) = self.0.get(&key) {
            return Ok(schedule.clone());
        }
        let schedule =
            Schedule::parse(text, utc).map_err(|e| ValueError::new(format!("cannot be used: {e}")).hint(e.hint()))?;
        self.0.insert(key, schedule.clone());
        Ok(schedule)
    }
}

/// Reads `margin`, `schedule` and `timezone`; what is absent is taken from `above`.
pub(super) fn read_timing(
    section: &Section<'_>,
    above: &Timing,
    schedules: &mut ScheduleCache,
    warnings: &mut Vec<Diagnostic>,
) -> Timing {
    let utc = section.read("timezone", |e| e.choice(&[("UTC", true), ("local", false)])).unwrap_or(above.utc);
    let own = section.read("schedule", |e| e.parse(|text| schedules.get_or_parse(text, utc)));
    let schedule = match (own, &above.schedule) {
        // Read once already, in another zone.
        (None, Some(above)) => section.document.noted(schedules.get_or_parse(above.as_str(), utc).map_err(|problem| {
            section.diagnostic("timezone", format!("schedule {}", problem.message), "remove timezone").into()
        })),
        (own, _) => own,
    };
    let margin = section.read("margin", |e| e.parse(duration::margin));
    warn_if_margin_capped(section, margin, warnings);
    Timing { margin, schedule, utc }
}

/// Warns of a margin above half of the lifetime, which is cut. For a share this is true of every token.
pub(super) fn warn_if_margin_capped(section: &Section<'_>, margin: Option<Margin>, warnings: &mut Vec<Diagnostic>) {
    if let Some(Margin::Share(501..)) = margin {
        let message = "margin is capped at 50% of the lifetime";
        warnings.push(section.diagnostic("margin", message, "write margin = \"50%\" or less"));
    }
}

/// The providers that a profile can name, and which of them have mistakes that are told already.
pub(super) struct KnownProviders<'a> {
    pub all: &'a BTreeMap<String, Arc<Provider>>,
    pub broken: &'a BTreeSet<String>,
}

pub(super) fn read(
    section: &Section<'_>,
    defaults: &Timing,
    known: &KnownProviders<'_>,
    schedules: &mut ScheduleCache,
    warnings: &mut Vec<Diagnostic>,
) -> ProfileSection {
    section.reject_unknown(&[keys::PROFILE, keys::CONSUMERS]);
    let provider = |name: &str| match known.all.get(name) {
        Some(broken) if known.broken.contains(name) => Ok(Arc::clone(broken)),
        _ => usable_provider(name, known.all),
    };
    ProfileSection {
        provider: section.read("provider", |e| e.parse(provider)),
        scopes: section.read("scopes", |e| e.list(values::scope)),
        timing: read_timing(section, defaults, schedules, warnings),
        follow: section.read("follow", Entry::flag).unwrap_or(false),
        consumers: consumers::read(section),
        mirrors: mirror::read_all(section),
        hooks: hooks::read(section),
        place: section.diagnostic("", "", ""),
    }
}

/// A provider that is known, and complete enough to be used.
pub(super) fn usable_provider(
    name: &str,
    providers: &BTreeMap<String, Arc<Provider>>,
) -> Result<Arc<Provider>, ValueError> {
    let Some(found) = providers.get(name) else {
        return Err(ValueError::new(format!("{} is not known", quoted(name))).hint(suggestion(name, providers)));
    };
    match provider::missing_keys(found).into_iter().next() {
        None => Ok(found.clone()),
        Some(lack) => Err(ValueError::new(format!("{} cannot be used yet: {}", quoted(name), lack.message))
            .hint(format!("in [provider.{name}], {}", lack.hint))),
    }
}

fn suggestion(name: &str, providers: &BTreeMap<String, Arc<Provider>>) -> String {
    match nearest_provider(name, providers.keys().map(String::as_str)) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None => format!("add a section [provider.{}]; {LISTED_BY} the known names", section_key(name)),
    }
}

/// A name as the header of a section writes it.
pub fn section_key(name: &str) -> String {
    let quoted = quoted(name);
    let inside = quoted.trim_matches('"');
    let is_bare = !name.is_empty() && inside.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if is_bare { name.to_owned() } else { quoted }
}

/// Where all known names are listed, because there are too many for a hint.
pub(super) const LISTED_BY: &str = "`keepalive providers` lists";

/// A name as `[profile.NAME]` may have it.
pub(super) fn parse_name(text: &str, section: &Section<'_>) -> Result<ProfileName, ConfigError> {
    text.parse().map_err(|e: BadProfileName| {
        let hint = "choose another name, as in [profile.work] or [profile.\"xai:default\"]";
        section.diagnostic("", e.to_string(), hint).into()
    })
}
