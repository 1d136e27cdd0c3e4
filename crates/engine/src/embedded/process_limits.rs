//! What SQLite has once in a process: its memory, and where its temporary files are.

use debros_proto::lock;
use rusqlite::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of the disk that temporary files leave to the databases.
const RESERVE: u64 = 128 << 20;
/// The time between two looks at the temporary files, and how much longer than the look itself it
/// is at least.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
const TIMES_THE_LOOK: u32 = 20;
/// What SQLite's temporary files are called: they are made without a name, which Linux shows as a
/// number, or lose it at once. Nothing outlives the process.
const NAMES: [&str; 2] = ["#", "etilqs_"];

static TEMPORARY: Mutex<Option<TempSpaceUsage>> = Mutex::new(None);

/// What temporary files may take, and what they took at the last look.
struct TempSpaceUsage {
    folder: PathBuf,
    max: u64,
    next_look: Instant,
    excess: Option<TempSpaceExceeded>,
}

/// Why no statement may write more into temporary files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TempSpaceExceeded {
    /// They have more bytes than these, which is what they may have.
    Files(u64),
    /// The disk has fewer bytes left than these.
    Disk(u64),
}

/// Sets where temporary files go, and what they and the memory may take. Page caches take at most
/// half of the memory.
pub(super) fn configure_process(
    tmp: &Path,
    max_memory: u64,
    max_temp_size: u64,
) -> rusqlite::Result<()> {
    let db = Connection::open_in_memory()?;
    let max_memory = i64::try_from(max_memory).unwrap_or(i64::MAX);
    // Once there is a limit, SQLite lowers it only, and says which one holds.
    let limit = |sql: &str, bytes: i64| {
        db.query_row(&format!("PRAGMA {sql} = {bytes}"), [], |row| row.get::<_, i64>(0))
    };
    let holds = limit("hard_heap_limit", max_memory)?;
    limit("soft_heap_limit", holds / 2)?;
    let folder = fs::canonicalize(tmp).unwrap_or_else(|_| tmp.to_owned());
    match folder.to_str() {
        Some(folder) => db.pragma_update(None, "temp_store_directory", folder)?,
        None => {
            tracing::warn!(folder = %folder.display(), "SQLite keeps temporary files elsewhere: the name is not UTF-8")
        }
    }
    *lock(&TEMPORARY) = Some(TempSpaceUsage {
        folder,
        max: max_temp_size,
        next_look: Instant::now(),
        excess: None,
    });
    Ok(())
}

/// Whether temporary files take too much, as of a moment ago.
pub(super) fn temp_space_exceeded() -> Option<TempSpaceExceeded> {
    let mut temporary = lock(&TEMPORARY);
    let temporary = temporary.as_mut()?;
    let started = Instant::now();
    if started >= temporary.next_look {
        temporary.excess = temporary.poll();
        let took = started.elapsed();
        temporary.next_look = started + BETWEEN_LOOKS.max(took * TIMES_THE_LOOK);
    }
    temporary.excess
}

/// Bytes that this thread has written since it began, to whatever file; `None` where the system
/// does not report it.
pub(super) fn thread_written_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

impl TempSpaceUsage {
    fn poll(&self) -> Option<TempSpaceExceeded> {
        if temp_file_bytes(&self.folder) > self.max {
            return Some(TempSpaceExceeded::Files(self.max));
        }
        let is_short =
            super::data_folder::available_space(&self.folder).is_ok_and(|left| left < RESERVE);
        is_short.then_some(TempSpaceExceeded::Disk(RESERVE))
    }
}

/// Bytes of this process's temporary files in a folder. As they have no names, only Linux reports
/// them; elsewhere it is 0, and the disk's room is all there is to look at.
fn temp_file_bytes(folder: &Path) -> u64 {
    let Ok(open) = fs::read_dir("/proc/self/fd") else { return 0 };
    let is_temporary = |file: &PathBuf| {
        let Ok(target) = fs::read_link(file) else { return false };
        let name = target.strip_prefix(folder).ok().and_then(Path::to_str);
        name.is_some_and(|name| NAMES.iter().any(|start| name.starts_with(start)))
    };
    let files = open.filter_map(Result::ok).map(|entry| entry.path()).filter(is_temporary);
    files.filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}
