//! Named moments of a refresh at which a test can hold the process, or kill it. Only with the feature `failpoints`; what
//! is shipped is built without it, and of [`fail_point!`] nothing is left then.

/// Marks a moment.
#[cfg(feature = "failpoints")]
macro_rules! fail_point {
    ($name:literal) => {
        fail::fail_point!($name)
    };
}

/// Marks a moment, for tests that build with the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
macro_rules! fail_point {
    ($name:literal) => {};
}

pub(crate) use fail_point;

/// All moments, in the order in which a refresh comes to them.
#[cfg(feature = "failpoints")]
pub const POINTS: [&str; 7] = [
    "refresh::before_intent",
    "refresh::after_intent",
    "refresh::before_show",
    "refresh::after_answer",
    "refresh::before_store",
    "refresh::after_store",
    "refresh::before_waiters",
];

/// Obeys `CLOAKROOM_DIE_AT=POINT` or `POINT+MICROSECONDS`: the process dies there, as by `kill -9`, or so much later.
#[cfg(feature = "failpoints")]
pub fn obey_environment() {
    let Ok(order) = std::env::var("CLOAKROOM_DIE_AT") else { return };
    let (point, micros) = order.split_once('+').unwrap_or((&order, "0"));
    let delay = std::time::Duration::from_micros(micros.parse().unwrap_or(0));
    let die = move || {
        if delay.is_zero() {
            std::process::abort();
        }
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            std::process::abort();
        });
    };
    if let Err(error) = fail::cfg_callback(point, die) {
        tracing::error!(error, point, "no such moment");
    }
}
