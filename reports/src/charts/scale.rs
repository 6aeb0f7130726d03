//! An axis by hand, where plotters' own would put no tick on the values that were tried.

use super::canvas::{Area, anchored, line, text_style, write};
use crate::words;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// From values to pixels, linear or logarithmic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    pixels: (i32, i32),
}

impl Scale {
    /// From 0 or less to 1 or more as far as `values` reach; `pixels` are where the ends lie.
    pub fn linear((low, high): (f64, f64), pixels: (i32, i32)) -> Scale {
        let high = if high > low { high } else { low + 1.0 };
        Scale { low, high, logarithmic: false, pixels }
    }
    /// Logarithmic if the values are above 0 and far apart, else linear.
    pub fn fitting(values: impl Iterator<Item = f64> + Clone, pixels: (i32, i32)) -> Scale {
        let low = values.clone().fold(f64::MAX, f64::min);
        let high = values.fold(f64::MIN, f64::max);
        if low > 0.0 && high / low >= 12.0 {
            return Scale::logarithmic((low, high), pixels);
        }
        let room = if high > low { (high - low) * 0.03 } else { low.abs().max(1.0) * 0.5 };
        Scale::linear((low - room, high + room), pixels)
    }
    /// Logarithmic, with a little room at both ends.
    pub fn logarithmic((low, high): (f64, f64), pixels: (i32, i32)) -> Scale {
        let (low, high) = (low.max(1e-9), high.max(low).max(1e-9));
        let room = (high / low).powf(0.04).max(1.05);
        Scale { low: low / room, high: high * room, logarithmic: true, pixels }
    }
    /// Where a value lies; what lies beyond the ends lies at them.
    pub fn at(&self, value: f64) -> i32 {
        let part = match self.logarithmic {
            true => (value.max(1e-12) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        let (from, to) = self.pixels;
        from + (part.clamp(0.0, 1.0) * f64::from(to - from)).round() as i32
    }
    /// Round values within the ends, about `wanted` of them.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        let steps: &[f64] = &[1.0, 2.0, 5.0];
        let decades = self.low.abs().max(1e-9).log10().floor() as i32
            ..=self.high.abs().max(1e-9).log10().ceil() as i32;
        let within = |value: &f64| (self.low..=self.high).contains(value);
        if self.logarithmic {
            let all = |steps: &[f64]| -> Vec<f64> {
                let of = |power: i32| steps.iter().map(move |step| step * 10f64.powi(power));
                decades.clone().flat_map(of).filter(within).collect()
            };
            let (dense, sparse) = (all(steps), all(&steps[..1]));
            let chosen = if dense.len() <= wanted + 2 || sparse.len() < 2 { dense } else { sparse };
            let every = chosen.len().div_ceil(wanted + 2).max(1);
            return chosen.into_iter().step_by(every).collect();
        }
        let rough = (self.high - self.low) / wanted as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = steps.iter().chain(&[10.0]).map(|step| step * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|number| number as f64 * step).take_while(|at| *at <= self.high).collect()
    }
}

/// A round value without digits that say nothing.
pub(super) fn plain(value: f64) -> String {
    if value.abs() >= 1000.0 {
        words::number(value)
    } else {
        format!("{}", (value * 1e3).round() / 1e3)
    }
}

/// The faint lines and labels of an upward axis, from pixel `left` to `right`.
pub(super) fn upward(
    area: &Area<'_>,
    scale: &Scale,
    (left, right): (i32, i32),
    label: &dyn Fn(f64) -> String,
) {
    for tick in scale.ticks(4) {
        let y = scale.at(tick);
        line(area, (left, y), (right, y), BLACK.mix(0.1).stroke_width(1));
        write(area, &label(tick), (left - 6, y), anchored(text_style(12), HPos::Right));
    }
}

/// Labels along the bottom at the values that were tried, those that fit.
pub(super) fn tried(area: &Area<'_>, places: &[(i32, String)], y: i32) {
    let mut free = i32::MIN;
    for (x, text) in places {
        line(area, (*x, y), (*x, y + 4), BLACK.mix(0.5).stroke_width(1));
        let half = 4 * text.chars().count() as i32 + 4;
        if x - half >= free {
            write(area, text, (*x, y + 13), anchored(text_style(12), HPos::Center));
            free = x + half;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_ends_and_ticks_are_round() {
        let scale = Scale::fitting([1.0, 2.0, 90.0].into_iter(), (0, 100));
        assert!(scale.at(1.0) > 0 && scale.at(90.0) < 100 && scale.at(9.5) > 45);
        assert_eq!(scale.ticks(4), [1.0, 10.0, 100.0]);
        assert_eq!(scale.ticks(5), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let scale = Scale::fitting([1.0, 4.0].into_iter(), (100, 0));
        assert_eq!(scale.ticks(4), [1.0, 2.0, 3.0, 4.0]);
        assert!(scale.at(1.0) > scale.at(4.0));
        assert_eq!(Scale::linear((0.0, 1.0), (0, 10)).ticks(4), [0.0, 0.5, 1.0]);
        for alone in [0.0, 3.0, -2.0] {
            let scale = Scale::fitting([alone].into_iter(), (0, 10));
            assert_eq!(scale.at(alone), 5, "{alone}");
        }
        assert_eq!(Scale::logarithmic((0.0, 0.0), (0, 10)).at(0.0), 0);
    }
}
