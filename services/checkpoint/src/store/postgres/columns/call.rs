//! The arguments of a function of the database, column by column.

use sqlx::{
    Encode, Postgres, Type,
    postgres::{PgArguments, PgHasArrayType},
    query::Query,
};

pub(super) type Statement = Query<'static, Postgres, PgArguments>;

/// How the function takes a column.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// All rows in an array. NULL for none: the database spends time on an empty array too.
    Array,
    /// The only row's value; NULL without a row.
    Value,
}

/// A statement that gets its arguments in their order.
pub(super) struct Call {
    statement: Statement,
    shape: Shape,
}

impl Call {
    /// Columns are arrays until [`Call::shaped`] says something else.
    pub(super) fn new(statement: Statement) -> Self {
        Self { statement, shape: Shape::Array }
    }

    /// The same call, with columns in this shape from here on.
    pub(super) fn shaped(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// The next argument: a value of each row.
    pub(super) fn column<'r, R, T>(self, rows: &'r [R], value: impl Fn(&'r R) -> T) -> Self
    where
        T: Encode<'r, Postgres> + Type<Postgres> + PgHasArrayType + 'r,
    {
        let statement = match self.shape {
            Shape::Array => self.statement.bind((!rows.is_empty()).then(|| rows.iter().map(value).collect::<Vec<_>>())),
            Shape::Value => self.statement.bind(rows.first().map(value)),
        };
        Self { statement, ..self }
    }

    /// The last argument, one value whatever the shape.
    pub(super) fn value(self, value: i64) -> Statement {
        self.statement.bind(value)
    }
}
