//! How an entry becomes a line.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::{Auth, Entry, Field, Fields};
use crate::primitives::path;
use crate::telemetry::{Pseudonyms, json};

/// One moment, by both clocks.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Now {
    steady: Instant,
    wall: SystemTime,
}

impl Now {
    /// The present one.
    pub(in crate::telemetry) fn read() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }
}

/// How entries become lines.
pub struct Format {
    pub(super) omit: Fields,
    pub(super) pseudonyms: Pseudonyms,
}

impl Format {
    /// Appends the line of an entry.
    pub(in crate::telemetry) fn write(&self, entry: &Entry, now: Now, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        let ago = now.steady.saturating_duration_since(entry.began);
        let began = now.wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        print(out, humantime::format_rfc3339_millis(began));
        out.extend_from_slice(b"\",\"stream\":\"access\"");
        let mut line = Line { out, omit: self.omit };
        if let Some(trace) = entry.trace {
            line.trace(trace);
        }
        let (site, route) = entry.route.names();
        line.text(Field::Site, site);
        line.text(Field::Route, route);
        line.address(Field::ClientIp, entry.client_ip.to_canonical(), None);
        line.text(Field::Method, entry.method);
        let (path, user_agent) = entry.texts();
        self.path(&mut line, path, entry.cut);
        line.text(Field::Protocol, entry.protocol);
        if let Some(status) = entry.status {
            line.number(Field::Status, status.into());
        }
        if let Some(reason) = entry.reason {
            line.text(Field::Reason, reason);
        }
        line.number(Field::BytesIn, entry.bytes_in);
        line.number(Field::BytesOut, entry.bytes_out);
        line.millis(Field::Duration, entry.took);
        if let Some(hop) = &entry.upstream {
            line.text(Field::Upstream, &hop.name);
            if let Some(address) = hop.address {
                line.address(Field::UpstreamAddress, address.ip(), Some(address.port()));
            }
            if let Some(took) = hop.took {
                line.millis(Field::UpstreamTime, took);
            }
        }
        if !user_agent.is_empty() {
            // Signs that steer a terminal; those of ASCII are escaped.
            let steers = |c: char| c.is_control() && !c.is_ascii();
            line.text(Field::UserAgent, &String::from_utf8_lossy(user_agent).replace(steers, "\u{fffd}"));
        }
        if let Some(sni) = &entry.sni {
            line.text(Field::Sni, sni);
        }
        if let Some(auth) = entry.auth.as_ref().filter(|_| !self.omit.has(Field::Auth)) {
            self.auth(auth, line.out);
        }
        out.extend_from_slice(b"}\n");
    }

    /// A path without a canonical form may be anything, and is not repeated.
    fn path(&self, line: &mut Line<'_>, path: &[u8], cut: bool) {
        if line.omit.has(Field::Path) {
            return;
        }
        let Some(path) = std::str::from_utf8(path).ok().and_then(|path| path::canonical(path).ok()) else { return };
        if cut {
            line.text(Field::Path, &format!("{path}…"));
        } else {
            line.text(Field::Path, &path);
        }
    }

    fn auth(&self, auth: &Auth, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"auth\":{\"state\":");
        json::string(out, auth.state);
        if let Some(session) = &auth.session {
            out.extend_from_slice(b",\"provider\":");
            json::string(out, &session.provider);
            out.extend_from_slice(b",\"level\":");
            json::string(out, session.level);
            out.extend_from_slice(b",\"session\":");
            json::string(out, &self.pseudonyms.of(&session.key));
        }
        if auth.refreshed {
            out.extend_from_slice(b",\"refreshed\":true");
        }
        if let Some(csrf) = auth.csrf {
            out.extend_from_slice(b",\"csrf\":");
            json::string(out, csrf);
        }
        out.push(b'}');
    }
}

/// Appends a number.
fn digits(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends what it displays.
fn print(out: &mut Vec<u8>, value: impl Display) {
    // A vector takes whatever is written.
    let _ = write!(out, "{value}");
}

/// A line under way.
struct Line<'l> {
    out: &'l mut Vec<u8>,
    omit: Fields,
}

