//! The protocol itself: what a flight and a logout do, step by step.
//!
//! This is the part that `src/refresh` has to follow. A step that finds its reading stale reads again in the same
//! breath: what it learns then it could as well have learned by losing the race a moment later.

use crate::provider::{Answer, Token};
use crate::settings::{Rotation, Rule, Settings};
use crate::state::{Flight, Intent, Logout, Owner, State, Step};

/// Whether the writer hears that its write was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Heard,
    Lost,
}

/// One replica's part in one state.
pub(crate) struct Run<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) state: &'a mut State,
    pub(crate) replica: usize,
}

/// How a flight ends for those who wait for it.
enum Outcome {
    /// There are fresh tokens, and these are stored.
    Renewed,
    /// No fresh tokens: the session is over, or the refresh failed.
    Nothing,
}

impl Run<'_> {
    fn me(&self) -> Owner {
        Owner::Flight(self.replica as u8)
    }

    fn flight(&mut self) -> &mut Flight {
        self.state.replicas[self.replica].flight.as_mut().expect("only a flight takes steps")
    }

    fn go(&mut self, step: Step) {
        self.flight().step = step;
    }

    /// The flight is over; the waiting requests go on with what is in the record.
    fn finish(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Renewed) {
            self.hand_out(self.state.record.token);
        }
        self.state.replicas[self.replica].flight = None;
        self.state.replicas[self.replica].waiting = 0;
        if self.settings.keeps(Rule::OwnerIsFlight) {
            self.state.forget_owner(self.replica);
        }
    }

    fn hand_out(&mut self, token: Token) {
        if self.state.replicas[self.replica].waiting > 0 && !self.state.history.stored.has(token) {
            self.state.history.unstored_used = true;
        }
    }

    /// The record has just been written by this flight.
    fn written(&mut self, reply: Reply) {
        self.state.outdate_readers();
        self.flight().current = reply == Reply::Heard;
    }

    /// Whether a token that may have been shown may be shown again.
    fn in_grace(&self, token: Token) -> bool {
        self.settings.grants_grace() && !self.state.late.has(token)
    }

    /// Steps 1 to 3: reads the record and decides.
    pub(crate) fn read(&mut self) {
        let (record, due, me) = (self.state.record.clone(), self.state.due, self.me());
        if record.deleted {
            return self.finish(Outcome::Nothing);
        }
        if record.generation >= due {
            return self.finish(Outcome::Renewed);
        }
        let in_grace = self.in_grace(record.token) || !self.settings.keeps(Rule::GraceAtTakeover);
        let flight = self.flight();
        if flight.generation != record.generation {
            *flight = Flight { generation: record.generation, token: record.token, ..Flight::new() };
        }
        flight.current = true;
        if let Some(blamed) = record.doubt {
            return if blamed == me && !flight.shown_before && self.settings.keeps(Rule::WithdrawDoubt) {
                self.go(Step::Claim)
            } else {
                self.finish(Outcome::Nothing)
            };
        }
        let Some(intent) = record.intent else {
            flight.shown_before = false;
            let first = if self.settings.keeps(Rule::ClaimBeforeShowing) { Step::Claim } else { Step::Show };
            return self.go(first);
        };
        if intent.owner != me {
            flight.shown_before = true;
        }
        let next = if flight.shown_before && !in_grace { Step::NoteDoubt } else { Step::Claim };
        self.go(next);
    }

    /// Step 4: puts the own intent into the record; as a takeover, in place of another's.
    pub(crate) fn claim(&mut self, reply: Reply) {
        if !self.flight().current {
            return self.go(Step::Read);
        }
        let token = self.state.record.token;
        if self.state.record.intent.is_none() {
            // The grace of a first showing counts from here.
            self.state.late.remove(token);
        }
        self.state.record.intent = Some(Intent { owner: self.me(), expired: false });
        self.state.record.doubt = None;
        self.written(reply);
        match reply {
            Reply::Heard => {
                self.flight().leased = true;
                self.go(Step::Show);
            }
            Reply::Lost => self.go(Step::Read),
        }
    }

    /// Step 5: the token leaves, unless lease or grace ran out meanwhile.
    pub(crate) fn show(&mut self) {
        let flight = *self.flight();
        if !flight.leased
            && self.settings.keeps(Rule::LeaseWhenShowing)
            && self.settings.keeps(Rule::ClaimBeforeShowing)
        {
            return self.go(Step::Read);
        }
        let late = self.settings.grants_grace() && self.state.late.has(flight.token);
        if flight.shown_before && late && self.settings.keeps(Rule::GraceWhenShowing) {
            return self.go(Step::NoteDoubt);
        }
        self.note_showing(flight.token);
        self.go(Step::Await { in_grace: !late });
    }

    fn note_showing(&mut self, token: Token) {
        let history = &mut self.state.history;
        let excused =
            self.settings.grants_grace() && (history.crash_in_window || history.answer_lost || history.lease_lost);
        if history.shown.has(token) && !excused && self.settings.rotation != Rotation::Never {
            history.shown_needlessly = true;
        }
        history.shown.insert(token);
    }

    /// The provider gets the token, answers, and the answer arrives.
    pub(crate) fn answered(&mut self, in_grace: bool) {
        let token = self.flight().token;
        match self.state.provider.refresh(self.settings.rotation, token, in_grace) {
            Answer::Issued(fresh) => {
                if !self.settings.keeps(Rule::StoreBeforeUse) {
                    self.hand_out(fresh);
                }
                self.go(Step::Keep(fresh));
            }
            Answer::InvalidGrant => self.go(Step::Delete),
        }
    }

    /// The provider says that it did nothing.
    pub(crate) fn refused(&mut self) {
        let flight = *self.flight();
        if !flight.shown_before {
            self.state.history.shown.remove(flight.token);
        }
        self.go(Step::Release);
    }

    /// No answer: the token may be spent.
    pub(crate) fn unanswered(&mut self, in_grace: bool) {
        let token = self.flight().token;
        self.state.adrift[usize::from(token)][usize::from(in_grace)] += 1;
        self.flight().shown_before = true;
        if !self.in_grace(token) {
            self.go(Step::NoteDoubt);
        } else if self.flight().leased {
            self.go(Step::Show);
        } else {
            self.go(Step::Read);
        }
    }

    /// Step 6, success: stores the tokens, then lets them be used.
    pub(crate) fn keep(&mut self, fresh: Token, reply: Reply) {
        let flight = *self.flight();
        if !flight.current && self.settings.keeps(Rule::VersionedWrite) {
            return self.reread_to_keep(fresh);
        }
        let record = &mut self.state.record;
        if record.deleted {
            record.deleted = false;
            self.state.history.revived = true;
        }
        record.generation = flight.generation + 1;
        record.token = fresh;
        record.intent = None;
        record.doubt = None;
        self.state.history.stored.insert(fresh);
        self.written(reply);
        if reply == Reply::Heard {
            self.finish(Outcome::Renewed);
        }
    }

    fn reread_to_keep(&mut self, fresh: Token) {
        let (deleted, generation, token) =
            (self.state.record.deleted, self.state.record.generation, self.state.record.token);
        if deleted {
            return if self.settings.keeps(Rule::RevokeLateToken) {
                self.go(Step::Revoke(fresh))
            } else {
                self.finish(Outcome::Nothing)
            };
        }
        if generation == self.flight().generation {
            self.flight().current = true;
        } else if token == fresh || self.settings.keeps(Rule::SpareLivingFamily) {
            // Theirs count. Ours are dropped: to revoke them could take the session's own tokens along.
            if token != fresh && !self.state.history.stored.has(fresh) {
                self.state.history.forgotten.insert(fresh);
            }
            self.finish(Outcome::Renewed);
        } else {
            self.go(Step::Revoke(fresh));
        }
    }

    pub(crate) fn revoke(&mut self, token: Token) {
        self.state.provider.revoke(self.settings.revocation, token);
        self.finish(Outcome::Nothing);
    }

    /// Step 6, refused: takes the intent back. After a second showing only its lease is given up: the first showing
    /// stands, and the time of its grace runs on.
    pub(crate) fn release(&mut self, reply: Reply) {
        let (me, flight) = (self.me(), *self.flight());
        if self.state.record.deleted || self.state.record.generation != flight.generation {
            let outcome = if self.state.record.deleted { Outcome::Nothing } else { Outcome::Renewed };
            return self.finish(outcome);
        }
        let ours = self.state.record.intent.is_some_and(|intent| intent.owner == me);
        let blamed =
            self.state.record.doubt == Some(me) && !flight.shown_before && self.settings.keeps(Rule::WithdrawDoubt);
        if !flight.current {
            return if ours || blamed { self.flight().current = true } else { self.finish(Outcome::Nothing) };
        }
        if ours && flight.shown_before && self.settings.keeps(Rule::ShownStaysShown) {
            self.state.record.intent = Some(Intent { owner: Owner::Nobody, expired: true });
        } else {
            self.state.record.intent = None;
        }
        if blamed {
            self.state.record.doubt = None;
        }
        self.written(reply);
        if reply == Reply::Heard {
            self.finish(Outcome::Nothing);
        }
    }

    /// Steps 3 and 6: nobody is to show the token again.
    pub(crate) fn note_doubt(&mut self, reply: Reply) {
        if !self.flight().current {
            return self.go(Step::Read);
        }
        let record = &mut self.state.record;
        record.doubt = Some(record.intent.map_or(Owner::Nobody, |intent| intent.owner));
        record.intent = None;
        self.written(reply);
        if reply == Reply::Heard {
            self.finish(Outcome::Nothing);
        }
    }

    /// Step 6, `invalid_grant`: the session is over, unless someone stored newer tokens.
    pub(crate) fn delete(&mut self, reply: Reply) {
        if self.state.record.deleted {
            return self.finish(Outcome::Nothing);
        }
        if self.state.record.generation != self.flight().generation {
            return self.finish(Outcome::Renewed);
        }
        if !self.flight().current {
            self.flight().current = true;
            return;
        }
        self.state.delete_record();
        self.written(reply);
        if reply == Reply::Heard {
            self.finish(Outcome::Nothing);
        }
    }
}

