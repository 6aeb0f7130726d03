//! Chart 7: who held the resource while the unluckiest request of each class waited.

use plimsoll_base::{ClassId, Span, Time};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, anchored, bar, class_color, line, svg, text_style, write};
use super::{Chart, Subject};
use crate::blame::{Cause, told};
use crate::plan::Plan;
use crate::summary::{ClassSummary, WorstWaitSummary};
use crate::words;

const LEFT: i32 = 8;
const RIGHT: i32 = 850;
const HEAD: i32 = 30;
const ROW: i32 = 96;
const BAR: i32 = 44;
/// Slices of a wait.
const SLICES: i32 = 120;

/// One wait: whose, and for each slice of it what it fell on.
struct Lane<'a> {
    class: &'a ClassSummary,
    worst: &'a WorstWaitSummary,
    slices: Vec<Vec<(Cause, f64)>>,
}

const FORMULA: &str = "each slice of a wait is divided as the class's waiting was in that stretch; share = weight ÷ weights of those who hold or wait";

pub(super) fn draw(subject: &Subject<'_>) -> Chart {
    let lanes: Vec<Lane<'_>> = subject
        .summary
        .classes
        .iter()
        .enumerate()
        .filter_map(|(row, c)| lane(subject, row, c))
        .collect();
    let title = title(subject.plan, &lanes);
    let how = format!(
        "Each lane is the longest wait of one request of a class, from its arrival at the \
               left to its start at the right. Its height is divided by who held what it waited \
               for at the time: saturated above the holder's share by weight, pale within it; grey \
               is a limit without a holder. Between two marks of the run the class's mean is drawn.{}",
        subject.estimated()
    );
    let height = (HEAD + ROW * lanes.len().max(1) as i32) as u32;
    let drawing = svg(height, &title, &how, |area| paint(area, subject, &lanes));
    Chart { name: "lanes", svg: drawing, data: data(subject, &lanes), title, how, formula: FORMULA }
}

fn lane<'a>(subject: &Subject<'_>, row: usize, class: &'a ClassSummary) -> Option<Lane<'a>> {
    let worst = class.waiting.worst_wait.as_ref()?;
    let blame = &subject.ledgers[worst.replication as usize].blame.as_ref()?;
    let from = Time::ZERO + Span::from_secs_f64(worst.arrived_s);
    let wait = Span::from_secs_f64(worst.seconds).nanos();
    let edge = |slice: i32| {
        let part = u128::from(wait) * slice as u128 / SLICES as u128;
        from + Span::from_nanos(part as u64)
    };
    let slices = (0..SLICES).map(|slice| blame.between(row, (edge(slice), edge(slice + 1))));
    Some(Lane { class, worst, slices: slices.collect() })
}

/// Parts of the whole wait by cause, the largest first.
fn parts(lane: &Lane<'_>) -> Vec<(Cause, f64)> {
    let mut parts: Vec<(Cause, f64)> = Vec::new();
    for (cause, part) in lane.slices.iter().flatten() {
        match parts.iter_mut().find(|(other, _)| other == cause) {
            Some((_, all)) => *all += part,
            None => parts.push((*cause, *part)),
        }
    }
    let all: f64 = parts.iter().map(|(_, part)| part).sum();
    parts.iter_mut().for_each(|(_, part)| *part /= all.max(f64::MIN_POSITIVE));
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts
}

