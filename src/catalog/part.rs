//! Bytes of a file that only grow, plain or as a piece of a gzip member.
//!
//! A deflate stream that is flushed after each push ends at a byte, so that another stream may follow it in the same
//! member: what was compressed once stays as it is, and only its end is new in the next file.
//! Source: RFC 1952, section 2.2; RFC 1951, sections 2 and 3.2.4 (the empty block of a flush).

use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};

/// Deflate, no name, no time, level not said, system unknown. Source: RFC 1952, section 2.3.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// One part.
pub(super) struct Part {
    bytes: Vec<u8>,
    /// Of gzip: the stream that `bytes` come from, and the check of what went into it.
    packed: Option<(Compress, Crc)>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, gzip) = (self.bytes.len(), self.packed.is_some());
        f.debug_struct("Part")
            .field("bytes", &bytes)
            .field("gzip", &gzip)
            .finish()
    }
}

impl Part {
    pub(super) fn new(gzip: bool) -> Part {
        let packed = gzip.then(|| (Compress::new(Compression::default(), false), Crc::new()));
        Part {
            bytes: Vec::new(),
            packed,
        }
    }

    pub(super) fn is_gzip(&self) -> bool {
        self.packed.is_some()
    }

    pub(super) fn push(&mut self, text: &[u8]) {
        self.take(text, FlushCompress::Sync);
    }

    fn take(&mut self, text: &[u8], flush: FlushCompress) {
        let Some((stream, crc)) = &mut self.packed else {
            return self.bytes.extend_from_slice(text);
        };
        crc.update(text);
        let before = stream.total_in();
        // Ends: each round has room for all that is left to come out, and a little more; the last one leaves some over.
        loop {
            let done = usize::try_from(stream.total_in() - before).unwrap_or(usize::MAX);
            self.bytes.reserve((text.len() - done) / 2 + 64);
            // Fails only where a stream is used after its end.
            let _ = stream.compress_vec(&text[done..], &mut self.bytes, flush);
            if stream.total_in() - before == text.len() as u64 && self.bytes.len() < self.bytes.capacity() {
                return;
            }
        }
    }
}

/// Makes a file of one text.
pub(super) fn encoded(text: &Bytes, gzip: bool) -> Bytes {
    if gzip {
        join(&[], text, gzip).into()
    } else {
        text.clone()
    }
}

/// Makes a file of parts that are all plain or all of gzip, and of its end.
pub(super) fn file(parts: &[&Part], end: &[u8]) -> Vec<u8> {
    join(parts, end, parts.iter().all(|part| part.is_gzip()))
}

fn join(parts: &[&Part], end: &[u8], gzip: bool) -> Vec<u8> {
    let mut last = Part::new(gzip);
    last.take(end, FlushCompress::Finish);
    let all = || parts.iter().copied().chain([&last]);
    let mut bytes = Vec::with_capacity(32 + all().map(|part| part.bytes.len()).sum::<usize>());
    if gzip {
        bytes.extend_from_slice(&GZIP_HEADER);
    }
    let mut check = Crc::new();
    for part in all() {
        bytes.extend_from_slice(&part.bytes);
        part.packed.iter().for_each(|(_, crc)| check.combine(crc));
    }
    if gzip {
        bytes.extend_from_slice(&check.sum().to_le_bytes());
        bytes.extend_from_slice(&check.amount().to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_that_grow_are_one_file(
            pushes in proptest::collection::vec((any::<bool>(), "[a-c]{0,3000}"), 0..20),
            end in "[a-z]{0,100}",
        ) {
            for gzip in [false, true] {
                let mut parts = [Part::new(gzip), Part::new(gzip)];
                let mut texts = [String::new(), String::new()];
                for (second, text) in &pushes {
                    let which = usize::from(*second);
                    parts[which].push(text.as_bytes());
                    texts[which].push_str(text);
                    let file = file(&[&parts[0], &parts[1]], end.as_bytes());
                    let mut read = Vec::new();
                    let (mut plain, mut packed) = (file.as_slice(), GzDecoder::new(file.as_slice()));
                    let source: &mut dyn Read = if gzip { &mut packed } else { &mut plain };
                    source.read_to_end(&mut read).expect("one gzip member");
                    prop_assert_eq!(read, [&texts[0], &texts[1], &end].map(|text| text.as_bytes()).concat());
                    prop_assert!(!gzip || packed.into_inner().is_empty(), "nothing follows the member");
                }
            }
        }
    }
}
