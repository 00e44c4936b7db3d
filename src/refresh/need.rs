//! Why there should be a refresh, and whether that reason still holds once the record is read.

use std::time::Duration;

use super::lease::MARGIN;
use crate::primitives::clock::Timestamp;
use crate::session::model::Secrets;
use crate::session::plan::is_fresh;
use crate::store::record::Record;

/// How often a session's token may be replaced because an upstream refused it.
const FORCE_EVERY: Duration = Duration::from_secs(300);

/// How long others may take, or leave no place at the provider, before a refresh gives up waiting for them.
pub(super) const OTHERS_PATIENCE: Duration = Duration::from_secs(30);
/// How long a claimed refresh waits for a place at the provider. Then it is put off, so that one provider that is slow
/// keeps none of the others from being asked.
const UNHURRIED: Duration = Duration::from_secs(1);

/// Why there should be a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A request needs a token with `minimum_lifetime` left.
    Minimum,
    /// It is due in the background.
    Due,
    /// It is due, and was claimed for that by the background refresher, which puts it off if the provider has no place
    /// for it.
    Claimed,
    /// An upstream has refused the token of this generation, although its time is not over.
    Refused(u64),
}

impl Need {
    /// The word for it in metrics.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::Minimum => "inline",
            Self::Due | Self::Claimed => "background",
            Self::Refused(_) => "forced",
        }
    }

    pub(super) fn is_due(self) -> bool {
        matches!(self, Self::Due | Self::Claimed)
    }

    /// How long it waits for a place at the provider.
    pub(super) fn patience(self) -> Duration {
        match self {
            Self::Claimed => UNHURRIED,
            Self::Minimum | Self::Due | Self::Refused(_) => OTHERS_PATIENCE,
        }
    }

    /// Whether the tokens in the record call for a refresh; if not, they are the result.
    pub(super) fn holds(self, record: &Record, secrets: &Secrets, now: Timestamp, minimum: Duration) -> bool {
        let fresh = is_fresh(secrets.access_issued, secrets.access_expires, now, minimum);
        match self {
            Self::Minimum => !fresh,
            Self::Due | Self::Claimed => record.due.is_some_and(|due| due <= now),
            Self::Refused(generation) => !fresh || record.generation == generation && may_force(secrets.forced, now),
        }
    }
}

/// Whether a token may be replaced before its time. When that was done last stands in the record, so an upstream that
/// refuses every token gets no more out of the provider than this, whatever the number of requests and replicas.
fn may_force(last: Option<Timestamp>, now: Timestamp) -> bool {
    // A time that lies further ahead than clocks differ was written by one that was wrong.
    last.is_none_or(|last| now.since(last) >= FORCE_EVERY || last.since(now) > MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b5_a_token_is_replaced_before_its_time_once_in_five_minutes() {
        let last = Timestamp::from_secs(1_000_000);
        let after = |seconds| may_force(Some(last), last.plus(Duration::from_secs(seconds)));
        assert!(may_force(None, last));
        assert!(!after(0) && !after(299) && after(300));
        assert!(!may_force(Some(last.plus(MARGIN)), last), "clocks of two replicas differ a little");
        assert!(may_force(Some(last.plus(FORCE_EVERY)), last), "a clock that was wrong holds nobody back");
    }
}
