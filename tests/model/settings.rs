//! What one run of the checker looks at: how many replicas, which faults, which kind of provider.

/// What the provider does with a refresh token that has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// It is dead. Showing it again ends the whole family.
    Strict,
    /// It may be shown again for a while, then as `Strict`.
    Grace(Reissue),
    /// It stays good; a refresh returns it again.
    Never,
}

/// What a refresh token that is shown again within the grace yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reissue {
    /// One more successor; the earlier ones stay good.
    Another,
    /// The successor that the first showing yielded.
    TheSame,
}

/// What a revocation takes with it (RFC 7009, section 2.1, leaves both open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revocation {
    /// The token alone.
    Token,
    /// Every token of the same login.
    Family,
}

/// One rule of the protocol. A run may break one of them, to show that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The intent is in the store before the token leaves.
    ClaimBeforeShowing,
    /// The token leaves only while the lease of its intent runs, by the owner's own clock.
    LeaseWhenShowing,
    /// A token that may have been shown is shown again only within the grace ...
    GraceAtTakeover,
    /// ... and the grace is looked at once more just before.
    GraceWhenShowing,
    /// "Busy, try later" after a second showing does not make the first one unshown.
    ShownStaysShown,
    /// An owner that never showed the token takes back the doubt others had because of its intent.
    WithdrawDoubt,
    /// An intent belongs to a flight, not to a replica: it is foreign after a restart.
    OwnerIsFlight,
    /// Tokens are in the store before anyone uses them.
    StoreBeforeUse,
    /// A write needs the version that was read; a deleted record has none.
    VersionedWrite,
    /// A token that comes after the logout is revoked.
    RevokeLateToken,
    /// While the session lives, none of its family is revoked.
    SpareLivingFamily,
    /// A logout knows the token before it deletes the record.
    ReadBeforeDelete,
    /// A client that goes away cancels nothing.
    GoneClientCancelsNothing,
}

/// A world to explore: its size, its provider and how often each misfortune may strike.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) replicas: usize,
    /// Requests per replica.
    pub(crate) requests: u8,
    /// How often the access token runs out; the first time is before the run begins.
    pub(crate) expiries: u8,
    pub(crate) rotation: Rotation,
    /// Whether the grace may end within the run. If not, every takeover is in time.
    pub(crate) grace_ends: bool,
    pub(crate) revocation: Revocation,
    pub(crate) logout: bool,
    pub(crate) aborts: bool,
    /// The provider itself ends the session.
    pub(crate) ended_by_provider: bool,
    /// A replica, or the logout, vanishes with all it knows.
    pub(crate) crashes: u8,
    /// The answer does not come. Whether the provider saw the request is open.
    pub(crate) lost_answers: u8,
    /// The provider says that it did nothing: refused connection, 429, 503.
    pub(crate) refusals: u8,
    /// The store did the write, but the writer hears of a failure.
    pub(crate) lost_replies: u8,
    /// A living owner cannot reach the store for longer than its lease.
    pub(crate) lost_leases: u8,
    /// Someone else writes the record: last use, new session id.
    pub(crate) touches: u8,
    pub(crate) broken: Option<Rule>,
}

impl Settings {
    /// Two replicas, two requests each, nothing goes wrong.
    pub(crate) const fn calm(rotation: Rotation) -> Self {
        Self {
            replicas: 2,
            requests: 2,
            expiries: 1,
            rotation,
            grace_ends: false,
            revocation: Revocation::Token,
            logout: false,
            aborts: false,
            ended_by_provider: false,
            crashes: 0,
            lost_answers: 0,
            refusals: 0,
            lost_replies: 0,
            lost_leases: 0,
            touches: 0,
            broken: None,
        }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }

    /// Whether this kind of provider lets a token be shown twice at all.
    pub(crate) fn grants_grace(&self) -> bool {
        self.rotation != Rotation::Strict
    }
}
