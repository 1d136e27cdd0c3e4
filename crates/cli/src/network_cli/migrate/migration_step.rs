//! A step of `db migrate`.

/// A step, read from its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MigrationStep {
    pub(super) version: i64,
    /// The version as the file's name has it.
    pub(super) number: String,
    pub(super) name: String,
    /// The file's place in the folder.
    pub(super) file: String,
    /// What is applied, in the lines of the file.
    pub(super) sql: String,
    pub(super) checksum: String,
    /// Numbers before it may be left out.
    pub(super) may_skip: bool,
}
