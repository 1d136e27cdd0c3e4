//! CREATE VIRTUAL TABLE: its arguments are the module's own language, of which the allowed words
//! are listed here. FTS5 takes any abbreviation of an option (`c=` is `content=`), so options are
//! compared whole.

use super::StatementRewriter;
use crate::allowed::MODULES;
use crate::names::{dequote, is_one_of, is_same_name, quote};
use crate::reserved_names::check_new_virtual_table;
use debros_proto::Result;
use std::ops::Range;
use syntaqlite_syntax::nodes::CreateVirtualTableStmt;

const FTS5_OPTIONS: &[&str] = &[
    "tokenize",
    "prefix",
    "content",
    "content_rowid",
    "contentless_delete",
    "contentless_unindexed",
    "columnsize",
    "detail",
    "locale",
    "tokendata",
];
const FTS3_OPTIONS: &[&str] =
    &["tokenize", "prefix", "content", "languageid", "matchinfo", "notindexed", "order"];

impl<'w> StatementRewriter<'w> {
    pub(super) fn visit_create_virtual_table(
        &mut self,
        create: CreateVirtualTableStmt<'w>,
    ) -> Result<()> {
        self.mark_visited(create.node_id());
        self.check_schema(create.schema())?;
        let name = self.source.name_of(strip_quotes(create.table_name()))?;
        check_new_virtual_table(&name)?;
        self.qualify_name(strip_quotes(create.table_name()))?;
        let module = self.source.name_of(strip_quotes(create.module_name()))?;
        if !is_one_of(MODULES, &module) {
            let token = self.source.token_range(strip_quotes(create.module_name()))?;
            return Err(self.refuse_at(
                &token,
                &format!(
                    "the virtual-table module {module} is not allowed; these are: {}",
                    MODULES.join(", ")
                ),
            ));
        }
        let args = self.split_arguments(create.module_args())?;
        match module.to_ascii_lowercase().as_str() {
            "fts5" => {
                args.iter().try_for_each(|arg| self.visit_full_text_argument(arg, FTS5_OPTIONS))?
            }
            "fts3" | "fts4" => {
                args.iter().try_for_each(|arg| self.visit_full_text_argument(arg, FTS3_OPTIONS))?
            }
            "fts5vocab" => self.visit_vocabulary(&args)?,
            _ => (),
        }
        self.objects.push(name);
        Ok(())
    }

    /// The ranges of the arguments, without blanks around them.
    fn split_arguments(&self, text: &'w str) -> Result<Vec<Range<usize>>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let whole = self.source.range_of(text)?;
        let mut args = Vec::new();
        let mut depth = 0usize;
        let mut start = whole.start;
        let mut end = whole.start;
        for token in
            self.source.tokens_after(whole.start).iter().take_while(|token| token.end <= whole.end)
        {
            // Between two words there may be blanks, and nothing else: the module would read a
            // comment in its own way.
            if !self.source.text[end..token.start].trim_ascii().is_empty() {
                return Err(self.refuse_at(
                    &(end..token.start),
                    "comments are not allowed among a module's arguments",
                ));
            }
            end = token.end;
            match &self.source.text[token.clone()] {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    args.push(start..token.start);
                    start = token.end;
                }
                _ => (),
            }
        }
        if !self.source.text[end..whole.end].trim_ascii().is_empty() {
            return Err(self.refuse_at(
                &(end..whole.end),
                "comments are not allowed among a module's arguments",
            ));
        }
        args.push(start..whole.end);
        for arg in &mut args {
            let text = &self.source.text[arg.clone()];
            let trimmed = text.trim_ascii_start();
            arg.start += text.len() - trimmed.len();
            arg.end = arg.start + trimmed.trim_ascii_end().len();
        }
        Ok(args)
    }

    fn visit_full_text_argument(&mut self, arg: &Range<usize>, options: &[&str]) -> Result<()> {
        let text = &self.source.text[arg.clone()];
        let tokens: Vec<Range<usize>> = self
            .source
            .tokens_after(arg.start)
            .iter()
            .take_while(|token| token.end <= arg.end)
            .cloned()
            .collect();
        let equals =
            tokens.iter().position(|token| matches!(&self.source.text[token.clone()], "=" | "=="));
        // FTS3 and FTS4 take their tokenizer without a sign as well: `tokenize porter`.
        let Some(equals) = equals else {
            return match tokens.first() {
                Some(first) if self.source.text[first.clone()].bytes().any(|byte| byte == b'=') => {
                    Err(self.refuse_at(arg, "this option is not understood"))
                }
                _ => Ok(()),
            };
        };
        let key = &self.source.text[tokens[0].clone()];
        if equals != 1 || &self.source.text[tokens[1].clone()] != "=" || !is_one_of(options, key) {
            return Err(self.refuse_at(
                arg,
                &format!(
                    "the option {} is not allowed; these are: {}",
                    key.trim(),
                    options.join(", ")
                ),
            ));
        }
        let value_start = tokens[1].end;
        let value = self.source.text[value_start..arg.end].trim_ascii();
        if !is_same_name(key, "content") {
            return Ok(());
        }
        let table = dequote(value);
        if table.is_empty() {
            return Ok(());
        }
        if tokens.len() != 3 {
            return Err(
                self.refuse_at(arg, &format!("{text}: content needs the name of one table"))
            );
        }
        self.objects.push(table.clone().into_owned());
        // In the user's own quotes, which an error may show.
        let mark = value.chars().next().filter(|mark| ['"', '`'].contains(mark)).unwrap_or('\'');
        self.splices.replace(tokens[2].clone(), quote(mark, &self.prefix.qualify(&table)));
        Ok(())
    }

    /// `fts5vocab(table, type)`; the form with a schema is refused.
    fn visit_vocabulary(&mut self, args: &[Range<usize>]) -> Result<()> {
        let [table, _kind] = args else {
            let place = args.first().cloned().unwrap_or(0..0);
            return Err(self
                .refuse_at(&place, "fts5vocab needs two arguments: a full-text table and a type"));
        };
        let name = dequote(&self.source.text[table.clone()]).into_owned();
        let tokens = self
            .source
            .tokens_after(table.start)
            .iter()
            .take_while(|token| token.end <= table.end)
            .count();
        if tokens != 1 {
            return Err(self.refuse_at(table, "fts5vocab needs the name of one full-text table"));
        }
        self.splices.replace(table.clone(), quote('\'', &self.prefix.qualify(&name)));
        self.objects.push(name);
        Ok(())
    }
}

/// Here the parser gives names with their quotes.
fn strip_quotes(name: &str) -> &str {
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(b'"' | b'`' | b'[' | b'\''), Some(b'"' | b'`' | b']' | b'\'')) if bytes.len() > 2 => {
            &name[1..name.len() - 1]
        }
        _ => name,
    }
}
