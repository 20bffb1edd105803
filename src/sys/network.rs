//! Whether the network has changed: after a suspend, at another place, with a VPN that went up.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// A number that changes with the routes, the addresses and the name servers of this machine. Where the system does not
/// tell them, it never does.
pub fn state() -> u64 {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    for line in read("/proc/net/route").lines() {
        route_identity(line).hash(&mut hasher);
    }
    for path in ["/proc/net/if_inet6", "/etc/resolv.conf"] {
        read(path).hash(&mut hasher);
    }
    hasher.finish()
}

/// A line of `/proc/net/route` without its counters: interface, destination, gateway, flags and mask.
fn route_identity(line: &str) -> Vec<&str> {
    line.split_whitespace().enumerate().filter(|(i, _)| matches!(i, 0..=3 | 7)).map(|(_, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_counters_of_a_route_are_no_change() {
        let route =
            |gateway: &str, used| format!("wlan0\t00000000\t{gateway}\t0003\t0\t{used}\t600\t00000000\t0\t0\t0");
        let [first, used, other] = [("0101A8C0", 0), ("0101A8C0", 7), ("0102A8C0", 0)].map(|(g, u)| route(g, u));
        assert_eq!(route_identity(&first), route_identity(&used));
        assert_ne!(route_identity(&first), route_identity(&other));
    }
}
