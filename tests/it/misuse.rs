//! Misuse of the guard's types does not compile, and for the reason meant: each case in `tests/misuse` names its error.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{cargo, root};

/// The library as cargo built it for this test, and the directory of what it is made from.
fn library() -> (PathBuf, PathBuf) {
    let out = cargo().args(["build", "--lib", "--locked", "--offline", "--message-format=json"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let artifacts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let rlib = artifacts
        .filter(|a| a["reason"] == "compiler-artifact" && a["target"]["name"] == "keepalive")
        .flat_map(|a| a["filenames"].as_array().cloned().unwrap_or_default())
        .find_map(|f| f.as_str().filter(|f| f.ends_with(".rlib")).map(PathBuf::from))
        .expect("cargo names the library");
    let dependencies = rlib.parent().unwrap().join("deps");
    (rlib, dependencies)
}

/// The errors that a file expects, as `(line, code)`: lines that end in `//~ CODE`.
fn expected(text: &str) -> Vec<(u64, String)> {
    let marked = |(i, line): (usize, &str)| Some((i as u64 + 1, line.split_once("//~ ")?.1.to_owned()));
    text.lines().enumerate().filter_map(marked).collect()
}

/// The errors that the compiler gives, likewise.
fn given(file: &Path, (rlib, dependencies): &(PathBuf, PathBuf)) -> Vec<(u64, String)> {
    let out_dir = tempfile::tempdir().unwrap();
    let out = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--emit=metadata", "--error-format=json", "--crate-type=bin"])
        .arg(format!("--extern=keepalive={}", rlib.display()))
        .arg(format!("-Ldependency={}", dependencies.display()))
        .arg("--out-dir")
        .arg(out_dir.path())
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = |m: serde_json::Value| {
        let span = m["spans"].as_array()?.iter().find(|s| s["is_primary"] == true)?.clone();
        (m["level"] == "error").then(|| Some((span["line_start"].as_u64()?, m["code"]["code"].as_str()?.to_owned())))?
    };
    let mut errors: Vec<_> = messages.filter_map(error).collect();
    errors.sort();
    errors
}

#[test]
fn misuse_does_not_compile() {
    let library = library();
    let mut cases = 0;
    for entry in std::fs::read_dir(root().join("tests/misuse")).unwrap() {
        let file = entry.unwrap().path();
        let wanted = expected(&std::fs::read_to_string(&file).unwrap());
        assert_eq!(given(&file, &library), wanted, "{}", file.display());
        cases += usize::from(!wanted.is_empty());
    }
    assert!(cases >= 7);
}

#[test]
fn correct_use_compiles() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("once.rs");
    let text = "use keepalive::guard::LockedCredential;\nfn once(held: LockedCredential<'_>) { let _first = held.spend(); }\nfn main() { let _ = once; }\n";
    std::fs::write(&file, text).unwrap();
    assert_eq!(given(&file, &library()), []);
}
