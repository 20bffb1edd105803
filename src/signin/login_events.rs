//! Waits for a person during a sign-in, and shows the time that is left.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::outcome::{ErrorKind, Failure};
use crate::signin::SignInError;
use crate::signin::loopback::LoginEvent;

/// Receives the events, and shows the countdown.
pub struct LoginEvents<'a> {
    clock: &'a dyn Clock,
    show_remaining: &'a dyn Fn(Duration),
    sender: Sender<LoginEvent>,
    events: Receiver<LoginEvent>,
}

/// The end of a wait.
#[derive(Debug)]
pub struct Deadline {
    since: Moment,
    total: Duration,
    is_shown: bool,
}

/// How often the countdown is shown. A machine that slept notices within one tick that time has passed.
const TICK: Duration = Duration::from_secs(1);

impl<'a> LoginEvents<'a> {
    /// `show` is told every second what is left.
    pub fn new(clock: &'a dyn Clock, show: &'a dyn Fn(Duration)) -> Self {
        let (sender, events) = channel();
        Self { clock, show_remaining: show, sender, events }
    }

    /// A sender for the sources of events.
    pub fn sender(&self) -> Sender<LoginEvent> {
        self.sender.clone()
    }

    pub fn deadline(&self, total: Duration) -> Deadline {
        Deadline { since: self.clock.now(), total, is_shown: true }
    }

    /// A deadline without a countdown, which would write over what a person types.
    pub fn hidden_deadline(&self, total: Duration) -> Deadline {
        Deadline { is_shown: false, ..self.deadline(total) }
    }

    /// The next event before the deadline; `Ok(None)` if `at_most` passes first.
    pub fn next(&self, deadline: &Deadline, at_most: Duration) -> Result<Option<LoginEvent>, SignInError> {
        let started = self.clock.now();
        loop {
            let now = self.clock.now();
            let left = deadline.total.saturating_sub(now.time_since(&deadline.since));
            if left.is_zero() {
                return Err(timeout_error(deadline.total));
            }
            let pause = at_most.saturating_sub(now.time_since(&started));
            if deadline.is_shown {
                (self.show_remaining)(left);
            }
            match self.events.recv_timeout(pause.min(left).min(TICK)) {
                Ok(LoginEvent::Interrupted) => return Err(interrupted_error()),
                Ok(event) => return Ok(Some(event)),
                Err(RecvTimeoutError::Timeout) if pause <= TICK && pause <= left => return Ok(None),
                // This value holds a sender itself, so the channel is never disconnected.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

fn timeout_error(total: Duration) -> SignInError {
    let message = format!("the login was not completed within {}", humantime::format_duration(total));
    SignInError::Abandoned(Failure::new(ErrorKind::Timeout, message).with_hint("sign in again"))
}

fn interrupted_error() -> SignInError {
    SignInError::Abandoned(Failure::new(ErrorKind::Interrupted, "interrupted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn wait_ends_on_event_pause_deadline_or_interrupt() {
        let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
        let shown = std::cell::RefCell::new(Vec::new());
        let show = |left: Duration| shown.borrow_mut().push(left.as_secs());
        let wait = LoginEvents::new(&clock, &show);
        let deadline = wait.deadline(Duration::from_secs(10));
        assert!(matches!(wait.next(&deadline, Duration::ZERO), Ok(None)));
        clock.advance(Duration::from_secs(4));
        wait.sender().send(LoginEvent::PasteEnded).unwrap();
        assert!(matches!(wait.next(&deadline, Duration::from_secs(9)), Ok(Some(LoginEvent::PasteEnded))));
        assert_eq!(*shown.borrow(), [10, 6]);
        wait.sender().send(LoginEvent::Interrupted).unwrap();
        let kind = |e: Result<_, _>| match e {
            Err(SignInError::Abandoned(f)) => f.kind.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(wait.next(&deadline, Duration::from_secs(9))), "interrupted");
        clock.advance(Duration::from_secs(6));
        assert_eq!(kind(wait.next(&deadline, Duration::from_secs(9))), "timeout");
    }
}
