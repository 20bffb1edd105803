//! What a person writes: the configuration and cron expressions, damaged.

use std::path::Path;
use std::sync::LazyLock;

use keepalive::clock::Timestamp;
use keepalive::config::Config;
use keepalive::schedule::Schedule;

use super::super::support::root;
use super::random_damage::{self, Rng};

const WORDS: [&[u8]; 34] = [
    b"[profile.x]\nprovider = \"acme\"\n",
    b"[provider.\"\"]",
    b"[[store]]\n",
    b"= \"\"",
    b"= \"110%\"",
    b"= \"99999999999999999999d\"",
    b"= -0x1",
    b"= 1e308",
    b"= 1979-05-27T07:32:00Z",
    b"= [[[[[[[[",
    b"= { env = \"A\", file = \"b\" }",
    b"\"\"\"",
    b"'''",
    b"\\u0000",
    b"\x1b",
    b"\xe2\x80\xae",
    b"\n",
    b"#",
    b"*",
    b"?",
    b"*/0",
    b"0-59/59",
    b"sun-sat",
    b"7",
    b"60",
    b"31",
    b"2",
    b"@yearly",
    b"4294967296",
    b"2100",
    b",",
    b"-",
    b"/",
    b" ",
];

static CONFIGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let example = std::fs::read_to_string(root().join("contrib/keepalive.example.toml")).unwrap();
    // The example with its commented-out keys in force.
    let uncommented = example.lines().map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n").collect();
    let built_in = std::fs::read_to_string(root().join("src/config/providers.toml")).unwrap();
    vec![example, uncommented, built_in]
});

const SCHEDULES: [&str; 14] = [
    "*/10 * * * *",
    "0 */4 * * *",
    "0 0 */4 * * mon-fri 2026-2030",
    "@hourly",
    "@midnight",
    "0 0 29 2 *",
    "59 23 31 12 ?",
    "30 1,2,3 * 3,10 0",
    "5/15 0-6/2 * jan-jun sun",
    "0 0 0 1 1 ? 2099",
    "* * * * * * *",
    "0 0 * * 5-7",
    "0 12 1-7 * *",
    "17 4 * * TUE,thursday",
];

/// An error that a person can act on, or a configuration that can be shown.
fn config(rng: &mut Rng) {
    let corpus = &CONFIGS[rng.below(CONFIGS.len())];
    let text = random_damage::text(rng, corpus, &WORDS);
    match Config::parse(&text, Path::new("c.toml"), Some(Path::new("/nowhere"))) {
        Ok(config) => {
            let names: Vec<_> = config.profile_names().cloned().collect();
            for name in names {
                // A profile may leave its provider to the command line.
                if let Err(e) = config.profile(&name, None) {
                    assert!(e.to_failure().hint.is_some_and(|hint| !hint.is_empty()), "no hint: {e}");
                }
            }
        }
        Err(e) => {
            let shown = e.to_string();
            assert!(shown.starts_with("c.toml:") && !shown.chars().any(char::is_control), "{shown:?}");
            assert!(e.hint().is_some_and(|hint| !hint.is_empty()), "no hint: {shown}");
        }
    }
}

/// A schedule that was accepted goes on, always forwards, and is the same when it is read again.
fn schedule(rng: &mut Rng) {
    let corpus = rng.pick(&SCHEDULES);
    let text = if rng.once_in(8) { corpus.to_owned() } else { random_damage::text(rng, corpus, &WORDS) };
    let is_utc = rng.once_in(2);
    let Ok(schedule) = Schedule::parse(&text, is_utc).inspect_err(|e| {
        assert!(!e.to_string().is_empty() && !e.hint().is_empty());
    }) else {
        return;
    };
    assert_eq!(Schedule::parse(schedule.as_str(), is_utc).as_ref(), Ok(&schedule));
    let mut now = Timestamp::from_millis((rng.next() % 4_200_000_000_000) as i64);
    for _ in 0..3 {
        let Some(next) = schedule.next_after(now) else { return };
        assert!(next > now, "{schedule:?} after {now}: {next}");
        let just_before = Timestamp::from_millis(next.as_millis() - 1);
        assert_eq!(schedule.next_after(just_before), Some(next), "{schedule:?} just before {next}");
        now = next;
    }
}

#[test]
fn damaged_configuration_loads_or_gives_an_error_with_a_hint() {
    super::run("configuration", 3_000, config);
}

#[test]
fn damaged_cron_expression_is_refused_or_moves_forward() {
    super::run("cron", 3_000, schedule);
}
