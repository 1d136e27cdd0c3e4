//! Sizes and counts that the system accepts, unless an operator sets others. Sources: SPEC sections
//! 4 to 8.

/// Bytes in a key-value key, at least 1.
pub const MAX_KEY_BYTES: usize = 1024;
/// Bytes in a key-value value.
pub const MAX_VALUE_BYTES: usize = 4 << 20;
/// Keys that a list returns when the caller does not say.
pub const DEFAULT_LIST_LIMIT: u32 = 100;
/// Keys that a list returns at most.
pub const MAX_LIST_LIMIT: u32 = 1000;

/// Bytes in a topic's name, at least 1.
pub const MAX_TOPIC_BYTES: usize = 256;
/// Bytes in a published message.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Bytes in one SQL text.
pub const MAX_SQL_BYTES: usize = 1 << 20;
/// Arguments of one statement.
pub const MAX_SQL_ARGS: usize = 32_766;
/// Statements in one transaction.
pub const MAX_TRANSACTION_STATEMENTS: usize = 1000;
/// Rows in one result.
pub const MAX_RESULT_ROWS: usize = 100_000;
/// Bytes in one result, counted as the values' own sizes.
pub const MAX_RESULT_BYTES: usize = 32 << 20;

/// Bytes in an idempotency key.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// How long an idempotency record is kept, in milliseconds.
pub const IDEMPOTENCY_WINDOW_MS: i64 = 24 * 60 * 60 * 1000;

/// Bytes in a frame that a caller sends: a transaction of many large statements is the largest
/// thing there is.
pub const MAX_REQUEST_FRAME_BYTES: usize = 16 << 20;
/// Bytes in a frame that a node sends: a full result, each value with its tag and length around it.
pub const MAX_RESPONSE_FRAME_BYTES: usize = 48 << 20;
/// Bytes in a credential (the longest is a JSON Web Token).
pub const MAX_CREDENTIAL_BYTES: usize = 4096;

/// The check of a node's health that fails when databases of single namespaces were lost. The
/// others are served all the same.
pub const NAMESPACES_CHECK: &str = "namespaces";
