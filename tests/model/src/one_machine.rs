//! One machine: processes that share a profile, its lock, journal (J), sealed copy (S) and keyring (K), and one token
//! endpoint; with crashes, power cuts, a keyring that locks, and a network that loses, delays and reorders.
//!
//! Limits: each kind of fault happens at most as often as its budget says; a machine has no clock, so "settled" (Q) means
//! that no request of ours is under way any more, and grace and expiry are events.

use stateright::{Model, Property};

/// How the server treats refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    NoRotation,
    /// Rotates; old tokens live on.
    Lenient,
    /// A replay inside the grace gives the successor that was issued before.
    GraceSame,
    /// … gives another successor; all live.
    GraceMulti,
    /// … gives another successor; the earlier ones die.
    GraceLatest,
    /// A replay revokes the family.
    Strict,
}

impl Server {
    pub const ALL: [Self; 6] =
        [Self::NoRotation, Self::Lenient, Self::GraceSame, Self::GraceMulti, Self::GraceLatest, Self::Strict];

    pub fn has_grace(self) -> bool {
        matches!(self, Self::GraceSame | Self::GraceMulti | Self::GraceLatest)
    }

    fn forgives_replay(self) -> bool {
        matches!(self, Self::NoRotation | Self::Lenient)
    }
}

/// What becomes of the sealed copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealing {
    /// There is none: the keyring alone has the token.
    Never,
    /// Deleted once the keyring has the token.
    UntilCommit,
    /// Kept until the next generation's.
    Kept,
}

/// A design: the one that is built, or one that lacks something.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    pub server: Server,
    pub processes: usize,
    /// Callers per process, one after the other.
    pub rounds: u8,
    /// The lock file excludes other processes.
    pub lock: bool,
    /// The journal is read again under the lock.
    pub reread: bool,
    /// An intent is journalled before the request.
    pub intent: bool,
    pub sealing: Sealing,
    /// An attempt without an answer is repeated at once.
    pub blind_retry: bool,
    /// The last chance waits until the first request is settled (Q).
    pub quarantine: bool,
    /// A retry inside the grace waits for that, too.
    pub grace_waits: bool,
    /// No further generation is asked for while a request of an earlier one may still arrive.
    pub pause_after_retry: bool,
    /// Whether the attempt is still allowed is checked as the body is let through, and not only before.
    pub gate: bool,
    /// A process that waited for a flight takes its outcome, errors included.
    pub share: bool,
    /// The keyring is asked before anything is sent.
    pub preflight: bool,
    /// A person's `--force` sends whatever is there, also what is in doubt or given up.
    pub force_any: bool,
    /// A rejected token is sent once more at most once a minute.
    pub force_waits: bool,
    /// What the network promises: a request sent inside the grace is processed inside it.
    pub bounded_network: bool,
    pub budget: Budget,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    pub crashes: u8,
    pub losses: u8,
    pub timeouts: u8,
    pub locks: u8,
    pub power_cuts: u8,
    pub refusals: u8,
    pub expiries: u8,
    /// The server denies a token that it goes on accepting: a policy.
    pub denials: u8,
    /// A person uses `--force`.
    pub insists: u8,
}

impl Budget {
    pub const NONE: Self = Self {
        crashes: 0,
        losses: 0,
        timeouts: 0,
        locks: 0,
        power_cuts: 0,
        refusals: 0,
        expiries: 0,
        denials: 0,
        insists: 0,
    };
    /// Without a person: that makes many more ways, which tests of their own go.
    pub const ONE_EACH: Self =
        Self { crashes: 1, losses: 1, timeouts: 1, locks: 1, power_cuts: 1, refusals: 1, expiries: 1, ..Self::NONE };
}

impl Design {
    /// The one that is built.
    pub fn implemented(server: Server) -> Self {
        Self {
            server,
            processes: 2,
            rounds: 1,
            lock: true,
            reread: true,
            intent: true,
            sealing: Sealing::Kept,
            blind_retry: false,
            quarantine: true,
            grace_waits: server == Server::GraceLatest,
            pause_after_retry: true,
            gate: true,
            share: true,
            preflight: true,
            force_any: false,
            force_waits: true,
            bounded_network: true,
            budget: Budget::ONE_EACH,
        }
    }
}

