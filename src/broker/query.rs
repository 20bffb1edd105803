//! The parameters of a request for a token, read and checked. (pure)

use std::borrow::Cow;
use std::time::Duration;

use url::form_urlencoded;

use crate::clock;
use crate::config;
use crate::credential::Generation;
use crate::outcome::{ErrorKind, Failure};
use crate::store::handles::HANDLE_MARK;

const NAMES: [&str; 6] = ["min_valid", "rejected", "newer_than", "wait", "timeout", "id_token"];
const DEFAULT_MIN_VALID: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for a refresh. Who may wait longer asks again.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest wait for a newer generation.
const MAX_WAIT: Duration = Duration::from_secs(5 * 60);

/// Which token is asked for, and how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenQuery {
    pub min_valid: Duration,
    pub timeout: Duration,
    pub condition: Condition,
    pub has_id_token: bool,
}

/// What must be so before a token is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// It is valid for long enough, after a refresh if that is needed.
    Valid,
    /// There is a generation after this one. It is only waited for.
    NewerThan { seen: Generation, wait: Duration },
    /// An API has rejected the token of this generation.
    Rejected(Generation),
}

impl TokenQuery {
    /// Reads what follows the `?`.
    pub(super) fn parse(query: &str) -> Result<Self, Failure> {
        let given = Parameters::parse(query)?;
        let min_valid = given.duration("min_valid", Duration::MAX)?.unwrap_or(DEFAULT_MIN_VALID);
        let timeout = given.duration("timeout", MAX_TIMEOUT)?.unwrap_or(DEFAULT_TIMEOUT);
        let wait = given.duration("wait", MAX_WAIT)?;
        let condition = match (given.generation("newer_than")?, given.generation("rejected")?) {
            (Some(_), Some(_)) => return Err(refused("newer_than only waits and rejected refreshes: use one of them")),
            (Some(seen), None) => Condition::NewerThan { seen, wait: wait.unwrap_or_default() },
            (None, _) if wait.is_some() => return Err(refused("wait needs newer_than, the generation that is known")),
            (None, Some(generation)) => Condition::Rejected(generation),
            (None, None) => Condition::Valid,
        };
        Ok(Self { min_valid, timeout, condition, has_id_token: given.flag("id_token")? })
    }
}

/// Refuses parameters where none are known.
pub(super) fn expect_none(query: &str) -> Result<(), Failure> {
    match form_urlencoded::parse(query.as_bytes()).next() {
        None => Ok(()),
        Some((name, _)) => Err(refused(&format!("this path has no parameters, not \"{}\" either", shown(&name)))),
    }
}

/// Each parameter that was given, once.
struct Parameters<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Parameters<'q> {
    fn parse(query: &'q str) -> Result<Self, Failure> {
        let mut given: Vec<(Cow<'q, str>, Cow<'q, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !NAMES.contains(&name.as_ref()) {
                let meant = config::nearest(&name, NAMES).map_or(String::new(), |n| format!("; did you mean {n}?"));
                let known = format!("the parameters are {}", NAMES.join(", "));
                return Err(refused(&format!("there is no parameter \"{}\"{meant}", shown(&name))).with_hint(known));
            }
            if given.iter().any(|(known, _)| *known == name) {
                return Err(refused(&format!("{name} is given twice")));
            }
            given.push((name, value));
        }
        Ok(Self(given))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_ref())
    }

    fn duration(&self, name: &str, most: Duration) -> Result<Option<Duration>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = clock::parse_duration(text).map_err(|why| refused(&format!("{name}={}: {why}", shown(text))))?;
        if value > most {
            let most = humantime::format_duration(most);
            return Err(refused(&format!("{name}={text}: at most {most}; ask again after that")));
        }
        Ok(Some(value))
    }

    fn generation(&self, name: &str) -> Result<Option<Generation>, Failure> {
        let number = |text: &str| {
            text.parse()
                .map(Generation::new)
                .map_err(|_| refused(&format!("{name}={}: a generation is a number", shown(text))))
        };
        self.get(name).map(number).transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(refused(&format!("{name}={}: it is true or false", shown(text)))),
        }
    }
}

/// What a caller wrote, unless it put a handle there: errors go into logs.
fn shown(text: &str) -> &str {
    if text.contains(HANDLE_MARK) { "..." } else { text }
}

fn refused(message: &str) -> Failure {
    Failure::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn query_is_read_with_its_defaults() {
        let usual = TokenQuery::parse("").unwrap();
        assert_eq!((usual.min_valid, usual.timeout, usual.condition), (S(60), S(30), Condition::Valid));
        let read = TokenQuery::parse("min_valid=1h+30m&timeout=5s&id_token=true").unwrap();
        assert_eq!((read.min_valid, read.timeout, read.has_id_token), (S(5400), S(5), true));
        let poll = TokenQuery::parse("newer_than=7&wait=5m").unwrap();
        assert_eq!(poll.condition, Condition::NewerThan { seen: Generation::new(7), wait: S(300) });
        let rejected = TokenQuery::parse("rejected=7").unwrap();
        assert_eq!(rejected.condition, Condition::Rejected(Generation::new(7)));
        let look = TokenQuery::parse("newer_than=7").unwrap();
        assert_eq!(look.condition, Condition::NewerThan { seen: Generation::new(7), wait: S(0) });
    }

    #[test]
    fn manual_explains_every_parameter() {
        for name in NAMES {
            let lines = [format!(".BI {name}= "), format!(".B {name}=true")];
            assert!(lines.iter().any(|line| crate::broker::MANUAL.contains(line)), "{name}");
        }
    }

    #[test]
    fn wrong_query_is_refused_with_the_reason() {
        for (query, words) in [
            ("min_vald=5m", "did you mean min_valid?"),
            ("colour=red", "there is no parameter \"colour\""),
            ("wait=5s", "wait needs newer_than"),
            ("newer_than=7&rejected=7", "use one of them"),
            ("newer_than=7&newer_than=8", "newer_than is given twice"),
            ("newer_than=-1", "a generation is a number"),
            ("newer_than=1&wait=6m", "at most 5m"),
            ("timeout=61s", "at most 1m"),
            ("min_valid=5", "did you mean 5s?"),
            ("id_token=1", "true or false"),
        ] {
            let refused = TokenQuery::parse(query).unwrap_err();
            assert!(refused.message.contains(words), "{query}: {}", refused.message);
        }
        assert!(expect_none("").is_ok());
        assert!(expect_none("a=b").unwrap_err().message.contains("\"a\""));
    }
}
