//! Small checked types that every other room uses; nothing here knows of any room.

pub mod clock;
pub mod coding;
pub mod dpop;
pub mod failpoint;
pub mod neighbour;
pub mod path;
pub mod random;
pub mod reserved;
pub mod secret;
pub mod signing;
pub mod tally;
