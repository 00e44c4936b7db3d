//! Limits on how often a route is asked.

use std::time::Duration;

use super::*;
use crate::config::settings::{RateBy, RateLimit};

const ACCESS: &str = "        access: required\n";

fn limits(list: &str) -> String {
    format!("        rate_limits: [{list}]\n")
}

#[test]
fn a_good_one_is_read_as_it_stands() {
    let list = "{ by: address, requests: 100, per: 1m }, { by: session, requests: 20, per: 1s }";
    let loaded = with(ACCESS, &limits(list)).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let limit = |by, requests, seconds| RateLimit { by, requests, per: Duration::from_secs(seconds) };
    let expected = [limit(RateBy::Address, 100, 60), limit(RateBy::Session, 20, 1)];
    assert_eq!(loaded.settings.sites[0].routes[0].rate_limits, expected);
}

#[test]
fn mistakes_in_one_are_told() {
    for (list, expected) in [
        ("{ by: address, requests: 1, per: 1h }", &[] as &[&str]),
        ("{ by: session, requests: 1000000, per: 1s }", &[]),
        ("{ by: address, requests: 0, per: 1m }", &["E0202"]),
        ("{ by: address, requests: 1000001, per: 1m }", &["E0202"]),
        ("{ by: address, requests: 1, per: 999ms }", &["E0202"]),
        ("{ by: address, requests: 1, per: 61m }", &["E0202"]),
        ("{ by: address, requests: 1, per: 60 }", &["E0201"]),
        ("{ by: address, requests: many, per: 1m }", &["E0103"]),
        ("{ by: ip, requests: 1, per: 1m }", &["E0104"]),
        ("{ requests: 1, per: 1m }", &["E0102"]),
        ("{ by: address }", &["E0102", "E0102"]),
        ("{ by: address, requests: 1, per: 1m, burst: 5 }", &["E0101"]),
        ("100", &["E0103"]),
        ("", &["E0105"]),
    ] {
        assert_eq!(codes(&with(ACCESS, &limits(list))), expected, "{list}");
    }
}

#[test]
fn two_of_them_must_make_sense_beside_each_other() {
    for (other, expected) in [
        ("{ by: address, requests: 10, per: 1m }", &["E0401"] as &[&str]),
        ("{ by: address, requests: 10, per: 60s }", &["E0401"]),
        ("{ by: session, requests: 10, per: 1m }", &[]),
        ("{ by: address, requests: 99, per: 1s }", &[]),
        ("{ by: address, requests: 100, per: 1s }", &["W0010"]),
        ("{ by: address, requests: 101, per: 1h }", &[]),
        ("{ by: address, requests: 100, per: 1h }", &["W0010"]),
    ] {
        let list = format!("{{ by: address, requests: 100, per: 1m }}, {other}");
        assert_eq!(codes(&with(ACCESS, &limits(&list))), expected, "{list}");
    }
    let list = "{ by: address, requests: 9, per: 1m }, { by: address, requests: 9, per: 1s }";
    let found = with(ACCESS, &limits(list)).unwrap().warnings;
    let message = &found.iter().next().unwrap().message;
    assert_eq!(message, "no more than 9 requests pass in 1m anyway, so the limit of 9 for 1s is never reached");
}

/// What is advised about the one contradiction.
fn help_of(outcome: &Result<Loaded, Diagnostics>) -> String {
    let found = outcome.as_ref().err().unwrap();
    found.iter().find(|found| found.code == Code::Contradiction).unwrap().help.clone().unwrap()
}

#[test]
fn where_no_session_is_looked_up_none_can_be_counted() {
    let list = limits("{ by: session, requests: 1, per: 1s }");
    for access in ["required", "optional"] {
        assert_eq!(codes(&with(ACCESS, &format!("        access: {access}\n{list}"))), [""; 0]);
    }
    let outcome = with(ACCESS, &format!("        access: public\n{list}"));
    // All of its routes are public: the aliases of its endpoints lead nowhere.
    assert_eq!(places(&outcome), ["27:15 W0010", "35:29 E0408"]);
    assert!(help_of(&outcome).contains("`access: optional`"));
    // A site without logins: the default access is a mistake of its own.
    let bare = GOOD.replace("    provider: main\n", "").replace("    aliases: { login: /login }\n", "");
    let outcome = load_text(&bare.replace(ACCESS, &format!("        access: public\n{list}")));
    assert!(help_of(&outcome).contains("name the site's `provider`"));
}
