//! Flows with work in the order of their counters.
//!
//! As long as no class ever steps aside (is at a cap, say) and no request is set aside, one heap of
//! flows tells whose turn it is. The first time one is, a heap for each class is built, once: picking among the
//! classes that may be served is then O(classes), however many flows step aside.

use plimsoll_base::ClassId;

use crate::book::{Book, Turned};
use crate::class_set::ClassSet;
use crate::heap::{Heap, Key};

/// The flows with work, by key.
#[derive(Debug)]
pub(crate) struct Line {
    /// All flows with work; empty once there is a heap for each class.
    all: Heap<i128>,
    /// Indexed by class: the flows with a request of the class waiting.
    by_class: Vec<Heap<i128>>,
    is_split: bool,
}

impl Line {
    pub fn new(classes: usize) -> Line {
        let by_class = (0..classes).map(|_| Heap::EMPTY).collect();
        Line { all: Heap::EMPTY, by_class, is_split: false }
    }

    pub fn enqueued(&mut self, key: i128, class: ClassId, turned: Turned) {
        if self.is_split {
            if turned.lane {
                self.by_class[class.index()].push(key);
            }
        } else if turned.flow {
            self.all.push(key);
        }
    }

    pub fn unqueued(&mut self, flow: u32, class: ClassId, turned: Turned) {
        if self.is_split {
            if turned.lane {
                self.by_class[class.index()].remove(flow);
            }
        } else if turned.flow {
            self.all.remove(flow);
        }
    }

    /// The flow of the key has this key now.
    pub fn change(&mut self, key: i128) {
        if !self.is_split {
            return self.all.change(key);
        }
        for heap in &mut self.by_class {
            heap.change(key);
        }
    }

    /// The least key of those with work.
    pub fn least(&self) -> Option<i128> {
        match self.is_split {
            false => self.all.least(),
            true => self.by_class.iter().filter_map(Heap::least).min(),
        }
    }

    /// The least key of those with a request of an `open` class, of which there is one.
    pub fn least_of(&mut self, book: &Book, open: ClassSet) -> i128 {
        let waiting = book.waiting();
        // A flow whose requests are all aside has work and nothing that may go.
        let some_step_aside = !waiting.without(open).is_empty() || !book.aside().is_empty();
        if !self.is_split && some_step_aside {
            self.split(book);
        }
        let least = match self.is_split {
            false => self.all.least(),
            true => waiting.and(open).filter_map(|c| self.by_class[c.index()].least()).min(),
        };
        least.expect("a class with work has a flow in the line")
    }

    fn split(&mut self, book: &Book) {
        self.is_split = true;
        for &key in std::mem::replace(&mut self.all, Heap::EMPTY).keys() {
            for class in book.waiting_in(key.member()) {
                self.by_class[class.index()].push(key);
            }
        }
    }
}
