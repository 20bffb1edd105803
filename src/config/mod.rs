//! The configuration: from TOML to validated profiles and providers, or an error that names place and remedy.

mod error;
mod file;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::credential::freshness::Margin;
use crate::profile::{
    BodyForm, ClientAuth, GraceSemantics, KeySource, Policy, Profile, ProfileName, Provider, Rotation, SecretSource,
    StoreKind, StoreSettings,
};
use crate::schedule::Schedule;
pub use error::ConfigError;
use error::nearest;
use file::Zone;

/// The built-in providers: data, in the form that a user writes.
const BUILT_IN: &str = include_str!("providers.toml");

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from, whether or not there was a file.
    pub path: PathBuf,
    pub store: StoreSettings,
    /// Those with a section of their own.
    pub profiles: BTreeMap<ProfileName, Profile>,
    /// Built-in and own.
    pub providers: BTreeMap<String, Arc<Provider>>,
    /// What the user should know, though it is no error.
    pub warnings: Vec<String>,
    margin: Option<Margin>,
    schedule: Option<Schedule>,
}

impl Config {
    /// Reads the file at `path`. One that is not there is an error only if the user named it; `home` stands for `~/`.
    ///
    /// Configuration runs commands and says where tokens are sent, so a file that another user could change is refused.
    pub fn load(path: &Path, is_named: bool, home: Option<&Path>) -> Result<Self, ConfigError> {
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !is_named => return Self::parse("", path, home),
            Err(e) => return Err(ConfigError::new(path, format!("cannot be read: {e}"))),
        };
        check_owner(&file, path)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| ConfigError::new(path, format!("cannot be read: {e}")))?;
        Self::parse(&text, path, home)
    }

    /// Reads a configuration from text; `path` is for error messages.
    pub fn parse(text: &str, path: &Path, home: Option<&Path>) -> Result<Self, ConfigError> {
        let file: file::File = toml::from_str(text).map_err(|e| ConfigError::of_toml(path, text, &e))?;
        let reader = Reader { path, text, home };
        let schedule = reader.schedule(file.schedule.as_deref(), file.timezone, "", "")?;
        let mut config = Self {
            path: path.to_owned(),
            store: reader.store(file.store)?,
            profiles: BTreeMap::new(),
            providers: BTreeMap::new(),
            warnings: Vec::new(),
            margin: file.margin.map(|m| m.0),
            schedule,
        };
        config.providers = reader.providers(file.provider, &mut config.warnings)?;
        for (name, section) in file.profile {
            let profile = reader.profile(&config, &name, section, file.timezone)?;
            config.profiles.insert(profile.name.clone(), profile);
        }
        Ok(config)
    }

    /// A profile by name: its section; without one, the defaults with `provider`, or with a provider of the profile's
    /// own name.
    pub fn profile(&self, name: &ProfileName, provider: Option<&str>) -> Result<Profile, ConfigError> {
        if let Some(profile) = self.profiles.get(name) {
            return Ok(profile.clone());
        }
        let provider = match provider {
            Some(provider) => self.provider(provider)?,
            None => self.providers.get(name.as_str()).ok_or_else(|| {
                ConfigError::new(&self.path, format!("profile {name} has no provider"))
                    .hint(format!("name one with --provider, or write [profile.{name}] provider = \"…\""))
            })?,
        };
        Ok(Profile {
            name: name.clone(),
            margin: self.margin.or(provider.margin).unwrap_or(Margin::DEFAULT),
            provider: Arc::clone(provider),
            schedule: self.schedule.clone(),
        })
    }

    fn provider(&self, name: &str) -> Result<&Arc<Provider>, ConfigError> {
        self.providers.get(name).ok_or_else(|| {
            let error = ConfigError::new(&self.path, format!("there is no provider `{name}`"));
            match nearest(name, self.providers.keys().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("write a section [provider.{name}], or see `keepalive providers`")),
            }
        })
    }
}

