use keepalive::guard::LockedCredential;

fn twice(held: LockedCredential<'_>) {
    let _first = held.spend();
    let _second = held.spend(); //~ E0382
}

fn main() {}
