//! `kill -9` at any moment: what was acknowledged is there.
//!
//! The test's own program is started again as the one that writes; it tells each acknowledged write on its standard
//! output, which outlives it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

const FILE: &str = "CLOAKROOM_TEST_FILE_STORE";
const WRITERS: u8 = 4;
const ROUNDS: u32 = 12;

/// Not a test: what the killed process does. Each writer has sessions of its own, and replaces and ends them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_of_the_crash_test() {
    use std::io::Write as _;
    let Some(path) = std::env::var_os(FILE) else { return };
    let store = Arc::new(open(Path::new(&path), &Clock::manual(START)).unwrap());
    let round: u32 = std::env::var("CLOAKROOM_TEST_ROUND").unwrap().parse().unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..u32::MAX {
                let key = name(round, writer, n);
                store.create(&key, &version(1)).await.unwrap();
                say(round, writer, n, 1);
                for next in 2..=3 {
                    let swap = store.replace(&key, next - 1, &version(next), Announce::Everyone).await.unwrap();
                    assert_eq!(swap, Swap::Stored);
                    say(round, writer, n, next);
                }
                if n % 4 == 0 {
                    assert!(store.delete(&key).await.unwrap().is_some());
                    say(round, writer, n, 0);
                }
            }
        })
    });
    let _ = futures::future::join_all(writers).await;
    std::io::stdout().flush().unwrap();
}

fn say(round: u32, writer: u8, n: u32, version: u64) {
    use std::io::Write as _;
    // One write for the line, so that a kill cuts none in two that matter.
    let line = format!("\nACK {round} {writer} {n} {version} .\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}

fn name(round: u32, writer: u8, n: u32) -> SessionKey {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&round.to_be_bytes());
    key[4] = writer;
    key[5..9].copy_from_slice(&n.to_be_bytes());
    SessionKey::from_bytes(key)
}

fn version(version: u64) -> Record {
    Record { version, sealed: vec![u8::try_from(version).unwrap(); 2_000], ..record(START) }
}

fn writer(path: &Path, round: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::file::tests::crash::the_writer_of_the_crash_test", "--nocapture", "--test-threads=1"])
        .env(FILE, path)
        .env("CLOAKROOM_TEST_ROUND", round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessions");
    // The last that was acknowledged of each session; 0 = its end.
    let mut told: HashMap<(u32, u8, u32), u64> = HashMap::new();
    for round in 0..ROUNDS {
        let mut child = writer(&path, round);
        let output = BufReader::new(child.stdout.take().unwrap());
        let (begun, first) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let note = |line: &String| {
                let _ = line.starts_with("ACK").then(|| begun.send(()));
            };
            output.lines().map_while(Result::ok).inspect(note).collect::<Vec<_>>()
        });
        // At another point of its work each time.
        first.recv_timeout(Duration::from_secs(60)).expect("it writes");
        std::thread::sleep(Duration::from_millis(20 + u64::from(round) * 17));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let words: Vec<_> = line.split(' ').collect();
            if let ["ACK", round, writer, n, version, "."] = words[..] {
                let key = (round.parse().unwrap(), writer.parse().unwrap(), n.parse().unwrap());
                told.insert(key, version.parse().unwrap());
            }
        }
        let store = open(&path, &Clock::manual(START)).expect("the file is whole");
        for ((round, writer, n), acknowledged) in &told {
            let found = store.load(&name(*round, *writer, *n)).await.unwrap();
            // Written, perhaps, and not acknowledged any more: one step further at most.
            match (acknowledged, found) {
                (0, None) => {}
                (3, None) if n % 4 == 0 => {}
                (acknowledged, Some(record)) if *acknowledged > 0 => {
                    assert!(record == version(record.version), "no half of a record");
                    assert!(record.version - acknowledged <= 1, "{acknowledged} was acknowledged");
                }
                (acknowledged, found) => panic!("{acknowledged} was acknowledged, and {found:?} is there"),
            }
        }
    }
    println!("{} sessions over {ROUNDS} kills", told.len());
    assert!(told.len() > 50, "the writers hardly wrote");
}