/// A token and its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelCredential {
    pub generation: u8,
    pub token: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelIntent {
    pub generation: u8,
    pub token: u8,
    pub sends: u8,
    pub is_last_chance_spent: bool,
    /// Of a token that was rejected before.
    pub is_forced: bool,
}

/// Where a process is in the transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Idle,
    /// In the queue of the lock file.
    AtLock,
    /// The lock is held; nothing is known yet.
    Admitted,
    /// A request may be made.
    Ready,
    /// The intent is durable.
    Intended,
    /// The body was let through.
    Sent,
    /// The answer is in memory.
    Received,
    /// … and sealed.
    Sealed,
    /// … and in the keyring, or known not to get there now.
    Published,
}

/// Why a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SendReason {
    #[default]
    First,
    /// The server does not mind.
    Retry,
    Grace,
    LastChance,
    /// A person insists on a token that was rejected.
    Overruled,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModelProcess {
    pub at: Phase,
    pub rounds: u8,
    /// `--force`.
    pub is_person: bool,
    /// Seen before waiting.
    pub seen_generation: u8,
    pub seen_sequence: u8,
    pub credential: ModelCredential,
    pub kind: SendReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    Request,
    Tokens,
    Denial,
    Busy,
}

/// On the network. Without an owner no process waits for the response any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    pub owner: Option<u8>,
    pub content: MessageKind,
    pub token: u8,
}

/// The world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelState {
    pub processes: Vec<ModelProcess>,
    pub holder: Option<u8>,
    /// K, as programs see it and as it would be after a power cut.
    pub keyring: ModelCredential,
    pub keyring_on_disk: ModelCredential,
    pub is_keyring_locked: bool,
    /// S.
    pub sealed: Option<ModelCredential>,
    /// J.
    pub intent: Option<ModelIntent>,
    pub needs_login: bool,
    /// … because a server said so of a token that was never in doubt.
    pub is_rejected: bool,
    /// A rejected token was sent once more less than a minute ago.
    pub is_forced_lately: bool,
    pub sequence: u8,
    pub last_failed: bool,
    // The server's.
    pub valid: u16,
    pub in_grace: u16,
    pub used: u16,
    pub child: u8,
    pub next: u8,
    pub is_alive: bool,
    pub network: Vec<Message>,
    /// Our view: the grace of the first send is open.
    pub is_grace_open: bool,
    /// Access tokens up to this generation have expired.
    pub expired: u8,
    // What has happened, for the properties.
    pub superseded: u16,
    pub lost_in_window: bool,
    pub replayed: bool,
    pub stormed: bool,
    pub sent_when_dead: bool,
    pub forced_twice: bool,
    pub went_back: bool,
    pub revoked_early: bool,
    pub sent_last_chance: bool,
    pub rolled_forward: bool,
    pub rescued_by_grace: bool,
    pub spent: Budget,
}

/// The steps of the transaction, and what the world does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A caller comes, and notes generation and sequence.
    Enter(u8),
    /// A person comes, with `--force`.
    Insist(u8),
    /// The lock is taken.
    Admit(u8),
    /// J, S and K are read under the lock; recovery; may a request be made, and why?
    Recheck(u8),
    /// Preflight; then the intent is made durable.
    Gate(u8),
    /// The body is let through, if that is still allowed.
    Yield(u8),
    Receive(u8, usize),
    /// The deadline of the exchange passes.
    GiveUp(u8),
    Seal(u8),
    Publish(u8),
    Commit(u8),
    // The world.
    Serve(usize),
    Refuse(usize),
    Deny(usize),
    Lose(usize),
    Crash(u8),
    CutPower,
    LockKeyring,
    UnlockKeyring,
    SyncKeyring,
    ExpireAccess,
    CloseGrace,
    PassMinute,
}

/// Every kind of thing that a step of the transaction can turn out to be: what the real transaction is driven through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Edge {
    Enter,
    Admit,
    RollForward,
    RollForwardLater,
    SettleIntent,
    RefuseDead,
    FollowSuccess,
    FollowFailure,
    WaitInDoubt,
    PresumeConsumed,
    PauseForOrphan,
    Allow(SendReason),
    KeyringAway,
    WriteIntent,
    Yield,
    YieldTooLate,
    ReceiveTokens,
    ReceiveDenial,
    ReceiveBusy,
    GiveUp,
    Seal,
    Publish,
    PublishLater,
    Commit,
    Crash(Phase),
    CutPower(Phase),
}

