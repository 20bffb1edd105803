//! A cron expression and its next occurrence. (pure)

/// A checked cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Schedule;
impl Schedule {
    pub fn next_after(&self, _t: crate::clock::Timestamp) -> Option<crate::clock::Timestamp> {
        None
    }
}
