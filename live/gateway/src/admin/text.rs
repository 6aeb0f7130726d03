//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

/// What the page is, for `content-type`.
pub(crate) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Labels of a sample, in the order in which they are written.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

/// What kind a metric is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

impl Page {
    /// A metric begins; all its samples follow.
    pub fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let mut escaped = String::new();
        escape(&mut escaped, help, false);
        push(&mut self.0, format_args!("# HELP {name} {escaped}\n# TYPE {name} {}\n", kind.name()));
        Metric { page: &mut self.0, name }
    }

    /// A metric of one sample without labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.metric(name, kind, help).sample(&[], value);
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.0
    }
}

/// A metric whose samples are being written.
#[derive(Debug)]
pub(crate) struct Metric<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    /// One sample. Labels that are empty are left out, which is the same to Prometheus.
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.line("", (labels, None), value);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let mut sum = 0;
        for (index, count) in histogram.counts.iter().enumerate() {
            sum += count;
            let bound = histogram.bounds.get(index).copied().unwrap_or(f64::INFINITY);
            self.line("_bucket", (labels, Some(bound)), sum);
        }
        self.line("_sum", (labels, None), histogram.sum);
        self.line("_count", (labels, None), sum);
    }

    fn line(
        &mut self,
        suffix: &str,
        (labels, bound): (Labels<'_>, Option<f64>),
        value: impl Display,
    ) {
        push(self.page, format_args!("{}{suffix}", self.name));
        let mut separator = '{';
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            push(self.page, format_args!("{separator}{name}=\""));
            escape(self.page, value, true);
            self.page.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            push(self.page, format_args!("{separator}le=\"{bound}\""));
            separator = ',';
        }
        let end = if separator == ',' { "}" } else { "" };
        push(self.page, format_args!("{end} {value}\n"));
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a string does not fail");
}

/// Backslashes and line ends are escaped everywhere, quotes in labels.
fn escape(text: &mut String, raw: &str, is_label: bool) {
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if is_label => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

/// How many values fell between fixed bounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty one; the bounds rise.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// One that was counted elsewhere.
    pub fn counted(bounds: &'static [f64], counts: &[u64], sum: f64) -> Histogram {
        debug_assert_eq!(counts.len(), bounds.len() + 1);
        Histogram { bounds, counts: counts.to_vec(), sum }
    }

    /// Counts a value: in the first bucket whose bound it does not exceed.
    pub fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// How many values there are.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_the_format_wants_it() {
        let mut page = Page::default();
        page.single("up", Kind::Gauge, "One\nline \\ only \"so\".", 1);
        let mut metric = page.metric("asked_total", Kind::Counter, "Asked.");
        metric.sample(&[("class", "a\"b\\c\nd"), ("empty", "")], 3);
        metric.sample(&[("class", "é"), ("by", "x")], 0.25);
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        [0.5, 0.6, 9.0].into_iter().for_each(|value| histogram.add(value));
        let mut metric = page.metric("took_seconds", Kind::Histogram, "Took.");
        metric.histogram(&[("class", "a")], &histogram);
        metric.histogram(&[], &Histogram::new(&[]));
        let wanted = r#"# HELP up One\nline \\ only "so".
# TYPE up gauge
up 1
# HELP asked_total Asked.
# TYPE asked_total counter
asked_total{class="a\"b\\c\nd"} 3
asked_total{class="é",by="x"} 0.25
# HELP took_seconds Took.
# TYPE took_seconds histogram
took_seconds_bucket{class="a",le="0.5"} 1
took_seconds_bucket{class="a",le="1"} 2
took_seconds_bucket{class="a",le="+Inf"} 3
took_seconds_sum{class="a"} 10.1
took_seconds_count{class="a"} 3
took_seconds_bucket{le="+Inf"} 0
took_seconds_sum 0
took_seconds_count 0
"#;
        assert_eq!(page.finish(), wanted);
    }

    #[test]
    fn values_fall_where_the_bounds_say() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        [0.0, 1.0, 1.5, 2.0, 2.1].into_iter().for_each(|value| histogram.add(value));
        assert_eq!(histogram.counts, [2, 2, 1]);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram, Histogram::counted(&[1.0, 2.0], &[2, 2, 1], 6.6));
    }
}
