//! House memory: what a reviewer would say each time, said by a test instead.

use std::path::Path;
use std::process::Command;

use super::support::root;

/// Which floor each part stands on; a part may use its own floor and those below, and strangers never use each other.
const FLOORS: [(&str, u8); 19] = [
    ("clock", 0),
    ("credential", 0),
    ("outcome", 0),
    ("profile", 0),
    ("schedule", 0),
    ("sys", 1),
    ("guard", 2),
    ("config", 3),
    ("provider", 3),
    ("store", 3),
    ("adopt", 4),
    ("engine", 4),
    ("signin", 4),
    ("broker", 5),
    ("scheduler", 5),
    ("cli", 6),
    ("lib", 7),
    ("main", 7),
    ("tests", 7),
];
/// Parts of one floor that know nothing of each other.
const STRANGERS: [&str; 3] = ["config", "provider", "store"];

/// What is left of the bans: clippy knows the others, see `.clippy.toml` and `[lints]` in `Cargo.toml`.
const BANS: [(&str, &str); 2] =
    [("FIXME", "mend it, or write it down in an issue"), ("#[ignore", "what needs more than Rust belongs in tests/it")];

/// Only these may look into a refresh token.
const TOKEN_READERS: [&str; 4] =
    ["src/provider/wire.rs", "src/store/content.rs", "src/store/key.rs", "src/store/published.rs"];

const LONGEST_FILE: usize = 420;
const LONGEST_FUNCTION: usize = 60;
const DEEPEST: usize = 5;

pub fn files(below: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut stack = vec![root().join(below)];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    stack.push(path);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The part of a file that is not tests.
pub fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

fn part_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or("tests");
    inside.split(['/', '.']).next().unwrap_or(inside)
}

fn floor(part: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == part).map(|(_, floor)| *floor)
}

/// What is wrong with the imports of a file.
fn climbs(file: &str, text: &str) -> Vec<String> {
    let part = part_of(file);
    let Some(mine) = floor(part) else {
        return vec![format!("{file}: `{part}` has no floor; give it one in tidy.rs")];
    };
    let mut faults = Vec::new();
    for used in code(text)
        .split("crate::")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
    {
        match floor(used) {
            Some(theirs) if theirs > mine => faults.push(format!("{file}: uses `{used}`, which stands above `{part}`")),
            Some(_) if used != part && STRANGERS.contains(&part) && STRANGERS.contains(&used) => {
                faults.push(format!("{file}: `{part}` and `{used}` are strangers"));
            }
            Some(_) => {}
            None => {}
        }
    }
    faults
}

/// Bans broken by a line, comments included.
fn banned(file: &str, text: &str) -> Vec<String> {
    code(text)
        .lines()
        .flat_map(|line| {
            BANS.iter()
                .filter(move |(word, _)| line.contains(word))
                .map(move |(word, why)| format!("{file}: {word}: {why}"))
        })
        .collect()
}

/// Functions that are too long or too deep, by the indentation that rustfmt gives.
fn walls(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in code(text).lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        let is_head = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "]
            .iter()
            .any(|h| trimmed.starts_with(h));
        if is_head && open.is_none() && !trimmed.ends_with(';') {
            let name = trimmed.split("fn ").nth(1).unwrap_or("").split(['(', '<']).next().unwrap_or("").to_owned();
            open = Some((number, indent, name));
        }
        let Some((start, base, name)) = &open else { continue };
        let depth = indent.saturating_sub(*base) / 4;
        if depth > DEEPEST + 1 && !trimmed.starts_with('.') {
            faults.push(format!("{file}: {name} is {depth} levels deep at line {}", number + 1));
        }
        if line == format!("{}}}", " ".repeat(*base)) {
            let length = number - start + 1;
            if length > LONGEST_FUNCTION {
                faults.push(format!("{file}: {name} has {length} lines"));
            }
            open = None;
        }
    }
    faults
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let all = [files("src", ".rs"), files("tests/it", ".rs")].concat();
    let is_dumb = |text: &str| !(text.starts_with("//!") || text.starts_with("#![doc = include_str!"));
    none(
        all.into_iter()
            .filter(|(_, text)| is_dumb(text))
            .map(|(file, _)| format!("{file}: no `//!` line on top"))
            .collect(),
    );
}

#[test]
fn no_file_is_a_wall() {
    let length = |text: &str| code(text).lines().count();
    let long = files("src", ".rs").into_iter().filter(|(file, text)| !is_test(file) && length(text) > LONGEST_FILE);
    none(long.map(|(file, text)| format!("{file}: {} lines", length(&text))).collect());
}

#[test]
fn no_function_is_a_wall() {
    let code = files("src", ".rs").into_iter().filter(|(file, _)| !is_test(file));
    none(code.flat_map(|(file, text)| walls(&file, &text)).collect());
}

#[test]
fn imports_only_go_down() {
    none(files("src", ".rs").iter().flat_map(|(file, text)| climbs(file, text)).collect());
}

#[test]
fn what_is_banned_is_not_there() {
    none(
        files("src", ".rs")
            .iter()
            .filter(|(file, _)| !is_test(file))
            .flat_map(|(file, text)| banned(file, text))
            .collect(),
    );
}

