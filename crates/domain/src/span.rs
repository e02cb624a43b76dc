//! Durations as users write them: `250ms`, `30s`, `2m`, `1h30m`, `7d`.

use std::time::Duration;

/// The longest duration that may be written: about ten years.
pub const MAX_SPAN: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Parses a duration. The message says what was wrong and what is right.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text.trim())
        .map_err(|e| format!("'{text}' is not a duration ({e}): write a number and a unit, like 250ms, 30s, 2m, 1h30m or 7d"))?;
    if span > MAX_SPAN {
        return Err(format!("'{text}' is longer than ten years"));
    }
    Ok(span)
}

/// The shortest way to write a duration that [`parse_span`] reads back, to the millisecond.
pub fn format_span(span: Duration) -> String {
    let rounded = Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    humantime::format_duration(rounded).to_string().replace(' ', "").replace("day", "d").replace("ds", "d")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        for text in ["250ms", "30s", "2m", "1h30m", "7d", "1d2h"] {
            assert_eq!(format_span(parse_span(text).unwrap()), text);
        }
        assert!(parse_span("5").unwrap_err().contains("30s"));
        assert!(parse_span("9999y").is_err());
    }
}
