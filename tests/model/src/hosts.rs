//! Several machines and one linearizable store: what would have to hold there (rule 36). Time is discrete, and a process
//! may be paused for any time: it takes no step while the clock does.

use stateright::{Model, Property};

/// By what a process believes that it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
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
pub struct Design {
    pub ground: Ground,
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

impl Design {
    /// What rule 36 asks for.
    pub fn proposed() -> Self {
        Self { ground: Ground::FencedPermit, hosts: 2, tries: 2, takeover: 3 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
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
    pub at: At,
    pub lease_end: u8,
    pub connected: u8,
    pub generation: u8,
    pub token: u8,
    pub tries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    Request,
    Tokens,
    Denial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    pub owner: Option<u8>,
    pub content: Content,
    pub token: u8,
    pub sent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    pub generation: u8,
    pub since: u8,
    pub is_last_chance: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub time: u8,
    pub hosts: Vec<Host>,
    pub lease: Option<(u8, u8)>,
    // In the store.
    pub generation: u8,
    pub token: u8,
    pub intent: Option<Intent>,
    pub needs_login: bool,
    // At the server.
    pub current: u8,
    pub next: u8,
    pub is_alive: bool,
    pub network: Vec<Message>,
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
pub enum Step {
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

impl World {
    fn reset(&mut self, h: u8, at: At) {
        let before = std::mem::take(&mut self.network);
        for message in before {
            match (message.owner == Some(h), message.content) {
                (false, _) => self.network.push(message),
                (true, Content::Request) => self.network.push(Message { owner: None, ..message }),
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

impl Design {
    fn permit(&self, world: &mut World, h: u8) {
        let host = world.hosts[usize::from(h)];
        let may = world.generation == host.generation
            && !world.needs_login
            && world.intent.is_none_or(|intent| {
                let is_old = world.time >= EXPIRY && world.time >= intent.since + self.takeover;
                intent.generation == host.generation && !intent.is_last_chance && is_old
            });
        if !may {
            return world.reset(h, At::Idle);
        }
        let is_last_chance = world.intent.is_some();
        // Its holder is dead, or paused for longer than the wait: nobody can tell which.
        world.lost_in_window |= is_last_chance && world.current != world.token;
        world.intent = Some(Intent { generation: host.generation, since: world.time, is_last_chance });
        world.hosts[usize::from(h)].at = At::Permitted;
    }

    fn send(&self, world: &mut World, h: u8) {
        let host = world.hosts[usize::from(h)];
        if self.ground == Ground::FencedPermit && world.time > host.connected + IDLE {
            // The server has closed the connection, and there is no other.
            return world.reset(h, At::Idle);
        }
        if host.token == 1 {
            world.sends_of_first += 1;
            world.sent_twice_early |= world.sends_of_first >= 2 && world.time < EXPIRY;
        }
        world.replayed |= world.generation > host.generation;
        world.network.push(Message { owner: Some(h), content: Content::Request, token: host.token, sent: world.time });
        world.network.sort_unstable();
        let host = &mut world.hosts[usize::from(h)];
        *host = Host { at: At::Sent, connected: 0, lease_end: 0, ..*host };
    }

    fn serve(world: &mut World, k: usize) {
        let Message { owner, token, .. } = world.network.remove(k);
        let content = if !world.is_alive {
            Content::Denial
        } else if token == world.current {
            world.current = world.next;
            world.next += 1;
            Content::Tokens
        } else {
            world.is_alive = false;
            world.replayed |= world.generation > 1;
            Content::Denial
        };
        if owner.is_some() {
            world.network.push(Message { owner, content, token: world.current, sent: 0 });
            world.network.sort_unstable();
        }
    }

    fn persist(&self, world: &mut World, h: u8) {
        let host = world.hosts[usize::from(h)];
        if self.ground >= Ground::Permit {
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
        world.reset(h, At::Done);
    }
}

impl Model for Design {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
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

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // A request is processed, or gone, before it is older than its longest life.
        let is_request = |m: &&Message| m.content == Content::Request;
        if world.time < END && world.network.iter().filter(is_request).all(|m| world.time < m.sent + REQUEST) {
            steps.push(Step::Tick);
        }
        for (h, host) in (0..).zip(&world.hosts) {
            match host.at {
                At::Idle => {
                    let is_free = world.lease.is_none_or(|(_, end)| end <= world.time);
                    if !world.needs_login && world.generation == 1 && host.tries < self.tries && is_free {
                        steps.push(Step::Lease(h));
                    }
                }
                At::Leased => steps.push(Step::Connect(h)),
                At::Connected => steps.push(Step::Check(h)),
                At::Checked if self.ground >= Ground::Permit => steps.push(Step::Permit(h)),
                At::Checked | At::Permitted => steps.push(Step::Send(h)),
                At::Sent => {
                    let mine = world.network.iter().enumerate();
                    let answers = mine.filter(|(_, m)| m.owner == Some(h) && m.content != Content::Request);
                    steps.extend(answers.map(|(k, _)| Step::Receive(h, k)));
                    steps.push(Step::GiveUp(h));
                }
                At::Received => steps.push(Step::Persist(h)),
                At::Done => {}
            }
            if world.crashes < 1 && !matches!(host.at, At::Idle | At::Done) {
                steps.push(Step::Crash(h));
            }
        }
        for (k, message) in world.network.iter().enumerate() {
            if message.content == Content::Request {
                steps.push(Step::Serve(k));
            }
            if world.losses < 1 {
                steps.push(Step::Lose(k));
            }
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick => world.time += 1,
            Step::Lease(h) => {
                world.lease = Some((h, world.time + LEASE));
                let (generation, token, lease_end) = (world.generation, world.token, world.time + LEASE);
                let host = &mut world.hosts[usize::from(h)];
                *host = Host { at: At::Leased, lease_end, connected: 0, generation, token, tries: host.tries + 1 };
            }
            Step::Connect(h) => {
                let host = &mut world.hosts[usize::from(h)];
                *host = Host { at: At::Connected, connected: world.time, ..*host };
            }
            Step::Check(h) => {
                let host = &mut world.hosts[usize::from(h)];
                let is_enough = world.time + REQUEST <= host.lease_end;
                if self.ground >= Ground::LeaseLeft && !is_enough {
                    world.reset(h, At::Idle);
                } else {
                    host.at = At::Checked;
                }
            }
            Step::Permit(h) => self.permit(&mut world, h),
            Step::Send(h) => self.send(&mut world, h),
            Step::Serve(k) => Self::serve(&mut world, k),
            Step::Receive(h, k) => {
                let message = world.network.remove(k);
                if message.content == Content::Tokens {
                    let host = &mut world.hosts[usize::from(h)];
                    *host = Host { at: At::Received, token: message.token, ..*host };
                } else {
                    world.needs_login = true;
                    world.reset(h, At::Done);
                }
            }
            Step::GiveUp(h) => world.reset(h, At::Idle),
            Step::Persist(h) => self.persist(&mut world, h),
            Step::Lose(k) => {
                world.losses += 1;
                world.network.remove(k);
            }
            Step::Crash(h) => {
                world.crashes += 1;
                world.reset(h, At::Idle);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("L1 one send before the access token ends", |_, world: &World| !world.sent_twice_early),
            Property::always("L2 no send once the successor is stored", |_, world: &World| {
                !world.replayed || world.lost_in_window
            }),
            Property::always("L3 nothing older over anything newer", |_, world: &World| !world.went_back),
            Property::sometimes("S1 refreshed", |_, world: &World| world.generation == 2 && world.is_alive),
        ]
    }
}
