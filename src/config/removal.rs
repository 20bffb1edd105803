//! Removes a section `[[profile.NAME.mirror]]` from the text of a configuration, and leaves all else as it is. (pure)

/// The text without the mirror of this number; `None`: it is not there as a section of its own.
pub(super) fn without_mirror(text: &str, profile: &str, index: usize) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut headers = lines.iter().enumerate().filter(|(_, line)| is_mirror_of(line, profile));
    let first = headers.nth(index)?.0;
    let next = lines.iter().skip(first + 1).position(|line| is_header(line)).map_or(lines.len(), |n| first + 1 + n);
    // Comments and empty lines before the next header belong to that.
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let last = (first..next).rev().find(|at| is_content(&lines[*at])).unwrap_or(first);
    let mut before = first;
    if before > 0 && lines[before - 1].trim().is_empty() {
        before -= 1;
    }
    Some([&lines[..before], &lines[last + 1..]].concat().concat())
}

/// Whether a line is the header of a mirror of this profile.
fn is_mirror_of(line: &str, profile: &str) -> bool {
    let line = line.trim();
    let Some(inner) = line.strip_prefix("[[").and_then(|rest| rest.split_once("]]")).map(|(inner, _)| inner) else {
        return false;
    };
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("[{inner}]"));
    let named = |table: toml::Table| table.get("profile")?.get(profile)?.get("mirror").map(|_| ());
    parsed.is_ok_and(|table| named(table).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_that_was_added_is_removed_without_a_trace() {
        let before = "[store]\nkind = \"keyring\"\n";
        let mirror = "\n[[profile.\"xai:default\".mirror]]\nkind = \"codex\"\npath = \"/x\"\n";
        assert_eq!(without_mirror(&format!("{before}{mirror}"), "xai:default", 0).as_deref(), Some(before));
    }

    #[test]
    fn only_the_mirror_of_that_number_is_removed() {
        let text = "# mine\n[profile.a]\nprovider = \"x\"\n\n[[profile.a.mirror]] # one\nkind = \"file\"\n\n# of b\n[[profile.b.mirror]]\nkind = \"file\"\n[[ profile . a . mirror ]]\nkind = \"json\"\nset = { }\n";
        let first = without_mirror(text, "a", 0).unwrap();
        assert_eq!(first, text.replace("\n[[profile.a.mirror]] # one\nkind = \"file\"\n", ""));
        let second = without_mirror(text, "a", 1).unwrap();
        assert!(second.ends_with("[[profile.b.mirror]]\nkind = \"file\"\n"), "{second}");
        assert_eq!(without_mirror(text, "a", 2), None);
        assert_eq!(without_mirror("profile.a.mirror = [{ kind = \"file\" }]\n", "a", 0), None);
    }
}
