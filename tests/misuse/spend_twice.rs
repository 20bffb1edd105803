use keepalive::guard::Held;

fn twice(held: Held<'_>) {
    let _first = held.spend();
    let _second = held.spend(); //~ E0382
}

fn main() {}
