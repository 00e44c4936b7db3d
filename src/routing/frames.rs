//! Where an upstream's side of a WebSocket tunnel stands: in its answer, between two frames, or inside one.
//!
//! Only the lengths in frame headers are read (RFC 6455 §5.2); payloads are skipped unseen. What is not understood to the
//! last bit leaves the tracker [lost](Frames::is_lost) for good, and nothing is ever put into such a tunnel.

/// Longest answer header that is followed.
const LONGEST_ANSWER: usize = 32 * 1024;
/// A frame header without extended length and mask.
const SHORT: usize = 2;
/// Opcode of a close frame.
const CLOSE: u8 = 8;

/// Follows what an upstream sends.
#[derive(Debug)]
pub(super) struct Frames(State);

#[derive(Debug)]
enum State {
    /// In a header of the answer.
    Answer(Vec<u8>),
    /// In the header of a frame, or before it if there is no byte of it yet.
    Head { bytes: [u8; 10], have: usize },
    /// So many bytes of the frame are to come.
    Rest(u64),
    /// After a close frame nothing may follow (RFC 6455 §5.5.1), or the stream makes no sense.
    Lost,
}

/// Between two frames.
const BETWEEN: State = State::Head { bytes: [0; 10], have: 0 };

impl Frames {
    /// Before the first byte of the answer.
    pub(super) fn new() -> Self {
        Self(State::Answer(Vec::new()))
    }

    /// Whether the protocol was switched.
    pub(super) fn has_switched(&self) -> bool {
        !matches!(self.0, State::Answer(_))
    }

    /// Whether a whole frame may be put in here.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.0, State::Head { have: 0, .. })
    }

    /// Whether no place to put a frame will ever come.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.0, State::Lost)
    }

    /// So many more bytes surely belong to the frame that has begun; at least one, unless this is between two frames.
    pub(super) fn certain(&self) -> usize {
        match &self.0 {
            State::Head { have: 1, .. } => 1,
            State::Head { bytes, have: have @ SHORT.. } => head_length(bytes).saturating_sub(*have),
            State::Rest(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            State::Head { .. } | State::Answer(_) | State::Lost => 0,
        }
    }

    /// These bytes went by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match &mut self.0 {
                State::Answer(head) => {
                    let rest = read_answer(head, bytes);
                    if let Some((next, rest)) = rest {
                        self.0 = next;
                        rest
                    } else {
                        return;
                    }
                }
                State::Head { bytes: head, have } => {
                    let Some((byte, rest)) = bytes.split_first() else { return };
                    if let Some(place) = head.get_mut(*have) {
                        *place = *byte;
                    }
                    *have += 1;
                    if *have >= SHORT && *have >= head_length(head) {
                        self.0 = after_head(head);
                    }
                    rest
                }
                State::Rest(left) => {
                    let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
                    *left -= here;
                    if *left == 0 {
                        self.0 = BETWEEN;
                    }
                    bytes.get(usize::try_from(here).unwrap_or(usize::MAX)..).unwrap_or_default()
                }
                State::Lost => return,
            };
        }
    }
}

/// Bytes up to the end of the extended length; the mask, which no server sends, counts as payload.
fn head_length(head: &[u8; 10]) -> usize {
    let [_, second, ..] = head;
    SHORT
        + match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
}

fn after_head(head: &[u8; 10]) -> State {
    let [first, second, a, b, c, d, e, f, g, h] = *head;
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes([a, b])),
        127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        short => u64::from(short),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    match length.checked_add(mask) {
        _ if first & 0x0f == CLOSE => State::Lost,
        Some(0) => BETWEEN,
        Some(left) if length >> 63 == 0 => State::Rest(left),
        _ => State::Lost,
    }
}

/// The state after the answer's header and the bytes behind it; `None` while it is not complete.
fn read_answer<'b>(head: &mut Vec<u8>, bytes: &'b [u8]) -> Option<(State, &'b [u8])> {
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' && head.last() != Some(&b'\r') || head.len() >= LONGEST_ANSWER {
            // Parsers do not agree on a bare line feed.
            return Some((State::Lost, &[]));
        }
        head.push(*byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.first_chunk::<4>());
        let next = match status {
            Some(b"101 ") => BETWEEN,
            // An interim answer; the next one follows.
            Some([b'1', _, _, b' ' | b'\r']) => State::Answer(Vec::new()),
            _ => State::Lost,
        };
        let rest = bytes.get(at + 1..).unwrap_or_default();
        return Some((next, rest));
    }
    None
}

#[cfg(test)]
pub(super) mod tests;
