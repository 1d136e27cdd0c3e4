//! Where the messages of a WebSocket end in the bytes that are read from it. The library does not
//! report what it still holds, and frames of one payload differ in size.

/// The longest head of a frame: flags, length, eight bytes of length, mask.
const MAX_HEAD: usize = 14;

/// Follows the frames that a client sends. It judges nothing: the library refuses invalid frames.
#[derive(Default)]
pub(crate) struct FrameTracker {
    head: [u8; MAX_HEAD],
    /// Bytes of `head` that have come; 0 between frames and while a payload passes.
    head_length: u8,
    /// Bytes of the payload that are still to come.
    payload: u64,
    is_last: bool,
    /// A data frame has passed whose message continues in the next.
    is_fragmented: bool,
    unfinished: usize,
    messages: u64,
}

impl FrameTracker {
    /// Bytes since nothing was incomplete: neither a frame nor a message of several.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.unfinished
    }

    /// Messages, and control frames, that have passed completely.
    pub(crate) fn finished_messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn observe(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let length = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[length..];
                self.unfinished = self.unfinished.saturating_add(length);
                self.payload -= length as u64;
            } else {
                bytes = rest;
                self.unfinished = self.unfinished.saturating_add(1);
                self.head[usize::from(self.head_length)] = *first;
                self.head_length += 1;
                if !self.read_head() {
                    continue;
                }
            }
            if self.payload == 0 {
                self.end_frame();
            }
        }
    }

    /// Whether the head is complete.
    fn read_head(&mut self) -> bool {
        let length = usize::from(self.head_length);
        if length < 2 {
            return false;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        let long = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if length < 2 + long + mask {
            return false;
        }
        let number =
            self.head[2..2 + long].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.payload = if long == 0 { u64::from(self.head[1] & 0x7f) } else { number };
        let is_control = self.head[0] & 0x08 != 0;
        self.is_last = is_control || self.head[0] & 0x80 != 0;
        if !is_control {
            self.is_fragmented = !self.is_last;
        }
        self.head_length = 0;
        true
    }

    fn end_frame(&mut self) {
        self.messages += u64::from(self.is_last);
        if !self.is_fragmented {
            self.unfinished = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FrameTracker;

    fn frame(first: u8, head: &[u8], payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend_from_slice(head);
        bytes.resize(bytes.len() + 4 + payload, 7);
        bytes
    }

    #[test]
    fn borders_are_found_however_the_bytes_come() {
        let ping = frame(0x89, &[0x80], 0);
        let frames = [
            (ping.clone(), true),
            (frame(0x82, &[0x80 | 5], 5), true),
            // A longer head than needed.
            (frame(0x82, &[0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 5], 5), true),
            (frame(0x02, &[0x80 | 126, 1, 0], 256), false),
            (ping, false),
            (frame(0x00, &[0x80 | 3], 3), false),
            (frame(0x80, &[0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536), true),
        ];
        for step in [1, 7, usize::MAX] {
            let (mut tracker, mut since) = (FrameTracker::default(), 0);
            for (bytes, ends) in &frames {
                bytes.chunks(step.min(bytes.len())).for_each(|piece| tracker.observe(piece));
                since = if *ends { 0 } else { since + bytes.len() };
                assert_eq!(tracker.unfinished_bytes(), since);
            }
            assert_eq!(tracker.finished_messages(), 5);
        }
    }
}
