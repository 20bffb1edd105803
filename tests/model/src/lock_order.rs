//! The order of the locks, when one process stops for good at any moment: whom it may keep waiting, and whom not.
//!
//! Limits: a wait has no end here, as if every limit were long; the program's waits do end. The lock of the ledger is left
//! out: its wait is short, and what cannot be written is kept elsewhere.

use stateright::{Model, Property};

/// How an import behaves when a lock that it needs is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Import {
    /// It lets all its locks go, and waits for that one alone.
    LetsGo,
    /// It waits with the lock of the store in its hand.
    WaitsWithStore,
}

/// A design of the locks.
#[derive(Clone, Copy, Debug)]
pub struct LockDesign {
    pub import: Import,
    /// Each token has a lock of its own; else all share one.
    pub is_lock_per_token: bool,
}

impl LockDesign {
    /// The one that is built.
    pub const IMPLEMENTED: Self = Self { import: Import::LetsGo, is_lock_per_token: true };
}

/// What a process does, with which profile and token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Job {
    is_import: bool,
    profile: u8,
    token: u8,
}

/// A flight and an import of one profile, and one of each for two others.
const JOBS: [Job; 4] = [
    Job { is_import: false, profile: 0, token: 0 },
    Job { is_import: true, profile: 0, token: 1 },
    Job { is_import: false, profile: 1, token: 2 },
    Job { is_import: true, profile: 2, token: 3 },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Lock {
    Store,
    Profile(u8),
    Token(u8),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct LockProcess {
    held: Vec<Lock>,
    /// The one lock that is waited for with empty hands.
    awaits: Option<Lock>,
    is_done: bool,
}

/// Who has which lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockState {
    processes: Vec<LockProcess>,
    stopped: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockStep {
    Advance(usize),
    Stop(usize),
}

impl LockDesign {
    /// The locks of a job, in the order in which they are taken.
    fn order(&self, job: Job) -> Vec<Lock> {
        let token = Lock::Token(if self.is_lock_per_token { job.token } else { 0 });
        let store = job.is_import.then_some(Lock::Store);
        store.into_iter().chain([Lock::Profile(job.profile), token]).collect()
    }

    /// The process after its next step, if it can make one.
    fn advance(&self, state: &LockState, p: usize) -> Option<LockProcess> {
        let process = &state.processes[p];
        let is_free = |lock: &Lock| state.processes.iter().all(|other| !other.held.contains(lock));
        if process.is_done || state.stopped == Some(p) {
            return None;
        }
        if let Some(lock) = process.awaits {
            return is_free(&lock).then(LockProcess::default);
        }
        let order = self.order(JOBS[p]);
        let Some(next) = order.get(process.held.len()) else {
            return Some(LockProcess { is_done: true, ..LockProcess::default() });
        };
        if is_free(next) {
            let held = process.held.iter().copied().chain([*next]).collect();
            return Some(LockProcess { held, ..process.clone() });
        }
        let lets_go = JOBS[p].is_import && self.import == Import::LetsGo && !process.held.is_empty();
        lets_go.then(|| LockProcess { awaits: Some(*next), ..LockProcess::default() })
    }

    /// Whether a process that stays may be kept waiting by the one that is stopped: they share a profile or a token, or it
    /// is stopped in the short time in which an import has the lock of the store.
    fn is_excused(state: &LockState, p: usize) -> bool {
        let Some(stopped) = state.stopped else { return false };
        let (ours, theirs) = (JOBS[p], JOBS[stopped]);
        let has_store = state.processes[stopped].held.contains(&Lock::Store);
        ours.profile == theirs.profile || ours.token == theirs.token || (ours.is_import && has_store)
    }
}

impl Model for LockDesign {
    type State = LockState;
    type Action = LockStep;

    fn init_states(&self) -> Vec<LockState> {
        vec![LockState { processes: vec![LockProcess::default(); JOBS.len()], stopped: None }]
    }

    fn actions(&self, state: &LockState, steps: &mut Vec<LockStep>) {
        for p in 0..JOBS.len() {
            if self.advance(state, p).is_some() {
                steps.push(LockStep::Advance(p));
            }
            if state.stopped.is_none() && !state.processes[p].is_done {
                steps.push(LockStep::Stop(p));
            }
        }
    }

    fn next_state(&self, state: &LockState, step: LockStep) -> Option<LockState> {
        let mut next = state.clone();
        match step {
            LockStep::Advance(p) => next.processes[p] = self.advance(state, p)?,
            LockStep::Stop(p) => next.stopped = Some(p),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "L1 a stopped process keeps only its own profile waiting",
                |design: &Self, state: &LockState| {
                    let can_go_on = (0..JOBS.len()).any(|p| design.advance(state, p).is_some());
                    let is_kept = |p: usize| !state.processes[p].is_done && state.stopped != Some(p);
                    can_go_on || (0..JOBS.len()).all(|p| !is_kept(p) || Self::is_excused(state, p))
                },
            ),
            Property::sometimes("S1 all are done", |_, state: &LockState| state.processes.iter().all(|p| p.is_done)),
            Property::sometimes("S2 one is stopped with its locks", |_, state: &LockState| {
                state.stopped.is_some_and(|p| state.processes[p].held.len() > 1)
            }),
        ]
    }
}