fn bit(token: u8) -> u16 {
    1 << token
}

impl ModelState {
    fn new(design: &Design) -> Self {
        let first = ModelCredential { generation: 1, token: 1 };
        let process = ModelProcess { rounds: design.rounds, ..ModelProcess::default() };
        Self {
            processes: vec![process; design.processes],
            holder: None,
            keyring: first,
            keyring_on_disk: first,
            is_keyring_locked: false,
            sealed: (design.sealing == Sealing::Kept).then_some(first),
            intent: None,
            needs_login: false,
            is_rejected: false,
            is_forced_lately: false,
            forced_twice: false,
            sequence: 0,
            last_failed: false,
            valid: bit(1),
            in_grace: 0,
            used: 0,
            child: 1,
            next: 2,
            is_alive: true,
            network: Vec::new(),
            is_grace_open: false,
            expired: 0,
            superseded: 0,
            lost_in_window: false,
            replayed: false,
            stormed: false,
            sent_when_dead: false,
            went_back: false,
            revoked_early: false,
            sent_last_chance: false,
            rolled_forward: false,
            rescued_by_grace: false,
            spent: Budget::NONE,
        }
    }

    /// The higher generation of S and K.
    pub fn newest(&self) -> ModelCredential {
        self.sealed.map_or(self.keyring, |sealed| sealed.max(self.keyring))
    }

    pub fn has_expired(&self) -> bool {
        self.newest().generation <= self.expired
    }

    /// A request of ours may still reach the server.
    pub fn is_unsettled(&self) -> bool {
        self.network.iter().any(|m| m.content == MessageKind::Request)
    }

    fn end(&mut self, p: u8) {
        let process = &mut self.processes[usize::from(p)];
        *process = ModelProcess { rounds: process.rounds - 1, ..ModelProcess::default() };
        self.release(p);
    }

    fn release(&mut self, p: u8) {
        if self.holder == Some(p) {
            self.holder = None;
        }
    }

    /// No process waits any more for what `p` sent: the request may still arrive, its response is lost.
    fn orphan(&mut self, p: u8) {
        let before = std::mem::take(&mut self.network);
        for message in before {
            match (message.owner == Some(p), message.content) {
                (false, _) => self.network.push(message),
                (true, MessageKind::Request) => self.network.push(Message { owner: None, ..message }),
                (true, MessageKind::Tokens) => self.lost_in_window = true,
                (true, MessageKind::Denial | MessageKind::Busy) => {}
            }
        }
        self.network.sort_unstable();
    }

    fn die(&mut self, p: u8, design: &Design) {
        if self.processes[usize::from(p)].at == Phase::Received && design.sealing != Sealing::Never {
            // Between the last byte and the sync: the window that no client can close.
            self.lost_in_window = true;
        }
        self.orphan(p);
        let process = &mut self.processes[usize::from(p)];
        *process = ModelProcess { rounds: process.rounds, ..ModelProcess::default() };
        self.release(p);
    }

    /// The last send was made, and nothing told what became of it.
    fn presume_consumed(&mut self) {
        self.needs_login = true;
        self.is_rejected = false;
        self.intent = None;
        self.is_grace_open = false;
    }

    /// The server has accepted a token that it had rejected, or another has come.
    fn revive(&mut self) {
        self.needs_login = false;
        self.is_rejected = false;
    }

    fn record_attempt(&mut self, failed: bool) {
        self.sequence = (self.sequence + 1).min(7);
        self.last_failed = failed;
    }

    fn is_recoverable(&self) -> bool {
        let is_usable = |c: ModelCredential| (self.valid | self.in_grace) & bit(c.token) != 0;
        let in_memory = |p: &ModelProcess| {
            matches!(p.at, Phase::Received | Phase::Sealed | Phase::Published) && is_usable(p.credential)
        };
        is_usable(self.keyring)
            || is_usable(self.keyring_on_disk)
            || self.sealed.is_some_and(is_usable)
            || self.processes.iter().any(in_memory)
            || self.network.iter().any(|m| {
                m.content == MessageKind::Tokens
                    && m.owner.is_some()
                    && is_usable(ModelCredential { generation: 0, token: m.token })
            })
    }

    fn issue(&mut self) {
        self.child = self.next;
        self.valid |= bit(self.next);
        self.next += 1;
    }

