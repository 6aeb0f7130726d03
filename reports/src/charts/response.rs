//! What the cells of a sweep answer to what was varied: lines over one path of numbers, heat maps
//! over two paths, dots for everything else.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Chart;
use super::canvas::{
    Area, BAD, GOOD, WIDTH, anchored, bar, class_color, dashed, end_labels, line, svg, text_style,
    write,
};
use super::scale::{Scale, plain, tried, upward};
use crate::summary::{Estimate, Verdict};
use crate::sweep::CellSummary;
use crate::sweep::axis::Varied;
use crate::sweep::page::{Response, good, percent, rate, seconds, share};
use crate::words;

const PANEL: i32 = 190;
/// The plot of a panel that stands alone, in pixels.
const PLOT: (i32, i32) = (70, 700);
/// Lines in one panel, and classes that have a panel, at most.
const LINES_MAX: usize = 6;
const PANELS_MAX: usize = 4;
/// Values of a path that a heat map shows at most.
const VALUES_MAX: usize = 40;

/// Cividis, from little to much.
const SHADES: [RGBColor; 6] = [
    RGBColor(0x00, 0x22, 0x4E),
    RGBColor(0x35, 0x45, 0x6C),
    RGBColor(0x66, 0x69, 0x70),
    RGBColor(0x94, 0x8E, 0x77),
    RGBColor(0xC8, 0xB8, 0x66),
    RGBColor(0xFE, 0xE8, 0x38),
];

/// What a panel shows of a cell.
type Of = Box<dyn Fn(&CellSummary) -> Estimate>;

/// The charts that suit what was varied; none if nothing was, or only lists of names.
pub(crate) fn draw(response: &Response<'_>) -> Vec<Chart> {
    let varied = response.varied;
    let by_number = |one: &&Varied| one.numbers.is_some();
    match varied {
        [] => Vec::new(),
        [one] if one.numbers.is_some() => vec![over_numbers(response, one, None)],
        [_] => Vec::new(),
        [one, other] if is_grid(response) => {
            let lines = |one: &Varied| one.numbers.is_none() && one.texts.len() <= LINES_MAX;
            match (one.numbers.is_some(), other.numbers.is_some()) {
                (true, false) if lines(other) => vec![over_numbers(response, one, Some(other))],
                (false, true) if lines(one) => vec![over_numbers(response, other, Some(one))],
                _ if fits(one) && fits(other) => vec![over_two(response, one, other)],
                _ => Vec::new(),
            }
        }
        more if more.iter().any(|one| by_number(&one)) => vec![dots(response)],
        _ => Vec::new(),
    }
}

fn fits(one: &Varied) -> bool {
    one.texts.len() <= VALUES_MAX
}

