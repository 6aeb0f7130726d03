//! Cells drawn at random: each path has a stream of its own, keyed by the seed, its name and the
//! number of the draw, so that varying another path changes no draw of this one.

use plimsoll_base::{Stream, StreamKey, math};
use plimsoll_config::tree::{Node, Value};
use plimsoll_config::{At, Code, Diagnostic, DottedPath, Place, decode};

use super::read::no_cells;
use super::spec::{RangeSpec, ScaleSpec};
use super::{Change, contradiction};

/// How many cells, from what.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    pub draws: u32,
    pub seed: u64,
    pub vary: Vec<Draw>,
}

/// A path and what its value is drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub path: DottedPath,
    pub place: Place,
    pub from: Drawn,
}

/// What a value is drawn from.
#[derive(Clone, Debug)]
pub(crate) enum Drawn {
    /// Each equally often.
    Choice(Vec<Node>),
    /// A whole number, both ends included.
    Whole { min: i64, max: i64, scale: ScaleSpec },
    /// A number, or a quantity where there is a unit; rounded to four significant digits.
    Real { min: f64, max: f64, unit: Option<String>, scale: ScaleSpec },
}

impl Random {
    /// The values of a draw by its number.
    pub fn draw(&self, number: u64) -> impl Iterator<Item = Change> {
        self.vary.iter().map(move |draw| {
            let name = format!("sweep.{}", draw.path);
            let key = StreamKey { seed: self.seed, replication: 0, name: &name, entity: number };
            let value = draw.from.value(&mut Stream::new(key), draw.place);
            Change { path: draw.path.clone(), value }
        })
    }
}

impl Drawn {
    /// A list to choose from, or a range.
    pub fn read(node: &Node) -> Result<Drawn, Vec<Diagnostic>> {
        match &node.value {
            Value::Array(values) if values.is_empty() => Err(vec![no_cells(node.place)]),
            Value::Array(values) => Ok(Drawn::Choice(values.clone())),
            Value::Table(_) => {
                let spec: RangeSpec = decode(node)?;
                range(&spec).map_err(|wrong| vec![wrong])
            }
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                let message =
                    format!("expected something to draw from, found {}", node.value.kind());
                Err(vec![
                    Diagnostic::new(Code::Type, Some(node.place), message)
                        .help("write a range, `{ min = 1, max = 8 }`, or a list to choose from"),
                ])
            }
        }
    }

    fn value(&self, stream: &mut Stream, place: Place) -> Node {
        let value = match self {
            Drawn::Choice(values) => {
                return values[stream.below(values.len() as u64) as usize].clone();
            }
            Drawn::Whole { min, max, scale: ScaleSpec::Linear } => {
                let width = max.wrapping_sub(*min) as u64;
                let above = match width.checked_add(1) {
                    Some(count) => stream.below(count),
                    None => stream.bits(),
                };
                Value::Integer(min.wrapping_add(above as i64))
            }
            Drawn::Whole { min, max, scale: ScaleSpec::Log } => {
                let drawn = logarithmic(*min as f64, *max as f64 + 1.0, stream);
                Value::Integer((drawn as i64).clamp(*min, *max))
            }
            Drawn::Real { min, max, unit, scale } => {
                let drawn = match scale {
                    ScaleSpec::Linear => min + (max - min) * stream.uniform(),
                    ScaleSpec::Log => logarithmic(*min, *max, stream),
                };
                let drawn = rounded(drawn).clamp(*min, *max);
                match unit {
                    Some(unit) => Value::Text(format!("{drawn}{unit}")),
                    None => Value::Float(drawn),
                }
            }
        };
        Node { value, place }
    }
}

fn logarithmic(min: f64, max: f64, stream: &mut Stream) -> f64 {
    math::exp(math::ln(min) + (math::ln(max) - math::ln(min)) * stream.uniform())
}

/// To four significant digits: a drawn value is read by people.
fn rounded(x: f64) -> f64 {
    format!("{x:.3e}").parse().expect("a float that was just written")
}

fn range(spec: &RangeSpec) -> Result<Drawn, Diagnostic> {
    let scale = spec.scale.unwrap_or_default();
    if let (Some(min), Some(max)) = (spec.min.value.as_i64(), spec.max.value.as_i64()) {
        in_order(spec, (min as f64, max as f64), scale)?;
        return Ok(Drawn::Whole { min, max, scale });
    }
    let (min, unit) = end(&spec.min)?;
    let (max, other) = end(&spec.max)?;
    if unit != other {
        let message = "the ends of the range have different units";
        return Err(contradiction(spec.max.place, message, "write both with the same unit"));
    }
    in_order(spec, (min, max), scale)?;
    Ok(Drawn::Real { min, max, unit, scale })
}

fn in_order(spec: &RangeSpec, (min, max): (f64, f64), scale: ScaleSpec) -> Result<(), Diagnostic> {
    if min > max {
        let help = "write the smaller one as `min`";
        return Err(contradiction(spec.max.place, "`max` is below `min`", help));
    }
    if scale == ScaleSpec::Log && min <= 0.0 {
        let message = "a logarithmic range begins above 0";
        let help = "write a `min` above 0, or leave `scale` out";
        return Err(contradiction(spec.min.place, message, help));
    }
    Ok(())
}

/// A number, and its unit if it has one.
fn end(written: &At<serde_json::Value>) -> Result<(f64, Option<String>), Diagnostic> {
    if let Some(number) = written.value.as_f64() {
        return Ok((number, None));
    }
    let text = written.value.as_str().unwrap_or_default();
    let digits = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let at = text.find(|c| !digits(c)).unwrap_or(text.len());
    match (text[..at].parse::<f64>(), text[at..].trim()) {
        (Ok(number), unit) if !unit.is_empty() => Ok((number, Some(unit.to_owned()))),
        (Ok(_) | Err(_), _) => Err(contradiction(
            written.place,
            format!("`{text}` is not a number, with or without a unit"),
            "write an end of the range as `8`, `0.5` or `\"12/s\"`",
        )),
    }
}
