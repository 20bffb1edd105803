//! Waits for a newer token: at the daemon, or by looks at the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{KeeperParts, Token, TokenError};
use crate::access::obtain::{DaemonUse, FoundToken, of_daemon, without_daemon, without_profile};
use crate::broker::{DaemonPlaces, client};
use crate::credential::Generation;
use crate::events;
use crate::outcome::OutcomeKind;
use crate::profile::ProfileName;
use crate::sys::file_watch::FileVersion;

/// How long one request waits at the daemon. Each begins with a sign of life: while a daemon hangs, other processes refresh.
const POLL: Duration = Duration::from_secs(5);
/// How often the journal is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After so many looks a daemon may have been started.
const LOOKS: usize = 30;

/// A wait that ends when it is dropped.
pub(super) struct Wait(pub(super) JoinHandle<Result<Token, TokenError>>);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) async fn newer_token(
    parts: Arc<KeeperParts>,
    name: ProfileName,
    seen: Generation,
) -> Result<Token, TokenError> {
    let places = DaemonPlaces::of(&parts.setup.environment);
    loop {
        if parts.daemon != DaemonUse::Never {
            match client::wait_for_newer(&places, &*parts.setup.clock, &name, seen, POLL).await {
                Ok(None) => continue,
                Ok(Some(reply)) if reply.token.is_some() || parts.daemon == DaemonUse::Only => {
                    return parts.handed_out(&name, of_daemon(reply, &name));
                }
                Err(none) if parts.daemon == DaemonUse::Only => return Err(without_daemon(none).into()),
                Ok(Some(_)) => {}
                Err(none) => events::token_from_store(none.reason()),
            }
        }
        if let Some(found) = look_at_journal(&parts, &name, seen).await {
            return found;
        }
    }
}

/// Looks for half a minute. `None`: there was nothing new.
async fn look_at_journal(
    parts: &Arc<KeeperParts>,
    name: &ProfileName,
    seen: Generation,
) -> Option<Result<Token, TokenError>> {
    let mut version = None;
    for _ in 0..LOOKS {
        let (looking, name) = (Arc::clone(parts), name.clone());
        let look = tokio::task::spawn_blocking(move || look(&looking, &name, seen, version)).await;
        match look.unwrap_or_else(|_| Err(TokenError::broken())) {
            Ok(Looked::Nothing(now)) => version = now,
            Ok(Looked::Newer(token)) => return Some(Ok(*token)),
            Err(error) => return Some(Err(error)),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    None
}

enum Looked {
    Newer(Box<Token>),
    /// The version of the journal that has nothing new.
    Nothing(Option<FileVersion>),
}

fn look(
    parts: &KeeperParts,
    name: &ProfileName,
    seen: Generation,
    before: Option<FileVersion>,
) -> Result<Looked, TokenError> {
    let version = FileVersion::of(&parts.setup.store.layout().profile_folder(name).journal());
    if before.is_some() && before == version {
        return Ok(Looked::Nothing(version));
    }
    let profile = parts.setup.profile(name).map_err(without_profile)?;
    let Some(found) = parts.engine.access_token_after(&profile, seen, Duration::ZERO) else {
        return Ok(Looked::Nothing(version));
    };
    let Some(token) = found.token else { return Ok(Looked::Nothing(version)) };
    let found = FoundToken { token, outcome: OutcomeKind::Fresh, warnings: found.warnings };
    parts.handed_out(name, Ok(found)).map(|token| Looked::Newer(Box::new(token)))
}
