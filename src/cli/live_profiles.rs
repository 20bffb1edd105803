//! The profiles as the daemon's configuration has them at this moment, for those who ask on its socket.

use std::any::Any;
use std::sync::Arc;

use serde_json::Value;

use super::listener_state;
use super::status;
use crate::access::setup::Setup;
use crate::broker::ProfileDirectory;
use crate::clock::Clock;
use crate::config::Config;
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::{Profile, ProfileName};
use crate::store::Store;
use crate::sys::paths::Environment;

/// What the setup of a command consists of, with a configuration that changes.
pub(super) struct LiveProfiles {
    pub environment: Environment,
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub config: Box<dyn Fn() -> Arc<Config> + Send + Sync>,
}

impl LiveProfiles {
    /// A setup as a command has it that starts now.
    fn setup(&self) -> Setup {
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        Setup::with_config(self.environment.clone(), (self.config)(), store, clock)
    }
}

impl ProfileDirectory for LiveProfiles {
    fn profile(&self, name: &ProfileName) -> Result<Arc<Profile>, Outcome> {
        let unknown = |failure: Failure| match failure.kind {
            // What is left of the configuration's own words: no section, no credential, no provider of this name.
            ErrorKind::NoCredential => Failure { kind: ErrorKind::UnknownProfile, ..failure },
            _ => failure,
        };
        let found = self.setup().profile(name).map(Arc::new);
        found.map_err(|outcome| Outcome { error: outcome.error.map(unknown), ..outcome })
    }

    fn configuration(&self) -> Arc<dyn Any + Send + Sync> {
        (self.config)()
    }

    fn status(&self, name: &ProfileName) -> Value {
        status::profile_json(&self.setup(), name.clone())
    }

    fn listeners(&self) -> Value {
        listener_state::to_json(&self.setup())
    }

    fn metrics_per_profile(&self) -> Option<bool> {
        (self.config)().broker.metrics_per_profile
    }

    fn all_statuses(&self) -> Result<Vec<Value>, Failure> {
        let setup = self.setup();
        let names = setup.all_profiles().map_err(|e| {
            e.outcome().error.unwrap_or_else(|| Failure::new(ErrorKind::Io, "the profiles cannot be listed"))
        })?;
        Ok(names.into_iter().map(|name| status::profile_json(&setup, name)).collect())
    }
}