    /// The server's state machine.
    fn serve(&mut self, server: Server, token: u8) -> MessageKind {
        if !self.is_alive {
            return MessageKind::Denial;
        }
        let is_valid = self.valid & bit(token) != 0;
        match server {
            Server::NoRotation => return MessageKind::Tokens,
            Server::Lenient => {
                self.issue();
                return MessageKind::Tokens;
            }
            _ => {}
        }
        if is_valid {
            self.valid &= !bit(token);
            self.used |= bit(token);
            if server.has_grace() {
                // The use of a token closes the grace of its parent.
                self.in_grace = bit(token);
            }
            self.issue();
            return MessageKind::Tokens;
        }
        if self.in_grace & bit(token) == 0 {
            self.revoked_early |= !self.has_expired();
            self.is_alive = false;
            self.valid = 0;
            self.in_grace = 0;
            return MessageKind::Denial;
        }
        match server {
            Server::GraceSame => {}
            Server::GraceLatest => {
                self.valid = 0;
                self.issue();
            }
            _ => self.issue(),
        }
        MessageKind::Tokens
    }
}

impl Design {
    fn process_steps(&self, world: &ModelState, steps: &mut Vec<Step>) {
        for (p, process) in (0..).zip(&world.processes) {
            match process.at {
                Phase::Idle if process.rounds > 0 => {
                    steps.push(Step::Enter(p));
                    if world.spent.insists < self.budget.insists {
                        steps.push(Step::Insist(p));
                    }
                }
                Phase::Idle => {}
                Phase::AtLock if world.holder.is_none() => steps.push(Step::Admit(p)),
                Phase::AtLock => {}
                Phase::Admitted => steps.push(Step::Recheck(p)),
                Phase::Ready => steps.push(Step::Gate(p)),
                Phase::Intended => steps.push(Step::Yield(p)),
                Phase::Sent => {
                    let mine = world.network.iter().enumerate().filter(|(_, m)| m.owner == Some(p));
                    let answers = mine.clone().filter(|(_, m)| m.content != MessageKind::Request);
                    steps.extend(answers.map(|(k, _)| Step::Receive(p, k)));
                    if mine.count() == 0 || world.spent.timeouts < self.budget.timeouts {
                        steps.push(Step::GiveUp(p));
                    }
                }
                Phase::Received => steps.push(Step::Seal(p)),
                Phase::Sealed => steps.push(Step::Publish(p)),
                Phase::Published => steps.push(Step::Commit(p)),
            }
        }
        for (k, _) in world.network.iter().enumerate().filter(|(_, m)| m.content == MessageKind::Request) {
            steps.push(Step::Serve(k));
            if world.spent.refusals < self.budget.refusals {
                steps.push(Step::Refuse(k));
            }
            if world.spent.denials < self.budget.denials {
                steps.push(Step::Deny(k));
            }
        }
    }

    fn environment_steps(&self, world: &ModelState, steps: &mut Vec<Step>) {
        let (budget, spent) = (&self.budget, &world.spent);
        if spent.crashes < budget.crashes {
            let up = (0..).zip(&world.processes).filter(|(_, process)| process.at != Phase::Idle);
            steps.extend(up.map(|(p, _)| Step::Crash(p)));
        }
        if spent.losses < budget.losses {
            steps.extend((0..world.network.len()).map(Step::Lose));
        }
        let mut may = |can: bool, step| {
            if can {
                steps.push(step);
            }
        };
        may(spent.locks < budget.locks && !world.is_keyring_locked, Step::LockKeyring);
        may(world.is_keyring_locked, Step::UnlockKeyring);
        may(spent.power_cuts < budget.power_cuts, Step::CutPower);
        may(world.keyring != world.keyring_on_disk, Step::SyncKeyring);
        may(spent.expiries < budget.expiries && !world.has_expired(), Step::ExpireAccess);
        may(world.is_forced_lately, Step::PassMinute);
        let is_closable = !(self.bounded_network && world.is_unsettled());
        may((world.is_grace_open || world.in_grace != 0) && is_closable, Step::CloseGrace);
    }

    /// Signed in, and no process at work.
    pub fn start(&self) -> ModelState {
        ModelState::new(self)
    }

