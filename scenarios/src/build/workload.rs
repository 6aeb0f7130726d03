//! `[[workload]]`.

use plimsoll_base::{ClassId, ModelId, Names, StageId, TenantId, Time};
use plimsoll_config::classify::{Declared, labels_of};
use plimsoll_config::policy::find;
use plimsoll_config::spec::PolicySpec;
use plimsoll_config::{At, Code, Diagnostic, Place, RateValue};
use plimsoll_policy::config::Label;
use plimsoll_sim::workload::{Arrivals, Lengths, Marks, Think, Together, Workload};

use crate::scenario::instant;
use crate::spec::{ArrivalsSpec, LengthsSpec, PieceSpec, ThinkSpec, UsersSpec, WorkloadSpec};

/// The tenants that a workload names; its own name if it names none.
pub(crate) fn tenants(spec: &WorkloadSpec) -> Vec<At<String>> {
    let mut names: Vec<At<String>> = spec.tenant.iter().cloned().collect();
    for (name, weight) in spec.tenants.iter().flat_map(|tenants| &tenants.value) {
        names.push(At { value: name.clone(), place: weight.place });
    }
    if names.is_empty() {
        names.push(spec.name.clone());
    }
    let assigned = spec.trace.iter().flat_map(|trace| &trace.value.assign.0);
    names.extend(assigned.filter_map(|rule| rule.tenant.clone()));
    names
}

/// What a workload needs to know of the rest of the file.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The names behind the ids.
    pub names: &'a Names,
    /// The policy as written.
    pub policy: &'a PolicySpec,
    /// The labels that its rules look for.
    pub labels: &'a [Label],
}

/// One workload. Its lengths mean nothing where it replays a trace.
pub(crate) fn workload(
    at: &At<WorkloadSpec>,
    around: Around<'_>,
    found: &mut Vec<Diagnostic>,
) -> Workload {
    let (spec, names) = (&at.value, around.names);
    let (arrivals, prompt, output) = match &spec.trace {
        Some(_) => {
            no_generator_beside_trace(spec, found);
            (Arrivals::Trace, Lengths::Fixed(1), Lengths::Fixed(1))
        }
        None => (
            required(at, "arrivals", &spec.arrivals, found)
                .map_or(Arrivals::Trace, |spec| arrivals(spec, found)),
            required(at, "prompt_tokens", &spec.prompt_tokens, found)
                .map_or(Lengths::Fixed(1), |spec| lengths(spec, found)),
            required(at, "output_tokens", &spec.output_tokens, found)
                .map_or(Lengths::Fixed(1), |spec| lengths(spec, found)),
        ),
    };
    if let Some(cap) = spec.output_cap.filter(|cap| cap.value == 0) {
        found.push(
            Diagnostic::new(Code::Range, Some(cap.place), "`output_cap` must be at least 1")
                .help("write `output_cap = 1` or more, or leave it out"),
        );
    }
    let (start, stop) = window(spec, found);
    Workload {
        output_cap: spec.output_cap.map_or_else(|| output.max(), |cap| cap.value),
        arrivals,
        prompt,
        output,
        tenants: weights(spec, names, found),
        claims: spec
            .class
            .as_ref()
            .and_then(|class| find(class, &names.classes, "class", found))
            .map(class_id),
        marks: marks(spec, around, found),
        start,
        stop,
    }
}

fn marks(spec: &WorkloadSpec, around: Around<'_>, found: &mut Vec<Diagnostic>) -> Marks {
    let Around { policy, labels, .. } = around;
    let headers: Vec<_> = spec.headers.clone().into_iter().collect();
    let mut id = |name: &Option<At<String>>, declared: Declared, what: &str| {
        name.as_ref().and_then(|name| declared.find(name, what, found)).unwrap_or(0)
    };
    let model = ModelId(id(&spec.model, Declared::models(policy), "model"));
    let stage = StageId(id(&spec.stage, Declared::stages(policy), "stage"));
    let is_closed = matches!(spec.arrivals, Some(At { value: ArrivalsSpec::Closed { .. }, .. }));
    if let Some(users) = spec.users_are.filter(|_| !is_closed) {
        found.push(
            Diagnostic::new(Code::Conflict, Some(users.place), "only a closed loop has users")
                .help("remove `users_are`, or write arrivals = { process = \"closed\", … }"),
        );
    }
    let together = match spec.users_are.map(|users| users.value) {
        None | Some(UsersSpec::Sessions) if is_closed => Together::Sessions,
        Some(UsersSpec::Workflows) => Together::Workflows,
        None | Some(UsersSpec::Sessions) => Together::None,
    };
    let labels = labels_of(labels, &headers, spec.key.as_deref(), spec.service_tier.as_deref());
    Marks { model, stage, labels, attempt: spec.attempt.unwrap_or(0), together }
}

/// The id of the class with this index.
pub(crate) fn class_id(index: usize) -> ClassId {
    ClassId(u16::try_from(index).unwrap_or(u16::MAX))
}
/// The id of the tenant with this index.
pub(crate) fn tenant_id(index: usize) -> TenantId {
    TenantId(u32::try_from(index).unwrap_or(u32::MAX))
}

