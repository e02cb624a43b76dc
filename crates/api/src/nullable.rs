//! `null` in a request means the same as leaving the field out.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use crate::{Control, Decide, Redrive, StartRun};

    #[test]
    fn null_is_as_good_as_nothing() {
        let start: StartRun =
            serde_json::from_str(r#"{"input":null,"version":null,"priority":null,"labels":null,"deadline":null}"#).unwrap();
        assert_eq!(start, StartRun::default());
        assert_eq!(serde_json::from_str::<Control>(r#"{"reason":null}"#).unwrap(), Control::default());
        assert_eq!(serde_json::from_str::<Redrive>(r#"{"run_ids":null,"limit":null}"#).unwrap(), Redrive::default());
        let decide: Decide = serde_json::from_str(r#"{"decision":"reject","comment":null,"by":null,"digest":null,"edits":null}"#).unwrap();
        assert!(decide.comment.is_empty() && decide.by.is_empty() && decide.edits.is_none());
    }

    #[test]
    fn unknown_fields_are_still_refused() {
        assert!(serde_json::from_str::<Control>(r#"{"reasn":"x"}"#).is_err());
    }
}
