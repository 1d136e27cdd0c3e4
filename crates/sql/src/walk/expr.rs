//! Expressions.

use super::Walk;
use super::table::Position;
use crate::allowed::{FULL_TEXT_FUNCTIONS, FUNCTIONS};
use crate::names::is_one_of;
use crate::source::not_understood;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    CaseWhenList, Expr, ExprList, FrameBound, InExprSource, LikeKeyword, LiteralType, NamedWindowDefList, Select,
    WindowDef,
};

impl<'w> Walk<'w> {
    pub(super) fn maybe(&mut self, expression: Option<Expr<'w>>) -> Result<()> {
        expression.map_or(Ok(()), |expression| self.expr(expression))
    }

    pub(super) fn expr(&mut self, expression: Expr<'w>) -> Result<()> {
        self.enter()?;
        self.operand(expression)?;
        self.depth -= 1;
        Ok(())
    }

    fn operand(&mut self, mut expression: Expr<'w>) -> Result<()> {
        // Long chains of AND, OR and || lean to the left: walked in a loop.
        while let Expr::BinaryExpr(binary) = expression {
            self.understand(binary.node_id());
            self.maybe(binary.right())?;
            expression = binary.left().ok_or_else(not_understood)?;
        }
        self.understand(AnyNodeId::from(expression.node_id()));
        match expression {
            Expr::BinaryExpr(_) => Ok(()),
            Expr::UnaryExpr(unary) => self.maybe(unary.operand()),
            Expr::ParenExpr(paren) => self.maybe(paren.expr()),
            Expr::Literal(literal) => match literal.literal_type() {
                LiteralType::Current => self.current(literal),
                LiteralType::Integer
                | LiteralType::Float
                | LiteralType::String
                | LiteralType::Blob
                | LiteralType::Null
                | LiteralType::Qnumber => Ok(()),
            },
            Expr::ColumnRef(column) => self.column_ref(column),
            Expr::Variable(_) => Ok(()),
            Expr::Error(_) => Err(not_understood()),
            Expr::FunctionCall(call) => {
                self.window(call.over_clause())?;
                self.maybe(call.filter_clause())?;
                self.call(call.func_name(), call.args())
            }
            Expr::AggregateFunctionCall(call) => {
                self.window(call.over_clause())?;
                self.maybe(call.filter_clause())?;
                self.order_by(call.orderby())?;
                self.call(call.func_name(), call.args())
            }
            Expr::OrderedSetFunctionCall(call) => {
                self.window(call.over_clause())?;
                self.maybe(call.filter_clause())?;
                self.maybe(call.orderby_expr())?;
                self.call(call.func_name(), call.args())
            }
            Expr::CastExpr(cast) => self.maybe(cast.expr()),
            Expr::CollateExpr(collate) => self.maybe(collate.expr()),
            Expr::CaseExpr(case) => {
                self.maybe(case.operand())?;
                for when in case.whens().iter().flat_map(CaseWhenList::iter) {
                    self.understand(when.node_id());
                    self.maybe(when.when_expr())?;
                    self.maybe(when.then_expr())?;
                }
                self.maybe(case.else_expr())
            }
            Expr::IsExpr(is) => {
                self.maybe(is.left())?;
                self.maybe(is.right())
            }
            Expr::BetweenExpr(between) => {
                self.maybe(between.operand())?;
                self.maybe(between.low())?;
                self.maybe(between.high())
            }
            Expr::LikeExpr(like) => {
                if like.keyword() == LikeKeyword::Match {
                    self.allow_hidden(like.operand());
                }
                self.maybe(like.operand())?;
                self.maybe(like.pattern())?;
                self.maybe(like.escape())
            }
            Expr::InExpr(within) => {
                self.maybe(within.operand())?;
                match within.source() {
                    // `x IN ()` has none.
                    None => Ok(()),
                    Some(InExprSource::ExprList(list)) => self.expressions(Some(list)),
                    Some(InExprSource::SubqueryExpr(subquery)) => {
                        self.understand(subquery.node_id());
                        self.select(subquery.select().ok_or_else(not_understood)?)
                    }
                    Some(InExprSource::SelectStmt(select)) => self.select(Select::SelectStmt(select)),
                    Some(InExprSource::CompoundSelect(select)) => self.select(Select::CompoundSelect(select)),
                    Some(InExprSource::WithClause(select)) => self.select(Select::WithClause(select)),
                    Some(InExprSource::ValuesClause(select)) => self.select(Select::ValuesClause(select)),
                    Some(InExprSource::TableRef(table)) => self.table_ref(table, Position::In),
                }
            }
            Expr::SubqueryExpr(subquery) => self.select(subquery.select().ok_or_else(not_understood)?),
            Expr::ExistsExpr(exists) => self.select(exists.select().ok_or_else(not_understood)?),
            Expr::RaiseExpr(raise) => self.maybe(raise.error_message()),
            Expr::RowValue(row) => self.expressions(row.items()),
        }
    }

    fn call(&mut self, name: &'w str, args: Option<ExprList<'w>>) -> Result<()> {
        let token = self.source.token(name)?;
        let function = self.source.name(name)?;
        if !is_one_of(FUNCTIONS, &function) {
            return Err(self.refuse_at(&token, &format!("the function {function} is not allowed")));
        }
        if self.call_of_the_moment(&token, &function, args)? {
            return Ok(());
        }
        if is_one_of(FULL_TEXT_FUNCTIONS, &function) {
            self.allow_hidden(args.and_then(|args| args.get(0)));
        }
        self.expressions(args)
    }

    fn window(&mut self, window: Option<WindowDef<'w>>) -> Result<()> {
        let Some(window) = window else {
            return Ok(());
        };
        self.understand(window.node_id());
        self.expressions(window.partition_by())?;
        self.order_by(window.orderby())?;
        let Some(frame) = window.frame() else {
            return Ok(());
        };
        self.understand(frame.node_id());
        self.frame_bound(frame.start_bound())?;
        self.frame_bound(frame.end_bound())
    }

    fn frame_bound(&mut self, bound: Option<FrameBound<'w>>) -> Result<()> {
        let Some(bound) = bound else {
            return Ok(());
        };
        self.understand(bound.node_id());
        self.maybe(bound.expr())
    }

    pub(super) fn windows(&mut self, windows: Option<NamedWindowDefList<'w>>) -> Result<()> {
        for window in windows.iter().flat_map(NamedWindowDefList::iter) {
            self.understand(window.node_id());
            self.window(window.window_def())?;
        }
        Ok(())
    }
}
