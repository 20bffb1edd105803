//! A cron expression and its next occurrence. (pure)

/// A checked cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Schedule;
