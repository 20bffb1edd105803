//! The tokens that were handed out last, so that a request costs one look at one file, and a slow disk holds up none.

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::credential::freshness::Validity;
use crate::engine::access_token::{TokenOutput, TokenResult};
use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::sys::file_watch::FileVersion;

/// How long a look at a file is waited for. After that the token is handed out without it.
const LOOK_LIMIT: Duration = Duration::from_millis(50);
/// How long a token is handed out before everything is looked at once more: not all that matters changes the journal.
const TRUSTED_FOR: Duration = Duration::from_secs(30);

/// A configuration, which is the same one as long as it is the same allocation.
pub(super) type Configuration = Arc<dyn Any + Send + Sync>;

/// What was handed out last of each profile.
pub(super) struct TokenCache {
    known: Mutex<HashMap<ProfileName, Arc<CachedToken>>>,
    /// Ends the thread when it is dropped. `None`: there is no thread, so nothing is cached.
    looks: Option<mpsc::Sender<VersionLook>>,
}

struct CachedToken {
    /// Of the journal that the token was handed out by.
    version: FileVersion,
    configuration: Configuration,
    at: Moment,
    token: TokenOutput,
    validity: Validity,
}

/// A request to the thread that looks at files.
struct VersionLook {
    journal: PathBuf,
    found: oneshot::Sender<Option<FileVersion>>,
}

impl TokenCache {
    pub(super) fn new() -> Self {
        Self::looking_by(FileVersion::of)
    }

    fn looking_by(look: impl Fn(&Path) -> Option<FileVersion> + Send + 'static) -> Self {
        let (looks, asked) = mpsc::channel();
        let thread = std::thread::Builder::new().name("journal look".into());
        let spawned = thread.spawn(move || look_at_files(&asked, look));
        Self { known: Mutex::default(), looks: spawned.is_ok().then_some(looks) }
    }

    /// A token that is valid for long enough, if nothing has changed since it was handed out.
    pub(super) async fn get(
        &self,
        name: &ProfileName,
        journal: PathBuf,
        min_valid: Duration,
        configuration: &Configuration,
        now: &Moment,
    ) -> Option<TokenResult> {
        let known = self.lock().get(name).cloned();
        let known = known.filter(|known| known.is_valid_for(min_valid, configuration, now))?;
        let (found, told) = oneshot::channel();
        self.looks.as_ref()?.send(VersionLook { journal, found }).ok()?;
        let is_same = match tokio::time::timeout(LOOK_LIMIT, told).await {
            Ok(Ok(version)) => version == Some(known.version) && now.time_since(&known.at) < TRUSTED_FOR,
            Ok(Err(_)) => false,
            // The disk is slow: what is known is better than nothing.
            Err(_) => true,
        };
        is_same.then(|| TokenResult {
            token: Some(known.token.clone()),
            outcome: Outcome::new(OutcomeKind::Fresh),
            validity: Some(known.validity.clone()),
            warnings: Vec::new(),
        })
    }

