//! One set of templates for every page, and what is wrong with one of the user's.

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use sha2::{Digest, Sha256};

const TEMPLATES: [(&str, &str); 6] = [
    ("shell.html", include_str!("shell.html")),
    ("parts.html", include_str!("parts.html")),
    ("run.html", include_str!("run.html")),
    ("study.html", include_str!("study.html")),
    ("style.css", include_str!("style.css")),
    ("script.js", SCRIPT),
];
const SCRIPT: &str = include_str!("script.js");

/// A template of the user's, which replaces the one of a page. It may extend `run.html`,
/// `study.html` or `shell.html`, and sees what those see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What its file is called, for messages.
    pub name: String,
    /// Its text.
    pub source: String,
}

impl Template {
    /// A template whose text parses.
    ///
    /// # Errors
    /// If it does not parse: what is wrong, and where.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Result<Self, TemplateError> {
        let template = Template { name: name.into(), source: source.into() };
        let parsed = environment()
            .add_template_owned(template.name.clone(), template.source.clone())
            .map_err(|error| TemplateError(told(&template, &error, &Value::UNDEFINED)));
        parsed.map(|()| template)
    }
}

/// What is wrong with a template of the user's: file, line, column, what, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError(String);

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for TemplateError {}

/// What pages are rendered in: everything is escaped, and a name that nothing bears is an error.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_debug(true);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).expect("our own templates parse");
    }
    environment.add_global("script_hash", script_hash());
    environment
}

/// A page by the template of that name, or by the user's.
///
/// # Errors
/// If the user's template does not parse or render.
pub(crate) fn render(
    own: &str,
    user: Option<&Template>,
    context: &Value,
) -> Result<String, TemplateError> {
    let mut environment = environment();
    let Some(template) = user else {
        let template = environment.get_template(own).expect("our own templates are there");
        let page = template.render(context);
        return Ok(page.unwrap_or_else(|error| panic!("our own template renders: {error:#}")));
    };
    let failed = |error: Error| TemplateError(told(template, &error, context));
    environment
        .add_template_owned(template.name.clone(), template.source.clone())
        .map_err(failed)?;
    environment.get_template(&template.name).and_then(|t| t.render(context)).map_err(failed)
}

/// `page.html:3:7: undefined value …`
fn told(template: &Template, error: &Error, context: &Value) -> String {
    let file = error.name().unwrap_or(&template.name);
    let source = if file == template.name { Some(&*template.source) } else { None };
    let place = source.zip(error.range()).map(|(source, range)| {
        let before = &source[..range.start.min(source.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let marked = source.lines().nth(line - 1).unwrap_or("");
        let length = source[before.len()..range.end.min(source.len())].lines().next();
        let length = length.map_or(1, |marked| marked.chars().count().max(1));
        let under = format!("{}{}", " ".repeat(column - 1), "^".repeat(length));
        (format!("{line}:{column}"), format!("\n  {marked}\n  {under}"))
    });
    let line = || error.line().map_or(String::new(), |line| line.to_string());
    let (place, marked) = place.unwrap_or_else(|| (line(), String::new()));
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let hint = match error.kind() {
        ErrorKind::UndefinedError => {
            let names = context.try_iter().into_iter().flatten().map(|name| name.to_string());
            format!("\n  a page knows: {}", names.collect::<Vec<_>>().join(", "))
        }
        ErrorKind::TemplateNotFound => {
            format!("\n  a page can extend: {}", TEMPLATES.map(|(name, _)| name).join(", "))
        }
        // The kinds are minijinja's and may become more; what they say is enough.
        _ => String::new(),
    };
    format!("{file}:{place}: {what}{marked}{hint}")
}

/// What the content policy allows to run: our own script and nothing else.
fn script_hash() -> String {
    let digest = Sha256::digest(SCRIPT.trim_end_matches('\n').as_bytes());
    format!("sha256-{}", base64(&digest))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(*group.get(at).unwrap_or(&0)));
        for letter in 0..4 {
            let index = bits >> (18 - 6 * letter) & 63;
            let known = letter <= group.len();
            text.push(if known { char::from(LETTERS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_bad_template_is_told_with_its_place() {
        let check = |source: &str, expected: &str| {
            let template = Template { name: "mine.html".to_owned(), source: source.to_owned() };
            let error = render("run.html", Some(&template), &context! { title => "t" })
                .expect_err("the template is bad");
            let text = error.to_string();
            assert!(text.starts_with(expected), "{text}");
            text
        };
        let text = check("<p>\n  {{ titel }}", "mine.html:2:6: undefined value");
        assert!(text.contains("\n    {{ titel }}\n       ^^^^^\n"), "{text}");
        assert!(text.ends_with("a page knows: title"), "{text}");
        check("<p>\n{% if title %}", "mine.html:2:");
        check("{% bogus %}", "mine.html:1:4: syntax error: unknown statement bogus");
        check("{{ title|nix }}", "mine.html:1:");
        let text = check("\n{% extends \"none.html\" %}", "mine.html:2:");
        assert!(text.contains("a page can extend: shell.html"), "{text}");
    }

    #[test]
    fn what_a_template_prints_is_escaped() {
        let template = Template { name: "m".to_owned(), source: "<b>{{ title }}</b>".to_owned() };
        let page = render("run.html", Some(&template), &context! { title => "<i>&" });
        assert_eq!(page.expect("it renders"), "<b>&lt;i&gt;&amp;</b>");
    }
}
