//! Texts in JSON (RFC 8259 §7).

/// Appends `text` as a JSON string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Nearly every text is plain, and to look at all bytes without a branch costs less than to stop at each.
    if !rest.iter().fold(false, |found, byte| found | is_escaped(*byte)) {
        out.extend_from_slice(rest);
        out.push(b'"');
        return;
    }
    while let Some(at) = rest.iter().position(|byte| is_escaped(*byte)) {
        let (plain, other) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = other.split_first() else { break };
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS.get(usize::from(value & 0xf)).copied().unwrap_or(b'0');
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(*byte)]),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn is_escaped(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20) | (byte == 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_is_read_back_and_stays_in_one_line(text in ".*|[\\x00-\\x20\"\\\\\\x7f]*") {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert!(out.iter().all(|byte| *byte >= b' '));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
