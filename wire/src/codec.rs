//! The request-response codec for libp2p: a length, then canonical borsh, both ways under a limit.
//!
//! Rule    a frame that breaks the format is `InvalidData`, so that a node can tell a liar from a broken line.
//! Note    the writer does not close the stream; libp2p does, after the frame.

use crate::message::{Request, Response};
use crate::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use borsh::BorshDeserialize;
use fluence_types::codec;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response;
use std::io;

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// Reads and writes [`Request`] and [`Response`]: 4 bytes of length, little-endian, then the message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message("request", io, REQUEST_BYTES_MAX).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_message("response", io, RESPONSE_BYTES_MAX).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame("request", io, &codec::encode(&request), REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame("response", io, &codec::encode(&response), RESPONSE_BYTES_MAX).await
    }
}

/// An error that means "these bytes break the protocol", not "the connection broke": the reader may hold it against the sender.
fn invalid(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

/// Reads the length of a frame and refuses one above `limit`.
///
/// # Errors
/// `InvalidData` above the limit, else what the stream says.
pub async fn read_length<T>(what: &'static str, io: &mut T, limit: usize) -> io::Result<usize>
where
    T: AsyncRead + Unpin + Send,
{
    let mut length = [0; LENGTH_BYTES];
    io.read_exact(&mut length).await?;
    let got = u32::from_le_bytes(length) as usize;
    if got > limit { Err(invalid(codec::CodecError::TooLong { what, got, limit })) } else { Ok(got) }
}

/// Reads the `length` bytes that follow. Memory grows with what arrives, not with what the peer promises.
///
/// # Errors
/// `UnexpectedEof` where the stream ends early, else what the stream says.
pub async fn read_body<T>(io: &mut T, length: usize) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    let read = io.take(length as u64).read_to_end(&mut bytes).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Writes one frame.
///
/// # Errors
/// `InvalidData` above the limit, before a byte is written; else what the stream says.
pub async fn write_frame<T>(what: &'static str, io: &mut T, bytes: &[u8], limit: usize) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    if bytes.len() > limit {
        return Err(invalid(codec::CodecError::TooLong { what, got: bytes.len(), limit }));
    }
    io.write_all(&(bytes.len() as u32).to_le_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

async fn read_message<T, M>(what: &'static str, io: &mut T, limit: usize) -> io::Result<M>
where
    T: AsyncRead + Unpin + Send,
    M: BorshDeserialize,
{
    let length = read_length(what, io, limit).await?;
    let bytes = read_body(io, length).await?;
    codec::decode(what, &bytes, limit).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::{DatabaseId, SegmentRoot};
    use futures::executor::block_on;
    use futures::io::Cursor;
    use request_response::Codec as _;

    const PROTOCOL: StreamProtocol = StreamProtocol::new(crate::PROTOCOL);

    fn written(request: Request) -> io::Result<Vec<u8>> {
        let mut io = Cursor::new(Vec::new());
        block_on(Codec.write_request(&PROTOCOL, &mut io, request))?;
        Ok(io.into_inner())
    }

    fn read(bytes: &[u8]) -> io::Result<Request> {
        block_on(Codec.read_request(&PROTOCOL, &mut Cursor::new(bytes)))
    }

    fn chunk(bytes: usize) -> Request {
        let bytes = vec![7; bytes].try_into().expect("within the limit");
        Request::UploadChunk { segment: SegmentRoot::default(), offset: 0, bytes }
    }

    #[test]
    fn requests_and_responses_round_trip() {
        for request in [Request::Status, chunk(crate::CHUNK_BYTES), Request::Schemas { db: DatabaseId::default() }] {
            assert_eq!(read(&written(request.clone()).unwrap()).unwrap(), request);
        }
        let response = Response::Upload { have: 9 };
        let mut io = Cursor::new(Vec::new());
        block_on(Codec.write_response(&PROTOCOL, &mut io, response.clone())).unwrap();
        io.set_position(0);
        assert_eq!(block_on(Codec.read_response(&PROTOCOL, &mut io)).unwrap(), response);
    }

    #[test]
    fn rejects_a_frame_cut_at_every_byte() {
        let whole = written(Request::Schemas { db: DatabaseId::default() }).unwrap();
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn rejects_an_oversized_frame_before_its_body() {
        let promised = u32::try_from(crate::REQUEST_BYTES_MAX + 1).unwrap().to_le_bytes();
        let e = read(&promised).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
        assert!(e.to_string().contains("request is 4194305 bytes, the limit is 4194304"), "{e}");
    }

    #[test]
    fn rejects_unknown_tags_trailing_bytes_and_scalars_of_r_or_more() {
        let frame = |body: &[u8]| [&(body.len() as u32).to_le_bytes()[..], body].concat();
        let mut trailing = codec::encode(&Request::Status);
        trailing.push(0);
        let mut not_canonical = codec::encode(&chunk(1));
        not_canonical[1..33].fill(0xff);
        let too_long_a_chunk = {
            let mut bytes = codec::encode(&chunk(1));
            bytes[41..45].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        };
        for body in [&[][..], &[0][..], &[99][..], &trailing, &not_canonical, &too_long_a_chunk] {
            assert_eq!(read(&frame(body)).unwrap_err().kind(), io::ErrorKind::InvalidData, "{body:?}");
        }
    }

    #[test]
    fn refuses_to_write_what_the_other_side_would_refuse_to_read() {
        let mut io = Cursor::new(Vec::new());
        assert!(block_on(write_frame("test", &mut io, &[0; 9], 8)).is_err());
        assert!(io.into_inner().is_empty());
    }
}