#[cfg(unix)]
fn check_owner(file: &std::fs::File, path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::MetadataExt;
    let about = file.metadata().map_err(|e| ConfigError::new(path, format!("cannot be examined: {e}")))?;
    let us = rustix::process::geteuid().as_raw();
    if about.uid() != us && about.uid() != 0 {
        return Err(ConfigError::new(path, format!("belongs to another user (uid {})", about.uid()))
            .hint(format!("chown {us} {}", path.display())));
    }
    if about.mode() & 0o022 != 0 {
        return Err(
            ConfigError::new(path, "can be written by other users").hint(format!("chmod go-w {}", path.display()))
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_file: &std::fs::File, _path: &Path) -> Result<(), ConfigError> {
    Ok(())
}

/// What the sections are read with.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    home: Option<&'a Path>,
}

impl Reader<'_> {
    fn error(&self, section: &str, name: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.path, message).in_section(self.text, section, name)
    }

    /// `~/x` below the home directory; anything else as it is.
    fn expand(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix("~"), self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            (Ok(_), None) | (Err(_), _) => path,
        }
    }

    fn store(&self, section: file::Store) -> Result<StoreSettings, ConfigError> {
        let at = |message: &str| {
            let mut error = ConfigError::new(self.path, message);
            error.line = self.text.lines().position(|l| l.trim() == "[store]").map(|l| l + 1);
            error.key = Some("store".into());
            error
        };
        let kind = match (section.kind.unwrap_or(file::StoreKind::Keyring), section.key) {
            (file::StoreKind::Keyring, None) => {
                StoreKind::Keyring { service: section.service.unwrap_or_else(|| "keepalive".into()) }
            }
            (file::StoreKind::Keyring, Some(_)) => {
                return Err(at("`key` is for kind = \"file\": the keyring keeps its own")
                    .hint("remove `key`, or set kind = \"file\""));
            }
            (file::StoreKind::File, None) => {
                return Err(at("kind = \"file\" needs a `key`").hint(
                    "(umask 077; head -c 32 /dev/urandom > ~/.config/keepalive/key), then key = { file = \"~/.config/keepalive/key\" }",
                ));
            }
            (file::StoreKind::File, Some(_)) if section.service.is_some() => {
                return Err(at("`service` is for kind = \"keyring\"").hint("remove `service`"));
            }
            (file::StoreKind::File, Some(key)) => StoreKind::File {
                key: match key {
                    file::Key::Credential(name) => KeySource::Credential(name),
                    file::Key::File(path) => KeySource::File(self.expand(path)),
                    file::Key::Command(argv) if argv.is_empty() => return Err(at("`key` names an empty command")),
                    file::Key::Command(argv) => KeySource::Command(argv),
                },
            },
        };
        if matches!(&kind, StoreKind::Keyring { service } if service.is_empty()) {
            return Err(at("`service` cannot be empty"));
        }
        Ok(StoreSettings {
            kind,
            path: section.path.map(|p| self.expand(p)),
            allow_network_filesystem: section.allow_network_filesystem.unwrap_or(false),
        })
    }

    fn providers(
        &self,
        own: BTreeMap<String, file::Provider>,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<String, Arc<Provider>>, ConfigError> {
        let mut shapes = built_in().clone();
        for (name, section) in own {
            let merged = match shapes.remove(&name) {
                Some(base) => section.over(base),
                None => section,
            };
            shapes.insert(name, merged);
        }
        let mut providers = BTreeMap::new();
        for (name, shape) in shapes {
            let provider = self.provider(&name, shape)?;
            if provider.policy.rotation == Rotation::Grace && !provider.policy.grace_fits() {
                warnings.push(format!(
                    "provider {name}: two timeouts of {} s do not fit into reuse_grace = {} s: it is treated as strict",
                    provider.policy.timeout.as_secs(),
                    provider.policy.reuse_grace.as_secs()
                ));
            }
            providers.insert(name, Arc::new(provider));
        }
        Ok(providers)
    }

    fn provider(&self, name: &str, p: file::Provider) -> Result<Provider, ConfigError> {
        let error = |message: &str| self.error("provider", name, message);
        if p.issuer.is_none() && p.token_endpoint.is_none() {
            return Err(error("neither `issuer` nor `token_endpoint` is set").hint("set issuer = \"https://…\""));
        }
        let client_id = p.client_id.filter(|id| !id.is_empty()).ok_or_else(|| {
            error("`client_id` is missing").hint("set it to the id of the client registered at the provider")
        })?;
        let client_auth = p.client_auth.unwrap_or(ClientAuth::None);
        check_secret(client_auth, p.client_secret.is_some()).map_err(|(message, hint)| error(message).hint(hint))?;
        let headers: Vec<_> = p.headers.unwrap_or_default().into_iter().collect();
        if let Some(bad) = headers.iter().find(|header| !is_header(header)) {
            return Err(error(&format!("{:?} is no valid HTTP header", bad.0)));
        }
        let policy = policy(
            &p.rotation,
            &p.reuse_grace,
            p.grace_semantics,
            p.last_chance,
            p.trust_503,
            [p.settle, p.timeout, p.connect_timeout],
        );
        if policy.timeout.is_zero() || policy.connect_timeout.is_zero() {
            return Err(error("a timeout cannot be zero").hint("timeout = \"30s\", connect_timeout = \"10s\""));
        }
        if policy.rotation == Rotation::Grace && policy.reuse_grace.is_zero() {
            return Err(error("rotation = \"grace\" needs `reuse_grace`")
                .hint("reuse_grace = \"30s\": what the provider documents"));
        }
        let default_lifetime = p.default_lifetime.map_or(Duration::from_secs(3600), |d| d.0);
        if default_lifetime.is_zero() || p.concurrency == Some(0) {
            return Err(error("`default_lifetime` and `concurrency` cannot be zero"));
        }
        Ok(Provider {
            name: name.to_owned(),
            issuer: p.issuer.map(|u| u.0),
            authorization_endpoint: p.authorization_endpoint.map(|u| u.0),
            token_endpoint: p.token_endpoint.map(|u| u.0),
            device_authorization_endpoint: p.device_authorization_endpoint.map(|u| u.0),
            revocation_endpoint: p.revocation_endpoint.map(|u| u.0),
            client_id,
            client_auth,
            client_secret: p.client_secret.map(|s| self.secret(s)),
            scopes: p.scopes.unwrap_or_default(),
            policy,
            headers,
            body: p.body.unwrap_or(BodyForm::Form),
            ca_file: p.ca_file.map(|f| self.expand(f)),
            margin: p.margin.map(|m| m.0),
            default_lifetime,
            concurrency: p.concurrency.unwrap_or(8),
            source: p.source.unwrap_or_default(),
        })
    }

    fn secret(&self, secret: file::Secret) -> SecretSource {
        match secret {
            file::Secret::Env(name) => SecretSource::Env(name),
            file::Secret::File(path) => SecretSource::File(self.expand(path)),
            file::Secret::Command(argv) => SecretSource::Command(argv),
            file::Secret::Keyring(name) => SecretSource::Keyring(name),
        }
    }

    fn profile(
        &self,
        config: &Config,
        name: &str,
        section: file::Profile,
        zone: Option<Zone>,
    ) -> Result<Profile, ConfigError> {
        let parsed = name.parse::<ProfileName>().map_err(|e| self.error("profile", name, e.to_string()))?;
        if section.follow == Some(true) {
            return Err(self.error("profile", name, "follow = true is not supported yet").hint("remove `follow`"));
        }
        let provider = section.provider.as_deref().unwrap_or(name);
        let provider = config
            .provider(provider)
            .map_err(|e| ConfigError { path: self.path.to_owned(), ..e }.in_section(self.text, "profile", name))?;
        let own = self.schedule(section.schedule.as_deref(), section.timezone.or(zone), "profile", name)?;
        Ok(Profile {
            name: parsed,
            margin: section.margin.map(|m| m.0).or(config.margin).or(provider.margin).unwrap_or(Margin::DEFAULT),
            provider: Arc::clone(provider),
            schedule: own.or_else(|| config.schedule.clone()),
        })
    }

    fn schedule(
        &self,
        text: Option<&str>,
        zone: Option<Zone>,
        section: &str,
        name: &str,
    ) -> Result<Option<Schedule>, ConfigError> {
        let Some(text) = text else {
            return Ok(None);
        };
        Schedule::parse(text, zone == Some(Zone::Utc)).map(Some).map_err(|e| {
            let error = ConfigError::new(self.path, format!("schedule = {text:?}: {e}"));
            let error = error.hint("for example \"*/10 * * * *\": minute, hour, day, month, day of week");
            if section.is_empty() {
                ConfigError { key: Some("schedule".into()), ..error }
            } else {
                error.in_section(self.text, section, name)
            }
        })
    }
}

