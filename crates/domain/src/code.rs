//! The closed list of error codes. Each one has a page in `docs/errors/`.

use std::fmt;

/// What went wrong, as a stranger sees it. One code, one HTTP status, one gRPC code, one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    Conflict,
    FailedPrecondition,
    PayloadTooLarge,
    ResourceExhausted,
    BudgetExceeded,
    Cancelled,
    Internal,
    Unavailable,
    DeadlineExceeded,
}

/// name, HTTP status, gRPC code number, exit code.
type Row = (Code, &'static str, u16, i32, u8);

const TABLE: [Row; 13] = [
    (Code::InvalidArgument, "INVALID_ARGUMENT", 400, 3, 3),
    (Code::Unauthenticated, "UNAUTHENTICATED", 401, 16, 16),
    (Code::PermissionDenied, "PERMISSION_DENIED", 403, 7, 7),
    (Code::NotFound, "NOT_FOUND", 404, 5, 5),
    (Code::Conflict, "CONFLICT", 409, 6, 6),
    (Code::FailedPrecondition, "FAILED_PRECONDITION", 412, 9, 9),
    (Code::PayloadTooLarge, "PAYLOAD_TOO_LARGE", 413, 11, 11),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED", 429, 8, 8),
    (Code::BudgetExceeded, "BUDGET_EXCEEDED", 402, 10, 10),
    (Code::Cancelled, "CANCELLED", 499, 1, 130),
    (Code::Internal, "INTERNAL", 500, 13, 13),
    (Code::Unavailable, "UNAVAILABLE", 503, 14, 14),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 504, 4, 4),
];

impl Code {
    /// Every code.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        // The table lists the codes in the order of the enum; `rows_are_in_order` proves it.
        &TABLE[self as usize]
    }

    /// The stable name, `SCREAMING_SNAKE_CASE`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        self.row().2
    }

    /// The number of the gRPC status code.
    pub fn grpc(self) -> i32 {
        self.row().3
    }

    /// The exit code of the command line.
    pub fn exit(self) -> u8 {
        self.row().4
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The code that a gRPC status number stands for; what is not in the list is `Internal`.
    pub fn from_grpc(number: i32) -> Self {
        TABLE.iter().find(|row| row.3 == number).map_or(Self::Internal, |row| row.0)
    }

    /// Whether the same call may succeed later without a change.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::DeadlineExceeded | Self::ResourceExhausted)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order() {
        for code in Code::all() {
            assert_eq!(code.row().0, code);
            assert_eq!(Code::from_name(code.name()), Some(code));
            assert_eq!(Code::from_grpc(code.grpc()), code);
        }
    }
}
