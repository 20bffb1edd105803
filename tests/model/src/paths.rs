//! The shortest ways through a design on which each edge is taken in every situation that it comes up in.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet, VecDeque};

use stateright::Model;

use crate::one_machine::{Design, Edge, MessageKind, ModelState, Phase, SendReason, Server, Step};

/// What the outcome of an edge may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Situation {
    kind: SendReason,
    /// How often it was sent, whether the last chance is among these, and whether the answer is known.
    doubt: Option<(u8, bool, bool)>,
    is_grace_open: bool,
    has_expired: bool,
    is_unsettled: bool,
    is_keyring_locked: bool,
    /// S against K.
    sealed: Ordering,
    needs_login: bool,
    /// Whether a person may insist, and has a moment ago, and does.
    is_rejected: bool,
    is_forced_lately: bool,
    is_person: bool,
    is_alive: bool,
    is_first_generation: bool,
}

impl Situation {
    fn of(world: &ModelState) -> Self {
        let newest = world.newest();
        Self {
            kind: world.processes.iter().map(|process| process.kind).max().unwrap_or_default(),
            doubt: world.intent.map(|i| (i.sends, i.is_last_chance_spent, i.generation < newest.generation)),
            is_grace_open: world.is_grace_open,
            has_expired: world.has_expired(),
            is_unsettled: world.is_unsettled(),
            is_keyring_locked: world.is_keyring_locked,
            sealed: world.sealed.map_or(Ordering::Less, |sealed| sealed.cmp(&world.keyring)),
            needs_login: world.needs_login,
            is_rejected: world.is_rejected,
            is_forced_lately: world.is_forced_lately,
            is_person: world.processes.iter().any(|process| process.is_person),
            is_alive: world.is_alive,
            is_first_generation: newest.generation == 1,
        }
    }
}

/// Which steps are open in a world.
pub type StepFilter = fn(&ModelState, Step) -> bool;

/// Gives, for each edge in each situation, a shortest way that takes it, led on until no process is at work and then through
/// one more refresh that meets no trouble; of two ways, one of which begins with the other, the longer. `may` says which
/// steps are open.
pub fn shortest_paths(design: &Design, may: StepFilter) -> Vec<Vec<Step>> {
    let mut places: Vec<(ModelState, Option<(usize, Step)>)> =
        design.init_states().into_iter().map(|world| (world, None)).collect();
    let mut seen: HashSet<ModelState> = places.iter().map(|(world, _)| world.clone()).collect();
    let mut open: VecDeque<usize> = (0..places.len()).collect();
    let mut first: BTreeMap<(Edge, Situation), (usize, Step)> = BTreeMap::new();
    let mut steps = Vec::new();
    while let Some(here) = open.pop_front() {
        steps.clear();
        let world = places[here].0.clone();
        design.actions(&world, &mut steps);
        for &step in steps.iter().filter(|step| may(&world, **step)) {
            let Some((after, edge)) = design.step(&world, step) else { continue };
            if let Some(edge) = edge {
                first.entry((edge, Situation::of(&world))).or_insert((here, step));
            }
            if seen.insert(after.clone()) {
                places.push((after, Some((here, step))));
                open.push_back(places.len() - 1);
            }
        }
    }
    let mut ways: Vec<Vec<Step>> =
        first.into_values().map(|(place, step)| extend_to_idle(design, may, &places, place, step)).collect();
    ways.sort_unstable();
    ways.dedup();
    let whole = |i: usize| ways.get(i + 1).is_none_or(|next| !next.starts_with(&ways[i]));
    (0..ways.len()).filter(|&i| whole(i)).map(|i| ways[i].clone()).collect()
}

/// From the start to `place`, from there by `step`, and on without trouble.
fn extend_to_idle(
    design: &Design,
    may: StepFilter,
    places: &[(ModelState, Option<(usize, Step)>)],
    place: usize,
    step: Step,
) -> Vec<Step> {
    let mut steps = vec![step];
    let mut back = place;
    while let Some((before, step)) = places[back].1 {
        steps.push(step);
        back = before;
    }
    steps.reverse();
    let Some((mut world, _)) = design.step(&places[place].0, step) else { return steps };
    // How far it can be led: not to where a process is at work and may not go on.
    let mut whole = 0;
    for is_last in [false, true] {
        loop {
            if world.processes[0].at == Phase::Idle {
                whole = steps.len();
            }
            let Some(step) = undisturbed_step(&world, is_last).filter(|step| may(&world, *step)) else { break };
            let Some((after, _)) = design.step(&world, step) else { break };
            steps.push(step);
            world = after;
            if world.processes[0].at == Phase::Idle {
                whole = steps.len();
                break;
            }
        }
    }
    steps.truncate(whole);
    steps
}

/// What the first process does next if nothing goes wrong.
fn undisturbed_step(world: &ModelState, is_starting: bool) -> Option<Step> {
    let process = &world.processes[0];
    Some(match process.at {
        Phase::Idle if is_starting && process.rounds > 0 => Step::Enter(0),
        Phase::Idle => return None,
        Phase::AtLock => Step::Admit(0),
        Phase::Admitted => Step::Recheck(0),
        Phase::Ready => Step::Gate(0),
        Phase::Intended => Step::Yield(0),
        Phase::Sent => {
            let mine = world.network.iter().position(|message| message.owner == Some(0));
            match mine {
                None => Step::GiveUp(0),
                Some(k) if world.network[k].content == MessageKind::Request => Step::Serve(k),
                Some(k) => Step::Receive(0, k),
            }
        }
        Phase::Received => Step::Seal(0),
        Phase::Sealed => Step::Publish(0),
        Phase::Published => Step::Commit(0),
    })
}

/// One process after the other, with one fault of each kind and two requests that are turned away. `rounds`: how many
/// come and are not killed.
pub fn sequential(server: Server, rounds: u8) -> Design {
    let built = Design::implemented(server);
    let budget = crate::one_machine::Budget { refusals: 2, denials: 1, insists: 1, ..built.budget };
    Design { processes: 1, rounds, budget, ..built }
}
