//! One page of a listing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Ask for the next page with `?cursor=`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page; an empty cursor, as the services send it, means that there is no next page.
    pub fn new(items: Vec<T>, next_cursor: String) -> Self {
        Self { items, next_cursor: Some(next_cursor).filter(|cursor| !cursor.is_empty()) }
    }
}
