//! A trace as people read it.

use super::{AtScale, Lengths, TraceDescription};
use crate::charts;
use crate::study::{Grid, Sheet, Study, json};
use crate::{rows, words};

/// Where bursts begin to matter: twice the variance of a Poisson process.
const BURSTY: f64 = 2.0;

impl TraceDescription {
    /// As people read it.
    pub fn study(&self) -> Study {
        Study { json: json(self), csv: self.csv(), sheet: self.sheet() }
    }

    fn sheet(&self) -> Sheet {
        let mut grids = vec![
            Grid { title: "Lengths".to_owned(), rows: self.lengths() },
            Grid { title: "Arrivals by time scale".to_owned(), rows: self.scales() },
        ];
        grids.extend(self.shared());
        grids.push(Grid { title: "What the trace does not say".to_owned(), rows: self.lacks() });
        Sheet {
            title: format!("{}: trace", self.file),
            partial: String::new(),
            verdict: None,
            sentences: self.sentences(),
            cards: self.cards(),
            grids,
            charts: charts::traced(self),
            notes: self.notes(),
            method: vec![
                format!("{}, read to its end; percentiles at most 0.1 % off", self.format),
                "dispersion: variance ÷ mean of the arrivals counted in windows of one length, \
                 whole windows alone; a scale with fewer than 10 windows is left out"
                    .to_owned(),
            ],
            version: self.plimsoll.clone(),
        }
    }

    fn sentences(&self) -> Vec<String> {
        let rate = self.rate.map_or("all at once".to_owned(), |rate| {
            format!("{} a second over {}", words::number(rate), words::round_secs(self.seconds))
        });
        let most = |lengths: &Lengths| {
            lengths.p50.zip(lengths.p99).map_or("none".to_owned(), |(p50, p99)| {
                format!("half up to {}, 1 % above {}", words::count(p50), words::count(p99))
            })
        };
        let mut sentences = vec![format!(
            "{} requests, {rate}: prompts of {} tokens ({}), outputs of {} ({}).",
            words::count(self.rows),
            self.prompt.mean.map_or("no".to_owned(), words::number),
            most(&self.prompt),
            self.output.mean.map_or("no".to_owned(), words::number),
            most(&self.output),
        )];
        sentences.extend(self.widest().map(|scale| {
            let window = words::round_secs(scale.seconds);
            match scale.dispersion {
                dispersion if dispersion >= BURSTY => format!(
                    "It comes in bursts: counted in windows of {window}, arrivals vary {} times as \
                     much as those of a Poisson process; the busiest window has {} a second.",
                    words::number(dispersion),
                    words::number(scale.busiest)
                ),
                _ => format!(
                    "It is no burstier than a Poisson process by much at any time scale: variance \
                     ÷ mean is at most {}, in windows of {window}.",
                    words::number(scale.dispersion)
                ),
            }
        }));
        sentences.extend(self.sharing.map(|sharing| {
            format!(
                "{} of all prompt tokens repeat the beginning of an earlier prompt: a prefix cache \
                 without limit would save them.",
                words::percent(sharing.known_share)
            )
        }));
        sentences
    }

    /// The scale of the largest dispersion.
    fn widest(&self) -> Option<&AtScale> {
        self.scales.iter().max_by(|a, b| a.dispersion.total_cmp(&b.dispersion))
    }

    fn cards(&self) -> Vec<(&'static str, String, String)> {
        let none = || "–".to_owned();
        let busiest = self.scales.iter().find(|scale| scale.seconds >= 1.0);
        let busiest = busiest.map_or("too short to say more".to_owned(), |scale| {
            let window = words::round_secs(scale.seconds);
            format!("busiest {window}: {}/s", words::number(scale.busiest))
        });
        let tokens = (self.prompt.sum + self.output.sum) as f64;
        let rate = self.rate.map(|rate| format!("{}/s", words::number(rate)));
        let per_second = (self.seconds > 0.0).then(|| tokens / self.seconds);
        let widest = self.widest();
        vec![
            ("requests", words::count(self.rows), words::round_secs(self.seconds)),
            ("rate", rate.unwrap_or_else(none), busiest),
            (
                "tokens a second",
                per_second.map_or_else(none, words::number),
                format!(
                    "{} of them prompts",
                    words::percent(self.prompt.sum as f64 / tokens.max(1.0))
                ),
            ),
            (
                "burstiness",
                widest.map_or_else(none, |scale| words::number(scale.dispersion)),
                widest.map_or("too short to say".to_owned(), |scale| {
                    format!("variance ÷ mean, in windows of {}", words::round_secs(scale.seconds))
                }),
            ),
        ]
    }

