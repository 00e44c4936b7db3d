//! What must hold, always, and what the run must at least once get to.

use stateright::Property;

use crate::provider::Token;
use crate::settings::{Reissue, Revocation, Rotation, Settings};
use crate::state::{Logout, State, Step};
use crate::world::Action;

pub(crate) const NO_REUSE: &str = "the provider never takes us for a thief";
pub(crate) const SHOWN_ONCE: &str = "a token is shown again only after a fault, and only where a grace allows it";
pub(crate) const UNSHOWN_AT_REST: &str = "a token in a record without intent or doubt has not been used up";
pub(crate) const NO_LOSS: &str = "no session is lost without a reason";
pub(crate) const LOGOUT_ABSOLUTE: &str = "a session that was logged out stays so";
pub(crate) const NOTHING_LEFT: &str = "after a logout no known token stays good";
pub(crate) const STORED_FIRST: &str = "nobody uses tokens that are not stored";
pub(crate) const NO_STANDSTILL: &str = "something can always go on";

pub(crate) const REFRESHED: &str = "seen: a refresh is done";
pub(crate) const SHARED: &str = "seen: two requests wait for one flight, a flight waits for another replica";
pub(crate) const TAKEN_OVER: &str = "seen: a takeover brings tokens";
pub(crate) const LATE: &str = "seen: tokens come after the logout and are revoked";
pub(crate) const HEALED: &str = "seen: tokens come after another replica was in doubt";
pub(crate) const WITHDRAWN: &str = "seen: an owner may take back a doubt";
pub(crate) const LOST: &str = "seen: a session is lost";
pub(crate) const REPLY_LOST: &str = "seen: a flight finds its own intent after a lost reply";
pub(crate) const SUPERFLUOUS: &str = "seen: tokens come after another replica has stored its own";

pub(crate) fn of(settings: &Settings) -> Vec<Property<Settings>> {
    let mut properties = vec![
        Property::always(NO_REUSE, |_, state: &State| !state.provider.reuse_detected()),
        Property::always(SHOWN_ONCE, |_, state: &State| !state.history.shown_needlessly),
        Property::always(UNSHOWN_AT_REST, unshown_at_rest),
        Property::always(NO_LOSS, |settings: &Settings, state: &State| !is_lost(state) || may_lose(settings, state)),
        Property::always(LOGOUT_ABSOLUTE, |_, state: &State| !state.history.revived),
        Property::always(NOTHING_LEFT, nothing_left),
        Property::always(STORED_FIRST, |_, state: &State| !state.history.unstored_used),
        Property::always(NO_STANDSTILL, can_go_on),
    ];
    if settings.broken.is_none() {
        properties.extend(seen(settings));
    }
    properties
}

/// Proof that a run is not empty: which states it gets to, by its settings.
fn seen(settings: &Settings) -> Vec<Property<Settings>> {
    let mut seen = vec![Property::sometimes(REFRESHED, |settings: &Settings, state: &State| {
        state.record.generation == settings.expiries && state.replicas.iter().all(|replica| replica.coming == 0)
    })];
    let leases_end = settings.crashes > 0 || settings.lost_leases > 0;
    let mut want = |wanted: bool, name, condition: fn(&Settings, &State) -> bool| {
        if wanted {
            seen.push(Property::sometimes(name, condition));
        }
    };
    want(settings.requests > 1, SHARED, |_, state| {
        state.record.intent.is_some()
            && state.replicas.iter().any(|replica| replica.waiting > 1)
            && state.flights().filter(|flight| flight.step == Step::Read).count() > 0
    });
    want(settings.grants_grace() && leases_end, TAKEN_OVER, |_, state| {
        state.flights().any(|flight| flight.shown_before && matches!(flight.step, Step::Keep(_)))
    });
    want(settings.logout, LATE, |_, state| {
        state.history.logged_out && state.flights().any(|flight| matches!(flight.step, Step::Revoke(_)))
    });
    let doubts = !settings.grants_grace() || settings.grace_ends;
    want(doubts && settings.lost_leases > 0, HEALED, |_, state| {
        state.record.doubt.is_some()
            && state.flights().any(|flight| matches!(flight.step, Step::Keep(_)) && flight.current)
    });
    want(doubts && settings.lost_leases > 0, WITHDRAWN, |_, state| {
        state.record.doubt.is_some() && state.flights().any(|flight| flight.step == Step::Claim && flight.current)
    });
    want(settings.ended_by_provider || doubts && leases_end && settings.crashes > 0, LOST, |_, state| is_lost(state));
    want(settings.lost_replies > 0, REPLY_LOST, |_, state| {
        state.record.intent.is_some()
            && state.flights().any(|flight| flight.step == Step::Claim && !flight.shown_before)
    });
    want(
        settings.rotation == Rotation::Grace(Reissue::Another) && settings.lost_leases > 0,
        SUPERFLUOUS,
        |_, state| {
            state.flights().any(|flight| {
                matches!(flight.step, Step::Keep(token) if token != state.record.token)
                    && flight.generation < state.record.generation
            })
        },
    );
    seen
}

fn unshown_at_rest(_: &Settings, state: &State) -> bool {
    let record = &state.record;
    let at_rest = !record.deleted && record.intent.is_none() && record.doubt.is_none();
    !at_rest || state.history.ended_by_provider || state.provider.is_good(record.token)
}

/// The browser will have to log in again although nobody logged out.
fn is_lost(state: &State) -> bool {
    let record = &state.record;
    let ended = if record.deleted {
        !state.history.logged_out
    } else {
        record.doubt.is_some() || record.intent.is_none() && !state.provider.is_good(record.token)
    };
    ended && state.at_rest()
}

/// Reasons that excuse a lost session: the provider ended it; or a crash or a lost answer left it open whether the
/// token is used up, and there was no grace or it was over. With a grace, also an owner that lost the store for so long
/// that another took over, and that one too late.
fn may_lose(settings: &Settings, state: &State) -> bool {
    let history = &state.history;
    let open = history.crash_in_window || history.answer_lost;
    let too_late = history.grace_ended && (open || history.lease_lost);
    history.ended_by_provider || if settings.grants_grace() { too_late } else { open }
}

fn nothing_left(settings: &Settings, state: &State) -> bool {
    let history = &state.history;
    if !(history.logged_out && state.record.deleted && state.at_rest() && state.logout == Logout::Over) {
        return true;
    }
    // Where a revocation takes the family along, even tokens that nobody knows of are dead.
    let family = settings.revocation == Revocation::Family && settings.crashes == 0;
    let excused = |token: Token| history.forgotten.has(token) && !family;
    state.provider.good_tokens().all(excused)
}

fn can_go_on(settings: &Settings, state: &State) -> bool {
    use stateright::Model;
    if state.at_rest() {
        return true;
    }
    let mut actions = Vec::new();
    settings.actions(state, &mut actions);
    actions.into_iter().any(Action::is_progress)
}
