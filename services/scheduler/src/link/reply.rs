//! Answers of Redis taken apart. Whoever writes into our keys beside us gets an error, not a panic.

use redis::Value;
use troupe_domain::Error;

fn odd(wanted: &str, found: &Value) -> Error {
    tracing::error!(wanted, ?found, "redis holds something else than the scheduler put there");
    Error::internal()
}

pub fn array(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd("a list", &other)),
    }
}

/// A list of exactly so many items.
pub fn fields<const N: usize>(value: Value) -> Result<[Value; N], Error> {
    array(value)?.try_into().map_err(|items: Vec<Value>| odd("a list of another length", &Value::Array(items)))
}

pub fn bytes(value: Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd("a text", &other)),
    }
}

pub fn text(value: Value) -> Result<String, Error> {
    String::from_utf8(bytes(value)?).map_err(|error| odd("UTF-8", &Value::BulkString(error.into_bytes())))
}

pub fn number(value: Value) -> Result<u64, Error> {
    maybe_number(value)?.ok_or_else(|| odd("a number", &Value::Nil))
}

/// `None` for an empty text.
pub fn maybe_number(value: Value) -> Result<Option<u64>, Error> {
    let text = text(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| odd("a number", &Value::SimpleString(text)))
}
