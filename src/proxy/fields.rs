//! The fields of a request header as a plain map.
//!
//! Beside the map Pingora keeps how each name was spelt, and every change pays for both. Names count in any case (RFC 9110
//! §5.1), so what goes upstream is written in lower case, as HTTP/2 does it, but for some common names.

use std::mem;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::gate::Fields;

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

impl Fields for ResponseHeader {
    fn map(&self) -> &HeaderMap {
        &self.headers
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) {
        // Fails for what is no name or no value, and these are.
        let _ = self.insert_header(name, value);
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) {
        let _ = self.append_header(name, value);
    }

    fn take(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, COOKIE};

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
}
