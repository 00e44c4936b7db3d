//! The runs: worlds in which everything must hold, and worlds with one rule broken, in which the checker must notice.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::properties::{LOGOUT_ABSOLUTE, NO_LOSS, NO_REUSE, NOTHING_LEFT, STORED_FIRST, UNSHOWN_AT_REST};
use crate::settings::{Reissue, Revocation, Rotation, Rule, Settings};

const STRICT: Rotation = Rotation::Strict;
const ANOTHER: Rotation = Rotation::Grace(Reissue::Another);
const THE_SAME: Rotation = Rotation::Grace(Reissue::TheSame);
const NEVER: Rotation = Rotation::Never;

/// Explores all of a world and demands that every property holds in it.
fn holds(name: &str, settings: &Settings) {
    let started = Instant::now();
    let checker = settings.clone().checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    let of = format!("{:?}, {:?}", settings.rotation, settings.revocation);
    println!("{name} ({of}): {states} states, depth {depth}, {:.1?}", started.elapsed());
    checker.assert_properties();
}

/// Each kind of provider, with a grace that lasts and one that ends.
fn of_all_kinds(name: &str, world: impl Fn(Settings) -> Settings) {
    for rotation in [STRICT, ANOTHER, THE_SAME, NEVER] {
        for revocation in [Revocation::Token, Revocation::Family] {
            let calm = Settings { revocation, ..Settings::calm(rotation) };
            holds(name, &world(calm.clone()));
            if matches!(rotation, Rotation::Grace(_)) {
                holds(&format!("{name}, grace ends"), &world(Settings { grace_ends: true, ..calm }));
            }
        }
    }
}

#[test]
fn calm() {
    of_all_kinds("calm", |calm| Settings { expiries: 2, touches: 1, aborts: true, ..calm });
}

#[test]
fn logout() {
    of_all_kinds("logout", |calm| Settings { logout: true, touches: 1, lost_replies: 1, ..calm });
    of_all_kinds("logout, no answer", |calm| Settings { logout: true, lost_answers: 1, ..calm });
}

#[test]
fn crash() {
    of_all_kinds("crash", |calm| Settings { expiries: 2, crashes: 1, refusals: 1, lost_replies: 1, ..calm });
}

#[test]
fn crash_and_logout() {
    of_all_kinds("crash and logout", |calm| Settings { crashes: 1, logout: true, lost_replies: 1, ..calm });
}

#[test]
fn store_fails() {
    of_all_kinds("store fails", |calm| Settings { expiries: 2, lost_replies: 1, lost_leases: 1, refusals: 1, ..calm });
}

#[test]
fn provider_fails() {
    of_all_kinds("provider fails", |calm| Settings {
        expiries: 2,
        lost_answers: 1,
        refusals: 1,
        ended_by_provider: true,
        ..calm
    });
}

/// All misfortunes at once. Minutes, and only with optimisation.
#[test]
#[ignore = "large: cargo test --profile demo --test model -- --ignored"]
fn everything_at_once() {
    of_all_kinds("everything", |calm| Settings {
        logout: true,
        ended_by_provider: true,
        crashes: 1,
        lost_answers: 1,
        refusals: 1,
        lost_replies: 1,
        lost_leases: 1,
        touches: 1,
        ..calm
    });
}

/// Three replicas, two crashes.
#[test]
#[ignore = "large: cargo test --profile demo --test model -- --ignored"]
fn three_replicas() {
    of_all_kinds("three replicas", |calm| Settings {
        replicas: 3,
        logout: true,
        crashes: 2,
        lost_answers: 1,
        lost_replies: 1,
        ..calm
    });
}

/// Breaks one rule and demands a counterexample to the property it stands for.
fn notices(rule: Rule, property: &'static str, world: Settings) {
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let kept = world.clone().checker().threads(2).spawn_bfs().join();
    assert!(kept.discovery(property).is_none(), "{property} fails although every rule is kept");
    let broken = Settings { broken: Some(rule), ..world }.checker().finish_when(wanted).spawn_bfs().join();
    let path = broken.discovery(property).unwrap_or_else(|| panic!("{rule:?} is broken, and nobody notices"));
    let actions = path.into_actions();
    println!("without {rule:?}: not \"{property}\", after {} steps", actions.len());
    actions.iter().for_each(|action| println!("    {action:?}"));
}

fn strict() -> Settings {
    Settings::calm(STRICT)
}

/// A grace that ends: the hardest of all.
fn short_grace() -> Settings {
    Settings { grace_ends: true, ..Settings::calm(ANOTHER) }
}

#[test]
fn a_token_shown_before_the_intent_is_written_is_shown_twice() {
    notices(Rule::ClaimBeforeShowing, NO_REUSE, strict());
}

#[test]
fn an_owner_that_shows_after_its_lease_shows_too_late() {
    notices(Rule::LeaseWhenShowing, NO_REUSE, Settings { lost_leases: 1, ..short_grace() });
}

#[test]
fn a_takeover_without_grace_is_taken_for_theft() {
    notices(Rule::GraceAtTakeover, NO_REUSE, Settings { crashes: 1, ..strict() });
}

#[test]
fn a_takeover_that_dawdles_is_taken_for_theft() {
    notices(Rule::GraceWhenShowing, NO_REUSE, Settings { crashes: 1, ..short_grace() });
}

#[test]
fn a_refusal_of_the_second_showing_says_nothing_of_the_first() {
    let world = Settings { crashes: 1, refusals: 1, ..short_grace() };
    notices(Rule::ShownStaysShown, UNSHOWN_AT_REST, world.clone());
    notices(Rule::ShownStaysShown, NO_REUSE, world);
}

#[test]
fn a_doubt_that_nobody_takes_back_loses_sessions_to_an_outage_of_the_store() {
    notices(Rule::WithdrawDoubt, NO_LOSS, Settings { lost_leases: 1, ..strict() });
}

#[test]
fn an_intent_from_before_a_restart_is_foreign() {
    notices(Rule::OwnerIsFlight, NO_REUSE, Settings { crashes: 1, ..strict() });
}

#[test]
fn tokens_used_before_they_are_stored() {
    notices(Rule::StoreBeforeUse, STORED_FIRST, strict());
}

#[test]
fn a_write_that_asks_for_no_version_undoes_a_logout() {
    notices(Rule::VersionedWrite, LOGOUT_ABSOLUTE, Settings { logout: true, ..strict() });
}

#[test]
fn a_late_token_that_is_not_revoked_outlives_the_logout() {
    notices(Rule::RevokeLateToken, NOTHING_LEFT, Settings { logout: true, ..strict() });
}

#[test]
fn a_superfluous_token_that_is_revoked_takes_the_session_along() {
    let family = Settings { revocation: Revocation::Family, ..strict() };
    notices(Rule::SpareLivingFamily, NO_LOSS, Settings { expiries: 2, lost_replies: 1, ..family });
    let family = Settings { revocation: Revocation::Family, ..Settings::calm(ANOTHER) };
    notices(Rule::SpareLivingFamily, NO_LOSS, Settings { lost_leases: 1, ..family });
}

#[test]
fn a_logout_that_deletes_what_it_has_not_read_may_lose_the_token() {
    notices(Rule::ReadBeforeDelete, NOTHING_LEFT, Settings { logout: true, lost_replies: 1, ..strict() });
}

#[test]
fn a_client_that_goes_away_must_not_take_the_flight_along() {
    notices(Rule::GoneClientCancelsNothing, NO_LOSS, Settings { aborts: true, ..strict() });
}
