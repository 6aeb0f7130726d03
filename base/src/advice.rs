//! Advice: what an allocator would have others do.

use crate::PoolId;

/// How many backends a pool should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    /// Which pool.
    pub pool: PoolId,
    /// How many it has.
    pub present: u32,
    /// How many it should have.
    pub wanted: u32,
    /// What there is to do in parts of what they hold, in millionths: above a whole, some wait.
    pub load_ppm: u32,
}
