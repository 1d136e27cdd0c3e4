//! One parsed statement with the positions of its tokens: the border to the parser.

use crate::position::line_and_column;
use debros_proto::{Code, Error, Result};
use std::cell::Cell;
use std::ops::Range;
use syntaqlite_syntax::any::{AnyNodeId, AnyParsedStatement};
use syntaqlite_syntax::nodes::{Name, Stmt};
use syntaqlite_syntax::typed::GrammarNodeType;
use syntaqlite_syntax::{ParseOutcome, ParseSession, Parser, ParserConfig};

/// A text above this is parsed by a parser of its own, whose memory is freed.
const LARGE: usize = 64 << 10;

thread_local! {
    static PARSER: Cell<Option<Parser>> = const { Cell::new(None) };
}

/// A statement that was parsed, and its text.
pub(crate) struct ParsedSource<'s> {
    /// The parser's copy of the whole text. Every name in the tree is a part of it, byte for byte.
    pub(crate) text: &'s str,
    tree: &'s AnyParsedStatement<'s>,
    tokens: Vec<Range<usize>>,
}

/// Parses the text and passes on its one statement.
///
/// # Errors
/// `sql_error` when the text is not a statement of SQLite's grammar; `statement_not_allowed` when
/// it is more than one; the errors of `work`.
pub(crate) fn with_statement<R>(
    sql: &str,
    work: impl FnOnce(&ParsedSource<'_>, Stmt<'_>) -> Result<R>,
) -> Result<R> {
    if sql.len() > LARGE {
        return parse_in_session(sql, new_parser().parse(sql), work);
    }
    // Taken out while it is used: reading a column's default parses inside parsing.
    let parser = PARSER.take().unwrap_or_else(new_parser);
    let result = parse_in_session(sql, parser.parse(sql), work);
    PARSER.set(Some(parser));
    result
}

fn new_parser() -> Parser {
    Parser::with_config(
        &ParserConfig::default().with_collect_tokens(true).with_collect_node_extents(true),
    )
}

fn parse_in_session<R>(
    sql: &str,
    mut session: ParseSession,
    work: impl FnOnce(&ParsedSource<'_>, Stmt<'_>) -> Result<R>,
) -> Result<R> {
    match session.next() {
        ParseOutcome::Ok(_) => (),
        ParseOutcome::Done => return Err(Error::new(Code::Sql, "the text holds no statement")),
        ParseOutcome::Err(error) => {
            let offset = error.offset().map_or(sql.len(), |offset| {
                usize::try_from(offset.to_doc(error.statement_base()).as_u32())
                    .unwrap_or(usize::MAX)
            });
            return Err(Error::new(
                Code::Sql,
                format!("{} ({})", error.message(), line_and_column(sql, offset)),
            ));
        }
    }
    let result = {
        let tree = session.arena_result();
        let text = tree.full_text().as_str();
        if text != sql || !tree.is_macro_free() {
            return Err(Error::internal("the statement could not be parsed"));
        }
        let base = tree.statement_base();
        let tokens = tree
            .tokens()
            .map(|token| {
                let range = token.stmt_range();
                range.start.to_doc(base).as_u32() as usize..range.end.to_doc(base).as_u32() as usize
            })
            .collect();
        let source = ParsedSource { text, tree: &tree, tokens };
        let root = Stmt::from_result(&tree, tree.root_id()).ok_or_else(not_understood_error)?;
        work(&source, root)?
    };
    match session.next() {
        ParseOutcome::Done => Ok(result),
        _ => Err(multiple_statements_error()),
    }
}

/// The parser met a form that this crate does not know. Never the user's fault, and never accepted.
pub(crate) fn not_understood_error() -> Error {
    Error::new(Code::StatementNotAllowed, "the statement has a form that is not supported")
}

/// The text holds more than one statement.
pub(crate) fn multiple_statements_error() -> Error {
    Error::new(
        Code::StatementNotAllowed,
        "the text holds more than one statement: send one, or several in a transaction call",
    )
}

impl<'s> ParsedSource<'s> {
    /// The tree, for code that visits all of its nodes.
    pub(crate) fn tree(&self) -> &'s AnyParsedStatement<'s> {
        self.tree
    }

    /// The position of a part of the text in it.
    ///
    /// # Errors
    /// As [`not_understood_error`] when it is no part of the text.
    pub(crate) fn range_of(&self, part: &str) -> Result<Range<usize>> {
        let start = (part.as_ptr() as usize)
            .checked_sub(self.text.as_ptr() as usize)
            .ok_or_else(not_understood_error)?;
        let end = start + part.len();
        if end > self.text.len() {
            return Err(not_understood_error());
        }
        Ok(start..end)
    }

