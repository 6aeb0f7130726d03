//! Drawing with plotters into a string, and what all charts share.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A drawing area in pixels.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Drawing into a string cannot fail for want of room or rights.
pub(super) const DRAWN: &str = "drawing into a string does not fail";

/// The width of a chart in pixels.
pub(super) const WIDTH: u32 = 860;

/// Okabe and Ito's colours, without the yellow that vanishes on white, then again.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0xD5, 0x5E, 0x00),
];
/// The dash pattern that goes with each colour.
const DASHES: [&str; 6] = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];

/// What is bad: a limit that is missed, time lost in a queue.
pub(super) const BAD: RGBColor = RGBColor(0xD5, 0x5E, 0x01);
/// What is good.
pub(super) const GOOD: RGBColor = RGBColor(0x00, 0x9E, 0x74);

/// The colour of a class.
pub(super) fn class_color(row: usize) -> RGBColor {
    PALETTE[row % PALETTE.len()]
}

/// Text of `size` pixels.
pub(super) fn text_style(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK)
}

/// Text anchored in the middle of its height: at its left end, its middle or its right end.
pub(super) fn anchored(style: TextStyle<'static>, at: HPos) -> TextStyle<'static> {
    style.pos(Pos::new(at, VPos::Center))
}

/// Draws a chart of the given height and gives it a title and a description.
pub(super) fn svg(height: u32, title: &str, how: &str, draw: impl FnOnce(&Area<'_>)) -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        draw(&area);
        area.present().expect(DRAWN);
    }
    adapt(&text, title, how)
}

/// Black and white become the page's colours, and each class's lines get their dashes.
fn adapt(drawing: &str, title: &str, how: &str) -> String {
    let mut text = String::with_capacity(drawing.len() + 1024);
    for (number, line) in drawing.lines().enumerate() {
        if number == 0 {
            let open = line.trim_end_matches('>');
            text.push_str(&format!(
                "{open} role=\"img\" font-family=\"system-ui, sans-serif\">\n<title>{}</title>\n\
                 <desc>{}</desc>\n",
                escape(title),
                escape(how)
            ));
            continue;
        }
        let mut line = line
            .replace("#000000", "var(--fg)")
            .replace("#FFFFFF", "var(--bg)")
            .replace("#0072B2", "var(--blue)")
            .replace(" font-family=\"sans-serif\"", "")
            .replace(" opacity=\"1\"", "")
            // XML knows no control characters.
            .replace(char::is_control, "");
        if line.starts_with("<polyline") {
            for (color, dash) in PALETTE.iter().zip(DASHES).filter(|(_, dash)| !dash.is_empty()) {
                let stroke = format!("stroke=\"#{:02X}{:02X}{:02X}\"", color.0, color.1, color.2);
                line = line.replace(&stroke, &format!("{stroke} stroke-dasharray=\"{dash}\""));
            }
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn escape(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The grid of a chart and its axes, with labels of `size` pixels; only what the labels say is the
/// chart's own. `faint` is how much of the text's colour the grid has.
pub(super) fn mesh<'a, 'b, 'c, X, Y, XT, YT>(
    chart: &'b mut ChartContext<'a, SVGBackend<'c>, Cartesian2d<X, Y>>,
    (faint, size): (f64, i32),
) -> MeshStyle<'a, 'b, X, Y, SVGBackend<'c>>
where
    X: Ranged<ValueType = XT> + ValueFormatter<XT>,
    Y: Ranged<ValueType = YT> + ValueFormatter<YT>,
{
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(BLACK.mix(faint))
        .light_line_style(TRANSPARENT)
        .axis_style(BLACK.mix(0.5))
        .label_style(text_style(size));
    mesh
}

/// A filled rectangle between two corners, in pixels; nothing if it is empty.
pub(super) fn bar(area: &Area<'_>, from: (i32, i32), to: (i32, i32), color: &RGBAColor) {
    if to.0 > from.0 && to.1 > from.1 {
        area.draw(&Rectangle::new([from, to], color.filled())).expect(DRAWN);
    }
}

/// A straight line.
pub(super) fn line(area: &Area<'_>, from: (i32, i32), to: (i32, i32), style: ShapeStyle) {
    area.draw(&PathElement::new(vec![from, to], style)).expect(DRAWN);
}

/// A line through several points; a class's colour gets its dashes.
pub(super) fn dashed(area: &Area<'_>, points: Vec<(i32, i32)>, style: ShapeStyle) {
    if points.len() > 1 {
        area.draw(&PathElement::new(points, style)).expect(DRAWN);
    }
}

/// As much of a text of `size` pixels as fits into a width; what is cut ends in `…`.
pub(super) fn fitting(text: &str, width: i32, size: i32) -> String {
    // Letters are about 0.56 of their height on average.
    let room = (f64::from(width) / (0.56 * f64::from(size))).max(2.0) as usize;
    match text.char_indices().nth(room.saturating_sub(1)) {
        Some((at, _)) if text.chars().count() > room => format!("{}…", &text[..at]),
        Some(_) | None => text.to_owned(),
    }
}

/// Where an axis begins that has names at its left, right-aligned: as far left as they let it, and
/// no further right than `most`.
pub(super) fn beside(names: impl Iterator<Item = String>, size: i32, most: i32) -> i32 {
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    (24 + (longest as f64 * 0.6 * f64::from(size)) as i32).min(most)
}

/// A line of text.
pub(super) fn write(area: &Area<'_>, text: &str, at: (i32, i32), style: TextStyle<'static>) {
    area.draw(&Text::new(text.to_owned(), at, style)).expect(DRAWN);
}

/// Labels at the right ends of lines, moved apart where they would overlap; `(y, text, row)` in
/// pixels from the top. None stands below `floor`.
pub(super) fn end_labels(
    area: &Area<'_>,
    (x, floor): (i32, i32),
    mut labels: Vec<(i32, String, usize)>,
) {
    const APART: i32 = 15;
    labels.sort_by_key(|label| label.0);
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + APART);
    }
    let mut limit = floor;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(limit);
        limit = label.0 - APART;
    }
    // The swatch says whose it is: coloured letters would be too pale to read.
    for (y, text, row) in labels {
        line(area, (x, y), (x + 16, y), class_color(row).stroke_width(3));
        let text = fitting(&text, area.dim_in_pixel().0 as i32 - x - 20, 14);
        write(area, &text, (x + 20, y), anchored(text_style(14), HPos::Left));
    }
}
