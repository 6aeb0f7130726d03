//! Server-sent events, cut out of the bytes of a stream.

use bytes::{Bytes, BytesMut};

/// One event: its bytes as they came, its end included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// All of them.
    pub bytes: Bytes,
}

impl Event {
    /// What its `data:` lines say; `None` if it has none (a comment, such as a keep-alive).
    pub fn data(&self) -> Option<std::borrow::Cow<'_, [u8]>> {
        let mut lines = self.bytes.split(|&byte| byte == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let data = line.strip_prefix(b"data:")?;
            Some(data.strip_prefix(b" ").unwrap_or(data))
        });
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(first.into()) };
        let mut all = [first, second].join(&b'\n');
        for line in lines {
            all.push(b'\n');
            all.extend_from_slice(line);
        }
        Some(all.into())
    }
}

/// Cuts events out of pieces of any size.
#[derive(Debug, Default)]
pub struct Events {
    rest: BytesMut,
    /// Bytes of `rest` in which no event ends.
    searched: usize,
}

/// An event is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl Events {
    /// Takes a piece in.
    pub fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next event that is whole.
    ///
    /// # Errors
    /// If what has come of it is longer than `bytes_max` already.
    pub fn next(&mut self, bytes_max: usize) -> Result<Option<Event>, TooLong> {
        let from = self.searched.saturating_sub(3);
        let Some(end) = end_of_event(&self.rest[from..]) else {
            self.searched = self.rest.len();
            return if self.rest.len() > bytes_max { Err(TooLong) } else { Ok(None) };
        };
        self.searched = 0;
        Ok(Some(Event { bytes: self.rest.split_to(from + end).freeze() }))
    }

    /// Whether part of an event is left over.
    pub fn is_cut(&self) -> bool {
        self.rest.iter().any(|byte| !byte.is_ascii_whitespace())
    }
}

/// Where the first empty line ends.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"data: {\"a\":1}\n\n: ping\r\n\r\ndata:x\ndata: y\n\nevent: e\ndata: z\n\n";

    fn cut(sizes: usize) -> Vec<(String, Option<String>)> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for piece in STREAM.chunks(sizes) {
            events.push(piece);
            while let Some(event) = events.next(100).expect("none is long") {
                let data = event.data().map(|data| String::from_utf8_lossy(&data).into_owned());
                found.push((String::from_utf8_lossy(&event.bytes).into_owned(), data));
            }
        }
        assert!(!events.is_cut());
        found
    }

    #[test]
    fn pieces_of_any_size_give_the_same_events() {
        let whole = cut(STREAM.len());
        let data: Vec<_> = whole.iter().map(|(_, data)| data.as_deref()).collect();
        assert_eq!(data, [Some("{\"a\":1}"), None, Some("x\ny"), Some("z")]);
        let bytes: String = whole.iter().map(|(bytes, _)| bytes.as_str()).collect();
        assert_eq!(bytes.as_bytes(), STREAM);
        for size in 1..STREAM.len() {
            assert_eq!(cut(size), whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_never_ends_is_too_long() {
        let mut events = Events::default();
        events.push(&[b'x'; 101]);
        assert_eq!(events.next(100), Err(TooLong));
        assert!(events.is_cut());
    }
}
