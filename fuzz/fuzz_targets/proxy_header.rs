//! The input is what comes from a load balancer: read as a second reader reads it, the same in pieces of any size, and
//! nothing behind the header touched. And the addresses in it, written as HAProxy writes them, come back.

#![no_main]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use cloakroom::fuzzing::{parse_proxy_header as parse, read_proxy_header};
use libfuzzer_sys::fuzz_target;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1 (PROXY protocol §2.1).
const LONGEST_V1: usize = 107;
/// The longest that we read.
const LONGEST: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    if let Ok(Some((client, length))) = whole {
        assert!((1..=input.len()).contains(&length));
        assert_eq!(parse(&input[..length]), Ok(Some((client, length))), "what follows changes nothing");
        for cut in [1, 6, 15, 16, length / 2, length - 1].into_iter().filter(|cut| *cut < length) {
            assert_eq!(parse(&input[..cut]), Ok(None), "a part of a header is none");
        }
        assert_eq!(strict(&input[..length]), Some(client), "{}", input[..length].escape_ascii());
    }
    in_pieces(input, &whole);
    a_round_trip(input);
});

/// The header, read as the specification says: the client if there is one. `None` for what is no header.
fn strict(header: &[u8]) -> Option<Option<SocketAddr>> {
    if let Some(rest) = header.strip_prefix(SIGNATURE) {
        let (&[command, family, high, low], rest) = rest.split_first_chunk::<4>()?;
        assert_eq!(rest.len(), usize::from(u16::from_be_bytes([high, low])));
        let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
        return match (command, family) {
            (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => Some(None),
            (0x21, 0x11) => {
                let source: [u8; 4] = rest.get(..4)?.try_into().ok()?;
                Some(Some(SocketAddr::new(Ipv4Addr::from(source).into(), port(8)?)))
            }
            (0x21, 0x21) => {
                let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
                Some(Some(SocketAddr::new(Ipv6Addr::from(source).into(), port(32)?)))
            }
            _ => None,
        };
    }
    if header.len() > LONGEST_V1 {
        return None;
    }
    let line = header.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    if line.starts_with(b"UNKNOWN") {
        // Whatever follows is to be ignored.
        return Some(None);
    }
    let line = std::str::from_utf8(line).ok()?;
    let [family, source, destination, from, to] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let [source, destination] = [source, destination].map(|address| address.parse::<IpAddr>().ok());
    let (source, destination) = (source?, destination?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    // "a decimal integer … no leading zero".
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    let (from, _) = (port(from)?, port(to)?);
    fits.then_some(Some(SocketAddr::new(source, from)))
}

/// The same bytes off a stream, however they arrive.
fn in_pieces(input: &[u8], whole: &Result<Option<(Option<SocketAddr>, usize)>, String>) {
    if input.len() > LONGEST {
        return;
    }
    for piece in [1, 1 + input.len() % 61, usize::MAX] {
        let outcome = read(input, piece);
        match whole {
            Ok(Some((client, length))) => {
                let (found, rest) = outcome.expect("a header that can be read");
                assert_eq!((found, &rest[..]), (*client, &input[*length..]));
            }
            Ok(None) | Err(_) => assert!(outcome.is_err(), "in pieces of {piece} it is a header"),
        }
    }
}

fn read(input: &[u8], piece: usize) -> Result<(Option<SocketAddr>, Vec<u8>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread");
    runtime.block_on(async {
        let socket = VirtualSocketStream::new(Box::new(Pieces { bytes: input.to_vec(), at: 0, piece }));
        let mut stream = Stream::from(socket);
        let client = read_proxy_header(&mut stream).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.map_err(|error| error.to_string())?;
        Ok((client, rest))
    })
}

/// Addresses, ports and what is behind them from the input, in both versions and families.
fn a_round_trip(input: &[u8]) {
    let Some((octets, rest)) = input.split_first_chunk::<36>() else { return };
    let port = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let six = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&octets[at..at + 16]).expect("16 octets"));
    let four = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&octets[at..at + 4]).expect("4 octets"));
    let extras = &rest[..rest.len() % 64];
    for (family, kind, source, destination) in [
        ("TCP4", 0x11, IpAddr::V4(four(0)), IpAddr::V4(four(16))),
        ("TCP6", 0x21, IpAddr::V6(six(0)), IpAddr::V6(six(16))),
    ] {
        let (from, to) = (port(32), port(34));
        let text = format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes();
        let mut addresses = Vec::new();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => addresses.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => addresses.extend_from_slice(&address.octets()),
            }
        }
        addresses.extend_from_slice(&from.to_be_bytes());
        addresses.extend_from_slice(&to.to_be_bytes());
        addresses.extend_from_slice(extras);
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        let binary = [SIGNATURE, &[0x21, kind], &length, &addresses].concat();
        for header in [text, binary] {
            let expected = Ok(Some((Some(SocketAddr::new(source, from)), header.len())));
            assert_eq!(parse(&[&header, rest].concat()), expected, "{}", header.escape_ascii());
        }
    }
}

/// A peer that sends its bytes in pieces, then ends.
#[derive(Debug)]
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at.saturating_add(self.piece.min(buffer.remaining())));
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl VirtualSocket for Pieces {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}
