//! COPY over the connection: chunks in until the client is done, chunks out until the rows are.
//!
//! Rule    memory is one chunk; a COPY that fails drops what the client still sends of it [`Connection::message`].
//! Source  PostgreSQL 15, "COPY Operations"

use super::connection::Connection;
use super::errors::{Failure, Fault, code};
use super::frontend::Message;
use super::simple::command_tag;
use super::tuples::{self, TupleWriter, Tuples};
use crate::error::SqlError;
use crate::session::{CopyFormat, Outcome};
use bytes::{Bytes, BytesMut};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::BoxStream;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use std::io;

/// Overall format, count of columns, format of each.
fn layout(columns: usize, format: CopyFormat) -> Result<(i8, i16, Vec<i16>), Fault> {
    let count = i16::try_from(columns)
        .map_err(|_| Fault::error(code::PROGRAM_LIMIT, format!("COPY of {columns} columns, 32767 at most")))?;
    let binary = i8::from(format == CopyFormat::Binary);
    Ok((binary, count, vec![i16::from(binary); columns]))
}

impl Connection {
    /// COPY .. FROM STDIN, from the first response to the tag.
    pub(super) async fn copy_in(
        &mut self,
        columns: usize,
        format: CopyFormat,
        fields: &[Field],
    ) -> Result<(), Failure> {
        let mut binary = match format {
            CopyFormat::Binary => Some(Tuples::new(fields)?),
            _ => None,
        };
        let (overall, count, each) = layout(columns, format)?;
        self.wire.send(PgWireBackendMessage::CopyInResponse(CopyInResponse::new(overall, count, each))).await?;
        loop {
            let Some(frame) = self.wire.frame().await? else {
                return Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into()));
            };
            match Message::decode(&frame)? {
                Message::CopyData(chunk) => match &mut binary {
                    None => self.session.copy_data(&chunk).await?,
                    Some(tuples) => {
                        if let Some(columns) = tuples.push(&chunk)? {
                            self.session.copy_columns(columns).await?;
                        }
                    }
                },
                Message::CopyDone => break,
                Message::CopyFail(why) => return Err(self.session.copy_fail(&why).await.into()),
                // Drivers send Sync with the Execute that started the COPY.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into())),
                _ => {
                    let message = format!("unexpected message type 0x{:02x} during COPY from stdin", frame.tag);
                    return Err(Fault::error(code::PROTOCOL_VIOLATION, message).into());
                }
            }
        }
        if let Some(tuples) = &mut binary {
            let columns = tuples.finish()?;
            self.session.copy_columns(columns).await?;
        }
        match self.session.copy_done().await? {
            Outcome::Done(tag) => self.complete(command_tag(&tag, 0)).await,
            _ => Err(Fault::error(code::INTERNAL, "COPY ended without a count").into()),
        }
    }

    /// COPY .. TO STDOUT (FORMAT binary).
    pub(super) async fn copy_rows(
        &mut self,
        schema: &Schema,
        mut stream: SendableRecordBatchStream,
    ) -> Result<(), Failure> {
        let (overall, count, each) = layout(schema.fields().len(), CopyFormat::Binary)?;
        self.wire.feed(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(overall, count, each))).await?;
        let mut tuples = TupleWriter::new(schema)?;
        let mut rows = 0;
        // Drivers expect the header in one message with what follows it.
        let mut next = BytesMut::from(tuples::header());
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(SqlError::from)?;
            for row in 0..batch.num_rows() {
                next.extend_from_slice(&tuples.encode(&batch, row)?);
                self.wire.feed(PgWireBackendMessage::CopyData(CopyData::new(next.split().freeze()))).await?;
                rows += 1;
            }
        }
        next.extend_from_slice(&tuples::trailer());
        self.wire.feed(PgWireBackendMessage::CopyData(CopyData::new(next.freeze()))).await?;
        self.wire.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        self.complete(format!("COPY {rows}")).await
    }

    /// COPY .. TO STDOUT, text or CSV.
    pub(super) async fn copy_out(
        &mut self,
        columns: usize,
        format: CopyFormat,
        mut stream: BoxStream<'static, Result<(Bytes, u64), SqlError>>,
    ) -> Result<(), Failure> {
        let (overall, count, each) = layout(columns, format)?;
        self.wire.feed(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(overall, count, each))).await?;
        let mut rows = 0;
        while let Some(chunk) = stream.next().await {
            let (bytes, held) = chunk?;
            rows += held;
            self.wire.feed(PgWireBackendMessage::CopyData(CopyData::new(bytes))).await?;
        }
        self.wire.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        self.complete(format!("COPY {rows}")).await
    }
}
