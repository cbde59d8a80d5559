//! What a Parquet file claims of its sizes, read before the library allocates by it: the footer's lists, and every page of a row group.
//!
//! Why     the library reserves room by counts in the footer and unpacks a page to whatever length its header names, or, with GZIP, to
//!         whatever comes out. Here a list is no longer than its bytes, a page no longer than a limit, and GZIP is measured first.
//! Form    Thrift's compact protocol: a field is a byte (step of the id, type) and its value; all lengths are variable-length integers.
//! Source  <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>, <https://parquet.apache.org/docs/file-format/>

use super::{FileError, Format, METADATA_BYTES_MAX, PAGE_BYTES_MAX};
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// Structs inside structs.
const DEPTH_MAX: usize = 24;
/// Longest page header: it may hold the least and greatest value of its page.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// First look for a header.
const HEADER_BYTES: usize = 512;

pub(super) fn malformed(why: impl Into<String>) -> FileError {
    FileError::Malformed { format: Format::Parquet, why: why.into() }
}

/// Bytes in the compact protocol.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The bytes end inside a value, or are no value.
#[derive(Debug)]
enum Broken {
    Short,
    Wrong(&'static str),
}

type Step<T = ()> = Result<T, Broken>;

impl<'a> Thrift<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Step<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Broken::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Step<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken::Wrong("an integer of more than 64 bits"))
    }

    fn int(&mut self) -> Step<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Passes over as many bytes as are really there.
    fn pass(&mut self, bytes: u64) -> Step {
        let left = (self.bytes.len() - self.at) as u64;
        if bytes > left {
            return Err(Broken::Short);
        }
        self.at += bytes as usize;
        Ok(())
    }

    /// A list may be no longer than the bytes that are left: each element takes one.
    fn count(&self, count: u64) -> Step<u64> {
        if count > (self.bytes.len() - self.at) as u64 { Err(Broken::Short) } else { Ok(count) }
    }

    /// The fields of a struct; what `take` leaves is passed over.
    fn fields(&mut self, depth: usize, take: &mut dyn FnMut(&mut Self, i64, u8) -> Step<bool>) -> Step {
        if depth > DEPTH_MAX {
            return Err(Broken::Wrong("structs inside structs without end"));
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            let ty = head & 0x0f;
            if ty == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.int()?,
                step => id.wrapping_add(i64::from(step)),
            };
            if !take(self, id, ty)? {
                self.skip(ty, false, depth)?;
            }
        }
    }

    fn skip(&mut self, ty: u8, in_list: bool, depth: usize) -> Step {
        match ty {
            1 | 2 if in_list => self.pass(1),
            1 | 2 => Ok(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let bytes = self.varint()?;
                self.pass(bytes)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    few => u64::from(few),
                };
                self.elements(self.count(count)?, &[head & 0x0f], depth)
            }
            11 => match self.varint()? {
                0 => Ok(()),
                count => {
                    let types = self.byte()?;
                    self.elements(self.count(count)?, &[types >> 4, types & 0x0f], depth)
                }
            },
            12 => self.fields(depth + 1, &mut |_, _, _| Ok(false)),
            13 => self.pass(16),
            _ => Err(Broken::Wrong("a value of no known type")),
        }
    }

    fn elements(&mut self, count: u64, types: &[u8], depth: usize) -> Step {
        if depth > DEPTH_MAX {
            return Err(Broken::Wrong("lists inside lists without end"));
        }
        for _ in 0..count {
            types.iter().try_for_each(|ty| self.skip(*ty, true, depth + 1))?;
        }
        Ok(())
    }
}

/// The bytes of a file's footer, every list in it no longer than the bytes that are there.
pub(super) fn footer(file: &File, length: u64) -> Result<Vec<u8>, FileError> {
    let mut tail = [0; 8];
    let short = || malformed(format!("{length} bytes are no Parquet file"));
    let at = length.checked_sub(12).ok_or_else(short)?;
    file.read_exact_at(&mut tail, at + 4).map_err(|e| malformed(e.to_string()))?;
    match &tail[4..] {
        b"PAR1" => {}
        b"PARE" => return Err(malformed("its footer is encrypted; write it without encryption")),
        _ => return Err(malformed("it does not end in a footer; it is cut short, or no Parquet file")),
    }
    let size = u64::from(u32::from_le_bytes(tail[..4].try_into().expect("4 bytes")));
    if size > METADATA_BYTES_MAX as u64 {
        let limit = METADATA_BYTES_MAX as u64;
        return Err(FileError::Limit { what: "bytes of metadata of the Parquet file".to_owned(), got: size, limit });
    }
    let at =
        at.checked_sub(size).ok_or_else(|| malformed(format!("a footer of {size} bytes in a file of {length}")))?;
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, at + 4).map_err(|e| malformed(e.to_string()))?;
    let mut thrift = Thrift::new(&bytes);
    thrift.fields(0, &mut |_, _, _| Ok(false)).map_err(|e| malformed(format!("footer: {}", in_words(&e))))?;
    Ok(bytes)
}

fn in_words(broken: &Broken) -> &'static str {
    match broken {
        Broken::Short => "it names more than there is",
        Broken::Wrong(why) => why,
    }
}

/// What a page's header says.
#[derive(Debug, Default)]
struct Page {
    header: u64,
    unpacked: i64,
    packed: i64,
    /// Bytes of levels, which version 2 does not compress.
    levels: i64,
    compressed: bool,
}

