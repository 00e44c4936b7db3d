//! Tokens that a provider makes for single upstreams, as they are kept: ready made, or why there is none for now.
//!
//! They live in this process alone. What they come from is in the store, so each replica gets its own when it needs one,
//! and a session's record does not grow with the number of services behind its site.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::HeaderValue;
use tokio::sync::{Mutex, MutexGuard};

use super::plan::is_fresh;
use crate::primitives::clock::Timestamp;
use crate::primitives::dpop::authorization;
use crate::primitives::secret::SecretText;

/// How exactly it is known when a token was last asked for, in milliseconds.
const NOTED_EVERY: u64 = 1_000;
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
    /// The same, or something else about the request: RFC 8693 §2.2.2 has one word for both.
    Unclear,
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
    /// When a request last asked for it, in milliseconds; kept only for tokens that are replaced in the background.
    asked: AtomicU64,
}

/// What is to be done about a place in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Nothing for now.
    Nothing,
    /// The token is in use and about to end.
    Replace,
    /// Nobody has asked for the token for a while, and it has ended.
    Forget,
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

    /// Notes that a request asks for the token. Written once in a second, so that many requests at once do not contend for it.
    pub fn note(&self, now: Timestamp) {
        let last = self.asked.load(Ordering::Relaxed);
        if now.as_millis().saturating_sub(last) >= NOTED_EVERY {
            self.asked.store(now.as_millis(), Ordering::Relaxed);
        }
    }

    /// What is to be done in the background: a token that was asked for `within` that time is replaced when it has less than
    /// `ahead` left. One that has ended is left to the requests that want it.
    #[must_use]
    pub fn upkeep(&self, now: Timestamp, ahead: Duration, within: Duration) -> Upkeep {
        if self.alive(now).is_none() {
            let empty = self.state.load().as_ref().is_none_or(|state| state.token.is_none());
            return if empty || self.is_in_use(now, within) { Upkeep::Nothing } else { Upkeep::Forget };
        }
        let due = self.is_in_use(now, within) && self.fresh(now, ahead).is_none() && self.lack(now).is_none();
        if due && !self.is_taken() { Upkeep::Replace } else { Upkeep::Nothing }
    }

    fn is_in_use(&self, now: Timestamp, within: Duration) -> bool {
        now.since(Timestamp::from_millis(self.asked.load(Ordering::Relaxed))) <= within
    }

    /// Lets go of the token, unless somebody is about to put another in.
    pub fn forget(&self) {
        if let Ok(_turn) = self.turn.try_lock() {
            self.state.store(None);
        }
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
    async fn a_token_in_use_is_replaced_ahead_and_one_that_nobody_asks_for_is_let_go_of() {
        let (slot, at) = (Slot::default(), Timestamp::from_secs);
        let upkeep = |now| slot.upkeep(at(now), Duration::from_secs(60), Duration::from_secs(900));
        slot.note(at(1_000));
        assert_eq!(upkeep(1_000), Upkeep::Nothing, "there is none yet");
        slot.turn().await.keep(token(600));
        assert_eq!((upkeep(1_539), upkeep(1_540), upkeep(1_599)), (Upkeep::Nothing, Upkeep::Replace, Upkeep::Replace));
        assert_eq!((upkeep(1_600), upkeep(1_900)), (Upkeep::Nothing, Upkeep::Nothing), "whoever asks gets another");
        assert_eq!(upkeep(1_901), Upkeep::Forget);
        let turn = slot.turn().await;
        assert_eq!(upkeep(1_540), Upkeep::Nothing, "somebody is about it");
        turn.lacks(Lack::Refused, at(1_550));
        drop(turn);
        assert_eq!((upkeep(1_549), upkeep(1_550)), (Upkeep::Nothing, Upkeep::Replace), "the provider said no");
        // It lives longer than anybody asks for it.
        slot.turn().await.keep(token(2_000));
        assert_eq!(upkeep(2_950), Upkeep::Nothing);
        slot.note(at(2_940));
        assert_eq!(upkeep(2_950), Upkeep::Replace);
        slot.forget();
        assert!(slot.alive(at(1_500)).is_none());
        assert_eq!(upkeep(9_000), Upkeep::Nothing);
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
