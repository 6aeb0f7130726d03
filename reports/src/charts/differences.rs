//! Chart 11: candidates against the first, with simultaneous intervals.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, BAD, GOOD, anchored, bar, beside, fitting, line, svg, text_style, write,
};
use crate::comparison::{Comparison, Difference, Evidence};

const ROW: i32 = 26;
const TOP: i32 = 36;
/// The axis, in pixels, where names are as long as may be.
const AXIS: (i32, i32) = (300, 680);
const ROWS_MAX: usize = 60;

const FORMULA: &str = "candidate ÷ first; differences and their intervals as the method below says";

pub(crate) fn draw(comparison: &Comparison) -> Chart {
    let reference = comparison.candidates.first().map_or("", |first| first.name.as_str());
    let many = comparison.candidates.len() > 2;
    let shown: Vec<&Difference> = comparison.differences.iter().take(ROWS_MAX).collect();
    let evident = comparison
        .differences
        .iter()
        .filter(|one| matches!(one.evidence, Evidence::Better | Evidence::Worse))
        .count();
    let title = match (evident, comparison.differences.len()) {
        (0, all) => format!("No evidence of a difference in any of {all} numbers"),
        (some, all) => format!("{some} of {all} numbers differ from {reference}"),
    };
    let how = format!(
        "Each number divided by that of {reference}, on a logarithmic axis. Green is better, orange \
         worse, grey no evidence: its interval holds 1. {}",
        match comparison.separate {
            false => "All intervals hold together with 95 %.",
            true => "Each interval holds by itself with 95 %.",
        }
    );
    let height = (TOP + ROW * shown.len() as i32 + 30) as u32;
    let svg = svg(height, &title, &how, |area| paint(area, &shown, many));
    Chart { name: "differences", svg, data: data(comparison), title, how, formula: FORMULA }
}

/// The candidate's value ÷ the first's at a difference; `None` where there is no ratio.
fn ratio(one: &Difference, difference: f64) -> Option<f64> {
    let reference = one.reference.filter(|&reference| reference > 0.0)?;
    Some((reference + difference).max(reference * 1e-4) / reference)
}

fn paint(area: &Area<'_>, shown: &[&Difference], many: bool) {
    let label = |one: &Difference| match many {
        true => format!("{}: {}", one.candidate, one.name()),
        false => one.name(),
    };
    let axis = (beside(shown.iter().map(|one| label(one)), 13, AXIS.0), AXIS.1);
    // As far as the furthest value and half as far again, the two sides alike; whiskers end there.
    let middles = shown.iter().filter_map(|one| ratio(one, one.difference?));
    let reach = middles.map(|ratio| ratio.log10().abs()).fold(0.03, f64::max).min(3.0) * 1.5;
    let x = |ratio: f64| {
        let part = (ratio.log10() / reach).clamp(-1.0, 1.0) * 0.5 + 0.5;
        axis.0 + (part * f64::from(axis.1 - axis.0)).round() as i32
    };
    let bottom = TOP + ROW * shown.len() as i32;
    for at in ticks(reach) {
        let strong = if at == 1.0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) };
        line(area, (x(at), TOP - 8), (x(at), bottom), strong.stroke_width(1));
        let label = if at == 1.0 { "same".to_owned() } else { format!("{at}×") };
        write(area, &label, (x(at), bottom + 12), anchored(text_style(12), HPos::Center));
    }
    for (index, one) in shown.iter().enumerate() {
        let y = TOP + ROW * index as i32 + ROW / 2 - 4;
        let name = fitting(&label(one), axis.0 - 20, 13);
        write(area, &name, (axis.0 - 14, y), anchored(text_style(13), HPos::Right));
        row(area, one, (y, &x));
    }
}

fn row(area: &Area<'_>, one: &Difference, (y, x): (i32, &dyn Fn(f64) -> i32)) {
    let color = match one.evidence {
        Evidence::Better => GOOD.to_rgba(),
        Evidence::Worse => BAD.to_rgba(),
        Evidence::None | Evidence::Unmeasured => BLACK.mix(0.4),
    };
    let label = match one.evidence {
        Evidence::Unmeasured => "not measured".to_owned(),
        Evidence::None => format!("no evidence ({}{})", sign(one), one.amount()),
        Evidence::Better | Evidence::Worse => format!("{}{}", sign(one), one.amount()),
    };
    write(area, &label, (AXIS.1 + 12, y), anchored(text_style(12), HPos::Left));
    let Some(middle) = one.difference.and_then(|difference| ratio(one, difference)) else { return };
    // One run a candidate has a difference, but no interval.
    let ends = one.interval.map(|ends| ends.map(|end| ratio(one, end)));
    if let Some([Some(low), Some(high)]) = ends {
        line(area, (x(low), y), (x(high), y), color.stroke_width(3));
        for end in [low, high] {
            line(area, (x(end), y - 5), (x(end), y + 5), color.stroke_width(2));
        }
    }
    bar(area, (x(middle) - 4, y - 4), (x(middle) + 4, y + 4), &color);
}

fn sign(one: &Difference) -> &'static str {
    if one.difference.is_some_and(|difference| difference < 0.0) { "−" } else { "+" }
}

/// Round ratios within the axis.
fn ticks(reach: f64) -> Vec<f64> {
    let steps: &[f64] = match reach {
        r if r < 0.06 => &[0.9, 0.95, 1.0, 1.05, 1.1],
        r if r < 0.2 => &[0.7, 0.8, 0.9, 1.0, 1.2, 1.4],
        r if r < 0.5 => &[0.4, 0.6, 1.0, 1.5, 2.5],
        r if r < 1.2 => &[0.1, 0.3, 1.0, 3.0, 10.0],
        _ => &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0],
    };
    steps.iter().copied().filter(|at| at.log10().abs() <= reach).collect()
}

fn data(comparison: &Comparison) -> Vec<Vec<String>> {
    let mut rows = vec![crate::study::DIFFERENCES_HEAD.map(str::to_owned).to_vec()];
    rows.extend(comparison.differences.iter().map(crate::study::difference_row));
    rows
}
