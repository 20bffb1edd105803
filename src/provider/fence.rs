//! The fence: the request body itself, which lets the refresh token out at most once, and only after the intent is
//! durable.
//!
//! reqwest and hyper poll a request's body only once a connection stands, TLS included. So the first poll is the last
//! moment at which nothing has been sent. There the gate runs, on a thread of its own: it asks whether the attempt is
//! still allowed, journals the intent and syncs it. Only then does the body yield its bytes, once.
//!
//! hyper goes on polling a body after the server has answered early, or after the caller gave up. Therefore one atomic
//! state decides, whoever comes first:
//!
//! ```text
//! idle ──first poll──→ writing ──gate open──→ yielded      may have been sent
//!   └──────────────────────┴──shut()────────→ closed       was certainly not sent
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

/// What stands between a connection and the refresh token. Runs once, may block, and on `Ok` has made the intent
/// durable.
pub type Gate = Box<dyn FnOnce() -> Result<(), GateError> + Send>;

/// Why the gate stayed shut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateError {
    /// The attempt is no longer allowed: out of time, told to stop, or the lock is lost.
    Refused(&'static str),
    /// The same, found after the intent was journaled.
    Overtaken(&'static str),
    /// The intent could not be journaled.
    Journal(String),
}

const IDLE: u8 = 0;
const WRITING: u8 = 1;
const YIELDED: u8 = 2;
const CLOSED: u8 = 3;

/// The state shared by the flight and the body.
pub struct Fence {
    state: AtomicU8,
    gate: Mutex<Option<Gate>>,
    /// What the gate said, once it has run.
    verdict: Mutex<Option<Result<(), GateError>>>,
    spoken: Condvar,
    yielded: Notify,
}

/// What became of the refresh token.
#[derive(Debug)]
pub enum Crossing {
    /// The body was given to the connection: it may have been sent.
    Sent,
    /// It was not. `may_have_intent`: the gate was open or opening, or broke while it wrote, so an intent that means
    /// nothing may be on disk.
    Withheld { proof: NeverSent, may_have_intent: bool, gate: Option<GateError> },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fence {
    pub fn new(gate: Gate) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            gate: Mutex::new(Some(gate)),
            verdict: Mutex::new(None),
            spoken: Condvar::new(),
            yielded: Notify::new(),
        })
    }

    /// Closes the fence unless the token is already through. Called on a response head, a timeout, an error: first of
    /// all, before anything is made of it. Does not block.
    pub fn shut(&self) {
        let closed = |from| self.state.compare_exchange(from, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        // Twice idle: between the two the state can have moved on to writing, but never back.
        let _is_closed = closed(IDLE) || closed(WRITING);
    }

    /// Shuts the fence and tells what became of the token. Waits for a gate that is at work.
    pub fn settle(&self) -> Crossing {
        self.shut();
        if self.state.load(Ordering::SeqCst) == YIELDED {
            return Crossing::Sent;
        }
        let has_begun = lock(&self.gate).is_none();
        let gate = has_begun.then(|| self.wait_for_gate());
        Crossing::Withheld {
            proof: NeverSent::by_closed_gate(),
            may_have_intent: matches!(gate, Some(Ok(()) | Err(GateError::Journal(_) | GateError::Overtaken(_)))),
            gate: gate.and_then(Result::err),
        }
    }

    /// Resolves once the token is on its way.
    pub async fn yielded(&self) {
        loop {
            let notified = self.yielded.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.state.load(Ordering::SeqCst) == YIELDED {
                return;
            }
            notified.await;
        }
    }

    fn wait_for_gate(&self) -> Result<(), GateError> {
        let verdict = lock(&self.verdict);
        let verdict = self.spoken.wait_while(verdict, |v| v.is_none()).unwrap_or_else(PoisonError::into_inner);
        verdict.clone().unwrap_or(Ok(()))
    }

    /// Takes the gate if the fence is still idle.
    fn begin(&self) -> Option<Gate> {
        let mut gate = lock(&self.gate);
        let is_first = self.state.compare_exchange(IDLE, WRITING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if is_first { gate.take() } else { None }
    }

    /// Runs the gate and remembers what it said.
    fn run(&self, gate: Gate) -> Result<(), GateError> {
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(gate))
            .unwrap_or_else(|_| Err(GateError::Journal("the gate panicked".into())));
        *lock(&self.verdict) = Some(said.clone());
        self.spoken.notify_all();
        said
    }

    /// Lets the token through, unless somebody shut the fence meanwhile.
    fn pass(&self) -> bool {
        let passed = self.state.compare_exchange(WRITING, YIELDED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if passed {
            self.yielded.notify_waiters();
        }
        passed
    }
}

/// The request body. Cannot be cloned, so no layer above the connection can send it a second time.
pub struct FencedBody {
    fence: Arc<Fence>,
    bytes: Option<Bytes>,
    length: u64,
    gate: Option<JoinHandle<Result<(), GateError>>>,
}

impl FencedBody {
    pub fn new(fence: Arc<Fence>, bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, fence, bytes: Some(bytes), gate: None }
    }
}