    /// Keeps a token that was handed out without any trouble. `version`: of the journal before it was read.
    pub(super) fn put(
        &self,
        name: &ProfileName,
        version: Option<FileVersion>,
        configuration: Configuration,
        obtained: &TokenResult,
        now: Moment,
    ) {
        let is_plain = obtained.outcome.kind == OutcomeKind::Fresh && obtained.warnings.is_empty();
        let entry = match (version, &obtained.token, &obtained.validity) {
            (Some(version), Some(token), Some(validity)) if is_plain && !validity.is_unproven() => {
                Some(CachedToken { version, configuration, at: now, token: token.clone(), validity: validity.clone() })
            }
            _ => None,
        };
        let mut known = self.lock();
        match entry {
            Some(entry) => known.insert(name.clone(), Arc::new(entry)),
            None => known.remove(name),
        };
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProfileName, Arc<CachedToken>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedToken {
    fn is_valid_for(&self, min_valid: Duration, configuration: &Configuration, now: &Moment) -> bool {
        let left = self.validity.remaining(now);
        !left.is_zero()
            && left >= min_valid
            && std::ptr::addr_eq(Arc::as_ptr(&self.configuration), Arc::as_ptr(configuration))
    }
}

/// Answers until the cache is gone. Those who wait for the same file at the same time share one look.
fn look_at_files(asked: &mpsc::Receiver<VersionLook>, look: impl Fn(&Path) -> Option<FileVersion>) {
    while let Ok(first) = asked.recv() {
        let mut waiting: HashMap<PathBuf, Vec<oneshot::Sender<Option<FileVersion>>>> = HashMap::new();
        for VersionLook { journal, found } in std::iter::once(first).chain(asked.try_iter()) {
            waiting.entry(journal).or_default().push(found);
        }
        for (journal, waiting) in waiting {
            let version = look(&journal);
            for found in waiting {
                // Who does not wait any more has handed the token out.
                let _told = found.send(version);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::Generation;

    struct Case {
        dir: tempfile::TempDir,
        clock: ManualClock,
        configuration: Configuration,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("record.json"), "1").unwrap();
        let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
        Case { dir, clock, configuration: Arc::new(()) }
    }

    impl Case {
        fn journal(&self) -> PathBuf {
            self.dir.path().join("record.json")
        }

        fn put(&self, cache: &TokenCache, warnings: Vec<String>) {
            let now = self.clock.now();
            let validity = Validity {
                obtained: now.clone(),
                lifetime_ms: 600_000,
                assumed: false,
                is_remainder: false,
                expired_at: None,
            };
            let token = TokenOutput {
                access_token: "t".into(),
                token_type: "Bearer".into(),
                expires_at: None,
                assumed: false,
                scope: None,
                generation: Generation::new(7),
                id_token: None,
            };
            let (token, validity) = (Some(token), Some(validity));
            let obtained = TokenResult { token, outcome: Outcome::new(OutcomeKind::Fresh), validity, warnings };
            let version = FileVersion::of(&self.journal());
            cache.put(&"p".parse().unwrap(), version, Arc::clone(&self.configuration), &obtained, now);
        }

        async fn has(&self, cache: &TokenCache, min_valid: u64, configuration: &Configuration) -> bool {
            let (name, min_valid) = ("p".parse().unwrap(), Duration::from_secs(min_valid));
            cache.get(&name, self.journal(), min_valid, configuration, &self.clock.now()).await.is_some()
        }
    }

    #[tokio::test]
    async fn cached_token_is_given_until_something_changes() {
        let (case, cache) = (case(), TokenCache::new());
        let ours = Arc::clone(&case.configuration);
        assert!(!case.has(&cache, 60, &ours).await);
        case.put(&cache, vec![]);
        assert!(case.has(&cache, 600, &ours).await && !case.has(&cache, 601, &ours).await);
        let reloaded: Configuration = Arc::new(());
        assert!(!case.has(&cache, 60, &reloaded).await);
        case.clock.advance(TRUSTED_FOR);
        assert!(!case.has(&cache, 60, &ours).await);
        case.put(&cache, vec![]);
        std::fs::write(case.journal(), "22").unwrap();
        assert!(!case.has(&cache, 60, &ours).await);
        case.put(&cache, vec![]);
        assert!(case.has(&cache, 60, &ours).await);
        case.put(&cache, vec!["refresh is failing".into()]);
        assert!(!case.has(&cache, 60, &ours).await, "a warning is told every time");
    }

    #[tokio::test]
    async fn cached_token_is_given_while_the_disk_hangs() {
        let (hang, gate) = mpsc::channel::<()>();
        let cache = TokenCache::looking_by(move |journal| {
            let _opened = gate.recv();
            FileVersion::of(journal)
        });
        let case = case();
        let ours = Arc::clone(&case.configuration);
        case.put(&cache, vec![]);
        case.clock.advance(Duration::from_secs(60));
        let asked = tokio::time::Instant::now();
        for _ in 0..5 {
            assert!(case.has(&cache, 60, &ours).await);
        }
        assert!(asked.elapsed() < Duration::from_millis(5 * 100 + 200), "{:?}", asked.elapsed());
        assert!(!case.has(&cache, 600, &ours).await, "it does not live that long any more");
        drop(hang);
    }
}
