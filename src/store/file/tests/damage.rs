//! Files that are not what they were, that others use, and disks that are full.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::StoreError;

/// A file with a few sessions, and the key of one.
async fn written(path: &Path) -> SessionKey {
    let store = open(path, &Clock::manual(START)).unwrap();
    let key = fresh_key();
    store.create(&key, &record(START)).await.unwrap();
    for _ in 0..50 {
        let record = Record { sealed: vec![7; 3_000], ..record(START) };
        store.create(&fresh_key(), &record).await.unwrap();
    }
    key
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let store = open(&path, &Clock::manual(START)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    assert!(store.warnings().await.is_empty());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(store.warnings().await.len(), 1);
}

#[tokio::test]
async fn a_second_one_is_told_who_is_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let store = open(&path, &Clock::manual(START)).unwrap();
    let error = open(&path, &Clock::manual(START)).err().unwrap().to_string();
    assert!(error.contains("lock") && error.contains(path.to_str().unwrap()), "{error}");
    store.ping().await.unwrap();
    drop(store);
    open(&path, &Clock::manual(START)).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    written(&path).await;
    let good = fs::read(&path).unwrap();
    let cut = &good[..good.len() / 2];
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    // Where the sessions are: a byte of one of them, known by its content.
    let inside = good.windows(64).position(|window| window == [7; 64]).unwrap();
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("cut", cut.to_vec()),
        ("zeros", vec![0; good.len()]),
        ("text", b"store: { kind: file }\n".repeat(1_000)),
        ("its first byte", flipped(0)),
        ("a byte of a session", flipped(inside)),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = open(&path, &Clock::manual(START)).err().unwrap_or_else(|| panic!("{name}: opened"));
        assert!(matches!(error, FileStoreError::Damaged(..)), "{name}: {error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&path).unwrap().len(), bytes.len(), "{name}: it is not replaced");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(counts(&open(&path, &Clock::manual(START)).unwrap()).await[0], 51, "the copy that was put back");
}

/// F5: any one byte, anywhere: an error at start, or every session as it was. Never a panic, never something else.
#[tokio::test]
async fn f5_any_flipped_byte_is_found_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let key = written(&path).await;
    let good = fs::read(&path).unwrap();
    let (mut found, mut harmless) = (0, 0);
    for at in (0..good.len()).step_by(good.len() / 150) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        match open(&path, &Clock::manual(START)) {
            Err(error) => {
                assert!(matches!(error, FileStoreError::Damaged(..) | FileStoreError::Newer(..)), "{at}: {error}");
                found += 1;
            }
            Ok(store) => {
                assert_eq!(counts(&store).await[0], 51, "byte {at}");
                assert_eq!(store.load(&key).await.unwrap().unwrap(), record(START), "byte {at}");
                harmless += 1;
            }
        }
    }
    println!("{found} found, {harmless} in pages that hold nothing");
    assert!(found > 20);
}

#[tokio::test]
async fn f4_a_full_disk_is_told_by_name_and_costs_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    let clock = Clock::manual(START);
    let store = open(&path, &clock).unwrap();
    let key = fresh_key();
    store.create(&key, &record(START)).await.unwrap();
    store.disk.set_room(fs::metadata(&path).unwrap().len() / 2);
    let big = || Record { sealed: vec![1; 64 * 1024], ..record(START) };
    let mut kept = Vec::new();
    let error = loop {
        let key = fresh_key();
        match store.create(&key, &big()).await {
            Ok(()) => kept.push(key),
            Err(error) => break error,
        }
        assert!(kept.len() < 1_000, "the disk is never full");
    };
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("the disk is full")), "{error}");
    for _ in 0..5 {
        // What a failed one had asked for may do for a last one.
        let last = fresh_key();
        kept.extend(store.create(&last, &big()).await.is_ok().then_some(last));
        assert_eq!(store.load(&key).await.unwrap().unwrap(), record(START), "reading goes on");
    }
    assert!(store.create(&fresh_key(), &big()).await.is_err());
    store.disk.set_room(u64::MAX);
    store.create(&fresh_key(), &big()).await.expect("there is room again");
    for key in &kept {
        assert!(store.load(key).await.unwrap().is_some());
    }
    drop(store);
    assert_eq!(counts(&open(&path, &clock).unwrap()).await[0], kept.len() as u64 + 2);
}
