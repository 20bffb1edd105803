//! STUB, replaced by the real one.
use crate::credential::freshness::Margin;
use crate::outcome::Failure;
use crate::profile::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub store: StoreSettings,
    pub profiles: BTreeMap<ProfileName, Profile>,
    pub providers: BTreeMap<String, Arc<Provider>>,
}
#[derive(Debug)]
pub struct ConfigError(String);
impl ConfigError {
    pub fn failure(&self) -> Failure {
        Failure::new("config", self.0.clone())
    }
}
impl Config {
    pub fn load(path: &Path, named: bool, _home: Option<&Path>) -> Result<Config, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(t) => t,
            Err(_) if !named => String::new(),
            Err(e) => return Err(ConfigError(e.to_string())),
        };
        let v: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError(e.to_string()))?;
        let mut providers = BTreeMap::new();
        if let Some(toml::Value::Table(t)) = v.get("provider") {
            for (name, p) in t {
                let s = |k: &str| p.get(k).and_then(|v| v.as_str());
                let d = |k: &str, def: Duration| s(k).and_then(|x| humantime::parse_duration(x).ok()).unwrap_or(def);
                let policy = Policy {
                    rotation: match s("rotation") {
                        Some("none") => Rotation::None,
                        Some("lenient") => Rotation::Lenient,
                        Some("grace") => Rotation::Grace,
                        _ => Rotation::Strict,
                    },
                    settle: d("settle", Duration::from_secs(15)),
                    timeout: d("timeout", Duration::from_secs(30)),
                    ..Policy::default()
                };
                providers.insert(
                    name.clone(),
                    Arc::new(Provider {
                        name: name.clone(),
                        issuer: s("issuer").map(|u| u.parse().unwrap()),
                        token_endpoint: s("token_endpoint").map(|u| u.parse().unwrap()),
                        authorization_endpoint: None,
                        device_authorization_endpoint: None,
                        revocation_endpoint: None,
                        client_id: s("client_id").unwrap_or("").into(),
                        client_auth: ClientAuth::None,
                        client_secret: None,
                        scopes: vec![],
                        policy,
                        headers: vec![],
                        body: BodyForm::Form,
                        ca_file: None,
                        margin: None,
                        default_lifetime: Duration::from_secs(3600),
                        concurrency: 8,
                        source: String::new(),
                    }),
                );
            }
        }
        let store = v.get("store");
        let kind = match store.and_then(|s| s.get("kind")).and_then(|k| k.as_str()) {
            Some("file") => StoreKind::File {
                key: KeySource::File(store.unwrap().get("key").unwrap().get("file").unwrap().as_str().unwrap().into()),
            },
            _ => StoreKind::Keyring { service: "keepalive".into() },
        };
        let mut c = Config {
            store: StoreSettings { kind, path: None, allow_network_filesystem: false },
            profiles: BTreeMap::new(),
            providers,
        };
        if let Some(toml::Value::Table(t)) = v.get("profile") {
            for (name, p) in t {
                let name: ProfileName = name.parse().unwrap();
                let prof = c.make(&name, p.get("provider").and_then(|p| p.as_str()))?;
                c.profiles.insert(name, prof);
            }
        }
        Ok(c)
    }
    fn make(&self, name: &ProfileName, provider: Option<&str>) -> Result<Profile, ConfigError> {
        let p = self
            .providers
            .get(provider.unwrap_or(name.as_str()))
            .ok_or(ConfigError(format!("no provider for {name}")))?;
        Ok(Profile { name: name.clone(), provider: p.clone(), margin: Margin::DEFAULT, schedule: None })
    }
    pub fn profile(&self, name: &ProfileName, provider: Option<&str>) -> Result<Profile, ConfigError> {
        if let Some(p) = self.profiles.get(name) {
            return Ok(p.clone());
        }
        self.make(name, provider)
    }
}
