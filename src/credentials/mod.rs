//! A backend that logs users in with what they type, as its client: JSON in, tokens out.
//!
//! Knows nothing of sessions, cookies or Pingora. It speaks through the HTTP of [`oidc`](crate::oidc), and says what went
//! wrong with a refresh in the same words, so that the one engine refreshes tokens of every kind.
//!
//! - [`Backend`]: the way in;
//! - [`Form`]: what a page posts, read strictly;
//! - [`Granted`]: what a login brings.

mod alike;
mod answer;
mod attempts;
mod backend;
mod fold;
mod form;

pub use answer::Granted;
pub use attempts::TooMany;
pub use backend::{Backend, LoginError, Refreshed, claims};
pub use form::{Form, FormError};

#[cfg(test)]
pub(crate) mod tests;
