//! The refresh transaction as a model: every order in which processes, crashes, power cuts, keyring and network can act,
//! walked through by a checker (stateright).
//!
//! [`one_machine`] is one machine: its steps carry the names of the steps in `keepalive::engine::refresh::transaction`. [`several_machines`] is the
//! case of several machines, which the program does not serve yet; it shows which rule such a store would have to keep.
//! [`lock_order`] is about whom a stopped process keeps waiting, [`followed_tool`] about a tool that holds the same token.
//! [`paths`] picks the ways through the first on which the real transaction is led.

pub mod followed_tool;
pub mod lock_order;
pub mod one_machine;
pub mod paths;
pub mod several_machines;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model, Path};

/// What walking through a model showed.
#[derive(Debug)]
pub struct Report {
    /// The properties that must always hold and do not, by name.
    pub violated: Vec<&'static str>,
    /// The situations that must come about, and do: without them a model that holds says little.
    pub reached: Vec<&'static str>,
    pub states: usize,
    pub depth: usize,
}

/// Walks through all states.
pub fn explore<M>(model: M) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
{
    check(model, HasDiscoveries::All)
}

fn check<M>(model: M, until: HasDiscoveries) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
{
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = model.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (mut reached, mut violated): (Vec<_>, Vec<_>) = discoveries.keys().partition(|name| name.starts_with('S'));
    reached.sort_unstable();
    violated.sort_unstable();
    Report { violated, reached, states: checker.unique_state_count(), depth: checker.max_depth() }
}

/// Walks until the properties whose names begin like `expected` are seen to be violated, or all states were seen.
pub fn explore_until<M>(model: M, expected: &[&str]) -> Report
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
{
    let names = model.properties().into_iter().map(|property| property.name);
    let wanted = names.filter(|name| expected.iter().any(|start| name.starts_with(start))).collect();
    check(model, HasDiscoveries::AllOf(wanted))
}

/// The shortest way to the first violation of the model's properties, step by step.
pub fn shortest_violation<M>(model: M) -> Option<Vec<String>>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path: Path<_, _> = checker.discoveries().into_iter().find(|(name, _)| !name.starts_with('S'))?.1;
    Some(path.into_actions().iter().map(|step| format!("{step:?}")).collect())
}
