//! A connection before it is a request.
//!
//! Pingora by itself gives a client as long as it likes for the HTTP/2 preface, and restarts its clock with every byte
//! of a header. So the public sockets are plain TCP services of ours: [`edge`] counts the connection, shakes hands
//! under a deadline, and runs Pingora's proxy inside it, cut off if no whole request header arrives in time.
//! [`tls`] alone names the TLS backend.

pub mod connection;
pub mod edge;
pub mod tls;

pub use connection::{Connection, Tie, request_began, tie, untie};
pub use edge::{Edge, Limits, until_listening};

#[cfg(test)]
mod tests;
