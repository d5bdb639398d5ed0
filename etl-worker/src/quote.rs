//! The one function that puts a name into SQL.

/// A name as an SQL identifier, in double quotes: right for PostgreSQL, SQLite and DataFusion, and for MySQL, whose
/// sessions are set to ANSI_QUOTES.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a list of SQL identifiers.
pub fn idents<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")
}

/// A text as an SQL literal, for the few statements that take no parameters (COMMENT, COPY).
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    if text.contains('\\') { format!(" E'{escaped}'") } else { format!("'{escaped}'") }
}

/// The same for MySQL, where a backslash begins an escape.
pub fn mysql_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{ident, literal, mysql_literal};

    #[test]
    fn names_and_texts_can_hold_anything() {
        assert_eq!(ident("a\"b; drop"), "\"a\"\"b; drop\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(mysql_literal("a\\'b"), "'a\\\\''b'");
    }
}
