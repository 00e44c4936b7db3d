//! Hash slots of a cluster: which one a partition has, and which node has that one.

use fred::types::Value;
use fred::types::config::Server;

use super::super::StoreError;
use super::keys::PARTITIONS;

/// The primaries of all partitions, out of the answer to `CLUSTER SLOTS`; `None` where nobody has the slot. A node that
/// does not know its own address leaves it empty: it is the one we asked.
pub(super) fn parse(answer: Value, asked: &Server) -> Result<Vec<Option<Server>>, StoreError> {
    let mut owners = vec![None; usize::from(PARTITIONS)];
    let unreadable = || StoreError::Unavailable("the Redis cluster's layout cannot be read".to_owned());
    for range in answer.into_array() {
        let mut range = range.into_array().into_iter();
        let number = |value: Option<Value>| value.and_then(|value| value.as_i64());
        let (first, last) =
            (number(range.next()).ok_or_else(unreadable)?, number(range.next()).ok_or_else(unreadable)?);
        let mut node = range.next().map(Value::into_array).unwrap_or_default().into_iter();
        let host = node.next().and_then(|host| host.as_string()).unwrap_or_default();
        let port = number(node.next()).and_then(|port| u16::try_from(port).ok()).ok_or_else(unreadable)?;
        let server = match host.as_str() {
            "" => Server::new(asked.host.clone(), port),
            // It has no address that it would give away.
            "?" => continue,
            host => Server::new(host, port),
        };
        for (partition, owner) in owners.iter_mut().enumerate() {
            let slot = i64::from(slot(format!("{partition:02}").as_bytes()));
            if (first..=last).contains(&slot) {
                *owner = Some(server.clone());
            }
        }
    }
    Ok(owners)
}

/// CRC16 (XMODEM) of a hash tag, modulo 16384.
pub(super) fn slot(tag: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in tag {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!([slot(b"foo"), slot(b"123456789"), slot(b"")], [12182, 12739, 0]);
    }

    #[test]
    fn the_layout_is_read() {
        let range = |first: i64, last: i64, host: Value, port: i64| {
            Value::Array(vec![first.into(), last.into(), Value::Array(vec![host, port.into(), "id".into()])])
        };
        let answer = Value::Array(vec![range(0, 8191, "10.0.0.1".into(), 1), range(8192, 16000, Value::Null, 2)]);
        let owners = parse(answer, &Server::new("asked", 9)).unwrap();
        assert_eq!(owners.len(), 64);
        for (partition, owner) in owners.into_iter().enumerate() {
            let expected = match slot(format!("{partition:02}").as_bytes()) {
                0..=8191 => Some(Server::new("10.0.0.1", 1)),
                8192..=16000 => Some(Server::new("asked", 2)),
                _ => None,
            };
            assert_eq!(owner, expected);
        }
        assert!(parse(Value::Array(vec![Value::Array(vec!["x".into()])]), &Server::new("a", 1)).is_err());
    }
}
