//! How messages stand on a stream: an unsigned varint length, then that many bytes of one
//! [`Frame`].
//!
//! The decoder never reserves memory for an announced length: a buffer grows with the bytes that
//! arrive.

use crate::error::{Code, Error, Result};
use crate::rpc::Frame;
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// Bytes that a varint length may take: enough for 2^35, far over any limit.
const MAX_LENGTH_BYTES: usize = 5;

/// Appends a frame to a buffer.
///
/// # Errors
/// `too_large` when the message has more than `limit` bytes; the buffer is as it was.
pub fn encode(frame: &Frame, limit: usize, buffer: &mut BytesMut) -> Result<()> {
    let length = frame.encoded_len();
    if length > limit {
        return Err(Error::new(
            Code::TooLarge,
            format!("the message has {length} bytes: at most {limit} are allowed"),
        ));
    }
    buffer.reserve(length + MAX_LENGTH_BYTES);
    prost::encoding::encode_varint(length as u64, buffer);
    frame.encode_raw(buffer);
    Ok(())
}

/// Takes one whole frame off the front of a buffer; `None` when it is not all there yet.
///
/// # Errors
/// `too_large` when the announced length is over `limit`, `malformed` when the bytes are no frame.
/// The stream cannot be read any further after either.
pub fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>> {
    let Some((length, header)) = peek_length(buffer)? else {
        return Ok(None);
    };
    if length > limit as u64 {
        return Err(Error::new(
            Code::TooLarge,
            format!("a frame of {length} bytes: at most {limit} are allowed"),
        ));
    }
    // `length` is at most `limit`, a usize.
    let length = length as usize;
    if buffer.len() < header + length {
        return Ok(None);
    }
    buffer.advance(header);
    let message: Bytes = buffer.split_to(length).freeze();
    Frame::decode(message)
        .map(Some)
        .map_err(|error| Error::new(Code::Malformed, format!("not a frame: {error}")))
}

/// The length at the front of a buffer and how many bytes it takes; `None` when more bytes are
/// needed to know.
fn peek_length(buffer: &[u8]) -> Result<Option<(u64, usize)>> {
    let mut length = 0_u64;
    for (index, byte) in buffer.iter().take(MAX_LENGTH_BYTES).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if buffer.len() >= MAX_LENGTH_BYTES {
        return Err(Error::new(Code::Malformed, "a frame's length takes more than 5 bytes"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use crate::error::Code;
    use crate::rpc::{self, Frame, frame::Body, request::Call};
    use bytes::{BufMut, Bytes, BytesMut};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    const LIMIT: usize = 1 << 20;

    fn put_frame() -> Frame {
        let put = rpc::PutRequest {
            key: "k".into(),
            value: Bytes::from_static(b"\x00\xff"),
            ..Default::default()
        };
        let request = rpc::Request {
            credential: "ak_x:a".into(),
            timeout_ms: 5000,
            call: Some(Call::Put(put)),
            ..Default::default()
        };
        Frame { id: 300, body: Some(Body::Request(request)) }
    }

    fn bytes_of(frame: &Frame) -> BytesMut {
        let mut buffer = BytesMut::new();
        encode(frame, LIMIT, &mut buffer).unwrap();
        buffer
    }

    /// The bytes on the wire are a promise to peers of other versions and languages.
    #[test]
    fn frames_have_these_bytes() {
        let expected = [
            26, // length
            0x08, 0xac, 0x02, // id = 300
            0x12, 21, // request
            0x0a, 6, b'a', b'k', b'_', b'x', b':', b'a', // credential
            0x18, 0x88, 0x27, // timeout_ms = 5000
            0x82, 0x04, 7, // put = field 64
            0x0a, 1, b'k', 0x12, 2, 0x00, 0xff, // key, value
        ];
        assert_eq!(&bytes_of(&put_frame())[..], expected);

        let error =
            rpc::Error { code: 6, message: "no".into(), retry_after_ms: None, statement: Some(0) };
        let frame = Frame { id: 1, body: Some(Body::Error(error)) };
        assert_eq!(
            &bytes_of(&frame)[..],
            [12, 0x08, 1, 0x22, 8, 0x08, 6, 0x12, 2, b'n', b'o', 0x20, 0]
        );

        let frame = Frame { id: 2, body: Some(Body::Cancel(rpc::Cancel {})) };
        assert_eq!(&bytes_of(&frame)[..], [4, 0x08, 2, 0x42, 0]);
    }

    #[test]
    fn a_frame_that_is_not_all_there_waits_for_the_rest() {
        let whole = bytes_of(&put_frame());
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(decode(&mut part, LIMIT).unwrap(), None);
            assert_eq!(part.len(), cut, "nothing is taken off");
            part.extend_from_slice(&whole[cut..]);
            assert_eq!(decode(&mut part, LIMIT).unwrap(), Some(put_frame()));
            assert!(part.is_empty());
        }
    }

    /// Lesson 7: a length that a peer named was read into memory without bound.
    #[test]
    fn lesson_07_an_announced_length_over_the_limit_is_refused_before_anything_is_reserved() {
        let mut buffer = BytesMut::new();
        prost::encoding::encode_varint(1 << 33, &mut buffer);
        let capacity = buffer.capacity();
        assert_eq!(decode(&mut buffer, LIMIT).unwrap_err().code, Code::TooLarge);
        assert_eq!(buffer.capacity(), capacity);
        let mut endless = BytesMut::from(&[0xff; 6][..]);
        assert_eq!(decode(&mut endless, LIMIT).unwrap_err().code, Code::Malformed);
    }

    #[test]
    fn a_message_over_the_limit_is_not_sent() {
        let mut buffer = BytesMut::from(&b"before"[..]);
        assert_eq!(encode(&put_frame(), 5, &mut buffer).unwrap_err().code, Code::TooLarge);
        assert_eq!(&buffer[..], b"before");
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused() {
        for bad in [&[2, 0x12, 5][..], &[1, 0xff], &[3, 0x12, 1, 0xff], &[4, 0x0a, 2, b'a', b'b']] {
            assert_eq!(
                decode(&mut BytesMut::from(bad), LIMIT).unwrap_err().code,
                Code::Malformed,
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in any::<Vec<u8>>()) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let before = buffer.len();
            if let Ok(Some(_)) = decode(&mut buffer, LIMIT) {
                prop_assert!(buffer.len() < before);
            }
        }

        #[test]
        fn frames_survive_the_wire_one_after_another(ids in proptest::collection::vec(any::<u64>(), 1..20), value in any::<Vec<u8>>()) {
            let mut buffer = BytesMut::new();
            let frames: Vec<Frame> = ids.iter().map(|id| {
                let mut frame = put_frame();
                frame.id = *id;
                if let Some(Body::Request(request)) = &mut frame.body
                    && let Some(Call::Put(put)) = &mut request.call
                {
                    put.value = value.clone().into();
                }
                frame
            }).collect();
            for frame in &frames {
                encode(frame, LIMIT, &mut buffer).unwrap();
            }
            buffer.put_u8(5);
            for frame in frames {
                prop_assert_eq!(decode(&mut buffer, LIMIT).unwrap(), Some(frame));
            }
            prop_assert_eq!(decode(&mut buffer, LIMIT).unwrap(), None);
        }
    }
}
