//! Splicing: the output is the user's text with a few ranges replaced.

use crate::moment::{Moment, Slot};
use debros_proto::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// A part of a text: fixed, or filled when the statement is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Slot(Slot),
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

/// Replacements in a text, in any order.
#[derive(Debug, Default)]
pub(crate) struct Edits(Vec<(Range<usize>, Vec<Piece>)>);

impl Edits {
    /// Puts `with` in place of the range.
    pub(crate) fn replace(&mut self, range: Range<usize>, with: impl Into<Piece>) {
        self.0.push((range, vec![with.into()]));
    }

    /// Puts text in at an offset. Of several at one offset, the first that was asked for comes first.
    pub(crate) fn insert(&mut self, at: usize, with: impl Into<Piece>) {
        self.0.push((at..at, vec![with.into()]));
    }

    /// As [`insert`](Edits::insert), of several pieces.
    pub(crate) fn insert_all(&mut self, at: usize, with: Vec<Piece>) {
        self.0.push((at..at, with));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn any(&self, mut test: impl FnMut(&Piece) -> bool) -> bool {
        self.0.iter().any(|(_, pieces)| pieces.iter().any(&mut test))
    }

    /// The text with all replacements made.
    ///
    /// # Errors
    /// `internal` when two of them touch the same bytes: then nothing is known about the result.
    pub(crate) fn apply(mut self, text: &str) -> Result<Template> {
        // Stable, so that insertions at one offset keep their order.
        self.0.sort_by_key(|(range, _)| range.start);
        let mut template = Template::default();
        let mut done = 0;
        for (range, pieces) in self.0 {
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
        let mut text = String::with_capacity(self.size() + 32 * self.slots.len());
        for (index, part) in self.texts.iter().enumerate() {
            text.push_str(part);
            if let Some(slot) = self.slots.get(index) {
                fill(*slot, &mut text);
            }
        }
        Cow::Owned(text)
    }

    /// Bytes of its fixed texts.
    pub(crate) fn size(&self) -> usize {
        self.texts.iter().map(String::len).sum()
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
