//! The wire codec as a node uses it: what breaks the protocol is reported with its sender, and large frames are charged to one budget.
//!
//! Why     libp2p's request-response logs a request that does not decode and forgets who sent it; a node must know, to block it.
//! Rule    bytes of all requests being read or answered stay below the budget; above it a request is refused as `Busy`, unread.

use fluence_types::codec;
use fluence_wire::codec::{Codec as Wire, read_length};
use fluence_wire::{REQUEST_BYTES_MAX, Request, Response};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::{StreamProtocol, request_response};
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in these.
const UNIT_BYTES: usize = 4 << 10;
/// Read and charged at once.
const STEP_BYTES: usize = 64 << 10;

/// What came in on a stream.
#[derive(Debug)]
pub(super) enum Received {
    /// A request and its share of the budget.
    Request(Request, Charge),
    /// Bytes that are no request.
    Malformed(String),
    /// A frame that ends early.
    Truncated,
    /// The budget is used up.
    Overload,
    /// Ours, to be written.
    Outgoing(Request),
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Charge(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The codec of a node.
#[derive(Clone, Debug)]
pub(super) struct Codec {
    budget: Arc<Semaphore>,
}

impl Codec {
    /// With a budget of `bytes` for requests in memory.
    pub(super) fn new(bytes: usize) -> Self {
        Self { budget: Arc::new(Semaphore::new(bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS))) }
    }

    async fn receive<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<Received> {
        let length = read_length("request", io, REQUEST_BYTES_MAX).await?;
        let mut charge: Option<OwnedSemaphorePermit> = None;
        let mut bytes = Vec::new();
        // Charged as it arrives: a peer that announces much and sends little holds little.
        loop {
            let step = (length - bytes.len()).min(STEP_BYTES);
            let units = u32::try_from(step.div_ceil(UNIT_BYTES).max(1)).expect("a step is a few units");
            let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(units) else {
                return Ok(Received::Overload);
            };
            match &mut charge {
                Some(charge) => charge.merge(permit),
                none => *none = Some(permit),
            }
            let start = bytes.len();
            bytes.resize(start + step, 0);
            io.read_exact(&mut bytes[start..]).await?;
            if bytes.len() == length {
                break;
            }
        }
        let charge = Charge(charge.expect("the loop ran once"));
        Ok(match codec::decode("request", &bytes, REQUEST_BYTES_MAX) {
            Ok(request) => Received::Request(request, charge),
            Err(e) => Received::Malformed(e.to_string()),
        })
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Received;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Received>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.receive(io).await {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Received::Malformed(e.to_string())),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Received::Truncated),
            other => other,
        }
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        Wire.read_response(protocol, io).await
    }

    async fn write_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T, request: Received) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Received::Outgoing(request) = request else {
            unreachable!("only `Outgoing` is handed to the swarm for sending");
        };
        Wire.write_request(protocol, io, request).await
    }

    async fn write_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Wire.write_response(protocol, io, response).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;
    use request_response::Codec as _;

    const PROTOCOL: StreamProtocol = StreamProtocol::new(fluence_wire::PROTOCOL);

    async fn read(codec: &mut Codec, bytes: Vec<u8>) -> Received {
        codec.read_request(&PROTOCOL, &mut Cursor::new(bytes)).await.unwrap()
    }

    async fn chunk(bytes: usize) -> Vec<u8> {
        let request = Request::UploadChunk {
            segment: fluence_types::SegmentRoot::default(),
            offset: 0,
            bytes: vec![0; bytes].try_into().unwrap(),
        };
        let mut io = Cursor::new(Vec::new());
        Wire.write_request(&PROTOCOL, &mut io, request).await.unwrap();
        io.into_inner()
    }

    #[tokio::test]
    async fn names_what_is_wrong_with_a_frame_instead_of_dropping_it() {
        let mut codec = Codec::new(1 << 20);
        assert!(matches!(read(&mut codec, chunk(9).await).await, Received::Request(..)));
        assert!(matches!(read(&mut codec, vec![1, 0]).await, Received::Truncated));
        assert!(matches!(read(&mut codec, vec![9, 0, 0, 0, 1]).await, Received::Truncated));
        assert!(matches!(read(&mut codec, vec![0xff; 4]).await, Received::Malformed(why) if why.contains("limit")));
        assert!(matches!(read(&mut codec, vec![1, 0, 0, 0, 99]).await, Received::Malformed(_)));
    }

    #[tokio::test]
    async fn refuses_frames_above_the_budget_until_one_is_dropped() {
        let mut codec = Codec::new(64 << 10);
        let held = read(&mut codec, chunk(40 << 10).await).await;
        assert!(matches!(held, Received::Request(..)));
        assert!(matches!(read(&mut codec, chunk(40 << 10).await).await, Received::Overload));
        assert!(matches!(read(&mut codec, chunk(9).await).await, Received::Request(..)), "a small one still fits");
        drop(held);
        assert!(matches!(read(&mut codec, chunk(40 << 10).await).await, Received::Request(..)));
    }
}
