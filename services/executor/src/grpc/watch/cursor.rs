//! Where a stream of events is: the last lifecycle event, and the event bus's own cursor.

use troupe_domain::{Error, Result};

/// `<seq>.<position in the entry>`, and `/<the bus's cursor>` once there were chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The entry of the last event; 0: none.
    pub(super) seq: u64,
    /// How many of that entry's events have been sent.
    sent: u64,
    pub(super) bus: String,
}

const MAX: usize = 256;

impl Cursor {
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || Error::invalid_field("cursor", "is not a cursor of this stream: use that of the last event seen");
        let (position, bus) = text.split_once('/').unwrap_or((text, ""));
        let (seq, index) = position.split_once('.').ok_or_else(bad)?;
        let seq: u64 = seq.parse().map_err(|_| bad())?;
        let index: u64 = index.parse().map_err(|_| bad())?;
        if text.len() > MAX {
            return Err(bad());
        }
        // `0.0` stands before the first event.
        let sent = if seq == 0 { 0 } else { index.saturating_add(1) };
        Ok(Self { seq, sent, bus: bus.to_owned() })
    }

    /// Whether the cursor has not come to this event yet.
    pub(super) fn is_before(&self, seq: u64, index: u64) -> bool {
        seq > self.seq || (seq == self.seq && index >= self.sent)
    }

    pub(super) fn advance(&mut self, seq: u64, index: u64) {
        (self.seq, self.sent) = (seq, index + 1);
    }

    /// Leaves an entry behind that may have had no events.
    pub(super) fn pass_entry(&mut self, seq: u64) {
        if seq > self.seq {
            (self.seq, self.sent) = (seq, 0);
        }
    }

    pub(super) fn text(&self) -> String {
        let (seq, index) = (self.seq, self.sent.saturating_sub(1));
        if self.bus.is_empty() { format!("{seq}.{index}") } else { format!("{seq}.{index}/{}", self.bus) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_stands_after_the_event_it_names() {
        let cursor = Cursor::parse("3.1/17-0").unwrap();
        assert!(!cursor.is_before(2, 9) && !cursor.is_before(3, 1));
        assert!(cursor.is_before(3, 2) && cursor.is_before(4, 0));
        assert_eq!(cursor.text(), "3.1/17-0");
        assert!(Cursor::parse("").unwrap().is_before(1, 0));
    }

    #[test]
    fn a_chunk_before_any_event_has_a_cursor_too() {
        let cursor = Cursor { bus: "5".into(), ..Cursor::default() };
        let back = Cursor::parse(&cursor.text()).unwrap();
        assert!(back.is_before(1, 0));
        assert_eq!(back.bus, "5");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["x", "1", "1.x", "-1.0", "1.0.0", &format!("1.0/{}", "9".repeat(300))] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
    }
}
