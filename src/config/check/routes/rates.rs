//! How often a route may be asked.

use std::time::Duration;

use crate::config::check::duplicate;
use crate::config::decode::Reader;
use crate::config::diagnostic::Code;
use crate::config::schema::RATE_LIMIT;
use crate::config::settings::{RateBy, RateLimit};
use crate::config::source::Span;
use crate::config::values::{self, HOUR, SECOND};
use crate::config::yaml::Node;

/// Most requests of one limit.
const MOST: u64 = 1_000_000;
/// The longest time they are counted over. What is counted lies in this process alone: quotas of a day are not its matter.
const LONGEST: Duration = HOUR;

/// Reads `rate_limits`. `public`: the route looks up no session; `provider`: its site has logins.
pub(super) fn rate_limits(
    reader: &mut Reader<'_>,
    node: &Node,
    public: bool,
    provider: bool,
) -> Option<Vec<RateLimit>> {
    let mut seen: Vec<(RateLimit, Span)> = Vec::new();
    reader.list_of_some(node, |reader, item| {
        let fields = reader.fields(item, &RATE_LIMIT)?;
        let by = fields.required(reader, "by", "address", |reader, node| {
            let by = reader.choice(node, &[("address", RateBy::Address), ("session", RateBy::Session)])?;
            if by == RateBy::Session && public {
                no_session(reader, node, provider);
            }
            Some(by)
        });
        let requests = fields.required(reader, "requests", "100", |r, n| r.integer(n, 1, MOST));
        let per = fields.required(reader, "per", "1m", |r, n| values::duration(r, n, SECOND, LONGEST));
        let limit = RateLimit { by: by?, requests: u32::try_from(requests?).ok()?, per: per? };
        compare(reader, item, &limit, &seen);
        seen.push((limit, item.label()));
        Some(limit)
    })
}

fn no_session(reader: &mut Reader<'_>, node: &Node, provider: bool) {
    let (message, help) = if provider {
        let help = "write `by: address`, or give the route `access: optional`, which lets everyone pass too";
        ("a public route looks up no session, so there is none to count by", help)
    } else {
        let help = "write `by: address`, or name the site's `provider` and give the route another `access`";
        ("this site has no logins, so there is no session to count by", help)
    };
    reader.note(Code::Contradiction, node, message, help);
}

/// Two limits by the same thing must differ in `per`, and the one with the longer `per` must let more pass.
fn compare(reader: &mut Reader<'_>, item: &Node, limit: &RateLimit, seen: &[(RateLimit, Span)]) {
    for (other, at) in seen.iter().filter(|(other, _)| other.by == limit.by) {
        if other.per == limit.per {
            duplicate(reader, item, "this route has a limit by the same thing and for the same time already", *at);
            return;
        }
        let (short, long) = if limit.per < other.per { (limit, other) } else { (other, limit) };
        if long.requests <= short.requests {
            let message = format!(
                "no more than {} requests pass in {} anyway, so the limit of {} for {} is never reached",
                long.requests,
                humantime::format_duration(long.per),
                short.requests,
                humantime::format_duration(short.per),
            );
            let help = "remove the limit with the shorter `per`, or let more requests pass in the longer one";
            reader.note(Code::NoEffect, item, message, help);
            return;
        }
    }
}
