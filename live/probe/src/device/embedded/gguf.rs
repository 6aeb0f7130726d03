//! GGUF, llama.cpp's file of a model: entries that describe it, and tensors (the format's
//! specification, versions 2 and 3, little-endian).

use std::collections::BTreeMap;

use half::{bf16, f16};

/// What tensors are aligned to where the file does not say.
const ALIGNMENT: u64 = 32;
/// Numbers that share a scale.
const BLOCK: usize = 32;

/// An entry of the description.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    /// A number without a point or a sign.
    Count(u64),
    /// A number with a point.
    Float(f32),
    /// A text.
    Text(String),
}

/// Where a tensor is.
#[derive(Debug)]
struct Place {
    /// Rows first, as in other files: this format has them last.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Gguf {
    bytes: Vec<u8>,
    entries: BTreeMap<String, Entry>,
    tensors: BTreeMap<String, Place>,
    /// Where the tensors' numbers begin.
    data: usize,
}

impl Gguf {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(bytes: Vec<u8>) -> Result<Gguf, String> {
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        if cursor.take(4) != Ok(b"GGUF") {
            return Err("it is no GGUF file".to_owned());
        }
        let version = cursor.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("it is GGUF of version {version}: 2 and 3 are read"));
        }
        let (tensor_count, entry_count) = (cursor.u64()?, cursor.u64()?);
        let mut entries = BTreeMap::new();
        for _ in 0..entry_count {
            let name = cursor.text()?;
            let kind = cursor.u32()?;
            if let Some(entry) = cursor.entry(kind)? {
                entries.insert(name, entry);
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = cursor.text()?;
            let dimensions = cursor.u32()?;
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                let size = usize::try_from(cursor.u64()?);
                shape.push(size.map_err(|_| format!("tensor `{name}` is too large"))?);
            }
            shape.reverse();
            let place = Place { shape, kind: cursor.u32()?, offset: cursor.u64()? };
            tensors.insert(name, place);
        }
        let alignment = match entries.get("general.alignment") {
            Some(Entry::Count(alignment)) if *alignment > 0 => *alignment,
            _ => ALIGNMENT,
        };
        let data = (cursor.at as u64).checked_next_multiple_of(alignment);
        let data = data.and_then(|data| usize::try_from(data).ok()).ok_or_else(cut_off)?;
        Ok(Gguf { entries, tensors, data, bytes })
    }

    /// An entry of the description; lists are left out.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The shape of a tensor, rows first; `None` if there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|place| place.shape.as_slice())
    }

    /// A tensor's numbers, row by row.
    ///
    /// # Errors
    /// If there is none of that name, it is not whole, or it is of a kind that is not read.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>, String> {
        let place = self.tensors.get(name);
        let place = place.ok_or_else(|| format!("there is no tensor `{name}`"))?;
        let count = place.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        // The tensor's bytes, of which so many hold a block of so many numbers.
        let bytes = |block: usize, size: usize| {
            let length = count.filter(|count| count.is_multiple_of(block))? / block;
            let start = usize::try_from(place.offset).ok()?.checked_add(self.data)?;
            self.bytes.get(start..start.checked_add(length.checked_mul(size)?)?)
        };
        let whole = || format!("tensor `{name}` is not whole");
        let plain = |size| bytes(1, size).ok_or_else(whole);
        let blocks = |size: usize| {
            let bytes = bytes(BLOCK, size).ok_or_else(whole)?;
            Ok::<_, String>(bytes.chunks_exact(size).map(|block| {
                let (scale, packed) = block.split_at(2);
                (f16::from_le_bytes([scale[0], scale[1]]).to_f32(), packed)
            }))
        };
        match place.kind {
            0 => Ok(of_f32(plain(4)?)),
            1 => Ok(of_f16(plain(2)?)),
            30 => Ok(of_bf16(plain(2)?)),
            8 => Ok(blocks(2 + BLOCK)?
                .flat_map(|(scale, packed)| {
                    packed.iter().map(move |number| scale * f32::from(number.cast_signed()))
                })
                .collect()),
            // Lower halves of bytes are the first half of a block.
            2 => Ok(blocks(2 + BLOCK / 2)?
                .flat_map(|(scale, packed)| {
                    let first = packed.iter().map(|byte| byte & 15);
                    let numbers = first.chain(packed.iter().map(|byte| byte >> 4));
                    numbers.map(move |number| scale * (f32::from(number) - 8.0))
                })
                .collect()),
            kind => Err(format!(
                "tensor `{name}` is of ggml's kind {kind}: F32, F16, BF16, Q8_0 and Q4_0 are read"
            )),
        }
    }
}

