//! Rules of this repository that a machine can check: layers, lengths, words, imports, dependencies.

mod imports;
mod words;

use std::path::Path;
use std::process::Command;

use super::support::root;

/// The layer of each part; a part may use its own layer and those below, and independent parts never use each other.
const LAYERS: [(&str, u8); 25] = [
    ("clock", 0),
    ("credential", 0),
    ("events", 0),
    ("hosts", 0),
    ("outcome", 0),
    ("profile", 0),
    ("schedule", 0),
    ("sys", 1),
    ("guard", 2),
    ("config", 3),
    ("provider", 3),
    ("store", 3),
    ("import_sources", 4),
    ("engine", 4),
    ("hooks", 4),
    ("mirror", 4),
    ("signin", 4),
    ("broker", 5),
    ("scheduler", 5),
    ("access", 6),
    ("cli", 7),
    ("keeper", 7),
    ("lib", 8),
    ("main", 8),
    ("tests", 8),
];
/// Parts of one layer that know nothing of each other.
const INDEPENDENT: [&[&str]; 2] = [&["config", "provider", "store"], &["cli", "keeper"]];

/// What is left of the bans: clippy knows the others, see `.clippy.toml` and `[lints]` in `Cargo.toml`.
const BANS: [(&str, &str); 2] =
    [("FIXME", "mend it, or write it down in an issue"), ("#[ignore", "what needs more than Rust belongs in tests/it")];

/// Only these may look into a refresh token.
const TOKEN_READERS: [&str; 4] = [
    "src/provider/request_encoding.rs",
    "src/store/disk/sealed_content.rs",
    "src/store/keys/sealing_key.rs",
    "src/store/keyring/item.rs",
];

const LONGEST_FILE: usize = 420;
const LONGEST_FUNCTION: usize = 60;
const DEEPEST: usize = 5;

/// Every file of the tree, read as text. The tests need no git; what is not committed is in the folders left out.
fn every_text() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut stack = vec![root()];
    while let Some(dir) = stack.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if [".git", "target", "node_modules"].iter().any(|name| path.ends_with(name)) {
                continue;
            }
            if path.is_dir() {
                stack.push(path);
                continue;
            }
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.push((name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()));
        }
    }
    found
}

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

fn layer(part: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == part).map(|(_, layer)| *layer)
}

