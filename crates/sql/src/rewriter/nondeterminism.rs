//! Time and randomness: fixed where the statement enters, so that running it again elsewhere gives
//! the same result. Random values for each row, and the connection's counters, are left to the
//! database.

use super::StatementRewriter;
use super::evaluation::Evaluation;
use crate::allowed::{is_counter, time_arguments};
use crate::execution_context::{Placeholder, STORED_NOW};
use crate::names::{dequote, is_same_name};
use crate::parsed_source::not_understood_error;
use crate::splice::TextPiece;
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{Expr, ExprList, Literal, LiteralType};

/// Bytes of a `randomblob()` whose value is put into the text of a statement that writes.
const MAX_RANDOM_BYTES: u32 = 64 << 10;

impl<'w> StatementRewriter<'w> {
    /// `CURRENT_TIMESTAMP`, `CURRENT_DATE`, `CURRENT_TIME`, which the syntax tree counts among the
    /// literals.
    pub(super) fn visit_current_time(&mut self, keyword: Literal<'w>) -> Result<()> {
        let range = self.source.range_of(keyword.source())?;
        let (placeholder, function) = match keyword.source() {
            word if is_same_name(word, "CURRENT_TIMESTAMP") => {
                (Placeholder::CurrentTimestamp, "datetime")
            }
            word if is_same_name(word, "CURRENT_DATE") => (Placeholder::CurrentDate, "date"),
            word if is_same_name(word, "CURRENT_TIME") => (Placeholder::CurrentTime, "time"),
            _ => return Err(not_understood_error()),
        };
        match self.evaluation {
            Evaluation::Runtime | Evaluation::Default => (),
            Evaluation::Literal => self.splices.replace(range, placeholder),
            Evaluation::View | Evaluation::Trigger => {
                self.splices.replace(range, format!("{function}({STORED_NOW})"))
            }
            Evaluation::Forbidden(context) => {
                return Err(self.nondeterministic_error(&range, keyword.source(), context));
            }
        }
        Ok(())
    }

    fn nondeterministic_error(
        &self,
        range: &Range<usize>,
        what: &str,
        context: &str,
    ) -> debros_proto::Error {
        self.refuse_at(
            range,
            &format!(
                "{what} is not allowed in {context}: it would not be the same when it is read again"
            ),
        )
    }

    /// Handles a call of a non-deterministic function. Returns whether its arguments are handled
    /// too.
    pub(super) fn visit_nondeterministic_call(
        &mut self,
        token: &Range<usize>,
        function: &str,
        args: Option<ExprList<'w>>,
    ) -> Result<bool> {
        if let Some(places) = time_arguments(function) {
            self.visit_time_call(token, function, args, places)?;
            return Ok(true);
        }
        match function {
            name if is_same_name(name, "random") => {
                self.visit_random(token, Placeholder::Random).map(|()| false)
            }
            name if is_same_name(name, "randomblob") => self.visit_random_blob(token, args),
            name if is_counter(name) => self.visit_counter(token),
            _ => Ok(false),
        }
    }

    /// From the name to the closing parenthesis. The node's own extent is not used: that of a whole
    /// WHERE includes the word WHERE.
    fn whole_call(&self, name: &Range<usize>) -> Result<Range<usize>> {
        let open = self.source.expect_token(name.end, "(")?;
        Ok(name.start..self.source.closing_parenthesis(open.start)?)
    }

    fn visit_random(&mut self, token: &Range<usize>, placeholder: Placeholder) -> Result<()> {
        match self.evaluation {
            Evaluation::Runtime | Evaluation::Default => Ok(()),
            // Each row needs a value of its own, which only the database can make.
            Evaluation::Literal if self.per_row => {
                self.random_rows = true;
                Ok(())
            }
            Evaluation::Literal => {
                let range = self.whole_call(token)?;
                self.splices.replace(range, placeholder);
                Ok(())
            }
            Evaluation::View => {
                Err(self.nondeterministic_error(token, "random() or randomblob()", "a view"))
            }
            Evaluation::Trigger => {
                Err(self.nondeterministic_error(token, "random() or randomblob()", "a trigger"))
            }
            Evaluation::Forbidden(context) => {
                Err(self.nondeterministic_error(token, "random() or randomblob()", context))
            }
        }
    }

    fn visit_random_blob(
        &mut self,
        token: &Range<usize>,
        args: Option<ExprList<'w>>,
    ) -> Result<bool> {
        if self.evaluation != Evaluation::Literal || self.per_row {
            // Nothing is put into the text here, so the placeholder's length does not matter.
            return self.visit_random(token, Placeholder::RandomBlob(0)).map(|()| false);
        }
        let length = match args.and_then(|args| args.get(0)) {
            Some(Expr::Literal(literal)) if literal.literal_type() == LiteralType::Integer => {
                literal.source().parse::<u32>().ok().filter(|length| *length <= MAX_RANDOM_BYTES)
            }
            _ => None,
        };
        let Some(length) = length else {
            // Its length is known only when it runs.
            self.random_rows = true;
            return Ok(false);
        };
        args.and_then(|args| args.get(0))
            .iter()
            .for_each(|arg| self.mark_visited(AnyNodeId::from(arg.node_id())));
        // SQLite makes at least one byte.
        self.visit_random(token, Placeholder::RandomBlob(length.max(1)))?;
        Ok(true)
    }

