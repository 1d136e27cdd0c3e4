//! Time and randomness: given one value where the statement enters, so that running it again elsewhere does the same.
//! Chance that each row wants anew, and the connection's counters, are left to the database.

use super::Walk;
use super::clock::Clock;
use crate::allowed::{is_counter, time_arguments};
use crate::edit::Piece;
use crate::moment::{STORED_NOW, Slot};
use crate::names::{dequote, same};
use crate::source::not_understood;
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{Expr, ExprList, Literal, LiteralType};

/// Bytes of a `randomblob()` whose value is put into the text of a statement that writes.
const MAX_RANDOM_BYTES: u32 = 64 << 10;

impl<'w> Walk<'w> {
    /// `CURRENT_TIMESTAMP`, `CURRENT_DATE`, `CURRENT_TIME`.
    pub(super) fn current(&mut self, literal: Literal<'w>) -> Result<()> {
        let range = self.source.range(literal.source())?;
        let (slot, function) = match literal.source() {
            word if same(word, "CURRENT_TIMESTAMP") => (Slot::CurrentTimestamp, "datetime"),
            word if same(word, "CURRENT_DATE") => (Slot::CurrentDate, "date"),
            word if same(word, "CURRENT_TIME") => (Slot::CurrentTime, "time"),
            _ => return Err(not_understood()),
        };
        match self.clock {
            Clock::Live | Clock::Default => (),
            Clock::Slots => self.edits.replace(range, slot),
            Clock::View | Clock::Trigger => self.edits.replace(range, format!("{function}({STORED_NOW})")),
            Clock::Never(place) => return Err(self.changing(&range, literal.source(), place)),
        }
        Ok(())
    }

    fn changing(&self, range: &Range<usize>, what: &str, place: &str) -> debros_proto::Error {
        self.refuse_at(
            range,
            &format!("{what} is not allowed in {place}: it would not be the same when it is read again"),
        )
    }

    /// Deals with a call of a function of the moment. Says whether its arguments are dealt with too.
    pub(super) fn call_of_the_moment(
        &mut self,
        token: &Range<usize>,
        function: &str,
        args: Option<ExprList<'w>>,
    ) -> Result<bool> {
        if let Some(places) = time_arguments(function) {
            self.call_of_time(token, function, args, places)?;
            return Ok(true);
        }
        match function {
            name if same(name, "random") => self.random(token, Slot::Random).map(|()| false),
            name if same(name, "randomblob") => self.random_blob(token, args),
            name if is_counter(name) => self.counter(token),
            _ => Ok(false),
        }
    }

    /// From the name to the closing parenthesis. Not the node's own extent: that of a whole WHERE holds the word WHERE.
    fn whole_call(&self, name: &Range<usize>) -> Result<Range<usize>> {
        let open = self.source.expect(name.end, "(")?;
        Ok(name.start..self.source.closing(open.start)?)
    }

    fn random(&mut self, token: &Range<usize>, slot: Slot) -> Result<()> {
        match self.clock {
            Clock::Live | Clock::Default => Ok(()),
            // Each row wants a value of its own, which only the database can make.
            Clock::Slots if self.per_row => {
                self.random_rows = true;
                Ok(())
            }
            Clock::Slots => {
                let range = self.whole_call(token)?;
                self.edits.replace(range, slot);
                Ok(())
            }
            Clock::View => Err(self.changing(token, "random() or randomblob()", "a view")),
            Clock::Trigger => Err(self.changing(token, "random() or randomblob()", "a trigger")),
            Clock::Never(place) => Err(self.changing(token, "random() or randomblob()", place)),
        }
    }

    fn random_blob(&mut self, token: &Range<usize>, args: Option<ExprList<'w>>) -> Result<bool> {
        if self.clock != Clock::Slots || self.per_row {
            return self.random(token, Slot::RandomBlob(0)).map(|()| false);
        }
        let length = match args.and_then(|args| args.get(0)) {
            Some(Expr::Literal(literal)) if literal.literal_type() == LiteralType::Integer => {
                literal.source().parse::<u32>().ok().filter(|length| *length <= MAX_RANDOM_BYTES)
            }
            _ => None,
        };
        let Some(length) = length else {
            // Its length is known when it is run.
            self.random_rows = true;
            return Ok(false);
        };
        args.and_then(|args| args.get(0)).iter().for_each(|arg| self.understand(AnyNodeId::from(arg.node_id())));
        // SQLite makes at least one byte.
        self.random(token, Slot::RandomBlob(length.max(1)))?;
        Ok(true)
    }

