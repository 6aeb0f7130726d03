//! Telling what stops each class whenever it changes.

use plimsoll_base::{Bound, ClassId, Fact, Observer, Time};

use crate::standing::Standing;

/// Tells a [`Fact::Bound`] whenever what stops a class has changed; remembers what was told last.
#[derive(Clone, Debug)]
pub struct Bounds {
    standing: Standing,
    /// Indexed by class.
    told: Vec<Option<Bound>>,
}

impl Bounds {
    /// Nothing was told yet, of so many classes.
    pub fn new(classes: usize) -> Bounds {
        Bounds { standing: Standing::default(), told: vec![None; classes] }
    }

    /// Tells what has changed since it was told last, mostly nothing.
    #[inline]
    pub fn tell(&mut self, now: Time, standing: Standing, observer: &mut impl Observer) {
        if standing != self.standing {
            self.standing = standing;
            self.tell_changed(now, observer);
        }
    }

    #[inline(never)]
    fn tell_changed(&mut self, now: Time, observer: &mut impl Observer) {
        for (class, told) in (0..).map(ClassId).zip(&mut self.told) {
            let bound = self.standing.bound(class);
            if *told != bound {
                *told = bound;
                observer.observe(now, &Fact::Bound { class, bound });
            }
        }
    }
}
