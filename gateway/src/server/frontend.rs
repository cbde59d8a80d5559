//! Messages of the client, decoded with every length checked.
//!
//! Rule    a body is read to its end and not past it; text is UTF-8; a wrong body is an ERROR, an unknown type is FATAL, because then
//!         the stream may be out of step.
//! Source  PostgreSQL 15, "Message Formats"

use super::errors::{Fault, code};
use super::wire::Frame;
use bytes::Bytes;

/// What Describe and Close speak of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Statement,
    Portal,
}

/// Bind, not yet looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bind {
    pub(super) portal: String,
    pub(super) statement: String,
    /// None, one for all, or one per parameter.
    pub(super) formats: Vec<i16>,
    pub(super) values: Vec<Option<Bytes>>,
    /// None, one for all, or one per column.
    pub(super) results: Vec<i16>,
}

/// A message of the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target, String),
    Execute {
        portal: String,
        rows_max: i32,
    },
    Close(Target, String),
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    FunctionCall,
    /// An answer to an authentication request, at a time when none is open.
    Authentication,
}

/// Whether an error in a message of this type is followed by skipping to the next Sync.
pub(super) fn is_extended(tag: u8) -> bool {
    matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C')
}

impl Message {
    /// Decodes one message.
    pub(super) fn decode(frame: &Frame) -> Result<Self, Fault> {
        let mut body = Fields::new(&frame.body);
        let message = match frame.tag {
            b'Q' => Self::Query(body.text()?),
            b'P' => {
                let (name, sql) = (body.text()?, body.text()?);
                let count = body.u16()?;
                Self::Parse { name, sql, types: (0..count).map(|_| body.u32()).collect::<Result<_, _>>()? }
            }
            b'B' => Self::Bind(bind(&frame.body, &mut body)?),
            b'D' => Self::Describe(body.target()?, body.text()?),
            b'C' => Self::Close(body.target()?, body.text()?),
            b'E' => Self::Execute { portal: body.text()?, rows_max: body.i32()? },
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'X' => Self::Terminate,
            b'd' => return Ok(Self::CopyData(frame.body.clone())),
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail(body.text()?),
            b'F' => return Ok(Self::FunctionCall),
            b'p' => return Ok(Self::Authentication),
            other => {
                return Err(Fault::fatal(
                    code::PROTOCOL_VIOLATION,
                    format!("invalid frontend message type {other} (0x{other:02x})"),
                ));
            }
        };
        body.end()?;
        Ok(message)
    }
}

fn bind(whole: &Bytes, body: &mut Fields<'_>) -> Result<Bind, Fault> {
    let (portal, statement) = (body.text()?, body.text()?);
    let formats = codes(body)?;
    let count = body.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match body.i32()? {
            -1 => None,
            size => {
                let size = usize::try_from(size).map_err(|_| malformed())?;
                Some(whole.slice_ref(body.bytes(size)?))
            }
        });
    }
    Ok(Bind { portal, statement, formats, values, results: codes(body)? })
}

fn codes(body: &mut Fields<'_>) -> Result<Vec<i16>, Fault> {
    let count = body.u16()?;
    (0..count)
        .map(|_| match body.u16()? {
            0 => Ok(0),
            1 => Ok(1),
            other => Err(Fault::error(code::INVALID_PARAMETER_VALUE, format!("unsupported format code: {other}"))),
        })
        .collect()
}

fn malformed() -> Fault {
    Fault::error(code::PROTOCOL_VIOLATION, "invalid message format")
}

/// Reads a body from its front.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// All of `body`.
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
    /// `size` bytes.
    pub(super) fn bytes(&mut self, size: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.rest.split_at_checked(size).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(*head)
    }
    /// A 16-bit count.
    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_be_bytes(self.array()?))
    }
    /// A 32-bit OID or code.
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_be_bytes(self.array()?))
    }
    /// A 32-bit number.
    pub(super) fn i32(&mut self) -> Result<i32, Fault> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    /// Text that ends at a zero byte.
    pub(super) fn text(&mut self) -> Result<String, Fault> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| Fault::error(code::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))
    }
    fn target(&mut self) -> Result<Target, Fault> {
        match self.array::<1>()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            [other] => Err(Fault::error(
                code::PROTOCOL_VIOLATION,
                format!("invalid message: {other} is neither a statement nor a portal"),
            )),
        }
    }
    /// What is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }
    /// Nothing is left over.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn decode(tag: u8, body: &[u8]) -> Result<Message, Fault> {
        Message::decode(&Frame { tag, body: Bytes::copy_from_slice(body) })
    }

    #[test]
    fn reads_a_bind_with_null_and_value() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02hi\0\x01\0\0";
        let Message::Bind(bind) = decode(b'B', body).unwrap() else { panic!("a Bind") };
        assert_eq!((bind.portal.as_str(), bind.statement.as_str()), ("p", "s"));
        assert_eq!(bind.formats, [1]);
        assert_eq!(bind.values, [None, Some(Bytes::from_static(b"hi"))]);
        assert_eq!(bind.results, [0]);
    }

    #[test]
    fn refuses_a_body_that_is_cut_or_goes_on() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02hi\0\x01\0\0";
        for size in 0..body.len() {
            assert_eq!(decode(b'B', &body[..size]).unwrap_err().code, "08P01", "cut to {size}");
        }
        let longer = [body.as_slice(), b"\0"].concat();
        assert_eq!(decode(b'B', &longer).unwrap_err().code, "08P01");
        assert_eq!(decode(b'Q', b"select 1").unwrap_err().code, "08P01");
        assert_eq!(decode(b'Q', b"select 1\0\0").unwrap_err().code, "08P01");
        assert_eq!(decode(b'S', b"x").unwrap_err().code, "08P01");
    }

    #[test]
    fn refuses_a_negative_size_text_that_is_not_utf8_and_unknown_codes() {
        assert_eq!(decode(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").unwrap_err().code, "08P01");
        assert_eq!(decode(b'Q', b"\xff\0").unwrap_err().code, "22021");
        assert_eq!(decode(b'B', b"\0\0\0\x01\0\x02\0\0\0\0").unwrap_err().code, "22023");
        assert_eq!(decode(b'D', b"X\0").unwrap_err().code, "08P01");
    }

    #[test]
    fn only_an_unknown_type_is_fatal() {
        assert!(decode(b'!', b"").unwrap_err().fatal);
        assert!(!decode(b'E', b"").unwrap_err().fatal);
    }

    #[test]
    fn random_bodies_never_panic() {
        for seed in 0..2_000_u64 {
            let mut rng = StdRng::seed_from_u64(seed);
            let tag = *b"QPBDCEHSXdcfFp".get(rng.gen_range(0..14)).expect("fourteen tags");
            let mut body = vec![0_u8; rng.gen_range(0..40)];
            rng.fill(body.as_mut_slice());
            // Many zeros, so that texts end and counts are small.
            body.iter_mut().for_each(|byte| *byte = if *byte < 128 { 0 } else { *byte & 3 });
            let _either = decode(tag, &body);
        }
    }
}
