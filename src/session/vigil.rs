//! What there is to say of a session while it lasts: the one place that knows, for event streams and for whatever ends
//! together with the session.
//!
//! A vigil is no use of the session (behaviour S9). It hears of changes at once, wakes by the session's own times, and asks
//! the store before it says that a time has come: another replica may have moved it without a word. While the store is
//! silent nothing has ended (behaviour D1).

use std::sync::Arc;
use std::time::Duration;

use super::manager::Sessions;
use super::open::Open;
use super::watch::{Event, Watch};
use crate::primitives::clock::Timestamp;

/// An end is announced when a fifth of the time is left, and at most this long before.
const LONGEST_WARNING: Duration = Duration::from_secs(120);
/// Pause before a store that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Which of its times ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nobody uses it.
    Idle,
    /// Its refresh token ends; a refresh may move that.
    Provider,
    /// It has lasted as long as any may.
    Absolute,
}

/// Why a session is over; the words are part of the contract with frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was ended before its time: a logout, an administrator, a refused refresh.
    Ended,
    /// By one of its times.
    Expired(Limit),
}

/// Something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The end is near, unless something moves it before; what could is the limit's matter.
    Expiring(Limit, Timestamp),
    /// There is a new access token; it ends then, if the provider says.
    Refreshed(Option<Timestamp>),
    /// It is over. There is nothing more to say.
    Over(Reason),
}

/// Watches over one session.
pub struct Vigil {
    sessions: Arc<Sessions>,
    open: Arc<Open>,
    watch: Watch,
    /// When to ask the store; `None` while there is no doubt.
    ask_at: Option<Timestamp>,
    /// The end for which the store was last asked before the warning.
    asked_for: Option<(Limit, Timestamp)>,
    /// The end last warned of.
    warned_of: Option<(Limit, Timestamp)>,
    /// The token last told of.
    generation: u64,
}

impl Limit {
    /// A word for scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Provider => "provider",
            Self::Absolute => "absolute",
        }
    }
}

impl Reason {
    /// A word for scripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Expired(limit) => limit.as_str(),
        }
    }
}

impl Vigil {
    /// Begins. What happens from now on is heard; what happened since `open` was looked up is asked of the store first.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, open: Arc<Open>) -> Self {
        let watch = sessions.watch(open.key());
        let (ask_at, generation) = (Some(Timestamp::default()), open.generation());
        Self { sessions, open, watch, ask_at, asked_for: None, warned_of: None, generation }
    }

    /// Waits until the session is over.
    pub async fn over(mut self) -> Reason {
        loop {
            if let News::Over(reason) = self.next().await {
                return reason;
            }
        }
    }

    /// The next thing to say. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> News {
        loop {
            self.open = self.sessions.known(&self.open);
            if self.ask_at.is_some_and(|at| at <= self.sessions.clock().now()) {
                match self.sessions.confirm(&self.open).await {
                    Ok(Some(open)) => {
                        self.open = open;
                        self.ask_at = None;
                    }
                    Ok(None) => return News::Over(self.why()),
                    Err(error) => {
                        tracing::debug!(%error, "a session cannot be asked for; whoever watches it goes on waiting");
                        self.ask_at = Some(self.sessions.clock().now().plus(ASK_AGAIN));
                    }
                }
            }
            let wake = match self.look() {
                Ok(wake) => wake,
                Err(Some(news)) => return news,
                Err(None) => continue,
            };
            tokio::select! {
                event = self.watch.next() => match event {
                    Event::Ended => return News::Over(Reason::Ended),
                    Event::Changed | Event::Unsure => self.ask_at = Some(Timestamp::default()),
                },
                () = self.sessions.clock().until(wake) => {}
            }
        }
    }

    /// When to look again; or what to say; or `None` if the store is to be asked.
    fn look(&mut self) -> Result<Timestamp, Option<News>> {
        if self.open.was_ended() {
            return Err(Some(News::Over(Reason::Ended)));
        }
        if self.open.generation() != self.generation {
            self.generation = self.open.generation();
            return Err(Some(News::Refreshed(self.open.access_expires())));
        }
        if let Some(at) = self.ask_at {
            return Ok(at);
        }
        let now = self.sessions.clock().now();
        let (limit, end) = self.end();
        if now >= end {
            return self.ask();
        }
        if self.warned_of == Some((limit, end)) {
            return Ok(end);
        }
        let warning = end.minus(self.warning(limit));
        if now < warning {
            return Ok(warning);
        }
        if self.asked_for != Some((limit, end)) {
            self.asked_for = Some((limit, end));
            return self.ask();
        }
        self.warned_of = Some((limit, end));
        Err(Some(News::Expiring(limit, end)))
    }

    fn ask(&mut self) -> Result<Timestamp, Option<News>> {
        self.ask_at = Some(Timestamp::default());
        Err(None)
    }

    fn end(&self) -> (Limit, Timestamp) {
        let (idle, absolute) = (self.open.idle_end(), self.open.absolute_end());
        let bound = if self.open.ends_with_provider() { Limit::Provider } else { Limit::Absolute };
        if idle < absolute { (Limit::Idle, idle) } else { (bound, absolute) }
    }

    fn warning(&self, limit: Limit) -> Duration {
        let (idle, absolute) = self.sessions.timeouts();
        // The life of a refresh token is about the provider's idle time.
        let whole = if limit == Limit::Absolute { absolute } else { idle };
        (whole / 5).min(LONGEST_WARNING)
    }

    /// The store knows it no more: because its time has come, or somebody ended it.
    fn why(&self) -> Reason {
        let (limit, end) = self.end();
        if self.sessions.clock().now() >= end && !self.open.was_ended() {
            Reason::Expired(limit)
        } else {
            Reason::Ended
        }
    }
}

/// Waits until the user of a session that is over is not even recognised any more.
pub async fn forgotten(sessions: Arc<Sessions>, open: Arc<Open>) {
    let mut watch = sessions.watch(open.key());
    loop {
        let wake = match sessions.read(open.key()).await {
            Ok(Some((record, _))) => record.end(),
            Ok(None) => return,
            Err(_) => sessions.clock().now().plus(ASK_AGAIN),
        };
        tokio::select! {
            event = watch.next() => if event == Event::Ended { return },
            () = sessions.clock().until(wake) => {}
        }
    }
}

#[cfg(test)]
mod tests;
