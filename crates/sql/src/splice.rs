//! Splicing: the output is the user's text with a few ranges replaced.

use crate::execution_context::Placeholder;
use debros_proto::limits::MAX_SQL_BYTES;
use debros_proto::{Code, Error, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

/// The most bytes of a rewritten text. An insertion may be as large as the schema, once for each few bytes
/// of the user's text.
pub(crate) const MAX_REWRITTEN: usize = 4 * MAX_SQL_BYTES;

/// The rewritten text would be above [`MAX_REWRITTEN`].
pub(crate) fn too_long_error() -> Error {
    Error::new(
        Code::SqlTooLong,
        format!(
            "with its insertions (full names, volatile defaults, rows of sqlite_schema) the statement \
             has more than {MAX_REWRITTEN} bytes: split it"
        ),
    )
}

/// A part of a text: fixed, or filled when the statement runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextPiece {
    Text(String),
    Placeholder(Placeholder),
}

impl From<String> for TextPiece {
    fn from(text: String) -> Self {
        TextPiece::Text(text)
    }
}

impl From<&str> for TextPiece {
    fn from(text: &str) -> Self {
        TextPiece::Text(text.to_owned())
    }
}

impl From<Placeholder> for TextPiece {
    fn from(placeholder: Placeholder) -> Self {
        TextPiece::Placeholder(placeholder)
    }
}

impl TextPiece {
    /// Bytes of it in the text, at most.
    fn max_size(&self) -> usize {
        match self {
            TextPiece::Text(text) => text.len(),
            TextPiece::Placeholder(placeholder) => placeholder.max_size(),
        }
    }
}

/// Replacements in a text, in any order. Their bytes are counted as they come, and above
/// [`MAX_REWRITTEN`] no more are stored.
#[derive(Debug, Default)]
pub(crate) struct SpliceList {
    list: Vec<(Range<usize>, Rc<[TextPiece]>)>,
    bytes: usize,
}

impl SpliceList {
    /// Puts `with` in place of the range.
    pub(crate) fn replace(&mut self, range: Range<usize>, with: impl Into<TextPiece>) {
        self.add_splice(range, Rc::new([with.into()]));
    }

    /// Inserts text at an offset. Of several at one offset, the first requested comes first.
    pub(crate) fn insert(&mut self, at: usize, with: impl Into<TextPiece>) {
        self.add_splice(at..at, Rc::new([with.into()]));
    }

    /// As [`insert`](SpliceList::insert), of several pieces, which many positions may share.
    pub(crate) fn insert_all(&mut self, at: usize, with: impl Into<Rc<[TextPiece]>>) {
        self.add_splice(at..at, with.into());
    }

    fn add_splice(&mut self, range: Range<usize>, pieces: Rc<[TextPiece]>) {
        self.bytes =
            pieces.iter().fold(self.bytes, |bytes, piece| bytes.saturating_add(piece.max_size()));
        if self.bytes <= MAX_REWRITTEN {
            self.list.push((range, pieces));
        }
    }

