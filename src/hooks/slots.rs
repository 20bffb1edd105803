//! How many hooks one process runs at once: a thousand profiles that need a login must not start a thousand programs.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

const AT_ONCE: usize = 16;

#[derive(Default)]
pub(super) struct HookSlots {
    used: Mutex<usize>,
    freed: Condvar,
}

/// A slot, until it is dropped.
pub(super) struct HookSlot<'a>(&'a HookSlots);

impl HookSlots {
    /// Waits for one, for at most `limit`.
    pub(super) fn take(&self, limit: Duration) -> Option<HookSlot<'_>> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |used: &mut usize| *used >= AT_ONCE;
        let (mut used, _) = self.freed.wait_timeout_while(used, limit, is_full).unwrap_or_else(PoisonError::into_inner);
        if *used >= AT_ONCE {
            return None;
        }
        *used += 1;
        Some(HookSlot(self))
    }
}

impl Drop for HookSlot<'_> {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_free_again_when_its_hook_has_ended() {
        let slots = HookSlots::default();
        let held: Vec<_> = (0..AT_ONCE).map(|_| slots.take(Duration::ZERO)).collect();
        assert!(held.iter().all(Option::is_some) && slots.take(Duration::from_millis(1)).is_none());
        drop(held);
        assert!(slots.take(Duration::ZERO).is_some());
    }
}
