use futures::FutureExt as _;

use super::*;
use crate::config::settings::{Refresh, SealingKey};
use crate::primitives::clock::Clock;
use crate::primitives::secret::{Key256, SecretText};
use crate::session::key_ring::KeyRing;
use crate::session::manager::NewSession;
use crate::session::model::Secrets;
use crate::session::profile::Profile;
use crate::session::ticket::TicketSeed;
use crate::store::frail::FrailStore;
use crate::store::{Change, Swap};
use crate::telemetry::Metrics;

const START: Timestamp = Timestamp::from_secs(1_900_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// One store, and two replicas that hear of its changes.
struct World {
    clock: Clock,
    store: Arc<FrailStore>,
    here: Arc<Sessions>,
    there: Arc<Sessions>,
    profile: Arc<Profile>,
}

fn replica(store: &Arc<FrailStore>, clock: &Clock, listens: bool) -> Arc<Sessions> {
    let ring = KeyRing::new(&[SealingKey { id: "test".into(), secret: Key256::new([7; 32]) }]).unwrap();
    let settings = crate::config::settings::Session::default();
    let metrics = Arc::new(Metrics::new().unwrap());
    let (sessions, touches) =
        Sessions::new(&settings, &Refresh::default(), store.clone(), ring, clock.clone(), metrics);
    let sessions = Arc::new(sessions);
    tokio::spawn(touches.run());
    if listens {
        let (sessions, changes) = (sessions.clone(), crate::store::SessionStore::changes(&**store));
        tokio::spawn(async move { sessions.listen(changes).await });
    }
    sessions
}

impl World {
    fn new() -> Self {
        Self::hearing(true)
    }

    /// `listens`: whether `here` hears of what others do.
    fn hearing(listens: bool) -> Self {
        let clock = Clock::manual(START);
        let store = Arc::new(FrailStore::new(clock.clone()));
        let (here, there) = (replica(&store, &clock, listens), replica(&store, &clock, true));
        let profile = Profile { site: "app".into(), providers: vec!["demo".into()], ..Profile::default() };
        Self { clock, store, here, there, profile: Arc::new(profile) }
    }

    async fn begin(&self) -> Arc<Open> {
        self.begin_with(None).await
    }

    async fn begin_with(&self, refresh_expires: Option<Timestamp>) -> Arc<Open> {
        let secrets = Secrets {
            access_token: SecretText::new("at".into()),
            bound: false,
            access_issued: self.clock.now(),
            access_expires: Some(self.clock.now().plus(MINUTE)),
            forced: None,
            max_age: None,
            refresh_token: Some(SecretText::new("rt".into())),
            refresh_expires,
            offline: false,
            id_token: None,
            claims: serde_json::Map::new(),
            context: serde_json::Map::new(),
            csrf_token: SecretText::new("csrf".into()),
            tickets: TicketSeed::generate().unwrap(),
        };
        let (provider, subject) = ("demo".to_owned(), "alice".to_owned());
        let new = NewSession { provider, subject, provider_session: None, secrets };
        self.here.begin(&new, &self.profile).await.unwrap()
    }

    fn vigil(&self, open: &Arc<Open>) -> Vigil {
        Vigil::new(self.here.clone(), open.clone())
    }

    async fn is_used(&self, replica: &Sessions, open: &Open) {
        let open = replica.lookup(open.id(), &self.profile).await.unwrap().expect("it lives");
        replica.note_use(&open, self.clock.now());
        settle().await;
    }

    /// New tokens, written by one replica.
    async fn refresh(&self, replica: &Sessions, open: &Open) -> Timestamp {
        let (record, mut secrets) = replica.read(open.key()).await.unwrap().expect("it lives");
        let end = self.clock.now().plus(2 * MINUTE);
        secrets.access_expires = Some(end);
        let (swap, _) = replica.write(open.key(), &record, &secrets, None).await.unwrap();
        assert_eq!(swap, Swap::Stored);
        end
    }

    fn at(&self, minutes: u32) -> Timestamp {
        START.plus(MINUTE * minutes)
    }

    fn go_to(&self, minutes: u32) {
        self.clock.advance(self.at(minutes).since(self.clock.now()));
    }
}

/// Lets everything that can run do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// What there is to say now. Asks again and again, as a caller does who has other things to wait for.
async fn said(vigil: &mut Vigil) -> Option<News> {
    for _ in 0..50 {
        if let Some(news) = vigil.next().now_or_never() {
            return Some(news);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test]
async fn everything_is_said_once_and_in_order() {
    let world = World::new();
    let open = world.begin().await;
    let mut vigil = world.vigil(&open);
    assert_eq!(said(&mut vigil).await, None);
    let end = world.refresh(&world.here, &open).await;
    assert_eq!(said(&mut vigil).await, Some(News::Refreshed(Some(end))));
    assert_eq!(said(&mut vigil).await, None);
    world.clock.advance(28 * MINUTE - Duration::from_millis(1));
    assert_eq!(said(&mut vigil).await, None);
    world.go_to(28);
    assert_eq!(said(&mut vigil).await, Some(News::Expiring(Limit::Idle, world.at(30))));
    assert_eq!(said(&mut vigil).await, None, "once");
    world.is_used(&world.here, &open).await;
    world.go_to(30);
    assert_eq!(said(&mut vigil).await, None, "it was used, so it goes on");
    world.go_to(56);
    assert_eq!(said(&mut vigil).await, Some(News::Expiring(Limit::Idle, world.at(58))), "the end has moved");
    world.go_to(58);
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Expired(Limit::Idle))));
}