    /// The whole token that a name came from, with its quotes.
    ///
    /// # Errors
    /// As [`not_understood_error`] when the name is no token's.
    pub(crate) fn token_range(&self, name: &str) -> Result<Range<usize>> {
        if name.is_empty() {
            return Err(Error::new(Code::StatementNotAllowed, "an empty name is not allowed"));
        }
        let range = self.range_of(name)?;
        let token = self.tokens[self.token_from(range.start)].clone();
        let quotes = token.len() - range.len();
        let fits =
            token.start <= range.start && range.end <= token.end && (quotes == 0 || quotes == 2);
        if fits { Ok(token) } else { Err(not_understood_error()) }
    }

    /// The name that a token stands for.
    pub(crate) fn name_of(&self, name: &str) -> Result<String> {
        let token = self.token_range(name)?;
        Ok(crate::names::dequote(&self.text[token]).into_owned())
    }

    /// The index of the last token that starts at or before the offset.
    fn token_from(&self, offset: usize) -> usize {
        self.tokens.partition_point(|token| token.start <= offset).saturating_sub(1)
    }

    /// The tokens that start at or after an offset, in order.
    pub(crate) fn tokens_after(&self, offset: usize) -> &[Range<usize>] {
        &self.tokens[self.tokens.partition_point(|token| token.start < offset)..]
    }

    /// The first token that starts at or after the offset.
    ///
    /// # Errors
    /// As [`not_understood_error`] when it is not the expected one.
    pub(crate) fn expect_token(&self, offset: usize, word: &str) -> Result<Range<usize>> {
        match self.tokens_after(offset).first() {
            Some(token) if self.text[token.clone()].eq_ignore_ascii_case(word) => Ok(token.clone()),
            _ => Err(not_understood_error()),
        }
    }

    /// Whether the statement is these words and signs, given with a blank between any two.
    pub(crate) fn has_exact_words(&self, words: &str) -> bool {
        let own =
            self.tokens.iter().map(|token| &self.text[token.clone()]).filter(|token| *token != ";");
        own.map(str::to_ascii_lowercase).eq(words.split(' ').map(str::to_ascii_lowercase))
    }

    /// The word before the parentheses that open right before an offset.
    ///
    /// # Errors
    /// As [`not_understood_error`] when it is not the expected one.
    pub(crate) fn word_before_parentheses(
        &self,
        offset: usize,
        word: &str,
    ) -> Result<Range<usize>> {
        let before = &self.tokens[..self.tokens.partition_point(|token| token.start < offset)];
        let token = before.iter().rev().find(|token| &self.text[(*token).clone()] != "(");
        match token {
            Some(token) if self.text[token.clone()].eq_ignore_ascii_case(word) => Ok(token.clone()),
            _ => Err(not_understood_error()),
        }
    }

    /// The offset of the outermost of several parentheses that open right before an offset.
    ///
    /// # Errors
    /// As [`not_understood_error`] when there are fewer.
    pub(crate) fn opening_parenthesis(&self, offset: usize, depth: usize) -> Result<usize> {
        let end = self.tokens.partition_point(|token| token.start < offset);
        let open = end.checked_sub(depth).map_or(&[][..], |start| &self.tokens[start..end]);
        match open.first() {
            Some(outermost) if open.iter().all(|token| &self.text[token.clone()] == "(") => {
                Ok(outermost.start)
            }
            _ => Err(not_understood_error()),
        }
    }

    /// Where the parentheses that open at the next token end: the offset after the closing one.
    pub(crate) fn closing_parenthesis(&self, offset: usize) -> Result<usize> {
        let mut depth = 0usize;
        for token in self.tokens_after(offset) {
            match &self.text[token.clone()] {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => (),
            }
            if depth == 0 {
                return Ok(token.end);
            }
        }
        Err(not_understood_error())
    }

    /// The part of the text that a node covers.
    pub(crate) fn extent(&self, id: impl Into<AnyNodeId>) -> Result<Range<usize>> {
        let (text, _) = self.tree.node_text(id.into()).ok_or_else(not_understood_error)?;
        self.range_of(text)
    }

    /// The inner text of a name's node.
    pub(crate) fn name_text(&self, name: Name<'s>) -> Result<&'s str> {
        match name {
            Name::IdentName(ident) => Ok(ident.source()),
            Name::Error(_) => Err(not_understood_error()),
        }
    }
}