fn no_generator_beside_trace(spec: &WorkloadSpec, found: &mut Vec<Diagnostic>) {
    let places = [
        ("arrivals", spec.arrivals.as_ref().map(|at| at.place)),
        ("prompt_tokens", spec.prompt_tokens.as_ref().map(|at| at.place)),
        ("output_tokens", spec.output_tokens.as_ref().map(|at| at.place)),
    ];
    for (key, place) in places {
        if place.is_some() {
            let message = format!("`{key}` stands beside `trace`");
            found.push(
                Diagnostic::new(Code::Conflict, place, message)
                    .label("the trace says this")
                    .help(format!("remove `{key}` or `trace`")),
            );
        }
    }
}

fn required<'a, T>(
    at: &At<WorkloadSpec>,
    key: &str,
    value: &'a Option<At<T>>,
    found: &mut Vec<Diagnostic>,
) -> Option<&'a At<T>> {
    if value.is_none() {
        let message = format!("workload `{}` has no `{key}`", at.value.name.value);
        let example = match key {
            "arrivals" => "arrivals = { process = \"poisson\", rate = \"5/s\" }".to_owned(),
            _ => format!("{key} = {{ distribution = \"fixed\", tokens = 256 }}"),
        };
        found.push(
            Diagnostic::new(Code::Missing, Some(at.place), message)
                .label(format!("this workload needs `{key}` or `trace`"))
                .help(format!("add `{example}`")),
        );
    }
    value.as_ref()
}

fn window(spec: &WorkloadSpec, found: &mut Vec<Diagnostic>) -> (Time, Option<Time>) {
    let start = spec.start.map_or(Time::ZERO, |start| instant(start.value.0));
    let stop = spec.stop.map(|stop| instant(stop.value.0));
    if let Some(at) = spec.stop
        && stop.is_some_and(|stop| stop <= start)
    {
        found.push(
            Diagnostic::new(Code::Range, Some(at.place), "`stop` is not after `start`")
                .help("write a later `stop`, or leave it out"),
        );
    }
    (start, stop)
}

fn weights(
    spec: &WorkloadSpec,
    names: &Names,
    found: &mut Vec<Diagnostic>,
) -> Vec<(TenantId, u32)> {
    let id = |name: &str| {
        let index = names.tenants.iter().position(|tenant| tenant == name);
        tenant_id(index.expect("every tenant that a workload names is in the table"))
    };
    let Some(tenants) = &spec.tenants else {
        let name = spec.tenant.as_ref().unwrap_or(&spec.name);
        return vec![(id(&name.value), 1)];
    };
    if let Some(tenant) = &spec.tenant {
        found.push(
            Diagnostic::new(Code::Conflict, Some(tenant.place), "`tenant` stands beside `tenants`")
                .help("remove one of the two"),
        );
    }
    if tenants.value.is_empty() {
        found.push(
            Diagnostic::new(Code::Range, Some(tenants.place), "`tenants` names nobody")
                .help("write for example `tenants = { search = 3, support = 1 }`"),
        );
    }
    for (name, weight) in &tenants.value {
        if weight.value == 0 {
            let message = format!("tenant `{name}` has weight 0");
            found.push(
                Diagnostic::new(Code::Range, Some(weight.place), message)
                    .help("write a weight of at least 1, or remove the tenant"),
            );
        }
    }
    tenants.value.iter().map(|(name, weight)| (id(name), weight.value)).collect()
}

fn arrivals(at: &At<ArrivalsSpec>, found: &mut Vec<Diagnostic>) -> Arrivals {
    match &at.value {
        ArrivalsSpec::Poisson { rate } => Arrivals::Poisson { rate: positive(rate, found) },
        ArrivalsSpec::Gamma { rate, cv } => {
            if !(cv.value > 0.0 && cv.value <= 100.0) {
                let message = format!("`cv` {} is not above 0 and at most 100", cv.value);
                found.push(
                    Diagnostic::new(Code::Range, Some(cv.place), message)
                        .help("write `cv = 1.0` for Poisson, more for burstier arrivals"),
                );
            }
            Arrivals::Gamma { rate: positive(rate, found), cv: cv.value }
        }
        ArrivalsSpec::Piecewise { pieces, repeat } => {
            piecewise(&pieces.0, *repeat, at.place, found)
        }
        ArrivalsSpec::Closed { users, think, think_distribution } => {
            if users.value == 0 {
                found.push(
                    Diagnostic::new(Code::Range, Some(users.place), "nobody asks: `users` is 0")
                        .help("write `users = 1` or more"),
                );
            }
            let think = match think_distribution {
                None | Some(ThinkSpec::Exponential) => Think::Exponential(think.value.0),
                Some(ThinkSpec::Fixed) => Think::Fixed(think.value.0),
            };
            Arrivals::Closed { users: users.value, think }
        }
    }
}

