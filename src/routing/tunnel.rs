//! Connections for WebSocket tunnels.
//!
//! Pingora tells the upstream half of a request that there is no body through a queue. If the upstream has answered
//! `101` before that message is taken out, Pingora takes it for the end of the tunnel and closes it (Pingora #946). On
//! these connections the first look for an answer after each write finds nothing, so the message is always first.
//!
//! Towards an upstream that speaks TLS the handshake is done here, so that the frames can be seen.
//!
//! A tunnel can be told to end. Then the client gets a close frame as if the upstream had sent it, at the end of the frame
//! that is under way, and what the client still says goes nowhere. Where no such place can be known the connection just
//! ends.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::prelude::{Error, ErrorType};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frames::Frames;
use crate::config::settings::ServerName;

/// After being told to end a tunnel lasts at most this long: until the frame under way is over, and then until the client
/// has had time to answer the close frame. A socket that is closed on bytes nobody read would take the frame back.
const FAREWELL: Duration = Duration::from_millis(400);
/// Most bytes taken at once of a frame that is under way.
const PIECE: usize = 4096;

/// Why a tunnel is told to end: the code of its close frame (RFC 6455 §7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The session is over.
    SessionOver = 4401,
    /// This process stops.
    GoingAway = 1001,
}

impl CloseCode {
    /// The whole frame, as a server sends it.
    fn frame(self) -> [u8; 4] {
        let [high, low] = (self as u16).to_be_bytes();
        [0x88, 2, high, low]
    }
}

/// Opens the connections.
#[derive(Debug)]
pub(super) struct Connector {
    limit: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName)>,
    /// Tells the tunnel to end; there is one tunnel a connector.
    ending: Mutex<Option<oneshot::Receiver<CloseCode>>>,
}

impl Connector {
    /// `limit` is the longest wait for a connection, and again for a TLS handshake if there is one.
    pub(super) fn new(
        limit: Duration,
        tls: Option<(Arc<ClientConfig>, ServerName)>,
        ending: oneshot::Receiver<CloseCode>,
    ) -> Self {
        Self { limit, tls, ending: Mutex::new(Some(ending)) }
    }

    fn wrap<S: Socket>(&self, stream: S) -> Stream {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = Turns { stream, looks_away: false, frames: Frames::new(), ending, farewell: None };
        VirtualSocketStream::new(Box::new(socket)).into()
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        config: &Arc<ClientConfig>,
        name: &ServerName,
    ) -> pingora::Result<TlsStream<TcpStream>> {
        let unusable = |_| Error::explain(ErrorType::TLSHandshakeFailure, "a server name that is none");
        let name = rustls::pki_types::ServerName::try_from(name.as_str().to_owned()).map_err(unusable)?;
        match tokio::time::timeout(self.limit, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Error::e_because(ErrorType::TLSHandshakeFailure, "opening a tunnel", error),
            Err(_) => Error::e_explain(ErrorType::TLSHandshakeTimedout, "opening a tunnel"),
        }
    }
}

/// What a tunnel goes through.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug + 'static {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::explain(ErrorType::BindError, "no internet address"))?;
        match tokio::time::timeout(self.limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match &self.tls {
                None => Ok(self.wrap(stream)),
                Some((config, name)) => Ok(self.wrap(self.shake_hands(stream, config, name).await?)),
            },
            Ok(Err(error)) => Error::e_because(ErrorType::ConnectError, "opening a tunnel", error),
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "opening a tunnel"),
        }
    }
}

/// A connection that lets everybody else have a turn between a write and the next read, and that can be told to end.
#[derive(Debug)]
struct Turns<S> {
    stream: S,
    looks_away: bool,
    frames: Frames,
    ending: Option<oneshot::Receiver<CloseCode>>,
    farewell: Option<Farewell>,
}

/// The end of a tunnel.
#[derive(Debug)]
struct Farewell {
    /// The close frame, until it is sent.
    frame: Option<[u8; 4]>,
    until: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + Unpin> Turns<S> {
    fn hear(&mut self, context: &mut Context<'_>) {
        if self.farewell.is_some() || !self.frames.has_switched() {
            return;
        }
        let Some(ending) = &mut self.ending else { return };
        if let Poll::Ready(told) = Pin::new(ending).poll(context) {
            self.ending = None;
            let farewell = |code: CloseCode| Farewell { frame: Some(code.frame()), until: Box::pin(sleep(FAREWELL)) };
            self.farewell = told.ok().map(farewell);
        }
    }

    /// The rest of the frame under way, the close frame, a pause, the end.
    fn poll_farewell(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(farewell) = &mut self.farewell else { return Poll::Ready(Ok(())) };
        if self.frames.is_lost() || farewell.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let Some(frame) = farewell.frame else { return Poll::Pending };
        if self.frames.is_between() {
            if into.remaining() >= frame.len() {
                farewell.frame = None;
                into.put_slice(&frame);
            }
            return Poll::Ready(Ok(()));
        }
        let mut piece = [0; PIECE];
        let most = self.frames.certain().min(into.remaining()).min(PIECE);
        let mut piece = ReadBuf::new(piece.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        self.frames.pass(piece.filled());
        into.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.looks_away) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.hear(context);
        if self.farewell.is_some() {
            return self.poll_farewell(context, into);
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.frames.pass(into.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.farewell.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.looks_away = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Socket> VirtualSocket for Turns<S> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.tcp().set_nodelay(true),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
