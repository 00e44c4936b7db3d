//! The provider: which refresh tokens it has issued in this login and what has become of each.

use crate::settings::{Reissue, Revocation, Rotation};

/// Most tokens that one run may issue.
pub(crate) const TOKENS: usize = 8;

/// A refresh token. They are numbered in the order of issue; 0 is the one of the login.
pub(crate) type Token = u8;

/// A set of refresh tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tokens(u8);

impl Tokens {
    pub(crate) fn insert(&mut self, token: Token) {
        self.0 |= 1 << token;
    }

    pub(crate) fn remove(&mut self, token: Token) {
        self.0 &= !(1 << token);
    }

    pub(crate) fn has(self, token: Token) -> bool {
        self.0 & (1 << token) != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Unissued,
    Good,
    Spent { successor: Token },
    Revoked,
}

/// What the token endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Issued(Token),
    InvalidGrant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Provider {
    tokens: [Status; TOKENS],
    /// No token of the family is good any more.
    ended: bool,
    /// It took us for a thief: a spent token came again.
    reuse_detected: bool,
}

impl Provider {
    pub(crate) fn new() -> Self {
        let mut tokens = [Status::Unissued; TOKENS];
        tokens[0] = Status::Good;
        Self { tokens, ended: false, reuse_detected: false }
    }

    /// A refresh token arrives. `in_grace`: the time since it was first shown is within the grace.
    pub(crate) fn refresh(&mut self, rotation: Rotation, token: Token, in_grace: bool) -> Answer {
        if self.ended {
            return Answer::InvalidGrant;
        }
        match (self.tokens[usize::from(token)], rotation) {
            (Status::Good, Rotation::Never) => Answer::Issued(token),
            (Status::Good, _) => {
                let successor = self.issue();
                self.tokens[usize::from(token)] = Status::Spent { successor };
                Answer::Issued(successor)
            }
            (Status::Spent { successor }, Rotation::Grace(Reissue::TheSame)) if in_grace => Answer::Issued(successor),
            (Status::Spent { .. }, Rotation::Grace(Reissue::Another)) if in_grace => Answer::Issued(self.issue()),
            (Status::Spent { .. }, _) => {
                self.ended = true;
                self.reuse_detected = true;
                Answer::InvalidGrant
            }
            (Status::Revoked | Status::Unissued, _) => Answer::InvalidGrant,
        }
    }

    fn issue(&mut self) -> Token {
        let free = self.tokens.iter().position(|status| *status == Status::Unissued).expect("TOKENS is too small");
        self.tokens[free] = Status::Good;
        free as Token
    }

    pub(crate) fn revoke(&mut self, revocation: Revocation, token: Token) {
        match revocation {
            Revocation::Token => self.tokens[usize::from(token)] = Status::Revoked,
            Revocation::Family => self.ended = true,
        }
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn reuse_detected(&self) -> bool {
        self.reuse_detected
    }

    /// Whether a refresh with this token would succeed, without any grace.
    pub(crate) fn is_good(&self, token: Token) -> bool {
        !self.ended && self.tokens[usize::from(token)] == Status::Good
    }

    pub(crate) fn good_tokens(&self) -> impl Iterator<Item = Token> + '_ {
        (0..TOKENS as Token).filter(|token| self.is_good(*token))
    }
}
