//! Splitting a script into statements, as SQLite itself would: strings, quoted names, comments and
//! trigger bodies (`BEGIN … END;`) may hold semicolons.

use crate::error::{Error, Result};

/// One statement of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptStatement<'a> {
    /// The statement's text, without its last semicolon and the blanks around it.
    pub text: &'a str,
    /// The line of the script that it starts on, from 1.
    pub line: usize,
    /// The column of that line, from 1, in characters.
    pub column: usize,
    /// The byte of the script that it starts at.
    pub start: usize,
}

/// Splits a script. Empty statements and those of comments alone are left out.
///
/// # Errors
/// `invalid_argument` with the line when a string, quoted name or trigger body does not end.
pub fn split(script: &str) -> Result<Vec<ScriptStatement<'_>>> {
    let mut pieces: Vec<ScriptStatement<'_>> = Vec::new();
    let mut tokens = SqlTokenizer { text: script, at: 0 };
    let mut start = None;
    let mut shape = TriggerState::Start;
    let mut end = 0;
    while let Some(token) = tokens.next_token().map_err(|at| unterminated_error(script, at))? {
        if token.kind == TokenKind::Semicolon && shape.is_statement_end() {
            if let Some(start) = start.take() {
                let next = make_piece(script, pieces.last(), start, end);
                pieces.push(next);
            }
            shape = TriggerState::Start;
            continue;
        }
        start.get_or_insert(token.start);
        end = token.end;
        shape = shape.next_state(&token, script);
    }
    if let Some(start) = start {
        if matches!(shape, TriggerState::TriggerBody | TriggerState::TriggerSemicolon) {
            let line = line_of(script, start);
            return Err(Error::invalid(format!(
                "line {line}: the trigger's body does not end: it needs END;"
            )));
        }
        let next = make_piece(script, pieces.last(), start, end);
        pieces.push(next);
    }
    Ok(pieces)
}

/// Splits a migration file: as [`split`], without the file's own `BEGIN;` and `COMMIT;`, because
/// every migration runs in a transaction anyway.
///
/// # Errors
/// As [`split`].
pub fn split_migration(script: &str) -> Result<Vec<ScriptStatement<'_>>> {
    let mut pieces = split(script)?;
    pieces.retain(|piece| transaction_frame(piece.text).is_none());
    Ok(pieces)
}

/// The statement's words in order, upper case, without blanks and comments; quoted names and other
/// signs are left out. At most `count` of them.
pub fn leading_words(statement: &str, count: usize) -> Vec<String> {
    let mut tokens = SqlTokenizer { text: statement, at: 0 };
    let mut words = Vec::new();
    while words.len() < count {
        match tokens.next_token() {
            Ok(Some(token)) if token.kind == TokenKind::Word => {
                words.push(statement[token.start..token.end].to_ascii_uppercase());
            }
            _ => break,
        }
    }
    words
}

/// Whether a statement can only read, by its first word: SELECT, VALUES or EXPLAIN. A statement that
/// starts with `WITH` may do either, and counts as one that writes.
pub fn is_read_statement(statement: &str) -> bool {
    let plain = statement.trim_ascii_start();
    // Compared first because nearly all reads start with it, and costs no allocation.
    if plain.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("SELECT")) {
        return true;
    }
    let first = leading_words(plain, 1);
    matches!(first.first().map(String::as_str), Some("SELECT" | "VALUES" | "EXPLAIN"))
}

/// SQLite's tokens as they are written: words, numbers, whole strings and quoted names, and other
/// signs one by one. Blanks and comments are left out; what does not close ends them.
pub fn tokens(sql: &str) -> impl Iterator<Item = &str> {
    let mut tokens = SqlTokenizer { text: sql, at: 0 };
    std::iter::from_fn(move || {
        tokens.next_token().ok().flatten().map(|token| &sql[token.start..token.end])
    })
}

/// What begins or ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionFrame {
    /// `BEGIN`.
    Begin,
    /// `COMMIT` or `END`.
    Commit,
}

/// Which of the two a statement is, if it is nothing else.
pub fn transaction_frame(statement: &str) -> Option<TransactionFrame> {
    // Of a long row the first words are enough.
    let words: Vec<String> =
        tokens(statement).take(4).map(|token| token.to_ascii_uppercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["BEGIN"]
        | ["BEGIN", "TRANSACTION"]
        | ["BEGIN", "DEFERRED" | "IMMEDIATE" | "EXCLUSIVE"]
        | ["BEGIN", "DEFERRED" | "IMMEDIATE" | "EXCLUSIVE", "TRANSACTION"] => {
            Some(TransactionFrame::Begin)
        }
        ["COMMIT" | "END"] | ["COMMIT" | "END", "TRANSACTION"] => Some(TransactionFrame::Commit),
        _ => None,
    }
}

