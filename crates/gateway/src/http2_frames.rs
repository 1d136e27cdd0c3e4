//! The frames of an HTTP/2 connection (RFC 9113 §4), as far as memory is concerned. The library
//! does not report what it keeps of them. Nothing here judges a frame: the library refuses what is
//! wrong.

/// Length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// The largest payload that the library takes; a longer one ends the connection.
pub(crate) const MAX_PAYLOAD: usize = 16 << 10;
/// What every connection may send before the first WINDOW_UPDATE (RFC 9113 §6.9.2).
const FIRST_WINDOW: u64 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The fixed part of a frame.
#[derive(Clone, Copy, Default)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl FrameHead {
    fn parse(head: [u8; HEAD_BYTES]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = head;
        // The first bit is reserved.
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Self { length: u32::from_be_bytes([0, high, middle, low]), kind, flags, stream }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts bytes into heads and payloads, in whatever pieces they come.
#[derive(Default)]
struct FrameParser {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that have come; 0 while a payload passes.
    head_length: usize,
    /// Bytes of the payload that are still to come.
    payload: u32,
}

enum FramePart<'a> {
    Head(FrameHead),
    Payload(&'a [u8]),
}

impl FrameParser {
    /// The next part; `None` when no byte is left.
    fn next_part<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<FramePart<'a>> {
        if self.payload > 0 {
            let length = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            if length == 0 {
                return None;
            }
            let (payload, rest) = bytes.split_at(length);
            *bytes = rest;
            // No more than `payload`, which is a u32.
            self.payload -= length as u32;
            return Some(FramePart::Payload(payload));
        }
        let length = (HEAD_BYTES - self.head_length).min(bytes.len());
        let (head, rest) = bytes.split_at(length);
        *bytes = rest;
        self.head[self.head_length..self.head_length + length].copy_from_slice(head);
        self.head_length += length;
        if self.head_length < HEAD_BYTES {
            return None;
        }
        self.head_length = 0;
        let head = FrameHead::parse(self.head);
        self.payload = head.length;
        Some(FramePart::Head(head))
    }

    fn is_at_end(&self) -> bool {
        self.payload == 0
    }
}

/// The content of one read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FramesRead {
    /// Bytes of bodies, without padding.
    pub(crate) data: usize,
    /// DATA frames that wait for the body's reader: those with data, or with the body's end.
    pub(crate) data_frames: usize,
    /// All other bytes.
    pub(crate) beside: usize,
    /// Blocks of trailers.
    pub(crate) trailers: usize,
}

/// Follows the frames that a client sends after the preface.
#[derive(Default)]
pub(crate) struct RequestFrames {
    parser: FrameParser,
    frame: FrameHead,
    /// Bytes of the frame's data that are still to come.
    data: u32,
    /// The next byte gives the length of the padding.
    awaits_pad_length: bool,
    /// A header block continues in the next frame.
    is_block_open: bool,
    last_stream: u32,
    received: u64,
}

impl RequestFrames {
    /// Bytes that count for flow control, of all frames that have begun.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// A header block has begun and is incomplete.
    pub(crate) fn is_block_open(&self) -> bool {
        self.is_block_open
    }

    /// Bytes of an incomplete frame, if it is not one of DATA.
    pub(crate) fn unfinished(&self) -> usize {
        if self.parser.is_at_end() || self.frame.kind == DATA {
            return 0;
        }
        // A longer one ends the connection.
        usize::try_from(self.frame.length - self.parser.payload)
            .unwrap_or(usize::MAX)
            .min(MAX_PAYLOAD)
    }

    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> FramesRead {
        let mut read = FramesRead { beside: bytes.len(), ..FramesRead::default() };
        while let Some(part) = self.parser.next_part(&mut bytes) {
            match part {
                FramePart::Head(head) => self.begin_frame(head, &mut read),
                FramePart::Payload(payload) if self.frame.kind == DATA => {
                    self.pass_data(payload, &mut read)
                }
                FramePart::Payload(_) => {}
            }
            if self.parser.is_at_end() && matches!(self.frame.kind, HEADERS | CONTINUATION) {
                self.is_block_open = !self.frame.has(END_HEADERS);
            }
        }
        read.beside -= read.data;
        read
    }