fn page(bytes: &[u8]) -> Step<Page> {
    let mut page = Page { compressed: true, ..Page::default() };
    let mut thrift = Thrift::new(bytes);
    thrift.fields(0, &mut |thrift, id, ty| {
        match (id, ty) {
            (2, 5) => page.unpacked = thrift.int()?,
            (3, 5) => page.packed = thrift.int()?,
            (8, 12) => thrift.fields(1, &mut |thrift, id, ty| {
                match (id, ty) {
                    (5 | 6, 5) => page.levels = page.levels.wrapping_add(thrift.int()?),
                    (7, 1) => page.compressed = true,
                    (7, 2) => page.compressed = false,
                    _ => return Ok(false),
                }
                Ok(true)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    page.header = thrift.at as u64;
    Ok(page)
}

/// Checks the pages of a column chunk against the limits. Gives how large the two largest are together: so much is in memory at once.
pub(super) fn check(file: &File, length: u64, chunk: &ColumnChunkMetaData) -> Result<u64, FileError> {
    let name = || super::cut(&chunk.column_descr().path().string());
    let wrong = |why: &str| malformed(format!("column {:?}: {why}", name()));
    let gzip = match chunk.compression() {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW => false,
        Compression::GZIP(_) => true,
        other => {
            let ty = format!("packed with {other}");
            let why = "only Snappy, Zstandard, LZ4_RAW and GZIP are unpacked; write it with one of them";
            return Err(FileError::Column { column: name(), ty, why });
        }
    };
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let (Ok(mut at), Ok(packed)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
        return Err(wrong("its pages have no place"));
    };
    let end =
        at.checked_add(packed).filter(|end| *end <= length).ok_or_else(|| wrong("its pages lie beyond the file"))?;
    let mut largest = [0u64; 2];
    while at < end {
        let page = header_at(file, at, end).map_err(|why| wrong(&why))?;
        let (Ok(unpacked), Ok(packed), Ok(levels)) =
            (u64::try_from(page.unpacked), u64::try_from(page.packed), u64::try_from(page.levels))
        else {
            return Err(wrong("a page of less than nothing"));
        };
        if unpacked > PAGE_BYTES_MAX || packed > PAGE_BYTES_MAX {
            let what = format!("bytes of a page of column {:?}", name());
            return Err(FileError::Limit { what, got: unpacked.max(packed), limit: PAGE_BYTES_MAX });
        }
        let body = at + page.header;
        at = body
            .checked_add(packed)
            .filter(|next| *next <= end)
            .ok_or_else(|| wrong("a page reaches beyond its column"))?;
        if levels > unpacked || levels > packed {
            return Err(wrong("a page whose levels are longer than itself"));
        }
        if gzip && page.compressed && packed > levels {
            measure(file, body + levels, packed - levels, unpacked - levels).map_err(|why| wrong(&why))?;
        }
        let least = usize::from(largest[1] < largest[0]);
        largest[least] = largest[least].max(unpacked + packed);
    }
    Ok(largest[0] + largest[1])
}

fn header_at(file: &File, at: u64, end: u64) -> Result<Page, String> {
    let mut size = HEADER_BYTES;
    loop {
        let mut bytes = vec![0; size.min((end - at) as usize)];
        file.read_exact_at(&mut bytes, at).map_err(|e| e.to_string())?;
        match page(&bytes) {
            Ok(page) => return Ok(page),
            Err(Broken::Short) if bytes.len() == size && size < HEADER_BYTES_MAX => size *= 8,
            Err(broken) => return Err(format!("a page's header: {}", in_words(&broken))),
        }
    }
}

/// Unpacks GZIP without keeping it, to see that no more comes out than the header says.
fn measure(file: &File, at: u64, packed: u64, unpacked: u64) -> Result<(), String> {
    let mut bytes = vec![0; packed as usize];
    file.read_exact_at(&mut bytes, at).map_err(|e| e.to_string())?;
    let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]).take(unpacked + 1);
    let got = std::io::copy(&mut decoder, &mut std::io::sink()).map_err(|e| e.to_string())?;
    if got == unpacked {
        Ok(())
    } else {
        Err(format!("a page unpacks to another length than the {unpacked} bytes it names"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_longer_than_its_bytes_is_refused_before_anything_is_reserved() {
        // Field 4, a list of structs, 2^31 of them.
        let lie = [0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00, 0x00];
        assert!(matches!(Thrift::new(&lie).fields(0, &mut |_, _, _| Ok(false)), Err(Broken::Short)));
        let binary = [0x18, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x00];
        assert!(matches!(Thrift::new(&binary).fields(0, &mut |_, _, _| Ok(false)), Err(Broken::Short)));
        let nested = vec![0x1c; 1000];
        assert!(matches!(Thrift::new(&nested).fields(0, &mut |_, _, _| Ok(false)), Err(Broken::Wrong(_))));
        let good = [0x15, 0x04, 0x15, 0x0a, 0x00];
        assert!(Thrift::new(&good).fields(0, &mut |_, _, _| Ok(false)).is_ok());
    }

    #[test]
    fn a_page_header_is_read_with_the_levels_of_version_2() {
        let bytes = [0x15, 0x06, 0x15, 0x14, 0x15, 0x10, 0x5c, 0x55, 0x04, 0x15, 0x02, 0x12, 0x00, 0x00, 0x77];
        let page = page(&bytes).unwrap();
        assert_eq!((page.unpacked, page.packed, page.levels, page.compressed, page.header), (10, 8, 3, false, 14));
    }
}