    /// One step, and, for those of the transaction, what it turned out to be.
    pub fn step(&self, before: &ModelState, step: Step) -> Option<(ModelState, Option<Edge>)> {
        let mut world = before.clone();
        let at = |p: u8| before.processes[usize::from(p)].at;
        let edge = match step {
            Step::Enter(p) => Some(self.enter(&mut world, p)),
            Step::Insist(p) => {
                world.spent.insists += 1;
                world.processes[usize::from(p)].is_person = true;
                Some(self.enter(&mut world, p))
            }
            Step::Admit(p) => {
                world.holder = Some(p);
                world.processes[usize::from(p)].at = Phase::Admitted;
                Some(Edge::Admit)
            }
            Step::Recheck(p) => self.recheck(&mut world, p),
            Step::Gate(p) => Some(self.gate(&mut world, p)),
            Step::Yield(p) => Some(self.let_through(&mut world, p)),
            Step::Receive(p, k) => Some(self.receive(&mut world, p, k)?),
            Step::GiveUp(p) => {
                self.give_up(&mut world, p);
                Some(Edge::GiveUp)
            }
            Step::Seal(p) => Some(self.seal(&mut world, p)),
            Step::Publish(p) => Some(self.publish(&mut world, p)),
            Step::Commit(p) => {
                self.commit(&mut world, p);
                Some(Edge::Commit)
            }
            Step::Crash(p) => {
                world.spent.crashes += 1;
                world.die(p, self);
                Some(Edge::Crash(at(p)))
            }
            Step::CutPower => {
                // Of two that were up, the one that was further tells more.
                let furthest = before.processes.iter().map(|process| process.at).max()?;
                self.cut_power(&mut world);
                Some(Edge::CutPower(furthest))
            }
            _ => {
                self.environment_step(&mut world, step);
                None
            }
        };
        Some((world, edge))
    }

    fn enter(&self, world: &mut ModelState, p: u8) -> Edge {
        let newest = world.newest();
        let sequence = world.sequence;
        let process = &mut world.processes[usize::from(p)];
        process.seen_generation = newest.generation;
        process.seen_sequence = sequence;
        process.credential = newest;
        process.at = if self.lock { Phase::AtLock } else { Phase::Ready };
        Edge::Enter
    }

    /// Recovery comes first, one step at a time; then the journal's state; then the question whether to send. `None`: a
    /// design that does not look.
    fn recheck(&self, world: &mut ModelState, p: u8) -> Option<Edge> {
        if let Some(sealed) = world.sealed {
            if sealed > world.keyring {
                if world.is_keyring_locked {
                    world.end(p);
                    return Some(Edge::RollForwardLater);
                }
                world.keyring = sealed;
                world.rolled_forward = true;
                return Some(Edge::RollForward);
            }
            if world.intent.is_some_and(|intent| intent.generation < sealed.generation) {
                if world.intent.is_some_and(|intent| intent.is_forced) {
                    world.revive();
                }
                world.intent = None;
                world.is_grace_open = false;
                return Some(Edge::SettleIntent);
            }
        }
        if !self.reread {
            world.processes[usize::from(p)].at = Phase::Ready;
            return None;
        }
        let newest = world.newest();
        let process = &mut world.processes[usize::from(p)];
        process.credential = newest;
        let (seen_generation, seen_sequence) = (process.seen_generation, process.seen_sequence);
        if process.is_person && self.force_any {
            process.kind = SendReason::Overruled;
            process.at = Phase::Ready;
            return Some(Edge::Allow(SendReason::Overruled));
        }
        let is_person = process.is_person;
        let is_insisting = is_person && world.is_rejected && world.sequence == seen_sequence;
        let is_forced_in_doubt = world.intent.is_some_and(|i| i.is_forced) && !self.server.forgives_replay();
        let ended = if is_insisting && is_forced_in_doubt {
            // The process that sent it once more died before it could record the result.
            world.presume_consumed();
            Some(Edge::PresumeConsumed)
        } else if is_insisting && !(self.force_waits && world.is_forced_lately) {
            let process = &mut world.processes[usize::from(p)];
            process.kind = SendReason::Overruled;
            process.at = Phase::Ready;
            return Some(Edge::Allow(SendReason::Overruled));
        } else if world.needs_login {
            Some(Edge::RefuseDead)
        } else if newest.generation > seen_generation {
            Some(Edge::FollowSuccess)
        } else if self.share && world.sequence > seen_sequence && world.last_failed {
            Some(Edge::FollowFailure)
        } else if world.intent.is_none() && self.pause_after_retry && self.server.has_grace() && world.is_unsettled() {
            Some(Edge::PauseForOrphan)
        } else if !self.blind_retry && world.intent.is_some_and(|intent| intent.is_last_chance_spent) {
            // The process that made the last send died before it could record the result.
            world.presume_consumed();
            Some(Edge::PresumeConsumed)
        } else {
            None
        };
        if let Some(edge) = ended {
            world.end(p);
            return Some(edge);
        }
        let Some(kind) = self.allowed(world) else {
            world.end(p);
            return Some(Edge::WaitInDoubt);
        };
        let process = &mut world.processes[usize::from(p)];
        process.kind = kind;
        process.at = Phase::Ready;
        Some(Edge::Allow(kind))
    }

