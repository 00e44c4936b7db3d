//! An HTTP/2 upstream, frame by frame: it answers, or does what no library would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wire::Peer;

/// Error codes (RFC 9113 §7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: usize = 24;
/// Room for every body, so that none waits.
const WINDOW: u32 = 1 << 20;

/// `:status: 200`, and `:status: 401` (RFC 7541).
const OK: &[u8] = &[0x88];
const UNAUTHORIZED: &[u8] = b"\x08\x03401";

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// 200 without a body, once it is whole.
    Answers,
    /// Its stream is reset as soon as its header is there.
    Resets(u32),
    /// Its stream is reset once it is whole.
    ReadsAndResets(u32),
    /// GOAWAY that leaves it behind.
    LeavesBehind(u32),
    /// GOAWAY that keeps it, and then an end without an answer.
    KeepsAndDies,
    /// The header of an answer, and then it is refused.
    AnswersAndRefuses,
    /// 401 before its body is read.
    Refuses401,
}

#[derive(Default)]
struct Seen {
    asked: usize,
    /// Sizes of the bodies of requests that were answered.
    answered: Vec<usize>,
}

/// A running upstream.
pub(crate) struct H2Peer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _peer: Peer,
}

impl H2Peer {
    /// `script` says what becomes of each request, by its number.
    pub(crate) async fn start(script: impl Fn(usize) -> Does + Clone + Send + 'static) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let kept = seen.clone();
        let peer = Peer::start(move |_, stream| {
            let (seen, script) = (kept.clone(), script.clone());
            async move {
                // An error is the other side's leave.
                let _ = serve(stream, &seen, script).await;
            }
        })
        .await;
        Self { address: peer.address, seen, _peer: peer }
    }

    /// Requests whose header has come.
    pub(crate) fn asked(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    /// Sizes of the bodies of all that were answered.
    pub(crate) fn answered(&self) -> Vec<usize> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).answered.clone()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

async fn serve(mut wire: TcpStream, seen: &Mutex<Seen>, script: impl Fn(usize) -> Does + Send) -> std::io::Result<()> {
    wire.set_nodelay(true)?;
    let mut preface = [0; PREFACE];
    wire.read_exact(&mut preface).await?;
    // SETTINGS_INITIAL_WINDOW_SIZE, and the same for the connection.
    wire.write_all(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &WINDOW.to_be_bytes()].concat())).await?;
    wire.write_all(&frame(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes())).await?;
    // Those that are read to their end, what has come of their bodies, and with what they are reset then.
    let mut open: Vec<(u32, usize, Option<u32>)> = Vec::new();
    loop {
        let mut head = [0; 9];
        wire.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        wire.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => wire.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            PING if flags & ACK == 0 => wire.write_all(&frame(PING, ACK, 0, &payload)).await?,
            HEADERS => {
                let number = {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.asked += 1;
                    seen.asked - 1
                };
                let answer = match script(number) {
                    Does::Answers => {
                        open.push((stream, 0, None));
                        Vec::new()
                    }
                    Does::ReadsAndResets(code) => {
                        open.push((stream, 0, Some(code)));
                        Vec::new()
                    }
                    Does::Resets(code) => reset(stream, code),
                    Does::LeavesBehind(code) => go_away(stream.saturating_sub(2), code),
                    Does::KeepsAndDies => return wire.write_all(&go_away(stream, NO_ERROR)).await,
                    Does::AnswersAndRefuses => {
                        [frame(HEADERS, END_HEADERS, stream, OK), reset(stream, REFUSED_STREAM)].concat()
                    }
                    Does::Refuses401 => {
                        let answer = frame(HEADERS, END_HEADERS | END_STREAM, stream, UNAUTHORIZED);
                        [answer, reset(stream, NO_ERROR)].concat()
                    }
                };
                wire.write_all(&answer).await?;
            }
            DATA => {
                if let Some((_, size, _)) = open.iter_mut().find(|(id, ..)| *id == stream) {
                    *size += payload.len();
                }
            }
            _ => continue,
        }
        if matches!(kind, HEADERS | DATA)
            && flags & END_STREAM != 0
            && let Some(place) = open.iter().position(|(id, ..)| *id == stream)
        {
            let (_, size, code) = open.swap_remove(place);
            let answer = match code {
                Some(code) => reset(stream, code),
                None => {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).answered.push(size);
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, OK)
                }
            };
            wire.write_all(&answer).await?;
        }
    }
}
