//! What waits to be written to one stream. Many tasks put frames in; the stream's one task takes
//! all of them out at once, so that callers that come at the same time share one write, one
//! encryption and one system call.

use bytes::{Bytes, BytesMut};
use debros_proto::lock;
use debros_proto::rpc::Frame;
use debros_proto::{Error, frame};
use futures::task::AtomicWaker;
use prost::Message as _;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;
use tokio::sync::{Semaphore, TryAcquireError};

/// From this size on a frame is encoded into a buffer of its own, outside the lock.
const LARGE_FRAME: usize = 16 << 10;
/// Bytes of frames that cannot wait for room (credit, cancellation, refusals): past this the peer
/// is not reading.
const MAX_CONTROL_BYTES: usize = 2 << 20;
/// A length prefix takes at most this much.
const LENGTH_PREFIX: usize = 5;

/// Why a frame was not queued.
#[derive(Debug)]
pub(crate) enum PushError {
    /// The stream has ended.
    Closed,
    /// The frame is over the size limit; the stream is fine.
    TooLarge(Error),
}

/// Bytes to write, and how much of the queue's room they hold until they are written.
pub(crate) struct QueuedChunk {
    pub(crate) bytes: Bytes,
    room: usize,
    control_bytes: usize,
}

#[derive(Default)]
struct SendQueueState {
    chunks: VecDeque<QueuedChunk>,
    tail: BytesMut,
    tail_room: usize,
    tail_control_bytes: usize,
    /// Urgent bytes queued or being written.
    control_bytes: usize,
    /// The stream's task was already woken for what waits.
    woken: bool,
    closed: bool,
}

pub(crate) struct SendQueue {
    queue: Mutex<SendQueueState>,
    /// Room in bytes. A frame holds its length of it, or all of it if it is longer.
    room: Semaphore,
    capacity: usize,
    frame_limit: usize,
    waker: AtomicWaker,
}

impl SendQueue {
    pub(crate) fn new(capacity: usize, frame_limit: usize) -> Self {
        let capacity = capacity.clamp(LARGE_FRAME, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            queue: Mutex::new(SendQueueState::default()),
            room: Semaphore::new(capacity),
            capacity,
            frame_limit,
            waker: AtomicWaker::new(),
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, SendQueueState> {
        // Nothing in here can panic half-way through a change.
        lock(&self.queue)
    }

    /// Queues a frame, waiting for room first.
    pub(crate) async fn push(&self, frame: &Frame) -> Result<(), PushError> {
        let length = frame.encoded_len() + LENGTH_PREFIX;
        self.check_length(frame, length)?;
        let room = length.min(self.capacity);
        self.acquire_room(room).await?;
        self.enqueue_frame(frame, length, room, 0)
    }

    /// Queues a frame if there is room for it right now; says whether it did.
    pub(crate) fn try_push(&self, frame: &Frame) -> Result<bool, PushError> {
        let length = frame.encoded_len() + LENGTH_PREFIX;
        self.check_length(frame, length)?;
        let room = length.min(self.capacity);
        // `room` is at most the capacity, which fits a u32.
        match self.room.try_acquire_many(room as u32) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::NoPermits) => return Ok(false),
            Err(TryAcquireError::Closed) => return Err(PushError::Closed),
        }
        self.enqueue_frame(frame, length, room, 0).map(|()| true)
    }

    /// Queues a small frame without waiting for room. `false` when so much of this kind waits that
    /// the peer cannot be reading: the stream must be reset.
    pub(crate) fn push_control(&self, frame: &Frame) -> bool {
        let length = frame.encoded_len() + LENGTH_PREFIX;
        if self.lock_state().control_bytes + length > MAX_CONTROL_BYTES {
            return false;
        }
        // On a closed stream the frame is of no use.
        let _ = self.enqueue_frame(frame, length, 0, length);
        true
    }

    fn check_length(&self, frame: &Frame, length: usize) -> Result<(), PushError> {
        if length > self.frame_limit + LENGTH_PREFIX {
            // Lets the codec word the error; nothing is written because it checks first.
            return frame::encode(frame, self.frame_limit, &mut BytesMut::new())
                .map_err(PushError::TooLarge);
        }
        Ok(())
    }

    async fn acquire_room(&self, room: usize) -> Result<(), PushError> {
        // `room` is at most the capacity, which fits a u32.
        let permit = self.room.acquire_many(room as u32).await.map_err(|_| PushError::Closed)?;
        permit.forget();
        Ok(())
    }

    fn enqueue_frame(
        &self,
        frame: &Frame,
        length: usize,
        room: usize,
        urgent: usize,
    ) -> Result<(), PushError> {
        let large = if length >= LARGE_FRAME {
            let mut bytes = BytesMut::new();
            frame::encode(frame, self.frame_limit, &mut bytes).map_err(PushError::TooLarge)?;
            Some(bytes.freeze())
        } else {
            None
        };
        let wake = {
            let mut queue = self.lock_state();
            if queue.closed {
                return Err(PushError::Closed);
            }
            queue.control_bytes += urgent;
            if let Some(bytes) = large {
                queue.seal_tail();
                queue.chunks.push_back(QueuedChunk { bytes, room, control_bytes: urgent });
            } else {
                frame::encode(frame, self.frame_limit, &mut queue.tail)
                    .map_err(PushError::TooLarge)?;
                queue.tail_room += room;
                queue.tail_control_bytes += urgent;
            }
            !std::mem::replace(&mut queue.woken, true)
        };
        if wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// Wakes the stream's task when something is put in from now on.
    pub(crate) fn register_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        let queue = self.lock_state();
        queue.tail.is_empty() && queue.chunks.is_empty()
    }

