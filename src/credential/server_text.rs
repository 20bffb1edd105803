//! Server text, made fit for a terminal, a log and a journal. (pure)

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

/// The most characters of a server's text that are shown.
const MAX_SHOWN: usize = 200;

/// Text from a server, fit for a terminal and a log: at most 200 characters, and a blank for each that moves the cursor,
/// reorders text, or cannot be seen.
pub fn printable(text: &str) -> String {
    text.chars().take(MAX_SHOWN).map(|c| if is_hidden(c) { ' ' } else { c }).collect()
}

/// Text of a program, fit for a terminal and a log, with its lines.
pub fn printable_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_hidden(c) { ' ' } else { c }).collect()
}

/// Whether a character has no glyph of its own, by Unicode's data: control, format, private-use and unassigned ones, the
/// separators of lines and paragraphs, and all that a renderer may ignore (variation selectors, tags, fillers).
fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Surrogate, Unassigned};
    if matches!(c, ' '..='~') {
        return false;
    }
    matches!(
        CodePointMapData::<GeneralCategory>::new().get(c),
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
    ) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 38.
    #[test]
    fn invisible_and_reordering_characters_are_blanked() {
        let hidden = [
            '\u{0}',
            '\u{7}',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{70f}',
            '\u{115f}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{3164}',
            '\u{e000}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{fffb}',
            '\u{1bca0}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{f0000}',
            '\u{10ffff}',
            '\u{378}',
        ];
        for c in hidden {
            assert_eq!(printable(&format!("a{c}b")), "a b", "U+{:04X}", u32::from(c));
        }
        let shown = "a ~ é ß 日本語 العربية ไทย 🎃 €—“”\u{fffd}";
        assert_eq!(printable(shown), shown);
    }

    #[test]
    fn long_server_text_is_cut() {
        assert_eq!(printable(&"é".repeat(500)), "é".repeat(200));
    }
}
