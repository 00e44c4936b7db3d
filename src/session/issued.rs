//! Tokens that a provider makes for single upstreams, as they are kept: ready made, or why there is none for now.
//!
//! They live in this process alone. What they come from is in the store, so each replica gets its own when it needs one,
//! and a session's record does not grow with the number of services behind its site.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::HeaderValue;
use tokio::sync::{Mutex, MutexGuard};

use super::plan::is_fresh;
use crate::primitives::clock::Timestamp;
use crate::primitives::dpop::authorization;
use crate::primitives::secret::SecretText;

/// How often a token is replaced because an upstream refuses it (behaviour B5).
const REPLACE_EVERY: Duration = Duration::from_secs(300);

/// A token as it goes upstream.
#[derive(Clone)]
pub struct Issued {
    authorization: HeaderValue,
    since: Timestamp,
    expires: Timestamp,
}

impl Issued {
    /// `bound`: it goes upstream with a proof (RFC 9449). `None` if the token has bytes that no header may carry.
    #[must_use]
    pub fn new(token: &SecretText, bound: bool, since: Timestamp, expires: Timestamp) -> Option<Self> {
        Some(Self { authorization: authorization(bound, token)?, since, expires })
    }

    /// `Bearer …` or `DPoP …`
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    fn is_fresh(&self, now: Timestamp, minimum: Duration) -> bool {
        is_fresh(self.since, Some(self.expires), now, minimum)
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The provider says that this user may not have one.
    Denied,
    /// The provider gives none for another reason: it does not know the target, or does not let us ask.
    Refused,
    /// The provider does not take the user's access token, or not any more.
    Stale,
    /// The provider does not answer, or is busy.
    Unavailable,
}

/// What is known.
#[derive(Clone, Default)]
struct State {
    token: Option<Issued>,
    /// Until then the provider is not asked again, and why.
    lack: Option<(Lack, Timestamp)>,
    /// When a token was last replaced before its time.
    replaced: Option<Timestamp>,
}

/// The place of one token: of one session or client and one target. Results never cross places (behaviour R1).
#[derive(Default)]
pub struct Slot {
    state: ArcSwapOption<State>,
    turn: Mutex<()>,
}

/// The right to fill a place: one caller at a time has it.
pub struct Turn<'s> {
    slot: &'s Slot,
    _turn: MutexGuard<'s, ()>,
}

impl Slot {
    /// The token, if it has enough of its life left; see [`is_fresh`].
    #[must_use]
    pub fn fresh(&self, now: Timestamp, minimum: Duration) -> Option<HeaderValue> {
        let state = self.state.load();
        let token = state.as_ref()?.token.as_ref()?;
        token.is_fresh(now, minimum).then(|| token.authorization.clone())
    }

    /// The token, if it lives at all.
    #[must_use]
    pub fn alive(&self, now: Timestamp) -> Option<HeaderValue> {
        let state = self.state.load();
        let token = state.as_ref()?.token.as_ref()?;
        token.is_alive(now).then(|| token.authorization.clone())
    }

    /// Why there is none, and for how long the provider is not asked again.
    #[must_use]
    pub fn lack(&self, now: Timestamp) -> Option<(Lack, Duration)> {
        let (lack, until) = self.state.load().as_ref()?.lack?;
        (now < until).then(|| (lack, until.since(now)))
    }

    /// Whether somebody is filling the place.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    /// Waits for the right to fill the place. Whoever gets it looks again first: the one before may have done so.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { slot: self, _turn: self.turn.lock().await }
    }
}

impl Turn<'_> {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.slot.state.load().as_deref().cloned().unwrap_or_default();
        change(&mut state);
        self.slot.state.store(Some(Arc::new(state)));
    }

    /// Puts a token in.
    pub fn keep(&self, token: Issued) {
        self.change(|state| (state.token, state.lack) = (Some(token), None));
    }

    /// Notes that there is none until then. A token that still lives stays.
    pub fn lacks(&self, lack: Lack, until: Timestamp) {
        self.change(|state| state.lack = Some((lack, until)));
    }

    /// Whether a token that an upstream refuses may be replaced although its time is not over; once in five minutes.
    #[must_use]
    pub fn may_replace(&self, now: Timestamp) -> bool {
        let replaced = self.slot.state.load().as_ref().and_then(|state| state.replaced);
        let may = replaced.is_none_or(|last| now.since(last) >= REPLACE_EVERY);
        if may {
            self.change(|state| state.replaced = Some(now));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life: u64) -> Issued {
        let expires = Timestamp::from_secs(1_000 + life);
        Issued::new(&SecretText::new("t".into()), false, Timestamp::from_secs(1_000), expires).unwrap()
    }

    #[tokio::test]
    async fn a6_a_token_is_used_to_its_end_and_known_as_stale_before() {
        let (slot, minimum) = (Slot::default(), Duration::from_secs(10));
        let at = Timestamp::from_secs;
        assert!(slot.fresh(at(1_000), minimum).is_none() && slot.alive(at(1_000)).is_none());
        slot.turn().await.keep(token(60));
        assert_eq!(slot.fresh(at(1_049), minimum).unwrap(), "Bearer t");
        assert!(slot.fresh(at(1_049), minimum).unwrap().is_sensitive());
        assert!(slot.fresh(at(1_050), minimum).is_none() && slot.alive(at(1_059)).is_some());
        assert!(slot.alive(at(1_060)).is_none());
        // One that lives shorter than twice the minimum is fresh for half its life.
        slot.turn().await.keep(token(8));
        assert!(slot.fresh(at(1_003), minimum).is_some() && slot.fresh(at(1_004), minimum).is_none());
    }

    #[tokio::test]
    async fn a_refusal_is_remembered_for_a_while_and_takes_no_token_away() {
        let (slot, at) = (Slot::default(), Timestamp::from_secs);
        slot.turn().await.keep(token(60));
        slot.turn().await.lacks(Lack::Denied, at(1_010));
        assert_eq!(slot.lack(at(1_009)), Some((Lack::Denied, Duration::from_secs(1))));
        assert_eq!(slot.lack(at(1_010)), None);
        assert!(slot.alive(at(1_009)).is_some());
        slot.turn().await.keep(token(60));
        assert_eq!(slot.lack(at(1_009)), None, "a token ends it");
    }

    #[tokio::test]
    async fn b5_a_token_is_replaced_before_its_time_once_in_five_minutes() {
        let (slot, at) = (Slot::default(), Timestamp::from_secs);
        let turn = slot.turn().await;
        assert!(turn.may_replace(at(1_000)) && !turn.may_replace(at(1_299)) && turn.may_replace(at(1_300)));
    }

    #[test]
    fn a_token_that_fits_no_header_is_none() {
        assert!(
            Issued::new(&SecretText::new("a\r\nb".into()), false, Timestamp::default(), Timestamp::default()).is_none()
        );
    }
}
