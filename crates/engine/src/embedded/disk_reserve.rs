//! Disk space that is kept for deletes: a file that is given up when the disk is full, and made
//! again when it is not.
//!
//! Without it a full disk would take no delete either, because what a delete changes goes through
//! the log first. While it is given up only what removes is written, so that no other write takes
//! what it left, and logs are cut after each such write.

use crate::DiskReserveState;
use debros_proto::{Code, Error, lock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes of the file: what the log of a database takes before it is written back, twice.
const BYTES: u64 = 32 << 20;
/// On a small disk it is one part in so many of what is left.
const DISK_PART: u64 = 8;
/// With less than this left, a disk counts as full.
const FULL_DISK_BYTES: u64 = 1 << 20;
/// The time between two tries to make it again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// The file. It is there, given up, or was never made because the disk has no room for it.
#[derive(Debug)]
pub(super) struct DiskReserve {
    folder: PathBuf,
    path: PathBuf,
    bytes: u64,
    state: Mutex<ReserveState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReserveState {
    Kept,
    GivenUp { next_try: Instant },
    Missing,
}

impl DiskReserve {
    /// Makes the file in the folder if it is not there. Where the disk is full already, what a run
    /// before has kept is given up, so that the databases open.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join("RESERVE");
        let kept = fs::metadata(&path).map_or(0, |file| file.len());
        let left = super::data_folder::available_space(folder).unwrap_or(0);
        let bytes = if kept > 0 { kept } else { BYTES.min(left / DISK_PART) };
        let reserve = Self {
            folder: folder.to_owned(),
            path,
            bytes,
            state: Mutex::new(ReserveState::Missing),
        };
        if kept > 0 && left < FULL_DISK_BYTES {
            *reserve.state() = ReserveState::Kept;
            reserve.release();
        } else if kept == 0 && left < FULL_DISK_BYTES {
            tracing::warn!("the disk is full, and has no room to be kept for deletes");
        } else {
            match reserve.create_file() {
                Ok(()) => *reserve.state() = ReserveState::Kept,
                Err(error) => {
                    tracing::warn!(path = %reserve.path.display(), %error, "no disk space can be kept for deletes");
                }
            }
        }
        reserve
    }

    /// Makes the file again where it was given up and the disk has room for it now: tried once in
    /// each [`BETWEEN_TRIES`]. False: it stays given up, and only what removes may be written.
    pub(super) fn regain(&self) -> bool {
        let mut state = self.state();
        let ReserveState::GivenUp { next_try } = *state else { return true };
        if Instant::now() < next_try {
            return false;
        }
        *state = ReserveState::GivenUp { next_try: Instant::now() + BETWEEN_TRIES };
        let has_room = super::data_folder::available_space(&self.folder)
            .is_ok_and(|left| left >= self.bytes.saturating_mul(2));
        if !has_room || self.create_file().is_err() {
            return false;
        }
        tracing::info!("the disk has room again: writes go on");
        *state = ReserveState::Kept;
        true
    }

    /// Gives the space up because the disk is full. False: there is none to give up.
    pub(super) fn release(&self) -> bool {
        let mut state = self.state();
        match *state {
            ReserveState::GivenUp { .. } => true,
            ReserveState::Missing => false,
            ReserveState::Kept => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::error!(path = %self.path.display(), %error, "the disk space for deletes cannot be given up");
                    return false;
                }
                tracing::error!(
                    "the disk is full: until there is room again, the databases take deletes and nothing else"
                );
                *state = ReserveState::GivenUp { next_try: Instant::now() + BETWEEN_TRIES };
                true
            }
        }
    }

    /// As [`release`](DiskReserve::release), if the disk is full.
    pub(super) fn release_if_full(&self) -> bool {
        super::data_folder::available_space(&self.folder).is_ok_and(|left| left < FULL_DISK_BYTES)
            && self.release()
    }

    /// How it stands.
    pub(super) fn report(&self) -> DiskReserveState {
        match *self.state() {
            ReserveState::Kept => DiskReserveState::Kept,
            ReserveState::GivenUp { .. } => DiskReserveState::GivenUp,
            ReserveState::Missing => DiskReserveState::Missing,
        }
    }

    fn create_file(&self) -> io::Result<()> {
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(false).open(&self.path)?;
        allocate(&mut file, self.bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
            // Half of it keeps nothing.
            let _ = fs::remove_file(&self.path);
        })
    }

    /// Nothing that panics runs while the lock is held.
    fn state(&self) -> MutexGuard<'_, ReserveState> {
        lock(&self.state)
    }
}

/// Takes the disk space of a file. A file system that keeps none by itself (NFS, ext3) gets it
/// written.
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

/// The error of a write when the disk of the databases is full. Copies have an error of their own,
/// in `copy_error.rs`.
pub(super) fn disk_full_error() -> Error {
    Error::new(
        Code::DiskFull,
        "the disk of the database is full; nothing was changed: deletes go on, other writes when its operator has made room",
    )
    .retry_after(Duration::from_secs(10))
}