    /// Takes the next bytes to write. When there are none, the next frame put in wakes the stream's
    /// task.
    pub(crate) fn pop_chunk(&self) -> Option<QueuedChunk> {
        let mut queue = self.lock_state();
        let queue = &mut *queue;
        if queue.chunks.is_empty() {
            queue.seal_tail();
        }
        let chunk = queue.chunks.pop_front();
        if chunk.is_none() {
            queue.woken = false;
        }
        chunk
    }

    /// A chunk was written: its room is free again.
    pub(crate) fn release_chunk(&self, chunk: &QueuedChunk) {
        if chunk.room > 0 {
            self.room.add_permits(chunk.room);
        }
        if chunk.control_bytes > 0 {
            self.lock_state().control_bytes -= chunk.control_bytes;
        }
    }

    /// The stream has ended: senders that wait for room stop waiting, and what is queued is
    /// dropped.
    pub(crate) fn close(&self) {
        self.room.close();
        let mut queue = self.lock_state();
        *queue = SendQueueState { closed: true, ..SendQueueState::default() };
    }
}

impl SendQueueState {
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = self.tail.split().freeze();
            let room = std::mem::take(&mut self.tail_room);
            let urgent = std::mem::take(&mut self.tail_control_bytes);
            self.chunks.push_back(QueuedChunk { bytes, room, control_bytes: urgent });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LARGE_FRAME, MAX_CONTROL_BYTES, PushError, SendQueue};
    use bytes::{Bytes, BytesMut};
    use debros_proto::rpc::{self, Frame, frame::Body};
    use debros_proto::{Code, frame};

    fn chunk(id: u64, size: usize) -> Frame {
        let event = rpc::Event { kind: Some(rpc::event::Kind::Chunk(Bytes::from(vec![7; size]))) };
        Frame { id, body: Some(Body::Event(event)) }
    }

    fn ids(queue: &SendQueue) -> Vec<u64> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = queue.pop_chunk() {
            bytes.extend_from_slice(&chunk.bytes);
            queue.release_chunk(&chunk);
        }
        std::iter::from_fn(|| frame::decode(&mut bytes, 1 << 20).unwrap().map(|frame| frame.id))
            .collect()
    }

    #[tokio::test]
    async fn frames_come_out_in_the_order_they_went_in_whatever_their_size() {
        let queue = SendQueue::new(1 << 20, 1 << 20);
        for (id, size) in [(1, 10), (2, LARGE_FRAME), (3, 0), (4, 5), (5, LARGE_FRAME * 2), (6, 1)]
        {
            queue.push(&chunk(id, size)).await.unwrap();
        }
        assert_eq!(ids(&queue), [1, 2, 3, 4, 5, 6]);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_until_something_was_written() {
        let queue = SendQueue::new(LARGE_FRAME, 1 << 20);
        queue.push(&chunk(1, LARGE_FRAME * 3)).await.unwrap();
        assert!(!queue.try_push(&chunk(2, 1)).unwrap());
        let waiting = chunk(3, 1);
        let mut push = std::pin::pin!(queue.push(&waiting));
        assert!(futures::poll!(push.as_mut()).is_pending());
        assert!(queue.push_control(&chunk(4, 1)), "urgent frames do not wait");
        assert_eq!(ids(&queue), [1, 4]);
        push.await.unwrap();
        assert_eq!(ids(&queue), [3]);
    }

    #[tokio::test]
    async fn closing_ends_the_wait_and_refuses_what_comes_later() {
        let queue = SendQueue::new(LARGE_FRAME, 1 << 20);
        queue.push(&chunk(1, LARGE_FRAME)).await.unwrap();
        let waiting = chunk(2, 1);
        let mut push = std::pin::pin!(queue.push(&waiting));
        assert!(futures::poll!(push.as_mut()).is_pending());
        queue.close();
        assert!(matches!(push.await, Err(PushError::Closed)));
        assert!(matches!(queue.try_push(&chunk(3, 1)), Err(PushError::Closed)));
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_and_holds_no_room() {
        let queue = SendQueue::new(LARGE_FRAME, 100);
        match queue.push(&chunk(1, 200)).await {
            Err(PushError::TooLarge(error)) => assert_eq!(error.code, Code::TooLarge),
            other => panic!("{other:?}"),
        }
        assert_eq!(queue.room.available_permits(), LARGE_FRAME);
    }

    #[test]
    fn urgent_frames_are_bounded() {
        let queue = SendQueue::new(LARGE_FRAME, 1 << 20);
        let refused =
            (0..MAX_CONTROL_BYTES as u64).find(|id| !queue.push_control(&chunk(*id, 1000)));
        assert!(refused.is_some_and(|count| count > 1000));
    }
}
