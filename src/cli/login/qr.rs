//! Draws a URL as a QR code in a terminal, to be scanned with a telephone. (pure)

use anstyle::{AnsiColor, Color, Style};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// White on black, whatever the terminal's own colours are.
const INK: Style =
    Style::new().fg_color(Some(Color::Ansi(AnsiColor::BrightWhite))).bg_color(Some(Color::Ansi(AnsiColor::Black)));

/// The code in half blocks, with its light modules drawn and the quiet zone that readers need. Without colours it is
/// right on a dark terminal. `None` if the text does not fit.
pub(super) fn draw(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let drawn = code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Some(drawn.lines().map(|line| format!("{INK}{line}{INK:#}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qr_code_of_a_login_link_fits_a_terminal() {
        let drawn = draw("https://auth.acme.example/device?user_code=WDJB-MJHT").unwrap();
        let drawn = anstream::adapter::strip_str(&drawn).to_string();
        let lines: Vec<&str> = drawn.lines().collect();
        let widest = lines.iter().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 60 && lines.len() <= 30, "{widest} wide\n{drawn}");
        // Four light modules all around, and then the dark frame of a finder pattern.
        assert!(lines[..2].iter().all(|l| l.chars().all(|c| c == '█')), "{drawn}");
        assert!(lines[2].starts_with("████ ▄▄▄▄▄ █") && lines[3].starts_with("████ █   █ █"), "{drawn}");
        assert!(draw(&"x".repeat(5000)).is_none());
    }
}
