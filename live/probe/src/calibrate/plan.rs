//! What to measure.

use std::fmt;
use std::time::Duration;

/// Prompt lengths that are tried, in tokens. None is a multiple of 16: kernels compute tokens in blocks,
/// and what most prompts leave over costs more (llama.cpp takes 15 % longer for 70 than for 64).
const PROMPTS: [u32; 9] = [19, 45, 119, 247, 503, 1_015, 2_039, 4_087, 8_183];
/// Sequences that decode together.
const BATCHES: [u32; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Rests behind which a prompt of [`RESTED`] tokens is tried, in ms.
const RESTS: [u64; 5] = [20, 60, 200, 1_000, 2_000];
const RESTED: u32 = 59;
/// Decode steps that a cell shows of a full batch.
pub(super) const STEPS: u32 = 25;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A prompt alone, to its first token.
    Prefill {
        /// Its length.
        prompt: u32,
    },
    /// A prompt alone, of an engine that has rested.
    Rested {
        /// Its length.
        prompt: u32,
        /// For how long.
        rest: Duration,
    },
    /// So many sequences decode, from prompts of this length.
    Decode {
        /// How many.
        sequences: u32,
        /// From where.
        prompt: u32,
    },
    /// A prompt arrives while so many sequences decode.
    Mixed {
        /// How many decode.
        sequences: u32,
        /// The length of the prompt that arrives.
        prompt: u32,
    },
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Prefill { prompt } => write!(f, "prefill of {prompt}"),
            Cell::Rested { prompt, rest } => {
                write!(f, "prefill of {prompt} behind {} ms", rest.as_millis())
            }
            Cell::Decode { sequences, prompt } => write!(f, "decode of {sequences} from {prompt}"),
            Cell::Mixed { sequences, prompt } => {
                write!(f, "prefill of {prompt} beside {sequences}")
            }
        }
    }
}

/// What is known of a device before it is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A decode step, roughly.
    pub step: Duration,
    /// A prompt token, roughly.
    pub token: Duration,
    pub seats: u32,
    pub context_max: u32,
    pub kv_tokens: Option<u64>,
    pub step_tokens_max: u32,
}

/// Cells to measure, in the order in which a round takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cells.
    pub cells: Vec<Cell>,
    /// Their places, that of the shortest first.
    pub(super) shortest_first: Vec<usize>,
}

impl Plan {
    /// The cells that the device has room for, as many of them as can be measured `rounds` times
    /// within `budget` on a device of this pace; those that take longest are left out first.
    pub(super) fn new(pace: &Pace, budget: Duration, rounds: u32) -> Plan {
        let fits = |cell: &Cell| pace.holds(cell);
        let mut cells = Vec::new();
        cells.extend(PROMPTS.map(|prompt| Cell::Prefill { prompt }).iter().filter(|c| fits(c)));
        let rested = |rest| Cell::Rested { prompt: RESTED, rest: Duration::from_millis(rest) };
        cells.extend(RESTS.map(rested).iter().filter(|c| fits(c)));
        for sequences in BATCHES {
            for prompt in [16, 128, 512, 2_048] {
                let cell = Cell::Decode { sequences, prompt };
                cells.extend(Some(cell).filter(&fits));
            }
        }
        for sequences in [2, 8, 32] {
            for prompt in [59, 247, 1_015] {
                let cell = Cell::Mixed { sequences, prompt };
                cells.extend(Some(cell).filter(&fits));
            }
        }
        let time = |cells: &[Cell]| cells.iter().map(|cell| pace.estimate(cell)).sum::<Duration>();
        while time(&cells) * rounds > budget {
            let longest = (0..cells.len()).max_by_key(|at| pace.estimate(&cells[*at]));
            cells.remove(longest.expect("no cells take no time"));
        }
        let mut shortest_first: Vec<usize> = (0..cells.len()).collect();
        shortest_first.sort_by_key(|at| pace.estimate(&cells[*at]));
        Plan { cells, shortest_first }
    }
}

impl Pace {
    /// Whether the device has room for a cell.
    fn holds(&self, cell: &Cell) -> bool {
        let (sequences, tokens) = match *cell {
            Cell::Prefill { prompt } | Cell::Rested { prompt, .. } => (1, prompt + 2),
            Cell::Decode { sequences, prompt } => {
                (sequences, prompt + self.output(sequences, prompt))
            }
            Cell::Mixed { sequences, prompt } => (sequences + 1, prompt + 2 * STEPS + sequences),
        };
        let all = u64::from(sequences) * u64::from(tokens);
        sequences <= self.seats
            && tokens <= self.context_max
            && self.kv_tokens.is_none_or(|kv| all <= kv / 10 * 9)
    }

    /// Tokens to ask of each sequence, so that the first still decodes when the last has begun.
    pub fn output(&self, sequences: u32, prompt: u32) -> u32 {
        let steps = (u64::from(sequences) * u64::from(prompt))
            .div_ceil(u64::from(self.step_tokens_max.saturating_sub(sequences).max(1)));
        STEPS + 4 + u32::try_from(steps).unwrap_or(u32::MAX / 2)
    }

    /// Roughly how long a cell takes.
    fn estimate(&self, cell: &Cell) -> Duration {
        match *cell {
            Cell::Prefill { prompt } => self.token * prompt + self.step,
            Cell::Rested { prompt, rest } => self.token * (prompt + 16) + self.step * 3 + rest,
            Cell::Decode { sequences, prompt } => {
                self.token * sequences * prompt + self.step * self.output(sequences, prompt)
            }
            Cell::Mixed { sequences, prompt } => {
                self.token * (prompt + 16 * sequences) + self.step * 2 * STEPS
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_what_fits_the_device_and_the_time() {
        let pace = Pace {
            step: Duration::from_millis(10),
            token: Duration::from_micros(100),
            seats: 16,
            context_max: 1_000,
            kv_tokens: Some(4_000),
            step_tokens_max: 512,
        };
        let cells = Plan::new(&pace, Duration::from_secs(300), 3).cells;
        assert!(cells.contains(&Cell::Prefill { prompt: 503 }));
        assert!(!cells.contains(&Cell::Prefill { prompt: 1_015 }), "beyond the context");
        assert!(cells.contains(&Cell::Decode { sequences: 16, prompt: 128 }));
        assert!(!cells.contains(&Cell::Decode { sequences: 16, prompt: 512 }), "beyond the memory");
        assert!(!cells.contains(&Cell::Decode { sequences: 32, prompt: 16 }), "beyond the seats");
        assert!(cells.contains(&Cell::Mixed { sequences: 8, prompt: 247 }));
        let hurried = Plan::new(&pace, Duration::from_secs(5), 3).cells;
        assert!(hurried.len() < cells.len() && !hurried.is_empty(), "{hurried:?}");
        assert!(hurried.contains(&Cell::Decode { sequences: 1, prompt: 16 }), "{hurried:?}");
    }
}
