//! A small HTTP server on one address that can be stopped, started again on the same port, and told to
//! break a connection. Stopping is abrupt on purpose: the listener closes and open connections are reset,
//! as when a process dies, because that is the case a proxy has to survive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::support::locked;

/// One address, one router, running or not.
pub(crate) struct Server {
    address: SocketAddr,
    router: Router,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Binds `address` (port 0 picks one) and serves what `router` builds for the bound address.
    pub(crate) fn start(address: SocketAddr, router: impl FnOnce(SocketAddr) -> Router) -> io::Result<Self> {
        let listener = bind(address)?;
        let address = listener.local_addr()?;
        let router = router(address);
        let running = Mutex::new(Some(Running::new(listener, router.clone())));
        Ok(Self { address, router, running })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and resets every open connection; returns when the port is free.
    pub(crate) async fn stop(&self) {
        let running = locked(&self.running).take();
        if let Some(running) = running {
            running.halt();
            // The task ends by being aborted; its end means that the listener is closed.
            let _ = running.task.await;
        }
    }

    /// Serves again on the same port. Does nothing while the server runs.
    pub(crate) fn restart(&self) -> io::Result<()> {
        let mut running = locked(&self.running);
        if running.is_none() {
            *running = Some(Running::new(bind(self.address)?, self.router.clone()));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = locked(&self.running).take() {
            running.halt();
        }
    }
}

impl Running {
    fn new(listener: TcpListener, router: Router) -> Self {
        let (stop, stopped) = watch::channel(false);
        let service = router.into_make_service_with_connect_info::<Line>();
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(Doorway { listener, stopped }, service).await {
                tracing::warn!(%error, "a demo server ended");
            }
        });
        Self { stop, task }
    }

    fn halt(&self) {
        // Nobody listens when no connection is open; that is fine.
        let _ = self.stop.send(true);
        self.task.abort();
    }
}

/// Binds at once, so that the caller learns of a taken port before anything runs.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Hands out connections that end when the server does.
struct Doorway {
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
}

impl Listener for Doorway {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let mut stopped = self.stopped.clone();
        let stop = Box::pin(async move {
            // An error means that the sender is gone, and so is the server.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        (Connection { stream, line: Line::default(), stop }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The handle by which a handler can break the connection its request came in on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Arc<AtomicBool>);

impl Line {
    /// From now on the connection carries nothing; it is reset as soon as the server touches it.
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Line {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Self {
        stream.io().line.clone()
    }
}

/// A TCP stream that fails once its line is cut or its server stopped.
struct Connection {
    stream: TcpStream,
    line: Line,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.line.is_cut() && self.stop.as_mut().poll(context).is_ready() {
            self.line.cut();
        }
        if self.line.is_cut() {
            // Closing without lingering sends a reset in place of an orderly end.
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.check(context).is_err() {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}