    /// Under which rule a request may be made now, with what the journal says of earlier ones.
    fn allowed(&self, world: &ModelState) -> Option<SendReason> {
        let Some(intent) = world.intent else { return Some(SendReason::First) };
        let is_settled = !world.is_unsettled();
        let may_repeat = match self.server {
            Server::NoRotation => true,
            Server::Lenient => is_settled,
            _ => false,
        };
        if self.blind_retry && intent.sends < 2 || may_repeat {
            return Some(SendReason::Retry);
        }
        if self.server.has_grace() && world.is_grace_open && intent.sends < 2 && (is_settled || !self.grace_waits) {
            return Some(SendReason::Grace);
        }
        let may_last = !self.blind_retry && world.has_expired() && !self.server.forgives_replay();
        (may_last && (is_settled || !self.quarantine)).then_some(SendReason::LastChance)
    }

    fn gate(&self, world: &mut ModelState, p: u8) -> Edge {
        if self.preflight && world.is_keyring_locked {
            world.end(p);
            return Edge::KeyringAway;
        }
        let process = &mut world.processes[usize::from(p)];
        process.at = Phase::Intended;
        if self.intent {
            let ModelCredential { generation, token } = process.credential;
            let is_forced = process.kind == SendReason::Overruled;
            let before = world.intent.filter(|intent| intent.generation == generation && !intent.is_forced);
            let is_last_chance_spent =
                process.kind == SendReason::LastChance || before.is_some_and(|intent| intent.is_last_chance_spent);
            let sends = (before.map_or(0, |intent| intent.sends) + 1).min(3);
            world.intent = Some(ModelIntent { generation, token, sends, is_last_chance_spent, is_forced });
            world.is_grace_open |= before.is_none() && self.server.has_grace() && !is_forced;
            world.forced_twice |= is_forced && world.is_forced_lately;
            world.is_forced_lately |= is_forced;
        }
        Edge::WriteIntent
    }

    fn let_through(&self, world: &mut ModelState, p: u8) -> Edge {
        let process = world.processes[usize::from(p)].clone();
        if process.kind == SendReason::Grace && self.gate && !world.is_grace_open {
            // The journal is as before this send.
            world.intent = world.intent.map(|intent| ModelIntent { sends: intent.sends - 1, ..intent });
            world.end(p);
            return Edge::YieldTooLate;
        }
        let token = process.credential.token;
        world.replayed |= world.superseded & bit(token) != 0;
        let is_overruled = process.kind == SendReason::Overruled && world.is_rejected;
        world.sent_when_dead |= world.needs_login && !is_overruled;
        world.stormed |= world.sequence > process.seen_sequence && world.last_failed;
        world.sent_last_chance |= process.kind == SendReason::LastChance;
        world.network.push(Message { owner: Some(p), content: MessageKind::Request, token });
        world.network.sort_unstable();
        world.processes[usize::from(p)].at = Phase::Sent;
        Edge::Yield
    }

    fn receive(&self, world: &mut ModelState, p: u8, k: usize) -> Option<Edge> {
        let message = world.network.remove(k);
        match message.content {
            MessageKind::Request => None,
            MessageKind::Tokens => {
                let is_grace_open = world.is_grace_open;
                let process = &mut world.processes[usize::from(p)];
                world.rescued_by_grace |= process.kind == SendReason::Grace && is_grace_open;
                let generation = process.credential.generation + 1;
                process.credential = ModelCredential { generation, token: message.token };
                process.at = Phase::Received;
                Some(Edge::ReceiveTokens)
            }
            MessageKind::Denial => {
                let was_in_doubt = world.intent.is_some_and(|i| i.sends > 1) && !self.server.forgives_replay();
                world.needs_login = true;
                world.is_rejected = !was_in_doubt;
                world.intent = None;
                world.is_grace_open = false;
                world.record_attempt(false);
                world.end(p);
                Some(Edge::ReceiveDenial)
            }
            MessageKind::Busy => {
                // Certainly not processed. What an earlier send did it does not tell: that doubt is as it was.
                if let Some(intent) = world.intent {
                    let is_doubtful = intent.sends > 1;
                    world.intent = is_doubtful.then_some(ModelIntent {
                        sends: intent.sends - 1,
                        is_last_chance_spent: false,
                        ..intent
                    });
                    world.is_grace_open &= is_doubtful;
                }
                world.record_attempt(true);
                world.end(p);
                Some(Edge::ReceiveBusy)
            }
        }
    }

