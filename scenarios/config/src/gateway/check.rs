//! What must hold between the parts of a gateway file.

use plimsoll_base::{ClassId, ModelId, Span};
use plimsoll_policy::config::{Becomes, Dedicated, Partition};
use plimsoll_policy::{Allocator, BackendInfo, Config};

use super::GatewayFile;
use super::backends::{SCRAPE_LEAST, pace};
use super::spec::GatewayFileSpec;
use crate::admit::{AdmitSpec, PredictSpec};
use crate::feedback::FeedbackSpec;
use crate::signals::cache_readers;
use crate::{Code, Diagnostic, Place};

/// All checks over the whole; sets how often metrics are read.
pub(super) fn check(spec: &GatewayFileSpec, file: &mut GatewayFile, found: &mut Vec<Diagnostic>) {
    let needed = Allocator::new(file.config.clone()).ok().and_then(|one| one.needs().reports);
    signals(spec, file, needed, found);
    let written = spec.backend.0.iter().map(|spec| spec.value.scrape_every);
    for (backend, written) in file.backends.iter_mut().zip(written) {
        pace(backend, written, needed, found);
    }
    served(spec, file, found);
    reachable(spec, file, found);
    classified(spec, file, found);
}

/// Rules that read what nobody tells a gateway.
fn signals(
    spec: &GatewayFileSpec,
    file: &GatewayFile,
    needed: Option<Span>,
    found: &mut Vec<Diagnostic>,
) {
    for (rule, place) in cache_readers(&spec.policy) {
        let message =
            format!("`{rule}` needs to know what is cached, and no backend tells a gateway");
        found.push(
            Diagnostic::new(Code::NoSignal, Some(place), message)
                .label("nobody says which prompts are cached where")
                .help("choose a rule that does not look at caches, such as `session-affinity`"),
        );
    }
    if let Some(PredictSpec::NoisyOracle { error }) = &spec.policy.value.predict {
        let message = "`noisy-oracle` needs to know how long outputs will be, and nobody does";
        found.push(
            Diagnostic::new(Code::NoSignal, Some(error.place), message)
                .label("only a simulation knows the true length")
                .help("write `predict = { rule = \"class-quantile\" }`"),
        );
    }
    let Some(needed) = needed else { return };
    if needed < SCRAPE_LEAST {
        for (rule, place) in report_readers(spec) {
            let message = format!("`{rule}` needs the metrics of backends every {needed}");
            found.push(
                Diagnostic::new(Code::NoSignal, Some(place), message)
                    .label(format!("they are read every {SCRAPE_LEAST} at most"))
                    .help("let reports be older, for example `stale_after = \"1s\"`"),
            );
        }
    }
    if file.backends.iter().all(|backend| backend.metrics.is_none()) {
        for (rule, place) in report_readers(spec) {
            let message = format!("`{rule}` reads the metrics of backends, and none has any");
            found.push(
                Diagnostic::new(Code::NoSignal, Some(place), message)
                    .label("it would never hear how full they are")
                    .help("give the backends their `kind` or a path of `metrics`"),
            );
        }
    }
}

/// The rules that read load reports, and where they stand.
fn report_readers(spec: &GatewayFileSpec) -> impl Iterator<Item = (&'static str, Place)> {
    let policy = &spec.policy.value;
    let admit = policy.admit.iter().flat_map(|rules| &rules.value.0);
    let admit = admit.filter_map(|rule| match &rule.value {
        AdmitSpec::SaturationGate { .. } => Some(("saturation-gate", rule.place)),
        _ => None,
    });
    let feedback = policy.feedback.iter().flat_map(|rules| &rules.value.0);
    let feedback = feedback.filter_map(|rule| match &rule.value {
        FeedbackSpec::AdaptiveConcurrency { .. } => Some(("adaptive-concurrency", rule.place)),
        FeedbackSpec::Autoscale { .. } => Some(("autoscale", rule.place)),
        _ => None,
    });
    admit.chain(feedback)
}

/// Some backend serves each model of the policy.
fn served(spec: &GatewayFileSpec, file: &GatewayFile, found: &mut Vec<Diagnostic>) {
    // The resources come last.
    let own = file.config.models.len() - file.resources.len();
    let named = spec.policy.value.models.iter().flat_map(|names| &names.0).take(own);
    for (id, name) in (0..).map(ModelId).zip(named) {
        if file.backends.iter().any(|backend| backend.serves(id)) {
            continue;
        }
        let message = format!("no backend serves the model `{}`", name.value);
        found.push(
            Diagnostic::new(Code::Conflict, Some(name.place), message)
                .label("whoever asks for it could never be served")
                .help(format!("add \"{}\" to the `models` of a backend", name.value)),
        );
    }
}

/// Each class may go somewhere.
fn reachable(spec: &GatewayFileSpec, file: &GatewayFile, found: &mut Vec<Diagnostic>) {
    let infos = || {
        let backends = file.backends.iter().map(|backend| &backend.info);
        backends.chain(file.resources.iter().map(|resource| &resource.info))
    };
    for (index, written) in spec.class.0.iter().enumerate() {
        let class = ClassId(u16::try_from(index).unwrap_or(u16::MAX));
        if infos().any(|info| may_use(&file.config, class, info)) {
            continue;
        }
        let place = written.sites.as_ref().map_or(written.name.place, |sites| sites.place);
        let message = format!("no backend takes the class `{}`", written.name.value);
        found.push(
            Diagnostic::new(Code::Conflict, Some(place), message)
                .label("its requests could never be served")
                .help("put a backend at one of its sites and into a pool that it may use"),
        );
    }
}

fn may_use(config: &Config, class: ClassId, info: &BackendInfo) -> bool {
    let sites = config.classes[class.index()].sites;
    let here = sites == 0 || sites.checked_shr(info.site.0.into()).unwrap_or(0) & 1 == 1;
    let rules = || {
        config.partition.iter().filter_map(|rule| match rule {
            Partition::Dedicated(rule) => Some(rule),
            Partition::HeavyLane { .. } | Partition::Quota(_) | Partition::Concurrency(_) => None,
        })
    };
    let takes = |rule: &Dedicated| rule.pools.contains(&info.pool);
    let mut own = rules().filter(|rule| rule.class == class).peekable();
    let dedicated = own.peek().is_some();
    let open = match dedicated {
        true => own.any(takes),
        false => !rules().any(|rule| rule.exclusive && takes(rule)),
    };
    here && open
}

/// Some request gets a class: one that claims it with a trusted key, or one by a rule.
fn classified(spec: &GatewayFileSpec, file: &GatewayFile, found: &mut Vec<Diagnostic>) {
    let may_claim = file.keys.iter().any(|key| key.trusted);
    let without_claim = file
        .config
        .classify
        .iter()
        .any(|rule| rule.claims.is_none() && matches!(rule.class, Becomes::Class(_)));
    let Some(first) = spec.class.0.first().filter(|_| !may_claim && !without_claim) else {
        return;
    };
    let rules = spec.policy.value.classify.as_ref();
    let place = rules.map_or(first.name.place, |rules| rules.place);
    let name = &first.name.value;
    found.push(
        Diagnostic::new(Code::Unclassified, Some(place), "no request can ever get a class")
            .label("only claims count here, and no key is `trusted` to claim a class")
            .help(format!(
                "write a rule that needs no claim: `classify = [{{ rule = \"match\", class = \
                 \"{name}\" }}]` in [policy], or a [[key]] with `trusted = true`"
            )),
    );
}
