//! How often logins are tried: for one account, so that nobody finds out a password by trying many, and from one address,
//! so that nobody tries one password on many accounts.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::settings::LoginLimits;
use crate::primitives::clock::Timestamp;
use crate::primitives::neighbour::Neighbour;
use crate::primitives::tally::{Key, Tally};

/// Accounts and addresses are spread over so many counters each: 1.1 MiB.
const COUNTERS: usize = 8 * 1024;

/// Attempts of late. Accounts are known by a keyed hash only.
pub(super) struct Attempts {
    limits: LoginLimits,
    accounts: Tally,
    addresses: Tally,
    /// Asking and counting are one step, or attempts at the same moment would all be the last one that passes.
    turn: Mutex<()>,
}

/// Whose attempts were too many, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Of this account.
    Account(Duration),
    /// Of this address.
    Address(Duration),
}

impl TooMany {
    /// How long to wait.
    #[must_use]
    pub fn wait(self) -> Duration {
        match self {
            Self::Account(wait) | Self::Address(wait) => wait,
        }
    }

    /// A word for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Account(_) => "limit_account",
            Self::Address(_) => "limit_address",
        }
    }
}

impl Attempts {
    pub(super) fn new(limits: LoginLimits) -> Self {
        let tally = || Tally::new(limits.per, COUNTERS);
        Self { limits, accounts: tally(), addresses: tally(), turn: Mutex::new(()) }
    }

    /// Counts an attempt that may be made. One that may not is counted nowhere: who waits as he is told may try again.
    pub(super) fn admit(&self, account: &str, address: IpAddr, now: Timestamp) -> Result<(), TooMany> {
        let (account, address) = (Key::of(&account), Key::of(&Neighbour::from(address)));
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The address first: one that tries everything must not lock accounts that are not its own.
        if let Some(wait) = self.addresses.wait(address, self.limits.address, now) {
            return Err(TooMany::Address(wait));
        }
        if let Some(wait) = self.accounts.wait(account, self.limits.account, now) {
            return Err(TooMany::Account(wait));
        }
        self.addresses.add(address, now);
        self.accounts.add(account, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_900_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn attempts(account: u32, address: u32) -> Attempts {
        Attempts::new(LoginLimits { account, address, per: MINUTE })
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_account_is_limited_wherever_the_attempts_come_from() {
        let attempts = attempts(3, 100);
        for last in 1..=3 {
            assert_eq!(attempts.admit("alice", ip(last), NOW), Ok(()));
        }
        let Err(TooMany::Account(wait)) = attempts.admit("alice", ip(4), NOW) else { panic!() };
        assert!(wait <= MINUTE + MINUTE / 8);
        assert_eq!(attempts.admit("bob", ip(1), NOW), Ok(()));
        assert_eq!(attempts.admit("alice", ip(1), NOW.plus(wait)), Ok(()));
    }

    #[test]
    fn an_address_is_limited_whatever_the_accounts_and_locks_none() {
        let attempts = attempts(3, 5);
        for account in ["a", "b", "c", "d", "e"] {
            assert_eq!(attempts.admit(account, ip(1), NOW), Ok(()));
        }
        for _ in 0..10 {
            assert!(matches!(attempts.admit("alice", ip(1), NOW), Err(TooMany::Address(_))));
        }
        assert_eq!(attempts.admit("alice", ip(2), NOW), Ok(()));
    }

    #[test]
    fn attempts_at_the_same_moment_are_counted_one_by_one() {
        let attempts = attempts(10, 1_000);
        let passed = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        if attempts.admit("alice", ip(1), NOW).is_ok() {
                            passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 10);
    }
}