    fn give_up(&self, world: &mut ModelState, p: u8) {
        if world.network.iter().any(|m| m.owner == Some(p)) {
            world.spent.timeouts += 1;
        }
        world.orphan(p);
        let process = &mut world.processes[usize::from(p)];
        let is_first = process.kind == SendReason::First;
        if self.blind_retry && world.intent.map_or(is_first, |intent| intent.sends < 2) {
            process.kind = SendReason::Retry;
            process.at = Phase::Ready;
            return;
        }
        let is_forced = world.intent.is_some_and(|intent| intent.is_forced);
        if is_forced && self.server.forgives_replay() {
            world.intent = None;
        } else if is_forced || !self.blind_retry && world.intent.is_some_and(|intent| intent.is_last_chance_spent) {
            world.presume_consumed();
        }
        world.record_attempt(true);
        world.end(p);
    }

    fn seal(&self, world: &mut ModelState, p: u8) -> Edge {
        let credential = world.processes[usize::from(p)].credential;
        if self.sealing != Sealing::Never {
            if world.sealed.is_none_or(|sealed| sealed.generation < credential.generation) {
                world.sealed = Some(credential);
            } else {
                world.went_back = true;
            }
            world.superseded |= world.used & !bit(credential.token);
        }
        world.processes[usize::from(p)].at = Phase::Sealed;
        Edge::Seal
    }

    fn publish(&self, world: &mut ModelState, p: u8) -> Edge {
        let credential = world.processes[usize::from(p)].credential;
        if world.is_keyring_locked {
            // Without a sealed copy there is nothing but to try on: the step is taken again.
            if self.sealing != Sealing::Never {
                world.processes[usize::from(p)].at = Phase::Published;
            }
            return Edge::PublishLater;
        }
        world.went_back |= credential.generation <= world.keyring.generation;
        world.keyring = credential;
        world.superseded |= world.used & !bit(credential.token);
        world.processes[usize::from(p)].at = Phase::Published;
        Edge::Publish
    }

    fn commit(&self, world: &mut ModelState, p: u8) {
        world.revive();
        world.intent = None;
        world.is_grace_open = false;
        world.record_attempt(false);
        if self.sealing == Sealing::UntilCommit {
            world.sealed = None;
        }
        world.end(p);
    }

    fn cut_power(&self, world: &mut ModelState) {
        world.spent.power_cuts += 1;
        for p in (0..).take(world.processes.len()) {
            if world.processes[usize::from(p)].at != Phase::Idle {
                world.die(p, self);
            }
        }
        world.keyring = world.keyring_on_disk;
        world.is_keyring_locked = false;
        world.holder = None;
        // How much of the grace is gone is unknown.
        world.is_grace_open = false;
    }

    fn environment_step(&self, world: &mut ModelState, step: Step) {
        match step {
            Step::Serve(k) => {
                let Message { owner, token, .. } = world.network.remove(k);
                let content = world.serve(self.server, token);
                let token = if self.server == Server::NoRotation { token } else { world.child };
                if owner.is_some() {
                    world.network.push(Message { owner, content, token });
                    world.network.sort_unstable();
                } else {
                    world.lost_in_window |= content == MessageKind::Tokens;
                }
            }
            Step::Refuse(k) => {
                world.spent.refusals += 1;
                let message = world.network.remove(k);
                if message.owner.is_some() {
                    world.network.push(Message { content: MessageKind::Busy, ..message });
                    world.network.sort_unstable();
                }
            }
            Step::Deny(k) => {
                world.spent.denials += 1;
                let message = world.network.remove(k);
                if message.owner.is_some() {
                    world.network.push(Message { content: MessageKind::Denial, ..message });
                    world.network.sort_unstable();
                }
            }
            Step::PassMinute => world.is_forced_lately = false,
            Step::Lose(k) => {
                world.spent.losses += 1;
                world.lost_in_window |= world.network.remove(k).content == MessageKind::Tokens;
            }
            Step::LockKeyring => {
                world.spent.locks += 1;
                world.is_keyring_locked = true;
            }
            Step::UnlockKeyring => world.is_keyring_locked = false,
            Step::SyncKeyring => world.keyring_on_disk = world.keyring,
            Step::ExpireAccess => {
                world.spent.expiries += 1;
                world.expired = world.newest().generation;
                world.is_forced_lately = false;
            }
            Step::CloseGrace => {
                world.is_grace_open = false;
                world.in_grace = 0;
                world.is_forced_lately = false;
            }
            _ => unreachable!("a step of the transaction"),
        }
    }
}