fn piecewise(
    pieces: &[PieceSpec],
    repeat: bool,
    place: Place,
    found: &mut Vec<Diagnostic>,
) -> Arrivals {
    for piece in pieces {
        if piece.rate.value.0 < 0.0 {
            found.push(negative(&piece.rate));
        }
        if piece.length.value.0 == plimsoll_base::Span::ZERO {
            found.push(
                Diagnostic::new(Code::Range, Some(piece.length.place), "a piece has no length")
                    .help("write for example `for = \"10m\"`"),
            );
        }
    }
    if !pieces.iter().any(|piece| piece.rate.value.0 != 0.0) {
        found.push(
            Diagnostic::new(Code::Rate, Some(place), "no piece has a rate above 0")
                .help("write for example `pieces = [{ for = \"10m\", rate = \"3/s\" }]`"),
        );
    }
    let pieces = pieces.iter().map(|piece| (piece.length.value.0, piece.rate.value.0)).collect();
    Arrivals::Piecewise { pieces, repeat }
}

fn positive(rate: &At<RateValue>, found: &mut Vec<Diagnostic>) -> f64 {
    let per_second = rate.value.0;
    if per_second < 0.0 {
        found.push(negative(rate));
    } else if per_second == 0.0 {
        found.push(
            Diagnostic::new(Code::Rate, Some(rate.place), "a rate of 0 offers nothing")
                .help("write a rate above 0, for example \"5/s\", or remove the workload"),
        );
    }
    per_second
}

fn negative(rate: &At<RateValue>) -> Diagnostic {
    Diagnostic::new(Code::Rate, Some(rate.place), "a rate cannot be negative")
        .help("write a rate above 0, for example \"5/s\"")
}

fn lengths(at: &At<LengthsSpec>, found: &mut Vec<Diagnostic>) -> Lengths {
    let mut wrong = |place: Place, message: String, help: &str| {
        found.push(Diagnostic::new(Code::Lengths, Some(place), message).help(help));
    };
    match &at.value {
        LengthsSpec::Fixed { tokens } => {
            if tokens.value == 0 {
                wrong(tokens.place, "a length of 0 tokens".into(), "write `tokens = 1` or more");
            }
            Lengths::Fixed(tokens.value)
        }
        LengthsSpec::Uniform { min, max } => {
            if min.value == 0 {
                wrong(min.place, "a length of 0 tokens".into(), "write `min = 1` or more");
            }
            if min.value > max.value {
                let message = format!("`min` {} is above `max` {}", min.value, max.value);
                wrong(min.place, message, "write `min` not above `max`");
            }
            Lengths::Uniform { min: min.value, max: max.value }
        }
        LengthsSpec::Lognormal { mean, mu, sigma, max } => {
            if !(0.0..=10.0).contains(&sigma.value) {
                let message = format!("`sigma` {} is not from 0 to 10", sigma.value);
                wrong(sigma.place, message, "write for example `sigma = 0.98`");
            }
            if max.value == 0 {
                wrong(max.place, "a length of 0 tokens".into(), "write `max = 1` or more");
            }
            Lengths::Lognormal {
                mu: log_mean(at.place, *mean, *mu, sigma.value, found),
                sigma: sigma.value,
                max: max.value,
            }
        }
        LengthsSpec::Quantiles { points } => {
            quantiles(points, found);
            Lengths::Quantiles(points.value.clone())
        }
    }
}

/// The mean of the logarithm, from itself or from the mean: ln(mean) - sigma²/2.
fn log_mean(
    place: Place,
    mean: Option<At<f64>>,
    mu: Option<At<f64>>,
    sigma: f64,
    found: &mut Vec<Diagnostic>,
) -> f64 {
    match (mean, mu) {
        (None, Some(mu)) => mu.value,
        (Some(mean), None) if mean.value > 0.0 => {
            plimsoll_base::math::ln(mean.value) - sigma * sigma / 2.0
        }
        (Some(mean), None) => {
            let message = format!("a mean of {} tokens", mean.value);
            found.push(
                Diagnostic::new(Code::Lengths, Some(mean.place), message)
                    .help("write a mean above 0, for example `mean = 1150`"),
            );
            0.0
        }
        (Some(_), Some(_)) | (None, None) => {
            found.push(
                Diagnostic::new(Code::Conflict, Some(place), "the centre is not stated once")
                    .label("`mean` or `mu`")
                    .help("write one of `mean = 1150` (tokens) or `mu = 6.63` (of the logarithm)"),
            );
            0.0
        }
    }
}

fn quantiles(points: &At<Vec<(f64, u32)>>, found: &mut Vec<Diagnostic>) {
    let list = &points.value;
    let rising = list.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
    let spans = list.first().is_some_and(|first| first.0 == 0.0 && first.1 > 0)
        && list.last().is_some_and(|last| last.0 == 1.0);
    if !rising || !spans || list.len() < 2 {
        found.push(
            Diagnostic::new(
                Code::Lengths,
                Some(points.place),
                "the quantiles contradict each other",
            )
            .label("probabilities rise from 0 to 1, tokens do not fall and start at 1 or more")
            .help("write for example `points = [[0.0, 10], [0.5, 120], [1.0, 4096]]`"),
        );
    }
}
