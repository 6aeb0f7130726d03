//! `[run]`.

use plimsoll_base::{Attribution, Span};
use plimsoll_config::{Code, Diagnostic};
use plimsoll_sim::model::{RunPlan, Stepping};

use crate::spec::{AttributionSpec, RunSpec, SteppingSpec};

const DRAIN_MAX_DEFAULT: Span = Span::from_secs(3_600);

/// How long the run lasts.
pub(crate) fn plan(spec: &RunSpec, found: &mut Vec<Diagnostic>) -> RunPlan {
    let duration = spec.duration.map(|at| at.value.0);
    if let Some(at) = spec.duration.filter(|at| at.value.0 == Span::ZERO) {
        found.push(
            Diagnostic::new(Code::Range, Some(at.place), "a run of no length shows nothing")
                .help("write for example `duration = \"30m\"`"),
        );
    }
    if let (Some(warm_up), Some(duration)) = (spec.warm_up, duration)
        && warm_up.value.0 >= duration
        && duration > Span::ZERO
    {
        let message =
            format!("the warm-up of {} leaves nothing of the run's {duration}", warm_up.value.0);
        found.push(
            Diagnostic::new(Code::WarmUp, Some(warm_up.place), message)
                .label("must be shorter than `duration`")
                .help("write a shorter `warm_up` or a longer `duration`"),
        );
    }
    RunPlan {
        duration,
        warm_up: spec.warm_up.map_or(Span::ZERO, |at| at.value.0),
        drain_max: spec.drain_max.map_or(DRAIN_MAX_DEFAULT, |drain| drain.0),
        stepping: match spec.stepping {
            None | Some(SteppingSpec::Macro) => Stepping::Macro,
            Some(SteppingSpec::Single) => Stepping::Single,
        },
        attribution: match spec.attribution {
            None | Some(AttributionSpec::On) => Attribution::On,
            Some(AttributionSpec::Off) => Attribution::Off,
        },
    }
}