#[tokio::test]
async fn listening_is_no_use() {
    let world = World::new();
    let open = world.begin().await;
    let mut vigil = world.vigil(&open);
    for minute in 1..30 {
        world.go_to(minute);
        let _ = said(&mut vigil).await;
    }
    assert_eq!(open.idle_end(), world.at(30));
    world.go_to(30);
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Expired(Limit::Idle))));
}

#[tokio::test]
async fn the_absolute_end_comes_however_much_it_is_used() {
    let world = World::new();
    let open = world.begin().await;
    let mut vigil = world.vigil(&open);
    for minute in (20..718).step_by(20) {
        world.go_to(minute);
        assert_eq!(said(&mut vigil).await, None, "{minute}");
        world.is_used(&world.here, &open).await;
    }
    world.go_to(717);
    world.is_used(&world.here, &open).await;
    assert_eq!(said(&mut vigil).await, None);
    world.go_to(718);
    assert_eq!(said(&mut vigil).await, Some(News::Expiring(Limit::Absolute, world.at(720))));
    world.go_to(720);
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Expired(Limit::Absolute))));
}

#[tokio::test]
async fn the_end_of_the_refresh_token_is_told_apart() {
    let world = World::new();
    let open = world.begin_with(Some(world.at(20))).await;
    let mut vigil = world.vigil(&open);
    world.go_to(18);
    assert_eq!(said(&mut vigil).await, Some(News::Expiring(Limit::Provider, world.at(20))));
    world.go_to(20);
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Expired(Limit::Provider))));
}

#[tokio::test]
async fn what_another_replica_does_is_heard() {
    let world = World::new();
    let open = world.begin().await;
    let mut vigil = world.vigil(&open);
    assert_eq!(said(&mut vigil).await, None);
    let end = world.refresh(&world.there, &open).await;
    assert_eq!(said(&mut vigil).await, Some(News::Refreshed(Some(end))));
    // A use elsewhere is announced by nobody: the store is asked when the time has come.
    world.go_to(20);
    world.is_used(&world.there, &open).await;
    world.go_to(30);
    assert_eq!(said(&mut vigil).await, None);
    world.go_to(48);
    assert_eq!(said(&mut vigil).await, Some(News::Expiring(Limit::Idle, world.at(50))));
    world.there.end(open.key()).await.unwrap();
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Ended)));
}

#[tokio::test]
async fn an_end_before_the_first_look_is_not_missed() {
    let world = World::hearing(false);
    let open = world.begin().await;
    world.there.end(open.key()).await.unwrap();
    assert_eq!(said(&mut world.vigil(&open)).await, Some(News::Over(Reason::Ended)));
    let open = world.begin().await;
    world.here.end(open.key()).await.unwrap();
    assert_eq!(world.vigil(&open).over().await, Reason::Ended);
}

#[tokio::test]
async fn who_may_have_missed_something_asks_the_store() {
    let world = World::hearing(false);
    let open = world.begin().await;
    let mut vigil = world.vigil(&open);
    assert_eq!(said(&mut vigil).await, None);
    world.here.hear(Change::Missed);
    assert_eq!(said(&mut vigil).await, None, "nothing has happened");
    let end = world.refresh(&world.there, &open).await;
    assert_eq!(said(&mut vigil).await, None);
    world.here.hear(Change::Missed);
    assert_eq!(said(&mut vigil).await, Some(News::Refreshed(Some(end))));
    world.there.end(open.key()).await.unwrap();
    assert_eq!(said(&mut vigil).await, None);
    // So many that the listener is too slow for them.
    for version in 0..100 {
        world.here.hear(Change::Replaced(*open.key(), version));
    }
    assert_eq!(said(&mut vigil).await, Some(News::Over(Reason::Ended)));
}

#[tokio::test]
async fn d1_while_the_store_is_silent_nothing_has_ended() {
    let world = World::new();
    let (used, unused) = (world.begin().await, world.begin().await);
    let (mut goes_on, mut ends) = (world.vigil(&used), world.vigil(&unused));
    for vigil in [&mut goes_on, &mut ends] {
        assert_eq!(said(vigil).await, None);
    }
    world.go_to(20);
    world.is_used(&world.there, &used).await;
    world.store.set_down(true);
    world.here.hear(Change::Missed);
    for minute in [21, 29, 30, 40] {
        world.go_to(minute);
        for vigil in [&mut goes_on, &mut ends] {
            assert_eq!(said(vigil).await, None, "{minute}");
        }
    }
    world.store.set_down(false);
    world.clock.advance(ASK_AGAIN);
    assert_eq!(said(&mut goes_on).await, None);
    assert_eq!(said(&mut ends).await, Some(News::Over(Reason::Expired(Limit::Idle))));
}

#[tokio::test]
async fn a_vigil_that_is_dropped_leaves_nothing_behind() {
    let world = World::new();
    let open = world.begin().await;
    let mut vigils: Vec<_> = (0..5).map(|_| world.vigil(&open)).collect();
    for vigil in &mut vigils {
        assert_eq!(said(vigil).await, None);
    }
    assert_eq!(world.here.watched(), 1);
    drop(vigils);
    assert_eq!(world.here.watched(), 0);
}
