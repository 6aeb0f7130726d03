//! What the command line varies.

use plimsoll_config::tree::Node;
use plimsoll_config::{Code, Diagnostic, DottedPath, Place, Source, Sources, override_value};

use super::draw::{Draw, Drawn, Random};
use super::read::Plan;
use super::{Axis, Change};

/// What the command line varies: laid over what the file varies.
#[derive(Clone, Debug, Default)]
pub struct SweepArguments {
    /// `a.b=1,2,4`: every combination.
    pub vary: Vec<String>,
    /// `a.b=1,2,4`: these advance together.
    pub zip: Vec<String>,
    /// `a.b=1,c.d=x`: one cell.
    pub cells: Vec<String>,
    /// `a.b=1..8`, `a.b=1/s..8/s:log` or `a.b=x,y`: drawn at random.
    pub draw: Vec<String>,
    /// How many cells to draw.
    pub draws: Option<u32>,
    /// The seed of the draw.
    pub draw_seed: Option<u64>,
}

impl SweepArguments {
    /// An axis replaces one of the same path in its part, cells replace the file's list.
    pub(crate) fn lay_over(
        &self,
        mut plan: Plan,
        sources: &mut Sources,
    ) -> Result<Plan, Vec<Diagnostic>> {
        for text in &self.vary {
            put(&mut plan.grid, axis("--vary", text, sources)?);
        }
        for text in &self.zip {
            put(&mut plan.zip, axis("--zip", text, sources)?);
        }
        let cells = self.cells.iter().map(|text| cell(text, sources));
        let cells = cells.collect::<Result<Vec<_>, _>>()?;
        if !cells.is_empty() {
            plan.list = cells;
        }
        let draws = self.draw.iter().map(|text| draw(text, sources));
        let draws = draws.collect::<Result<Vec<_>, _>>()?;
        if !draws.is_empty() && plan.random.is_none() {
            plan.random = Some(Random { draws: DRAWS, seed: 1, vary: Vec::new() });
        }
        if plan.random.is_none() && (self.draws.is_some() || self.draw_seed.is_some()) {
            let message = "`--draws` and `--draw-seed` need something to draw";
            return Err(vec![
                Diagnostic::new(Code::Sweep, None, message)
                    .help("say what: `--draw pool.gpu.engine.seats=8..64`"),
            ]);
        }
        if let Some(random) = &mut plan.random {
            for draw in draws {
                random.vary.retain(|old| old.path.to_string() != draw.path.to_string());
                random.vary.push(draw);
            }
            random.draws = self.draws.unwrap_or(random.draws);
            random.seed = self.draw_seed.unwrap_or(random.seed);
        }
        Ok(plan)
    }
}

/// How many cells are drawn where neither file nor command line says.
const DRAWS: u32 = 10;

fn put(axes: &mut Vec<Axis>, axis: Axis) {
    match axes.iter_mut().find(|old| old.path.to_string() == axis.path.to_string()) {
        Some(old) => *old = axis,
        None => axes.push(axis),
    }
}

/// A piece of an argument, and where it begins in it.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    source: u32,
    at: usize,
}

impl<'a> Piece<'a> {
    fn whole(option: &str, text: &'a str, sources: &mut Sources) -> Piece<'a> {
        let source =
            Source { path: option.into(), text: text.into(), first_line: 1, directory: None };
        Piece { text, source: sources.add(source), at: 0 }
    }
    fn place(self) -> Place {
        let bytes = |at| u32::try_from(at).unwrap_or(u32::MAX);
        let (start, end) = (bytes(self.at), bytes(self.at + self.text.len()));
        Place { source: self.source, start, end }
    }
    fn slice(self, from: usize, to: usize) -> Piece<'a> {
        Piece { text: &self.text[from..to], at: self.at + from, ..self }
    }
    /// The path before the first `=`, and what stands after it.
    fn setting(self, sources: &Sources) -> Result<(DottedPath, Piece<'a>), Vec<Diagnostic>> {
        let Some(equals) = self.text.find('=') else {
            let message = "what is varied needs `=`";
            return Err(vec![
                Diagnostic::new(Code::Override, Some(self.place()), message)
                    .help("write a path, `=` and values: `pool.gpu.replicas=1,2,4`"),
            ]);
        };
        let path = self.slice(0, equals);
        let path = DottedPath::default().join(path.text, path.place(), sources);
        Ok((path, self.slice(equals + 1, self.text.len())))
    }
    /// What stands between commas; those within brackets and quotes do not count.
    fn split(self) -> Vec<Piece<'a>> {
        let (mut pieces, mut from, mut depth) = (Vec::new(), 0, 0);
        let mut quote = None;
        for (at, c) in self.text.char_indices() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '[' | '{') => depth += 1,
                (None, ']' | '}') => depth -= 1,
                (None, ',') if depth <= 0 => {
                    pieces.push(self.slice(from, at));
                    from = at + 1;
                }
                (None, _) => {}
            }
        }
        pieces.push(self.slice(from, self.text.len()));
        pieces
    }
    fn value(self) -> Result<Node, Vec<Diagnostic>> {
        if self.text.trim().is_empty() {
            let message = "a value is missing";
            return Err(vec![
                Diagnostic::new(Code::NoCells, Some(self.place()), message)
                    .help("write at least one value: `pool.gpu.replicas=1,2,4`"),
            ]);
        }
        override_value(self.text, self.source, self.place().start)
    }
}

fn axis(option: &str, text: &str, sources: &mut Sources) -> Result<Axis, Vec<Diagnostic>> {
    let (path, values) = Piece::whole(option, text, sources).setting(sources)?;
    let values = values.split().into_iter().map(Piece::value).collect::<Result<_, _>>()?;
    Ok(Axis { path, values })
}

fn cell(text: &str, sources: &mut Sources) -> Result<Vec<Change>, Vec<Diagnostic>> {
    let whole = Piece::whole("--cell", text, sources);
    let settings = whole.split().into_iter().map(|piece| {
        let (path, value) = piece.setting(sources)?;
        Ok(Change { path, value: value.value()? })
    });
    settings.collect()
}

fn draw(text: &str, sources: &mut Sources) -> Result<Draw, Vec<Diagnostic>> {
    let (path, from) = Piece::whole("--draw", text, sources).setting(sources)?;
    let place = from.place();
    let Some((min, rest)) = from.text.split_once("..") else {
        let values = from.split().into_iter().map(Piece::value).collect::<Result<_, _>>()?;
        return Ok(Draw { path, place, from: Drawn::Choice(values) });
    };
    let (max, scale) = match rest.strip_suffix(":log") {
        Some(max) => (max, "log"),
        None => (rest, "linear"),
    };
    // A range is read by those who read it in files; its ends keep their places.
    let (first, last) =
        (from.slice(0, min.len()), from.slice(min.len() + 2, min.len() + 2 + max.len()));
    let entry = |key: &str, node: Node| plimsoll_config::tree::Entry {
        key: key.into(),
        key_place: place,
        node,
    };
    let scale = Node { value: plimsoll_config::tree::Value::Text(scale.into()), place };
    let entries =
        vec![entry("min", first.value()?), entry("max", last.value()?), entry("scale", scale)];
    let node = Node { value: plimsoll_config::tree::Value::Table(entries), place };
    Ok(Draw { path, place, from: Drawn::read(&node)? })
}
