//! Finds `${ ... }` in texts, and refuses texts that are too deep for a parser before a parser sees them.

use crate::Limits;

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(String),
    /// What is between `${` and `}`.
    Expression(&'t str),
}

/// Splits a text into its expressions and what is between them. `$${` is a literal `${`. Braces and quotes inside an expression
/// are understood, so `${ {"a": "}"} }` is one expression.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let after = &rest[at + 2..];
        if let Some(kept) = before.strip_suffix('$') {
            plain.push_str(kept);
            plain.push_str("${");
            rest = after;
            continue;
        }
        plain.push_str(before);
        let Some(end) = closing_brace(after) else {
            let shown: String = after.trim().chars().take(40).collect();
            return Err(format!("the expression that begins with '${{ {shown}' is not closed by '}}'"));
        };
        if !plain.is_empty() {
            found.push(Piece::Text(std::mem::take(&mut plain)));
        }
        found.push(Piece::Expression(&after[..end]));
        rest = &after[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        found.push(Piece::Text(plain));
    }
    Ok(found)
}

/// Where the brace is that closes an expression.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut found = None;
    walk(text, |at, token| {
        match token {
            Token::Byte(b'{') => depth += 1,
            Token::Byte(b'}') if depth == 0 => {
                found = Some(at);
                return false;
            }
            Token::Byte(b'}') => depth -= 1,
            _ => {}
        }
        true
    });
    found
}

enum Token<'t> {
    /// A byte outside strings, comments and words.
    Byte(u8),
    Word(&'t str),
    /// A string on one line, without its prefix; not a raw one.
    Line(&'t str),
}

/// Calls `visit` with every token until it says false; comments and other strings are left out.
fn walk<'t>(text: &'t str, mut visit: impl FnMut(usize, Token<'t>) -> bool) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' || byte == b'\'' {
            let end = after_string(bytes, at, false);
            if !bytes[at..].starts_with(&[byte, byte, byte]) && !visit(at, Token::Line(&text[at..end])) {
                return;
            }
            at = end;
        } else if byte == b'/' && bytes.get(at + 1) == Some(&b'/') {
            at = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
        } else if byte.is_ascii_alphanumeric() || byte == b'_' {
            let length = bytes[at..].iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(bytes.len() - at);
            let word = &text[at..at + length];
            let quoted = matches!(bytes.get(at + length), Some(b'"' | b'\''));
            if quoted && matches!(word, "r" | "R" | "b" | "B" | "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB") {
                at = after_string(bytes, at + length, word.contains(['r', 'R']));
                continue;
            }
            if !visit(at, Token::Word(word)) {
                return;
            }
            at += length;
        } else {
            if !visit(at, Token::Byte(byte)) {
                return;
            }
            at += 1;
        }
    }
}

/// The place after the string that begins at `start`; the end of the text where it is not closed.
fn after_string(bytes: &[u8], start: usize, raw: bool) -> usize {
    let quote = bytes[start];
    let triple = bytes[start..].starts_with(&[quote, quote, quote]);
    let mut at = start + if triple { 3 } else { 1 };
    // A backslash takes one byte with it: the rest of a longer character is no quote.
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if triple && bytes[at..].starts_with(&[quote, quote, quote]) {
            return at + 3;
        } else if !triple && bytes[at] == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// How deep a parser may have to go for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth {
    /// Brackets around the innermost place.
    pub brackets: usize,
    /// An upper bound of the syntax tree's levels.
    pub levels: usize,
}

pub(super) fn depth(source: &str) -> Depth {
    let mut open: Vec<usize> = Vec::new();
    let (mut current, mut sum) = (0_usize, 0_usize);
    let mut found = Depth { brackets: 0, levels: 0 };
    let mut before = 0_u8;
    walk(source, |_, token| {
        let byte = match token {
            Token::Byte(byte) => byte,
            Token::Line(_) => return true,
            // The operator `in`; other words add no level.
            Token::Word(word) => {
                if word == "in" {
                    current += 1;
                }
                before = b'w';
                return true;
            }
        };
        match byte {
            b'(' | b'[' | b'{' => {
                open.push(current + 1);
                sum += current + 1;
                current = 0;
            }
            b')' | b']' | b'}' => {
                // What is inside the brackets does not nest what follows them.
                let outer = open.pop().unwrap_or(0);
                sum -= outer;
                current = outer;
            }
            b',' => current = 0,
            // CEL balances chains of && and ||.
            b'&' | b'|' if before == byte => current = 0,
            b'+' | b'-' | b'*' | b'/' | b'%' | b'?' | b'!' | b'<' | b'>' | b'=' | b'.' => current += 1,
            _ => {}
        }
        before = byte;
        found.brackets = found.brackets.max(open.len());
        found.levels = found.levels.max(sum + current);
        true
    });
    found
}

