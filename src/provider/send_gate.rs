//! The send gate: a request body that lets the refresh token out at most once, and only after the intent is durable.
//!
//! reqwest and hyper poll a request's body only once a connection stands, TLS included. So the first poll is the last
//! moment at which nothing has been sent. Then the check before sending runs, on a thread of its own: it asks whether
//! the attempt is still allowed, writes the intent to the journal and syncs it. Only after that does the body yield its
//! bytes, once.
//!
//! hyper goes on polling a body after the server has responded early, or after the caller gave up. Therefore one atomic
//! state decides, for whichever side comes first:
//!
//! ```text
//! idle ──first poll──→ checking ──check passed──→ released   may have been sent
//!   └───────────────────────┴──close()──────────→ closed     was certainly not sent
//! ```

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::guard::NeverSent;

/// The check between a connection and the refresh token. It runs once, may block, and on `Ok` has made the intent
/// durable.
pub type BeforeSend = Box<dyn FnOnce() -> Result<(), BeforeSendError> + Send>;

/// Why the check refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeforeSendError {
    /// The attempt is no longer allowed: out of time, told to stop, or the lock is lost.
    Refused(&'static str),
    /// The attempt was no longer allowed when the intent had already been written.
    RefusedAfterIntent(&'static str),
    /// The intent could not be written to the journal.
    Journal(String),
}

const IDLE: u8 = 0;
const CHECKING: u8 = 1;
const RELEASED: u8 = 2;
const CLOSED: u8 = 3;

/// The state shared by the flight and the body.
pub struct SendGate {
    state: AtomicU8,
    before_send: Mutex<Option<BeforeSend>>,
    /// The result of the check, once it has run.
    result: Mutex<Option<Result<(), BeforeSendError>>>,
    finished: Condvar,
    released: Notify,
}

/// What became of the refresh token.
#[derive(Debug)]
pub enum SendOutcome {
    /// The body was given to the connection, so the token may have been sent.
    Sent,
    /// The token was not sent. `may_have_intent`: the check passed, was running, or broke while it wrote, so an intent
    /// that means nothing may be on disk.
    NotSent { proof: NeverSent, may_have_intent: bool, gate: Option<BeforeSendError> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SendGate {
    pub fn new(gate: BeforeSend) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            before_send: Mutex::new(Some(gate)),
            result: Mutex::new(None),
            finished: Condvar::new(),
            released: Notify::new(),
        })
    }

    /// Closes the gate unless the token is already through. It is called first on a response head, a timeout or an
    /// error, before the result is looked at. Does not block.
    pub fn close(&self) {
        let closed = |from| self.state.compare_exchange(from, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        // The state is tried twice: between the two tries it can move from idle to checking, but never back.
        let _is_closed = closed(IDLE) || closed(CHECKING);
    }

    /// Closes the gate and says whether the token was sent. Waits for a check that is running.
    pub fn close_and_report(&self) -> SendOutcome {
        self.close();
        if self.state.load(Ordering::SeqCst) == RELEASED {
            return SendOutcome::Sent;
        }
        let has_begun = lock(&self.before_send).is_none();
        let gate = has_begun.then(|| self.wait_for_result());
        SendOutcome::NotSent {
            proof: NeverSent::by_closed_gate(),
            may_have_intent: matches!(
                gate,
                Some(Ok(()) | Err(BeforeSendError::Journal(_) | BeforeSendError::RefusedAfterIntent(_)))
            ),
            gate: gate.and_then(Result::err),
        }
    }

    /// Resolves once the token has been yielded to the connection.
    pub async fn released(&self) {
        loop {
            let notified = self.released.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.state.load(Ordering::SeqCst) == RELEASED {
                return;
            }
            notified.await;
        }
    }

    fn wait_for_result(&self) -> Result<(), BeforeSendError> {
        let verdict = lock(&self.result);
        let verdict = self.finished.wait_while(verdict, |v| v.is_none()).unwrap_or_else(PoisonError::into_inner);
        verdict.clone().unwrap_or(Ok(()))
    }

    /// Takes the check if the gate is still idle.
    fn take_before_send(&self) -> Option<BeforeSend> {
        let mut gate = lock(&self.before_send);
        let is_first = self.state.compare_exchange(IDLE, CHECKING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if is_first { gate.take() } else { None }
    }

    /// Runs the check and keeps its result.
    fn run(&self, gate: BeforeSend) -> Result<(), BeforeSendError> {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(gate))
            .unwrap_or_else(|_| Err(BeforeSendError::Journal("the gate panicked".into())));
        *lock(&self.result) = Some(result.clone());
        self.finished.notify_all();
        result
    }

    /// Lets the token through, unless the gate was closed meanwhile.
    fn release(&self) -> bool {
        let passed = self.state.compare_exchange(CHECKING, RELEASED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if passed {
            self.released.notify_waiters();
        }
        passed
    }
}

/// The request body. Cannot be cloned, so no layer above the connection can send it a second time.
pub struct GatedBody {
    send_gate: Arc<SendGate>,
    bytes: Option<Bytes>,
    length: u64,
    check: Option<JoinHandle<Result<(), BeforeSendError>>>,
}

impl GatedBody {
    pub fn new(send_gate: Arc<SendGate>, bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, send_gate, bytes: Some(bytes), check: None }
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.bytes.is_none() {
            return Poll::Ready(None);
        }
        if this.check.is_none() {
            let Some(gate) = this.send_gate.take_before_send() else {
                return Poll::Ready(Some(Err(closed_error())));
            };
            let send_gate = Arc::clone(&this.send_gate);
            this.check = Some(tokio::task::spawn_blocking(move || send_gate.run(gate)));
        }
        let result = match this.check.as_mut().map(|gate| Pin::new(gate).poll(cx)) {
            None | Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(result)) => result,
        };
        let is_open = matches!(result, Ok(Ok(())));
        if is_open && this.send_gate.release() {
            return Poll::Ready(this.bytes.take().map(|bytes| Ok(Frame::data(bytes))));
        }
        this.send_gate.close();
        this.check = None;
        Poll::Ready(Some(Err(closed_error())))
    }

    /// An exact size, so that hyper sends `Content-Length` and no chunks.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.bytes.is_some() { self.length } else { 0 })
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
}

