//! `src/PROTOCOL.md` is the list of the rules. Every number is there, every piece of code and every test that it cites
//! exists, and every rule that is cited elsewhere is in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::support::root;
use super::tidy::{code, files};

const PROTOCOL: &str = include_str!("../../src/PROTOCOL.md");

/// The last rule.
const LAST: u8 = 41;

/// Rules that the model alone breaks, so `mutations.toml` need not.
const OF_THE_MODEL: [u8; 2] = [36, 40];

/// The kinds of tests that the text names, and the files from which all files of a kind can be reached.
const KINDS: [(&str, &str); 4] = [
    ("unit", "src/lib.rs"),
    ("it", "tests/it/main.rs"),
    ("conformance", "tests/conformance/main.rs"),
    ("model", "tests/model/tests/designs.rs"),
];

/// A line `* Kept in: …` or the like, under a heading.
#[derive(Debug)]
struct Citation {
    section: String,
    field: &'static str,
    text: String,
}

fn citations(text: &str) -> Vec<Citation> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("##") {
            section = heading.trim_start_matches('#').trim().to_owned();
        }
        for field in ["Kept in", "Shown by", "Proof"] {
            let cited = line.trim_start().strip_prefix("* ").and_then(|l| l.strip_prefix(field)?.strip_prefix(": "));
            if let Some(text) = cited {
                found.push(Citation { section: section.clone(), field, text: text.to_owned() });
            }
        }
    }
    found
}

/// The names of code (with an empty kind) and of tests (with the kind that stands before them).
fn names(citation: &str) -> Vec<(&str, &str)> {
    let mut kind = "";
    let mut found = Vec::new();
    for (i, part) in citation.split('`').enumerate() {
        if i % 2 == 1 {
            let is_code = part.contains("::") || part.contains('/');
            found.push((if is_code { "" } else { kind }, part));
        } else if let Some(word) = part.split([' ', ',', ';', '.']).rfind(|word| !word.is_empty()) {
            kind = word;
        }
    }
    found
}

/// The numbers of the rules, in the order of the text.
fn rules(text: &str) -> Vec<u8> {
    text.lines().filter_map(|line| line.strip_prefix("### Rule ")?.parse().ok()).collect()
}

/// A test function of the tree.
struct Test {
    name: String,
    /// `module::name`, as the harness filters it.
    path: String,
    is_empty: bool,
    is_ignored: bool,
}

/// The files that are compiled with `file`: it, and those that it declares as modules.
fn reachable(file: &Path, found: &mut Vec<PathBuf>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    found.push(file.to_owned());
    let dir = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_str().unwrap();
    // A file of `tests/*.rs` is the root of its crate as well.
    let is_root = ["mod", "main", "lib", "designs"].contains(&stem);
    let inside = if is_root { dir.to_owned() } else { dir.join(stem) };
    let mut path = None;
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            path = Some(dir.join(named));
        }
        let declared = line.strip_suffix(';').and_then(|l| l.rsplit_once("mod "));
        let Some((_, name)) = declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub")) else {
            continue;
        };
        let beside = inside.join(format!("{name}.rs"));
        let below = inside.join(name).join("mod.rs");
        let file = path.take().unwrap_or(if beside.is_file() { beside } else { below });
        reachable(&file, found);
    }
}

/// All tests, by their kind; read once.
static TESTS: LazyLock<Vec<(&str, Vec<Test>)>> =
    LazyLock::new(|| KINDS.iter().map(|(kind, start)| (*kind, tests_from(start))).collect());

/// The tests of a kind; `None`: there is no such kind.
fn tests(kind: &str) -> Option<&'static [Test]> {
    TESTS.iter().find(|(known, _)| *known == kind).map(|(_, tests)| tests.as_slice())
}