impl Body for FencedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.bytes.is_none() {
            return Poll::Ready(None);
        }
        if this.gate.is_none() {
            let Some(gate) = this.fence.begin() else {
                return Poll::Ready(Some(Err(closed())));
            };
            let fence = Arc::clone(&this.fence);
            this.gate = Some(tokio::task::spawn_blocking(move || fence.run(gate)));
        }
        let said = match this.gate.as_mut().map(|gate| Pin::new(gate).poll(cx)) {
            None | Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(said)) => said,
        };
        let is_open = matches!(said, Ok(Ok(())));
        if is_open && this.fence.pass() {
            return Poll::Ready(this.bytes.take().map(|bytes| Ok(Frame::data(bytes))));
        }
        this.fence.shut();
        this.gate = None;
        Poll::Ready(Some(Err(closed())))
    }

    /// Exact, so that hyper sends `Content-Length` and no chunks.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.bytes.is_some() { self.length } else { 0 })
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
}

fn closed() -> io::Error {
    io::Error::other("the fence is closed")
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

    fn body(fence: &Arc<Fence>) -> FencedBody {
        FencedBody::new(Arc::clone(fence), Bytes::from_static(b"token"))
    }

    #[test]
    fn r07_the_body_is_yielded_once_and_after_the_gate() {
        let (said, heard) = mpsc::channel();
        let fence = Fence::new(Box::new(move || {
            said.send(()).unwrap();
            Ok(())
        }));
        let mut b = body(&fence);
        assert_eq!((b.size_hint().exact(), b.is_end_stream()), (Some(5), false));
        let frame = runtime().block_on(b.frame()).unwrap().unwrap();
        heard.try_recv().expect("the gate ran first");
        assert_eq!(frame.into_data().unwrap(), "token");
        assert!(b.is_end_stream() && runtime().block_on(b.frame()).is_none());
        assert!(matches!(fence.settle(), Crossing::Sent));
    }

    #[test]
    fn the_time_for_an_answer_begins_when_the_token_is_on_its_way() {
        let fence = Fence::new(Box::new(|| Ok(())));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut yielded = std::pin::pin!(fence.yielded());
        assert!(yielded.as_mut().poll(&mut cx).is_pending());
        runtime().block_on(body(&fence).frame()).unwrap().unwrap();
        assert!(yielded.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn r05_a_gate_that_fails_keeps_the_token() {
        let fence = Fence::new(Box::new(|| Err(GateError::Journal("disk full".into()))));
        assert!(runtime().block_on(body(&fence).frame()).unwrap().is_err());
        match fence.settle() {
            Crossing::Withheld { may_have_intent: true, gate: Some(GateError::Journal(e)), .. } => {
                assert_eq!(e, "disk full");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_before_the_body_keeps_the_token() {
        let fence = Fence::new(Box::new(|| panic!("must not run")));
        fence.shut();
        assert!(runtime().block_on(body(&fence).frame()).unwrap().is_err());
        assert!(matches!(fence.settle(), Crossing::Withheld { may_have_intent: false, gate: None, .. }));
    }

    #[test]
    fn a_timeout_while_the_intent_is_written_keeps_the_token_and_reports_the_intent() {
        let (go, gone) = mpsc::channel::<()>();
        let (started, has_started) = mpsc::channel();
        let fence = Fence::new(Box::new(move || {
            started.send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        }));
        let runtime = runtime();
        let mut b = body(&fence);
        let polling = runtime.spawn(async move { b.frame().await.unwrap().is_err() });
        has_started.recv_timeout(Duration::from_secs(30)).unwrap();
        fence.shut();
        go.send(()).unwrap();
        assert!(matches!(fence.settle(), Crossing::Withheld { may_have_intent: true, .. }));
        assert!(runtime.block_on(polling).unwrap(), "a closed fence yields an error, not the token");
    }

    #[test]
    fn a_panicking_gate_does_not_hang_the_flight() {
        let fence = Fence::new(Box::new(|| panic!("bug")));
        assert!(runtime().block_on(body(&fence).frame()).unwrap().is_err());
        assert!(matches!(fence.settle(), Crossing::Withheld { gate: Some(_), .. }));
    }

    #[test]
    fn a_body_that_is_never_polled_sends_nothing() {
        let fence = Fence::new(Box::new(|| Ok(())));
        drop(body(&fence));
        assert!(matches!(fence.settle(), Crossing::Withheld { may_have_intent: false, .. }));
    }

    #[test]
    fn shut_and_yield_race_to_one_answer() {
        let runtime = runtime();
        for _ in 0..500 {
            let fence = Fence::new(Box::new(|| Ok(())));
            let mut b = body(&fence);
            let polling = runtime.spawn(async move { b.frame().await.unwrap().is_ok() });
            let is_sent = matches!(fence.settle(), Crossing::Sent);
            assert_eq!(runtime.block_on(polling).unwrap(), is_sent);
        }
    }
}