impl Line<'_> {
    /// Begins a field, unless it is left out.
    fn begin(&mut self, field: Field) -> bool {
        if self.omit.has(field) {
            return false;
        }
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(field.as_str().as_bytes());
        self.out.extend_from_slice(b"\":");
        true
    }

    fn text(&mut self, field: Field, value: &str) {
        if self.begin(field) {
            json::string(self.out, value);
        }
    }

    fn number(&mut self, field: Field, value: u64) {
        if self.begin(field) {
            digits(self.out, value);
        }
    }

    fn trace(&mut self, id: u128) {
        if self.begin(Field::TraceId) {
            print(self.out, format_args!("\"{id:032x}\""));
        }
    }

    /// An address, as `std` displays it. Nearly all are IPv4, for which this is several times faster.
    fn address(&mut self, field: Field, ip: IpAddr, port: Option<u16>) {
        if !self.begin(field) {
            return;
        }
        self.out.push(b'"');
        match (ip, port) {
            (IpAddr::V4(ip), _) => {
                for (position, octet) in ip.octets().into_iter().enumerate() {
                    if position > 0 {
                        self.out.push(b'.');
                    }
                    digits(self.out, octet.into());
                }
            }
            (IpAddr::V6(ip), None) => print(self.out, ip),
            (IpAddr::V6(ip), Some(_)) => print(self.out, format_args!("[{ip}]")),
        }
        if let Some(port) = port {
            self.out.push(b':');
            digits(self.out, port.into());
        }
        self.out.push(b'"');
    }

    /// Milliseconds, to the microsecond.
    fn millis(&mut self, field: Field, value: Duration) {
        if self.begin(field) {
            let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
            digits(self.out, micros / 1000);
            self.out.push(b'.');
            let rest = micros % 1000;
            for digit in [rest / 100, rest / 10 % 10, rest % 10] {
                digits(self.out, digit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::access::{Hop, Known};

    fn line(omit: &[Field], path: &str, change: impl FnOnce(&mut Entry)) -> serde_json::Value {
        let pseudonyms = Pseudonyms::new(&zeroize::Zeroizing::new([1; 32]));
        let format = Format { omit: omit.iter().copied().collect(), pseudonyms };
        let route = Arc::new(Metrics::new().unwrap().route("s", "/r"));
        let (began, ip) = (Instant::now(), "192.0.2.7".parse().unwrap());
        let took = Duration::from_micros(1_020_304);
        let mut entry = Entry::new((began, took), route, ip, ("GET", "HTTP/1.1"), path.as_bytes(), Some(b"a\xff\"\n"));
        change(&mut entry);
        let mut out = Vec::new();
        format.write(&entry, Now::read(), &mut out);
        assert!(out.ends_with(b"}\n") && out.iter().filter(|byte| **byte == b'\n').count() == 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn numbers_and_addresses_are_written_as_others_write_them() {
        for (address, port) in [("203.0.113.250", 80), ("0.0.0.0", 65535), ("2001:db8::1", 443), ("::", 1)] {
            let ip: IpAddr = address.parse().unwrap();
            let line = line(&[], "/x", |entry| {
                entry.client_ip = ip;
                entry.upstream = Some(Hop {
                    name: "u".into(),
                    address: Some((ip, port).into()),
                    took: Some(Duration::from_micros(7)),
                });
                entry.bytes_out = u64::MAX;
            });
            assert_eq!(
                (&line["client_ip"], &line["upstream_address"]),
                (&ip.to_string().into(), &SocketAddr::from((ip, port)).to_string().into())
            );
            assert_eq!((line["duration_ms"].as_f64(), line["upstream_ms"].as_f64()), (Some(1020.304), Some(0.007)));
            assert_eq!(line["bytes_out"], u64::MAX);
            assert_eq!(line["user_agent"], "a\u{fffd}\"\n");
        }
        let mapped = line(&[], "/x", |entry| entry.client_ip = "::ffff:192.0.2.1".parse().unwrap());
        assert_eq!(mapped["client_ip"], "192.0.2.1");
    }

    #[test]
    fn a_path_is_canonical_or_not_there_and_never_endless() {
        let path = |path: &str| line(&[], path, |_| ()).get("path").map(|path| path.as_str().unwrap().to_owned());
        assert_eq!(path("/a/./b//%7Ec"), Some("/a/b/~c".into()));
        assert_eq!((path("/%zz"), path("")), (None, None));
        let long = format!("/first/{}/{}", "x".repeat(900), "%20".repeat(200));
        assert_eq!(path(&long), Some(format!("/first/{}…", "x".repeat(900))));
        assert_eq!(path(&format!("/{}", "x".repeat(5000))), None);
    }

    #[test]
    fn every_field_can_be_left_out() {
        let full = |entry: &mut Entry| {
            (entry.status, entry.reason, entry.sni) = (Some(200), Some("cut"), Some("s".into()));
            let address = Some(([127, 0, 0, 1], 1).into());
            entry.upstream = Some(Hop { name: "u".into(), address, took: Some(Duration::ZERO) });
            entry.trace = Some(7);
            let session = Some(Known { provider: "p".into(), level: "logged_on", key: [7; 32] });
            entry.auth = Some(Auth { state: "session", session, refreshed: true, csrf: Some("passed") });
        };
        let all = line(&[], "/x", full);
        assert_eq!(all["auth"]["session"].as_str().unwrap().len(), 22);
        for (name, field) in Field::ALL {
            let without = line(&[*field], "/x", full);
            assert!(all.get(name).is_some() && without.get(name).is_none(), "{name}");
            assert_eq!(all.as_object().unwrap().len(), without.as_object().unwrap().len() + 1);
        }
    }
}