/// The text as CEL's parser takes it: the word `from` (outside strings) as `to`, and line breaks inside strings escaped. YAML turns
/// the `\n` of a text in double quotes into a line break, and whoever wrote `split(input.log, '\n')` meant one.
pub(super) fn for_parser(source: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut done = 0;
    walk(source, |at, token| {
        match token {
            Token::Word(word) if word == from => {
                out.push_str(&source[done..at]);
                out.push_str(to);
                done = at + word.len();
            }
            Token::Line(text) if text.contains(['\n', '\r']) => {
                out.push_str(&source[done..at]);
                out.push_str(&text.replace("\\\n", "\\n").replace('\n', "\\n").replace('\r', "\\r"));
                done = at + text.len();
            }
            _ => {}
        }
        true
    });
    out.push_str(&source[done..]);
    out
}

/// Refuses what is too long or too deep to be parsed.
pub(super) fn guard(source: &str, limits: &Limits) -> Result<Depth, String> {
    if source.len() > limits.max_expression_bytes {
        let (have, most) = (source.len(), limits.max_expression_bytes);
        return Err(format!("the expression has {have} bytes, more than {most} (setting max_expression_bytes)"));
    }
    if source.trim().is_empty() {
        return Err("the expression is empty".to_owned());
    }
    let depth = depth(source);
    // A level of the tree has at most four tokens that open one (`!=` counts twice, for instance).
    if depth.brackets > limits.max_expression_depth || depth.levels > limits.max_expression_depth.saturating_mul(4) {
        return Err(too_deep(limits));
    }
    Ok(depth)
}

pub(super) fn too_deep(limits: &Limits) -> String {
    let most = limits.max_expression_depth;
    format!("the expression nests deeper than {most} levels (setting max_expression_depth); compute parts of it in an earlier step")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_and_quotes_inside_are_understood() {
        let found = pieces(r#"a ${ {"x": "}"} } b ${'\'}'}"#).unwrap();
        let expected =
            vec![Piece::Text("a ".into()), Piece::Expression(r#" {"x": "}"} "#), Piece::Text(" b ".into()), Piece::Expression(r"'\'}'")];
        assert_eq!(found, expected);
        assert_eq!(pieces(r"${ r'\' }").unwrap(), vec![Piece::Expression(r" r'\' ")]);
        assert_eq!(pieces("${ '''it's }''' }").unwrap(), vec![Piece::Expression(" '''it's }''' ")]);
    }

    #[test]
    fn a_doubled_dollar_is_a_literal() {
        assert_eq!(pieces("$${x} $5").unwrap(), vec![Piece::Text("${x} $5".into())]);
        assert_eq!(pieces("").unwrap(), vec![]);
    }

    #[test]
    fn an_open_expression_is_refused() {
        assert!(pieces("${ a").unwrap_err().contains("not closed"));
        assert!(pieces("${ 'a}").unwrap_err().contains("not closed"));
    }

    #[test]
    fn strings_may_hold_line_breaks() {
        assert_eq!(for_parser("split(x, '\n') + loop.a + 'loop'", "loop", "_oop"), "split(x, '\\n') + _oop.a + 'loop'");
        assert_eq!(for_parser("\"\"\"a\nb\"\"\" + r'x'", "loop", "_oop"), "\"\"\"a\nb\"\"\" + r'x'");
    }

    #[test]
    fn depth_is_bounded_from_above() {
        assert_eq!(depth("((a))"), Depth { brackets: 2, levels: 2 });
        assert_eq!(depth("a+b+c").levels, 2);
        assert_eq!(depth("a && b && c && d").levels, 0);
        assert_eq!(depth("'((((' // ((("), Depth { brackets: 0, levels: 0 });
        assert!(guard(&"(".repeat(100_000), &Limits::default()).unwrap_err().contains("max_expression_bytes"));
        assert!(guard(&"!".repeat(8_000), &Limits::default()).unwrap_err().contains("max_expression_depth"));
    }
}