/// Whether no two cells have the same values of both paths, and most combinations are there.
fn is_grid(response: &Response<'_>) -> bool {
    let [one, other] = response.varied else { return false };
    let mut pairs: Vec<(usize, usize)> =
        one.of_cell.iter().copied().zip(other.of_cell.iter().copied()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let whole = one.texts.len() * other.texts.len();
    pairs.len() == response.cells.len() && 2 * pairs.len() > whole
}

/// The least and the most good of the offered, and where.
fn title(response: &Response<'_>) -> String {
    let measured = |cell: &'_ CellSummary| good(cell).value.map(|share| (share, cell.cell));
    let all = || response.cells.iter().filter_map(measured);
    let least = all().reduce(|a, b| if b.0 < a.0 { b } else { a });
    let most = all().reduce(|a, b| if b.0 > a.0 { b } else { a });
    let (Some(least), Some(most)) = (least, most) else {
        return "No cell was offered a request".to_owned();
    };
    if least.0 == most.0 {
        return format!("Good of the offered is {} in every cell", words::percent(most.0));
    }
    let at = |number: u64| {
        let cell = response.cells.iter().find(|cell| cell.cell == number);
        cell.map_or(String::new(), |cell| response.setting(cell))
    };
    format!(
        "Good of the offered goes from {} at {} to {} at {}",
        words::percent(least.0),
        at(least.1),
        words::percent(most.0),
        at(most.1)
    )
}

const FORMULA: &str = "good of the offered = good ÷ offered; intervals: 95 %, across replications, or Wilson's with one";

/// A panel: its name, how its values read, what it shows, one line each.
struct Panel {
    name: String,
    kind: Kind,
    lines: Vec<(String, Of)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Share,
    Rate,
    Seconds,
}

impl Kind {
    fn tick(self, value: f64) -> String {
        match self {
            Kind::Share => words::percent(value),
            Kind::Rate => plain(value),
            Kind::Seconds => words::round_secs(value),
        }
    }
}

fn panels(response: &Response<'_>, lines: Option<&Varied>) -> Vec<Panel> {
    let classes = response.cells.first().map_or(&[][..], |cell| &cell.classes);
    let of_class = |row: usize, of: fn(&crate::sweep::CellClass) -> Estimate| -> Of {
        Box::new(move |cell| cell.classes.get(row).map_or(Estimate::default(), of))
    };
    let by_class = |of: fn(&crate::sweep::CellClass) -> Estimate| -> Vec<(String, Of)> {
        let shown = classes.iter().enumerate().take(LINES_MAX);
        shown.map(|(row, class)| (class.name.clone(), of_class(row, of))).collect()
    };
    let panel = |name: &str, kind, lines| Panel { name: name.to_owned(), kind, lines };
    if lines.is_none() {
        return vec![
            panel("good of the offered", Kind::Share, by_class(|c| share(&c.slo_attainment))),
            panel("p99 TTFT", Kind::Seconds, by_class(|class| class.ttft.p99)),
            panel("good requests a second", Kind::Rate, by_class(|class| class.goodput)),
        ];
    }
    let one = |of: Of| vec![(String::new(), of)];
    let mut panels = vec![
        panel("good of the offered, all classes", Kind::Share, one(Box::new(good))),
        panel("good requests a second, all classes", Kind::Rate, one(Box::new(|c| c.goodput))),
    ];
    let shown = classes.iter().enumerate().take(PANELS_MAX);
    panels.extend(shown.map(|(row, class)| {
        let lines = one(of_class(row, |class| class.ttft.p99));
        panel(&format!("p99 TTFT of {}", class.name), Kind::Seconds, lines)
    }));
    panels
}

fn over_numbers(response: &Response<'_>, x: &Varied, lines: Option<&Varied>) -> Chart {
    let title = title(response);
    let how = format!(
        "Left to right: {}, at the values that were tried. A line is a {}; bars are 95 % \
         intervals.",
        x.name,
        lines.map_or("class", |lines| &lines.name)
    );
    let panels = panels(response, lines);
    let height = PANEL * panels.len() as i32 + 34;
    let drawing = svg(height as u32, &title, &how, |area| {
        for (number, panel) in panels.iter().enumerate() {
            paint(area, PANEL * number as i32, (response, x, lines), panel);
        }
        let middle = (PLOT.0 + PLOT.1) / 2;
        write(area, &x.name, (middle, height - 10), anchored(text_style(13), HPos::Center));
    });
    let data = data(response, &panels, lines.is_some());
    Chart { name: "response", svg: drawing, data, title, how, formula: FORMULA }
}

/// A line: its name, its number, its points: x in pixels, value.
type Line = (String, usize, Vec<(i32, Estimate)>);

fn paint(
    area: &Area<'_>,
    top: i32,
    (response, x, lines): (&Response<'_>, &Varied, Option<&Varied>),
    panel: &Panel,
) {
    let numbers = x.numbers.as_deref().unwrap_or_default();
    let across = Scale::fitting(numbers.iter().copied(), PLOT);
    let points = |wanted: Option<usize>, of: &Of| -> Vec<(i32, Estimate)> {
        let is_on = |index: &usize| {
            wanted.is_none_or(|wanted| lines.is_none_or(|lines| lines.of_cell[*index] == wanted))
        };
        let mut points: Vec<(i32, Estimate)> = (0..response.cells.len())
            .filter(is_on)
            .map(|index| (across.at(numbers[x.of_cell[index]]), of(&response.cells[index])))
            .filter(|(_, estimate)| estimate.value.is_some())
            .collect();
        points.sort_by_key(|(x, _)| *x);
        points
    };
    let drawn: Vec<Line> = match lines {
        None => panel
            .lines
            .iter()
            .enumerate()
            .map(|(n, (name, of))| (name.clone(), n, points(None, of)))
            .collect(),
        Some(lines) => (lines.texts.iter().enumerate())
            .map(|(n, text)| (text.clone(), n, points(Some(n), &panel.lines[0].1)))
            .collect(),
    };
    let floor = top + PANEL - 26;
    let up = upward_scale(panel.kind, &drawn, (floor, top + 30));
    write(area, &panel.name, (PLOT.0 - 56, top + 14), anchored(text_style(14), HPos::Left));
    let Some(up) = up else {
        let at = (PLOT.0, top + PANEL / 2);
        return write(area, "nothing was measured", at, anchored(text_style(13), HPos::Left));
    };
    upward(area, &up, PLOT, &|value| panel.kind.tick(value));
    line(area, (PLOT.0, floor), (PLOT.1, floor), BLACK.mix(0.5).stroke_width(1));
    tried(area, &places(&across, x), floor);
    let mut labels = Vec::new();
    for (name, number, points) in drawn {
        trace(area, &up, &points, number);
        if let Some((_, last)) = points.last() {
            labels.push((up.at(last.value.unwrap_or(0.0)), short(&name), number));
        }
    }
    end_labels(area, (PLOT.1 + 12, floor), labels);
}

/// Where the values of a path stand, and what they are called.
fn places(across: &Scale, x: &Varied) -> Vec<(i32, String)> {
    let numbers = x.numbers.as_deref().unwrap_or_default();
    let place = |(number, text): (&f64, &String)| (across.at(*number), text.clone());
    numbers.iter().zip(&x.texts).map(place).collect()
}

/// What fits beside a line.
fn short(name: &str) -> String {
    super::canvas::fitting(name, WIDTH as i32 - PLOT.1 - 36, 14)
}

fn upward_scale(kind: Kind, lines: &[Line], pixels: (i32, i32)) -> Option<Scale> {
    let points = || lines.iter().flat_map(|(.., points)| points.iter().map(|(_, value)| value));
    let values =
        || points().flat_map(|one| one.value.into_iter().chain(one.interval.into_iter().flatten()));
    let high = values().reduce(f64::max)?;
    Some(match kind {
        Kind::Share => Scale::linear((0.0, 1.0), pixels),
        Kind::Rate => Scale::linear((0.0, high * 1.04), pixels),
        Kind::Seconds => {
            let above = values().filter(|value| *value > 0.0).reduce(f64::min).unwrap_or(1e-3);
            Scale::logarithmic((above, high), pixels)
        }
    })
}

fn trace(area: &Area<'_>, up: &Scale, points: &[(i32, Estimate)], number: usize) {
    let color = class_color(number);
    for (x, estimate) in points {
        if let Some([low, high]) = estimate.interval {
            let (low, high) = (up.at(low), up.at(high));
            line(area, (*x, low), (*x, high), color.stroke_width(1));
            for end in [low, high] {
                line(area, (x - 3, end), (x + 3, end), color.stroke_width(1));
            }
        }
    }
    let path: Vec<(i32, i32)> =
        points.iter().map(|(x, one)| (*x, up.at(one.value.unwrap_or(0.0)))).collect();
    for at in &path {
        bar(area, (at.0 - 3, at.1 - 3), (at.0 + 3, at.1 + 3), &color.to_rgba());
    }
    dashed(area, path, color.stroke_width(2));
}

fn data(response: &Response<'_>, panels: &[Panel], by_line: bool) -> Vec<Vec<String>> {
    let mut head = vec!["cell".to_owned(), "at".to_owned()];
    for panel in panels {
        head.extend(panel.lines.iter().map(|(name, _)| match by_line {
            true => panel.name.clone(),
            false => format!("{name}: {}", panel.name),
        }));
    }
    let row = |cell: &CellSummary| {
        let mut row = vec![cell.cell.to_string(), response.setting(cell)];
        for panel in panels {
            row.extend(panel.lines.iter().map(|(_, of)| match panel.kind {
                Kind::Share => percent(&of(cell)),
                Kind::Rate => rate(&of(cell)),
                Kind::Seconds => seconds(&of(cell)),
            }));
        }
        row
    };
    std::iter::once(head).chain(response.cells.iter().map(row)).collect()
}

/// Heat maps of two paths: all classes, then each.
fn over_two(response: &Response<'_>, x: &Varied, y: &Varied) -> Chart {
    let title = title(response);
    let how = format!(
        "Left to right: {}; upwards: {}. The lighter a field, the more of the offered was good; ✓ \
         keeps every objective, ✗ misses one, ! is overloaded, ? is undecided. A field without colour \
         is not there.",
        x.name, y.name
    );
    let panels = heat_panels(response);
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let field = if y.texts.len() > 12 { 14 } else { 30 };
    let tall = 30 + field * y.texts.len() as i32 + 44;
    let rows = panels.len().div_ceil(columns) as i32;
    let drawing = svg((tall * rows + 8) as u32, &title, &how, |area| {
        for (number, panel) in panels.iter().enumerate() {
            let wide = WIDTH as i32 / columns as i32;
            let corner = ((number % columns) as i32 * wide, (number / columns) as i32 * tall);
            map(area, (corner, wide - 14, field), (response, x, y), panel);
        }
    });
    let data = data(response, &panels, true);
    Chart { name: "response", svg: drawing, data, title, how, formula: FORMULA }
}

fn heat_panels(response: &Response<'_>) -> Vec<Panel> {
    let panel =
        |name: String, of: Of| Panel { name, kind: Kind::Share, lines: vec![(String::new(), of)] };
    let mut panels = vec![panel("good of the offered, all classes".to_owned(), Box::new(good))];
    let classes = response.cells.first().map_or(&[][..], |cell| &cell.classes);
    if classes.len() > 1 {
        let shown = classes.iter().enumerate().take(PANELS_MAX - 1);
        panels.extend(shown.map(|(row, class)| {
            let of = move |cell: &CellSummary| {
                cell.classes.get(row).map_or(Estimate::default(), |c| share(&c.slo_attainment))
            };
            panel(format!("good of the offered, {}", class.name), Box::new(of))
        }));
    }
    panels
}

/// Room for the values of the upward path.
const SIDE: i32 = 96;

fn map(
    area: &Area<'_>,
    ((left, top), wide, field): ((i32, i32), i32, i32),
    (response, x, y): (&Response<'_>, &Varied, &Varied),
    panel: &Panel,
) {
    let (from, down) = (left + SIDE, top + 30);
    let floor = down + field * y.texts.len() as i32;
    let column = |index: usize| {
        from + ((wide - SIDE) as f64 * index as f64 / x.texts.len() as f64).round() as i32
    };
    let name = super::canvas::fitting(&panel.name, wide, 14);
    write(area, &name, (left + 8, top + 12), anchored(text_style(14), HPos::Left));
    for (index, cell) in response.cells.iter().enumerate() {
        let (across, upwards) = (x.of_cell[index], y.of_cell[index]);
        let (start, end) = (column(across), column(across + 1));
        let under = floor - field * upwards as i32;
        let Some(share) = panel.lines[0].1(cell).value else { continue };
        let shade = ((share * SHADES.len() as f64) as usize).min(SHADES.len() - 1);
        bar(area, (start, under - field), (end - 1, under - 1), &SHADES[shade].to_rgba());
        let ink = if shade < 3 { RGBColor(0xFE, 0xFE, 0xFE) } else { RGBColor(0x11, 0x11, 0x11) };
        let style = anchored(("sans-serif", 12).into_font().color(&ink), HPos::Center);
        let text = format!("{} {}", cell.verdict.symbol(), words::percent(share));
        let middle = ((start + end) / 2, under - field / 2);
        if end - start >= 62 && field >= 20 {
            write(area, &text, middle, style);
        } else if end - start >= 18 && field >= 14 {
            write(area, cell.verdict.symbol(), middle, style);
        }
    }
    for (index, text) in y.texts.iter().enumerate() {
        let middle = floor - field * index as i32 - field / 2;
        let text = super::canvas::fitting(text, SIDE - 14, 12);
        write(area, &text, (from - 6, middle), anchored(text_style(12), HPos::Right));
    }
    let places: Vec<(i32, String)> = (x.texts.iter().enumerate())
        .map(|(index, text)| {
            let wide = column(index + 1) - column(index);
            let text = if x.texts.len() > 8 {
                text.clone()
            } else {
                super::canvas::fitting(text, wide, 12)
            };
            ((column(index) + column(index + 1)) / 2, text)
        })
        .collect();
    tried(area, &places, floor);
    let y_name = super::canvas::fitting(&y.name, SIDE - 14, 12);
    write(area, &y_name, (from - 6, floor + 13), anchored(text_style(12), HPos::Right));
    let middle = (from + left + wide) / 2;
    write(area, &x.name, (middle, floor + 30), anchored(text_style(12), HPos::Center));
}

/// A panel a path of numbers, a dot a cell.
fn dots(response: &Response<'_>) -> Chart {
    let title = title(response);
    let how = "A panel is one of the paths that were varied, a dot a cell, at its value and what of \
               the offered was good; bars are 95 % intervals. All other paths vary from dot to dot. \
               Green keeps every objective, orange misses one or is overloaded, grey is undecided."
        .to_owned();
    let shown: Vec<&Varied> =
        response.varied.iter().filter(|one| one.numbers.is_some()).take(8).collect();
    let height = (PANEL + 20) * shown.len() as i32 + 8;
    let drawing = svg(height as u32, &title, &how, |area| {
        for (number, x) in shown.iter().enumerate() {
            scatter(area, (PANEL + 20) * number as i32, response, x);
        }
    });
    let panels = heat_panels(response);
    let data = data(response, &panels, true);
    Chart { name: "response", svg: drawing, data, title, how, formula: FORMULA }
}

fn scatter(area: &Area<'_>, top: i32, response: &Response<'_>, x: &Varied) {
    let numbers = x.numbers.as_deref().unwrap_or_default();
    let plot = (PLOT.0, WIDTH as i32 - 30);
    let across = Scale::fitting(numbers.iter().copied(), plot);
    let floor = top + PANEL - 26;
    let up = Scale::linear((0.0, 1.0), (floor, top + 30));
    let name = format!("good of the offered, by {}", x.name);
    write(area, &name, (PLOT.0 - 56, top + 14), anchored(text_style(14), HPos::Left));
    upward(area, &up, plot, &|value| words::percent(value));
    line(area, (plot.0, floor), (plot.1, floor), BLACK.mix(0.5).stroke_width(1));
    for (index, cell) in response.cells.iter().enumerate() {
        let estimate = good(cell);
        let Some(share) = estimate.value else { continue };
        let color = match cell.verdict {
            Verdict::Pass | Verdict::Done => GOOD.mix(0.8),
            Verdict::Fail | Verdict::Overloaded => BAD.mix(0.8),
            Verdict::Inconclusive => BLACK.mix(0.5),
        };
        let at = across.at(numbers[x.of_cell[index]]);
        // Bars of hundreds of cells would hide the dots.
        if let Some([low, high]) = estimate.interval.filter(|_| response.cells.len() <= 200) {
            line(area, (at, up.at(low)), (at, up.at(high)), color.stroke_width(1));
        }
        let dot = Circle::new((at, up.at(share)), 4, color.filled());
        area.draw(&dot).expect(super::canvas::DRAWN);
    }
    tried(area, &places(&across, x), floor);
}
