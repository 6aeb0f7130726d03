//! `trace = { … }` of a workload.

use plimsoll_base::{Names, SourceId, Span};
use plimsoll_config::policy::find;
use plimsoll_config::{Code, Diagnostic, Sources};
use plimsoll_sim::workload::Workload;

use super::workload::{class_id, tenant_id};
use crate::scenario::resolve;
use crate::spec::{AssignSpec, DropSpec, FormatSpec, WorkloadSpec};
use crate::trace::{Assign, Format, Limit, Trace};

/// What a trace needs to know of the rest of the file.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// The names behind the ids.
    pub names: &'a Names,
    /// The longest request that some pool holds.
    pub limit: Limit,
    /// The texts that paths are relative to.
    pub sources: &'a Sources,
}

/// What a workload replays; `None` if it generates.
pub(crate) fn trace(
    spec: &WorkloadSpec,
    workload: &Workload,
    around: Around<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Trace> {
    let Around { names, limit, sources } = around;
    let trace = &spec.trace.as_ref()?.value;
    let rate_scale = trace.rate_scale.map_or(1.0, |scale| scale.value);
    if let Some(scale) = trace.rate_scale
        && !(scale.value >= 1e-3 && scale.value <= 1e6)
    {
        let message = format!("`rate_scale` {} is not from 0.001 to 1000000", scale.value);
        found.push(
            Diagnostic::new(Code::Rate, Some(scale.place), message)
                .help("write 1.0 for the trace's own speed, 2.0 for twice as fast"),
        );
    }
    let from = trace.from.map_or(Span::ZERO, |from| from.value.0);
    if let Some(until) = trace.until.filter(|until| until.value.0 <= from) {
        found.push(
            Diagnostic::new(Code::Range, Some(until.place), "`until` is not after `from`")
                .help("write a later `until`, or leave it out"),
        );
    }
    let path = resolve(&trace.path, sources);
    if let Err(error) = std::fs::metadata(&path) {
        let reason = plimsoll_config::reason(&error);
        let message = format!("cannot read `{}`: {reason}", path.display());
        found.push(
            Diagnostic::new(Code::TraceUnreadable, Some(trace.path.place), message)
                .help("give the path of a trace file, relative to this scenario file"),
        );
    }
    let rules = trace.assign.0.iter().map(|rule| assign(rule, names, found)).collect();
    let source = names.sources.iter().position(|name| *name == spec.name.value);
    Some(Trace {
        path,
        source: SourceId(source.and_then(|index| u16::try_from(index).ok()).unwrap_or(u16::MAX)),
        format: trace.format.map(|format| match format {
            FormatSpec::AzureCsv => Format::AzureCsv,
            FormatSpec::MooncakeJsonl => Format::MooncakeJsonl,
        }),
        rate_scale,
        from,
        until: trace.until.map(|until| until.value.0),
        rows_max: trace.rows_max.map(|rows| rows.value),
        drop_zero: trace.drop.contains(&DropSpec::ZeroTokens),
        drop_too_large: trace.drop.contains(&DropSpec::TooLarge),
        assign: rules,
        tenants: workload.tenants.clone(),
        claims: workload.claims,
        output_cap: spec.output_cap.map(|cap| cap.value),
        start: workload.start,
        stop: workload.stop,
        limit,
    })
}

fn assign(rule: &AssignSpec, names: &Names, found: &mut Vec<Diagnostic>) -> Assign {
    let mut id = |name: &Option<_>, names: &[String], what: &str| {
        name.as_ref().and_then(|name| find(name, names, what, found))
    };
    Assign {
        prompt_tokens_min: rule.prompt_tokens_min,
        prompt_tokens_max: rule.prompt_tokens_max,
        share: rule.share.map(|share| share.0),
        tenant: id(&rule.tenant, &names.tenants, "tenant").map(tenant_id),
        class: id(&rule.class, &names.classes, "class").map(class_id),
    }
}
