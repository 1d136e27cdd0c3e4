//! Expressions.

use super::StatementRewriter;
use super::table::TablePosition;
use crate::allowed::{FULL_TEXT_FUNCTIONS, FUNCTIONS};
use crate::names::is_one_of;
use crate::parsed_source::not_understood_error;
use debros_proto::Result;
use syntaqlite_syntax::any::AnyNodeId;
use syntaqlite_syntax::nodes::{
    CaseWhenList, Expr, ExprList, FrameBound, InExprSource, LikeKeyword, LiteralType,
    NamedWindowDefList, Select, WindowDef,
};

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_optional_expr(&mut self, expression: Option<Expr<'w>>) -> Result<()> {
        expression.map_or(Ok(()), |expression| self.visit_expr(expression))
    }

    pub(super) fn visit_expr(&mut self, expression: Expr<'w>) -> Result<()> {
        self.descend()?;
        self.visit_operand(expression)?;
        self.depth -= 1;
        Ok(())
    }

    fn visit_operand(&mut self, mut expression: Expr<'w>) -> Result<()> {
        // Long chains of AND, OR and || lean to the left: visited in a loop.
        while let Expr::BinaryExpr(binary) = expression {
            self.mark_visited(binary.node_id());
            self.visit_optional_expr(binary.right())?;
            expression = binary.left().ok_or_else(not_understood_error)?;
        }
        self.mark_visited(AnyNodeId::from(expression.node_id()));
        match expression {
            Expr::BinaryExpr(_) => Ok(()),
            Expr::UnaryExpr(unary) => self.visit_optional_expr(unary.operand()),
            Expr::ParenExpr(paren) => self.visit_optional_expr(paren.expr()),
            Expr::Literal(literal) => match literal.literal_type() {
                LiteralType::Current => self.visit_current_time(literal),
                LiteralType::Integer
                | LiteralType::Float
                | LiteralType::String
                | LiteralType::Blob
                | LiteralType::Null
                | LiteralType::Qnumber => Ok(()),
            },
            Expr::ColumnRef(column) => self.visit_column_ref(column),
            Expr::Variable(_) => Ok(()),
            Expr::Error(_) => Err(not_understood_error()),
            Expr::FunctionCall(call) => {
                self.visit_window(call.over_clause())?;
                self.visit_optional_expr(call.filter_clause())?;
                self.visit_call(call.func_name(), call.args())
            }
            Expr::AggregateFunctionCall(call) => {
                self.visit_window(call.over_clause())?;
                self.visit_optional_expr(call.filter_clause())?;
                self.visit_order_by(call.orderby())?;
                self.visit_call(call.func_name(), call.args())
            }
            Expr::OrderedSetFunctionCall(call) => {
                self.visit_window(call.over_clause())?;
                self.visit_optional_expr(call.filter_clause())?;
                self.visit_optional_expr(call.orderby_expr())?;
                self.visit_call(call.func_name(), call.args())
            }
            Expr::CastExpr(cast) => self.visit_optional_expr(cast.expr()),
            Expr::CollateExpr(collate) => self.visit_optional_expr(collate.expr()),
            Expr::CaseExpr(case) => {
                self.visit_optional_expr(case.operand())?;
                for when in case.whens().iter().flat_map(CaseWhenList::iter) {
                    self.mark_visited(when.node_id());
                    self.visit_optional_expr(when.when_expr())?;
                    self.visit_optional_expr(when.then_expr())?;
                }
                self.visit_optional_expr(case.else_expr())
            }
            Expr::IsExpr(is) => {
                self.visit_optional_expr(is.left())?;
                self.visit_optional_expr(is.right())
            }
            Expr::BetweenExpr(between) => {
                self.visit_optional_expr(between.operand())?;
                self.visit_optional_expr(between.low())?;
                self.visit_optional_expr(between.high())
            }
            Expr::LikeExpr(like) => {
                if like.keyword() == LikeKeyword::Match {
                    self.allow_hidden_column(like.operand());
                }
                self.visit_optional_expr(like.operand())?;
                self.visit_optional_expr(like.pattern())?;
                self.visit_optional_expr(like.escape())
            }
            Expr::InExpr(within) => {
                self.visit_optional_expr(within.operand())?;
                match within.source() {
                    // `x IN ()` has none.
                    None => Ok(()),
                    Some(InExprSource::ExprList(list)) => self.visit_expressions(Some(list)),
                    Some(InExprSource::SubqueryExpr(subquery)) => {
                        self.mark_visited(subquery.node_id());
                        self.visit_select(subquery.select().ok_or_else(not_understood_error)?)
                    }
                    Some(InExprSource::SelectStmt(select)) => {
                        self.visit_select(Select::SelectStmt(select))
                    }
                    Some(InExprSource::CompoundSelect(select)) => {
                        self.visit_select(Select::CompoundSelect(select))
                    }
                    Some(InExprSource::WithClause(select)) => {
                        self.visit_select(Select::WithClause(select))
                    }
                    Some(InExprSource::ValuesClause(select)) => {
                        self.visit_select(Select::ValuesClause(select))
                    }
                    Some(InExprSource::TableRef(table)) => {
                        self.visit_table_ref(table, TablePosition::In)
                    }
                }
            }
            Expr::SubqueryExpr(subquery) => {
                self.visit_select(subquery.select().ok_or_else(not_understood_error)?)
            }
            Expr::ExistsExpr(exists) => {
                self.visit_select(exists.select().ok_or_else(not_understood_error)?)
            }
            Expr::RaiseExpr(raise) => self.visit_optional_expr(raise.error_message()),
            Expr::RowValue(row) => self.visit_expressions(row.items()),
        }
    }

    fn visit_call(&mut self, name: &'w str, args: Option<ExprList<'w>>) -> Result<()> {
        let token = self.source.token_range(name)?;
        let function = self.source.name_of(name)?;
        if !is_one_of(FUNCTIONS, &function) {
            return Err(self.refuse_at(&token, &format!("the function {function} is not allowed")));
        }
        if self.visit_nondeterministic_call(&token, &function, args)? {
            return Ok(());
        }
        if is_one_of(FULL_TEXT_FUNCTIONS, &function) {
            self.allow_hidden_column(args.and_then(|args| args.get(0)));
        }
        self.visit_expressions(args)
    }

    fn visit_window(&mut self, window: Option<WindowDef<'w>>) -> Result<()> {
        let Some(window) = window else {
            return Ok(());
        };
        self.mark_visited(window.node_id());
        self.visit_expressions(window.partition_by())?;
        self.visit_order_by(window.orderby())?;
        let Some(frame) = window.frame() else {
            return Ok(());
        };
        self.mark_visited(frame.node_id());
        self.visit_frame_bound(frame.start_bound())?;
        self.visit_frame_bound(frame.end_bound())
    }

    fn visit_frame_bound(&mut self, bound: Option<FrameBound<'w>>) -> Result<()> {
        let Some(bound) = bound else {
            return Ok(());
        };
        self.mark_visited(bound.node_id());
        self.visit_optional_expr(bound.expr())
    }

    pub(super) fn visit_windows(&mut self, windows: Option<NamedWindowDefList<'w>>) -> Result<()> {
        for window in windows.iter().flat_map(NamedWindowDefList::iter) {
            self.mark_visited(window.node_id());
            self.visit_window(window.window_def())?;
        }
        Ok(())
    }
}
