//! Disk space that is kept for deletes: a file that is given up when the disk is full, and made again when it is not.
//!
//! Without it a full disk would take no delete either, because what a delete changes goes through the log first. While it is
//! given up only what removes is written, so that nobody else takes what it left, and logs are cut after each such write.

use debros_proto::{Code, Error};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of the file: what the log of a database takes before it is written back, twice.
const BYTES: u64 = 32 << 20;
/// On a small disk it is one part in so many of what is left.
const PART: u64 = 8;
/// With less than this left, a disk counts as full.
const FULL: u64 = 1 << 20;
/// The time between two tries to make it again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// The file. It is there, given up, or was never made because the disk has no room for it.
#[derive(Debug)]
pub(super) struct Reserve {
    folder: PathBuf,
    path: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Kept,
    GivenUp { next_try: Instant },
    Missing,
}

impl Reserve {
    /// Makes the file in the folder if it is not there. Where the disk is full already, what a run before has kept is given up,
    /// so that the databases open.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join("RESERVE");
        let kept = fs::metadata(&path).map_or(0, |file| file.len());
        let left = super::folder::available_space(folder).unwrap_or(0);
        let bytes = if kept > 0 { kept } else { BYTES.min(left / PART) };
        let reserve = Self { folder: folder.to_owned(), path, bytes, state: Mutex::new(State::Missing) };
        if kept > 0 && left < FULL {
            *reserve.state() = State::Kept;
            reserve.release();
        } else if kept == 0 && left < FULL {
            tracing::warn!("the disk is full, and has no room to be kept for deletes");
        } else {
            match reserve.make() {
                Ok(()) => *reserve.state() = State::Kept,
                Err(error) => {
                    tracing::warn!(path = %reserve.path.display(), %error, "no disk space can be kept for deletes");
                }
            }
        }
        reserve
    }

    /// Whether only what removes may be written. If so, and the disk has room again, the file is made anew first.
    pub(super) fn is_given_up(&self) -> bool {
        let mut state = self.state();
        let State::GivenUp { next_try } = *state else { return false };
        if Instant::now() < next_try {
            return true;
        }
        *state = State::GivenUp { next_try: Instant::now() + BETWEEN_TRIES };
        let has_room =
            super::folder::available_space(&self.folder).is_ok_and(|left| left >= self.bytes.saturating_mul(2));
        if !has_room || self.make().is_err() {
            return true;
        }
        tracing::info!("the disk has room again: writes go on");
        *state = State::Kept;
        false
    }

    /// Gives the space up because the disk is full. False: there is none to give up.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state();
        match *state {
            State::GivenUp { .. } => true,
            State::Missing => false,
            State::Kept => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::error!(path = %self.path.display(), %error, "the disk space for deletes can not be given up");
                    return false;
                }
                tracing::error!(
                    "the disk is full: until there is room again, the databases take deletes and nothing else"
                );
                *state = State::GivenUp { next_try: Instant::now() + BETWEEN_TRIES };
                true
            }
        }
    }

    /// As [`release`](Reserve::release), if the disk is full.
    pub(super) fn release_if_full(&self) -> bool {
        super::folder::available_space(&self.folder).is_ok_and(|left| left < FULL) && self.release()
    }

    fn make(&self) -> io::Result<()> {
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(false).open(&self.path)?;
        allocate(&mut file, self.bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
            // Half of it keeps nothing.
            let _ = fs::remove_file(&self.path);
        })
    }

    /// Nothing that panics runs while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the disk space of a file. A file system that keeps none by itself (NFS, ext3) gets it written.
fn allocate(file: &mut File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let written = file.metadata()?.len();
            file.seek(io::SeekFrom::End(0))?;
            io::copy(&mut io::repeat(0).take(bytes.saturating_sub(written)), file).map(|_| ())
        }
        allocated => Ok(allocated?),
    }
}

/// What those are told who write when the disk is full.
pub(super) fn disk_full() -> Error {
    Error::new(
        Code::DiskFull,
        "the disk of the database is full; nothing was changed: deletes go on, other writes when its operator has made room",
    )
    .retry_after(Duration::from_secs(10))
}
