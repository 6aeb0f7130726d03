//! `requests.csv`: one row a request, in the order in which they closed.

use std::io::{self, Write};

use plimsoll_base::{Fact, Observer, RequestRecord, Span, Time};

use crate::plan::Plan;
use crate::tally::tpot_nanos;

/// The columns of `requests.csv`.
pub const COLUMNS: &str = "id,replication,source,tenant,class,backend,outcome,arrived_s,\
dispatched_s,started_s,first_token_s,last_token_s,closed_s,prompt_tokens,output_tokens,output_cap,\
queue_s,prefill_s,decode_s,preempted_s,ttft_s,tpot_s,itl_max_s,preemptions,recomputed_tokens,\
reason,bound";

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 16;

/// Writes a row for each request that closes, warm-up included.
///
/// An I/O error stops the writing and is told by [`RequestRows::finish`].
#[derive(Debug)]
pub struct RequestRows<W: Write> {
    out: W,
    buffer: Vec<u8>,
    replication: u32,
    names: EscapedNames,
    sees_engines: bool,
    sees_first_tokens: bool,
    failed: Option<io::Error>,
}

/// The names as CSV fields.
#[derive(Debug)]
struct EscapedNames {
    tenants: Vec<String>,
    classes: Vec<String>,
    sources: Vec<String>,
}

impl<W: Write> RequestRows<W> {
    /// Rows of one replication. Replication 0 writes the header. What the facts of the plan do not
    /// tell is left empty.
    pub fn new(out: W, plan: &Plan, replication: u32) -> RequestRows<W> {
        let names = &plan.names;
        let fields = |names: &[String]| names.iter().map(|name| field(name)).collect();
        let mut buffer = Vec::with_capacity(BUFFER + 1024);
        if replication == 0 {
            buffer.extend_from_slice(COLUMNS.as_bytes());
            buffer.push(b'\n');
        }
        RequestRows {
            out,
            buffer,
            replication,
            names: EscapedNames {
                tenants: fields(&names.tenants),
                classes: fields(&names.classes),
                sources: fields(&names.sources),
            },
            sees_engines: plan.sees_engines(),
            sees_first_tokens: plan.sees_first_tokens(),
            failed: None,
        }
    }

    /// Writes what is left and hands the writer back.
    ///
    /// # Errors
    /// The first error of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.out),
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(&self.buffer).err();
        }
        self.buffer.clear();
    }

    fn row(&mut self, record: &RequestRecord) {
        let (engines, first_tokens) = (self.sees_engines, self.sees_first_tokens);
        let mut line = Line(&mut self.buffer);
        line.integer(record.id.0);
        line.integer(self.replication.into());
        line.name(&self.names.sources, record.source.index());
        line.name(&self.names.tenants, record.tenant.index());
        match record.class {
            Some(class) => line.name(&self.names.classes, class.index()),
            None => line.text(""),
        }
        match record.backend {
            Some(backend) if backend.generation == 0 => line.integer(backend.slot.into()),
            Some(backend) => line.text(&backend.to_string()),
            None => line.text(""),
        }
        line.text(record.outcome.name());
        line.time(Some(record.arrived));
        line.time(record.dispatched);
        line.time(record.started);
        line.time(record.first_token.filter(|_| first_tokens));
        line.time(record.last_token.filter(|_| first_tokens));
        line.time(Some(record.closed));
        line.integer(record.prompt_tokens.into());
        line.integer(record.output_tokens.into());
        line.integer(record.output_cap.into());
        let phases = &record.phases;
        line.nanos(Some(phases.queue.nanos()));
        for span in [phases.prefill, phases.decode] {
            line.nanos(first_tokens.then_some(span.nanos()));
        }
        line.nanos(engines.then_some(phases.preempted.nanos()));
        line.nanos(record.ttft().filter(|_| first_tokens).map(Span::nanos));
        let tpot = tpot_nanos(record).filter(|_| first_tokens);
        line.nanos(tpot);
        line.nanos(tpot.filter(|_| engines).map(|_| record.gap_max.nanos()));
        for count in [record.preemptions, record.recomputed_tokens] {
            match engines {
                true => line.integer(count.into()),
                false => line.text(""),
            }
        }
        line.text(record.reason.map_or("", |reason| reason.name()));
        line.text(record.bound.map_or("", |bound| bound.name()));
        line.end();
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }
}

impl<W: Write> Observer for RequestRows<W> {
    fn observe(&mut self, _: Time, fact: &Fact) {
        if let Fact::Closed(record) = fact {
            self.row(record);
        }
    }
    fn close(&mut self, _: Time, record: &RequestRecord) {
        self.row(record);
    }
}

/// A CSV field: quoted where it must be.
pub(crate) fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// A row that is being written; each field is followed by a comma.
pub(crate) struct Line<'a>(pub &'a mut Vec<u8>);

impl Line<'_> {
    pub fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b',');
    }
    fn name(&mut self, names: &[String], index: usize) {
        match names.get(index) {
            Some(name) => self.text(name),
            None => self.text(&format!("#{index}")),
        }
    }
    pub fn integer(&mut self, number: u64) {
        self.digits(number, 1);
        self.0.push(b',');
    }
    fn time(&mut self, time: Option<Time>) {
        self.nanos(time.map(Time::nanos));
    }
    /// Seconds with nine decimals.
    pub fn nanos(&mut self, nanos: Option<u64>) {
        if let Some(nanos) = nanos {
            self.digits(nanos / 1_000_000_000, 1);
            self.0.push(b'.');
            self.digits(nanos % 1_000_000_000, 9);
        }
        self.0.push(b',');
    }
    /// A number between 0 and 1 (or a little more) with six decimals.
    pub fn share(&mut self, share: Option<f64>) {
        if let Some(share) = share {
            let millionths = (share * 1e6).round() as u64;
            self.digits(millionths / 1_000_000, 1);
            self.0.push(b'.');
            self.digits(millionths % 1_000_000, 6);
        }
        self.0.push(b',');
    }
    /// Ends the row: its last comma becomes the end of the line.
    pub fn end(self) {
        *self.0.last_mut().expect("a row has fields") = b'\n';
    }

    fn digits(&mut self, mut number: u64, least: usize) {
        let mut digits = [b'0'; 20];
        let mut begin = digits.len();
        while number > 0 {
            begin -= 1;
            digits[begin] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let begin = begin.min(digits.len() - least);
        self.0.extend_from_slice(&digits[begin..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_seconds_are_written_as_text() {
        let mut buffer = Vec::new();
        let mut line = Line(&mut buffer);
        line.integer(0);
        line.integer(u64::MAX);
        line.nanos(Some(0));
        line.nanos(Some(1_000_000_001));
        line.nanos(None);
        line.share(Some(0.5));
        line.text(&field("a,\"b\""));
        line.end();
        assert_eq!(
            String::from_utf8(buffer).expect("text"),
            "0,18446744073709551615,0.000000000,1.000000001,,0.500000,\"a,\"\"b\"\"\"\n"
        );
    }
}
