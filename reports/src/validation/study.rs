//! A validation as people read it.

use super::{Agreement, Point, Setting, Validation};
use crate::charts;
use crate::rows;
use crate::study::{Grid, Sheet, Study, json};
use crate::telemetry::Telemetry;
use crate::words;

const POINTS_HEAD: [&str; 14] = [
    "policy",
    "load",
    "class",
    "number",
    "live",
    "simulated",
    "error",
    "95 % interval",
    "live noise",
    "client",
    "scheduler",
    "step times",
    "pace",
    "result",
];

impl Validation {
    /// As `validation.json` holds it.
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// As people read it. `lags` are how late each request went out, in seconds.
    pub fn study(&self, lags: &[f64]) -> Study {
        Study { json: self.to_json(), csv: self.csv(), sheet: self.sheet(lags) }
    }

    fn sheet(&self, lags: &[f64]) -> Sheet {
        let judged = |point: &Point| point.result.is_some();
        let mut grids = vec![
            Grid { title: "Each policy at each load".to_owned(), rows: self.overview() },
            Grid { title: "Each number".to_owned(), rows: self.points(judged) },
        ];
        if !self.rankings.is_empty() {
            grids.push(Grid { title: "Policies by p90 TTFT".to_owned(), rows: self.ranks() });
        }
        if let Telemetry::Sampled(sampled) = &self.telemetry {
            grids.push(sampled.grid());
        }
        let class = match self.verdict.exit_code() {
            0 => "pass",
            3 => "fail",
            _ => "inconclusive",
        };
        Sheet {
            title: format!("{}: validation", self.scenario),
            partial: String::new(),
            verdict: Some((class, self.verdict.word())),
            sentences: self.sentences.clone(),
            cards: self.cards(),
            grids,
            charts: charts::validation(self, lags)
                .into_iter()
                .chain(charts::gpus(&self.telemetry))
                .collect(),
            notes: self.notes.iter().cloned().chain(self.telemetry.notes()).collect(),
            method: self.method.clone(),
            version: self.plimsoll.clone(),
        }
    }

    fn cards(&self) -> Vec<(&'static str, String, String)> {
        let judged: Vec<&Point> = (self.settings.iter())
            .flat_map(|setting| setting.points().map(|(.., point)| point))
            .filter(|point| point.result.is_some())
            .collect();
        let agree = judged.iter().filter(|point| point.result == Some(Agreement::Agrees)).count();
        let off = |setting: &Setting| {
            let (class, metric, point) = setting.worst()?;
            let metric = metric.metric.to_uppercase();
            let what = format!("{} {metric} {}, {}", class.class, point.at, setting.name());
            Some((point.error, what))
        };
        let furthest = (self.settings.iter().filter_map(off))
            .max_by(|(a, _), (b, _)| a.abs().total_cmp(&b.abs()));
        let (furthest, where_) = furthest
            .map_or(("–".to_owned(), String::new()), |(error, what)| {
                (words::signed(error), what)
            });
        let mut floors: Vec<f64> = judged.iter().filter_map(|point| point.floor).collect();
        floors.sort_unstable_by(f64::total_cmp);
        let floor = floors.get(floors.len() / 2);
        let lag = (self.settings.iter()).map(|setting| setting.send_lag[2]).fold(0.0, f64::max);
        vec![
            (
                "agree",
                format!("{agree} of {}", judged.len()),
                format!("numbers, within {} or the noise", words::percent(self.within)),
            ),
            ("furthest off", furthest, where_),
            (
                "live noise",
                floor.map_or("–".to_owned(), |floor| words::percent(*floor)),
                "median difference of two live runs with the same arrivals".to_owned(),
            ),
            ("send lag p99", words::secs(lag), "at most 1 ms is wanted".to_owned()),
        ]
    }