impl State {
    fn delete_record(&mut self) {
        self.record.deleted = true;
        self.record.intent = None;
        self.record.doubt = None;
    }

    /// A logout reads, deletes exactly what it has read, and revokes the token it found there.
    pub(crate) fn log_out(&mut self, settings: &Settings, reply: Reply) {
        self.logout = match self.logout {
            Logout::Idle if self.record.deleted => Logout::Over,
            Logout::Idle if settings.keeps(Rule::ReadBeforeDelete) => {
                Logout::Delete { token: self.record.token, current: true }
            }
            Logout::Idle => Logout::DeleteBlindly,
            Logout::Delete { token, .. } if self.record.deleted => Logout::Revoke(token),
            Logout::Delete { current: false, .. } => Logout::Delete { token: self.record.token, current: true },
            Logout::Delete { token, current: true } => match self.end_session(reply) {
                Reply::Heard => Logout::Revoke(token),
                Reply::Lost => Logout::Delete { token, current: false },
            },
            Logout::DeleteBlindly if self.record.deleted => Logout::Over,
            Logout::DeleteBlindly => match self.end_session(reply) {
                Reply::Heard => Logout::Revoke(self.record.token),
                Reply::Lost => Logout::DeleteBlindly,
            },
            Logout::Revoke(token) => {
                self.provider.revoke(settings.revocation, token);
                Logout::Over
            }
            Logout::Over => Logout::Over,
        };
    }

    fn end_session(&mut self, reply: Reply) -> Reply {
        self.delete_record();
        self.outdate_readers();
        self.history.logged_out = true;
        reply
    }
}
