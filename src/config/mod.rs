//! The configuration file: from TOML to validated profiles, with errors that name file, line, key and remedy.

pub mod addition;
mod broker;
mod client_auth;
mod consumers;
pub mod duration;
pub mod error;
mod toml_document;

mod excerpt;
mod file;
mod hooks;
mod keys;
mod mirror;
mod profile;
mod provider;
mod removal;
mod section;
mod store;
mod values;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::toml_document::Document;
use crate::credential::freshness::Margin;
use crate::profile::{Profile, ProfileName, Provider, StoreSettings};
pub use broker::{BrokerSettings, GceSettings};
use error::{ConfigError, Diagnostic, IncompleteProfiles, ValueError};
pub use error::{nearest, nearest_provider};
use hooks::HookKeys;
pub use profile::section_key;
use profile::{ProfileSection, ScheduleCache, Timing};
use section::{Entry, Section};

/// A valid configuration: every section was checked, every value parsed.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` when there was none.
    pub path: Option<PathBuf>,
    pub store: StoreSettings,
    pub broker: BrokerSettings,
    /// The built-in providers and the user's own, by name. A built-in one for which the user must register a client has
    /// an empty `client_id` until the user names it; `profile` never gives out such a one.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// Settings that were understood but will not have the intended effect.
    pub warnings: Vec<Diagnostic>,
    /// There is a `[store]` section: the user has chosen.
    pub has_store_section: bool,
    /// The names in `[provider.NAME]`.
    own_providers: BTreeSet<String>,
    defaults: Timing,
    hooks: HookKeys,
    profiles: BTreeMap<ProfileName, ProfileSection>,
}

/// The least margin of a profile that feeds another program: those that refresh by themselves begin five minutes before the
/// expiry.
pub const FED_MARGIN: Duration = Duration::from_secs(6 * 60);

impl Config {
    /// Loads the configuration; without a file at the default place, that is the built-in one. `is_named`: the user
    /// named this file, so it must exist. `home` is what a leading `~/` in a path stands for.
    ///
    /// # Errors
    /// When a named file is missing, when the file cannot be read or could have been written by someone else, and for
    /// everything in it that is wrong.
    pub fn load(path: &Path, is_named: bool, home: Option<&Path>) -> Result<Self, ConfigError> {
        match file::read(path)? {
            Some(file) => Self::parse_file(&file.text, path, home, file.mistakes),
            None if is_named => Err(file::missing_error(path)),
            None => Self::built_in(),
        }
    }

    /// Reads the text of a configuration file. `path` is what errors call it and what its relative paths start from.
    ///
    /// # Errors
    /// For everything that is wrong.
    pub fn parse(text: &str, path: &Path, home: Option<&Path>) -> Result<Self, ConfigError> {
        Self::parse_file(text, path, home, Vec::new())
    }

    /// As [`Config::parse`], for a file that has these mistakes as a whole.
    fn parse_file(
        text: &str,
        path: &Path,
        home: Option<&Path>,
        mistakes: Vec<Diagnostic>,
    ) -> Result<Self, ConfigError> {
        let document = Document::parse(text, path, home, mistakes);
        let mut config = Self::built_in()?;
        config.path = Some(path.into());
        let doubtful = config.read(&document);
        if !document.has_mistakes() {
            return Ok(config);
        }
        let incomplete = config.incomplete_profiles(&document, doubtful);
        document.into_result(config).map_err(|error| error.with_incomplete(incomplete))
    }

    /// Reads it, and returns the profiles whose sections name no provider.
    fn read(&mut self, document: &Document<'_>) -> Vec<ProfileName> {
        let top = Section::top(document);
        top.reject_unknown(&[keys::TOP]);
        self.has_store_section = top.has("store");
        if let Some(section) = top.read("store", Entry::section) {
            self.store = store::read(&section);
        }
        if let Some(section) = top.read("broker", Entry::section) {
            self.broker = broker::read(&section);
        }
        let mut schedules = ScheduleCache::default();
        self.defaults = profile::read_timing(&top, &Timing::default(), &mut schedules, &mut self.warnings);
        self.hooks = hooks::read(&top);
        let broken = self.read_providers(&top);
        self.read_profiles(&top, &mut schedules, &broken)
    }