/// What is wrong with the imports of a file.
fn layer_faults(file: &str, text: &str) -> Vec<String> {
    let part = part_of(file);
    let Some(mine) = layer(part) else {
        return vec![format!("{file}: `{part}` has no layer; give it one in tidy.rs")];
    };
    let mut faults = Vec::new();
    for used in code(text)
        .split("crate::")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
    {
        match layer(used) {
            Some(theirs) if theirs > mine => faults.push(format!("{file}: uses `{used}`, which is above `{part}`")),
            Some(_) if used != part && INDEPENDENT.iter().any(|all| all.contains(&part) && all.contains(&used)) => {
                faults.push(format!("{file}: `{part}` and `{used}` are independent of each other"));
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
fn oversized_functions(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in code(text).lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        let is_head = ["fn ", "pub fn ", "async fn ", "pub async fn "].iter().any(|h| trimmed.starts_with(h))
            || (trimmed.starts_with("pub(") && trimmed.contains(") fn "));
        if is_head && open.is_none() && !trimmed.ends_with(';') {
            let name = trimmed.split("fn ").nth(1).unwrap_or("").split(['(', '<']).next().unwrap_or("").to_owned();
            open = Some((number, indent, name));
        }
        let Some((start, base, name)) = &open else { continue };
        let depth = indent.saturating_sub(*base) / 4;
        if depth > DEEPEST + 1 && !trimmed.starts_with('.') {
            faults.push(format!("{file}: {name} is {depth} levels deep at line {}", number + 1));
        }
        // A method of a trait that has no body.
        if indent == *base && trimmed.starts_with(')') && trimmed.ends_with(';') {
            open = None;
            continue;
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
fn every_file_begins_with_a_doc_comment() {
    let all = [files("src", ".rs"), files("tests/it", ".rs")].concat();
    let lacks_doc = |text: &str| !(text.starts_with("//!") || text.starts_with("#![doc = include_str!"));
    none(
        all.into_iter()
            .filter(|(_, text)| lacks_doc(text))
            .map(|(file, _)| format!("{file}: no `//!` line on top"))
            .collect(),
    );
}

#[test]
fn no_file_exceeds_the_line_limit() {
    let length = |text: &str| code(text).lines().count();
    let long = files("src", ".rs").into_iter().filter(|(file, text)| !is_test(file) && length(text) > LONGEST_FILE);
    none(long.map(|(file, text)| format!("{file}: {} lines", length(&text))).collect());
}

#[test]
fn no_function_exceeds_the_length_or_depth_limit() {
    let code = files("src", ".rs").into_iter().filter(|(file, _)| !is_test(file));
    none(code.flat_map(|(file, text)| oversized_functions(&file, &text)).collect());
}

#[test]
fn imports_respect_the_layer_order() {
    none(files("src", ".rs").iter().flat_map(|(file, text)| layer_faults(file, text)).collect());
}

#[test]
fn banned_code_does_not_occur() {
    none(
        files("src", ".rs")
            .iter()
            .filter(|(file, _)| !is_test(file))
            .flat_map(|(file, text)| banned(file, text))
            .collect(),
    );
}

#[test]
fn refresh_tokens_are_exposed_only_in_listed_files() {
    let looks = |text: &str| {
        code(text)
            .lines()
            .any(|l| l.contains("refresh.expose()") || l.contains("token.expose()") || l.contains("sent.expose()"))
    };
    let allowed = |file: &str| TOKEN_READERS.contains(&file) || file == "src/engine/refresh/seal_response.rs";
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
        "tests/it/support/session_bus.rs",
        "tests/it/support/auth_server.rs",
        "tests/it/daemon.rs",
        "tests/it/tidy.rs",
    ];
    let sleeps = |(file, text): &(String, String)| text.contains("sleep(") && !allowed.contains(&file.as_str());
    none(files("tests/it", ".rs").into_iter().filter(sleeps).map(|(file, _)| format!("{file}: sleeps")).collect());
}

/// What plain `cargo test` leaves out says why, and what runs it; `contrib/test` leaves out by name.
#[test]
fn ignored_tests_say_what_they_need_and_are_run_by_contrib_test() {
    let mark = ["#[", "ignore"].concat();
    let script = std::fs::read_to_string(root().join("contrib/test")).unwrap();
    let is_told = |line: &str, file: &str, function: &str| {
        let module = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".rs");
        let is_skipped =
            [function.to_owned(), format!("{module}::")].iter().any(|part| script.contains(&format!("--skip={part}")));
        let by = if is_skipped { "; contrib/test --long runs it\"]" } else { "; contrib/test runs it\"]" };
        line.starts_with("#[ignore = \"needs ") && line.ends_with(by)
    };
    let mut wrong = Vec::new();
    for (file, text) in files("tests", ".rs") {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with(&mark)) {
            let named = lines[at..].iter().find_map(|l| l.strip_prefix("fn ")?.split('(').next()).unwrap_or("");
            if !is_told(line, &file, named) {
                wrong.push(format!("{file}: {line}"));
            }
        }
    }
    none(wrong);
}

#[test]
fn top_level_has_only_the_agreed_files() {
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
fn no_local_path_or_registry_host_is_committed() {
    let needles = [
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["registry.npm", "js.org"].concat(),
        ["/ho", "me/runner"].concat(),
    ];
    let (mut faults, mut read) = (Vec::new(), 0);
    for (file, text) in every_text() {
        read += 1;
        let found = needles.iter().filter(|needle| text.contains(needle.as_str()));
        faults.extend(found.map(|needle| format!("{file}: {needle}")));
    }
    assert!(read > 200, "only {read} files were read");
    none(faults);
}

/// Texts that this one was written from and that are not here, so that none is cited: what they say must be said.
const ABSENT: [&str; 10] =
    ["contract", "house", "serving", "operate", "fleet", "consumers", "peers", "proxy", "ecosystem", "style"];

/// Citations of paragraphs that a reader cannot look up: all but those of an RFC or of OpenID Connect Core.
fn unresolvable_citations(file: &str, text: &str) -> Vec<String> {
    let mark = '\u{a7}';
    let is_standard = |before: &str| {
        let before = before.trim_end_matches(mark).trim_end();
        let number = before.rsplit(' ').next().unwrap_or_default();
        let is_rfc = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        before.ends_with("Connect Core") || (is_rfc && before.ends_with(&format!("RFC {number}")))
    };
    let paragraphs = text.match_indices(mark).filter(|(at, _)| !is_standard(&text[..*at]));
    let line = |at: usize| text[..at].lines().count();
    let paragraphs = paragraphs.map(|(at, _)| format!("{file}: a paragraph of what, at line {}?", line(at)));
    let names = ABSENT.map(|name| format!("{name}.md")).into_iter().chain([["protocol", ".md"].concat()]);
    let names = names.filter(|name| text.contains(name)).map(|name| format!("{file}: {name} is not in the repository"));
    paragraphs.chain(names).collect()
}

#[test]
fn every_text_that_is_cited_can_be_looked_up() {
    none(every_text().iter().flat_map(|(file, text)| unresolvable_citations(file, text)).collect());
}

fn cargo_tree(arguments: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    let said = if out.status.success() { out.stdout } else { out.stderr };
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn dependencies_have_one_version_and_no_c_library() {
    for absent in ["aws-lc-sys", "libdbus-sys", "openssl-sys", "libsqlite3-sys"] {
        let (found, said) = cargo_tree(&["--invert", absent]);
        let is_absent = if found { said.trim().is_empty() } else { said.contains("did not match any packages") };
        assert!(is_absent, "{absent} is in the tree, or cargo failed:\n{said}");
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

/// A program that embeds the library does not build a command line.
#[test]
fn library_alone_has_no_dependency_of_the_command_line() {
    let (is_read, tree) = cargo_tree(&["--prefix", "none", "--format", "{p}", "--no-default-features"]);
    assert!(is_read && tree.contains("tokio v"), "{tree}");
    for absent in ["clap", "clap_builder", "clap_complete", "qrcode", "anstream", "anstyle", "tracing-subscriber"] {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{absent} v"))), "{absent} is in the tree");
    }
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
    assert_eq!(layer_faults("src/store/mod.rs", text).len(), 2);
    assert_eq!(layer_faults("src/nowhere/mod.rs", text).len(), 1);
    assert_eq!(layer_faults("src/keeper/mod.rs", "use crate::cli::main;\nuse crate::store::Store;\n").len(), 1);
    assert_eq!(banned("src/store/mod.rs", text).len(), 1);
    let long = format!("fn long() {{\n{}}}\n", "    x;\n".repeat(LONGEST_FUNCTION));
    assert_eq!(oversized_functions("f", &long).len(), 1);
    let deep = format!("fn deep() {{\n{}x\n}}\n", " ".repeat(4 * (DEEPEST + 2)));
    assert_eq!(oversized_functions("f", &deep).len(), 1);
    assert_eq!(part_of("src/store/mod.rs"), "store");
    let mark = '\u{a7}';
    assert_eq!(unresolvable_citations("f", &format!("RFC 6749 {mark}3.1, RFC 8414 {mark}{mark}3.3 and 6.2")).len(), 0);
    assert_eq!(unresolvable_citations("f", &format!("the protocol, {mark}4; {mark}3.2; {}.md", ABSENT[0])).len(), 3);
    assert!(Path::new(&root()).join("src").exists());
}
