//! Listening sockets that somebody else has opened: systemd (socket activation), or the process whose place this one
//! takes. Either way they stay open while one process follows another, and no client is refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use listenfd::ListenFd;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::{ServiceReadyNotifier, ServiceWithDependents};

/// How long a new process waits for the sockets; Pingora's number.
pub const HAND_OVER_SECONDS: u64 = 6;
/// Most sockets in one hand-over; Pingora's number.
pub const MOST: usize = 32;
/// `Flags` of a listening socket in `/proc/net/unix`.
const LISTENING: u32 = 0x1_0000;

/// Where the listening sockets come from.
#[derive(Debug, Default)]
pub enum Sockets {
    /// The process opens them.
    #[default]
    Own,
    /// They were open when it began, some of them at least.
    Given(Given),
    /// Another process hands them over through the socket at this path.
    HandedOver(PathBuf),
}

/// Sockets that were open when the process began.
#[derive(Debug, Default)]
pub struct Given(Vec<(SocketAddr, OwnedFd)>);

/// The sockets cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// One of `LISTEN_FDS` is no listening TCP socket.
    #[error("socket {0} of those given by the environment (LISTEN_FDS) is none that listens for TCP: {1}")]
    Given(usize, io::Error),
    /// A stranger could take or give sockets.
    #[error("shutdown.upgrade_socket: {0}")]
    Unsafe(String),
    /// More than can be handed over.
    #[error("{0} sockets are too many to be handed over (at most {MOST}): restart instead")]
    Many(usize),
}

impl Sockets {
    /// Those given by systemd, if there are any, as sd_listen_fds(3) has it.
    ///
    /// # Errors
    /// [`SocketsError::Given`]
    pub fn of_environment() -> Result<Self, SocketsError> {
        // `listenfd` takes sockets that are meant for another process if nobody says for whom.
        let mut from = if std::env::var_os("LISTEN_PID").is_some() { ListenFd::from_env() } else { ListenFd::empty() };
        let mut given = Vec::new();
        for index in 0..from.len() {
            let told = |error| SocketsError::Given(index, error);
            if let Some(socket) = from.take_tcp_listener(index).map_err(told)? {
                given.push(opened(socket).map_err(told)?);
            }
        }
        Ok(if given.is_empty() { Self::Own } else { Self::Given(Given(given)) })
    }

    /// Those that another process hands over through a socket that is made at `path`, for so many listeners.
    ///
    /// # Errors
    /// [`SocketsError::Unsafe`], [`SocketsError::Many`]
    pub fn handed_over(path: &Path, listeners: usize) -> Result<Self, SocketsError> {
        if listeners > MOST {
            return Err(SocketsError::Many(listeners));
        }
        check_folder(path).map_err(SocketsError::Unsafe)?;
        Ok(Self::HandedOver(path.to_path_buf()))
    }

    /// Whether this address can be listened on, by a socket that is open already or by one that the process will open.
    ///
    /// # Errors
    /// The system's, if there is no such socket.
    pub(crate) fn try_out(&self, address: SocketAddr) -> io::Result<()> {
        let is_given = |given: &Given| given.0.iter().any(|(one, _)| *one == address);
        match (self, TcpListener::bind(address)) {
            (_, Ok(_)) => Ok(()),
            (Self::Given(given), Err(_)) if is_given(given) => Ok(()),
            // It is most likely the socket that is to come, or a port for which the right is not needed then.
            (Self::HandedOver(_), Err(error))
                if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) =>
            {
                Ok(())
            }
            (_, Err(error)) => Err(error),
        }
    }
}

/// Pingora waits for readiness itself; a socket that blocks would hold up a whole thread.
fn opened(socket: TcpListener) -> io::Result<(SocketAddr, OwnedFd)> {
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it is a connection; the socket unit needs `Accept=no`"));
    }
    socket.set_nonblocking(true)?;
    Ok((socket.local_addr()?, socket.into()))
}

impl Given {
    /// Leaves out and closes what `wanted` has no use for; their addresses.
    pub(crate) fn keep(&mut self, wanted: &[SocketAddr]) -> Vec<SocketAddr> {
        let (kept, other): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|(address, _)| wanted.contains(address));
        self.0 = kept;
        other.into_iter().map(|(address, _)| address).collect()
    }
}

