//! What each error code means, for people: the pages of `docs/errors/`.

use troupe_domain::Code;

/// The Markdown page of a code.
pub fn error_page(code: Code) -> &'static str {
    macro_rules! page {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $name, ".md"))
        };
    }
    match code {
        Code::InvalidArgument => page!("INVALID_ARGUMENT"),
        Code::Unauthenticated => page!("UNAUTHENTICATED"),
        Code::PermissionDenied => page!("PERMISSION_DENIED"),
        Code::NotFound => page!("NOT_FOUND"),
        Code::Conflict => page!("CONFLICT"),
        Code::FailedPrecondition => page!("FAILED_PRECONDITION"),
        Code::PayloadTooLarge => page!("PAYLOAD_TOO_LARGE"),
        Code::ResourceExhausted => page!("RESOURCE_EXHAUSTED"),
        Code::BudgetExceeded => page!("BUDGET_EXCEEDED"),
        Code::Cancelled => page!("CANCELLED"),
        Code::Internal => page!("INTERNAL"),
        Code::Unavailable => page!("UNAVAILABLE"),
        Code::DeadlineExceeded => page!("DEADLINE_EXCEEDED"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/README.md"));

    #[test]
    fn every_page_has_the_right_numbers() {
        for code in Code::all() {
            let page = error_page(code);
            assert!(page.starts_with(&format!("# {code}\n")), "{code}: the page begins with its name");
            let table = format!(
                "| HTTP status | gRPC code | exit code |\n| --- | --- | --- |\n| {} | {} | {} |\n",
                code.http(),
                code.grpc(),
                code.exit()
            );
            assert!(page.contains(&table), "{code}: the page lacks this table:\n{table}");
            for section in ["\n## What it means\n", "\n## What to do\n"] {
                assert!(page.contains(section), "{code}: the page lacks {section}");
            }
        }
    }

    #[test]
    fn the_index_lists_every_code() {
        for code in Code::all() {
            let row = format!("| [{code}]({code}.md) | {} | {} | {} |", code.http(), code.grpc(), code.exit());
            assert!(INDEX.contains(&row), "docs/errors/README.md lacks this row:\n{row}");
        }
    }
}
