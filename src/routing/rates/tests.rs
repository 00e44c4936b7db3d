use super::*;

/// The beginning of a part, where a part is 7.5 s long.
const START: Timestamp = Timestamp::from_millis(226_666_666 * 7_500);

fn limit(by: RateBy, requests: u32, per: Duration) -> RateLimit {
    RateLimit { by, requests, per }
}

fn minute(requests: u32) -> Box<Rates> {
    Rates::new(&[limit(RateBy::Address, requests, Duration::from_secs(60))], None).unwrap()
}

fn pass(rates: &Rates, key: u64, now: Timestamp) -> bool {
    rates.take(RateBy::Address, &key, now).is_ok()
}

/// When requests that come at these moments have passed.
fn passed(rates: &Rates, moments: impl Iterator<Item = Timestamp>) -> Vec<Timestamp> {
    moments.filter(|now| pass(rates, 7, *now)).collect()
}

/// Most of them in any time of this length.
fn most_within(moments: &[Timestamp], per: Duration) -> usize {
    let until = |at: usize| moments[at..].iter().take_while(|moment| moment.since(moments[at]) < per).count();
    (0..moments.len()).map(until).max().unwrap_or(0)
}

fn every(step: Duration, from: Timestamp, times: u32) -> impl Iterator<Item = Timestamp> {
    (0..times).map(move |n| from.plus(step * n))
}

#[test]
fn as_many_as_the_limit_pass_and_the_wait_that_is_told_is_true() {
    for offset in [0, 1, 3_749, 3_750, 7_499, 7_500, 59_999] {
        let (rates, now) = (minute(100), START.plus(Duration::from_millis(offset)));
        assert_eq!(passed(&rates, every(Duration::ZERO, now, 300)).len(), 100);
        let wait = rates.take(RateBy::Address, &7_u64, now).unwrap_err();
        assert!((Duration::from_secs(60)..=Duration::from_millis(67_500)).contains(&wait), "{wait:?}");
        assert!(!pass(&rates, 7, now.plus(wait - Duration::from_millis(1))), "{offset}");
        assert!(pass(&rates, 7, now.plus(wait)), "{offset}");
    }
}

#[test]
fn the_wait_is_for_one_more_request_and_not_for_all() {
    let (rates, part) = (minute(3), Duration::from_millis(7_500));
    for parts in [0, 2, 5] {
        assert!(pass(&rates, 7, START.plus(part * parts)));
    }
    let now = START.plus(part * 6);
    let wait = rates.take(RateBy::Address, &7_u64, now).unwrap_err();
    assert_eq!(now.plus(wait), START.plus(part * 9), "the first of the three is forgotten then");
    assert!(pass(&rates, 7, now.plus(wait)) && !pass(&rates, 7, now.plus(wait)));
}

#[test]
fn in_no_time_of_that_length_more_than_the_limit_pass() {
    let per = Duration::from_secs(60);
    // After a pause all at once at the end of a part, and on from there: what an average lets pass twice.
    let late = START.plus(Duration::from_millis(7_499));
    let floods = every(Duration::ZERO, late, 500).chain(every(Duration::from_millis(10), late, 60_000));
    assert_eq!(most_within(&passed(&minute(100), floods), per), 100);
    let mut now = START;
    let mut random = fastrand::Rng::with_seed(7);
    let mut restless = || {
        now = now.plus(Duration::from_millis(if random.u8(..) < 5 { random.u64(..90_000) } else { random.u64(..900) }));
        now
    };
    let passed = passed(&minute(50), std::iter::repeat_with(&mut restless).take(50_000));
    assert_eq!(most_within(&passed, per), 50);
}

#[test]
fn a_steady_flood_gets_what_the_limit_says_less_an_eighth_at_most() {
    // An hour, a hundred times as much as may pass.
    let passed = passed(&minute(60), every(Duration::from_millis(10), START, 360_000)).len();
    assert!((60 * 60 * 8 / 9..=60 * 60).contains(&passed), "{passed}");
}

#[test]
fn who_stays_an_eighth_below_the_limit_is_never_refused() {
    let steps = Duration::from_millis(60_000 * 9 / 8 / 100 + 7);
    assert_eq!(passed(&minute(101), every(steps, START, 20_000)).len(), 20_000);
}

