//! Places in a flight at which something can be done to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keepalive::guard::LockedCredential;
use keepalive::profile::Provider;
use keepalive::provider::http::HttpEndpoint;
use keepalive::provider::revocation::{RevocationServer, Revoking};
use keepalive::provider::signin::{SignInServer, Sites};
use keepalive::provider::wire::Ask;
use keepalive::provider::{Exchange, Gate, GateError, PrepareError, Prepared, RawAnswer, TokenEndpoint, Unsent};
use keepalive::store::keyring::memory::MemoryKeyring;
use keepalive::store::keyring::{FoundItem, Keyring, KeyringError, KeyringItem};
use url::Url;
use zeroize::Zeroizing;

/// Where something can be done to a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    BeforeExchange,
    AfterIntent,
    AfterExchange,
    /// When the keyring is asked whether it could take something.
    AtCheck,
    /// When all that the keyring has is looked through.
    AtList,
    BeforePublish,
    AfterPublish,
    /// Behind the answer about the refresh token, before the access token.
    AfterRevocation,
}

type Hook = Box<dyn FnOnce() -> Result<(), GateError> + Send>;

/// What is done when a flight comes to a place, once each.
#[derive(Clone, Default)]
pub struct Hooks {
    set: Arc<Mutex<Vec<(Place, Hook)>>>,
    early: Arc<Mutex<VecDeque<u16>>>,
}

impl Hooks {
    pub fn set(&self, place: Place, hook: Hook) {
        self.set.lock().unwrap().push((place, hook));
    }

    /// The next requests are answered so before the server is given the token.
    pub fn answer_early(&self, statuses: impl IntoIterator<Item = u16>) {
        self.early.lock().unwrap().extend(statuses);
    }

    fn at(&self, place: Place) -> Result<(), GateError> {
        let hook = {
            let mut set = self.set.lock().unwrap();
            set.iter().position(|(wanted, _)| *wanted == place).map(|i| set.remove(i))
        };
        hook.map_or(Ok(()), |(_, hook)| hook())
    }
}

/// What comes by the places.
pub struct Hooked<T> {
    pub inner: T,
    pub hooks: Hooks,
    pub exchanges: Arc<AtomicUsize>,
}

impl TokenEndpoint for Hooked<HttpEndpoint> {
    fn prepare(&self, provider: &Arc<Provider>, within: &str) -> Result<Prepared, PrepareError> {
        self.inner.prepare(provider, within)
    }

    fn exchange<'l>(&self, prepared: &Prepared, held: LockedCredential<'l>, gate: Gate) -> Exchange<'l> {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        let early = self.hooks.early.lock().unwrap().pop_front();
        if let Some(status) = early {
            let answer = Some(RawAnswer { status, is_complete: true, ..RawAnswer::nothing() });
            return Exchange::Unsent { held, may_have_intent: false, why: Unsent::Early("at once".into()), answer };
        }
        let before = self.hooks.at(Place::BeforeExchange);
        let hooks = self.hooks.clone();
        let gate: Gate = Box::new(move || {
            before?;
            gate()?;
            hooks.at(Place::AfterIntent)
        });
        let exchange = self.inner.exchange(prepared, held, gate);
        self.hooks.at(Place::AfterExchange).unwrap();
        exchange
    }
}

impl SignInServer for Hooked<HttpEndpoint> {
    fn sites(&self, provider: &Provider) -> Result<Sites, PrepareError> {
        self.inner.sites(provider)
    }

    fn ask(&self, prepared: &Prepared, url: &Url, ask: Ask<'_>) -> Result<RawAnswer, String> {
        self.inner.ask(prepared, url, ask)
    }
}

impl RevocationServer for Hooked<HttpEndpoint> {
    fn revocation_site(&self, provider: &Provider) -> Result<Option<Url>, PrepareError> {
        self.inner.revocation_site(provider)
    }

    fn revoke(&self, prepared: &Prepared, url: &Url, held: LockedCredential<'_>, gate: Gate) -> Revoking {
        let revoking = self.inner.revoke(prepared, url, held, gate);
        self.hooks.at(Place::AfterRevocation).unwrap();
        revoking
    }
}

impl Keyring for Hooked<MemoryKeyring> {
    fn check(&self) -> Result<(), KeyringError> {
        self.hooks.at(Place::AtCheck).unwrap();
        self.inner.check()
    }

    fn read(&self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        self.inner.read(item)
    }

    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        self.hooks.at(Place::AtList).unwrap();
        self.inner.list(service)
    }

    fn write(&self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        self.hooks.at(Place::BeforePublish).unwrap();
        let written = self.inner.write(item, value);
        self.hooks.at(Place::AfterPublish).unwrap();
        written
    }

    fn delete(&self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.inner.delete(item, holding)
    }

    fn reconnect(&self) {
        self.inner.reconnect();
    }
}
