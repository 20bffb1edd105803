//! Two holders of one refresh token at a server that revokes the family on reuse: keepalive, and a tool that it follows.
//!
//! Limits: the tool reads its store before each use, so a token that it has in memory alone is not seen; and no person puts
//! an older store back. An entry under another name is a moved one that can be read, which is the store itself here. A tool that refreshes, and is signed out before we look, has thrown the live token away: then our
//! send is a second use, and nothing is lost by it.

use stateright::{Model, Property};

/// What keepalive does when the tool's store holds our token, or cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct FollowDesign {
    /// It sends nothing while the tool holds the same token.
    pub tool_goes_first: bool,
    /// A store that is half-written is unknown, and not empty.
    pub torn_is_unknown: bool,
    /// A sign-in that the tool moved to where it cannot be read is unknown, and not gone.
    pub moved_is_unknown: bool,
}

impl FollowDesign {
    /// The one that is built.
    pub const IMPLEMENTED: Self = Self { tool_goes_first: true, torn_is_unknown: true, moved_is_unknown: true };
}

/// A refresh token by its number in the family.
type Number = u8;

/// Enough for each holder to refresh twice.
const LAST: Number = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ToolStore {
    Empty,
    Torn,
    Token(Number),
    /// In another place, which only the tool can read.
    Moved(Number),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FollowState {
    /// The token that the server accepts.
    live: Number,
    /// A second use has revoked the family while one of the two had its live token.
    is_live_token_lost: bool,
    tool: ToolStore,
    /// What the tool has got and not written yet.
    unwritten: Option<Number>,
    ours: Number,
    /// We have looked at the store, and connect.
    is_connecting: bool,
    has_adopted: bool,
    has_refreshed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FollowStep {
    ToolRefreshes,
    ToolBeginsToWrite,
    ToolEndsWriting,
    ToolSignsOut,
    ToolMoves,
    WeLook,
    /// The gate and the send.
    WeSend,
}

const STEPS: [FollowStep; 7] = [
    FollowStep::ToolRefreshes,
    FollowStep::ToolBeginsToWrite,
    FollowStep::ToolEndsWriting,
    FollowStep::ToolSignsOut,
    FollowStep::ToolMoves,
    FollowStep::WeLook,
    FollowStep::WeSend,
];

impl FollowDesign {
    /// Whether our token may be sent, by what the store holds now.
    fn may_send(self, tool: ToolStore, ours: Number) -> bool {
        match tool {
            ToolStore::Empty => true,
            ToolStore::Torn => !self.torn_is_unknown,
            ToolStore::Moved(_) => !self.moved_is_unknown,
            ToolStore::Token(theirs) if theirs == ours => !self.tool_goes_first,
            ToolStore::Token(theirs) => theirs < ours,
        }
    }

    /// The state after the step, if the step can be made.
    fn step(self, before: &FollowState, step: FollowStep) -> Option<FollowState> {
        let mut state = before.clone();
        match (step, state.tool) {
            (FollowStep::ToolRefreshes, ToolStore::Token(theirs) | ToolStore::Moved(theirs))
                if state.unwritten.is_none() =>
            {
                state.unwritten = Some(state.present(theirs)?);
            }
            (FollowStep::ToolMoves, ToolStore::Token(theirs)) => state.tool = ToolStore::Moved(theirs),
            (FollowStep::ToolBeginsToWrite, ToolStore::Token(_)) if state.unwritten.is_some() => {
                state.tool = ToolStore::Torn;
            }
            (FollowStep::ToolEndsWriting, ToolStore::Torn) => state.tool = ToolStore::Token(state.unwritten.take()?),
            (FollowStep::ToolEndsWriting, ToolStore::Moved(_)) => {
                state.tool = ToolStore::Moved(state.unwritten.take()?);
            }
            (FollowStep::ToolSignsOut, ToolStore::Token(_)) if state.unwritten.is_none() => {
                state.tool = ToolStore::Empty;
            }
            (FollowStep::WeLook, ToolStore::Token(theirs)) if !state.is_connecting && theirs > state.ours => {
                state.ours = theirs;
                state.has_adopted = true;
            }
            (FollowStep::WeLook, tool) if !state.is_connecting && self.may_send(tool, state.ours) => {
                state.is_connecting = true;
            }
            (FollowStep::WeSend, tool) if state.is_connecting => {
                state.is_connecting = false;
                if self.may_send(tool, state.ours) {
                    state.ours = state.present(state.ours)?;
                    state.has_refreshed = true;
                }
            }
            _ => return None,
        }
        Some(state)
    }
}

impl FollowState {
    /// The server's response to a token; a second use revokes the family. `None`: the model ends here.
    fn present(&mut self, token: Number) -> Option<Number> {
        if token != self.live {
            let is_held = self.ours == self.live || self.unwritten == Some(self.live);
            let is_stored = [ToolStore::Token(self.live), ToolStore::Moved(self.live)].contains(&self.tool);
            self.is_live_token_lost = is_held || is_stored;
            self.live = LAST + 1;
            return Some(token);
        }
        self.live += 1;
        (self.live <= LAST).then_some(self.live)
    }
}

impl Model for FollowDesign {
    type State = FollowState;
    type Action = FollowStep;

    fn init_states(&self) -> Vec<FollowState> {
        vec![FollowState {
            live: 0,
            is_live_token_lost: false,
            tool: ToolStore::Token(0),
            unwritten: None,
            ours: 0,
            is_connecting: false,
            has_adopted: false,
            has_refreshed: false,
        }]
    }

    fn actions(&self, state: &FollowState, steps: &mut Vec<FollowStep>) {
        steps.extend(STEPS.into_iter().filter(|step| self.step(state, *step).is_some()));
    }

    fn next_state(&self, state: &FollowState, step: FollowStep) -> Option<FollowState> {
        self.step(state, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("F1 no live token is lost by a second use", |_, state: &FollowState| {
                !state.is_live_token_lost
            }),
            Property::sometimes("S1 what the tool got is adopted", |_, state: &FollowState| state.has_adopted),
            Property::sometimes("S2 keepalive goes on alone", |_, state: &FollowState| state.has_refreshed),
        ]
    }
}