    fn begin_frame(&mut self, head: FrameHead, read: &mut FramesRead) {
        self.frame = head;
        match head.kind {
            DATA => {
                self.received += u64::from(head.length);
                self.awaits_pad_length = head.has(PADDED) && head.length > 0;
                if !self.awaits_pad_length {
                    self.begin_data(head.length, read);
                }
            }
            HEADERS => {
                if head.stream > self.last_stream {
                    self.last_stream = head.stream;
                } else {
                    read.trailers += 1;
                }
                self.is_block_open |= !head.has(END_HEADERS);
            }
            _ => {}
        }
    }

    fn begin_data(&mut self, length: u32, read: &mut FramesRead) {
        self.data = length;
        // The library forgets an empty frame, unless the body ends with it.
        read.data_frames += usize::from(length > 0 || self.frame.has(END_STREAM));
    }

    fn pass_data(&mut self, mut payload: &[u8], read: &mut FramesRead) {
        if self.awaits_pad_length
            && let Some((pad_length, rest)) = payload.split_first()
        {
            self.awaits_pad_length = false;
            payload = rest;
            self.begin_data((self.frame.length - 1).saturating_sub(u32::from(*pad_length)), read);
        }
        let data = usize::try_from(self.data).unwrap_or(usize::MAX).min(payload.len());
        // No more than `data`, which is a u32.
        self.data -= data as u32;
        read.data += data;
    }
}

/// Follows the frames that go to the client, for the window that they give to all its bodies.
#[derive(Default)]
pub(crate) struct WindowUpdates {
    parser: FrameParser,
    frame: FrameHead,
    increment: u32,
    granted: u64,
}

