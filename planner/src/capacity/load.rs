//! More of the same load, or less.

use plimsoll_scenario::Scenario;
use plimsoll_sim::workload::Arrivals;

/// The scenario with its load times `factor`: rates of open loops and traces, users of closed
/// loops, rounded to whole ones and at least one.
pub(crate) fn scaled(mut scenario: Scenario, factor: f64) -> Scenario {
    if factor == 1.0 {
        return scenario;
    }
    for workload in &mut scenario.model.workloads {
        match &mut workload.arrivals {
            Arrivals::Poisson { rate } | Arrivals::Gamma { rate, .. } => *rate *= factor,
            Arrivals::Piecewise { pieces, .. } => {
                pieces.iter_mut().for_each(|(_, rate)| *rate *= factor);
            }
            Arrivals::Closed { users, .. } => {
                *users = (f64::from(*users) * factor).round().clamp(1.0, 1e9) as u32;
            }
            // The trace itself is below.
            Arrivals::Trace => {}
        }
    }
    for trace in scenario.traces.iter_mut().flatten() {
        trace.rate_scale *= factor;
    }
    scenario
}
