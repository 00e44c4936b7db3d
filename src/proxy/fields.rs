//! The fields of a header as a plain map.
//!
//! Beside the map Pingora keeps how each name was spelt, and every change pays for both. Names count in any case (RFC 9110
//! §5.1), so what goes upstream is written in lower case, as HTTP/2 does it, but for some common names.

use std::mem;

use http::header::HeaderMap;
use http::request::Parts;
use pingora::http::{RequestHeader, ResponseHeader};

/// Changes the fields of `header` and forgets how their names were spelt. The request target stays as it was, byte for
/// byte.
///
/// # Errors
/// If the target that Pingora has parsed before cannot be parsed again.
pub(super) fn edit<T>(header: &mut RequestHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> pingora::Result<T> {
    let in_uri = header.uri.path_and_query().is_some_and(|target| target.as_str().as_bytes() == header.raw_path());
    // What the URI does not reproduce, such as the absolute form, is lost on the way through its parts.
    let target = (!in_uri).then(|| header.raw_path().to_vec());
    let nothing = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts: Parts = mem::replace(header, nothing).into();
    let done = change(&mut parts.headers);
    *header = RequestHeader::from(parts);
    if let Some(target) = target {
        header.set_raw_path(&target)?;
    }
    Ok(done)
}

/// As [`edit`], for the header of an answer. Its reason phrase stays.
///
/// # Errors
/// If the reason phrase that Pingora has read before is refused now.
pub(super) fn edit_answer(header: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap)) -> pingora::Result<()> {
    let reason = header.get_reason_phrase().filter(|reason| Some(*reason) != header.status.canonical_reason());
    let reason = reason.map(str::to_owned);
    let nothing = ResponseHeader::from(http::Response::new(()).into_parts().0);
    let mut parts: http::response::Parts = mem::replace(header, nothing).into();
    change(&mut parts.headers);
    *header = ResponseHeader::from(parts);
    match reason {
        Some(reason) => header.set_reason_phrase(Some(&reason)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, COOKIE, HeaderValue};

    use super::*;

    #[test]
    fn fields_change_and_the_target_stays() {
        for target in ["/", "/a/b?c=%2F&d", "http://app.example.com/a?b", "//twice", "*", "/?", "?a", "/a%zz\u{fc}"] {
            let mut header = RequestHeader::build("OPTIONS", target.as_bytes(), None).unwrap();
            header.insert_header("Accept", "a").unwrap();
            header.insert_header("X-Mine", "b").unwrap();
            header.append_header("X-Mine", "c").unwrap();
            let before = header.clone();
            edit(&mut header, |headers| {
                headers.remove(ACCEPT);
                headers.insert(COOKIE, HeaderValue::from_static("d"));
            })
            .unwrap();
            assert_eq!(header.raw_path(), before.raw_path(), "{target}");
            assert_eq!(header.raw_path(), target.as_bytes());
            assert_eq!(header.uri, before.uri);
            assert_eq!((&header.method, header.version), (&before.method, before.version));
            let mut wire = Vec::new();
            header.header_to_h1_wire(&mut wire);
            assert_eq!(String::from_utf8(wire).unwrap(), "x-mine: b\r\nx-mine: c\r\ncookie: d\r\n");
        }
    }

    #[test]
    fn fields_of_an_answer_change_and_its_first_line_stays() {
        for (status, reason) in
            [(200, None), (200, Some("Fine")), (404, Some("Not Found")), (299, Some("")), (299, None)]
        {
            let mut header = ResponseHeader::build(status, None).unwrap();
            header.set_reason_phrase(reason).unwrap();
            header.insert_header("X-Mine", "a").unwrap();
            header.append_header("X-MINE", "b").unwrap();
            header.insert_header("Age", "1").unwrap();
            let before = header.clone();
            edit_answer(&mut header, |headers| {
                headers.remove("age");
                headers.insert("x-other", HeaderValue::from_static("c"));
            })
            .unwrap();
            assert_eq!((header.status, header.version), (before.status, before.version));
            assert_eq!(header.get_reason_phrase(), before.get_reason_phrase());
            let mut wire = Vec::new();
            header.header_to_h1_wire(&mut wire);
            assert_eq!(String::from_utf8(wire).unwrap(), "x-mine: a\r\nx-mine: b\r\nx-other: c\r\n");
        }
    }
}