    /// Those of the profiles that have no provider unless a credential names one. `None`: where the credentials are is not
    /// known either.
    fn incomplete_profiles(&self, document: &Document<'_>, names: Vec<ProfileName>) -> Option<IncompleteProfiles> {
        let lacking = names.into_iter().filter_map(|name| {
            let mistake = self.profile(&name, None).err()?.into_mistakes().pop()?;
            Some((name, mistake))
        });
        let is_store_known = !document.has_mistake("store.path");
        is_store_known.then(|| IncompleteProfiles { store: self.store.clone(), profiles: lacking.collect() })
    }

    /// The configuration of a user who has written none.
    fn built_in() -> Result<Self, ConfigError> {
        let providers = provider::built_in()?;
        Ok(Self {
            path: None,
            store: store::default(),
            broker: BrokerSettings::default(),
            providers: providers.into_iter().map(|(name, provider)| (name, Arc::new(provider))).collect(),
            warnings: Vec::new(),
            has_store_section: false,
            own_providers: BTreeSet::new(),
            defaults: Timing::default(),
            hooks: HookKeys::default(),
            profiles: BTreeMap::new(),
        })
    }

    /// Returns the names of those that have mistakes: what else they seem to lack follows from these.
    fn read_providers(&mut self, top: &Section<'_>) -> BTreeSet<String> {
        let mut broken = BTreeSet::new();
        let Some(entry) = top.get("provider") else { return broken };
        for (name, section) in entry.named_sections() {
            let before = section.document.mistake_count();
            self.own_providers.insert(name.to_owned());
            // A profile may be called like its provider, so both follow one rule.
            if let Err(e) = name.parse::<ProfileName>() {
                let message = e.to_string().replace("profile", "provider");
                let hint = "choose another name, as in [provider.acme]";
                section.document.note(section.diagnostic("", message, hint).into());
            }
            let own = provider::user_provider(&section, self.providers.get(name), name, &mut self.warnings);
            profile::warn_if_margin_capped(&section, own.margin, &mut self.warnings);
            self.providers.insert(name.into(), Arc::new(own));
            if !section.document.is_clean_since(before) {
                broken.insert(name.to_owned());
            }
        }
        broken
    }

    /// Returns the names of those that name no provider, if that does not follow from a mistake.
    fn read_profiles(
        &mut self,
        top: &Section<'_>,
        schedules: &mut ScheduleCache,
        broken: &BTreeSet<String>,
    ) -> Vec<ProfileName> {
        let mut doubtful = Vec::new();
        let Some(entry) = top.get("profile") else { return doubtful };
        for (name, section) in entry.named_sections() {
            let known = profile::KnownProviders { all: &self.providers, broken };
            let read = profile::read(&section, &self.defaults, &known, schedules, &mut self.warnings);
            let Some(name) = section.document.noted(profile::parse_name(name, &section)) else { continue };
            let is_named = section.has("provider") || broken.contains(name.as_str());
            if !is_named && !section.has_mistake_about(&["provider"], keys::PROFILE) {
                doubtful.push(name.clone());
            }
            self.profiles.insert(name, read);
        }
        doubtful
    }

    /// The margin of profiles for which neither they nor their provider name one.
    pub fn default_margin(&self) -> Margin {
        self.defaults.margin.unwrap_or(Margin::DEFAULT)
    }

    /// The names that have a section, sorted. A profile without one lives by its credential alone.
    pub fn profile_names(&self) -> impl Iterator<Item = &ProfileName> {
        self.profiles.keys()
    }

    /// Whether there is a section `[profile.NAME]`.
    pub fn has_profile_section(&self, name: &ProfileName) -> bool {
        self.profiles.contains_key(name)
    }

    /// Whether a profile feeds other programs.
    pub fn has_mirrors(&self, name: &ProfileName) -> bool {
        self.profiles.get(name).is_some_and(|section| !section.mirrors.is_empty())
    }

    /// Whether there is a section `[provider.NAME]`.
    pub fn has_provider_section(&self, name: &str) -> bool {
        self.own_providers.contains(name)
    }