    fn lengths(&self) -> Vec<Vec<String>> {
        let head = ["tokens", "rows", "mean", "p10", "p50", "p90", "p95", "p99", "max"];
        let row = |name: &str, of: &Lengths| {
            let mut row = vec![name.to_owned(), words::count(of.count)];
            row.push(of.mean.map_or("–".to_owned(), words::number));
            let all = [of.p10, of.p50, of.p90, of.p95, of.p99, of.max];
            row.extend(all.map(|length| length.map_or("–".to_owned(), words::count)));
            row
        };
        vec![
            head.map(str::to_owned).to_vec(),
            row("prompt", &self.prompt),
            row("output", &self.output),
        ]
    }

    fn scales(&self) -> Vec<Vec<String>> {
        let head = ["windows of", "whole windows", "busiest", "÷ mean rate", "variance ÷ mean"];
        let row = |scale: &AtScale| {
            vec![
                words::round_secs(scale.seconds),
                words::count(scale.windows),
                format!("{}/s", words::number(scale.busiest)),
                self.rate.map_or("–".to_owned(), |rate| words::number(scale.busiest / rate)),
                words::number(scale.dispersion),
            ]
        };
        let rows = self.scales.iter().map(row);
        std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
    }

    fn shared(&self) -> Option<Grid> {
        let sharing = self.sharing?;
        let time = |seconds: Option<f64>| seconds.map_or("–".to_owned(), words::secs);
        let rows = [
            ("what", "how much".to_owned()),
            ("prompt tokens that repeat an earlier beginning", words::percent(sharing.known_share)),
            (
                "rows with a known beginning",
                words::percent(
                    sharing.rows_with_known_beginning as f64 / sharing.rows.max(1) as f64,
                ),
            ),
            ("blocks", words::count(sharing.blocks)),
            ("different blocks", words::count(sharing.distinct)),
            (
                "tokens of the different blocks",
                words::count(sharing.distinct * u64::from(sharing.block_tokens)),
            ),
            ("tokens a block", words::count(sharing.block_tokens.into())),
            ("half of the known blocks used again within", time(sharing.reuse_p50_s)),
            ("90 % of them within", time(sharing.reuse_p90_s)),
        ];
        let rows = rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]).collect();
        Some(Grid { title: "What prompts share".to_owned(), rows })
    }

    fn lacks(&self) -> Vec<Vec<String>> {
        let head = ["what", "instead"].map(str::to_owned).to_vec();
        let row = |one: &super::Missing| vec![one.what.clone(), one.instead.clone()];
        std::iter::once(head).chain(self.missing.iter().map(row)).collect()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (count, what) in [(self.without_prompt, "prompt"), (self.without_output, "output")] {
            if count > 0 {
                notes.push(format!(
                    "{} rows have no {what} tokens: a replay refuses them, or leaves them out by \
                     `drop = [\"zero-tokens\"]`.",
                    words::count(count)
                ));
            }
        }
        notes.extend(self.correlation.map(|correlation| {
            let said = match correlation {
                strong if strong >= 0.3 => "long prompts get long outputs",
                strong if strong <= -0.3 => "long prompts get short outputs",
                _ => "the length of a prompt says little of that of its output",
            };
            format!("Prompt and output: {said} (correlation of the logarithms {correlation:+.2}).")
        }));
        if self.seconds < 86_400.0 {
            notes.push(format!(
                "{} are less than a day: what changes with the hour or the day of the week is not \
                 in it.",
                words::round_secs(self.seconds)
            ));
        }
        notes
    }

    fn csv(&self) -> String {
        let mut text = String::from("tokens,rows,sum,mean,p10,p50,p90,p95,p99,max\n");
        for (name, of) in [("prompt", &self.prompt), ("output", &self.output)] {
            let mut fields = vec![rows::field(name), of.count.to_string(), of.sum.to_string()];
            fields.push(of.mean.map_or(String::new(), |mean| mean.to_string()));
            let all = [of.p10, of.p50, of.p90, of.p95, of.p99, of.max];
            fields.extend(all.map(|one| one.map_or(String::new(), |one| one.to_string())));
            text += &fields.join(",");
            text.push('\n');
        }
        text
    }
}
