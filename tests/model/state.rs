//! Everything there is at one moment: the record, the replicas, the provider, and what is on its way between them.

use crate::provider::{Provider, TOKENS, Token, Tokens};
use crate::settings::Settings;

/// Room for replicas; a run may use fewer.
pub(crate) const REPLICAS: usize = 3;

/// Who wrote an intent: a flight, named by its replica as long as it lives.
///
/// In the real record this is a random number for each flight, so that a replica does not take an intent from before
/// its restart for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Flight(u8),
    Nobody,
}

/// "I am about to show the refresh token."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Intent {
    pub(crate) owner: Owner,
    /// The lease has run out.
    pub(crate) expired: bool,
}

/// The session's record in the store. Its version is not a number here: each reader knows whether what it has read is
/// still current, and each write makes everyone else's reading stale.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) deleted: bool,
    pub(crate) generation: u8,
    pub(crate) token: Token,
    pub(crate) intent: Option<Intent>,
    /// The token may be spent: it is not shown again. Holds the owner of the intent that is to blame.
    pub(crate) doubt: Option<Owner>,
}

/// Where a flight stands; each step ends in at most one call to the store or to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Reads the record and decides.
    Read,
    /// Writes its intent.
    Claim,
    /// Shows the token, if the lease still runs.
    Show,
    /// The token is on its way. `in_grace` as the provider will see it, should it be spent already.
    Await { in_grace: bool },
    /// Holds fresh tokens until the store takes them.
    Keep(Token),
    /// The provider did nothing: takes its intent back.
    Release,
    /// Writes that the token may be spent.
    NoteDoubt,
    /// The provider refused the token: deletes the record.
    Delete,
    /// Revokes a token that came too late.
    Revoke(Token),
}

/// The refresh that is under way for the session on one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flight {
    pub(crate) step: Step,
    /// What was last read of the record is what the store has.
    pub(crate) current: bool,
    pub(crate) generation: u8,
    pub(crate) token: Token,
    /// This or another flight may have shown the token before.
    pub(crate) shown_before: bool,
    /// By its own clock, its lease still runs.
    pub(crate) leased: bool,
}

impl Flight {
    pub(crate) fn new() -> Self {
        Self { step: Step::Read, current: false, generation: 0, token: 0, shown_before: false, leased: false }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Replica {
    pub(crate) flight: Option<Flight>,
    /// Requests that wait for the flight.
    pub(crate) waiting: u8,
    /// Requests that may yet come.
    pub(crate) coming: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Logout {
    Idle,
    /// Has read the record and deletes it.
    Delete {
        token: Token,
        current: bool,
    },
    /// Deletes the record without having read it; this is how the rule `ReadBeforeDelete` is broken.
    DeleteBlindly,
    Revoke(Token),
    Over,
}

/// Misfortunes still to come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) expiries: u8,
    pub(crate) crashes: u8,
    pub(crate) lost_answers: u8,
    pub(crate) refusals: u8,
    pub(crate) lost_replies: u8,
    pub(crate) lost_leases: u8,
    pub(crate) touches: u8,
    pub(crate) ended_by_provider: bool,
}

/// What has happened; only the properties look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// A crash between the write of an intent and the write of its outcome.
    pub(crate) crash_in_window: bool,
    pub(crate) answer_lost: bool,
    pub(crate) lease_lost: bool,
    pub(crate) grace_ended: bool,
    pub(crate) ended_by_provider: bool,
    pub(crate) logged_out: bool,
    pub(crate) revived: bool,
    pub(crate) unstored_used: bool,
    pub(crate) shown_needlessly: bool,
    pub(crate) shown: Tokens,
    pub(crate) stored: Tokens,
    /// Issued, but nobody who knew of it is left.
    pub(crate) forgotten: Tokens,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) record: Record,
    pub(crate) replicas: [Replica; REPLICAS],
    pub(crate) logout: Logout,
    pub(crate) provider: Provider,
    /// Showings whose sender no longer listens: `[past the grace, within it]` for each token.
    pub(crate) adrift: [[u8; 2]; TOKENS],
    /// Tokens for which the grace is over, counted from the first intent to show them.
    pub(crate) late: Tokens,
    /// The first generation that counts as fresh.
    pub(crate) due: u8,
    pub(crate) budget: Budget,
    pub(crate) history: History,
}

impl State {
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut replicas = [Replica::default(); REPLICAS];
        for replica in &mut replicas[..settings.replicas] {
            replica.coming = settings.requests;
        }
        let mut history = History::default();
        history.stored.insert(0);
        Self {
            record: Record { deleted: false, generation: 0, token: 0, intent: None, doubt: None },
            replicas,
            logout: if settings.logout { Logout::Idle } else { Logout::Over },
            provider: Provider::new(),
            adrift: [[0; 2]; TOKENS],
            late: Tokens::default(),
            due: 1,
            budget: Budget {
                expiries: settings.expiries - 1,
                crashes: settings.crashes,
                lost_answers: settings.lost_answers,
                refusals: settings.refusals,
                lost_replies: settings.lost_replies,
                lost_leases: settings.lost_leases,
                touches: settings.touches,
                ended_by_provider: settings.ended_by_provider,
            },
            history,
        }
    }

    pub(crate) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.replicas.iter().filter_map(|replica| replica.flight.as_ref())
    }

    /// The record was written: what others have read is stale.
    pub(crate) fn outdate_readers(&mut self) {
        for replica in &mut self.replicas {
            if let Some(flight) = &mut replica.flight {
                flight.current = false;
            }
        }
        if let Logout::Delete { current, .. } = &mut self.logout {
            *current = false;
        }
    }

    /// Nothing is under way and nothing is on its way.
    pub(crate) fn at_rest(&self) -> bool {
        self.flights().next().is_none()
            && matches!(self.logout, Logout::Idle | Logout::Over)
            && self.adrift.iter().all(|counts| *counts == [0; 2])
    }

    /// Replaces a flight that is no more by nobody, wherever it is named.
    pub(crate) fn forget_owner(&mut self, replica: usize) {
        let gone = Owner::Flight(replica as u8);
        if let Some(intent) = self.record.intent.as_mut().filter(|intent| intent.owner == gone) {
            intent.owner = Owner::Nobody;
        }
        if self.record.doubt == Some(gone) {
            self.record.doubt = Some(Owner::Nobody);
        }
    }

    /// Replicas are interchangeable: of all states that differ only in their order, one stands for all.
    pub(crate) fn normalize(&mut self, replicas: usize) {
        let names = |owner: Option<Owner>, replica: usize| owner == Some(Owner::Flight(replica as u8));
        let (intent, doubt) = (self.record.intent.map(|intent| intent.owner), self.record.doubt);
        let mut order = [0, 1, 2];
        order[..replicas]
            .sort_by_key(|&replica| (self.replicas[replica], names(intent, replica), names(doubt, replica)));
        let moved = |owner: Owner| match owner {
            Owner::Flight(from) => {
                let to = order.iter().position(|&replica| replica == usize::from(from)).unwrap_or_default();
                Owner::Flight(to as u8)
            }
            Owner::Nobody => Owner::Nobody,
        };
        if let Some(intent) = &mut self.record.intent {
            intent.owner = moved(intent.owner);
        }
        self.record.doubt = doubt.map(moved);
        self.replicas = order.map(|replica| self.replicas[replica]);
    }
}