/// Lines are counted from the piece before, so that a long script is gone through once.
fn make_piece<'a>(
    script: &'a str,
    before: Option<&ScriptStatement<'_>>,
    start: usize,
    end: usize,
) -> ScriptStatement<'a> {
    let line_start = script[..start].rfind('\n').map_or(0, |end| end + 1);
    let column = script[line_start..start].chars().count() + 1;
    let (line, from) = before.map_or((1, 0), |before| (before.line, before.start));
    ScriptStatement {
        text: &script[start..end],
        line: line + line_of(&script[from..], start - from) - 1,
        column,
        start,
    }
}

fn line_of(script: &str, at: usize) -> usize {
    script[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

fn unterminated_error(script: &str, at: usize) -> Error {
    let quote = script[at..].chars().next().unwrap_or('"');
    Error::invalid(format!("line {}: what opens with {quote} does not close", line_of(script, at)))
}

/// How far a statement has come on its way to be a CREATE TRIGGER, and through its body. The body
/// ends with a semicolon, END and a semicolon, which no CASE … END can look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TriggerState {
    Start,
    Explain,
    Create,
    Plain,
    TriggerBody,
    TriggerSemicolon,
    TriggerEnd,
}

impl TriggerState {
    fn is_statement_end(self) -> bool {
        !matches!(self, TriggerState::TriggerBody | TriggerState::TriggerSemicolon)
    }

    fn next_state(self, token: &SqlToken, script: &str) -> TriggerState {
        let word = &script[token.start..token.end];
        let is = |other: &str| token.kind == TokenKind::Word && word.eq_ignore_ascii_case(other);
        match self {
            TriggerState::Start if is("EXPLAIN") => TriggerState::Explain,
            TriggerState::Start | TriggerState::Explain if is("CREATE") => TriggerState::Create,
            TriggerState::Explain if is("QUERY") || is("PLAN") => TriggerState::Explain,
            TriggerState::Create if is("TEMP") || is("TEMPORARY") => TriggerState::Create,
            TriggerState::Create if is("TRIGGER") => TriggerState::TriggerBody,
            TriggerState::Start
            | TriggerState::Explain
            | TriggerState::Create
            | TriggerState::Plain => TriggerState::Plain,
            TriggerState::TriggerBody
            | TriggerState::TriggerSemicolon
            | TriggerState::TriggerEnd
                if token.kind == TokenKind::Semicolon =>
            {
                TriggerState::TriggerSemicolon
            }
            TriggerState::TriggerSemicolon if is("END") => TriggerState::TriggerEnd,
            TriggerState::TriggerBody
            | TriggerState::TriggerSemicolon
            | TriggerState::TriggerEnd => TriggerState::TriggerBody,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Word,
    Semicolon,
    Other,
}

struct SqlToken {
    kind: TokenKind,
    start: usize,
    end: usize,
}

/// SQLite's tokens, as far as finding the ends of statements needs them. Blanks and comments are
/// skipped.
struct SqlTokenizer<'a> {
    text: &'a str,
    at: usize,
}

impl SqlTokenizer<'_> {
    /// The next token; `Err` with the offset of a quote that does not close.
    fn next_token(&mut self) -> std::result::Result<Option<SqlToken>, usize> {
        let bytes = self.text.as_bytes();
        loop {
            let start = self.at;
            let Some(&byte) = bytes.get(start) else {
                return Ok(None);
            };
            let rest = &bytes[start..];
            if byte.is_ascii_whitespace() || byte == 0x0b {
                self.at += 1;
            } else if rest.starts_with(b"--") {
                self.at = find_bytes(bytes, start + 2, b"\n").map_or(bytes.len(), |end| end + 1);
            } else if rest.starts_with(b"/*") {
                // SQLite lets a comment run to the end of the text.
                self.at = find_bytes(bytes, start + 2, b"*/").map_or(bytes.len(), |end| end + 2);
            } else {
                let (kind, end) = match byte {
                    b';' => (TokenKind::Semicolon, start + 1),
                    b'\'' | b'"' | b'`' => {
                        (TokenKind::Other, closing_quote(bytes, start, byte).ok_or(start)?)
                    }
                    b'[' => {
                        (TokenKind::Other, find_bytes(bytes, start + 1, b"]").ok_or(start)? + 1)
                    }
                    _ if is_word(byte) => (
                        TokenKind::Word,
                        start + rest.iter().take_while(|byte| is_word(**byte)).count(),
                    ),
                    _ => (TokenKind::Other, start + 1),
                };
                self.at = end;
                return Ok(Some(SqlToken { kind, start, end }));
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn find_bytes(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    bytes
        .get(from..)?
        .windows(needle.len())
        .position(|window| window == needle)
        .map(|offset| from + offset)
}

/// Where the quoted text ends; a doubled quote stands for itself.
fn closing_quote(bytes: &[u8], start: usize, quote: u8) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at = find_bytes(bytes, at, &[quote])? + 1;
        if bytes.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{is_read_statement, leading_words, split, split_migration, tokens};
    use proptest::prelude::proptest;

    fn texts(script: &str) -> Vec<&str> {
        split(script).unwrap().into_iter().map(|piece| piece.text).collect()
    }

    /// Lesson 36: scripts were cut at every semicolon, through strings and trigger bodies.
    #[test]
    fn lesson_36_semicolons_inside_strings_comments_and_triggers_do_not_split() {
        let script = "CREATE TABLE t(a); -- one; two\nINSERT INTO t VALUES ('x;''y;'); /* ; */ SELECT \"a;b\", [c;d], `e;f`;\n\
            CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET a = CASE WHEN a THEN 1 ELSE 2 END; \
            DELETE FROM t; END; SELECT 2";
        assert_eq!(texts(script).len(), 5, "{:?}", texts(script));
        assert!(texts(script)[3].ends_with("DELETE FROM t; END"));
        assert_eq!(texts(script)[4], "SELECT 2");
    }

    #[test]
    fn a_trigger_named_end_and_columns_named_end_do_not_confuse() {
        let script = "CREATE TRIGGER \"end\" AFTER INSERT ON t BEGIN SELECT 1; SELECT \"END\"; END; SELECT 1;";
        assert_eq!(texts(script).len(), 2);
        assert_eq!(texts("CREATE TABLE trigger_log(a); SELECT 1").len(), 2);
        assert_eq!(
            texts("EXPLAIN CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END; SELECT 1").len(),
            2
        );
    }

    #[test]
    fn empty_pieces_are_left_out_and_lines_are_counted() {
        assert!(texts(" ; ;; -- nothing\n /* at all */ ;").is_empty());
        let pieces = split("-- head\n\nSELECT 1;\n\nSELECT\n2;").unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.line).collect::<Vec<_>>(), [3, 5]);
        assert_eq!(texts("SELECT 1 -- tail"), ["SELECT 1"]);
    }

    #[test]
    fn what_does_not_close_is_an_error_with_its_line() {
        for bad in ["SELECT 'a", "SELECT \"a", "SELECT [a", "SELECT `a``"] {
            let error = split(&format!("SELECT 1;\n{bad}")).unwrap_err();
            assert!(error.message.starts_with("line 2"), "{bad}: {error}");
        }
        let error = split("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1;").unwrap_err();
        assert!(error.message.contains("END;"), "{error}");
    }

    #[test]
    fn a_migrations_own_transaction_is_ignored() {
        let script = "BEGIN; CREATE TABLE a(x); COMMIT TRANSACTION; begin immediate transaction; SELECT 1; END;";
        let pieces = split_migration(script).unwrap();
        assert_eq!(
            pieces.iter().map(|piece| piece.text).collect::<Vec<_>>(),
            ["CREATE TABLE a(x)", "SELECT 1"]
        );
    }

    #[test]
    fn leading_words_skip_comments() {
        assert_eq!(leading_words("/* x */ -- y\n with a as (select 1)", 2), ["WITH", "A"]);
        assert_eq!(leading_words("", 2), Vec::<String>::new());
    }

    #[test]
    fn a_statement_reads_only_when_its_first_word_says_so() {
        for sql in [
            "SELECT 1",
            " \n select a from t",
            "VALUES (1)",
            "EXPLAIN DELETE FROM t",
            "-- hi\nSELECT 1",
        ] {
            assert!(is_read_statement(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "PRAGMA user_version = 1",
            "",
            "é",
        ] {
            assert!(!is_read_statement(sql), "{sql}");
        }
    }

    #[test]
    fn tokens_are_given_as_they_are_written() {
        let found: Vec<&str> =
            tokens("INSERT /* x */ INTO \"a b\" VALUES(-1.5,X'0A','it''s') -- end").collect();
        let wanted = [
            "INSERT", "INTO", "\"a b\"", "VALUES", "(", "-", "1", ".", "5", ",", "X", "'0A'", ",",
            "'it''s'", ")",
        ];
        assert_eq!(found, wanted);
    }

    proptest! {
        #[test]
        fn any_text_is_split_without_panic_and_loses_no_statement(script in "(?s)[;'\"`\\[\\]\\-/* \nA-Zéx]{0,60}|.{0,60}") {
            if let Ok(pieces) = split(&script) {
                for piece in pieces {
                    assert!(script[piece.start..].starts_with(piece.text) && !piece.text.is_empty());
                }
            }
        }
    }
}
