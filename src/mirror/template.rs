//! Fills in a template of the user's.

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};

use crate::mirror::target;
use crate::mirror::values::Values;
use crate::outcome::Failure;
use crate::profile::mirror::MirrorValue;
use crate::sys::durable;

/// A template that takes more steps does not end: one for a file of a thousand lines takes some ten thousand.
const MAX_STEPS: u64 = 1_000_000;

/// The text of the template with the values in it.
pub(super) fn render(source: &Path, values: &Values) -> Result<String, Failure> {
    let bytes = durable::read_foreign(source).map_err(|e| target::failed(source, "read the template", &e))?;
    let wrong = |why: &str| target::refused(source, why, "correct the template; keepalive.toml(5) lists the values");
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8 text"))?;
    fill(text, values).map_err(|e| wrong(&e))
}

/// An undefined value is an error: a file without its token is of no use. (pure)
fn fill(text: &str, values: &Values) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(MAX_STEPS));
    let known: BTreeMap<&str, Value> = MirrorValue::ALL
        .iter()
        .filter_map(|(name, value)| Some((*name, Value::from_serialize(values.json(*value)?))))
        .collect();
    // Its message has the kind and the line, and nothing of the values.
    let wrong = |e: minijinja::Error| match e.line() {
        Some(line) => format!("has a mistake in line {line}: {}", e.detail().unwrap_or("it cannot be read")),
        None => "has a mistake".to_owned(),
    };
    let template = environment.template_from_str(text).map_err(wrong)?;
    template.render(known).map_err(|e| match e.line() {
        _ if e.kind() == minijinja::ErrorKind::OutOfFuel => "does not end: it takes too many steps".to_owned(),
        Some(line) => format!("has a mistake in line {line}: {}", e.kind()),
        None => format!("has a mistake: {}", e.kind()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::values::samples;

    /// What was lost: the run that filled in a template without an end.
    #[test]
    fn template_that_loops_is_a_mistake() {
        let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
        assert!(fill(loops, &samples::values()).unwrap_err().contains("does not end"));
        assert_eq!(fill("{{ profile }}", &samples::values()).unwrap(), "demo");
    }
}
