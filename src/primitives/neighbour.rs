//! Which addresses count as one client.

use std::net::IpAddr;

/// Who counts as one: an IPv4 address, or an IPv6 /64, which is what one customer gets at least (RFC 6177).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neighbour {
    /// An IPv4 address.
    V4(u32),
    /// The first half of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for Neighbour {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d].into_iter().fold(0, |bits, part| bits << 16 | u64::from(part)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_and_a_mapped_address_count_as_one() {
        let neighbour = |address: &str| Neighbour::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(neighbour("2001:db8:0:1::1"), neighbour("2001:db8:0:1:ffff::"));
        assert_ne!(neighbour("2001:db8:0:1::1"), neighbour("2001:db8:0:2::1"));
        assert_eq!(neighbour("::ffff:192.0.2.1"), neighbour("192.0.2.1"));
        assert_ne!(neighbour("192.0.2.1"), neighbour("192.0.2.2"));
    }
}
