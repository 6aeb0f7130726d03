//! Connections that end.

use std::error::Error;
use std::io::{self, ErrorKind};

/// Whether the other side has closed the connection at once, by what an error says of its causes. A
/// server does so that has closed it, because it was idle, while a request was on its way.
pub(super) fn was_reset(error: &(dyn Error + 'static)) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    let resets = [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];
    kind.is_some_and(|kind| resets.contains(&kind)) || error.source().is_some_and(was_reset)
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Failed(io::Error);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it failed")
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_reset_is_found_among_the_causes() {
        for (kind, is) in [(ErrorKind::ConnectionReset, true), (ErrorKind::TimedOut, false)] {
            assert_eq!(was_reset(&io::Error::from(kind)), is);
            assert_eq!(was_reset(&Failed(kind.into())), is);
        }
    }
}
