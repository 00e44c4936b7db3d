//! Cloakroom keeps OAuth tokens out of the browser.

pub mod demo;