fn title(plan: &Plan, lanes: &[Lane<'_>]) -> String {
    match lanes.iter().max_by(|a, b| a.worst.seconds.total_cmp(&b.worst.seconds)) {
        None => "Nobody waited".to_owned(),
        Some(lane) => {
            let wait = format!(
                "{} longest wait was {}{}",
                words::possessive(&lane.class.name),
                if lane.worst.at_least { "at least " } else { "" },
                words::secs(lane.worst.seconds),
            );
            let above = |(cause, part): (Cause, f64)| match cause {
                Cause::Above(on, Some(class)) => Some((on, class, part)),
                Cause::Above(_, None)
                | Cause::Within(..)
                | Cause::Idle(_)
                | Cause::Line(_)
                | Cause::Untold => None,
            };
            match parts(lane).into_iter().find_map(above) {
                Some((on, class, part)) if part >= 0.1 => format!(
                    "{wait}, {} of it because {} held {} above its share",
                    words::percent(part),
                    plan.names.class(class),
                    told::resource_words(on.name()),
                ),
                Some(_) | None => format!("{wait}: who held what it waited for"),
            }
        }
    }
}

fn paint(area: &Area<'_>, subject: &Subject<'_>, lanes: &[Lane<'_>]) {
    let mut x = LEFT;
    for (row, name) in subject.classes() {
        bar(area, (x, 6), (x + 14, 18), &class_color(row).to_rgba());
        write(area, name, (x + 20, 12), anchored(text_style(14), HPos::Left));
        x += 40 + 8 * name.chars().count() as i32;
    }
    for (number, lane) in lanes.iter().enumerate() {
        let top = HEAD + ROW * number as i32;
        let head = format!(
            "{}: request {} waited {}{}",
            lane.class.name,
            words::count(lane.worst.request),
            if lane.worst.at_least { "at least " } else { "" },
            words::secs(lane.worst.seconds),
        );
        write(area, &head, (LEFT, top + 12), anchored(text_style(14), HPos::Left));
        paint_lane(area, lane, top + 22);
        let from = format!("arrived {}", words::secs(lane.worst.arrived_s));
        let to = words::secs(lane.worst.arrived_s + lane.worst.seconds);
        let foot = top + 22 + BAR + 10;
        write(area, &from, (LEFT, foot), anchored(text_style(12), HPos::Left));
        write(area, &to, (RIGHT, foot), anchored(text_style(12), HPos::Right));
    }
}

fn paint_lane(area: &Area<'_>, lane: &Lane<'_>, top: i32) {
    let x = |slice: usize| LEFT + (RIGHT - LEFT) * slice as i32 / SLICES;
    for (slice, parts) in lane.slices.iter().enumerate() {
        let all: f64 = parts.iter().map(|(_, part)| part).sum();
        let mut sorted = parts.clone();
        sorted.sort_by_key(|(cause, _)| layer(cause));
        let mut below = 0.0;
        for (cause, part) in sorted {
            let y = |height: f64| top + BAR - (height / all * f64::from(BAR)).round() as i32;
            let (low, high) = (y(below), y(below + part));
            below += part;
            bar(area, (x(slice), high), (x(slice + 1), low), &color(&cause));
        }
    }
    let frame = BLACK.mix(0.3).stroke_width(1);
    line(area, (LEFT, top + BAR), (RIGHT, top + BAR), frame);
}

/// Where a cause lies in the stack: by class, above its share on what is within it, then the rest.
fn layer(cause: &Cause) -> (u16, u8) {
    match cause {
        Cause::Within(_, class) => (class.map_or(u16::MAX - 1, |class| class.0), 0),
        Cause::Above(_, class) => (class.map_or(u16::MAX - 1, |class| class.0), 1),
        Cause::Idle(_) | Cause::Line(_) | Cause::Untold => (u16::MAX, 0),
    }
}

fn color(cause: &Cause) -> RGBAColor {
    let of = |class: &Option<ClassId>, strength| {
        class.map_or(BLACK.mix(0.4), |class| class_color(class.index()).mix(strength))
    };
    match cause {
        Cause::Within(_, class) => of(class, 0.4),
        Cause::Above(_, class) => of(class, 0.95),
        Cause::Idle(_) | Cause::Line(_) | Cause::Untold => BLACK.mix(0.3),
    }
}

fn data(subject: &Subject<'_>, lanes: &[Lane<'_>]) -> Vec<Vec<String>> {
    let head = ["class", "request", "waited", "on", "held by", "share", "part of the wait"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for lane in lanes {
        for (cause, part) in parts(lane).into_iter().filter(|(_, part)| *part >= 0.001) {
            let name = |class: Option<ClassId>| {
                class.map_or("unclassified".to_owned(), |class| subject.plan.names.class(class))
            };
            let (on, who, share) = match cause {
                Cause::Within(on, class) => (on.name(), name(class), "within"),
                Cause::Above(on, class) => (on.name(), name(class), "above"),
                Cause::Idle(on) => (on.name(), "nobody".to_owned(), "–"),
                Cause::Line(bound) => (bound.name(), "–".to_owned(), "–"),
                Cause::Untold => ("untold", "–".to_owned(), "–"),
            };
            rows.push(vec![
                lane.class.name.clone(),
                words::count(lane.worst.request),
                words::secs(lane.worst.seconds),
                on.to_owned(),
                who,
                share.to_owned(),
                words::percent(part),
            ]);
        }
    }
    rows
}
