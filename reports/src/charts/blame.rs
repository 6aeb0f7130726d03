//! Chart 8: who starved whom. A row a victim, a column a culprit, and beside them service against
//! entitlement.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BAD, DRAWN, anchored, bar, fitting, line, svg, text_style, write};
use super::{Chart, Subject};
use crate::blame::told;
use crate::summary::{BlameKind, BlamedPart, ClassSummary, Summary};
use crate::words;

const LEFT: i32 = 110;
const RIGHT: i32 = 850;
const HEAD: i32 = 52;
const ROW: i32 = 74;

/// A column of the matrix.
pub(super) enum Column {
    /// A class, which held what was waited for.
    Class(String),
    /// No holder: its own limit, a line of the policy, signals, backends.
    Other,
}

impl Column {
    fn head(&self) -> &str {
        match self {
            Column::Class(name) => name,
            Column::Other => "no holder",
        }
    }
    fn has(&self, part: &BlamedPart) -> bool {
        match self {
            Column::Class(name) => part.culprit.as_ref() == Some(name),
            Column::Other => part.culprit.is_none(),
        }
    }
}

pub(super) const FORMULA: &str = "a wait falls on those who hold what is waited for, each by its part; share = weight ÷ weights of those who hold or wait; the parts of a row sum to queue_time exactly";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let victims = victims(subject.summary);
    let columns = columns(subject, &victims);
    let title = title(&victims);
    let how = format!(
        "A row is a class that waited, a column what its waiting falls on: whoever held what \
         it waited for, or a limit without a holder. {COLOURS} Each row sums to all waiting of its \
         class, which stands at the left.{}",
        subject.estimated()
    );
    let drawing =
        svg(height(&victims) as u32, &title, &how, |area| paint(area, &victims, &columns));
    Chart { name: "blame", svg: drawing, data: data(&victims), title, how, formula: FORMULA }
}

/// What its colours mean.
pub(super) const COLOURS: &str = "Orange is what a class held above its share by weight, blue what it \
    held within it, grey its own requests and its own limits.";

/// The classes that waited.
pub(super) fn victims(summary: &Summary) -> Vec<&ClassSummary> {
    summary.classes.iter().filter(|class| !class.waiting.blame.is_empty()).collect()
}

/// Those on whom any of the victims' waiting falls.
pub(super) fn columns(subject: &Subject<'_>, victims: &[&ClassSummary]) -> Vec<Column> {
    let mut columns: Vec<Column> =
        subject.classes().map(|(_, name)| Column::Class(name.to_owned())).collect();
    let any = |column: &Column| {
        victims.iter().any(|victim| victim.waiting.blame.iter().any(|part| column.has(part)))
    };
    columns.push(Column::Other);
    columns.retain(any);
    columns
}

/// In pixels.
pub(super) fn height(victims: &[&ClassSummary]) -> i32 {
    HEAD + ROW * victims.len().max(1) as i32 + 8
}

fn title(victims: &[&ClassSummary]) -> String {
    let worst = victims
        .iter()
        .flat_map(|victim| victim.waiting.blame.iter().map(move |part| (victim, part)))
        .filter(|(_, part)| part.kind == BlameKind::AboveShare)
        .max_by(|a, b| a.1.seconds.total_cmp(&b.1.seconds));
    if victims.is_empty() {
        return "Nobody waited".to_owned();
    }
    match worst {
        Some((victim, part)) if part.share >= 0.01 => format!(
            "{} of {} waiting falls on {}, which held {} above its share",
            words::percent(part.share),
            words::possessive(&victim.name),
            part.culprit.as_deref().unwrap_or("nobody"),
            told::resource_words(&part.resource),
        ),
        _ => "Nobody waited because another class held more than its share".to_owned(),
    }
}

