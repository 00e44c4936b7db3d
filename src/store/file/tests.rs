//! The conformance suite, and what only this store has.

mod crash;
mod damage;

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::store::conformance::{self, fresh_key, record};

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
const START: Timestamp = Timestamp::from_secs(1_000_000);

conformance::suite!(async {
    let clock = Clock::manual(START);
    let folder = tempfile::tempdir().unwrap();
    (open(&folder.path().join("sessions"), &clock).unwrap(), clock, folder)
});

fn open(path: &Path, clock: &Clock) -> Result<FileStore, FileStoreError> {
    FileStore::open(&settings::FileStore { path: path.to_owned() }, clock.clone())
}

async fn counts(store: &FileStore) -> [u64; 8] {
    store.engine.write(|tables| Ok(tables.counts())).await.unwrap()
}

#[tokio::test]
async fn all_of_it_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, clock) = (folder.path().join("sessions"), Clock::manual(START));
    let key = fresh_key();
    let first = Record { due: Some(START), ..record(START) };
    let login = LoginKey { browser: [1; 32], state: [2; 32] };
    let later = START.plus(std::time::Duration::from_secs(60));
    {
        let store = open(&path, &clock).unwrap();
        store.create(&key, &first).await.unwrap();
        store.put_login(&login, b"sealed", later).await.unwrap();
        assert!(store.mark(&MarkKey([3; 32]), START, later).await.unwrap());
    }
    let store = open(&path, &clock).unwrap();
    assert_eq!(store.load(&key).await.unwrap().unwrap(), first);
    let owner = Owner::Subject { provider: &first.provider, subject: &first.subject };
    assert_eq!(store.find(&owner).await.unwrap(), [(key, first.clone())]);
    let claim = Claim { due: START, active_since: START, lease: later, limit: 10 };
    assert_eq!(store.claim_due(&claim).await.unwrap(), [key]);
    assert_eq!(store.take_login(&login).await.unwrap().unwrap(), b"sealed");
    assert_eq!(store.marked(&MarkKey([3; 32])).await.unwrap(), Some(START));
}

#[tokio::test]
async fn what_has_ended_is_swept_by_later_writes_and_the_indexes_keep_step() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let store = open(&folder.path().join("sessions"), &clock).unwrap();
    for n in 0..20 {
        store.create(&fresh_key(), &Record { due: Some(START), ..record(START) }).await.unwrap();
        store.put_login(&LoginKey { browser: [n; 32], state: [n; 32] }, b"x", START).await.unwrap();
        store.mark(&MarkKey([n; 32]), START, START).await.unwrap();
    }
    // Two owners a session: a user and a session at the provider.
    let [sessions, ends, dues, owners, ..] = counts(&store).await;
    assert_eq!([sessions, ends, dues, owners], [20, 20, 20, 40]);
    clock.advance(std::time::Duration::from_secs(24 * 3600));
    for _ in 0..3 {
        store.create(&fresh_key(), &record(clock.now())).await.unwrap();
    }
    assert_eq!(counts(&store).await, [3, 3, 0, 6, 0, 0, 0, 0]);
}

/// One record that a later version wrote, or a fault of ours: nobody else may suffer for it.
#[tokio::test]
async fn a_session_that_cannot_be_read_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let store = open(&folder.path().join("sessions"), &clock).unwrap();
    let (bad, good) = (fresh_key(), fresh_key());
    for key in [&bad, &good] {
        store.create(key, &Record { due: Some(START), ..record(START) }).await.unwrap();
    }
    store.engine.write(move |tables| tables.spoil(&bad)).await.unwrap();
    assert!(matches!(store.load(&bad).await, Err(StoreError::Damaged(_))));
    let claim = Claim { due: START, active_since: START, lease: START.plus(SECOND * 9), limit: 10 };
    assert_eq!(store.claim_due(&claim).await.unwrap(), [good]);
    let owner = Owner::Subject { provider: "keycloak", subject: "alice" };
    assert_eq!(store.find(&owner).await.unwrap().len(), 1);
    assert_eq!(store.delete_of(&owner).await.unwrap().len(), 1);
    clock.advance(SECOND * 24 * 3600);
    store.create(&good, &record(clock.now())).await.unwrap();
    assert_eq!(counts(&store).await[..3], [1, 1, 0], "and it goes when it has ended");
}

/// Group commit: as many writers as there may be wait for the disk a few times, not each for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_one_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("sessions"), &Clock::manual(START)).unwrap());
    store.ping().await.unwrap();
    let before = store.disk.syncs();
    store.ping().await.unwrap();
    let one = store.disk.syncs() - before;
    assert!(one >= 1, "a write that is acknowledged is on the disk");
    let before = store.disk.syncs();
    let writers = (0..500).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.create(&fresh_key(), &record(START)).await.unwrap() })
    });
    futures::future::join_all(writers).await.into_iter().for_each(Result::unwrap);
    let syncs = store.disk.syncs() - before;
    println!("{one} waits for one write, {syncs} for 500 at once");
    assert!(syncs < 250 * one, "{syncs}");
}
