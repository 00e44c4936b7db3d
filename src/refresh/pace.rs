//! How fast a provider is asked: so many calls at a time, so many a second, none while it is down (behaviour B2).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::need::Need;
use crate::config::settings;
use crate::provider::{Provider, Providers};

/// How often, and how many times, one looks whether the probe before it has come back: a second and a half in all.
const PROBE_LOOK_EVERY: Duration = Duration::from_millis(25);
const PROBE_LOOKS: u32 = 60;

/// Shortest and longest time after which a refresh for which there was no place is tried again.
const SHORTEST_FULL: Duration = Duration::from_secs(1);
const LONGEST_FULL: Duration = Duration::from_secs(15);

/// The pace of every provider, by name.
pub(super) struct Paces(HashMap<Arc<str>, Pace>);

struct Pace {
    provider: Arc<Provider>,
    places: Arc<Semaphore>,
    /// As many for what is asked once the tokens are there: who waits for tokens is not to wait for that.
    questions: Semaphore,
    rate: DefaultDirectRateLimiter,
    /// Since when somebody has found no place in time, and nobody one at once.
    full: Mutex<Option<Instant>>,
}

impl Pace {
    fn full(&self) -> MutexGuard<'_, Option<Instant>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a call and whether it was waited for, or how long there has been none.
    async fn place(&self, need: Need) -> Result<(OwnedSemaphorePermit, bool), Duration> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            *self.full() = None;
            return Ok((place, false));
        }
        // What others have waited for in vain only just now is not worth waiting for again.
        let hopeless = need == Need::Claimed && self.full().is_some();
        let patience = if hopeless { Duration::ZERO } else { need.patience() };
        // Never closed.
        if let Ok(Ok(place)) = timeout(patience, self.places.clone().acquire_owned()).await {
            return Ok((place, true));
        }
        Err(self.full().get_or_insert_with(Instant::now).elapsed())
    }

    /// Waits a little for a probe that is under way: it mostly comes back at once, and then all may go. Whether there was
    /// one.
    async fn behind_probe(&self) -> bool {
        let mut looks = 0..PROBE_LOOKS;
        let mut waited = false;
        while self.provider.breaker().is_probing() && looks.next().is_some() {
            waited = true;
            tokio::time::sleep(PROBE_LOOK_EVERY).await;
        }
        waited
    }
}

/// Leave for one call; the place is free again when it is dropped.
pub(super) struct Leave {
    _place: OwnedSemaphorePermit,
}

/// Whether a call may go.
pub(super) enum Entry {
    /// At once.
    Now(Leave),
    /// Now, after a wait in which the world may have changed.
    AfterWait(Leave),
    /// Not before this time has passed: the provider is down, or wants to be left alone.
    NotFor(Duration),
    /// Not within the caller's patience: every place was taken. Worth another try after this time, which grows as long as
    /// that lasts.
    Full(Duration),
}

impl Paces {
    pub(super) fn new(providers: &Providers, settings: &settings::Refresh) -> Self {
        let pace = |provider: &Arc<Provider>| Pace {
            provider: provider.clone(),
            places: Arc::new(Semaphore::new(settings.concurrency.get())),
            questions: Semaphore::new(settings.concurrency.get()),
            rate: RateLimiter::direct(Quota::per_second(settings.per_second)),
            full: Mutex::new(None),
        };
        Self(providers.iter().map(|(name, provider)| (name.clone(), pace(provider))).collect())
    }

    /// Waits for a place and for the rate, as long as the need allows; those who came first go first.
    pub(super) async fn enter(&self, provider: &str, need: Need) -> Entry {
        let Some(pace) = self.0.get(provider) else { return Entry::NotFor(Duration::from_secs(1)) };
        let breaker = pace.provider.breaker();
        let patient = need != Need::Claimed;
        let mut behind = patient && pace.behind_probe().await;
        if let Some(wait) = breaker.wait() {
            return Entry::NotFor(wait);
        }
        let (place, mut waited) = match pace.place(need).await {
            Ok(place) => place,
            Err(full) => return Entry::Full(full.clamp(SHORTEST_FULL, LONGEST_FULL)),
        };
        let leave = Leave { _place: place };
        // Whoever has waited for a place is counted too.
        if pace.rate.check().is_err() {
            pace.rate.until_ready().await;
            waited = true;
        }
        // Asked last: of those that waited while the provider was down only one is to find out whether it is back. Who
        // loses that race waits for the answer.
        let mut admitted = breaker.admit();
        if patient && admitted.is_some() && breaker.is_probing() {
            behind |= pace.behind_probe().await;
            admitted = breaker.admit();
        }
        match admitted {
            Some(wait) => Entry::NotFor(wait),
            None if waited || behind => Entry::AfterWait(leave),
            None => Entry::Now(leave),
        }
    }

    /// Turns for what a provider is asked about tokens that it has given; `None` if it is not in the settings.
    pub(super) fn questions(&self, provider: &str) -> Option<&Semaphore> {
        self.0.get(provider).map(|pace| &pace.questions)
    }

    /// How many calls could go now, over all providers.
    pub(super) fn free(&self) -> usize {
        self.0.values().map(|pace| pace.places.available_permits()).sum()
    }
}
