//! What is wrong with the input, said as rustc says it.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use crate::{Code, Place, Position, Source, Sources};

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Which kind; [`explain`](crate::explain) expands it.
    pub code: Code,
    /// What is wrong, one line.
    pub message: String,
    /// Where; `None` if no text is to blame (a file that is not there).
    pub place: Option<Place>,
    /// What stands under the marked text.
    pub label: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without label and help.
    pub fn new(code: Code, place: Option<Place>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, message: message.into(), place, label: String::new(), help: None }
    }
    /// With a label under the marked text.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }
    /// With a sentence that says what to write.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
    /// With that sentence, if there is one.
    pub fn help_maybe(mut self, help: Option<String>) -> Diagnostic {
        self.help = help;
        self
    }
}

/// Everything that is wrong, with the texts it is wrong in.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The texts.
    pub sources: Sources,
    /// What is wrong, in the order in which it was found; not empty.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// One diagnostic about one text; its place lies in that text.
    pub fn about(source: Source, diagnostic: Diagnostic) -> Diagnostics {
        let mut sources = Sources::default();
        sources.add(source);
        Diagnostics { sources, list: vec![diagnostic] }
    }
    /// One diagnostic about no text.
    pub fn bare(diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics { sources: Sources::default(), list: vec![diagnostic] }
    }

    /// File, line and column of a diagnostic.
    pub fn position(&self, diagnostic: &Diagnostic) -> Option<Position> {
        diagnostic.place.map(|place| self.sources.position(place))
    }

    /// All diagnostics as text, an empty line between them; with terminal colours if asked.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let rendered: Vec<String> =
            self.list.iter().map(|diagnostic| self.render_one(&renderer, diagnostic)).collect();
        rendered.join("\n\n")
    }

    fn render_one(&self, renderer: &Renderer, diagnostic: &Diagnostic) -> String {
        let title = Level::ERROR.primary_title(&diagnostic.message).id(diagnostic.code.id());
        let mut group = match diagnostic.place {
            Some(place) => {
                let source = self.sources.of(place);
                let span = byte_range(&source.text, place);
                let annotation = AnnotationKind::Primary.span(span);
                let annotation = if diagnostic.label.is_empty() {
                    annotation
                } else {
                    annotation.label(&diagnostic.label)
                };
                title.element(
                    Snippet::source(&source.text)
                        .line_start(source.first_line)
                        .path(&source.path)
                        .annotation(annotation),
                )
            }
            None if diagnostic.label.is_empty() => annotate_snippets::Group::with_title(title),
            None => title.element(Origin::path(&diagnostic.label)),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

/// The place as a byte range that lies in the text, on character boundaries.
fn byte_range(text: &str, place: Place) -> std::ops::Range<usize> {
    let inside = |at: u32| {
        let mut at = (at as usize).min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    inside(place.start)..inside(place.end.max(place.start))
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
impl std::error::Error for Diagnostics {}
