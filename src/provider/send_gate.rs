//! The send gate: a request body that lets the refresh token out at most once, and only after the intent is durable.
//!
//! reqwest and hyper poll a request's body only once a connection stands, TLS included. So the first poll is the last
//! moment at which nothing has been sent. Then the connection asks for the check before sending, which the flight runs on
//! its own thread, where it waits for the response anyway: whether the attempt is still allowed; then it writes the intent
//! to the journal and syncs it. Only after that does the body yield its bytes, once. So no thread must be had when the
//! connection stands, and whatever becomes of the connection's task, the flight is told.
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
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, oneshot};

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
    /// Held while the check runs, so that who wants its result waits for it.
    check: Mutex<GateCheck>,
    released: Notify,
}

enum GateCheck {
    Waiting(BeforeSend),
    Done(Result<(), BeforeSendError>),
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

/// What the flight hears from the connection.
enum ConnectionEvent<T> {
    /// The connection stands, and the check is to be run. The result goes back; if it is dropped, nothing is sent.
    Check(oneshot::Sender<bool>),
    /// The exchange is over. `None`: its task died.
    Done(Option<T>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SendGate {
    pub fn new(gate: BeforeSend) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            check: Mutex::new(GateCheck::Waiting(gate)),
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
        let result = match &*lock(&self.check) {
            // A check that has not begun runs no more.
            GateCheck::Waiting(_) => None,
            GateCheck::Done(result) => Some(result.clone()),
        };
        SendOutcome::NotSent {
            proof: NeverSent::by_closed_gate(),
            may_have_intent: matches!(
                result,
                Some(Ok(()) | Err(BeforeSendError::Journal(_) | BeforeSendError::RefusedAfterIntent(_)))
            ),
            gate: result.and_then(Result::err),
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

    /// Runs the check, unless the gate was closed meanwhile, and keeps its result. Returns whether it passed.
    fn run_check(&self) -> bool {
        let mut check = lock(&self.check);
        if self.state.load(Ordering::SeqCst) != CHECKING {
            return false;
        }
        // If the check breaks, this is its result.
        let broken = GateCheck::Done(Err(BeforeSendError::Journal("the gate panicked".into())));
        let GateCheck::Waiting(before_send) = std::mem::replace(&mut *check, broken) else { return false };
        if let Ok(result) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(before_send)) {
            *check = GateCheck::Done(result);
        }
        matches!(*check, GateCheck::Done(Ok(())))
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

/// The end of an exchange that the flight waits at.
pub struct FlightEnd<T> {
    send_gate: Arc<SendGate>,
    events: Receiver<ConnectionEvent<T>>,
}

/// The end of an exchange that its task has. Dropping it tells the flight that the task is over.
pub struct ConnectionEnd<T> {
    events: Sender<ConnectionEvent<T>>,
    result: Option<T>,
}

/// The two ends of an exchange, and its body.
pub fn exchange_ends<T: Send + 'static>(
    send_gate: &Arc<SendGate>,
    bytes: Bytes,
) -> (FlightEnd<T>, ConnectionEnd<T>, GatedBody) {
    let (events, receiver) = mpsc::channel();
    let asks = events.clone();
    let ask = move |reply| asks.send(ConnectionEvent::Check(reply)).is_ok();
    let body = GatedBody::new(Arc::clone(send_gate), bytes, Box::new(ask));
    let flight = FlightEnd { send_gate: Arc::clone(send_gate), events: receiver };
    (flight, ConnectionEnd { events, result: None }, body)
}

impl<T> FlightEnd<T> {
    /// Runs the check when the connection asks for it, and waits for the end of the exchange. `checked` is called after
    /// the check. `None`: the task died.
    pub fn wait(&self, checked: impl FnOnce()) -> Option<T> {
        let mut checked = Some(checked);
        loop {
            match self.events.recv() {
                Ok(ConnectionEvent::Check(reply)) => {
                    let has_passed = self.send_gate.run_check();
                    if let Some(checked) = checked.take() {
                        checked();
                    }
                    // If the connection has gone, the result is not wanted any more.
                    let _gone = reply.send(has_passed);
                }
                Ok(ConnectionEvent::Done(result)) => return result,
                Err(mpsc::RecvError) => return None,
            }
        }
    }
}

impl<T> ConnectionEnd<T> {
    /// Ends the exchange.
    pub fn finish(mut self, result: T) {
        self.result = Some(result);
    }
}

impl<T> Drop for ConnectionEnd<T> {
    fn drop(&mut self) {
        // If the flight is gone, its process ends.
        let _gone = self.events.send(ConnectionEvent::Done(self.result.take()));
    }
}

/// Asks the flight for the check. Returns whether it could be asked.
type AskForCheck = Box<dyn Fn(oneshot::Sender<bool>) -> bool + Send + Sync>;

/// The request body. Cannot be cloned, so no layer above the connection can send it a second time.
pub struct GatedBody {
    send_gate: Arc<SendGate>,
    bytes: Option<Bytes>,
    length: u64,
    ask: AskForCheck,
    check: Option<oneshot::Receiver<bool>>,
}

impl GatedBody {
    fn new(send_gate: Arc<SendGate>, bytes: Bytes, ask: AskForCheck) -> Self {
        Self { length: bytes.len() as u64, send_gate, bytes: Some(bytes), ask, check: None }
    }

    /// Asks for the check, if no other poll of a body has.
    fn begin_check(&self) -> Option<oneshot::Receiver<bool>> {
        let state = &self.send_gate.state;
        state.compare_exchange(IDLE, CHECKING, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        let (reply, check) = oneshot::channel();
        (self.ask)(reply).then_some(check)
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
            this.check = this.begin_check();
        }
        let Some(check) = this.check.as_mut() else {
            return Poll::Ready(Some(Err(closed_error())));
        };
        let Poll::Ready(has_passed) = Pin::new(check).poll(cx) else {
            return Poll::Pending;
        };
        if has_passed == Ok(true) && this.send_gate.release() {
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

    /// A body whose flight waits on a thread of its own.
    fn body(send_gate: &Arc<SendGate>) -> GatedBody {
        let (flight, connection, body) = exchange_ends::<()>(send_gate, Bytes::from_static(b"token"));
        std::thread::spawn(move || flight.wait(|| drop(connection)));
        body
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

    /// Rule 7.
    #[test]
    fn flight_hears_of_a_connection_task_that_dies() {
        let send_gate = SendGate::new(Box::new(|| panic!("must not run")));
        let (flight, connection, body) = exchange_ends::<()>(&send_gate, Bytes::from_static(b"token"));
        let dying = runtime().spawn(async move {
            let _with_it = (connection, body);
            panic!("as if no thread could be had");
        });
        assert_eq!(flight.wait(|| panic!("nothing was checked")), None);
        drop(dying);
        assert!(matches!(send_gate.close_and_report(), SendOutcome::NotSent { may_have_intent: false, .. }));
    }

    /// Rule 7.
    #[test]
    fn body_whose_flight_has_gone_yields_nothing() {
        let send_gate = SendGate::new(Box::new(|| panic!("must not run")));
        let (flight, _connection, mut body) = exchange_ends::<()>(&send_gate, Bytes::from_static(b"token"));
        drop(flight);
        assert!(runtime().block_on(body.frame()).unwrap().is_err());
        assert!(matches!(send_gate.close_and_report(), SendOutcome::NotSent { may_have_intent: false, .. }));
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
