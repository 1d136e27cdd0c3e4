//! Splicing: the output is the user's text with a few ranges replaced.

use crate::moment::{Moment, Slot};
use debros_proto::{Code, Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// A part of a text: fixed, or filled when the statement is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Slot(Slot),
}

impl Piece {
    /// Bytes in the text that is run.
    fn bytes(&self) -> usize {
        match self {
            Piece::Text(text) => text.len(),
            Piece::Slot(slot) => slot.bytes(),
        }
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        Piece::Text(text)
    }
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Piece::Text(text.to_owned())
    }
}

impl From<Slot> for Piece {
    fn from(slot: Slot) -> Self {
        Piece::Slot(slot)
    }
}

/// Bytes that a statement may get by being moved. A short text can ask for much: for the whole schema at each mention of
/// `sqlite_schema` beside a table, for a long default in each row.
const MAX_BYTES: usize = 4 << 20;

/// Replacements in a text, in any order.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    list: Vec<(Range<usize>, Vec<Piece>)>,
    bytes: usize,
}

impl Edits {
    /// Puts `with` in place of the range.
    pub(crate) fn replace(&mut self, range: Range<usize>, with: impl Into<Piece>) {
        let with = with.into();
        if self.has_room(std::slice::from_ref(&with)) {
            self.list.push((range, vec![with]));
        }
    }

    /// Puts text in at an offset. Of several at one offset, the first that was asked for comes first.
    pub(crate) fn insert(&mut self, at: usize, with: impl Into<Piece>) {
        self.replace(at..at, with);
    }

    /// As [`insert`](Edits::insert), of several pieces.
    pub(crate) fn insert_all(&mut self, at: usize, with: &[Piece]) {
        if self.has_room(with) {
            self.list.push((at..at, with.to_vec()));
        }
    }

    /// Counts the pieces, which are not taken when there are too many: then [`apply`](Edits::apply) is an error.
    fn has_room(&mut self, pieces: &[Piece]) -> bool {
        self.bytes = pieces.iter().map(Piece::bytes).fold(self.bytes, usize::saturating_add);
        self.bytes <= MAX_BYTES
    }

    /// Refuses to go on when there is more than a statement may get, or would be with so many bytes more.
    ///
    /// # Errors
    /// `sql_too_long`.
    pub(crate) fn check_room(&self, more: usize) -> Result<()> {
        if self.bytes.saturating_add(more) <= MAX_BYTES {
            return Ok(());
        }
        Err(Error::new(
            Code::SqlTooLong,
            format!(
                "the statement takes more than {MAX_BYTES} bytes beside its text, for the schema that it asks for, the \
                 defaults of its rows and the names that it uses: split it"
            ),
        ))
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn any(&self, mut test: impl FnMut(&Piece) -> bool) -> bool {
        self.list.iter().any(|(_, pieces)| pieces.iter().any(&mut test))
    }

    /// The text with all replacements made.
    ///
    /// # Errors
    /// `sql_too_long`; `internal` when two of them touch the same bytes: then nothing is known about the result.
    pub(crate) fn apply(mut self, text: &str) -> Result<Template> {
        self.check_room(0)?;
        // Stable, so that insertions at one offset keep their order.
        self.list.sort_by_key(|(range, _)| range.start);
        let mut template = Template::default();
        let mut done = 0;
        for (range, pieces) in self.list {
            let (Some(kept), true) = (text.get(done..range.start), text.is_char_boundary(range.end)) else {
                return Err(Error::internal("the statement could not be rewritten"));
            };
            template.push_text(kept);
            for piece in pieces {
                match piece {
                    Piece::Text(text) => template.push_text(&text),
                    Piece::Slot(slot) => template.push_slot(slot),
                }
            }
            done = range.end;
        }
        template.push_text(&text[done..]);
        Ok(template)
    }
}

/// A text with places that are filled when the statement is run: text and slots in turn, beginning and ending with text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    texts: Vec<String>,
    slots: Vec<Slot>,
}

impl Default for Template {
    fn default() -> Self {
        Self { texts: vec![String::new()], slots: Vec::new() }
    }
}

impl Template {
    pub(crate) fn fixed(text: String) -> Self {
        Self { texts: vec![text], slots: Vec::new() }
    }

    fn push_text(&mut self, text: &str) {
        if let Some(last) = self.texts.last_mut() {
            last.push_str(text);
        }
    }

    fn push_slot(&mut self, slot: Slot) {
        self.slots.push(slot);
        self.texts.push(String::new());
    }

    pub(crate) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// As pieces, to be put into another text.
    pub(crate) fn into_pieces(self) -> Vec<Piece> {
        let mut slots = self.slots.into_iter();
        let mut pieces = Vec::new();
        for text in self.texts {
            pieces.push(Piece::Text(text));
            pieces.extend(slots.next().map(Piece::Slot));
        }
        pieces
    }

    /// The text, with its slots filled.
    pub(crate) fn fill(&self, moment: &mut Moment<'_>) -> Cow<'_, str> {
        self.build(|slot, text| slot.fill(moment, text))
    }

    /// The text with stand-ins for its slots.
    pub(crate) fn form(&self) -> Cow<'_, str> {
        self.build(|slot, text| text.push_str(slot.stand_in()))
    }

    fn build(&self, mut fill: impl FnMut(Slot, &mut String)) -> Cow<'_, str> {
        if self.slots.is_empty() {
            return Cow::Borrowed(&self.texts[0]);
        }
        let mut text = String::with_capacity(self.size());
        for (index, part) in self.texts.iter().enumerate() {
            text.push_str(part);
            if let Some(slot) = self.slots.get(index) {
                fill(*slot, &mut text);
            }
        }
        Cow::Owned(text)
    }

    /// Bytes of the text that is run.
    fn size(&self) -> usize {
        self.texts.iter().map(String::len).chain(self.slots.iter().map(|slot| slot.bytes())).sum()
    }

    /// Bytes of memory, with what an allocation takes beside.
    pub(crate) fn held(&self) -> usize {
        const ALLOCATION: usize = 16;
        let texts: usize = self.texts.iter().map(|text| size_of::<String>() + text.capacity() + ALLOCATION).sum();
        texts + self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::Edits;
    use crate::moment::Slot;

    #[test]
    fn edits_are_made_in_order_of_place_and_of_asking() {
        let mut edits = Edits::default();
        edits.insert(7, "!");
        edits.replace(0..3, "X");
        edits.insert(7, "?");
        edits.replace(4..7, Slot::Random);
        assert_eq!(edits.apply("abc def ghi").unwrap().form(), "X 0!? ghi");
    }

    #[test]
    fn what_a_statement_gets_is_bounded() {
        let text = "x".repeat(1 << 20);
        let mut edits = Edits::default();
        for _ in 0..4 {
            edits.insert(0, text.as_str());
        }
        assert!(edits.check_room(0).is_ok() && edits.check_room(1).is_err());
        for _ in 0..1000 {
            edits.insert(0, text.as_str());
            edits.insert_all(0, &[text.as_str().into(), Slot::RandomBlob(1 << 20).into()]);
        }
        assert_eq!(edits.len(), 4, "nothing more is kept");
        assert_eq!(edits.apply("SELECT 1").unwrap_err().code, debros_proto::Code::SqlTooLong);
    }

    #[test]
    fn edits_that_touch_are_an_error() {
        let mut edits = Edits::default();
        edits.replace(0..3, "X");
        edits.replace(2..5, "Y");
        assert!(edits.apply("abcdef").is_err());
        let mut edits = Edits::default();
        edits.replace(1..2, "inside a character");
        assert!(edits.apply("é").is_err());
    }
}
