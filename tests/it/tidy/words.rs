//! Words and names: what a comment must not say, how a test is named, and that a type's name means one thing.

use std::collections::BTreeMap;

use super::{code, files, is_test, none};

/// Subjects that hide the subject: say which process, person, server or function is meant.
const HIDDEN_SUBJECTS: [&str; 5] = ["whoever", "whomever", "somebody", "nobody", "everybody"];

const LONGEST_TEST_NAME: usize = 60;

/// The text of a comment on this line, if there is one.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    ["//!", "///", "//"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim_start)
}

fn hidden_subjects(text: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<String> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    HIDDEN_SUBJECTS.into_iter().filter(move |hidden| words.iter().any(|word| word == hidden))
}

/// What is wrong with the comments of a file. A comment that begins with "The same" means nothing once it is read alone.
fn bad_comments(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut is_inside = false;
    for (number, line) in code(text).lines().enumerate() {
        let Some(said) = comment(line) else {
            is_inside = false;
            continue;
        };
        if !is_inside && said.starts_with("The same") {
            faults.push(format!("{file}:{}: say what is the same as what", number + 1));
        }
        is_inside = true;
        faults.extend(hidden_subjects(said).map(|word| format!("{file}:{}: who is {word:?}?", number + 1)));
    }
    faults
}

fn bad_prose(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(number, line)| {
            hidden_subjects(line).map(move |word| format!("{file}:{}: who is {word:?}?", number + 1))
        })
        .collect()
}

/// The names of the tests in a file.
fn test_names(text: &str) -> Vec<&str> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start) {
        is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        let declared = line.split_once("fn ").filter(|(before, _)| ["", "async ", "pub "].contains(before));
        if let (true, Some((_, rest))) = (is_test, declared) {
            names.push(rest.split(['(', '<']).next().unwrap_or(rest));
            is_test = false;
        }
    }
    names
}

/// A rule belongs into a line `/// Rule N.`, and a name is read in a list of some hundreds.
fn bad_test_names(file: &str, text: &str) -> Vec<String> {
    let is_numbered = |name: &str| {
        let digits = name.strip_prefix('r').and_then(|rest| rest.split_once('_')).map_or("", |(digits, _)| digits);
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    };
    let names = test_names(text).into_iter();
    names
        .filter_map(|name| match name.len() {
            n if n > LONGEST_TEST_NAME => Some(format!("{file}: {name} has {n} characters")),
            _ if is_numbered(name) => Some(format!("{file}: {name} begins with the number of a rule")),
            _ => None,
        })
        .collect()
}

/// The types that a file declares at its top level.
fn types(text: &str) -> Vec<&str> {
    let declared = code(text).lines().filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.trim_start(),
            None => line,
        };
        ["struct ", "enum ", "trait ", "type ", "union "].iter().find_map(|kind| line.strip_prefix(kind))
    });
    declared.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest)).collect()
}

/// What the library calls by a short name that a part inside has, too: there it means the same, with more than users need.
const SURFACE: [&str; 2] = ["Demand", "Failure"];

fn types_named_twice(files: &[(String, String)]) -> Vec<String> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, text) in files {
        let of_surface = |name: &&str| file.starts_with("src/keeper/") && SURFACE.contains(name);
        for name in types(text).into_iter().filter(|name| !of_surface(name)) {
            found.entry(name).or_default().push(file);
        }
    }
    let twice = found.into_iter().filter(|(_, files)| files.len() > 1);
    twice.map(|(name, files)| format!("{name} is declared in {}", files.join(" and "))).collect()
}

fn sources() -> Vec<(String, String)> {
    files("src", ".rs").into_iter().filter(|(file, _)| !is_test(file)).collect()
}

#[test]
fn comments_name_their_subject() {
    let texts = [files("src", ".rs"), files("tests", ".rs")].concat();
    none(texts.iter().flat_map(|(file, text)| bad_comments(file, text)).collect());
}

#[test]
fn documents_name_their_subject() {
    let texts = [files("src", ".md"), files("contrib", ".md"), files("tests", ".md")].concat();
    none(texts.iter().flat_map(|(file, text)| bad_prose(file, text)).collect());
}

#[test]
fn test_names_are_short_and_without_rule_numbers() {
    let texts = [files("src", ".rs"), files("tests", ".rs")].concat();
    none(texts.iter().flat_map(|(file, text)| bad_test_names(file, text)).collect());
}

#[test]
fn no_type_name_is_used_twice() {
    none(types_named_twice(&sources()));
}

#[test]
fn each_check_of_words_can_fail() {
    let text = "/// The same for a\n/// The same file, which nobody reads.\nfn f() { \"nobody\"; }\n// Whoever waits\n";
    assert_eq!(bad_comments("f", text).len(), 3);
    assert_eq!(bad_prose("f", "Somebody\nsome body\n").len(), 1);
    let long = "x".repeat(LONGEST_TEST_NAME + 1);
    let text =
        format!("#[test]\nfn {long}() {{}}\n#[test]\nfn r07_x() {{}}\n#[test]\nfn run_x() {{}}\nfn r08_y() {{}}\n");
    assert_eq!(test_names(&text), [&long, "r07_x", "run_x"]);
    assert_eq!(bad_test_names("f", &text).len(), 2);
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let one = file("a", "pub(crate) struct Twice<'a>;\n    struct Nested;\n");
    let other = file("b", "enum Twice {}\nstruct Once;\n#[cfg(test)]\nmod tests {\nstruct Once;\n}\n");
    let surface = file("src/keeper/x", "pub enum Demand {}\n");
    let inside = file("c", "enum Demand {}\n");
    assert_eq!(types_named_twice(&[one, other, surface, inside]), ["Twice is declared in a and b"]);
}
