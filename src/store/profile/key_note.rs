//! What a caller who is in no flight notes for `status` of the sealing key.

use crate::guard::Permit;
use crate::outcome::Outcome;
use crate::store::journal::block::{Block, Cause};
use crate::store::profile::view::ProfileView;
use crate::store::{Store, StoreError};
use crate::sys::lockfile::LockFile;

impl Store {
    /// Notes that a caller who is in no flight could not have the key (`outcome`), or that it could (`None`), if that is news
    /// after what it saw. It waits for no lock: the run that has it notes the same.
    pub fn note_key(&self, view: &ProfileView, outcome: Option<&Outcome>) -> Result<(), StoreError> {
        let Some(journal) = view.journal.as_ref().filter(|journal| journal.has_credential()) else { return Ok(()) };
        let block = outcome.filter(|outcome| outcome.is_without_key).and_then(Block::from_outcome);
        let noted = journal.block(Cause::Store);
        let is_news = match (&block, outcome) {
            (Some(block), _) => block.is_news_after(noted),
            (None, Some(_)) => false,
            (None, None) => noted.is_some_and(Block::is_about_key),
        };
        if !is_news || view.is_copied() || journal.integrity_error.is_some() {
            return Ok(());
        }
        let path = self.layout.profile_folder(&journal.profile).lock();
        let Some(lock) = LockFile::try_acquire(&path).map_err(|e| StoreError::io("lock", &path, e))? else {
            return Ok(());
        };
        let mut locked = self.open_profile(Permit::from_lock(&journal.profile, &lock))?;
        match block {
            Some(block) => locked.save_store_block(block),
            None => locked.clear_key_block(),
        }
    }
}