/// Tells Pingora of the sockets before whoever depends on this service begins to listen.
#[async_trait]
impl ServiceWithDependents for Given {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        _: ShutdownWatch,
        _: usize,
        ready_notifier: ServiceReadyNotifier,
    ) {
        if let Some(fds) = fds {
            let mut fds = fds.lock();
            for (address, socket) in self.0.drain(..) {
                tracing::debug!(%address, descriptor = socket.as_raw_fd(), "a socket was given");
                // From here on Pingora owns it.
                fds.add(address.to_string(), socket.into_raw_fd());
            }
        }
        ready_notifier.notify_ready();
    }

    fn name(&self) -> &str {
        "given sockets"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// Whether a new process listens at `path` for our sockets. Asked before they are sent: what is sent is given away.
///
/// # Errors
/// What is wrong, and what to do.
pub fn is_awaited(path: &Path) -> Result<(), String> {
    check_folder(path)?;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    if is_socket && listens(&sockets, path) {
        return Ok(());
    }
    Err(format!("no process waits at {}; start `cloakroom run --upgrade` with these settings first", path.display()))
}

/// A file that a killed process left behind looks like a socket too, but is none of the system's any more.
fn listens(sockets: &str, path: &Path) -> bool {
    sockets.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let flags = fields.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & LISTENING != 0) && fields.nth(3).is_some_and(|at| Path::new(at) == path)
    })
}

/// Pingora opens the socket to everyone, so the folder must not be.
fn check_folder(path: &Path) -> Result<(), String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = folder.display();
    let found = std::fs::symlink_metadata(folder).map_err(|error| {
        format!("{shown}: {error}; make the folder, for nobody but the user of Cloakroom: `install -d -m 0700 {shown}`")
    })?;
    if !found.is_dir() {
        return Err(format!("{shown} is no folder, or a symbolic link, which may be changed: name the folder itself"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!(
            "{shown} belongs to somebody else, who could take the sockets: `chown` it to the user of Cloakroom"
        ));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("others may enter {shown} and take the sockets: `chmod 0700 {shown}`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_who_listens_in_a_closed_folder_is_given_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let open = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let path = folder.path().join("upgrade.sock");
        open(0o700);
        assert!(is_awaited(&path).unwrap_err().contains("--upgrade"));
        std::fs::write(&path, "").unwrap();
        assert!(is_awaited(&path).is_err(), "a file");
        std::fs::remove_file(&path).unwrap();

        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(is_awaited(&path), Ok(()));
        for mode in [0o701, 0o710, 0o770] {
            open(mode);
            assert!(is_awaited(&path).unwrap_err().contains("chmod 0700"));
            assert!(matches!(Sockets::handed_over(&path, 2), Err(SocketsError::Unsafe(_))));
        }
        open(0o700);
        assert!(matches!(Sockets::handed_over(&path, MOST + 1), Err(SocketsError::Many(_))));
        drop(listener);
        assert!(path.exists() && is_awaited(&path).is_err(), "left behind by a process that ended");
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(check_folder(&real.join("upgrade.sock")).is_ok());
        assert!(check_folder(&link.join("upgrade.sock")).unwrap_err().contains("symbolic link"));
    }

    #[test]
    fn a_socket_that_does_not_listen_is_none_of_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let told = opened(TcpListener::from(OwnedFd::from(connection))).unwrap_err().to_string();
        assert!(told.contains("Accept=no"), "{told}");
    }

    #[test]
    fn a_folder_that_is_missing_is_told_with_the_command_that_makes_it() {
        let told = Sockets::handed_over(Path::new("/nowhere/at/all/upgrade.sock"), 2).unwrap_err().to_string();
        assert!(
            told.contains("shutdown.upgrade_socket") && told.contains("install -d -m 0700 /nowhere/at/all"),
            "{told}"
        );
    }

    #[test]
    fn given_sockets_are_told_apart_by_their_address() {
        let sockets: Vec<_> = (0..2).map(|_| opened(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()).collect();
        let (wanted, other) = (sockets[0].0, sockets[1].0);
        let mut given = Given(sockets);
        assert_eq!(given.keep(&[wanted]), [other]);
        let given = Sockets::Given(given);
        assert!(given.try_out(wanted).is_ok() && given.try_out(other).is_ok(), "the other one is closed");
        assert!(Sockets::Own.try_out(wanted).is_err());
        let handed = Sockets::HandedOver(PathBuf::new());
        assert!(handed.try_out(wanted).is_ok());
        assert!(handed.try_out("192.0.2.1:1".parse().unwrap()).is_err(), "not an address of this machine");
    }
}
