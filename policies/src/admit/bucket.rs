//! Token bucket: a rate limit that counts a request before it runs.
//!
//! **What it does.** A bucket holds at most `burst` units (requests, or prompt + output tokens) and
//! is filled at `rate`. A request that arrives takes what it is *predicted* to need out of the
//! bucket of its class, of its tenant, or of all, and is refused (`rate_limited`) if so much is
//! not there. When it ends the prediction is replaced by what it used: too much comes back, too
//! little becomes debt, and a bucket in debt admits nothing until the rate has paid it. A request
//! that never ran gives everything back. `Retry-After` is the instant at which the bucket will
//! hold enough, if nobody else comes in between.
//!
//! **Source.** The leaky bucket as a meter (ITU-T I.371 / RFC 2697's token buckets), with the
//! reserve-then-settle of quota systems for work of unknown size.
//!
//! **Promise.** In any interval of length T at most `burst + rate · T` is admitted, counted as
//! predicted, less what was given back in that interval. All arithmetic is exact: a bucket is an
//! integer of 10⁻¹⁵ units (millionths of a unit a second times nanoseconds), so no rounding
//! drifts.
//!
//! **How it fails.** A limiter that only counts tokens when a request ends lets a burst of
//! requests in while nothing is booked: each sees a full bucket (the test
//! `without_reservation_a_burst_overruns` shows it). This one errs to the other side: predictions
//! above what is used hold back capacity until the requests end. A request larger than `burst`
//! can never come in; it is refused as `infeasible`, so that nobody comes back for it. A rate
//! says nothing of how full the backends are: it refuses while they idle, and lets in while they
//! drown.
//!
//! Tenants numbered from [`TENANTS_MAX`] on have no bucket and are refused.

use plimsoll_base::{Reason, Refusal, Span, Time};

use super::{Candidate, Objection, RETRY_MIN, named};
use crate::class_set::ClassSet;
use crate::config::{BucketPer, BucketUnit, TokenBucket};

/// Tenants with a bucket at most.
pub(crate) const TENANTS_MAX: usize = 1 << 20;

/// A unit in the integers that a bucket counts: millionths of a unit a second · nanoseconds.
const UNIT: i128 = 1_000_000 * 1_000_000_000;

/// The buckets of one rule.
#[derive(Debug)]
pub(crate) struct Buckets {
    unit: BucketUnit,
    per: BucketPer,
    /// What a nanosecond adds to a bucket.
    rate: i128,
    /// What a bucket holds when full.
    full: i128,
    classes: ClassSet,
    /// Indexed by class or tenant, or the one for all. A bucket that is not there yet is full.
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Negative is debt.
    level: i128,
    /// When that was its level.
    as_of: Time,
}

impl Buckets {
    pub fn new(rule: &TokenBucket, classes: usize) -> Buckets {
        Buckets {
            unit: rule.unit,
            per: rule.per,
            rate: rule.rate_micros.into(),
            full: i128::from(rule.burst) * UNIT,
            classes: named(&rule.classes, classes),
            buckets: Vec::new(),
        }
    }

    /// Takes what the request is predicted to need, if it is there.
    pub fn reserve(&mut self, now: Time, who: Candidate) -> Result<(), Objection> {
        if !self.classes.contains(who.class) {
            return Ok(());
        }
        let (need, full, rate) = (self.units(who.tokens), self.full, self.rate);
        let refused = |refusal, retry_after| {
            Err(Objection { refusal, reason: Reason::RateLimit, retry_after })
        };
        if need > full {
            return refused(Refusal::Infeasible, Span::ZERO);
        }
        let Some(bucket) = self.bucket(now, who) else {
            return refused(Refusal::RateLimited, RETRY_MIN);
        };
        if bucket.level < need {
            let missing = need - bucket.level;
            let nanos = u64::try_from((missing + rate - 1) / rate).unwrap_or(u64::MAX);
            return refused(Refusal::RateLimited, Span::from_nanos(nanos));
        }
        bucket.level -= need;
        Ok(())
    }

    /// Takes what the request needs, as far as it is there.
    pub fn hold(&mut self, now: Time, who: Candidate) {
        let need = self.units(who.tokens);
        if self.classes.contains(who.class)
            && let Some(bucket) = self.bucket(now, who)
        {
            bucket.level = bucket.level.saturating_sub(need);
        }
    }

    /// What was reserved for the request was not needed.
    pub fn give_back(&mut self, now: Time, who: Candidate) {
        let reserved = self.units(who.tokens);
        self.add(now, who, reserved);
    }

    /// Replaces what was reserved by what was used.
    pub fn settle(&mut self, now: Time, who: Candidate, used_tokens: u64) {
        let difference = self.units(who.tokens) - self.units(used_tokens);
        if difference != 0 {
            self.add(now, who, difference);
        }
    }

    fn add(&mut self, now: Time, who: Candidate, units: i128) {
        let full = self.full;
        if self.classes.contains(who.class)
            && let Some(bucket) = self.bucket(now, who)
        {
            bucket.level = bucket.level.saturating_add(units).min(full);
        }
    }

    fn units(&self, tokens: u64) -> i128 {
        match self.unit {
            BucketUnit::Requests => UNIT,
            BucketUnit::Tokens => i128::from(tokens) * UNIT,
        }
    }

    /// The bucket that counts the request, filled up to `now`.
    fn bucket(&mut self, now: Time, who: Candidate) -> Option<&mut Bucket> {
        let at = match self.per {
            BucketPer::All => 0,
            BucketPer::Class => who.class.index(),
            BucketPer::Tenant => who.tenant.index(),
        };
        if at >= TENANTS_MAX {
            return None;
        }
        if at >= self.buckets.len() {
            self.buckets.resize(at + 1, Bucket { level: self.full, as_of: now });
        }
        let (rate, full) = (self.rate, self.full);
        let bucket = &mut self.buckets[at];
        let flowed = i128::from(now.saturating_since(bucket.as_of).nanos()).saturating_mul(rate);
        *bucket = Bucket { level: bucket.level.saturating_add(flowed).min(full), as_of: now };
        Some(bucket)
    }
}
