//! What every session store must do, written once and run over each of them by [`suite`].

pub(super) mod changes;
pub(super) mod due;
pub(super) mod logins;
pub(super) mod owners;
pub(super) mod sessions;

use std::time::Duration;

use super::record::{Record, SessionKey};
use crate::primitives::clock::Timestamp;
use crate::primitives::random;

const IDLE: Duration = Duration::from_secs(30 * 60);
const ABSOLUTE: Duration = Duration::from_secs(12 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// Declares one test for each function here. `$make` is a future of a store, the manual clock it follows, and whatever
/// must live as long as the test.
macro_rules! suite {
    ($make:expr) => {
        $crate::store::conformance::suite! { @each sessions; $make;
            a_session_comes_back_as_it_was,
            every_byte_survives,
            an_unknown_session_is_none,
            create_again_puts_the_new_one_in_place,
            a_session_ends_when_idle,
            a_session_ends_in_any_case,
            an_expired_session_is_gone_for_every_method,
            replace_moves_the_version_by_compare_and_swap,
            replace_of_a_deleted_session_is_gone,
            replace_keeps_the_later_activity,
            an_over_session_is_kept_for_the_returning,
            replace_may_bring_the_absolute_end_forward,
            touch_moves_forward_only_and_leaves_the_version,
            touch_revives_nothing,
            touch_takes_many_and_none,
            delete_ends_the_session_once,
            of_many_swaps_exactly_one_is_stored,
        }
        $crate::store::conformance::suite! { @each logins; $make;
            a_login_is_taken_once,
            a_login_belongs_to_its_browser,
            a_login_expires,
            a_login_put_again_is_the_new_one,
            a_login_put_again_gives_the_old_one_back,
            of_many_puts_each_gets_the_one_before,
            the_seventeenth_login_drops_the_oldest,
            expired_logins_do_not_count,
            of_many_takes_exactly_one_gets_the_login,
            any_bytes_make_a_login,
        }
        $crate::store::conformance::suite! { @each owners; $make;
            sessions_are_found_by_their_owners,
            any_text_is_a_name_of_an_owner,
            an_ended_or_expired_session_is_not_found,
            a_replaced_session_is_still_found,
            create_again_belongs_to_the_new_owner_alone,
            all_sessions_of_an_owner_end_at_once,
        }
        $crate::store::conformance::suite! { @each due; $make;
            what_is_due_is_claimed_once_a_lease,
            a_claim_takes_no_more_than_its_limit,
            of_many_claimers_each_session_has_one,
            idle_and_dead_sessions_are_struck_off,
            rescheduling_moves_sessions_on_the_list,
            replacing_sets_when_it_is_due,
        }
        $crate::store::conformance::suite! { @each changes; $make;
            changes_are_told_in_order,
            the_end_of_an_owners_sessions_is_told,
            a_mark_is_made_once,
            of_many_marks_exactly_one_is_new,
            the_census_counts_living_sessions_by_key,
            ping_answers,
        }
    };
    (@each $group:ident; $make:expr; $($name:ident),+ $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (store, clock, _alive) = $make.await;
            $crate::store::conformance::$group::$name(std::sync::Arc::new(store), clock).await;
        }
    )+ };
}
pub(super) use suite;

/// A fresh session of version 1 that began now.
pub(crate) fn record(now: Timestamp) -> Record {
    Record {
        version: 1,
        site: "app.example.com".to_owned(),
        provider: "keycloak".to_owned(),
        subject: "alice".to_owned(),
        provider_session: Some("provider-session".to_owned()),
        created: now,
        last_seen: now,
        idle_end: now.plus(IDLE),
        absolute_end: now.plus(ABSOLUTE),
        returning_end: Timestamp::default(),
        rotation: 0,
        rotated: now,
        intent: None,
        refresh_in_doubt: None,
        retry_at: None,
        due: None,
        sealing_key: "test".to_owned(),
        generation: 1,
        sealed: b"\0\xffsealed\r\n".to_vec(),
    }
}

pub(crate) fn fresh_key() -> SessionKey {
    SessionKey::from_bytes(random::bytes().unwrap())
}