fn closed_error() -> io::Error {
    io::Error::other("the gate is closed")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    fn body(send_gate: &Arc<SendGate>) -> GatedBody {
        GatedBody::new(Arc::clone(send_gate), Bytes::from_static(b"token"))
    }

    /// Rule 7.
    #[test]
    fn body_is_yielded_once_and_only_after_the_gate() {
        let (ran_sender, ran) = mpsc::channel();
        let send_gate = SendGate::new(Box::new(move || {
            ran_sender.send(()).unwrap();
            Ok(())
        }));
        let mut b = body(&send_gate);
        assert_eq!((b.size_hint().exact(), b.is_end_stream()), (Some(5), false));
        let frame = runtime().block_on(b.frame()).unwrap().unwrap();
        ran.try_recv().expect("the gate ran first");
        assert_eq!(frame.into_data().unwrap(), "token");
        assert!(b.is_end_stream() && runtime().block_on(b.frame()).is_none());
        assert!(matches!(send_gate.close_and_report(), SendOutcome::Sent));
    }

    #[test]
    fn response_timeout_starts_when_the_token_is_yielded() {
        let send_gate = SendGate::new(Box::new(|| Ok(())));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut yielded = std::pin::pin!(send_gate.released());
        assert!(yielded.as_mut().poll(&mut cx).is_pending());
        runtime().block_on(body(&send_gate).frame()).unwrap().unwrap();
        assert!(yielded.as_mut().poll(&mut cx).is_ready());
    }

    /// Rule 5.
    #[test]
    fn failed_gate_withholds_the_token() {
        let send_gate = SendGate::new(Box::new(|| Err(BeforeSendError::Journal("disk full".into()))));
        assert!(runtime().block_on(body(&send_gate).frame()).unwrap().is_err());
        match send_gate.close_and_report() {
            SendOutcome::NotSent { may_have_intent: true, gate: Some(BeforeSendError::Journal(e)), .. } => {
                assert_eq!(e, "disk full");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn response_before_the_body_withholds_the_token() {
        let send_gate = SendGate::new(Box::new(|| panic!("must not run")));
        send_gate.close();
        assert!(runtime().block_on(body(&send_gate).frame()).unwrap().is_err());
        assert!(matches!(
            send_gate.close_and_report(),
            SendOutcome::NotSent { may_have_intent: false, gate: None, .. }
        ));
    }

    #[test]
    fn timeout_in_the_gate_withholds_token_and_reports_intent() {
        let (go, gone) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let send_gate = SendGate::new(Box::new(move || {
            started.send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        }));
        let runtime = runtime();
        let mut b = body(&send_gate);
        let polling = runtime.spawn(async move { b.frame().await.unwrap().is_err() });
        has_started.recv_timeout(Duration::from_secs(30)).unwrap();
        send_gate.close();
        go.send(()).unwrap();
        assert!(matches!(send_gate.close_and_report(), SendOutcome::NotSent { may_have_intent: true, .. }));
        assert!(runtime.block_on(polling).unwrap(), "a closed gate yields an error, not the token");
    }

    #[test]
    fn a_panicking_gate_does_not_hang_the_flight() {
        let send_gate = SendGate::new(Box::new(|| panic!("bug")));
        assert!(runtime().block_on(body(&send_gate).frame()).unwrap().is_err());
        match send_gate.close_and_report() {
            SendOutcome::NotSent { gate: Some(BeforeSendError::Journal(e)), .. } => assert_eq!(e, "the gate panicked"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_that_is_never_polled_sends_nothing() {
        let send_gate = SendGate::new(Box::new(|| Ok(())));
        drop(body(&send_gate));
        assert!(matches!(send_gate.close_and_report(), SendOutcome::NotSent { may_have_intent: false, .. }));
    }

    #[test]
    fn racing_shut_and_yield_agree_on_one_outcome() {
        let runtime = runtime();
        for _ in 0..500 {
            let send_gate = SendGate::new(Box::new(|| Ok(())));
            let mut b = body(&send_gate);
            let polling = runtime.spawn(async move { b.frame().await.unwrap().is_ok() });
            let is_sent = matches!(send_gate.close_and_report(), SendOutcome::Sent);
            assert_eq!(runtime.block_on(polling).unwrap(), is_sent);
        }
    }
}
