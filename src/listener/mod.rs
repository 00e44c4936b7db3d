//! A connection before it is a request.
//!
//! Pingora by itself gives a client as long as it likes for the HTTP/2 preface, and restarts its clock with every byte
//! of a header. So the public sockets are plain TCP services of ours: [`edge`] counts the connection, shakes hands
//! under a deadline, and runs Pingora's proxy inside it, cut off if no whole request header arrives in time.

mod certificates;
pub mod connection;
mod crowd;
mod cut;
mod descriptors;
pub mod edge;
mod give_back;
mod held;
pub mod overload;
mod proxy_protocol;
mod resident;
pub mod sockets;
pub mod tls;
pub mod upkeep;

pub use certificates::end_of as end_of_certificate;
pub use connection::{Connection, Tie, request_began, tie, untie};
pub use edge::{Edge, Trusted, until_listening};
pub use overload::Overload;
#[cfg(any(test, fuzzing))]
pub(crate) use proxy_protocol::{Said, parse, read};
pub use sockets::{Sockets, SocketsError};

#[cfg(test)]
mod tests;
