//! Statements and arguments in a JSON body, read no further than a call may have of them.

use debros_client::rpc::{Statement, Value};
use debros_proto::json::from_json;
use debros_proto::limits::{MAX_SQL_ARGS, MAX_TRANSACTION_STATEMENTS};
use debros_proto::{Code, Error};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Arguments; null reads as none. No more are read than a statement may have plus one, for the
/// engine to refuse.
#[derive(Default)]
pub(crate) struct SqlArgs {
    pub(crate) values: Vec<Value>,
    /// The first value that is invalid, and why.
    pub(crate) refused: Option<String>,
}

impl<'de> Deserialize<'de> for SqlArgs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SqlArgsVisitor;
        impl<'de> Visitor<'de> for SqlArgsVisitor {
            type Value = SqlArgs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of arguments")
            }
            fn visit_unit<E: de::Error>(self) -> Result<SqlArgs, E> {
                Ok(SqlArgs::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<SqlArgs, A::Error> {
                let mut args = SqlArgs::default();
                while args.values.len() <= MAX_SQL_ARGS {
                    let Some(json) = items.next_element::<&RawValue>()? else { return Ok(args) };
                    match from_json(json) {
                        Ok(value) => args.values.push(value),
                        Err(error) => {
                            args.refused =
                                Some(format!("args[{}]: {}", args.values.len(), error.message));
                            break;
                        }
                    }
                }
                while items.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(args)
            }
        }
        deserializer.deserialize_any(SqlArgsVisitor)
    }
}

/// The statements of a transaction. If there are too many, the rest is dropped.
pub(crate) struct StatementList {
    pub(crate) statements: Vec<Statement>,
    pub(crate) refused: Option<Error>,
}

impl<'de> Deserialize<'de> for StatementList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatementListVisitor;
        impl<'de> Visitor<'de> for StatementListVisitor {
            type Value = StatementList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of statements")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StatementList, A::Error> {
                let mut statements = StatementList { statements: Vec::new(), refused: None };
                while let Some(StatementInput { sql, args }) = items.next_element()? {
                    let index = statements.statements.len();
                    if let Some(refused) = args.refused {
                        while items.next_element::<de::IgnoredAny>()?.is_some() {}
                        let refusal = Error::invalid(format!("statements[{index}].{refused}"));
                        statements.refused = Some(refusal.at_statement(index));
                        return Ok(statements);
                    }
                    if index == MAX_TRANSACTION_STATEMENTS {
                        while items.next_element::<de::IgnoredAny>()?.is_some() {}
                        let message = format!(
                            "the transaction has more than {MAX_TRANSACTION_STATEMENTS} statements: split it up"
                        );
                        statements.refused = Some(Error::new(Code::TooManyStatements, message));
                        return Ok(statements);
                    }
                    statements.statements.push(Statement { sql, args: args.values });
                }
                Ok(statements)
            }
        }
        deserializer.deserialize_seq(StatementListVisitor)
    }
}

/// `"<sql>"` or `{"sql":"<sql>","args":[…]}`.
struct StatementInput {
    sql: String,
    args: SqlArgs,
}

impl<'de> Deserialize<'de> for StatementInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct StatementFields {
            sql: String,
            #[serde(default)]
            args: SqlArgs,
        }
        struct StatementVisitor;
        impl<'de> Visitor<'de> for StatementVisitor {
            type Value = StatementInput;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SQL text or an object {sql, args}")
            }
            fn visit_str<E: de::Error>(self, sql: &str) -> Result<StatementInput, E> {
                self.visit_string(sql.to_owned())
            }
            fn visit_string<E: de::Error>(self, sql: String) -> Result<StatementInput, E> {
                Ok(StatementInput { sql, args: SqlArgs::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StatementInput, A::Error> {
                let StatementFields { sql, args } =
                    StatementFields::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(StatementInput { sql, args })
            }
        }
        deserializer.deserialize_any(StatementVisitor)
    }
}