impl Model for Design {
    type State = ModelState;
    type Action = Step;

    fn init_states(&self) -> Vec<ModelState> {
        vec![self.start()]
    }

    fn actions(&self, world: &ModelState, steps: &mut Vec<Step>) {
        self.process_steps(world, steps);
        self.environment_steps(world, steps);
    }

    fn next_state(&self, world: &ModelState, step: Step) -> Option<ModelState> {
        self.step(world, step).map(|(after, _)| after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1 one request at a time for a token", |_, world: &ModelState| {
                let sent: Vec<_> =
                    world.processes.iter().filter(|p| p.at == Phase::Sent).map(|p| p.credential.token).collect();
                (1..sent.len()).all(|i| !sent[..i].contains(&sent[i]))
            }),
            Property::always("P2 no token is sent whose successor is safe", |_, world: &ModelState| !world.replayed),
            Property::always("P3 a token is lost only in the window", |_, world: &ModelState| {
                !world.is_alive || world.lost_in_window || world.is_recoverable()
            }),
            Property::always("P4 nothing older over anything newer", |_, world: &ModelState| !world.went_back),
            Property::always(
                "P5 the family is not revoked by us while the access token lives",
                |_, world: &ModelState| !world.revoked_early,
            ),
            Property::always(
                "P6 nothing is sent after needs_login, but what a server rejected and a person insists on",
                |_, world: &ModelState| !world.sent_when_dead,
            ),
            Property::always("PA a rejected token is sent once more at most once a minute", |_, world: &ModelState| {
                !world.forced_twice
            }),
            Property::always("P7 waiters share a failure", |_, world: &ModelState| !world.stormed),
            Property::always("P8 every caller gets an outcome", |design: &Design, world: &ModelState| {
                let mut steps = Vec::new();
                design.process_steps(world, &mut steps);
                !steps.is_empty() || world.processes.iter().all(|p| p.at == Phase::Idle && p.rounds == 0)
            }),
            Property::always("P9 a loss is never silent", |design: &Design, world: &ModelState| {
                let mut steps = Vec::new();
                design.process_steps(world, &mut steps);
                let is_told = world.intent.is_some() || world.needs_login;
                !steps.is_empty() || (world.is_alive && world.is_recoverable()) || is_told
            }),
            Property::sometimes("S1 a further generation", |_, world: &ModelState| world.keyring.generation >= 2),
            Property::sometimes("S2 rolled forward from the sealed copy", |_, world: &ModelState| world.rolled_forward),
            Property::sometimes("S3 rescued by the grace", |_, world: &ModelState| {
                world.rescued_by_grace && world.keyring.generation >= 2
            }),
            Property::sometimes("S4 the last chance succeeded", |_, world: &ModelState| {
                world.sent_last_chance && world.is_alive && world.keyring.generation >= 2
            }),
        ]
    }
}

/// Every edge that some way through this design takes.
pub fn edges(design: &Design) -> std::collections::BTreeSet<Edge> {
    let mut edges = std::collections::BTreeSet::new();
    let mut seen = std::collections::HashSet::new();
    let mut open = design.init_states();
    let mut steps = Vec::new();
    while let Some(world) = open.pop() {
        steps.clear();
        design.actions(&world, &mut steps);
        for step in &steps {
            let Some((after, edge)) = design.step(&world, *step) else { continue };
            edges.extend(edge);
            if !seen.contains(&after) {
                seen.insert(after.clone());
                open.push(after);
            }
        }
    }
    edges
}
