//! Connections for WebSocket tunnels.
//!
//! Pingora tells the upstream half of a request that there is no body through a queue. If the upstream has answered
//! `101` before that message is taken out, Pingora takes it for the end of the tunnel and closes it (Pingora #946). On
//! these connections the first look for an answer after each write finds nothing, so the message is always first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::prelude::{Error, ErrorType};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Opens the connections.
#[derive(Debug)]
pub(super) struct Connector {
    /// Longest wait for a connection.
    pub(super) limit: Duration,
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::explain(ErrorType::BindError, "no internet address"))?;
        match tokio::time::timeout(self.limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let socket = Turns { stream, looks_away: false };
                Ok(VirtualSocketStream::new(Box::new(socket)).into())
            }
            Ok(Err(error)) => Error::e_because(ErrorType::ConnectError, "opening a tunnel", error),
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "opening a tunnel"),
        }
    }
}

/// A connection that lets everybody else have a turn between a write and the next read.
#[derive(Debug)]
struct Turns {
    stream: TcpStream,
    looks_away: bool,
}

impl AsyncRead for Turns {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.looks_away) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Turns {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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

impl VirtualSocket for Turns {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            _ => Ok(()),
        }
    }
}
