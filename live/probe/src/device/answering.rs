//! What is heard of a request while it runs, and what is left of it when it is over.

use plimsoll_base::Time;
use tokio::sync::mpsc;

use super::DeviceError;

/// What was heard of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It went to the device.
    Sent(Time),
    /// The device has taken it: the head of the answer is there.
    Accepted(Time),
    /// The first byte of the answer's body is there.
    FirstByte(Time),
    /// A piece of the answer is there.
    Chunk(Chunk),
    /// The answer is complete.
    Ended(Time, Usage),
    /// There will be no answer, or no more of it.
    Failed(Time, DeviceError),
}

/// A piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// When it was there.
    pub at: Time,
    /// What it carries.
    pub carries: Carries,
    /// How many tokens of the answer were out with it, if the device says so.
    pub counted: Option<u32>,
}

/// What a piece of an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Text: at least one token.
    Text,
    /// No text: half a character, or only the word that the answer is over.
    Nothing,
}

/// Tokens as the device counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: u32,
    /// Of the prompt, those that were in a prefix cache.
    pub cached_tokens: u32,
    /// Of the answer.
    pub output_tokens: u32,
}

/// An answer that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the request went to the device.
    pub sent: Time,
    /// When the device had taken it.
    pub accepted: Time,
    /// When the first byte of the answer was there.
    pub first_byte: Time,
    /// Its pieces.
    pub chunks: Vec<Chunk>,
    /// When it was complete.
    pub ended: Time,
    /// Tokens as the device counts them.
    pub usage: Usage,
}

impl Answer {
    /// What is left of all that was heard of a request, in order.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn of(all: impl IntoIterator<Item = Heard>) -> Result<Answer, DeviceError> {
        let mut gathering = Gathering::default();
        all.into_iter().find_map(|heard| gathering.take(heard)).unwrap_or_else(|| Err(gone()))
    }

    /// When each token was there, if pieces can be told apart as tokens: as many pieces as the
    /// device counts tokens, with or without those that carry no text; or the device counts tokens
    /// with each piece.
    pub fn tokens(&self) -> Option<Vec<Time>> {
        let count = self.usage.output_tokens as usize;
        let texts = self.chunks.iter().filter(|chunk| chunk.carries == Carries::Text);
        let texts: Vec<Time> = texts.map(|chunk| chunk.at).collect();
        if texts.len() == count {
            return Some(texts);
        }
        self.counted(count).or_else(|| {
            let mut pieces = self.pieces();
            // A last piece of its own may come late and say only that the answer is over.
            if pieces.len() == count + 1
                && pieces.len() == self.chunks.len()
                && self.ends_wordless()
            {
                pieces.pop();
            }
            (pieces.len() == count).then_some(pieces)
        })
    }

    /// When each piece was there that came of a step: not a last one without text that is there at once
    /// behind another.
    pub fn pieces(&self) -> Vec<Time> {
        let mut pieces: Vec<Time> = self.chunks.iter().map(|chunk| chunk.at).collect();
        let gap = |two: &[Time]| two[1].saturating_since(two[0]).nanos();
        let mut gaps: Vec<u64> = pieces.windows(2).map(gap).collect();
        let Some(last) = gaps.last().copied() else { return pieces };
        gaps.sort_unstable();
        let step = match gaps.len() {
            // The first piece took a step at least, and most often several.
            1 => pieces[0].saturating_since(self.sent).nanos() / 4,
            count => gaps[count / 2],
        };
        if self.ends_wordless() && last < step / 2 {
            pieces.pop();
        }
        pieces
    }

    fn ends_wordless(&self) -> bool {
        self.chunks.last().is_some_and(|chunk| chunk.carries == Carries::Nothing)
    }

    /// By the counts that come with pieces. Of several tokens in a piece, such as the parts of a
    /// character, those before the last are taken to have come at even distances. One piece alone
    /// says how many there are, and nothing of when they were.
    fn counted(&self, count: usize) -> Option<Vec<Time>> {
        let mut tokens = Vec::with_capacity(count);
        let mut before = None;
        for chunk in self.chunks.iter().filter(|_| self.chunks.len() > 1) {
            let new = (chunk.counted? as usize).min(count).saturating_sub(tokens.len()) as u64;
            let from: Time = before.unwrap_or(chunk.at);
            let span = chunk.at.saturating_since(from).nanos();
            let at = |token| Time::from_nanos(from.nanos() + span * token / new);
            tokens.extend((1..=new).map(at));
            if new > 0 {
                before = Some(chunk.at);
            }
        }
        (tokens.len() == count).then_some(tokens)
    }

    /// When the first piece with text was there, or the first of any kind if none has text.
    pub fn first_token(&self) -> Option<Time> {
        let text = self.chunks.iter().find(|chunk| chunk.carries == Carries::Text);
        text.or(self.chunks.first()).map(|chunk| chunk.at)
    }
}

/// A request under way. Dropped before its end, it takes the request back.
#[derive(Debug)]
pub struct Answering(mpsc::Receiver<Heard>);

/// Where a device says what it has heard of a request.
pub type Teller = mpsc::Sender<Heard>;

/// The two ends of what is told of a request with so many tokens of output.
pub fn channel(output_tokens: u32) -> (Teller, Answering) {
    // As many as there can be: a token each, and the few that are no tokens. A device that sends
    // more waits for whoever listens.
    let (teller, heard) = mpsc::channel(output_tokens as usize + 8);
    (teller, Answering(heard))
}

