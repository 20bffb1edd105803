use keepalive::credential::secret::RefreshToken;

fn leak(token: &RefreshToken) -> String {
    format!("{token} {}", token.expose())
}

fn copy(token: &RefreshToken) -> RefreshToken {
    token.clone()
}

fn main() {}
