use keepalive::credential::secret::RefreshToken;

fn leak(token: &RefreshToken) -> String {
    token.expose().to_owned() //~ E0624
}

fn main() {}
