//! A part of a sweep.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Part `number` of `of`, from 1: cells number − 1, number − 1 + of, and so on, so that parts of a
/// grid are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which, from 1.
    pub number: u32,
    /// Of how many.
    pub of: u32,
}

impl Shard {
    /// All cells.
    pub const WHOLE: Shard = Shard { number: 1, of: 1 };

    /// Whether it is all there is.
    pub fn is_whole(self) -> bool {
        self.of == 1
    }

    /// Whether a cell belongs to it.
    pub fn holds(self, cell: u64) -> bool {
        cell % u64::from(self.of) == u64::from(self.number - 1)
    }

    /// How many of `cells` belong to it.
    pub fn count(self, cells: u64) -> u64 {
        (cells + u64::from(self.of) - u64::from(self.number)) / u64::from(self.of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of {}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Shard, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| {
            Some(Shard { number: number.trim().parse().ok()?, of: of.trim().parse().ok()? })
        });
        match parsed {
            Some(shard) if (1..=shard.of).contains(&shard.number) => Ok(shard),
            Some(Shard { number, of: 0 }) => {
                Err(format!("there is no shard {number} of 0; write 1/1 for all cells"))
            }
            Some(Shard { number, of }) => {
                Err(format!("shard {number} is out of range: there are shards 1/{of} to {of}/{of}"))
            }
            None => Err(format!("`{text}` is not a shard; write 2/3 for the second of three")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_in_one_shard() {
        for cells in [0, 1, 2, 7, 12] {
            for of in 1..=5 {
                let shards = || (1..=of).map(|number| Shard { number, of });
                for cell in 0..cells {
                    assert_eq!(shards().filter(|shard| shard.holds(cell)).count(), 1);
                }
                for shard in shards() {
                    let held = (0..cells).filter(|cell| shard.holds(*cell)).count() as u64;
                    assert_eq!(held, shard.count(cells), "{shard}, {cells} cells");
                }
            }
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert_eq!("2/3".parse(), Ok(Shard { number: 2, of: 3 }));
        for bad in ["0/3", "4/3", "1/0", "0/0", "3", "a/b", "1/2/3", "-1/3", ""] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