#[test]
fn refresh_tokens_are_looked_into_only_where_they_are_sealed_published_or_sent() {
    let looks = |text: &str| {
        code(text)
            .lines()
            .any(|l| l.contains("refresh.expose()") || l.contains("token.expose()") || l.contains("sent.expose()"))
    };
    let allowed = |file: &str| TOKEN_READERS.contains(&file) || file == "src/engine/judge.rs";
    none(
        files("src", ".rs")
            .into_iter()
            .filter(|(file, text)| looks(text) && !allowed(file))
            .map(|(file, _)| file)
            .collect(),
    );
}

#[test]
fn tests_wait_for_events_and_do_not_sleep() {
    let allowed = [
        "tests/it/support/mod.rs",
        "tests/it/support/bus.rs",
        "tests/it/support/authserver.rs",
        "tests/it/daemon.rs",
        "tests/it/tidy.rs",
    ];
    let sleeps = |(file, text): &(String, String)| text.contains("sleep(") && !allowed.contains(&file.as_str());
    none(files("tests/it", ".rs").into_iter().filter(sleeps).map(|(file, _)| format!("{file}: sleeps")).collect());
}

/// What plain `cargo test` leaves out says why, and who runs it: nothing is skipped in silence.
#[test]
fn ignored_tests_say_what_they_need_and_are_run_by_contrib_test() {
    let is_told = |line: &str| line.starts_with("#[ignore = \"needs ") && line.ends_with("; contrib/test runs it\"]");
    let mark = ["#[", "ignore"].concat();
    none(
        files("tests", ".rs")
            .iter()
            .flat_map(|(file, text)| text.lines().map(move |line| (file, line.trim())))
            .filter(|(_, line)| line.starts_with(&mark) && !is_told(line))
            .map(|(file, line)| format!("{file}: {line}"))
            .collect(),
    );
}

#[test]
fn the_top_level_is_the_users() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "contrib",
        "tests",
        "man",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "CHANGELOG.md",
        "target",
    ];
    let there = std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    none(there.filter(|name| !name.starts_with('.') && !known.contains(&name.as_str())).collect());
}

#[test]
fn no_path_of_a_machine_and_no_registry_is_committed() {
    let needles = [
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["registry.npm", "js.org"].concat(),
        ["/ho", "me/runner"].concat(),
    ];
    let mut faults = Vec::new();
    let mut stack = vec![root()];
    while let Some(dir) = stack.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            // The tests need no git; what is not committed is in these.
            if [".git", "target", "node_modules"].iter().any(|name| path.ends_with(name)) {
                continue;
            }
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let found = needles.iter().filter(|needle| text.contains(needle.as_str()));
            faults.extend(found.map(|needle| format!("{}: {needle}", path.display())));
        }
    }
    none(faults);
}

fn cargo_tree(arguments: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn there_is_one_of_each_and_no_library_in_c() {
    for absent in ["aws-lc-sys", "libdbus-sys", "openssl-sys", "libsqlite3-sys"] {
        let (found, tree) = cargo_tree(&["--invert", absent]);
        assert!(!found || tree.trim().is_empty(), "{absent} is in the tree:\n{tree}");
    }
    let (_, tree) = cargo_tree(&["--prefix", "none", "--format", "{p}"]);
    for single in ["reqwest", "zbus", "ring", "rustls", "hyper", "tokio"] {
        let mut versions: Vec<_> = tree
            .lines()
            .filter(|l| l.starts_with(&format!("{single} v")))
            .map(|l| l.trim_end_matches(" (*)"))
            .collect();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 1, "{versions:?}");
    }
    let (_, features) = cargo_tree(&["--invert", "zbus", "--edges", "normal,features"]);
    assert!(!features.contains("zbus feature \"tokio\""), "it would panic inside a runtime");
}

/// A version of Rust as cargo writes it: `1.89` or `1.89.0`.
fn rust_version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn dependencies_ask_for_no_newer_rust() {
    let verbose = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let verbose = String::from_utf8(verbose).unwrap();
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version=1", "--filter-platform", host])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let used: Vec<_> = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let ours = rust_version(env!("CARGO_PKG_RUST_VERSION"));
    let packages = metadata["packages"].as_array().unwrap().iter().filter(|package| used.contains(&&package["id"]));
    let newer = packages.filter(|p| p["rust_version"].as_str().is_some_and(|version| rust_version(version) > ours));
    none(newer.map(|p| format!("{} {} needs Rust {}", p["name"], p["version"], p["rust_version"])).collect());
}

#[test]
fn each_check_can_fail() {
    let text = "//! x\nuse crate::engine::Engine;\nuse crate::provider::wire;\nfn f() {\n    // FIXME\n    x();\n}\n";
    assert_eq!(climbs("src/store/mod.rs", text).len(), 2);
    assert_eq!(climbs("src/nowhere/mod.rs", text).len(), 1);
    assert_eq!(banned("src/store/mod.rs", text).len(), 1);
    let long = format!("fn long() {{\n{}}}\n", "    x;\n".repeat(LONGEST_FUNCTION));
    assert_eq!(walls("f", &long).len(), 1);
    let deep = format!("fn deep() {{\n{}x\n}}\n", " ".repeat(4 * (DEEPEST + 2)));
    assert_eq!(walls("f", &deep).len(), 1);
    assert_eq!(part_of("src/store/mod.rs"), "store");
    assert!(Path::new(&root()).join("src").exists());
}
