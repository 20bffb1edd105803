//! Places in a flight at which something can be done to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keepalive::guard::LockedCredential;
use keepalive::profile::Provider;
use keepalive::provider::http::HttpEndpoint;
use keepalive::provider::request_encoding::AuthServerRequest;
use keepalive::provider::revocation::RevocationServer;
use keepalive::provider::sign_in_server::{SignInEndpoints, SignInServer};
use keepalive::provider::{
    BeforeSend, BeforeSendError, ExchangeResult, NotSentReason, PrepareError, PreparedProvider, RawResponse,
    TokenEndpoint,
};
use keepalive::store::keyring::memory::MemoryKeyring;
use keepalive::store::keyring::{FoundItem, Keyring, KeyringError, KeyringItem};
use url::Url;
use zeroize::Zeroizing;

/// Where something can be done to a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    BeforeExchange,
    AfterIntent,
    AfterExchange,
    /// When the keyring is asked whether it could take something.
    KeyringCheck,
    /// When all that the keyring has is looked through.
    KeyringList,
    BeforePublish,
    AfterPublish,
    /// Behind the answer about the refresh token, before the access token.
    AfterRevocation,
}

type Hook = Box<dyn FnOnce() -> Result<(), BeforeSendError> + Send>;

/// What is done when a flight comes to a place, once each.
#[derive(Clone, Default)]
pub struct Hooks {
    set: Arc<Mutex<Vec<(HookPoint, Hook)>>>,
    early: Arc<Mutex<VecDeque<u16>>>,
}

impl Hooks {
    pub fn set(&self, place: HookPoint, hook: Hook) {
        self.set.lock().unwrap().push((place, hook));
    }

    /// The next requests are answered so before the server is given the token.
    pub fn answer_early(&self, statuses: impl IntoIterator<Item = u16>) {
        self.early.lock().unwrap().extend(statuses);
    }

    fn run(&self, place: HookPoint) -> Result<(), BeforeSendError> {
        let hook = {
            let mut set = self.set.lock().unwrap();
            set.iter().position(|(wanted, _)| *wanted == place).map(|i| set.remove(i))
        };
        hook.map_or(Ok(()), |(_, hook)| hook())
    }
}

/// What comes by the places.
pub struct WithHooks<T> {
    pub inner: T,
    pub hooks: Hooks,
    pub exchanges: Arc<AtomicUsize>,
}

impl TokenEndpoint for WithHooks<HttpEndpoint> {
    fn prepare(&self, provider: &Arc<Provider>, within: &str) -> Result<PreparedProvider, PrepareError> {
        self.inner.prepare(provider, within)
    }

    fn exchange<'l>(
        &self,
        prepared: &PreparedProvider,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l> {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        let early = self.hooks.early.lock().unwrap().pop_front();
        if let Some(status) = early {
            let answer = Some(RawResponse { status, is_complete: true, ..RawResponse::empty() });
            return ExchangeResult::NotSent {
                held,
                may_have_intent: false,
                why: NotSentReason::EarlyResponse("at once".into()),
                answer,
            };
        }
        let before = self.hooks.run(HookPoint::BeforeExchange);
        let hooks = self.hooks.clone();
        let gate: BeforeSend = Box::new(move || {
            before?;
            gate()?;
            hooks.run(HookPoint::AfterIntent)
        });
        let exchange = self.inner.exchange(prepared, held, gate);
        self.hooks.run(HookPoint::AfterExchange).unwrap();
        exchange
    }
}

impl SignInServer for WithHooks<HttpEndpoint> {
    fn sign_in_endpoints(&self, provider: &Provider) -> Result<SignInEndpoints, PrepareError> {
        self.inner.sign_in_endpoints(provider)
    }

    fn request(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        ask: AuthServerRequest<'_>,
    ) -> Result<RawResponse, String> {
        self.inner.request(prepared, url, ask)
    }
}

impl RevocationServer for WithHooks<HttpEndpoint> {
    fn revocation_endpoint(&self, provider: &Provider) -> Result<Option<Url>, PrepareError> {
        self.inner.revocation_endpoint(provider)
    }

    fn revoke<'l>(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l> {
        let revoking = self.inner.revoke(prepared, url, held, gate);
        self.hooks.run(HookPoint::AfterRevocation).unwrap();
        revoking
    }
}

impl Keyring for WithHooks<MemoryKeyring> {
    fn check(&self, service: &str) -> Result<(), KeyringError> {
        self.hooks.run(HookPoint::KeyringCheck).unwrap();
        self.inner.check(service)
    }

    fn read(&self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        self.inner.read(item)
    }

    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        self.hooks.run(HookPoint::KeyringList).unwrap();
        self.inner.list(service)
    }

    fn write(&self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        self.hooks.run(HookPoint::BeforePublish).unwrap();
        let written = self.inner.write(item, value);
        self.hooks.run(HookPoint::AfterPublish).unwrap();
        written
    }

    fn delete(&self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.inner.delete(item, holding)
    }

    fn reconnect(&self) {
        self.inner.reconnect();
    }
}