    fn overview(&self) -> Vec<Vec<String>> {
        let head = [
            "policy",
            "load",
            "offered",
            "requests",
            "verdict",
            "furthest",
            "send lag p99",
            "device since",
            "steps: busy",
            "by the profile",
            "decode",
            "with prompts",
            "beyond it",
        ];
        let row = |setting: &Setting| {
            let steps = setting.steps;
            let of = |part: Option<f64>| part.map_or("–".to_owned(), words::signed);
            vec![
                setting.policy.clone(),
                format!("{:.0} %", setting.load * 100.0),
                format!("{}/s", words::number(setting.offered)),
                words::count(setting.requests),
                setting.verdict.word().to_owned(),
                setting.worst().map_or("–".to_owned(), |(class, metric, point)| {
                    let metric = metric.metric.to_uppercase();
                    format!("{} {metric} {} {}", class.class, point.at, words::signed(point.error))
                }),
                words::secs(setting.send_lag[2]),
                of(setting.pace.as_ref().map(|pace| pace.mean.all - 1.0)),
                steps.and_then(|steps| steps.busy).map_or("–".to_owned(), words::percent),
                of(steps.map(|steps| steps.error)),
                of(steps.and_then(|steps| steps.decode)),
                of(steps.and_then(|steps| steps.prompt)),
                steps.map_or("–".to_owned(), |steps| words::percent(steps.outside)),
            ]
        };
        let rows = self.settings.iter().map(row);
        std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
    }

    /// The numbers that are wanted, a row each.
    pub(crate) fn points(&self, wanted: impl Fn(&Point) -> bool) -> Vec<Vec<String>> {
        let mut rows = vec![POINTS_HEAD.map(str::to_owned).to_vec()];
        for setting in &self.settings {
            for (class, metric, point) in setting.points().filter(|(.., it)| wanted(it)) {
                let part = |part: fn(&super::Parts) -> f64| {
                    point
                        .parts
                        .as_ref()
                        .map_or("–".to_owned(), |parts| words::signed(part(parts)))
                };
                rows.push(vec![
                    setting.policy.clone(),
                    format!("{:.0} %", setting.load * 100.0),
                    class.class.clone(),
                    format!("{} {}", metric.metric.to_uppercase(), point.at),
                    words::secs(point.live),
                    words::secs(point.simulated),
                    words::signed(point.error),
                    point.interval.map_or("–".to_owned(), words::signed_between),
                    point.floor.map_or("–".to_owned(), |part| format!("{:.1} %", part * 100.0)),
                    part(|parts| parts.client),
                    part(|parts| parts.scheduler),
                    part(|parts| parts.step_times),
                    part(|parts| parts.pace),
                    match (point.result, point.few) {
                        (Some(result), _) => result.word().to_owned(),
                        (None, true) => "too few".to_owned(),
                        (None, false) => "shown only".to_owned(),
                    },
                ]);
            }
        }
        rows
    }

    fn ranks(&self) -> Vec<Vec<String>> {
        let head = ["class", "load", "live", "simulated", "same"].map(str::to_owned).to_vec();
        let order = |ranked: &[(String, f64)]| {
            let each = ranked.iter().map(|(name, p90)| format!("{name} {}", words::secs(*p90)));
            each.collect::<Vec<_>>().join(" < ")
        };
        let row = |it: &super::Ranking| {
            vec![
                it.class.clone(),
                format!("{:.0} %", it.load * 100.0),
                order(&it.live),
                order(&it.simulated),
                if it.reversed.is_empty() { "yes" } else { "no" }.to_owned(),
            ]
        };
        std::iter::once(head).chain(self.rankings.iter().map(row)).collect()
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "policy,load,class,metric,at,live,simulated,error,low,high,floor,few,client,scheduler,\
             step_times,pace,scheduler_alone,result\n",
        );
        let plain = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for setting in &self.settings {
            for (class, metric, point) in setting.points() {
                let parts = point.parts;
                let fields = [
                    rows::field(&setting.policy).to_string(),
                    setting.load.to_string(),
                    rows::field(&class.class).to_string(),
                    metric.metric.clone(),
                    point.at.clone(),
                    point.live.to_string(),
                    point.simulated.to_string(),
                    point.error.to_string(),
                    plain(point.interval.map(|[low, _]| low)),
                    plain(point.interval.map(|[_, high]| high)),
                    plain(point.floor),
                    point.few.to_string(),
                    plain(parts.map(|parts| parts.client)),
                    plain(parts.map(|parts| parts.scheduler)),
                    plain(parts.map(|parts| parts.step_times)),
                    plain(parts.map(|parts| parts.pace)),
                    plain(parts.map(|parts| parts.scheduler_alone)),
                    point.result.map_or(String::new(), |result| result.word().to_owned()),
                ];
                text.push_str(&fields.join(","));
                text.push('\n');
            }
        }
        text
    }
}