    /// What the connection counts, which changes while a statement runs: SQLite's own functions, on a connection that
    /// the engine makes as that of the caller alone ([`restore_counters`](crate::counters::restore_counters)).
    fn counter(&mut self, token: &Range<usize>) -> Result<bool> {
        let what = &self.source.text[token.clone()];
        match self.clock {
            Clock::Live | Clock::Slots | Clock::Trigger | Clock::View => Ok(false),
            Clock::Default => Err(self.changing(token, what, "a default")),
            Clock::Never(place) => Err(self.changing(token, what, place)),
        }
    }

    fn call_of_time(
        &mut self,
        token: &Range<usize>,
        function: &str,
        args: Option<ExprList<'w>>,
        places: &[usize],
    ) -> Result<()> {
        let args: Vec<Expr<'w>> = args.iter().flat_map(ExprList::iter).collect();
        for (index, arg) in args.iter().enumerate() {
            if !places.contains(&index) {
                self.expr(*arg)?;
                self.modifier(*arg)?;
            } else if self.is_word(*arg, &["now"]) {
                self.expr(*arg)?;
                self.put_now(token, function, Place::Instead(self.extent_of(*arg)?))?;
            } else if self.is_word(*arg, &["subsec", "subsecond"]) {
                let extent = self.extent_of(*arg)?;
                self.expr(*arg)?;
                // timediff() has no modifiers, and tells parts of seconds anyway.
                let place = if places.len() == 1 { Place::Before(extent.start) } else { Place::Instead(extent) };
                self.put_now(token, function, place)?;
            } else if matches!(arg, Expr::Literal(_)) {
                self.expr(*arg)?;
            } else {
                self.changing_time(*arg)?;
            }
        }
        // `datetime()` and `strftime('%s')` mean the present.
        if let [place] = places
            && args.len() == *place
        {
            let open = self.source.expect(token.end, "(")?;
            let close = self.source.closing(open.start)? - 1;
            // `datetime(*)` is the same as `datetime()`.
            let place = if *place == 0 { Place::Instead(open.end..close) } else { Place::After(close) };
            self.put_now(token, function, place)?;
        }
        Ok(())
    }

    fn extent_of(&self, expression: Expr<'w>) -> Result<Range<usize>> {
        self.source.extent(AnyNodeId::from(expression.node_id()))
    }

    /// Whether an argument is one of these strings.
    fn is_word(&self, expression: Expr<'w>, words: &[&str]) -> bool {
        match expression {
            Expr::Literal(literal) if literal.literal_type() == LiteralType::String => {
                words.iter().any(|word| same(word, &dequote(literal.source())))
            }
            _ => false,
        }
    }

    fn put_now(&mut self, token: &Range<usize>, function: &str, place: Place) -> Result<()> {
        let now = match self.clock {
            Clock::Live | Clock::Default => return Ok(()),
            Clock::Slots => Piece::Slot(Slot::Now),
            Clock::View | Clock::Trigger => Piece::from(STORED_NOW),
            Clock::Never(what) => return Err(self.changing(token, &format!("the present time in {function}()"), what)),
        };
        match place {
            Place::Instead(range) => self.edits.replace(range, now),
            Place::Before(at) => self.edits.insert_all(at, vec![now, Piece::from(", ")]),
            Place::After(at) => self.edits.insert_all(at, vec![Piece::from(", "), now]),
        }
        Ok(())
    }

    /// A time value that is not written out may turn out to be 'now'.
    fn changing_time(&mut self, expression: Expr<'w>) -> Result<()> {
        let now = match self.clock {
            Clock::Slots => Piece::Slot(Slot::Now),
            Clock::Trigger => Piece::from(STORED_NOW),
            // A view is read with every row that it has: there it is left. SQLite itself refuses it in constraints.
            Clock::Live | Clock::View | Clock::Default | Clock::Never(_) => return self.expr(expression),
        };
        let extent = self.extent_of(expression)?;
        // SQLite takes the whole text for 'now', in any case of letters, and nothing before or after it. The value is
        // evaluated once and keeps its type; NULL and an empty text are both no time.
        self.edits.insert(extent.start, "coalesce(nullif(coalesce(");
        self.expr(expression)?;
        self.edits.insert_all(extent.end, vec![Piece::from(", '') COLLATE NOCASE, 'now'), "), now, Piece::from(")")]);
        Ok(())
    }

    /// The local time of every node is UTC.
    fn modifier(&mut self, expression: Expr<'w>) -> Result<()> {
        let kept = matches!(self.clock, Clock::Default | Clock::Never(_));
        if !kept && self.is_word(expression, &["localtime", "utc"]) {
            let range = self.extent_of(expression)?;
            self.edits.replace(range, "'+0 days'");
        }
        Ok(())
    }
}

/// Where the time is put.
enum Place {
    Instead(Range<usize>),
    Before(usize),
    After(usize),
}
