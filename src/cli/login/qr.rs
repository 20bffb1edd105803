//! A URL as a QR code for a terminal, so that a telephone can read it off. (pure)

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code in half blocks, light on dark as terminals mostly are, with the quiet zone that readers want. `None` if the
/// text does not fit into one.
pub(super) fn draw(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    // Readers take either polarity only if the quiet zone is drawn too; so dark modules are left empty.
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_fits_a_terminal() {
        let drawn = draw("https://auth.acme.example/device?user_code=WDJB-MJHT").unwrap();
        let widest = drawn.lines().map(|l| l.chars().count()).max().unwrap();
        assert!(widest <= 60 && drawn.lines().count() <= 30, "{widest} wide\n{drawn}");
        assert!(drawn.chars().all(|c| " ▀▄█\n".contains(c)));
        assert!(draw(&"x".repeat(5000)).is_none());
    }
}
