//! Strict priority: the highest band with work. Lower bands may wait for ever; only the guard
//! bounds that.

use plimsoll_base::ClassId;

use crate::class_set::ClassSet;
use crate::config::Class;

/// One flow a distinct priority, numbered from the highest.
#[derive(Debug)]
pub(crate) struct Bands {
    /// Indexed by class.
    flow: Vec<u32>,
    /// Indexed by flow: its classes.
    members: Vec<ClassSet>,
}

impl Bands {
    pub fn new(classes: &[Class]) -> Bands {
        let mut priorities: Vec<i32> = classes.iter().map(|class| class.priority).collect();
        priorities.sort_unstable_by(|a, b| b.cmp(a));
        priorities.dedup();
        let mut bands =
            Bands { flow: Vec::new(), members: vec![ClassSet::EMPTY; priorities.len()] };
        for (id, class) in (0..).map(ClassId).zip(classes) {
            let flow = priorities.iter().take_while(|&&other| other > class.priority).count();
            bands.flow.push(flow as u32);
            bands.members[flow].insert(id);
        }
        bands
    }
    pub fn flow(&self, class: ClassId) -> u32 {
        self.flow[class.index()]
    }
    pub fn pick(&self, waiting: ClassSet) -> u32 {
        let first = self.members.iter().position(|members| members.meets(waiting));
        first.expect("every class belongs to a band") as u32
    }
}
