//! One grant's tokens at an authorization server: which are alive, and what a use of each does. No I/O.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How a server treats refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotationMode {
    /// Rotates; a replay kills the family, newest tokens included.
    Strict,
    /// As strict, but the token before the current one, while its successor is unused, gives the same pair again.
    Grace(Duration),
    /// The refresh token that was sent comes back (`echo`), or the response has none.
    NoRotation { echo: bool },
    /// Rotates, and a replay is only refused.
    Lenient,
}

/// What a refresh gives.
#[derive(Debug, Clone, PartialEq)]
pub enum RefreshResult {
    Pair { access: String, refresh: Option<String> },
    Dead,
}

#[derive(Debug)]
pub struct TokenFamily {
    pub mode: RotationMode,
    pub kill_old_access_token: bool,
    pub is_alive: bool,
    pub current: String,
    previous: Option<PreviousToken>,
    access: HashMap<String, Instant>,
    used: HashSet<String>,
    next: u64,
    name: String,
}

#[derive(Debug)]
struct PreviousToken {
    token: String,
    superseded: Instant,
    pair: (String, String),
}

impl TokenFamily {
    pub fn new(name: &str, mode: RotationMode) -> Self {
        let mut family = Self {
            mode,
            kill_old_access_token: true,
            is_alive: true,
            current: String::new(),
            previous: None,
            access: HashMap::new(),
            used: HashSet::new(),
            next: 0,
            name: name.to_owned(),
        };
        family.current = family.mint("rt");
        family
    }

    /// Tokens look like secrets, so that a leak can be searched for.
    fn mint(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("canary-{kind}-{}-{}", self.name, self.next)
    }

    pub fn issue_access(&mut self, life: Duration) -> String {
        if self.kill_old_access_token {
            self.access.clear();
        }
        let token = self.mint("at");
        self.access.insert(token.clone(), Instant::now() + life);
        token
    }

    pub fn is_live(&self, access: &str) -> bool {
        self.is_alive && self.access.get(access).is_some_and(|end| Instant::now() < *end)
    }

    /// Whether the token ever belonged to this family.
    pub fn knows(&self, refresh: &str) -> bool {
        self.current == refresh || self.used.contains(refresh)
    }

    /// Whether this access token is of this family.
    pub fn has_issued(&self, access: &str) -> bool {
        self.access.contains_key(access)
    }

    /// Ends an access token, and no more.
    pub fn end_access(&mut self, access: &str) {
        self.access.remove(access);
    }

    pub fn refresh(&mut self, token: &str, life: Duration) -> RefreshResult {
        if !self.is_alive {
            return RefreshResult::Dead;
        }
        if token == self.current {
            return self.rotate(token, life);
        }
        match (self.mode, &self.previous) {
            (RotationMode::Grace(window), Some(p))
                if p.token == token && p.superseded.elapsed() < window && !self.used.contains(&self.current) =>
            {
                let (access, refresh) = p.pair.clone();
                RefreshResult::Pair { access, refresh: Some(refresh) }
            }
            (RotationMode::Strict | RotationMode::Grace(_), _) => {
                self.is_alive = false;
                RefreshResult::Dead
            }
            (RotationMode::Lenient | RotationMode::NoRotation { .. }, _) => RefreshResult::Dead,
        }
    }

    fn rotate(&mut self, token: &str, life: Duration) -> RefreshResult {
        let access = self.issue_access(life);
        if let RotationMode::NoRotation { echo } = self.mode {
            return RefreshResult::Pair { access, refresh: echo.then(|| token.to_owned()) };
        }
        self.used.insert(token.to_owned());
        let refresh = self.mint("rt");
        self.previous = Some(PreviousToken {
            token: token.to_owned(),
            superseded: Instant::now(),
            pair: (access.clone(), refresh.clone()),
        });
        self.current = refresh.clone();
        RefreshResult::Pair { access, refresh: Some(refresh) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn refresh_of(v: RefreshResult) -> String {
        match v {
            RefreshResult::Pair { refresh: Some(r), .. } => r,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strict_family_is_revoked_by_a_replay() {
        let mut f = TokenFamily::new("f", RotationMode::Strict);
        let first = f.current.clone();
        let RefreshResult::Pair { access, .. } = f.refresh(&first, LIFE) else { panic!() };
        assert!(f.is_live(&access));
        assert_eq!(f.refresh(&first, LIFE), RefreshResult::Dead);
        assert!(!f.is_live(&access) && !f.is_alive);
        let newest = f.current.clone();
        assert_eq!(f.refresh(&newest, LIFE), RefreshResult::Dead);
    }

    #[test]
    fn grace_gives_the_same_pair_until_the_successor_is_used() {
        let mut f = TokenFamily::new("f", RotationMode::Grace(LIFE));
        let first = f.current.clone();
        let pair = f.refresh(&first, LIFE);
        assert_eq!(f.refresh(&first, LIFE), pair);
        let second = refresh_of(pair);
        refresh_of(f.refresh(&second, LIFE));
        assert_eq!(f.refresh(&first, LIFE), RefreshResult::Dead);
        assert!(!f.is_alive);
    }

    #[test]
    fn no_rotation_keeps_the_token() {
        for echo in [true, false] {
            let mut f = TokenFamily::new("f", RotationMode::NoRotation { echo });
            let first = f.current.clone();
            for _ in 0..3 {
                let RefreshResult::Pair { refresh, .. } = f.refresh(&first, LIFE) else { panic!() };
                assert_eq!(refresh.is_some(), echo);
            }
        }
    }

    #[test]
    fn lenient_family_refuses_a_replay_and_stays_alive() {
        let mut f = TokenFamily::new("f", RotationMode::Lenient);
        let first = f.current.clone();
        let second = refresh_of(f.refresh(&first, LIFE));
        assert_eq!(f.refresh(&first, LIFE), RefreshResult::Dead);
        refresh_of(f.refresh(&second, LIFE));
    }
}
