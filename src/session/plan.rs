//! When a token is fresh enough, and when the background refresher should look at its session (behaviour R11, B2).

use std::time::Duration;

use super::model::Secrets;
use crate::primitives::clock::Timestamp;
use crate::primitives::random;

/// How long before its end an access token is to be refreshed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    ahead: Duration,
}

impl Plan {
    /// `ahead` as in the settings; zero = never in the background.
    #[must_use]
    pub const fn new(ahead: Duration) -> Self {
        Self { ahead }
    }

    /// `ahead` before the end of the access token, give or take a tenth of it, so that sessions that began together do
    /// not return together. A token that lives shorter than twice `ahead` is due at half its life. `None` if there is
    /// nothing to refresh, or nothing to refresh with.
    #[must_use]
    pub fn due(&self, secrets: &Secrets) -> Option<Timestamp> {
        let [dice] = random::bytes::<1>().unwrap_or([127]);
        self.due_with(secrets, dice)
    }

    fn due_with(&self, secrets: &Secrets, dice: u8) -> Option<Timestamp> {
        secrets.refresh_token.as_ref()?;
        let end = secrets.access_expires?;
        let life = end.since(secrets.access_issued);
        let ahead = self.ahead.min(life / 2);
        if ahead.is_zero() {
            return None;
        }
        let earlier = ahead + ahead / 10;
        let spread = ahead / 5 * u32::from(dice) / 255;
        let due = Timestamp::from_millis(end.as_millis().saturating_sub(millis(earlier)));
        Some(due.plus(spread))
    }
}

/// Whether an access token has at least `minimum` left. For tokens that live shorter than twice that, half their life is
/// the bound, or each request would refresh (behaviour R11).
#[must_use]
pub fn is_fresh(issued: Timestamp, expires: Option<Timestamp>, now: Timestamp, minimum: Duration) -> bool {
    let Some(end) = expires else { return true };
    end.since(now) > minimum.min(end.since(issued) / 2)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::secret::SecretText;
    use crate::session::ticket::TicketSeed;

    fn secrets(life: u64) -> Secrets {
        Secrets {
            access_token: SecretText::new("at".into()),
            bound: false,
            access_issued: Timestamp::from_secs(1_000),
            access_expires: Some(Timestamp::from_secs(1_000 + life)),
            forced: None,
            max_age: None,
            refresh_token: Some(SecretText::new("rt".into())),
            refresh_expires: None,
            offline: false,
            id_token: None,
            claims: serde_json::Map::new(),
            context: serde_json::Map::new(),
            csrf_token: SecretText::new("csrf".into()),
            tickets: TicketSeed::generate().unwrap(),
        }
    }

    #[test]
    fn b2_it_is_due_ahead_of_the_end_give_or_take_a_tenth() {
        let plan = Plan::new(Duration::from_secs(60));
        let due = |life, dice| plan.due_with(&secrets(life), dice).unwrap().as_millis();
        assert_eq!((due(300, 0), due(300, 255)), (1_234_000, 1_246_000));
        assert_eq!((due(60, 0), due(60, 255)), (1_027_000, 1_033_000), "half of a short life");
        for _ in 0..100 {
            let due = plan.due(&secrets(300)).unwrap().as_millis();
            assert!((1_234_000..=1_246_000).contains(&due));
        }
    }

    #[test]
    fn without_a_way_or_a_reason_nothing_is_due() {
        let plan = Plan::new(Duration::from_secs(60));
        assert!(plan.due(&Secrets { refresh_token: None, ..secrets(300) }).is_none());
        assert!(plan.due(&Secrets { access_expires: None, ..secrets(300) }).is_none());
        assert!(plan.due(&secrets(0)).is_none());
        assert!(Plan::new(Duration::ZERO).due(&secrets(300)).is_none());
    }
}