fn tests_from(start: &str) -> Vec<Test> {
    let start = root().join(start);
    let mut files = Vec::new();
    reachable(&start, &mut files);
    files
        .iter()
        .flat_map(|file| {
            let inside = file.strip_prefix(start.parent().unwrap()).unwrap_or(file).with_extension("");
            let module = inside.to_string_lossy().replace('/', "::").replace("::mod", "");
            tests_of(&module, &std::fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn tests_of(module: &str, text: &str) -> Vec<Test> {
    let lines: Vec<&str> = text.lines().collect();
    let is_attribute = |line: &str| line.trim_start().starts_with("#[") || line.trim_start().starts_with("//");
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if !(line.trim() == "#[test]" || line.trim_start().starts_with("#[tokio::test")) {
            continue;
        }
        let first = lines[..i].iter().rposition(|line| !is_attribute(line)).map_or(0, |before| before + 1);
        let head = i + lines[i..].iter().position(|line| line.contains("fn ")).unwrap();
        let name = lines[head].split("fn ").nth(1).unwrap().split(['(', '<']).next().unwrap();
        let indent = &lines[head][..lines[head].len() - lines[head].trim_start().len()];
        let end = format!("{indent}}}");
        let length = lines[head..].iter().position(|line| *line == end).unwrap_or(0);
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let body = lines[head + 1..].iter().take(length.saturating_sub(1));
        let is_in_module = text[..text.find(lines[head]).unwrap()].contains("mod tests {");
        let module = if is_in_module { format!("{module}::tests") } else { module.to_owned() };
        found.push(Test {
            name: name.to_owned(),
            path: format!("{module}::{name}"),
            is_empty: body.filter(|line| is_code(line)).count() == 0,
            is_ignored: lines[first..head].iter().any(|line| is_never_run(line)),
        });
    }
    found
}

/// Whether a line keeps a test from ever running. One that needs a program beyond a Rust toolchain is run by contrib/test.
fn is_never_run(line: &str) -> bool {
    line.trim_start().starts_with("#[ignore") && !line.ends_with("; contrib/test runs it\"]")
}

/// What is wrong with a test that is cited; nothing if it exists and runs.
fn fault_of_test(kind: &str, name: &str) -> Option<String> {
    if kind == "sweep" {
        let sweeps = std::fs::read_to_string(root().join("tests/sweep/main.rs")).unwrap();
        return (!sweeps.contains(&format!("(\"{name}\", "))).then(|| format!("there is no sweep {name}"));
    }
    let Some(tests) = tests(kind) else {
        return Some(format!("`{name}` follows {kind:?}, which is no kind of tests"));
    };
    match tests.iter().find(|test| test.name == name) {
        None => Some(format!("there is no {kind} test {name}")),
        Some(test) if test.is_empty => Some(format!("the {kind} test {name} is empty")),
        Some(test) if test.is_ignored => Some(format!("the {kind} test {name} is ignored")),
        Some(_) => None,
    }
}

/// What is wrong with a citation of code: `module::item`, `module::Type::item`, or a file.
fn fault_of_code(path: &str) -> Option<String> {
    if path.contains('/') {
        return (!root().join(path).is_file()).then(|| format!("there is no file {path}"));
    }
    let parts: Vec<&str> = path.split("::").collect();
    let file = (1..parts.len()).rev().find_map(|n| {
        let stem = root().join("src").join(parts[..n].join("/"));
        let files = [stem.with_extension("rs"), stem.join("mod.rs")];
        files.into_iter().find(|file| file.is_file()).map(|file| (file, &parts[n..]))
    });
    let Some((file, items)) = file else {
        return Some(format!("{path}: there is no such module"));
    };
    let text = std::fs::read_to_string(file).unwrap();
    let is_there = match items {
        [item] => declares(code(&text), item, ""),
        [owner, item] => blocks_of(code(&text), owner).iter().any(|block| declares(block, item, "    ")),
        _ => false,
    };
    (!is_there).then(|| format!("{path}: its module declares no such item"))
}

/// Whether a line at this indentation declares an item of this name.
fn declares(text: &str, name: &str, indent: &str) -> bool {
    let declared = |line: &str| {
        let words =
            line.strip_prefix(indent).filter(|line| !line.starts_with(' '))?.split(['(', '<', ':', ' ', ';', '{']);
        let mut words = words.skip_while(|word| !["fn", "const", "struct", "enum", "type", "trait"].contains(word));
        words.nth(1).map(|declared| declared == name)
    };
    text.lines().any(|line| declared(line) == Some(true))
}

/// The `impl` blocks of a type.
fn blocks_of<'t>(text: &'t str, owner: &str) -> Vec<&'t str> {
    let blocks = text.split("\nimpl").skip(1);
    let is_of_it = |block: &&str| {
        let head = block.split(" {").next().unwrap_or_default();
        let head = head.rsplit(" for ").next().unwrap_or_default();
        head.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == owner)
    };
    blocks.filter(is_of_it).map(|block| block.split("\n}").next().unwrap_or(block)).collect()
}

/// The numbers of the rules that a text cites: after "rule" or "rules".
fn cited(text: &str) -> BTreeSet<u8> {
    let text = text.to_lowercase();
    let mut found = BTreeSet::new();
    for after in ["rule ", "rules "].iter().flat_map(|word| text.split(word).skip(1)) {
        for word in after.split([' ', ',', '\n']).filter(|word| !word.is_empty() && *word != "//") {
            let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
            match (digits.parse(), word) {
                (Ok(number), _) => found.insert(number),
                (Err(_), "and" | "or" | "to") => continue,
                (Err(_), _) => break,
            };
            if word.len() > digits.len() {
                break;
            }
        }
    }
    found
}

fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_rule_is_in_the_protocol_once_and_in_order() {
    assert_eq!(rules(PROTOCOL), (1..=LAST).collect::<Vec<_>>());
    for field in ["Kept in", "Shown by"] {
        let of: Vec<String> = citations(PROTOCOL).into_iter().filter(|c| c.field == field).map(|c| c.section).collect();
        let lacking = (1..=LAST).filter(|rule| of.iter().filter(|s| **s == format!("Rule {rule}")).count() != 1);
        assert_eq!(lacking.collect::<Vec<u8>>(), [0; 0], "these rules have not one line {field:?}");
    }
}