#[test]
fn each_asks_for_itself_and_a_crowd_is_told_apart() {
    let rates = minute(100);
    assert_eq!(passed(&rates, every(Duration::ZERO, START, 200)).len(), 100);
    // Who has no counter with that one in common, which is nearly everybody.
    let strangers = (1_000..2_000).filter(|key| pass(&rates, *key, START)).count();
    assert!(strangers > 990, "{strangers}");
    // Four requests a counter: a newcomer is counted four too high on an average of one row, less by the lesser of two.
    for key in 0..4 * 16 * 1024 {
        pass(&rates, 10_000 + key, START);
    }
    let newcomers: usize = (0..100).map(|key| (0..200).filter(|_| pass(&rates, 1_000_000 + key, START)).count()).sum();
    assert!((100 * 94..=100 * 100).contains(&newcomers), "{newcomers}");
}

#[test]
fn addresses_and_sessions_do_not_share_a_count() {
    let second = Duration::from_secs(1);
    let rates = Rates::new(&[limit(RateBy::Session, 1, second), limit(RateBy::Address, 2, second)], None).unwrap();
    let take = |by| rates.take(by, &7_u64, START).is_ok();
    assert!(take(RateBy::Session) && !take(RateBy::Session));
    assert!(take(RateBy::Address) && take(RateBy::Address) && !take(RateBy::Address));
    assert!(rates.has(RateBy::Session) && !minute(1).has(RateBy::Session) && Rates::new(&[], None).is_none());
}

#[test]
fn several_limits_hold_together_and_what_one_refuses_none_counts() {
    let limits =
        [limit(RateBy::Address, 15, Duration::from_secs(60)), limit(RateBy::Address, 10, Duration::from_secs(1))];
    let rates = Rates::new(&limits, None).unwrap();
    assert_eq!(passed(&rates, every(Duration::ZERO, START, 1_000)).len(), 10);
    let later = START.plus(Duration::from_secs(3));
    assert_eq!(passed(&rates, every(Duration::ZERO, later, 1_000)).len(), 5);
    let wait = rates.take(RateBy::Address, &7_u64, later).unwrap_err();
    assert!(wait > Duration::from_secs(50), "the minute is what it waits for: {wait:?}");
}

#[test]
fn a_clock_that_is_set_ahead_or_back_locks_nobody_out() {
    let rates = minute(5);
    for hours in [10_u32, 20, 5, 6, 0] {
        let now = START.plus(Duration::from_secs(3600) * hours);
        assert_eq!(passed(&rates, every(Duration::ZERO, now, 20)).len(), 5, "{hours}");
    }
    assert_eq!(passed(&minute(5), every(Duration::ZERO, Timestamp::default(), 20)).len(), 5);
    assert_eq!(passed(&minute(5), every(Duration::ZERO, Timestamp::from_millis(u64::MAX), 20)).len(), 5);
}

#[test]
fn new_settings_forget_nothing_that_is_still_to_be_counted() {
    let rates = minute(10);
    assert_eq!(passed(&rates, every(Duration::ZERO, START, 4)).len(), 4);
    let second = limit(RateBy::Address, 8, Duration::from_secs(1));
    let higher = Rates::new(&[limit(RateBy::Address, 20, Duration::from_secs(60)), second], Some(&rates)).unwrap();
    assert_eq!(passed(&higher, every(Duration::ZERO, START, 50)).len(), 8);
    let later = START.plus(Duration::from_secs(2));
    assert_eq!(passed(&higher, every(Duration::ZERO, later, 50)).len(), 8, "twelve of the twenty were gone");
    let other = Rates::new(&[limit(RateBy::Session, 20, Duration::from_secs(60))], Some(&higher)).unwrap();
    assert!(other.take(RateBy::Session, &7_u64, later).is_ok());
}

#[test]
fn many_threads_pass_as_many_as_one_does() {
    const THREADS: usize = 8;
    let rates = minute(10_000);
    assert!(pass(&rates, 7, START), "the window is made ready");
    let rates = &rates;
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| (0..5_000).filter(|_| pass(rates, 7, START)).count())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Those that look at the same moment may each be the last.
    assert!((9_999..9_999 + THREADS).contains(&passed), "{passed}");
}

#[test]
fn threads_that_meet_at_the_end_of_a_part_lose_no_count_for_good() {
    let rates = &minute(100);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..20_000_u32).filter(|n| pass(rates, 7, START.plus(Duration::from_millis(100) * (n / 10)))).count()
            });
        }
    });
    let now = START.plus(Duration::from_secs(100_000));
    assert_eq!(passed(rates, every(Duration::ZERO, now, 500)).len(), 100);
}
