use keepalive::credential::secret::RefreshToken;

fn copy(token: &RefreshToken) -> RefreshToken {
    token.clone() //~ E0308
}

fn main() {}
