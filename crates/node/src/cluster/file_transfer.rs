//! Copies of a node's files, sent to a node that is to hold the data too.

use debros_engine::embedded::available_space;
use debros_p2p::{Channel, EventSource};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Event, event};
use debros_proto::{Code, Error, Result};
use futures::StreamExt as _;
use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of a file in one event.
const CHUNK_BYTES: usize = 1 << 20;
/// How long the node that is asked may take until its copies are made.
const COPY_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long nothing may come then.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a copy leaves free on the disk.
const ROOM_LEFT: u64 = 64 << 20;

/// A folder that is removed when this is dropped.
pub(super) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes an empty folder.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn create(path: PathBuf) -> std::io::Result<Self> {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // The next copy empties it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends the files of a folder, which goes with the stream. `position` is the entry of the log up
/// to which they hold all.
///
/// # Errors
/// What the disk says.
pub(super) fn send_files(folder: TemporaryFolder, position: u64) -> Result<EventSource> {
    let mut files = VecDeque::new();
    list_files(folder.path(), Path::new(""), &mut files).map_err(|error| disk_error(&error))?;
    let sizes = files.iter().map(|file| Ok(folder.path().join(file).metadata()?.len()));
    let total_size = sizes.sum::<std::io::Result<u64>>().map_err(|error| disk_error(&error))?;
    let state = SentFiles { folder, position, total_size, files, open: None, is_done: false };
    Ok(Box::pin(futures::stream::try_unfold(state, |mut state| async move {
        Ok(state.next_event().await?.map(|event| (event, state)))
    })))
}

struct SentFiles {
    folder: TemporaryFolder,
    position: u64,
    total_size: u64,
    files: VecDeque<PathBuf>,
    open: Option<File>,
    is_done: bool,
}

impl SentFiles {
    async fn next_event(&mut self) -> Result<Option<Event>> {
        if let Some(file) = &mut self.open {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = file.read(&mut chunk).await.map_err(|error| disk_error(&error))?;
            if length > 0 {
                chunk.truncate(length);
                return Ok(Some(Event { kind: Some(event::Kind::Chunk(chunk.into())) }));
            }
            self.open = None;
        }
        let Some(path) = self.files.pop_front() else {
            if std::mem::replace(&mut self.is_done, true) {
                return Ok(None);
            }
            return Ok(Some(Event { kind: Some(event::Kind::Done(rpc::Done::default())) }));
        };
        let file = File::open(self.folder.path().join(&path)).await;
        let file = file.map_err(|error| disk_error(&error))?;
        let size = file.metadata().await.map_err(|error| disk_error(&error))?.len();
        self.open = Some(file);
        let path = path.to_string_lossy().into_owned();
        let (position, total_size) = (self.position, self.total_size);
        let start = rpc::FileStart { path, size, position, total_size };
        Ok(Some(Event { kind: Some(event::Kind::FileStart(start)) }))
    }
}

fn list_files(folder: &Path, below: &Path, files: &mut VecDeque<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list_files(folder, &path, files)?;
        } else {
            files.push_back(path);
        }
    }
    Ok(())
}

/// Has a node send its files, and writes them below `target`, which is empty. Returns the entry of
/// the log up to which they hold all. The node must lead, and have its files whole.
///
/// # Errors
/// What the node says, and what the disk does; `disk_full` before anything is written when there is
/// not enough room.
pub(crate) async fn fetch_files(channel: &Channel, target: &Path) -> Result<u64> {
    let call = Some(Call::FetchFiles(rpc::FetchFilesRequest { from_leader: true }));
    let request = rpc::Request { call, ..rpc::Request::default() };
    let (_, mut events) = channel.open(request, COPY_TIMEOUT).await?;
    let (mut position, mut open) = (0, None::<(File, u64)>);
    let (mut bytes, mut count) = (0, 0_u64);
    loop {
        let event = tokio::time::timeout(CHUNK_TIMEOUT, events.next()).await;
        let event = event.ok().flatten().ok_or_else(broken_off_error)??;
        match event.kind {
            Some(event::Kind::FileStart(start)) => {
                finish_file(open.take()).await?;
                if count == 0 {
                    check_room(target, start.total_size)?;
                }
                let path = target.join(safe_path(&start.path)?);
                if let Some(folder) = path.parent() {
                    tokio::fs::create_dir_all(folder).await.map_err(|error| disk_error(&error))?;
                }
                let file = File::create(&path).await.map_err(|error| disk_error(&error))?;
                open = Some((file, start.size));
                position = start.position;
                count += 1;
            }
            Some(event::Kind::Chunk(chunk)) => {
                let (file, left) = open.as_mut().ok_or_else(broken_off_error)?;
                *left = left.checked_sub(chunk.len() as u64).ok_or_else(broken_off_error)?;
                file.write_all(&chunk).await.map_err(|error| disk_error(&error))?;
                bytes += chunk.len();
            }
            Some(event::Kind::Done(_)) => {
                finish_file(open.take()).await?;
                tracing::info!(
                    files = count,
                    bytes,
                    entry = position,
                    "the cluster's data was copied"
                );
                return Ok(position);
            }
            _ => return Err(broken_off_error()),
        }
    }
}

/// Passes when the disk of a folder has room for a copy.
///
/// # Errors
/// `disk_full`, saying how much is missing.
pub(super) fn check_room(target: &Path, bytes: u64) -> Result<()> {
    let left = available_space(target).map_err(|error| disk_error(&error))?;
    let needed = bytes.saturating_add(ROOM_LEFT);
    if left >= needed {
        return Ok(());
    }
    Err(Error::new(
        Code::DiskFull,
        format!(
            "{} bytes are missing on the disk of {}: a copy of the cluster's data takes {bytes}, {ROOM_LEFT} are to stay free, and              {left} are left. Make room there",
            needed - left,
            target.display()
        ),
    ))
}

async fn finish_file(open: Option<(File, u64)>) -> Result<()> {
    match open {
        None => Ok(()),
        Some((file, 0)) => file.sync_all().await.map_err(|error| disk_error(&error)),
        Some(_) => Err(broken_off_error()),
    }
}

/// A path that stays below the folder that it is joined to.
fn safe_path(path: &str) -> Result<PathBuf> {
    let path = Path::new(path);
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(is_plain) {
        return Err(Error::new(Code::Malformed, "a node sent a file with an impossible name"));
    }
    Ok(path.to_owned())
}

fn disk_error(error: &std::io::Error) -> Error {
    tracing::error!(%error, "files cannot be copied between nodes");
    Error::internal("the files cannot be copied; the node's log has more")
}

fn broken_off_error() -> Error {
    Error::new(Code::Unavailable, "the copy of the files broke off")
}

#[cfg(test)]
mod tests {
    use super::{check_room, safe_path};

    #[test]
    fn a_copy_that_does_not_fit_is_refused_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        check_room(folder.path(), 0).unwrap();
        let error = check_room(folder.path(), 1 << 60).unwrap_err();
        assert_eq!(error.code, debros_proto::Code::DiskFull);
        assert!(error.message.contains("bytes are missing"), "{error}");
    }

    #[test]
    fn a_sent_path_stays_in_its_folder() {
        for good in ["system.db", "ns/app.db"] {
            assert_eq!(safe_path(good).unwrap().to_str(), Some(good));
        }
        for bad in ["", "..", "../x", "/etc/passwd", "ns/../../x", "./x"] {
            assert!(safe_path(bad).is_err(), "{bad}");
        }
    }
}
