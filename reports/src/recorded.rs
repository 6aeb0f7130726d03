//! Reports of decision logs: what a gateway could not see, and how that is said.
//!
//! A log tells what the allocator was told and decided. The engines behind a gateway are opaque, so
//! what happens inside them is absent from the report instead of nought.

use crate::plan::Plan;
use crate::summary::{Distribution, Estimate, Numbers, RecordedSummary, Utilization};
use crate::words;

/// What a page says in place of a number.
pub(crate) const NOT_OBSERVED: &str = "not observed";
/// Beside charts of the attribution.
pub(crate) const ESTIMATED: &str = " Estimated: who holds what is what the allocator counted as \
    let in and not ended, and waiting inside engines is not seen.";
/// Beside charts of phases.
pub(crate) const PREFILL: &str = " Prefill is from the dispatch to the first token: what a request \
    waits in its engine's own queue is a part of it.";

/// What is known of a decision log of which a report is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Whether it tells first tokens.
    pub first_tokens: bool,
    /// Whether backends reported their load.
    pub loads: bool,
    /// Requests that had arrived before it began.
    pub taken_over: u64,
    /// What else its reader must know, a sentence each.
    pub notes: Vec<String>,
}

impl Recorded {
    pub(crate) fn summary(&self) -> RecordedSummary {
        RecordedSummary {
            not_observed: self.sentences(),
            attribution_is_estimated: true,
            first_tokens: self.first_tokens,
            taken_over: self.taken_over,
        }
    }

    /// What the log cannot tell, a sentence each.
    fn sentences(&self) -> Vec<String> {
        let mut told = vec![
            "Not observed, because engines are opaque to a gateway: gaps between tokens (ITL), \
             engine time and what follows from it (utilization, engine shares, lag, service gap, \
             Jain's index), preemptions and recomputed tokens, slowdown."
                .to_owned(),
            "A request counts as started when it was dispatched: what it waits in its engine's own \
             queue is a part of its prefill."
                .to_owned(),
            "Estimated: who held what others waited for, by what the allocator counted as let in \
             and not ended."
                .to_owned(),
        ];
        told.push(match self.first_tokens {
            true => "A request of which the log tells no first token was not streamed: its first \
                     token counts at its end, and it has no TPOT."
                .to_owned(),
            false => {
                "The log tells no first tokens: TTFT and TPOT are not observed, objectives on \
                      them are undecided, and good means within the other limits."
                    .to_owned()
            }
        });
        if !self.loads {
            told.push("No backend reported its load: KV memory is not observed.".to_owned());
        }
        if self.taken_over > 0 {
            told.push(format!(
                "{} requests had arrived before the log began: they are counted as offered and not \
                 measured.",
                words::count(self.taken_over)
            ));
        }
        told.extend(self.notes.iter().cloned());
        told
    }
}

/// The numbers without those that the facts of the plan do not tell.
pub(crate) fn known(plan: &Plan, mut numbers: Numbers) -> Numbers {
    if !plan.sees_engines() {
        let latency = &mut numbers.latency;
        (latency.itl, latency.itl_max) = (Distribution::default(), Distribution::default());
        latency.preempted_time = Distribution::default();
        numbers.slowdown = Distribution::default();
        numbers.preemption_waste = Estimate::default();
        (numbers.preemptions, numbers.recomputed_tokens) = (None, None);
        numbers.preemptions_max = None;
    }
    if !plan.sees_first_tokens() {
        let latency = &mut numbers.latency;
        (latency.ttft, latency.ttft_service) = (Distribution::default(), Distribution::default());
        latency.tpot = Distribution::default();
        (latency.prefill_time, latency.decode_time) = Default::default();
    }
    numbers
}

/// The use of the hardware without what the facts of the plan do not tell.
pub(crate) fn known_use(plan: &Plan, used: Utilization) -> Utilization {
    let kv_occupancy = used.kv_occupancy;
    if plan.sees_engines() { used } else { Utilization { kv_occupancy, ..Utilization::default() } }
}
