//! How many connections the process can hold open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything but connections of clients and to upstreams: listeners, store, providers, files.
const OTHERS: u64 = 200;
/// Where there is no limit.
const PLENTY: u64 = 1 << 20;

/// Raises the limit on descriptors as far as the process may, and returns what it is now.
pub(super) fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    limit.current.unwrap_or(PLENTY).min(PLENTY)
}

/// How many clients may be connected: each of them may need a connection to an upstream as well.
pub(super) fn connections_for(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(OTHERS) / 2).max(descriptors / 8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_are_for_clients() {
        assert_eq!(connections_for(20_000), 9_900);
        assert_eq!(connections_for(1_024), 412);
        assert_eq!(connections_for(256), 32, "few, but more than none");
        assert!(connections_for(raise_limit()) >= 1);
    }
}
