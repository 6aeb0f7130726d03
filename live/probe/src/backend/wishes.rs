//! What a test wishes of a backend: in headers, or in words of the prompt, because a gateway passes
//! on no header that it does not know.

use hyper::HeaderMap;

use super::answer::Refusal;
use super::fault::Fault;

/// The header of each wish.
const PROMPT: &str = "x-prompt-tokens";
const OUTPUT: &str = "x-output-tokens";
pub(super) const FAULT: &str = "x-fault";

/// What was wished; of two wishes the first counts, and headers come first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pub prompt_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub fault: Option<Fault>,
}

impl Wishes {
    /// The wishes of the headers.
    pub fn of(headers: &HeaderMap) -> Result<Wishes, Refusal> {
        let mut wishes = Wishes::default();
        for name in [PROMPT, OUTPUT, FAULT] {
            if let Some(value) = headers.get(name) {
                wishes.hear(name, value.to_str().unwrap_or_default())?;
            }
        }
        Ok(wishes)
    }

    /// Reads a text with its wishes; returns how many words it has.
    pub fn read(&mut self, text: &str) -> Result<usize, Refusal> {
        let mut words = 0;
        for word in text.split_whitespace() {
            words += 1;
            if word.starts_with("x-")
                && let Some((name, value)) = word.split_once(':')
            {
                self.hear(name, value)?;
            }
        }
        Ok(words)
    }

    fn hear(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let number = || {
            let number = value.parse().ok().filter(|number| *number > 0);
            number
                .ok_or_else(|| Refusal::invalid(format!("{name}: `{value}` is no number above 0")))
        };
        match name {
            PROMPT => self.prompt_tokens = self.prompt_tokens.or(Some(number()?)),
            OUTPUT => self.output_tokens = self.output_tokens.or(Some(number()?)),
            FAULT => {
                let fault = value.parse().map_err(|bad| Refusal::invalid(format!("{bad}")))?;
                self.fault = self.fault.or(Some(fault));
            }
            _ => {}
        }
        Ok(())
    }
}
