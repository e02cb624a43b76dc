//! Cursors of listings: opaque to callers, two numbers or a text inside.

use troupe_domain::Error;

/// A place in a listing that is ordered by two numbers.
pub fn encode(first: i64, second: i64) -> String {
    format!("{first}.{second}")
}

/// `None` for the first page.
pub fn decode(cursor: &str) -> Result<Option<(i64, i64)>, Error> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let parts = cursor.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts.map(Some).ok_or_else(bad)
}

/// A place in a listing that is ordered by a text.
pub fn encode_text(text: &str) -> String {
    hex::encode(text)
}

/// The empty text for the first page.
pub fn decode_text(cursor: &str) -> Result<String, Error> {
    hex::decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)
}

fn bad() -> Error {
    Error::invalid_field("page.cursor", "is no cursor of this listing").with_help("pass the next_cursor of the page before, or nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_and_nonsense_is_refused() {
        assert_eq!(decode(&encode(1_763_000_000_000_000, 17)).unwrap(), Some((1_763_000_000_000_000, 17)));
        assert_eq!(decode("").unwrap(), None);
        assert_eq!(decode_text(&encode_text("größe")).unwrap(), "größe");
        for nonsense in ["x", "1", "1.", "1.zz", "99999999999999999999.1"] {
            assert!(decode(nonsense).is_err(), "{nonsense}");
        }
        assert!(decode_text("zz").is_err() && decode_text("ff").is_err());
    }
}
