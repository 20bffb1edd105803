use keepalive::credential::secret::RefreshToken;

fn leak(token: &RefreshToken) -> String {
    format!("{token}") //~ E0277
}

fn main() {}