impl WindowUpdates {
    /// Passes the bytes that are sent. Returns whether they give more window.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.granted;
        while let Some(part) = self.parser.next_part(&mut bytes) {
            match part {
                FramePart::Head(head) => (self.frame, self.increment) = (head, 0),
                FramePart::Payload(payload)
                    if self.frame.kind == WINDOW_UPDATE && self.frame.stream == 0 =>
                {
                    self.increment = payload
                        .iter()
                        .fold(self.increment, |sum, byte| sum << 8 | u32::from(*byte));
                    if self.parser.is_at_end() {
                        self.granted += u64::from(self.increment & 0x7fff_ffff);
                    }
                }
                FramePart::Payload(_) => {}
            }
        }
        self.granted != before
    }

    /// Of the bytes `received`, the library still has at most this many: it gives new window for
    /// bytes that were taken or dropped, so that the window left and the bytes it has add up to one
    /// `window`.
    pub(crate) fn most_held(&self, received: u64, window: u32) -> usize {
        let held = (received + u64::from(window)).saturating_sub(FIRST_WINDOW + self.granted);
        usize::try_from(held).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{CONTINUATION, WINDOW_UPDATE};
    use super::{
        DATA, END_HEADERS, END_STREAM, FramesRead, HEADERS, MAX_PAYLOAD, PADDED, RequestFrames,
        WindowUpdates,
    };
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn padded(flags: u8, data: usize, padding: u8) -> Vec<u8> {
        let mut payload = vec![padding];
        payload.resize(1 + data + usize::from(padding), 7);
        frame(DATA, flags | PADDED, 1, &payload)
    }

    fn sum(mut all: FramesRead, read: FramesRead) -> FramesRead {
        all.data += read.data;
        all.data_frames += read.data_frames;
        all.beside += read.beside;
        all.trailers += read.trailers;
        all
    }

    fn pass(frames: &mut RequestFrames, bytes: &[u8], step: usize) -> FramesRead {
        bytes.chunks(step).map(|piece| frames.pass(piece)).fold(FramesRead::default(), sum)
    }

    #[test]
    fn bodies_are_told_from_all_else_however_the_bytes_come() {
        let requests = [
            (frame(4, 0, 0, &[0; 6]), 0, 0, 0),
            (frame(HEADERS, 0, 1, &[1; 100]), 0, 0, 0),
            (frame(CONTINUATION, END_HEADERS, 1, &[1; 50]), 0, 0, 0),
            (frame(DATA, 0, 1, &[0; 300]), 300, 1, 0),
            // An empty frame leaves nothing behind.
            (frame(DATA, 0, 1, &[]), 0, 0, 0),
            (frame(6, 0, 0, &[0; 8]), 0, 0, 0),
            (padded(0, 20, 255), 20, 1, 0),
            (padded(0, 0, 255), 0, 0, 0),
            (frame(HEADERS, END_HEADERS, 3, &[1; 10]), 0, 0, 0),
            (padded(END_STREAM, 0, 9), 0, 1, 0),
            (frame(DATA, END_STREAM, 3, &[]), 0, 1, 0),
            // Trailers: the stream is known.
            (frame(HEADERS, END_HEADERS | END_STREAM, 1, &[1; 5]), 0, 0, 1),
            // An unknown type is ignored. The reserved bit of the stream too.
            (frame(99, 0xff, 0x8000_0005, &[0; 70_000]), 0, 0, 0),
            (frame(DATA, 0, 0x8000_0003, &[0; MAX_PAYLOAD]), MAX_PAYLOAD, 1, 0),
        ];
        for step in [1, 2, 7, 8, 9, 10, 4096, usize::MAX] {
            let (mut frames, mut received) = (RequestFrames::default(), 0);
            for (number, (bytes, data, data_frames, trailers)) in requests.iter().enumerate() {
                let read = pass(&mut frames, bytes, step);
                let right = FramesRead {
                    data: *data,
                    data_frames: *data_frames,
                    beside: bytes.len() - data,
                    trailers: *trailers,
                };
                assert_eq!(read, right, "frame {number} in steps of {step}");
                assert_eq!((frames.is_block_open(), frames.unfinished()), (number == 1, 0));
                received += if bytes[3] == DATA { bytes.len() as u64 - 9 } else { 0 };
                assert_eq!(frames.received(), received);
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_seen() {
        let mut frames = RequestFrames::default();
        frames.pass(&frame(HEADERS, END_HEADERS, 1, &[1; 100])[..60]);
        assert_eq!((frames.unfinished(), frames.is_block_open()), (51, false));
        frames.pass(&[1; 49]);
        assert_eq!(frames.unfinished(), 0);
        frames.pass(&frame(HEADERS, 0, 3, &[1; 100])[..9]);
        assert!(frames.is_block_open());
        frames.pass(&[1; 100]);
        let last = frame(CONTINUATION, END_HEADERS, 3, &[1; 100]);
        frames.pass(&last[..108]);
        assert!(frames.is_block_open(), "its last byte lacks");
        frames.pass(&last[108..]);
        assert!(!frames.is_block_open());
        // A frame that is too long is refused at its head.
        frames.pass(&[0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 5]);
        frames.pass(&vec![0; 1 << 20]);
        assert_eq!(frames.unfinished(), MAX_PAYLOAD);
    }

    #[test]
    fn room_that_is_given_is_seen_however_it_goes_out() {
        let mut sent = frame(4, 0, 0, &[0; 36]);
        sent.extend(frame(WINDOW_UPDATE, 0, 0, &458_753_u32.to_be_bytes()));
        sent.extend(frame(HEADERS, END_HEADERS, 1, &[0; 40]));
        sent.extend(frame(DATA, END_STREAM, 1, &[0; 5000]));
        // One stream's own.
        sent.extend(frame(WINDOW_UPDATE, 0, 1, &9_u32.to_be_bytes()));
        sent.extend(frame(WINDOW_UPDATE, 0, 0, &0x8003_0d40_u32.to_be_bytes()));
        for step in [1, 3, 9, 13, usize::MAX] {
            let mut updates = WindowUpdates::default();
            let seen = sent.chunks(step).filter(|piece| updates.pass(piece)).count();
            assert_eq!(seen, if step == usize::MAX { 1 } else { 2 });
            // The first one completes the window: it returns nothing.
            assert_eq!(updates.most_held(300_000, 512 << 10), 100_000);
        }
        assert_eq!(WindowUpdates::default().most_held(0, 512 << 10), 458_753);
        assert_eq!(WindowUpdates::default().most_held(0, 0), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_pass_and_every_split_gives_the_same(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), 0..16_u8, any::<u8>()], 0..1500),
            cuts in proptest::collection::vec(1..200_usize, 1..40),
        ) {
            let mut whole = RequestFrames::default();
            let at_once = whole.pass(&bytes);
            prop_assert_eq!(at_once.data + at_once.beside, bytes.len());
            let (mut split, mut pieces, mut rest) = (RequestFrames::default(), FramesRead::default(), &*bytes);
            let (mut updates, mut split_updates) = (WindowUpdates::default(), WindowUpdates::default());
            updates.pass(&bytes);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                pieces = sum(pieces, split.pass(piece));
                split_updates.pass(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(at_once, pieces);
            prop_assert_eq!(whole.received(), split.received());
            prop_assert_eq!(whole.unfinished(), split.unfinished());
            prop_assert_eq!(whole.is_block_open(), split.is_block_open());
            prop_assert_eq!(updates.granted, split_updates.granted);
        }
    }
}
