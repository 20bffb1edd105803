//! Every rule is broken in a named way, and its test must notice. The quick form checks that the table still fits the
//! code; the full one builds every mutation, in a copy of the checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::Extent;
use super::fixture::SweepReport;
use super::support::root;

#[derive(Deserialize)]
struct MutationTable {
    mutation: Vec<Mutation>,
}

#[derive(Deserialize)]
struct Mutation {
    rule: u8,
    name: String,
    file: PathBuf,
    find: String,
    by: String,
    test: String,
}

/// Several hosts and the model itself are of the model.
const WITHOUT: [u8; 2] = [36, 40];

pub fn run(extent: Extent) -> bool {
    let table: MutationTable = toml::from_str(include_str!("mutations.toml")).unwrap();
    let mut tally = SweepReport::default();
    for rule in (1..=41).filter(|rule| !table.mutation.iter().any(|m| m.rule == *rule) && !WITHOUT.contains(rule)) {
        tally.fault(format!("rule {rule} has no mutation"));
    }
    let copy = extent.is_full().then(copy_of_the_checkout);
    for mutation in &table.mutation {
        let verdict = match &copy {
            None => mutation.fits(&root()).map(|_| "fits the code"),
            Some(copy) => mutation.is_noticed(copy.path()).map(|()| "noticed by its rule's test"),
        };
        match verdict {
            Ok(what) => tally.add(what),
            Err(fault) => tally.fault(format!("rule {}, {}: {fault}", mutation.rule, mutation.name)),
        }
    }
    tally.print("mutations of the rules")
}

impl Mutation {
    /// The file, mutated.
    fn fits(&self, root: &Path) -> Result<String, String> {
        let text = std::fs::read_to_string(root.join(&self.file)).map_err(|e| e.to_string())?;
        match text.matches(&self.find).count() {
            1 => Ok(text.replace(&self.find, &self.by)),
            n => Err(format!("{} has {n} places like {:?}", self.file.display(), self.find)),
        }
    }

    fn is_noticed(&self, copy: &Path) -> Result<(), String> {
        let mutated = self.fits(copy)?;
        let path = copy.join(&self.file);
        let original = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, mutated).unwrap();
        let noticed = self.test_fails(copy);
        std::fs::write(&path, original).unwrap();
        noticed
    }

    /// A mutation that does not compile shows nothing, so the build is a step of its own.
    fn test_fails(&self, copy: &Path) -> Result<(), String> {
        let (target, filter) = self.test.split_once(' ').ok_or("a test is `TARGET FILTER`")?;
        let target: &[&str] = if target == "lib" { &["--lib"] } else { &["--test", target] };
        let mut build = cargo(copy);
        build.arg("test").args(target).arg("--no-run");
        let built = build.output().unwrap();
        if !built.status.success() {
            return Err(format!("does not compile: {}", String::from_utf8_lossy(&built.stderr)));
        }
        let out = cargo(copy).arg("test").args(target).args([filter, "--", "--include-ignored"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        match (out.status.success(), said.contains("running 0 tests")) {
            (_, true) => Err(format!("there is no test {filter}")),
            (true, false) => Err(format!("{} passes all the same", self.test)),
            (false, false) => Ok(()),
        }
    }
}

fn cargo(copy: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(copy).args(["--offline", "--quiet"]).env("RUSTFLAGS", "-Awarnings");
    command.env("CARGO_TARGET_DIR", copy.join("target")).env_remove("KEEPALIVE_LONG");
    command
}

fn copy_of_the_checkout() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in ["Cargo.toml", "Cargo.lock", "src", "tests", "contrib", "man", "README.md", "CHANGELOG.md"] {
        let copied = Command::new("cp").arg("-r").arg(root().join(part)).arg(copy.path()).status().unwrap();
        assert!(copied.success());
    }
    copy
}