/// Numbers of four bytes.
pub(super) fn of_f32(bytes: &[u8]) -> Vec<f32> {
    let four = bytes.chunks_exact(4);
    four.map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
}

/// Numbers of two bytes, as IEEE has them.
pub(super) fn of_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|it| f16::from_le_bytes([it[0], it[1]]).to_f32()).collect()
}

/// Numbers of two bytes, the upper ones of four.
pub(super) fn of_bf16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|it| bf16::from_le_bytes([it[0], it[1]]).to_f32()).collect()
}

fn cut_off() -> String {
    "it ends in the middle".to_owned()
}

/// Bytes, and how far they were read.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).ok_or_else(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(cut_off)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| cut_off())?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// An entry of a kind; `None` for those that nobody asks for.
    fn entry(&mut self, kind: u32) -> Result<Option<Entry>, String> {
        let count =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |count, byte| count << 8 | u64::from(*byte));
        Ok(match kind {
            6 => Some(Entry::Float(f32::from_le_bytes(self.array()?))),
            8 => Some(Entry::Text(self.text()?)),
            9 => {
                let (kind, length) = (self.u32()?, self.u64()?);
                if kind == 9 {
                    return Err("an entry is a list of lists".to_owned());
                }
                for _ in 0..length {
                    self.entry(kind)?;
                }
                None
            }
            12 => Some(Entry::Float(f64::from_le_bytes(self.array()?) as f32)),
            0 | 1 | 7 => Some(Entry::Count(count(self.take(1)?))),
            2 | 3 => Some(Entry::Count(count(self.take(2)?))),
            4 | 5 => Some(Entry::Count(count(self.take(4)?))),
            10 | 11 => Some(Entry::Count(count(self.take(8)?))),
            other => return Err(format!("an entry is of the unknown kind {other}")),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes what is read above.
    #[derive(Default)]
    pub struct Writer {
        entries: (u64, Vec<u8>),
        tensors: (u64, Vec<u8>),
        data: Vec<u8>,
    }

    fn text(to: &mut Vec<u8>, text: &str) {
        to.extend((text.len() as u64).to_le_bytes());
        to.extend(text.as_bytes());
    }

    impl Writer {
        pub fn entry(&mut self, name: &str, entry: &Entry) {
            let (count, to) = &mut self.entries;
            *count += 1;
            text(to, name);
            match entry {
                Entry::Count(number) => {
                    to.extend(4u32.to_le_bytes());
                    to.extend((*number as u32).to_le_bytes());
                }
                Entry::Float(number) => {
                    to.extend(6u32.to_le_bytes());
                    to.extend(number.to_le_bytes());
                }
                Entry::Text(it) => {
                    to.extend(8u32.to_le_bytes());
                    text(to, it);
                }
            }
        }

        pub fn list(&mut self, name: &str, texts: &[&str]) {
            let (count, to) = &mut self.entries;
            *count += 1;
            text(to, name);
            to.extend([9u32, 8].iter().flat_map(|kind| kind.to_le_bytes()));
            to.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|it| text(to, it));
        }

        pub fn tensor(&mut self, name: &str, (shape, kind): (&[usize], u32), numbers: &[f32]) {
            let (count, to) = &mut self.tensors;
            *count += 1;
            text(to, name);
            to.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|size| to.extend((*size as u64).to_le_bytes()));
            to.extend(kind.to_le_bytes());
            to.extend((self.data.len() as u64).to_le_bytes());
            for block in numbers.chunks(BLOCK) {
                let most = block.iter().fold(0.0, |most: f32, it| most.max(it.abs()));
                match kind {
                    0 => self.data.extend(block.iter().flat_map(|it| it.to_le_bytes())),
                    1 => {
                        let halves = block.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes());
                        self.data.extend(halves);
                    }
                    30 => {
                        let halves = block.iter().flat_map(|it| bf16::from_f32(*it).to_le_bytes());
                        self.data.extend(halves);
                    }
                    8 => {
                        let scale = f16::from_f32(most / 127.0);
                        self.data.extend(scale.to_le_bytes());
                        let packed = |it: &f32| (it / scale.to_f32()).round() as i8;
                        self.data.extend(block.iter().map(|it| packed(it).cast_unsigned()));
                    }
                    _ => {
                        let scale = f16::from_f32(most / 7.0);
                        self.data.extend(scale.to_le_bytes());
                        let packed = |it: f32| ((it / scale.to_f32()).round() + 8.0) as u8;
                        let (low, high) = block.split_at(BLOCK / 2);
                        let bytes = low.iter().zip(high);
                        self.data
                            .extend(bytes.map(|(low, high)| packed(*low) | packed(*high) << 4));
                    }
                }
            }
            let whole = self.data.len().next_multiple_of(ALIGNMENT as usize);
            self.data.resize(whole, 0);
        }

        pub fn bytes(self) -> Vec<u8> {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3u32.to_le_bytes());
            bytes.extend(self.tensors.0.to_le_bytes());
            bytes.extend(self.entries.0.to_le_bytes());
            bytes.extend(self.entries.1);
            bytes.extend(self.tensors.1);
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
            bytes.extend(self.data);
            bytes
        }
    }

    fn file(kind: u32) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.entry("a.count", &Entry::Count(7));
        writer.list("a.list", &["x", "yz"]);
        writer.entry("a.text", &Entry::Text("said".to_owned()));
        let numbers: Vec<f32> = (0..64).map(|at| at as f32 / 8.0 - 3.5).collect();
        writer.tensor("first", (&[2, 32], 0), &numbers);
        writer.tensor("second", (&[2, 32], kind), &numbers);
        writer.bytes()
    }

    #[test]
    fn what_was_written_is_read_in_every_kind() {
        for (kind, within) in [(0, 0.0), (1, 0.0), (30, 0.02), (8, 0.03), (2, 0.4)] {
            let read = Gguf::read(file(kind)).expect("it is whole");
            assert_eq!(read.entry("a.count"), Some(&Entry::Count(7)));
            assert_eq!(read.entry("a.text"), Some(&Entry::Text("said".to_owned())));
            assert_eq!(read.entry("a.list"), None);
            assert_eq!(read.shape("second"), Some(&[2, 32][..]));
            let [first, second] =
                ["first", "second"].map(|name| read.numbers(name).expect("it is whole"));
            let away = first.iter().zip(&second).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(first[0] == -3.5 && second.len() == 64 && away <= within, "{kind}: {away}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_is_an_error_or_a_file() {
        let whole = file(8);
        let read = |bytes: &[u8]| {
            let read = Gguf::read(bytes.to_vec())?;
            for name in ["first", "second"] {
                read.numbers(name)?;
            }
            Ok::<_, String>(())
        };
        assert_eq!(read(&whole), Ok(()));
        for length in 0..whole.len() {
            // What is behind the last number only fills up.
            assert!(read(&whole[..length]).is_err() || length + 32 > whole.len(), "{length}");
        }
        for at in 0..whole.len().min(400) {
            for with in [0, 1, 9, 127, 255] {
                let mut changed = whole.clone();
                changed[at] = with;
                // It may be one all the same; it does not panic.
                let _ = read(&changed);
            }
        }
        let error = |bytes: &[u8]| read(bytes).expect_err("it is broken");
        assert_eq!(error(b"GGML"), "it is no GGUF file");
        assert_eq!(error(&whole[..30]), "it ends in the middle");
        let mut other = whole.clone();
        other[4] = 1;
        assert_eq!(error(&other), "it is GGUF of version 1: 2 and 3 are read");
        let error = read(&file(12)).expect_err("kind 12 is not read");
        assert!(error.contains("tensor `second` is of ggml's kind 12"), "{error}");
    }
}
