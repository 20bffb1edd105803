//! Several machines and one linearizable store: what would have to hold there (rule 36). Time is discrete, and a process
//! may be paused for any time: it takes no step while the clock does.

use stateright::{Model, Property};

/// By what a process believes that it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SendPermission {
    /// It got a lease.
    Lease,
    /// … and much of it is left.
    LeaseLeft,
    /// A compare-and-swap of the intent on the generation.
    Permit,
    /// … over a connection that stood before, and is closed by the server when it idles.
    FencedPermit,
}

/// Units of time are arbitrary; a lease lasts 3, a connection and a request 1 each.
#[derive(Clone, Copy, Debug)]
pub struct MultiHostDesign {
    pub send_permission: SendPermission,
    pub hosts: usize,
    pub tries: u8,
    /// How long an intent must have stood unchanged before another host takes over at the end of the access token.
    pub takeover: u8,
}

const END: u8 = 11;
const LEASE: u8 = 3;
const REQUEST: u8 = 1;
const IDLE: u8 = 1;
const EXPIRY: u8 = 5;

impl MultiHostDesign {
    /// What rule 36 asks for.
    pub fn proposed() -> Self {
        Self { send_permission: SendPermission::FencedPermit, hosts: 2, tries: 2, takeover: 3 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPhase {
    #[default]
    Idle,
    Leased,
    Connected,
    Checked,
    Permitted,
    Sent,
    Received,
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Host {
    pub at: HostPhase,
    pub lease_end: u8,
    pub connected: u8,
    pub generation: u8,
    pub token: u8,
    pub tries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostMessageKind {
    Request,
    Tokens,
    Denial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostMessage {
    pub owner: Option<u8>,
    pub content: HostMessageKind,
    pub token: u8,
    pub sent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostIntent {
    pub generation: u8,
    pub since: u8,
    pub is_last_chance: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MultiHostState {
    pub time: u8,
    pub hosts: Vec<Host>,
    pub lease: Option<(u8, u8)>,
    // In the store.
    pub generation: u8,
    pub token: u8,
    pub intent: Option<HostIntent>,
    pub needs_login: bool,
    // At the server.
    pub current: u8,
    pub next: u8,
    pub is_alive: bool,
    pub network: Vec<HostMessage>,
    // What has happened.
    pub sends_of_first: u8,
    pub sent_twice_early: bool,
    pub replayed: bool,
    pub went_back: bool,
    pub lost_in_window: bool,
    pub crashes: u8,
    pub losses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostStep {
    Tick,
    Lease(u8),
    Connect(u8),
    Check(u8),
    Permit(u8),
    Send(u8),
    Receive(u8, usize),
    GiveUp(u8),
    Persist(u8),
    Serve(usize),
    Lose(usize),
    Crash(u8),
}

impl MultiHostState {
    fn reset(&mut self, h: u8, at: HostPhase) {
        let before = std::mem::take(&mut self.network);
        for message in before {
            match (message.owner == Some(h), message.content) {
                (false, _) => self.network.push(message),
                (true, HostMessageKind::Request) => self.network.push(HostMessage { owner: None, ..message }),
                (true, _) => {}
            }
        }
        self.network.sort_unstable();
        if self.lease.is_some_and(|(owner, _)| owner == h) {
            self.lease = None;
        }
        let host = &mut self.hosts[usize::from(h)];
        *host = Host { at, tries: host.tries, ..Host::default() };
    }
}

impl MultiHostDesign {
    fn permit(&self, world: &mut MultiHostState, h: u8) {
        let host = world.hosts[usize::from(h)];
        let may = world.generation == host.generation
            && !world.needs_login
            && world.intent.is_none_or(|intent| {
                let is_old = world.time >= EXPIRY && world.time >= intent.since + self.takeover;
                intent.generation == host.generation && !intent.is_last_chance && is_old
            });
        if !may {
            return world.reset(h, HostPhase::Idle);
        }
        let is_last_chance = world.intent.is_some();
        // Its holder is dead, or paused for longer than the wait: no other host can tell which.
        world.lost_in_window |= is_last_chance && world.current != world.token;
        world.intent = Some(HostIntent { generation: host.generation, since: world.time, is_last_chance });
        world.hosts[usize::from(h)].at = HostPhase::Permitted;
    }

    fn send(&self, world: &mut MultiHostState, h: u8) {
        let host = world.hosts[usize::from(h)];
        if self.send_permission == SendPermission::FencedPermit && world.time > host.connected + IDLE {
            // The server has closed the connection, and there is no other.
            return world.reset(h, HostPhase::Idle);
        }
        if host.token == 1 {
            world.sends_of_first += 1;
            world.sent_twice_early |= world.sends_of_first >= 2 && world.time < EXPIRY;
        }
        world.replayed |= world.generation > host.generation;
        world.network.push(HostMessage {
            owner: Some(h),
            content: HostMessageKind::Request,
            token: host.token,
            sent: world.time,
        });
        world.network.sort_unstable();
        let host = &mut world.hosts[usize::from(h)];
        *host = Host { at: HostPhase::Sent, connected: 0, lease_end: 0, ..*host };
    }

    fn serve(world: &mut MultiHostState, k: usize) {
        let HostMessage { owner, token, .. } = world.network.remove(k);
        let content = if !world.is_alive {
            HostMessageKind::Denial
        } else if token == world.current {
            world.current = world.next;
            world.next += 1;
            HostMessageKind::Tokens
        } else {
            world.is_alive = false;
            world.replayed |= world.generation > 1;
            HostMessageKind::Denial
        };
        if owner.is_some() {
            world.network.push(HostMessage { owner, content, token: world.current, sent: 0 });
            world.network.sort_unstable();
        }
    }

    fn persist(&self, world: &mut MultiHostState, h: u8) {
        let host = world.hosts[usize::from(h)];
        if self.send_permission >= SendPermission::Permit {
            if world.generation == host.generation {
                world.generation += 1;
                world.token = host.token;
                world.intent = None;
            }
        } else {
            world.went_back |= world.generation > host.generation;
            world.generation = host.generation + 1;
            world.token = host.token;
        }
        world.reset(h, HostPhase::Done);
    }
}

impl Model for MultiHostDesign {
    type State = MultiHostState;
    type Action = HostStep;

    fn init_states(&self) -> Vec<MultiHostState> {
        vec![MultiHostState {
            time: 0,
            hosts: vec![Host::default(); self.hosts],
            lease: None,
            generation: 1,
            token: 1,
            intent: None,
            needs_login: false,
            current: 1,
            next: 2,
            is_alive: true,
            network: Vec::new(),
            sends_of_first: 0,
            sent_twice_early: false,
            replayed: false,
            went_back: false,
            lost_in_window: false,
            crashes: 0,
            losses: 0,
        }]
    }

    fn actions(&self, world: &MultiHostState, steps: &mut Vec<HostStep>) {
        // A request is processed, or gone, before it is older than its longest life.
        let is_request = |m: &&HostMessage| m.content == HostMessageKind::Request;
        if world.time < END && world.network.iter().filter(is_request).all(|m| world.time < m.sent + REQUEST) {
            steps.push(HostStep::Tick);
        }
        for (h, host) in (0..).zip(&world.hosts) {
            match host.at {
                HostPhase::Idle => {
                    let is_free = world.lease.is_none_or(|(_, end)| end <= world.time);
                    if !world.needs_login && world.generation == 1 && host.tries < self.tries && is_free {
                        steps.push(HostStep::Lease(h));
                    }
                }
                HostPhase::Leased => steps.push(HostStep::Connect(h)),
                HostPhase::Connected => steps.push(HostStep::Check(h)),
                HostPhase::Checked if self.send_permission >= SendPermission::Permit => steps.push(HostStep::Permit(h)),
                HostPhase::Checked | HostPhase::Permitted => steps.push(HostStep::Send(h)),
                HostPhase::Sent => {
                    let mine = world.network.iter().enumerate();
                    let answers = mine.filter(|(_, m)| m.owner == Some(h) && m.content != HostMessageKind::Request);
                    steps.extend(answers.map(|(k, _)| HostStep::Receive(h, k)));
                    steps.push(HostStep::GiveUp(h));
                }
                HostPhase::Received => steps.push(HostStep::Persist(h)),
                HostPhase::Done => {}
            }
            if world.crashes < 1 && !matches!(host.at, HostPhase::Idle | HostPhase::Done) {
                steps.push(HostStep::Crash(h));
            }
        }
        for (k, message) in world.network.iter().enumerate() {
            if message.content == HostMessageKind::Request {
                steps.push(HostStep::Serve(k));
            }
            if world.losses < 1 {
                steps.push(HostStep::Lose(k));
            }
        }
    }

    fn next_state(&self, before: &MultiHostState, step: HostStep) -> Option<MultiHostState> {
        let mut world = before.clone();
        match step {
            HostStep::Tick => world.time += 1,
            HostStep::Lease(h) => {
                world.lease = Some((h, world.time + LEASE));
                let (generation, token, lease_end) = (world.generation, world.token, world.time + LEASE);
                let host = &mut world.hosts[usize::from(h)];
                *host =
                    Host { at: HostPhase::Leased, lease_end, connected: 0, generation, token, tries: host.tries + 1 };
            }
            HostStep::Connect(h) => {
                let host = &mut world.hosts[usize::from(h)];
                *host = Host { at: HostPhase::Connected, connected: world.time, ..*host };
            }
            HostStep::Check(h) => {
                let host = &mut world.hosts[usize::from(h)];
                let is_enough = world.time + REQUEST <= host.lease_end;
                if self.send_permission >= SendPermission::LeaseLeft && !is_enough {
                    world.reset(h, HostPhase::Idle);
                } else {
                    host.at = HostPhase::Checked;
                }
            }
            HostStep::Permit(h) => self.permit(&mut world, h),
            HostStep::Send(h) => self.send(&mut world, h),
            HostStep::Serve(k) => Self::serve(&mut world, k),
            HostStep::Receive(h, k) => {
                let message = world.network.remove(k);
                if message.content == HostMessageKind::Tokens {
                    let host = &mut world.hosts[usize::from(h)];
                    *host = Host { at: HostPhase::Received, token: message.token, ..*host };
                } else {
                    world.needs_login = true;
                    world.reset(h, HostPhase::Done);
                }
            }
            HostStep::GiveUp(h) => world.reset(h, HostPhase::Idle),
            HostStep::Persist(h) => self.persist(&mut world, h),
            HostStep::Lose(k) => {
                world.losses += 1;
                world.network.remove(k);
            }
            HostStep::Crash(h) => {
                world.crashes += 1;
                world.reset(h, HostPhase::Idle);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("L1 one send before the access token ends", |_, world: &MultiHostState| {
                !world.sent_twice_early
            }),
            Property::always("L2 no send once the successor is stored", |_, world: &MultiHostState| {
                !world.replayed || world.lost_in_window
            }),
            Property::always("L3 nothing older over anything newer", |_, world: &MultiHostState| !world.went_back),
            Property::sometimes("S1 refreshed", |_, world: &MultiHostState| world.generation == 2 && world.is_alive),
        ]
    }
}
