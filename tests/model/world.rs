//! The world as the checker sees it: in each state, what may happen next.

use stateright::{Model, Property};

use crate::properties;
use crate::protocol::{Reply, Run};
use crate::provider::{Answer, TOKENS, Token};
use crate::settings::{Rule, Settings};
use crate::state::{Flight, Logout, Owner, State, Step};

/// One thing that happens. Numbers are replicas, unless they are tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A request finds its access token old and joins the replica's flight, or starts it.
    Arrive(usize),
    /// The flight does its next call to the store or the provider.
    Proceed(usize, Reply),
    /// The provider answers.
    Answer(usize),
    LogOut(Reply),
    /// The lease of an owner that is no more runs out.
    LeaseExpires,
    /// A living owner renews a lease that had run out.
    Renew(usize),
    /// A showing that nobody waits for reaches the provider, or gets lost on the way.
    Drift {
        token: Token,
        in_grace: bool,
        arrives: bool,
    },

    // Time passes.
    AccessTokenExpires,
    GraceEnds(Token),

    // What people do.
    ClientGoes(usize),
    SessionWritten,
    ProviderEnds,

    // What goes wrong.
    Crash(usize),
    LogoutCrash,
    AnswerLost(usize),
    Refused(usize),
    LeaseLost(usize),
}

impl Action {
    /// What happens by itself if only one waits long enough.
    pub(crate) fn is_progress(self) -> bool {
        matches!(self, Self::Proceed(..) | Self::Answer(_) | Self::LogOut(_) | Self::LeaseExpires | Self::Drift { .. })
    }
}

