//! The record of the database files that this engine has made: what it knew must be there when it
//! starts again, or opens a namespace. Without it a file that was lost would be replaced by an
//! empty one in silence.
//!
//! A text file. Its first line names the folder; it is there when `system.db` was made. Then
//! `+name` for each file of a namespace that was made and `-name` for each that was taken away on
//! purpose, in order. A line without an end is what a crash left of one, and counts as not written:
//!
//! - A file is made first and recorded then, before anybody is answered. One without a line was not
//!   used yet, and is entered by the next start.
//! - A file is taken away first and struck out then. Between the two the marker of the deletion or
//!   the restore is there, and the next start goes on with it.
//!
//! Removing the record says that what is there now is all there is. One that names another folder
//! still counts: the folder was moved, or another lies in its place.

use super::data_folder::write_synced;
use debros_proto::{Code, Error, Namespace, lock};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// How the first line begins.
const HEAD: &str = "databases in ";

/// See the module.
#[derive(Debug)]
pub(super) struct FileRecord {
    path: PathBuf,
    head: String,
    state: Mutex<RecordState>,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordedFiles {
    /// The namespaces whose files were made.
    pub(super) names: BTreeSet<Namespace>,
    /// The folder that it names, when that is not the one that is asked for: one of the two was
    /// moved, or something else lies in the folder's place now.
    pub(super) elsewhere: Option<PathBuf>,
}

#[derive(Debug)]
struct RecordState {
    names: BTreeSet<Namespace>,
    /// Where the next line goes; `None` after one that may not be whole, so that all is written
    /// anew.
    end: Option<File>,
}

impl FileRecord {
    /// What is recorded of the databases in a folder; `None`: nothing was ever.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub(super) fn read(path: &Path, folder: &Path) -> io::Result<Option<RecordedFiles>> {
        let text = match debros_proto::regular_file::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let Some(first) = lines.next() else { return Ok(None) };
        let elsewhere = (first != header_line(path, folder)).then(|| {
            let named = first.strip_prefix(HEAD).unwrap_or(first).trim_matches('"');
            path.parent().map_or_else(|| named.into(), |beside| beside.join(named))
        });
        let mut names = BTreeSet::new();
        for line in lines {
            if let Some(Ok(name)) = line.strip_prefix('+').map(Namespace::new) {
                names.insert(name);
            } else if let Some(Ok(name)) = line.strip_prefix('-').map(Namespace::new) {
                names.remove(&name);
            }
        }
        Ok(Some(RecordedFiles { names, elsewhere }))
    }

    /// Records that the folder has its `system.db`, and these namespaces' files. On a full disk
    /// what was recorded stays: the node has to start, so that something can be deleted.
    ///
    /// # Errors
    /// When that cannot be written for other reasons.
    pub(super) fn create(
        path: &Path,
        folder: &Path,
        names: BTreeSet<Namespace>,
    ) -> io::Result<Self> {
        let record = Self {
            path: path.to_owned(),
            head: header_line(path, folder),
            state: Mutex::new(RecordState { names, end: None }),
        };
        match record.rewrite_all(&mut record.lock()) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                tracing::warn!(path = %path.display(), %error, "which databases there are cannot be recorded");
            }
            written => written?,
        }
        Ok(record)
    }

    /// Whether a namespace's file must be there.
    pub(super) fn contains(&self, namespace: &Namespace) -> bool {
        self.lock().names.contains(namespace)
    }

    /// The namespaces whose files must be there.
    pub(super) fn names(&self) -> BTreeSet<Namespace> {
        self.lock().names.clone()
    }

    /// Records a file that was made.
    ///
    /// # Errors
    /// When that cannot be written; then it is not recorded.
    pub(super) fn add_namespace(&self, namespace: &Namespace) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.insert(namespace.clone()) {
            return Ok(());
        }
        self.append_line(&mut state, '+', namespace).inspect_err(|_| {
            state.names.remove(namespace);
        })
    }

    /// Strikes out a file that was taken away.
    ///
    /// # Errors
    /// When that cannot be written; then the file still counts as one that must be there.
    pub(super) fn remove_namespace(&self, namespace: &Namespace) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.remove(namespace) {
            return Ok(());
        }
        self.append_line(&mut state, '-', namespace).inspect_err(|_| {
            state.names.insert(namespace.clone());
        })
    }

    fn append_line(
        &self,
        state: &mut RecordState,
        sign: char,
        namespace: &Namespace,
    ) -> io::Result<()> {
        let Some(mut end) = state.end.take() else { return self.rewrite_all(state) };
        end.write_all(format!("{sign}{namespace}\n").as_bytes()).and_then(|()| end.sync_data())?;
        state.end = Some(end);
        Ok(())
    }

    fn rewrite_all(&self, state: &mut RecordState) -> io::Result<()> {
        let mut text = format!("{}\n", self.head);
        state.names.iter().for_each(|name| text.extend(["+", name.as_str(), "\n"]));
        write_synced(&self.path, text.as_bytes())?;
        state.end = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }

    /// Nothing that panics runs while it is held.
    fn lock(&self) -> MutexGuard<'_, RecordState> {
        lock(&self.state)
    }
}

