//! The value of a channel.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use troupe_domain::Json;

/// A channel's value: text, or a list that writes extend without touching what is there. Both serialise to the same JSON.
#[derive(Clone, Debug)]
pub(crate) enum Channel {
    Text(Json),
    List {
        items: Vec<Json>,
        /// Length of the list's JSON.
        bytes: usize,
    },
}

impl Channel {
    pub(crate) fn list(items: Vec<Json>) -> Self {
        let bytes = 2 + items.iter().map(Json::len).sum::<usize>() + items.len().saturating_sub(1);
        Self::List { items, bytes }
    }

    /// Length of its JSON.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(json) => json.len(),
            Self::List { bytes, .. } => *bytes,
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::Text(json) => json.clone(),
            Self::List { items, .. } => Json::encode(items),
        }
    }

    /// The channel's list for extending it in place; `None` when it holds something else.
    pub(crate) fn as_list(&mut self) -> Option<(&mut Vec<Json>, &mut usize)> {
        if let Self::Text(json) = self {
            let items: Vec<Json> = serde_json::from_str(json.as_str()).ok()?;
            *self = Self::list(items);
        }
        match self {
            Self::List { items, bytes } => Some((items, bytes)),
            Self::Text(_) => None,
        }
    }
}

impl Serialize for Channel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(json) => json.serialize(serializer),
            Self::List { items, .. } => items.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(Self::Text)
    }
}