impl Model for Settings {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for replica in 0..self.replicas {
            of_replica(self, state, replica, actions);
        }
        of_logout(state, actions);
        of_everyone_else(self, state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        apply(self, &mut state, action);
        state.normalize(self.replicas);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

/// Both ways a write may go, as far as the budget allows.
fn replies(state: &State) -> impl Iterator<Item = Reply> {
    [Reply::Heard, Reply::Lost].into_iter().take(1 + usize::from(state.budget.lost_replies > 0))
}

fn of_replica(settings: &Settings, state: &State, replica: usize, actions: &mut Vec<Action>) {
    let here = &state.replicas[replica];
    if here.coming > 0 {
        actions.push(Action::Arrive(replica));
    }
    if here.waiting > 0 && settings.aborts {
        actions.push(Action::ClientGoes(replica));
    }
    let Some(flight) = &here.flight else { return };
    if state.budget.crashes > 0 {
        actions.push(Action::Crash(replica));
    }
    match flight.step {
        Step::Read if must_wait(state, replica) => {}
        Step::Read | Step::Show | Step::Revoke(_) => actions.push(Action::Proceed(replica, Reply::Heard)),
        Step::Await { .. } => {
            actions.push(Action::Answer(replica));
            if state.budget.lost_answers > 0 {
                actions.push(Action::AnswerLost(replica));
            }
            if state.budget.refusals > 0 {
                actions.push(Action::Refused(replica));
            }
        }
        Step::Claim | Step::Keep(_) | Step::Release | Step::NoteDoubt | Step::Delete => {
            actions.extend(replies(state).map(|reply| Action::Proceed(replica, reply)));
        }
    }
    if owns_intent(state, replica) {
        let expired = state.record.intent.is_some_and(|intent| intent.expired);
        if !expired && state.budget.lost_leases > 0 {
            actions.push(Action::LeaseLost(replica));
        }
        if expired && matches!(flight.step, Step::Await { .. } | Step::Keep(_)) {
            actions.push(Action::Renew(replica));
        }
    }
}

fn owns_intent(state: &State, replica: usize) -> bool {
    state.record.intent.is_some_and(|intent| intent.owner == Owner::Flight(replica as u8))
}

/// Step 2: another owner's lease runs, and there is nothing newer to be had.
fn must_wait(state: &State, replica: usize) -> bool {
    let record = &state.record;
    let leased = record.intent.is_some_and(|intent| !intent.expired) && !owns_intent(state, replica);
    leased && !record.deleted && record.generation < state.due
}

fn of_logout(state: &State, actions: &mut Vec<Action>) {
    match state.logout {
        Logout::Over => return,
        Logout::Delete { current: true, .. } | Logout::DeleteBlindly => {
            actions.extend(replies(state).map(Action::LogOut));
        }
        Logout::Idle | Logout::Delete { .. } | Logout::Revoke(_) => actions.push(Action::LogOut(Reply::Heard)),
    }
    if state.budget.crashes > 0 && state.logout != Logout::Idle {
        actions.push(Action::LogoutCrash);
    }
}

fn of_everyone_else(settings: &Settings, state: &State, actions: &mut Vec<Action>) {
    let budget = &state.budget;
    if state.record.intent.is_some_and(|intent| !intent.expired && !has_flight(state, intent.owner)) {
        actions.push(Action::LeaseExpires);
    }
    for token in 0..TOKENS as Token {
        for in_grace in [false, true] {
            if state.adrift[usize::from(token)][usize::from(in_grace)] > 0 {
                actions.push(Action::Drift { token, in_grace, arrives: true });
                actions.push(Action::Drift { token, in_grace, arrives: false });
            }
        }
        if settings.grace_ends && !state.late.has(token) && grace_runs(state, token) {
            actions.push(Action::GraceEnds(token));
        }
    }
    if budget.expiries > 0 && state.record.generation >= state.due {
        actions.push(Action::AccessTokenExpires);
    }
    if budget.touches > 0 && !state.record.deleted && someone_has_read(state) {
        actions.push(Action::SessionWritten);
    }
    if budget.ended_by_provider {
        actions.push(Action::ProviderEnds);
    }
}

fn has_flight(state: &State, owner: Owner) -> bool {
    matches!(owner, Owner::Flight(replica) if state.replicas[usize::from(replica)].flight.is_some())
}

fn grace_runs(state: &State, token: Token) -> bool {
    let intended = state.record.intent.is_some() && state.record.token == token;
    let is_at_it = |flight: &Flight| {
        flight.token == token && (flight.shown_before || matches!(flight.step, Step::Show | Step::Await { .. }))
    };
    intended || state.flights().any(is_at_it)
}

fn someone_has_read(state: &State) -> bool {
    matches!(state.logout, Logout::Delete { current: true, .. }) || state.flights().any(|flight| flight.current)
}

fn apply(settings: &Settings, state: &mut State, action: Action) {
    match action {
        Action::Arrive(replica) => {
            let here = &mut state.replicas[replica];
            here.coming -= 1;
            here.waiting += 1;
            here.flight.get_or_insert_with(Flight::new);
        }
        Action::Proceed(replica, reply) => {
            if reply == Reply::Lost {
                state.budget.lost_replies -= 1;
            }
            proceed(settings, state, replica, reply);
        }
        Action::Answer(replica) => at(settings, state, replica, |mut run, in_grace| run.answered(in_grace)),
        Action::AnswerLost(replica) => {
            state.budget.lost_answers -= 1;
            state.history.answer_lost = true;
            at(settings, state, replica, |mut run, in_grace| run.unanswered(in_grace));
        }
        Action::Refused(replica) => {
            state.budget.refusals -= 1;
            at(settings, state, replica, |mut run, _| run.refused());
        }
        Action::LogOut(reply) => {
            if reply == Reply::Lost {
                state.budget.lost_replies -= 1;
            }
            state.log_out(settings, reply);
        }
        Action::LeaseExpires => set_expired(state, true),
        Action::Renew(replica) => {
            set_expired(state, false);
            state.outdate_readers();
            if let Some(flight) = &mut state.replicas[replica].flight {
                (flight.current, flight.leased) = (true, true);
            }
        }
        Action::LeaseLost(replica) => {
            state.budget.lost_leases -= 1;
            state.history.lease_lost = true;
            set_expired(state, true);
            if let Some(flight) = &mut state.replicas[replica].flight {
                flight.leased = false;
            }
        }
        Action::Drift { token, in_grace, arrives } => {
            state.adrift[usize::from(token)][usize::from(in_grace)] -= 1;
            if arrives && let Answer::Issued(fresh) = state.provider.refresh(settings.rotation, token, in_grace) {
                forget(state, fresh);
            }
        }
        Action::AccessTokenExpires => {
            state.budget.expiries -= 1;
            state.due = state.record.generation + 1;
        }
        Action::GraceEnds(token) => {
            state.late.insert(token);
            state.history.grace_ended = true;
        }
        Action::SessionWritten => {
            state.budget.touches -= 1;
            state.outdate_readers();
        }
        Action::ProviderEnds => {
            state.budget.ended_by_provider = false;
            state.history.ended_by_provider = true;
            state.provider.end();
        }
        Action::ClientGoes(replica) => {
            state.replicas[replica].waiting -= 1;
            if !settings.keeps(Rule::GoneClientCancelsNothing) {
                vanish(settings, state, replica);
            }
        }
        Action::Crash(replica) => {
            state.budget.crashes -= 1;
            crash(settings, state, replica);
        }
        Action::LogoutCrash => {
            state.budget.crashes -= 1;
            let known = if let Logout::Revoke(token) = state.logout { token } else { state.record.token };
            state.history.forgotten.insert(known);
            state.logout = Logout::Over;
        }
    }
}

fn proceed(settings: &Settings, state: &mut State, replica: usize, reply: Reply) {
    let Some(flight) = state.replicas[replica].flight else { return };
    let mut run = Run { settings, state, replica };
    match flight.step {
        Step::Read => run.read(),
        Step::Claim => run.claim(reply),
        Step::Show => run.show(),
        Step::Keep(fresh) => run.keep(fresh, reply),
        Step::Release => run.release(reply),
        Step::NoteDoubt => run.note_doubt(reply),
        Step::Delete => run.delete(reply),
        Step::Revoke(token) => run.revoke(token),
        Step::Await { .. } => {}
    }
}

/// Runs what follows an answer, or the lack of one.
fn at(settings: &Settings, state: &mut State, replica: usize, then: impl FnOnce(Run<'_>, bool)) {
    let flight = state.replicas[replica].flight;
    if let Some(Flight { step: Step::Await { in_grace }, .. }) = flight {
        then(Run { settings, state, replica }, in_grace);
    }
}

fn set_expired(state: &mut State, expired: bool) {
    if let Some(intent) = &mut state.record.intent {
        intent.expired = expired;
    }
}

fn forget(state: &mut State, token: Token) {
    if !state.history.stored.has(token) {
        state.history.forgotten.insert(token);
    }
}

fn crash(settings: &Settings, state: &mut State, replica: usize) {
    let Some(flight) = state.replicas[replica].flight else { return };
    let blamed = state.record.doubt == Some(Owner::Flight(replica as u8));
    let outstanding = matches!(flight.step, Step::Await { .. } | Step::Keep(_) | Step::Release);
    if owns_intent(state, replica) || blamed || outstanding {
        state.history.crash_in_window = true;
    }
    if let Step::Revoke(token) = flight.step {
        state.history.forgotten.insert(token);
    }
    vanish(settings, state, replica);
}

/// A flight is no more, and all that waited for it.
fn vanish(settings: &Settings, state: &mut State, replica: usize) {
    let here = &mut state.replicas[replica];
    here.waiting = 0;
    let Some(flight) = here.flight.take() else { return };
    match flight.step {
        Step::Await { in_grace } => state.adrift[usize::from(flight.token)][usize::from(in_grace)] += 1,
        Step::Keep(fresh) => forget(state, fresh),
        _ => {}
    }
    if settings.keeps(Rule::OwnerIsFlight) {
        state.forget_owner(replica);
    }
}
