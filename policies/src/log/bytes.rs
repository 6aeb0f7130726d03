//! Numbers as bytes: little-endian base 128, seven bits a byte, the last byte below 128.

use std::fmt;

/// Why bytes mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end within this.
    Ends(&'static str),
    /// A number that does not fit this.
    TooLarge(&'static str),
    /// A code that no kind of this has.
    Unknown(&'static str, u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Ends(what) => write!(f, "the block ends within {what}"),
            Malformed::TooLarge(what) => write!(f, "{what} is too large a number"),
            Malformed::Unknown(what, code) => write!(f, "no {what} has the code {code}"),
        }
    }
}

/// Appends a number.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the way from `base` to `number`, short in both directions.
#[inline]
pub(super) fn put_way(out: &mut Vec<u8>, base: u64, number: u64) {
    put(out, zigzag(number.wrapping_sub(base) as i64));
}

/// Small numbers of either sign as small numbers without one.
pub(super) fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn zagzig(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Bytes on their way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed::Ends(what))?;
        self.at += 1;
        Ok(byte)
    }

    pub fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let digit = u64::from(byte & 127);
            if digit << shift >> shift != digit {
                return Err(Malformed::TooLarge(what));
            }
            number |= digit << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(Malformed::TooLarge(what))
    }

    /// A number of a narrower type.
    pub fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Malformed> {
        T::try_from(self.number(what)?).map_err(|_| Malformed::TooLarge(what))
    }

    pub fn signed(&mut self, what: &'static str) -> Result<i32, Malformed> {
        i32::try_from(zagzig(self.number(what)?)).map_err(|_| Malformed::TooLarge(what))
    }

    /// The number so far from `base`.
    pub fn way(&mut self, base: u64, what: &'static str) -> Result<u64, Malformed> {
        Ok(base.wrapping_add(zagzig(self.number(what)?) as u64))
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk());
        self.at += N;
        taken.copied().ok_or(Malformed::Ends(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_return() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, number);
            put_way(&mut out, 77, number);
            put(&mut out, zigzag(i64::from(number as i32)));
            let mut cursor = Cursor::new(&out, 0);
            assert_eq!(cursor.number("a"), Ok(number));
            assert_eq!(cursor.way(77, "b"), Ok(number));
            assert_eq!(cursor.signed("c"), Ok(number as i32));
            assert_eq!(cursor.byte("d"), Err(Malformed::Ends("d")));
        }
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_refused() {
        let check = |bytes: &[u8]| {
            assert_eq!(Cursor::new(bytes, 0).number("n"), Err(Malformed::TooLarge("n")));
        };
        check(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]);
        check(&[255; 11]);
    }
}
