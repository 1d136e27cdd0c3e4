//! Where an expression is evaluated, and so which time it sees.

/// Where an expression is evaluated, and so which time it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evaluation {
    /// In a read: the present.
    Runtime,
    /// In a write: the value is computed before it runs, and put into its text as a literal.
    Literal,
    /// In a view's body: that of the write that reads it, else the present.
    View,
    /// In a trigger's body: that of the write that fires it.
    Trigger,
    /// In a column's default: unchanged, because INSERTs that omit the column give it a value.
    Default,
    /// Nowhere in particular: it must be the same at every time. The text names its context.
    Forbidden(&'static str),
}
