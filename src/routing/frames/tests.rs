use proptest::prelude::*;

use super::*;

pub(crate) const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

/// A frame as a peer writes it, with the shortest length or a longer one.
fn frame(first: u8, payload: usize, masked: bool, wide: usize) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match (payload, wide) {
        (0..126, 0) => bytes.push(mask | u8::try_from(payload).unwrap()),
        (0..65_536, 0 | 1) => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(u64::try_from(payload).unwrap().to_be_bytes());
        }
    }
    bytes.extend(std::iter::repeat_n(0x88, payload + if masked { 4 } else { 0 }));
    bytes
}

pub(crate) fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let first = prop_oneof![Just(0x81u8), Just(0x02), Just(0x80), Just(0x89), Just(0xc2)];
    let payload = prop_oneof![0usize..130, 65_500usize..65_600, Just(0)];
    let one = (first, payload, any::<bool>(), 0usize..3).prop_map(|(first, n, mask, wide)| frame(first, n, mask, wide));
    proptest::collection::vec(one, 0..6)
}

proptest! {
    /// The tracker says "between" exactly where a frame ends, however the bytes are cut into pieces, and never promises
    /// bytes that belong to the next frame.
    #[test]
    fn it_knows_every_boundary_and_no_other_place(all in frames(), pieces in proptest::collection::vec(1usize..700, 1..40)) {
        let mut stream = SWITCH.to_vec();
        let mut ends = vec![stream.len()];
        for frame in &all {
            stream.extend(frame);
            ends.push(stream.len());
        }
        let mut tracker = Frames::new();
        let (mut at, mut pieces) = (0, pieces.into_iter().cycle());
        while at < stream.len() {
            let next = (at + pieces.next().unwrap()).min(stream.len());
            tracker.pass(&stream[at..next]);
            at = next;
            prop_assert_eq!(tracker.is_between(), ends.contains(&at), "at {} of {:?}", at, ends);
            prop_assert_eq!(tracker.has_switched(), at >= SWITCH.len());
            if tracker.has_switched() && !tracker.is_between() {
                let end = *ends.iter().find(|end| **end > at).unwrap();
                prop_assert!(tracker.certain() >= 1 && at + tracker.certain() <= end);
            }
        }
        prop_assert!(!tracker.is_lost());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), switch in any::<bool>()) {
        let mut tracker = Frames::new();
        if switch { tracker.pass(SWITCH) }
        for byte in bytes {
            tracker.pass(&[byte]);
            let _ = tracker.certain();
        }
    }
}

#[test]
fn after_a_close_frame_nothing_may_follow() {
    let mut tracker = Frames::new();
    tracker.pass(SWITCH);
    assert!(tracker.is_between());
    tracker.pass(&[0x88, 0x02, 0x03, 0xe8]);
    assert!(tracker.is_lost() && !tracker.is_between());
}

#[test]
fn what_is_no_switch_or_can_be_read_in_two_ways_is_left_alone() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"HTTP/1.1 401 Unauthorized\r\n\r\n",
        b"HTTP/1.0 101 Switching Protocols\r\n\r\n",
        b"\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\n\r\n\r\n",
        b"nonsense\r\n\r\n",
    ] {
        let mut tracker = Frames::new();
        tracker.pass(answer);
        assert!(tracker.is_lost(), "{}", String::from_utf8_lossy(answer));
    }
    let mut tracker = Frames::new();
    tracker.pass(&vec![b'x'; LONGEST_ANSWER + 1]);
    assert!(tracker.is_lost());
    let mut tracker = Frames::new();
    tracker.pass(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert!(!tracker.has_switched());
    tracker.pass(SWITCH);
    assert!(tracker.is_between(), "an interim answer may come first");
    tracker.pass(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert!(tracker.is_lost(), "no length has its highest bit set");
}