pub(super) fn paint(area: &Area<'_>, victims: &[&ClassSummary], columns: &[Column]) {
    let small = || text_style(13);
    let width = (RIGHT - LEFT) / columns.len().max(1) as i32;
    write(area, "who waited", (8, 30), anchored(small(), HPos::Left));
    for (number, column) in columns.iter().enumerate() {
        let x = LEFT + number as i32 * width;
        let head = fitting(column.head(), width - 10, 14);
        write(area, &head, (x + 6, 30), anchored(text_style(14), HPos::Left));
    }
    write(area, "because of", (LEFT + 6, 12), anchored(small(), HPos::Left));
    if victims.is_empty() {
        write(area, "nobody", (8, HEAD + 20), anchored(small(), HPos::Left));
    }
    for (number, victim) in victims.iter().enumerate() {
        let top = HEAD + number as i32 * ROW;
        line(area, (0, top), (RIGHT, top), BLACK.mix(0.15).stroke_width(1));
        let all: f64 = victim.waiting.blame.iter().map(|part| part.seconds).sum();
        let name = fitting(&victim.name, LEFT - 14, 15);
        write(area, &name, (8, top + 22), anchored(text_style(15), HPos::Left));
        write(area, &words::secs(all), (8, top + 42), anchored(small(), HPos::Left));
        for (number, column) in columns.iter().enumerate() {
            let parts: Vec<&BlamedPart> =
                victim.waiting.blame.iter().filter(|part| column.has(part)).collect();
            cell(area, (LEFT + number as i32 * width, top), width, &parts);
        }
    }
}

/// One cell: bars side by side as long as their share, and the two largest parts in words.
fn cell(area: &Area<'_>, (left, top): (i32, i32), width: i32, parts: &[&BlamedPart]) {
    let full = width - 16;
    let mut x = left + 6;
    for part in parts {
        let length = (part.share * f64::from(full)).round() as i32;
        bar(area, (x, top + 10), (x + length, top + 26), &color(part.kind));
        x += length;
    }
    let style = BLACK.mix(0.25).stroke_width(1);
    area.draw(&Rectangle::new([(left + 6, top + 10), (left + 6 + full, top + 26)], style))
        .expect(DRAWN);
    for (number, part) in parts.iter().filter(|part| part.share >= 0.0005).take(2).enumerate() {
        let text = format!("{} {}", words::percent(part.share), short(part));
        let fits: String = text.chars().take((full / 6).max(8) as usize).collect();
        let y = top + 38 + 16 * number as i32;
        write(area, &fits, (left + 6, y), anchored(text_style(12), HPos::Left));
    }
}

fn short(part: &BlamedPart) -> String {
    let resource = match part.resource.as_str() {
        "kv_memory" => "KV memory",
        "class_requests" => "cap of requests",
        "class_tokens" => "cap of tokens",
        other => other,
    };
    match part.kind {
        BlameKind::AboveShare => format!("{resource}, above share"),
        BlameKind::WithinShare => format!("{resource}, within"),
        BlameKind::OwnClass => format!("{resource}, own class"),
        BlameKind::OwnLimit
        | BlameKind::PolicyLine
        | BlameKind::Signal
        | BlameKind::NoBackend
        | BlameKind::Untold => resource.replace('_', " "),
        BlameKind::Idle => format!("{resource}, idle"),
    }
}

/// The colour of a kind of cause.
pub(super) fn color(kind: BlameKind) -> RGBAColor {
    match kind {
        BlameKind::AboveShare => BAD.mix(0.9),
        BlameKind::WithinShare => RGBColor(0x56, 0xB4, 0xE9).mix(0.55),
        BlameKind::OwnClass | BlameKind::OwnLimit => BLACK.mix(0.25),
        BlameKind::PolicyLine | BlameKind::Signal => RGBColor(0xE6, 0x9F, 0x00).mix(0.8),
        BlameKind::NoBackend | BlameKind::Idle | BlameKind::Untold => BLACK.mix(0.5),
    }
}

pub(super) fn data(victims: &[&ClassSummary]) -> Vec<Vec<String>> {
    let head = ["who waited", "for what", "because of", "kind", "time", "of its waiting", "held"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for victim in victims {
        for part in &victim.waiting.blame {
            rows.push(vec![
                victim.name.clone(),
                part.resource.clone(),
                part.culprit.clone().unwrap_or_else(|| "–".to_owned()),
                part.kind.words().to_owned(),
                words::secs(part.seconds),
                words::percent(part.share),
                part.held.map_or("–".to_owned(), words::percent),
            ]);
        }
    }
    rows
}
