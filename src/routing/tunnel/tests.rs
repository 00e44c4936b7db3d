use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::*;
use crate::routing::frames::tests::{SWITCH, frames};

/// An upstream that sends its bytes in pieces, then nothing more; what it is sent it keeps.
struct Script {
    bytes: Vec<u8>,
    at: usize,
    pieces: Box<dyn Iterator<Item = usize>>,
    heard: Vec<u8>,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.pieces.next().unwrap().min(into.remaining()).min(self.bytes.len() - self.at);
        if count == 0 {
            return Poll::Pending;
        }
        into.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn read(turns: &mut Turns<Script>, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let mut into = ReadBuf::new(&mut bytes);
    std::future::poll_fn(|context| Pin::new(&mut *turns).poll_read(context, &mut into)).await.unwrap();
    into.filled().to_vec()
}

/// Reads all that a client would get if the tunnel is told to end after `tell` bytes of frames. Where that was.
async fn told_after(
    stream: Vec<u8>,
    tell: usize,
    pieces: impl Iterator<Item = usize> + 'static,
) -> (Vec<u8>, usize, Vec<u8>) {
    let (close, ending) = oneshot::channel();
    let stream = Script { bytes: stream, at: 0, pieces: Box::new(pieces), heard: Vec::new() };
    let mut turns = Turns { stream, looks_away: false, frames: Frames::new(), ending: Some(ending), farewell: None };
    turns.write_all(b"before").await.unwrap();
    let mut got = Vec::new();
    while got.len() < SWITCH.len() + tell {
        got.extend(read(&mut turns, 300).await);
    }
    let told = got.len();
    close.send(CloseCode::SessionOver).unwrap();
    loop {
        let piece = read(&mut turns, 300).await;
        if piece.is_empty() {
            return (got, told, turns.stream.heard);
        }
        got.extend(piece);
        turns.write_all(b"after").await.unwrap();
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(work)
}

proptest! {
    /// Whatever the frames, their pieces and the moment: the client gets whole frames, then the close frame, then the end.
    #[test]
    fn the_close_frame_stands_where_a_frame_ends(
        all in frames(),
        pieces in proptest::collection::vec(1usize..700, 1..40),
        share in 0.0f64..1.0,
    ) {
        let stream = [SWITCH.to_vec(), all.concat()].concat();
        let mut ends = vec![SWITCH.len()];
        ends.extend(all.iter().scan(SWITCH.len(), |at, frame| { *at += frame.len(); Some(*at) }));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let tell = ((stream.len() - SWITCH.len()) as f64 * share) as usize;
        let (got, told, heard) = run(told_after(stream.clone(), tell, pieces.into_iter().cycle()));
        let end = *ends.iter().find(|end| **end >= told).unwrap();
        prop_assert_eq!(&got[..end], &stream[..end]);
        prop_assert_eq!(&got[end..], &[0x88, 2, 0x11, 0x31][..]);
        prop_assert_eq!(heard, b"before");
    }
}

#[test]
fn a_frame_that_does_not_end_is_not_waited_for_long() {
    let stream = [SWITCH, &[0x82, 100, 1, 2, 3]].concat();
    run(async {
        let began = Instant::now();
        let (got, ..) = told_after(stream.clone(), 5, std::iter::repeat(9)).await;
        assert_eq!(got, stream);
        assert_eq!(began.elapsed(), FAREWELL);
    });
}
