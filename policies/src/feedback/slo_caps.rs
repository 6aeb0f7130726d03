//! Caps driven by an objective: lesser classes give way while an important one misses its
//! deadline.
//!
//! **What it does.** For the class with the objective, each request's time from arrival to first
//! token is compared with the class's `deadline`; a request that expires in the queue has missed
//! it. After every `window` results the rule acts once: if more than `misses_max` of them were
//! misses, the cap of concurrent requests of each lesser class falls by `step`, else it rises by
//! `step`. It never falls below `min` nor rises above the `requests_max` the class states. What a
//! lowered cap stops says so (`adaptive`).
//!
//! **Source.** Feedback control of batch work by the latency of interactive work, as in Heracles
//! (Lo et al., ISCA 2015), reduced to a step up and a step down.
//!
//! **Never twice on one gauge.** After an action only requests count that arrived after it, so
//! each verdict is about the caps in force. The price is delay: a reaction takes `window`
//! requests of the class, and what was there when the cap fell runs on.
//!
//! **Promise.** `min ≤ cap ≤ requests_max`, and between two actions lie `window` results of requests
//! that saw the caps in force.
//!
//! **How it fails.** Where lesser work is not the cause (the class alone is too much, or its
//! prompts take longer than the deadline) caps go to `min` and nothing is gained. Without traffic
//! of the class nothing is learned, and caps stay where they are. A class whose requests never
//! get a first token and never expire is not seen to miss: give it a `time_to_live`.

use plimsoll_base::{ClassId, Span, Time};

use crate::caps::Caps;
use crate::class_set::ClassSet;
use crate::config::{Class, SloCaps as Rule};

/// Millionths of a whole.
const WHOLE: u64 = 1_000_000;

/// The verdicts so far, and where the caps stand.
#[derive(Debug)]
pub(crate) struct SloCaps {
    class: ClassId,
    deadline: Span,
    window: u32,
    misses_max_ppm: u32,
    step: u32,
    min: u32,
    lesser: ClassSet,
    /// Indexed by class: its cap as stated, and now.
    stated: Vec<u32>,
    caps: Vec<u32>,
    results: u32,
    misses: u32,
    /// When the caps were last moved.
    acted: Option<Time>,
}

impl SloCaps {
    pub fn new(rule: &Rule, classes: &[Class]) -> SloCaps {
        let stated: Vec<u32> =
            classes.iter().map(|class| class.requests_max.unwrap_or(u32::MAX)).collect();
        SloCaps {
            class: rule.class,
            deadline: classes[rule.class.index()].deadline.unwrap_or(Span::MAX),
            window: rule.window,
            misses_max_ppm: rule.misses_max_ppm,
            step: rule.step,
            min: rule.min,
            lesser: rule.lesser.iter().copied().collect(),
            caps: stated.clone(),
            stated,
            results: 0,
            misses: 0,
            acted: None,
        }
    }

    /// The first token of a request of the class that arrived then was delivered.
    pub fn first_token(&mut self, now: Time, class: ClassId, arrived: Time, caps: &mut Caps) {
        let is_late = now.saturating_since(arrived) > self.deadline;
        self.count((now, class, arrived), u32::from(is_late), caps);
    }

    /// A request of the class that arrived then expired in the queue.
    pub fn expired(&mut self, now: Time, class: ClassId, arrived: Time, caps: &mut Caps) {
        self.count((now, class, arrived), 1, caps);
    }

    fn count(&mut self, (now, class, arrived): (Time, ClassId, Time), miss: u32, caps: &mut Caps) {
        if class != self.class || self.acted.is_some_and(|acted| arrived <= acted) {
            return;
        }
        self.results += 1;
        self.misses += miss;
        if self.results < self.window {
            return;
        }
        let (results, misses) = (u64::from(self.results), u64::from(self.misses));
        let is_missed = misses * WHOLE > results * u64::from(self.misses_max_ppm);
        (self.results, self.misses) = (0, 0);
        for lesser in self.lesser {
            let (cap, stated) = (self.caps[lesser.index()], self.stated[lesser.index()]);
            let moved = match is_missed {
                true => cap.saturating_sub(self.step).max(self.min),
                false => cap.saturating_add(self.step).min(stated),
            };
            if moved != cap {
                self.caps[lesser.index()] = moved;
                self.acted = Some(now);
                caps.adapt(lesser, moved);
            }
        }
    }
}