    /// Whether this provider has the client that is built in.
    pub fn has_built_in_client(&self, name: &str) -> bool {
        let client = |provider: &Provider| Some(provider.client_id.clone()).filter(|id| !id.is_empty());
        let built_in = provider::built_in().ok().and_then(|all| client(all.get(name)?));
        built_in.is_some() && self.providers.get(name).and_then(|own| client(own)) == built_in
    }

    /// Whether a profile needs nothing but a login: it has a section, or the name of a provider.
    pub fn knows(&self, name: &ProfileName) -> bool {
        self.profiles.contains_key(name) || self.providers.contains_key(name.as_str())
    }

    /// Everything about a profile. Its provider is the one that its section names; else `provider`, which the stored
    /// credential or `--provider` gives; else the one that is called like the profile.
    ///
    /// A caller for whom `provider` must win has to compare it with the `provider.name` of the answer.
    ///
    /// # Errors
    /// When that provider is not known, or lacks what the user must add to a built-in one.
    pub fn profile(&self, name: &ProfileName, provider: Option<&str>) -> Result<Profile, ConfigError> {
        let section = self.profiles.get(name);
        let provider = match (section.and_then(|section| section.provider.clone()), provider) {
            (Some(own), _) => own,
            (None, Some(given)) => profile::usable_provider(given, &self.providers)
                .map_err(|problem| self.unusable_provider(name, &problem))?,
            (None, None) => self.provider_of_same_name(name)?,
        };
        let provider = match section.and_then(|section| section.scopes.as_ref()) {
            Some(scopes) if *scopes != provider.scopes => {
                Arc::new(Provider { scopes: scopes.clone(), ..Provider::clone(&provider) })
            }
            Some(_) | None => provider,
        };
        // The margin of a provider is about that server's habits, so it goes before the one for all.
        let margin = section.and_then(|section| section.timing.margin).or(provider.margin).or(self.defaults.margin);
        let schedule = section.map_or(&self.defaults, |section| &section.timing).schedule.clone();
        let follow = section.is_some_and(|section| section.follow);
        let consumers = section.map(|section| section.consumers.clone()).unwrap_or_default().over(&provider.consumers);
        let mirrors = section.map_or_else(Vec::new, |section| section.mirrors.clone());
        let margin = margin.unwrap_or(Margin::DEFAULT);
        let margin = if mirrors.is_empty() { margin } else { margin.at_least(FED_MARGIN) };
        let hooks = section.map_or(&HookKeys::default(), |section| &section.hooks).settings(&self.hooks);
        Ok(Profile { name: name.clone(), provider, margin, schedule, follow, consumers, mirrors, hooks })
    }

    fn provider_of_same_name(&self, name: &ProfileName) -> Result<Arc<Provider>, ConfigError> {
        if self.providers.contains_key(name.as_str()) {
            return profile::usable_provider(name.as_str(), &self.providers).map_err(|problem| {
                let problem = self.unusable_provider(name, &problem);
                match self.profiles.get(name).map(|section| section.place.clone()) {
                    Some(place) => Diagnostic { position: place.position, excerpt: place.excerpt, ..problem }.into(),
                    None => problem.into(),
                }
            });
        }
        let hint = format!(
            "to create it: keepalive login {name} --provider NAME, or set provider in [profile.{name}]; {} the names",
            profile::LISTED_BY
        );
        let Some(section) = self.profiles.get(name) else {
            let message = "it is not configured and is not a known provider".into();
            return Err(self.diagnostic(name, message, Some(hint)).into());
        };
        let message = format!("profile {name}: its section names no provider, and it has no credential");
        Err(Diagnostic { message, hint: Some(hint), ..section.place.clone() }.into())
    }

    fn unusable_provider(&self, name: &ProfileName, problem: &ValueError) -> Diagnostic {
        self.diagnostic(name, format!("provider {}", problem.message), problem.hint.clone())
    }

    fn diagnostic(&self, name: &ProfileName, message: String, hint: Option<String>) -> Diagnostic {
        Diagnostic {
            file: self.path.clone(),
            position: None,
            key: format!("profile.{name}.provider"),
            message: format!("profile {name}: {message}"),
            hint,
            excerpt: None,
        }
    }
}
