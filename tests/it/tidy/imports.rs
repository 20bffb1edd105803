//! No two files of `src` use each other, neither directly nor by way of others: what is in a circle can only be read whole.
//!
//! A `mod.rs` and the files below it count as one: it composes them, and they use its types.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, files, is_test, none};

/// The modules that each module uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn module_of(file: &str) -> String {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
    inside.trim_end_matches("::mod").to_owned()
}

fn without_comments(text: &str) -> String {
    code(text).lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

/// The paths in `a::{b, c::{d, e}}`.
fn expand(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        if !tree.is_empty() {
            found.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or(tree).trim()));
        }
        return;
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut depth, mut start) = (0_u32, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&inner[start..at], &format!("{prefix}{}", before.trim()), found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Every path in a file that begins with `crate`, `super` or `self`.
fn paths(text: &str) -> Vec<String> {
    let text = without_comments(text);
    let mut found = Vec::new();
    for used in text.split("use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        expand(used, "", &mut found);
    }
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let end = text[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
            found.push(text[at..end.map_or(text.len(), |end| at + end)].to_owned());
        }
    }
    found.retain(|path| ["crate", "super", "self"].contains(&path.split("::").next().unwrap_or_default()));
    found
}

/// The module that a path in `module` leads to: the longest beginning of it that is one.
fn resolve(module: &str, path: &str, known: &BTreeSet<String>) -> Option<String> {
    let mut base: Vec<&str> = module.split("::").collect();
    let mut rest = path.split("::").peekable();
    match rest.next()? {
        "crate" => base.clear(),
        "super" => {
            base.pop();
            while rest.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        _ => {}
    }
    base.extend(rest);
    (1..=base.len()).rev().map(|n| base[..n].join("::")).find(|path| known.contains(path))
}

fn uses(files: &[(String, String)]) -> Uses {
    let known: BTreeSet<String> = files.iter().map(|(file, _)| module_of(file)).collect();
    let is_below = |one: &str, other: &str| one == other || one.starts_with(&format!("{other}::"));
    let of = |module: &str, text: &str| {
        let found = paths(text).into_iter().filter_map(|path| resolve(module, &path, &known));
        found.filter(|used| !is_below(used, module) && !is_below(module, used)).collect()
    };
    files.iter().map(|(file, text)| (module_of(file), of(&module_of(file), text))).collect()
}

/// All modules that can be reached from one.
fn reach(uses: &Uses, from: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if reached.insert(used.clone()) {
                open.push(used);
            }
        }
    }
    reached
}

fn circles(files: &[(String, String)]) -> Vec<String> {
    let uses = uses(files);
    let in_circle = uses.keys().filter(|module| reach(&uses, module).contains(*module));
    in_circle.map(|module| format!("{module} uses itself, by way of {:?}", uses[module])).collect()
}

#[test]
fn no_two_files_use_each_other() {
    let sources = files("src", ".rs").into_iter();
    let sources: Vec<_> =
        sources.filter(|(file, _)| !is_test(file) && file != "src/lib.rs" && file != "src/main.rs").collect();
    none(circles(&sources));
}

#[test]
fn circle_of_files_is_found() {
    let file = |name: &str, text: &str| (format!("src/{name}.rs"), text.to_owned());
    let a = file("x/a", "use super::{y, b::{B, C}};\n");
    assert_eq!(paths(&a.1), ["super::y", "super::b::B", "super::b::C", "super::"]);
    let b = file("x/b", "// use crate::x::a::A;\nfn f() -> crate::x::c::C {}\n");
    let c = file("x/c", "use crate::x::{self, a::A};\n");
    let root = file("x/mod", "use a::A;\nuse crate::x::b::B;\n");
    assert!(circles(&[a.clone(), b.clone(), root.clone()]).is_empty());
    assert_eq!(circles(&[a, b, c, root]).len(), 3);
}
