//! The requests' data that an HTTP/2 connection holds until it is taken: numbers that change
//! without a lock.
//!
//! The library cuts payloads out of its read buffers. So a payload keeps the bytes beside it in
//! memory, of whatever kind. Without a payload they are gone as soon as the frame is understood.
//!
//! The bytes that a body's reader takes are subtracted when it takes them. Bytes that the library
//! drops by itself (of a stream that was reset, or answered before its body came) show in the
//! window that the library gives again, at the latest when that is a third of the window; and
//! everything is known to be gone when no request is under way.

use crate::http2_frames::{FramesRead, MAX_PAYLOAD};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The library's memory for one frame.
const FRAME: usize = 256;
/// The size of its read buffer; each waiting frame keeps one of these at most.
const READ_BUFFER: usize = MAX_PAYLOAD + 9;
/// A header block in memory: on the wire it may be a hundredth of that. The library keeps fields up
/// to 64 KiB, counted with 32 bytes each beside name and value, and takes four times that.
const FIELDS: usize = 256 << 10;

/// The requests' data that an HTTP/2 connection holds until it is taken.
#[derive(Default)]
pub(crate) struct Http2Unread {
    data: AtomicUsize,
    data_frames: AtomicUsize,
    trailers: AtomicUsize,
    /// Bytes that are no data, since a frame of data waits.
    beside: AtomicUsize,
    /// Bytes of an incomplete frame other than DATA, or of a header block.
    unfinished: AtomicUsize,
    last_data: AtomicUsize,
    last_data_frames: AtomicUsize,
}

impl Http2Unread {
    /// Bytes in memory, rather too many than too few.
    pub(crate) fn held(&self) -> usize {
        let frames = self.data_frames.load(Relaxed);
        let beside = self.beside.load(Relaxed).min(frames.saturating_mul(READ_BUFFER));
        self.data.load(Relaxed)
            + frames.saturating_mul(FRAME)
            + beside
            + self.trailers.load(Relaxed).saturating_mul(FIELDS)
            + self.unfinished.load(Relaxed)
    }

    /// Only the connection's own task calls it.
    pub(crate) fn add(&self, read: FramesRead, unfinished: usize, is_block_open: bool) {
        let others =
            if self.data_frames.load(Relaxed) == 0 { 0 } else { self.beside.load(Relaxed) };
        self.beside.store(others + read.beside, Relaxed);
        self.unfinished.store(if is_block_open { FIELDS } else { unfinished }, Relaxed);
        self.last_data.store(read.data, Relaxed);
        self.last_data_frames.store(read.data_frames, Relaxed);
        if read.data > 0 || read.data_frames > 0 {
            self.data.fetch_add(read.data, Relaxed);
            self.data_frames.fetch_add(read.data_frames, Relaxed);
        }
        if read.trailers > 0 {
            self.trailers.fetch_add(read.trailers, Relaxed);
        }
    }

    /// A frame of data was taken.
    pub(crate) fn take_data(&self, bytes: usize) {
        subtract(&self.data, bytes);
        subtract(&self.data_frames, 1);
    }

    /// A body's trailers were taken.
    pub(crate) fn take_trailers(&self) {
        subtract(&self.trailers, 1);
    }

    /// The library has no more data than this: it dropped the unwanted rest.
    pub(crate) fn limit(&self, bytes: usize) {
        self.data.fetch_min(bytes, Relaxed);
        // Each has a byte at least.
        self.data_frames.fetch_min(bytes, Relaxed);
    }

    /// No request is under way, except one that the last read may have brought.
    pub(crate) fn forget_all_but_last(&self) {
        self.data.fetch_min(self.last_data.load(Relaxed), Relaxed);
        self.data_frames.fetch_min(self.last_data_frames.load(Relaxed), Relaxed);
        self.trailers.store(0, Relaxed);
    }
}

fn subtract(from: &AtomicUsize, amount: usize) {
    // The closure always gives a value.
    let _ = from.fetch_update(Relaxed, Relaxed, |value| Some(value.saturating_sub(amount)));
}

#[cfg(test)]
mod tests {
    use super::{FIELDS, FRAME, Http2Unread, READ_BUFFER};
    use crate::http2_frames::FramesRead;

    fn read(data: usize, data_frames: usize, beside: usize) -> FramesRead {
        FramesRead { data, data_frames, beside, trailers: 0 }
    }

    #[test]
    fn heads_count_for_nothing_however_many() {
        let unread = Http2Unread::default();
        for _ in 0..10_000 {
            unread.add(read(0, 0, 5000), 0, false);
            unread.add(read(100, 1, 9), 0, false);
            assert_eq!(unread.held(), 100 + FRAME + 9);
            unread.take_data(100);
            assert_eq!(unread.held(), 0);
        }
        unread.add(read(0, 0, 5000), 3000, false);
        assert_eq!(unread.held(), 3000, "half a head");
        unread.add(read(0, 0, 5000), 0, true);
        assert_eq!(unread.held(), FIELDS);
        unread.add(read(0, 0, 5000), 0, false);
        assert_eq!(unread.held(), 0);
    }

    /// A byte of data after each 16 KiB of something else kept all of them in memory.
    #[test]
    fn bytes_beside_data_that_waits_count() {
        let unread = Http2Unread::default();
        for _ in 0..100 {
            unread.add(read(1, 1, READ_BUFFER), 0, false);
        }
        assert_eq!(unread.held(), 100 * (1 + FRAME + READ_BUFFER));
        // Other requests, while one waits: no more than it keeps.
        (0..99).for_each(|_| unread.take_data(1));
        for _ in 0..1000 {
            unread.add(read(0, 0, 5000), 0, false);
        }
        assert_eq!(unread.held(), 1 + FRAME + READ_BUFFER);
        unread.take_data(1);
        assert_eq!(unread.held(), 0);
        unread.add(read(1, 1, 9), 0, false);
        assert_eq!(unread.held(), 1 + FRAME + 9, "what was beside the others is gone");
    }

    #[test]
    fn what_the_library_has_dropped_is_forgotten() {
        let unread = Http2Unread::default();
        unread.add(read(100_000, 10, 90), 0, false);
        unread.limit(100_000);
        assert_eq!(unread.held(), 100_000 + 10 * FRAME + 90);
        unread.limit(0);
        assert_eq!(unread.held(), 0);
        unread.add(read(100_000, 10, 90), 0, false);
        unread.add(FramesRead { trailers: 2, ..read(50, 1, 9) }, 0, false);
        unread.take_trailers();
        assert_eq!(unread.held(), 100_050 + 11 * FRAME + 99 + FIELDS);
        unread.forget_all_but_last();
        assert_eq!(unread.held(), 50 + FRAME + 99);
        // A reader that has it takes it later.
        unread.take_data(70);
        unread.take_data(70);
        unread.take_trailers();
        assert_eq!(unread.held(), 0);
    }
}