#[test]
fn every_citation_of_the_protocol_exists() {
    let mut faults = Vec::new();
    for Citation { section, field, text } in citations(PROTOCOL) {
        let names = names(&text);
        let is_shown = field != "Shown by" || names.iter().any(|(kind, _)| !kind.is_empty());
        if names.is_empty() || !is_shown {
            faults.push(format!("{section}: {field} names nothing"));
        }
        let fault =
            |(kind, name): (&str, &str)| if kind.is_empty() { fault_of_code(name) } else { fault_of_test(kind, name) };
        faults.extend(names.into_iter().filter_map(fault).map(|fault| format!("{section}: {fault}")));
    }
    none(faults);
}

/// The module, function or file that a text names and that does not exist. Short forms such as `Type::method` are left out.
fn missing_in(text: &str) -> Vec<String> {
    let names = text.split('`').skip(1).step_by(2).filter(|name| !name.contains(' '));
    let full =
        names.filter(|name| name.starts_with(char::is_lowercase) && name.contains("::") || name.ends_with(".toml"));
    full.filter(|name| !is_module(name)).filter_map(fault_of_code).collect()
}

fn is_module(path: &str) -> bool {
    let stem = root().join("src").join(path.replace("::", "/"));
    stem.with_extension("rs").is_file() || stem.join("mod.rs").is_file()
}

#[test]
fn every_place_that_the_architecture_names_exists() {
    none(missing_in(include_str!("../../src/ARCHITECTURE.md")));
}

#[test]
fn every_rule_that_is_cited_exists() {
    let known: BTreeSet<u8> = rules(PROTOCOL).into_iter().collect();
    let texts = [files("src", ""), files("tests", ".rs"), files("contrib", ""), files("man", "")].concat();
    let unknown = |text: &str| cited(text).into_iter().filter(|rule| !known.contains(rule)).collect::<Vec<_>>();
    let faults = texts.iter().flat_map(|(file, text)| {
        unknown(text).into_iter().map(move |rule| format!("{file}: there is no rule number {rule}"))
    });
    none(faults.collect());
}

#[test]
fn every_mutation_is_of_a_rule_and_names_a_test() {
    let text = std::fs::read_to_string(root().join("tests/sweep/mutations.toml")).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap();
    let mutations = table["mutation"].as_array().unwrap();
    let mut left: BTreeSet<i64> = rules(PROTOCOL).into_iter().map(i64::from).collect();
    let known = left.clone();
    let mut faults = Vec::new();
    for mutation in mutations {
        let (rule, name) = (mutation["rule"].as_integer().unwrap(), &mutation["name"]);
        left.remove(&rule);
        if !known.contains(&rule) {
            faults.push(format!("{name}: there is no rule number {rule}"));
        }
        let test = mutation["test"].as_str().unwrap();
        let (target, filter) = test.split_once(' ').unwrap();
        let tests = tests(if target == "lib" { "unit" } else { target }).unwrap_or_default();
        let is_there = tests.iter().any(|test| test.path.contains(filter));
        if !is_there {
            faults.push(format!("{name}: there is no test {test}"));
        }
    }
    left.retain(|rule| !OF_THE_MODEL.map(i64::from).contains(rule));
    faults.extend(left.iter().map(|rule| format!("the rule number {rule} is broken by no mutation")));
    none(faults);
}

#[test]
fn each_check_of_the_protocol_can_fail() {
    assert_eq!(names("`a::b`, `c/d.rs`; unit `e`, `f`; it `g`").last(), Some(&("it", "g")));
    assert_eq!(names("unit `e`, `f`"), [("unit", "e"), ("unit", "f")]);
    assert!(fault_of_test("it", "each_check_of_the_protocol_can_fail").is_none());
    for (kind, name) in [("it", "no_such_test"), ("sweep", "no_such_sweep"), ("nothing", "each_check_can_fail")] {
        assert!(fault_of_test(kind, name).is_some(), "{kind} {name}");
    }
    assert!(fault_of_code("engine::refresh::transaction::run").is_none());
    for path in ["engine::refresh::transaction::no_such", "engine::Nothing::run", "no_such::run", "tests/none.rs"] {
        assert!(fault_of_code(path).is_some(), "{path}");
    }
    let tests = tests_of(
        "m",
        "#[test]\n#[ignore = \"x\"]\nfn a() {\n    x();\n}\n#[test]\nfn b() {\n    // y\n}\n#[test]\nfn c() {}\n",
    );
    let seen: Vec<_> = tests.iter().map(|test| (test.path.as_str(), test.is_empty, test.is_ignored)).collect();
    assert_eq!(seen, [("m::a", false, true), ("m::b", true, false), ("m::c", true, false)]);
    assert_eq!(missing_in("`store::journal`, `clock::Moment::elapsed_since`, `Type::method`, `a b::c`").len(), 0);
    assert_eq!(missing_in("`store::vault`, `clock::Moment::nothing`, `tests/none.toml`").len(), 3);
    let text = ["see ru", "le 41, and ru", "les 5, 90 and 91."].concat();
    assert_eq!(cited(&text), [5, 41, 90, 91].into());
}
