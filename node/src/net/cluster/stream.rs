//! One task per stream: frames of a peer to the inboxes, and frames from the outbox to a peer.
//!
//! Rule    a reader never waits for a consumer: what is not admitted is skipped, so that one slow cluster holds back nothing else on the
//!         stream. A writer waits for its peer only so long.

use super::frame::{HEADER_BYTES, Kind, LENGTH_BYTES, Lane, parse_head, parse_length};
use super::hub::{Admission, Dropped, Hub};
use super::queue::Outbox;
use super::{Channel, Offence};
use fluence_types::NodeId;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// Bytes that a stream gathers before it is read or written.
const BUFFER_BYTES: usize = 16 << 10;
/// How long a peer may take for one frame.
const WRITE: Duration = Duration::from_secs(60);

/// What a stream's task tells the swarm's.
#[derive(Debug)]
pub(in crate::net) enum StreamEvent {
    /// A peer did something wrong.
    Offence(NodeId, Offence),
    /// A reader's stream is down.
    ReadOver(NodeId, Lane, u64),
    /// A writer's stream is down.
    WriteOver(NodeId, Lane, u64),
}

fn count(direction: &'static str, channel: Channel, bytes: usize) {
    metrics::counter!("fluence_cluster_frames_total", "direction" => direction, "channel" => channel.name())
        .increment(1);
    metrics::counter!("fluence_cluster_bytes_total", "direction" => direction, "channel" => channel.name())
        .increment(bytes as u64);
}

/// Reads until the stream ends or breaks the protocol; reports both.
pub(super) async fn read(
    hub: Arc<Hub>,
    node: NodeId,
    lane: Lane,
    reader: u64,
    stream: impl AsyncRead + Unpin,
    events: mpsc::Sender<StreamEvent>,
) {
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    loop {
        match read_frame(&hub, node, lane, reader, &mut stream).await {
            Ok(None) => {}
            Ok(Some(offence)) => {
                let _ = events.send(StreamEvent::Offence(node, offence)).await;
                if offence == Offence::Malformed {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    let _ = events.send(StreamEvent::ReadOver(node, lane, reader)).await;
}

async fn read_frame(
    hub: &Hub,
    node: NodeId,
    lane: Lane,
    reader: u64,
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Offence>> {
    let malformed = |why: super::frame::FrameError| {
        tracing::warn!(%node, %why, "a peer sent bytes that are no frame of a cluster");
        Ok(Some(Offence::Malformed))
    };
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let length = match parse_length(lane, length) {
        Ok(length) => length,
        Err(why) => return malformed(why),
    };
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await?;
    let head = match parse_head(lane, length, &head) {
        Ok(head) => head,
        Err(why) => return malformed(why),
    };
    if let Kind::Data(channel) = head.kind {
        count("in", channel, length + LENGTH_BYTES);
    }
    match hub.admit(node, reader, lane, &head, Instant::now()) {
        Admission::Done => Ok(None),
        Admission::Take(charges) => {
            let mut payload = vec![0; head.payload];
            stream.read_exact(&mut payload).await?;
            if let Err(why) = hub.deliver(node, reader, &head, payload, charges) {
                why.count(1);
            }
            Ok(None)
        }
        Admission::Skip(why) => {
            why.count(1);
            skip(stream, head.payload).await?;
            Ok(None)
        }
        Admission::Offence(offence) => {
            if offence == Offence::Stranger {
                tracing::debug!(%node, db = %head.db, "a frame for a cluster that does not count its sender");
                Dropped::NotMember.count(1);
            }
            skip(stream, head.payload).await?;
            Ok(Some(offence))
        }
    }
}

async fn skip(stream: &mut (impl AsyncRead + Unpin), bytes: usize) -> io::Result<()> {
    let skipped = futures::io::copy(&mut stream.take(bytes as u64), &mut futures::io::sink()).await?;
    if skipped == bytes as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Writes what the outbox has until the stream ends, stalls, or another writer takes over; reports it.
pub(super) async fn write(
    outbox: Arc<Outbox>,
    notify: Arc<Notify>,
    node: NodeId,
    lane: Lane,
    writer: u64,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    events: mpsc::Sender<StreamEvent>,
) {
    if let Err(error) = write_frames(&outbox, &notify, lane, writer, stream).await {
        tracing::debug!(%node, ?lane, %error, "a stream to a peer is down");
    }
    let _ = events.send(StreamEvent::WriteOver(node, lane, writer)).await;
}

async fn write_frames(
    outbox: &Outbox,
    notify: &Notify,
    lane: Lane,
    writer: u64,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut back, stream) = stream.split();
    let mut stream = BufWriter::with_capacity(BUFFER_BYTES, stream);
    while let Ok(frame) = outbox.pop(lane, writer) {
        if let Some(frame) = frame {
            timeout(WRITE, stream.write_all(&frame.bytes)).await.map_err(io::Error::from)??;
            if let Some(channel) = Channel::ALL.into_iter().find(|c| *c as u8 == frame.bytes[LENGTH_BYTES + 16]) {
                count("out", channel, frame.bytes.len());
            }
            continue;
        }
        timeout(WRITE, stream.flush()).await.map_err(io::Error::from)??;
        // Nothing comes back on this stream but its end.
        let mut byte = [0];
        tokio::select! {
            () = notify.notified() => {}
            _ = back.read(&mut byte) => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    Ok(())
}
