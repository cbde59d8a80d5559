//! The framed byte stream of one connection: type byte, length, body.
//!
//! ```text
//! io ── read ── Frame { tag, body } ──> frontend      messages ── write ── io
//! ```
//! Rule    memory follows what arrived, not what a length claims; a message above the limit closes the connection.
//! Rule    every future here may be dropped: what was read stays in `read`, what is not yet written stays in `write`, in order.
//! Why own pgwire's codec bounds messages at 1 GiB, and its decoders trust the counts inside a body.

use super::errors::{Failure, Fault, code};
use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes to read at once, and buffered output above which it is sent.
const CHUNK_BYTES: usize = 32 * 1024;
/// How long the input of a client that broke the protocol is still taken, and dropped.
const LINGER: Duration = Duration::from_secs(1);

/// A plain or a TLS stream.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A message that is not yet decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// What it is.
    pub(super) tag: u8,
    /// Without tag and length.
    pub(super) body: Bytes,
}

/// See the module.
pub(super) struct Wire {
    io: Box<dyn Io>,
    read: BytesMut,
    write: BytesMut,
    body_bytes_max: usize,
}

impl Wire {
    /// A stream whose messages have at most `body_bytes_max` bytes.
    pub(super) fn new(io: Box<dyn Io>, body_bytes_max: usize) -> Self {
        Self { io, read: BytesMut::new(), write: BytesMut::new(), body_bytes_max }
    }

    /// Another limit: higher once the client is known.
    pub(super) fn limit(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// The next message; `None` where the client closed between two.
    pub(super) async fn frame(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some(frame) = take_frame(&mut self.read, self.body_bytes_max)? {
                return Ok(Some(frame));
            }
            self.read.reserve(CHUNK_BYTES);
            if self.io.read_buf(&mut self.read).await? == 0 {
                if self.read.is_empty() {
                    return Ok(None);
                }
                return Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The tag of the next message, where its first byte is here.
    pub(super) fn next_tag(&self) -> Option<u8> {
        self.read.first().copied()
    }

    /// Adds a message to what is sent next.
    pub(super) async fn feed(&mut self, message: PgWireBackendMessage) -> Result<(), Failure> {
        let before = self.write.len();
        if let Err(error) = message.encode(&mut self.write) {
            // A refused message may have left its first bytes.
            self.write.truncate(before);
            return Err(error.into());
        }
        if self.write.len() >= CHUNK_BYTES {
            self.drain().await?;
        }
        Ok(())
    }

    /// Sends all.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        self.drain().await?;
        Ok(self.io.flush().await?)
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.write.is_empty() {
            let sent = self.io.write(&self.write).await?;
            if sent == 0 {
                return Err(Failure::Gone(io::ErrorKind::WriteZero.into()));
            }
            self.write.advance(sent);
        }
        Ok(())
    }

    /// Adds a message and sends all.
    pub(super) async fn send(&mut self, message: PgWireBackendMessage) -> Result<(), Failure> {
        self.feed(message).await?;
        self.flush().await
    }

    /// The last word: sent if the client still takes it, then the stream is closed.
    pub(super) async fn close_with(mut self, fault: Fault) {
        let unread = fault.code == code::PROTOCOL_VIOLATION;
        if self.send(fault.into_message()).await.is_err() || self.io.shutdown().await.is_err() || !unread {
            return;
        }
        // Closing a socket with input unread resets it, and the client may lose the error: take some of the input first.
        let mut sink = [0; 4096];
        let drain = async { while self.io.read(&mut sink).await.is_ok_and(|size| size > 0) {} };
        let _drained_or_not = tokio::time::timeout(LINGER, drain).await;
    }
}

/// Takes a whole message off the front of `read`.
fn take_frame(read: &mut BytesMut, body_bytes_max: usize) -> Result<Option<Frame>, Fault> {
    let Some((&tag, length)) = read.split_first().and_then(|(tag, rest)| Some((tag, rest.first_chunk::<4>()?))) else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(size) = length.checked_sub(4) else {
        return Err(Fault::fatal(code::PROTOCOL_VIOLATION, format!("invalid message length {length}")));
    };
    if size > body_bytes_max {
        return Err(Fault::fatal(
            code::PROTOCOL_VIOLATION,
            format!("message of {size} bytes is larger than the limit of {body_bytes_max}"),
        ));
    }
    if read.len() < 5 + size {
        return Ok(None);
    }
    read.advance(5);
    Ok(Some(Frame { tag, body: read.split_to(size).freeze() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn takes_whole_messages_only() {
        let mut read = buffer(b"Q\0\0\0\x06a\0X\0\0\0");
        let frame = take_frame(&mut read, 100).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body.as_ref()), (b'Q', b"a\0".as_slice()));
        assert_eq!(take_frame(&mut read, 100).unwrap(), None);
        read.extend_from_slice(b"\x04");
        assert_eq!(take_frame(&mut read, 100).unwrap().unwrap().tag, b'X');
        assert!(read.is_empty());
    }

    #[test]
    fn refuses_lengths_below_four_and_above_the_limit() {
        assert!(take_frame(&mut buffer(b"Q\0\0\0\x03"), 100).unwrap_err().fatal);
        assert!(take_frame(&mut buffer(b"Q\xff\xff\xff\xff"), 100).unwrap_err().fatal);
        assert_eq!(take_frame(&mut buffer(b"Q\0\0\0\x68"), 100).unwrap(), None);
        let fault = take_frame(&mut buffer(b"Q\0\0\0\x69"), 100).unwrap_err();
        assert!(fault.fatal && fault.message.contains("101 bytes"), "{fault:?}");
    }
}
