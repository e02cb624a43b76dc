//! A JSON payload that nobody looks into until they must.

use crate::{Error, Fault};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, value::RawValue};
use std::{fmt, sync::Arc};

/// How deep arrays and objects may nest in a payload.
pub const MAX_NESTING: usize = 64;

/// Valid JSON text, cheap to clone, parsed only on demand.
///
/// Serialises as the JSON it is, with `serde_json` only. Serde cannot buffer it: it does not work inside internally
/// tagged or untagged enums or flattened fields; externally tagged enums and plain structs are fine.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// Takes text that a stranger sent. Fails with the place of the first fault, or when it nests deeper than
    /// [`MAX_NESTING`]. Empty input is `null`.
    pub fn parse(bytes: &[u8], path: &str) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Ok(Self::null());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::invalid_field(path, format!("is not UTF-8: bad byte at offset {}", e.valid_up_to())))?;
        if nesting(text) > MAX_NESTING {
            return Err(Error::invalid_field(path, format!("nests deeper than {MAX_NESTING} levels")));
        }
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|e| {
            let fault = Fault { line: to_u32(e.line()), column: to_u32(e.column()), ..Fault::at(path, format!("is not JSON: {e}")) };
            Error::invalid(format!("{path} is not JSON: {e}")).with_faults(vec![fault])
        })?;
        Ok(Self(raw.into()))
    }

    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }

    /// `{}`.
    pub fn object() -> Self {
        Self::from(&Value::Object(serde_json::Map::new()))
    }

    /// The JSON of a value, with payloads inside it copied as they are. A value that has none (a map with keys that are no texts) is `null`.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Self {
        serde_json::value::to_raw_value(value).map_or_else(|_| Self::null(), |raw| Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    pub fn len(&self) -> usize {
        self.0.get().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_null(&self) -> bool {
        self.as_str() == "null"
    }

    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_str().as_bytes())
    }

    /// How deep its arrays and objects nest.
    pub fn nesting(&self) -> usize {
        nesting(self.as_str())
    }

    /// Parses it. A payload was checked when it came in, so this only fails for text nested deeper than the limit,
    /// which [`Json::parse`] refuses; such text reads as `null`.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.as_str()).unwrap_or(Value::Null)
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The deepest nesting of brackets outside strings.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        // A `Value` always prints as JSON: its keys are strings and its numbers finite.
        serde_json::value::to_raw_value(value).map_or_else(|_| Self::null(), |raw| Self(raw.into()))
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_of_brackets_is_refused() {
        let bomb = "[".repeat(100_000);
        let error = Json::parse(bomb.as_bytes(), "input").unwrap_err();
        assert!(error.message.contains("deeper than 64"), "{error}");
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let text = format!("\"{}\\\"[\"", "[".repeat(500));
        assert!(Json::parse(text.as_bytes(), "input").is_ok());
    }

    #[test]
    fn encoding_copies_payloads_as_they_are() {
        let inner = Json::parse(b"{\"b\": 1.50}", "x").unwrap();
        assert_eq!(Json::encode(&std::collections::BTreeMap::from([("a", inner)])).as_str(), r#"{"a":{"b": 1.50}}"#);
    }

    #[test]
    fn bad_utf8_and_bad_json_name_the_place() {
        assert!(Json::parse(b"\"\xff\"", "input").unwrap_err().message.contains("offset 1"));
        assert_eq!(Json::parse(b"{\n 1}", "input").unwrap_err().faults[0].line, 2);
    }
}