impl Answering {
    /// What is heard next; `None` after the end.
    pub async fn next(&mut self) -> Option<Heard> {
        self.0.recv().await
    }

    /// What is heard next, for a thread without a runtime; `None` after the end.
    pub fn wait_next(&mut self) -> Option<Heard> {
        self.0.blocking_recv()
    }

    /// The whole answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn whole(mut self) -> Result<Answer, DeviceError> {
        let mut gathering = Gathering::default();
        while let Some(heard) = self.next().await {
            if let Some(result) = gathering.take(heard) {
                return result;
            }
        }
        Err(gone())
    }

    /// The whole answer, for a thread without a runtime.
    ///
    /// # Errors
    /// Why there is none.
    pub fn wait(mut self) -> Result<Answer, DeviceError> {
        let mut gathering = Gathering::default();
        while let Some(heard) = self.wait_next() {
            if let Some(result) = gathering.take(heard) {
                return result;
            }
        }
        Err(gone())
    }
}

fn gone() -> DeviceError {
    DeviceError::BrokeOff("it was shut down while a request ran".into())
}

#[derive(Default)]
struct Gathering {
    sent: Time,
    accepted: Option<Time>,
    first_byte: Option<Time>,
    chunks: Vec<Chunk>,
}

impl Gathering {
    fn take(&mut self, heard: Heard) -> Option<Result<Answer, DeviceError>> {
        match heard {
            Heard::Sent(at) => self.sent = at,
            Heard::Accepted(at) => self.accepted = Some(at),
            Heard::FirstByte(at) => self.first_byte = Some(at),
            Heard::Chunk(chunk) => self.chunks.push(chunk),
            Heard::Failed(_, error) => return Some(Err(error)),
            Heard::Ended(ended, usage) => {
                let accepted = self.accepted.unwrap_or(ended);
                return Some(Ok(Answer {
                    sent: self.sent,
                    accepted,
                    first_byte: self.first_byte.unwrap_or(accepted),
                    chunks: std::mem::take(&mut self.chunks),
                    ended,
                    usage,
                }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(carries: &[Carries], output_tokens: u32) -> Option<usize> {
        let chunk = |(at, &carries)| Chunk { at: Time::from_nanos(at), carries, counted: None };
        let chunks = (0..).zip(carries).map(chunk).collect();
        answer(chunks, output_tokens).tokens().map(|tokens| tokens.len())
    }

    fn answer(chunks: Vec<Chunk>, output_tokens: u32) -> Answer {
        Answer {
            sent: Time::ZERO,
            accepted: Time::ZERO,
            first_byte: Time::ZERO,
            chunks,
            ended: Time::ZERO,
            usage: Usage { output_tokens, ..Usage::default() },
        }
    }

    #[test]
    fn tokens_of_a_counted_piece_lie_between_it_and_the_piece_before() {
        let chunk = |(at, counted)| Chunk {
            at: Time::from_nanos(at),
            carries: Carries::Text,
            counted: Some(counted),
        };
        let check = |pieces: &[(u64, u32)], wanted: Option<&[u64]>| {
            let chunks = pieces.iter().copied().map(chunk).collect();
            let tokens = answer(chunks, 5).tokens();
            let tokens = tokens.map(|all| all.iter().map(|at| at.nanos()).collect::<Vec<_>>());
            assert_eq!(tokens.as_deref(), wanted, "{pieces:?}");
        };
        check(&[(100, 1), (130, 4), (140, 5)], Some(&[100, 110, 120, 130, 140]));
        check(&[(100, 2), (120, 4), (130, 5), (131, 5)], Some(&[100, 100, 110, 120, 130]));
        check(&[(100, 1), (130, 4)], None);
        check(&[(100, 5)], None);
    }

    #[test]
    fn pieces_are_tokens_only_where_their_number_says_so() {
        use Carries::{Nothing, Text};
        assert_eq!(tokens(&[Nothing, Text, Text, Nothing], 2), Some(2));
        assert_eq!(tokens(&[Text, Nothing, Text], 3), Some(3));
        assert_eq!(tokens(&[Text, Nothing, Text, Nothing], 3), Some(3));
        assert_eq!(tokens(&[Text, Text], 3), None);
        assert_eq!(tokens(&[Text; 5], 3), None);
        assert_eq!(tokens(&[Text; 4], 3), None);
    }

    #[test]
    fn a_last_piece_without_text_is_a_token_only_where_it_took_a_step() {
        let found = |texts: &[u64], end: u64| {
            let chunk =
                |carries| move |at| Chunk { at: Time::from_nanos(at), carries, counted: None };
            let texts = texts.iter().copied().map(chunk(Carries::Text));
            let chunks: Vec<Chunk> = texts.chain([chunk(Carries::Nothing)(end)]).collect();
            let count = chunks.len() as u32;
            answer(chunks, count).tokens().map(|tokens| tokens.len())
        };
        assert_eq!((found(&[10, 20], 29), found(&[10, 20], 21)), (Some(3), None));
        // Of two tokens, the text of the first came with the second's, or that of the second never.
        assert_eq!((found(&[100], 150), found(&[100], 101)), (Some(2), None));
    }
}
