//! The PROXY protocol, versions 1 and 2: what a load balancer says about a connection before its first byte.

use std::net::SocketAddr;

use bytes::BytesMut;
use pingora::protocols::l4::stream::Stream;
use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::AsyncReadExt as _;

/// Most bytes of a header: addresses, and what a load balancer adds to them.
const LONGEST: usize = 16 * 1024;

/// Most bytes of a header of version 1 (PROXY protocol §2.1).
const LONGEST_LINE: usize = 107;
/// Where version and command stand in a header of version 2, behind its signature.
const COMMAND: usize = 12;
/// Version 2, command `LOCAL`.
const LOCAL: u8 = 0x20;

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The client's address and the one that it connected to.
    Client(SocketAddr),
    /// The load balancer passes on a client that it cannot name.
    Somebody,
    /// The load balancer speaks for itself, as with a health check.
    Itself,
}

/// Reads a header off the front of the stream. The error is for the log.
pub(crate) async fn read(stream: &mut Stream) -> Result<Said, String> {
    let mut buffer = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut buffer).await.map_err(|error| error.to_string())? == 0 {
            return Err("the connection ends before its PROXY header does".to_owned());
        }
        if let Some((said, length)) = parse(&buffer)? {
            stream.rewind(buffer.get(length..).unwrap_or_default());
            return Ok(said);
        }
        if buffer.len() > LONGEST {
            return Err("a PROXY header without end".to_owned());
        }
    }
}

/// The header in front of these bytes and its length; `None` if it is not whole yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Said, usize)>, String> {
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        Ok((_, length)) if !is_strict(bytes.get(..length).unwrap_or_default()) => {
            Err("a PROXY header that others read differently".to_owned())
        }
        Ok((header, length)) => {
            let said = match header.proxied_address() {
                // An address of a datagram cannot be the one of this connection.
                Some(address) if address.protocol == Protocol::Stream => Said::Client(address.source),
                Some(_) => return Err("a PROXY header of a datagram".to_owned()),
                None if is_local(bytes) => Said::Itself,
                None => Said::Somebody,
            };
            Ok(Some((said, length)))
        }
        Err(Error::BufferTooShort) => Ok(None),
        Err(error) => Err(format!("no PROXY header: {error}")),
    }
}

/// Whether a header that the library has read is one to the letter (PROXY protocol §2.1). It takes any sign behind `PROXY`,
/// ports like `+80` and `0080`, and a line of any length as long as it comes in one piece.
fn is_strict(header: &[u8]) -> bool {
    if header.first() != Some(&b'P') {
        return true;
    }
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit) && (port.len() == 1 || port.first() != Some(&b'0'));
    let Some(line) = header.strip_prefix(b"PROXY ").and_then(|line| line.strip_suffix(b"\r\n")) else { return false };
    // The ports come last, behind the family and two addresses.
    let ports = line.split(|byte| *byte == b' ').skip(3);
    header.len() <= LONGEST_LINE && (line.starts_with(b"UNKNOWN") || ports.into_iter().all(is_port))
}

/// Whether a good header without an address is of the command `LOCAL`, which version 1 does not know.
fn is_local(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'\r') && bytes.get(COMMAND) == Some(&LOCAL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    const V1: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n";

    fn address() -> SocketAddr {
        "203.0.113.7:51234".parse().unwrap()
    }

    fn v2(addressed: bool) -> Vec<u8> {
        let address = ProxiedAddress::stream(address(), "10.0.0.1:443".parse().unwrap());
        let header = if addressed { ProxyHeader::with_address(address) } else { ProxyHeader::with_local() };
        let mut bytes = Vec::new();
        header.encode_v2(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn both_versions_tell_the_client() {
        for header in [V1.to_vec(), v2(true)] {
            let whole = [&header, &b"GET / HTTP/1.1\r\n"[..]].concat();
            assert_eq!(parse(&whole), Ok(Some((Said::Client(address()), header.len()))));
            for cut in 0..header.len() {
                assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
            }
        }
        let said = |bytes: &[u8]| parse(bytes).unwrap().map(|(said, _)| said);
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok(Some((Said::Somebody, 15))));
        assert_eq!(said(b"PROXY UNKNOWN 203.0.113.7 10.0.0.1 1 2\r\n"), Some(Said::Somebody));
        assert_eq!(said(&v2(false)), Some(Said::Itself));
        // `PROXY` of no family, and of a Unix socket; `LOCAL`, whose addresses count for nothing.
        let bare = |command: u8, family: u8, length: u8| {
            let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            bytes.extend_from_slice(&[command, family, 0, length]);
            bytes.resize(bytes.len() + usize::from(length), 0);
            bytes
        };
        assert_eq!(said(&bare(0x21, 0, 0)), Some(Said::Somebody));
        assert_eq!(said(&bare(0x21, 0x31, 216)), Some(Said::Somebody));
        assert_eq!(said(&bare(0x20, 0x11, 12)), Some(Said::Itself));
        let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n";
        assert_eq!(said(six), Some(Said::Client("[2001:db8::7]:1".parse().unwrap())));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.700 10.0.0.1 51234 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 512345 443\r\n",
            b"PROXY TCP4 2001:db8::7 10.0.0.1 1 2\r\n",
            b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n\n\n\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaa",
        ] {
            let padded = [bad, &[b'x'; 200]].concat();
            assert!(parse(&padded).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn version_1_is_read_strictly_whole_or_in_pieces() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        for bad in [
            "PROXY-TCP4 203.0.113.7 10.0.0.1 51234 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +51234 443\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 51234 0443\r\n",
            "PROXYxUNKNOWN\r\n",
            &long,
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(parse(longest.as_bytes()), Ok(Some((Said::Somebody, 107))));
        assert_eq!(parse(b"PROXY TCP4 203.0.113.7 10.0.0.1 0 443\r\n").map(|found| found.is_some()), Ok(true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_damaged_header_is_answered(at in 0..28_usize, byte in any::<u8>(), second in any::<bool>()) {
            let mut bytes = if second { v2(true) } else { V1.to_vec() };
            bytes[at % V1.len().min(28)] = byte;
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