fn policy(
    rotation: &Option<Rotation>,
    reuse_grace: &Option<file::DurationText>,
    semantics: Option<GraceSemantics>,
    last_chance: Option<bool>,
    trust_503: Option<bool>,
    [settle, timeout, connect_timeout]: [Option<file::DurationText>; 3],
) -> Policy {
    let default = Policy::default();
    Policy {
        rotation: rotation.unwrap_or(default.rotation),
        reuse_grace: reuse_grace.map_or(default.reuse_grace, |d| d.0),
        grace_semantics: semantics.unwrap_or(default.grace_semantics),
        last_chance: last_chance.unwrap_or(default.last_chance),
        trust_503: trust_503.unwrap_or(default.trust_503),
        settle: settle.map_or(default.settle, |d| d.0),
        timeout: timeout.map_or(default.timeout, |d| d.0),
        connect_timeout: connect_timeout.map_or(default.connect_timeout, |d| d.0),
    }
}

/// Whether secret and authentication go together; if not, what is wrong and what would be right.
fn check_secret(auth: ClientAuth, has_secret: bool) -> Result<(), (&'static str, &'static str)> {
    match (auth, has_secret) {
        (ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost, false) => Err((
            "this `client_auth` needs a `client_secret`",
            "client_secret = { env = \"…\" }, { file = \"…\" }, { command = […] } or { keyring = \"…\" }",
        )),
        (ClientAuth::None, true) => Err((
            "a `client_secret` without `client_auth`",
            "client_auth = \"client_secret_basic\" or \"client_secret_post\"",
        )),
        (ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost, true)
        | (ClientAuth::None, false)
        | (ClientAuth::PrivateKeyJwt, _) => Ok(()),
    }
}

fn is_header((name, value): &(String, String)) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(is_token) && value.chars().all(|c| (' '..='~').contains(&c) || c == '\t')
}

/// The built-in shapes, read once. That they can be read is shown by a test.
fn built_in() -> &'static BTreeMap<String, file::Provider> {
    static SHAPES: OnceLock<BTreeMap<String, file::Provider>> = OnceLock::new();
    SHAPES.get_or_init(|| toml::from_str::<file::File>(BUILT_IN).map(|f| f.provider).unwrap_or_default())
}

#[cfg(test)]
mod tests;