/// The record's first line. A folder beside the record is named from there, so that both can be
/// moved together.
fn header_line(path: &Path, folder: &Path) -> String {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let beside = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let named =
        beside.as_deref().and_then(|parent| folder.strip_prefix(parent).ok()).unwrap_or(&folder);
    let named = if named.as_os_str().is_empty() { Path::new(".") } else { named };
    format!("{HEAD}{:?}", named.as_os_str())
}

/// Whether a database is there, as a file that holds anything.
///
/// # Errors
/// What the system says, and what is no regular file: SQLite would wait on a pipe forever.
pub(super) fn is_nonempty_file(path: &Path) -> io::Result<bool> {
    match debros_proto::regular_file::metadata(path) {
        Ok(file) => Ok(file.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The file of a namespace is not there, and was.
pub(super) fn namespace_lost_error() -> Error {
    Error::new(
        Code::Corrupt,
        "the namespace's database file is missing or empty: an operator must put the file back, or restore a backup, or \
         delete the namespace if its data is gone for good; the node's log names the file",
    )
}

#[cfg(test)]
mod tests {
    use super::{FileRecord, RecordedFiles};
    use debros_proto::Namespace;
    use std::collections::BTreeSet;
    use std::fs;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<Namespace> {
        names.into_iter().map(|name| Namespace::new(name).unwrap()).collect()
    }

    fn here<const N: usize>(of: [&str; N]) -> Option<RecordedFiles> {
        Some(RecordedFiles { names: names(of), elsewhere: None })
    }

    #[test]
    fn what_was_made_is_known_again_and_a_torn_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, db) = (folder.path().join("database.files"), folder.path().join("db"));
        fs::create_dir(&db).unwrap();
        assert_eq!(FileRecord::read(&path, &db).unwrap(), None);
        let record = FileRecord::create(&path, &db, names(["a", "b"])).unwrap();
        record.add_namespace(&Namespace::new("c").unwrap()).unwrap();
        record.remove_namespace(&Namespace::new("a").unwrap()).unwrap();
        assert_eq!(FileRecord::read(&path, &db).unwrap(), here(["b", "c"]));
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}-b")).unwrap();
        assert_eq!(FileRecord::read(&path, &db).unwrap(), here(["b", "c"]));
        fs::write(&path, format!("{whole}+dd")).unwrap();
        assert_eq!(FileRecord::read(&path, &db).unwrap(), here(["b", "c"]));
        // Moved together they belong together, and of another folder the record says whose it is.
        let moved = tempfile::tempdir().unwrap();
        fs::create_dir(moved.path().join("db")).unwrap();
        fs::create_dir(moved.path().join("other")).unwrap();
        fs::write(moved.path().join("database.files"), &whole).unwrap();
        let path = moved.path().join("database.files");
        assert_eq!(FileRecord::read(&path, &moved.path().join("db")).unwrap(), here(["b", "c"]));
        let other = FileRecord::read(&path, &moved.path().join("other")).unwrap();
        assert_eq!(
            other,
            Some(RecordedFiles {
                names: names(["b", "c"]),
                elsewhere: Some(moved.path().join("db"))
            })
        );
        // One of which not even the first line was written says nothing.
        fs::write(&path, "databases in").unwrap();
        assert_eq!(FileRecord::read(&path, &moved.path().join("db")).unwrap(), None);
    }
}