    /// The connection's counters, which change while a statement runs: SQLite's own functions, on a
    /// connection whose counters the engine has set for the caller
    /// ([`restore_counters`](crate::counters::restore_counters)).
    fn visit_counter(&mut self, token: &Range<usize>) -> Result<bool> {
        let what = &self.source.text[token.clone()];
        match self.evaluation {
            Evaluation::Runtime | Evaluation::Literal | Evaluation::Trigger | Evaluation::View => {
                Ok(false)
            }
            Evaluation::Default => Err(self.nondeterministic_error(token, what, "a default")),
            Evaluation::Forbidden(context) => {
                Err(self.nondeterministic_error(token, what, context))
            }
        }
    }

    fn visit_time_call(
        &mut self,
        token: &Range<usize>,
        function: &str,
        args: Option<ExprList<'w>>,
        places: &[usize],
    ) -> Result<()> {
        let args: Vec<Expr<'w>> = args.iter().flat_map(ExprList::iter).collect();
        for (index, arg) in args.iter().enumerate() {
            if !places.contains(&index) {
                self.visit_expr(*arg)?;
                self.visit_time_modifier(*arg)?;
            } else if self.is_word(*arg, &["now"]) {
                self.visit_expr(*arg)?;
                self.insert_now(token, function, InsertAt::Replace(self.extent_of(*arg)?))?;
            } else if self.is_word(*arg, &["subsec", "subsecond"]) {
                let extent = self.extent_of(*arg)?;
                self.visit_expr(*arg)?;
                // timediff() has no modifiers, and includes parts of seconds anyway.
                let place = if places.len() == 1 {
                    InsertAt::Before(extent.start)
                } else {
                    InsertAt::Replace(extent)
                };
                self.insert_now(token, function, place)?;
            } else if matches!(arg, Expr::Literal(_)) {
                self.visit_expr(*arg)?;
            } else {
                self.visit_possible_now(*arg)?;
            }
        }
        // `datetime()` and `strftime('%s')` mean the present.
        if let [place] = places
            && args.len() == *place
        {
            let open = self.source.expect_token(token.end, "(")?;
            let close = self.source.closing_parenthesis(open.start)? - 1;
            // `datetime(*)` is the same as `datetime()`.
            let place = if *place == 0 {
                InsertAt::Replace(open.end..close)
            } else {
                InsertAt::After(close)
            };
            self.insert_now(token, function, place)?;
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
                words.iter().any(|word| is_same_name(word, &dequote(literal.source())))
            }
            _ => false,
        }
    }

    fn insert_now(&mut self, token: &Range<usize>, function: &str, place: InsertAt) -> Result<()> {
        let now = match self.evaluation {
            Evaluation::Runtime | Evaluation::Default => return Ok(()),
            Evaluation::Literal => TextPiece::Placeholder(Placeholder::Now),
            Evaluation::View | Evaluation::Trigger => TextPiece::from(STORED_NOW),
            Evaluation::Forbidden(what) => {
                return Err(self.nondeterministic_error(
                    token,
                    &format!("the present time in {function}()"),
                    what,
                ));
            }
        };
        match place {
            InsertAt::Replace(range) => self.splices.replace(range, now),
            InsertAt::Before(at) => self.splices.insert_all(at, vec![now, TextPiece::from(", ")]),
            InsertAt::After(at) => self.splices.insert_all(at, vec![TextPiece::from(", "), now]),
        }
        Ok(())
    }

    /// A time value that is not a literal may turn out to be 'now'.
    fn visit_possible_now(&mut self, expression: Expr<'w>) -> Result<()> {
        let now = match self.evaluation {
            Evaluation::Literal => TextPiece::Placeholder(Placeholder::Now),
            Evaluation::Trigger => TextPiece::from(STORED_NOW),
            // A read sees the present anyway. In a view the check below would run again for each
            // row at each read: there a 'now' among the data stays the present time (DESIGN.md,
            // "Not covered"). In constraints SQLite itself refuses 'now'.
            Evaluation::Runtime
            | Evaluation::View
            | Evaluation::Default
            | Evaluation::Forbidden(_) => {
                return self.visit_expr(expression);
            }
        };
        let extent = self.extent_of(expression)?;
        // SQLite takes only the whole text as 'now', in any case of letters. The value is evaluated
        // once and keeps its type; NULL and an empty text are both no time.
        self.splices.insert(extent.start, "coalesce(nullif(coalesce(");
        self.visit_expr(expression)?;
        self.splices.insert_all(
            extent.end,
            vec![TextPiece::from(", '') COLLATE NOCASE, 'now'), "), now, TextPiece::from(")")],
        );
        Ok(())
    }

    /// The local time of every node is UTC.
    fn visit_time_modifier(&mut self, expression: Expr<'w>) -> Result<()> {
        let kept = matches!(self.evaluation, Evaluation::Default | Evaluation::Forbidden(_));
        if !kept && self.is_word(expression, &["localtime", "utc"]) {
            let range = self.extent_of(expression)?;
            self.splices.replace(range, "'+0 days'");
        }
        Ok(())
    }
}

/// Where the time is put.
enum InsertAt {
    Replace(Range<usize>),
    Before(usize),
    After(usize),
}