    /// To be called before a large insertion is built.
    ///
    /// # Errors
    /// `sql_too_long` when too much was inserted already.
    pub(crate) fn check_size(&self) -> Result<()> {
        if self.bytes > MAX_REWRITTEN { Err(too_long_error()) } else { Ok(()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn contains_piece(&self, mut test: impl FnMut(&TextPiece) -> bool) -> bool {
        self.list.iter().any(|(_, pieces)| pieces.iter().any(&mut test))
    }

    /// The text with all replacements made.
    ///
    /// # Errors
    /// `internal` when two of them touch the same bytes: then nothing is known about the result;
    /// `sql_too_long` when the text and they are above [`MAX_REWRITTEN`].
    pub(crate) fn apply(mut self, text: &str) -> Result<SqlTemplate> {
        if self.bytes.saturating_add(text.len()) > MAX_REWRITTEN {
            return Err(too_long_error());
        }
        // Stable, so that insertions at one offset keep their order.
        self.list.sort_by_key(|(range, _)| range.start);
        let mut template = SqlTemplate::default();
        let mut done = 0;
        for (range, pieces) in self.list {
            let (Some(unchanged), true) =
                (text.get(done..range.start), text.is_char_boundary(range.end))
            else {
                return Err(Error::internal("the statement could not be rewritten"));
            };
            template.push_text(unchanged);
            for piece in pieces.iter() {
                match piece {
                    TextPiece::Text(text) => template.push_text(text),
                    TextPiece::Placeholder(placeholder) => template.push_placeholder(*placeholder),
                }
            }
            done = range.end;
        }
        template.push_text(&text[done..]);
        Ok(template)
    }
}

/// A text with placeholders that are filled when the statement runs: text and placeholders in turn,
/// beginning and ending with text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SqlTemplate {
    texts: Vec<String>,
    placeholders: Vec<Placeholder>,
}

impl Default for SqlTemplate {
    fn default() -> Self {
        Self { texts: vec![String::new()], placeholders: Vec::new() }
    }
}

impl SqlTemplate {
    pub(crate) fn from_text(text: String) -> Self {
        Self { texts: vec![text], placeholders: Vec::new() }
    }

    fn push_text(&mut self, text: &str) {
        if let Some(last) = self.texts.last_mut() {
            last.push_str(text);
        }
    }

    fn push_placeholder(&mut self, placeholder: Placeholder) {
        self.placeholders.push(placeholder);
        self.texts.push(String::new());
    }

    pub(crate) fn has_placeholders(&self) -> bool {
        !self.placeholders.is_empty()
    }

    /// As pieces, to be inserted into another text.
    pub(crate) fn into_pieces(self) -> Vec<TextPiece> {
        let mut placeholders = self.placeholders.into_iter();
        let mut pieces = Vec::new();
        for text in self.texts {
            pieces.push(TextPiece::Text(text));
            pieces.extend(placeholders.next().map(TextPiece::Placeholder));
        }
        pieces
    }

    /// The text with stand-ins for its placeholders.
    pub(crate) fn with_stand_ins(&self) -> Cow<'_, str> {
        self.render(|placeholder, text| text.push_str(placeholder.stand_in()))
    }

    /// The text, with what `fill` writes for each placeholder.
    pub(crate) fn render(&self, mut fill: impl FnMut(Placeholder, &mut String)) -> Cow<'_, str> {
        if self.placeholders.is_empty() {
            return Cow::Borrowed(&self.texts[0]);
        }
        let fixed: usize = self.texts.iter().map(String::len).sum();
        let mut text = String::with_capacity(fixed + 32 * self.placeholders.len());
        for (index, part) in self.texts.iter().enumerate() {
            text.push_str(part);
            if let Some(placeholder) = self.placeholders.get(index) {
                fill(*placeholder, &mut text);
            }
        }
        Cow::Owned(text)
    }

    /// Bytes of memory that it takes: its texts, their own overhead and that of the allocator, and
    /// its placeholders.
    pub(crate) fn memory_size(&self) -> usize {
        let texts: usize =
            self.texts.iter().map(|text| text.capacity() + size_of::<String>() + 16).sum();
        texts + self.placeholders.len() * size_of::<Placeholder>()
    }
}

#[cfg(test)]
mod tests {
    use super::SpliceList;
    use crate::execution_context::Placeholder;
    use debros_proto::Code;

    #[test]
    fn splices_are_made_in_order_of_position_and_of_request() {
        let mut splices = SpliceList::default();
        splices.insert(7, "!");
        splices.replace(0..3, "X");
        splices.insert(7, "?");
        splices.replace(4..7, Placeholder::Random);
        assert_eq!(splices.apply("abc def ghi").unwrap().with_stand_ins(), "X 0!? ghi");
    }

    #[test]
    fn what_is_put_in_is_bounded_and_no_more_is_kept() {
        let mut splices = SpliceList::default();
        let large = "x".repeat(1 << 20);
        for _ in 0..4 {
            splices.check_size().unwrap();
            splices.insert(0, large.as_str());
        }
        splices.check_size().unwrap();
        splices.insert(0, Placeholder::RandomBlob(8));
        splices.insert(0, large.as_str());
        assert_eq!((splices.check_size().unwrap_err().code, splices.len()), (Code::SqlTooLong, 4));
        assert_eq!(splices.apply("").unwrap_err().code, Code::SqlTooLong);
    }

    #[test]
    fn the_size_of_a_text_with_many_slots_is_that_of_its_slots_too() {
        let mut splices = SpliceList::default();
        (0..1000).for_each(|_| splices.insert(0, Placeholder::Now));
        assert!(
            splices.apply("").unwrap().memory_size()
                > 1000 * (size_of::<String>() + size_of::<Placeholder>())
        );
    }

    #[test]
    fn edits_that_touch_are_an_error() {
        let mut splices = SpliceList::default();
        splices.replace(0..3, "X");
        splices.replace(2..5, "Y");
        assert!(splices.apply("abcdef").is_err());
        let mut splices = SpliceList::default();
        splices.replace(1..2, "inside a character");
        assert!(splices.apply("é").is_err());
    }
}
