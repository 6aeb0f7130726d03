//! Which slot of the allocator is whose. A slot belongs to a name for as long as the gateway runs,
//! so that a file that is read again moves nobody who has something to finish.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_base::ModelId;
use plimsoll_config::gateway::GatewayFile;
use plimsoll_driver::Offers;

use crate::keys::Keys;
use crate::upstream::Upstream;

/// Who has a slot.
#[derive(Clone)]
pub(crate) enum Place {
    /// A backend of the file.
    Backend(Arc<Upstream>),
    /// A backend that the file names no more: what runs there goes on to its end.
    Removed(Arc<Upstream>),
    /// A resource, by its index in the file.
    Resource(usize),
}

/// Who has which slot, indexed by slot.
#[derive(Clone, Default)]
pub(crate) struct Places(Vec<Place>);

/// What becomes different when a file is read again, by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    /// Backends that were not there, or that are somewhere else than they were.
    pub joining: Vec<u32>,
    /// Backends that are where they were, and are looked after or asked in another way.
    pub changing: Vec<u32>,
    /// Backends and resources that offer something else while they hold what they hold.
    pub offers: Offers,
    /// Backends that nothing new goes to: removed, or somewhere else than they were.
    pub leaving: Vec<u32>,
    /// Resources that were not there.
    pub lent: Vec<u32>,
}

impl Places {
    /// The places of the first file: its backends, then its resources.
    pub fn new(file: &GatewayFile, keys: &Keys) -> Places {
        Places::default().after(file, (file, keys), &BTreeSet::new()).0
    }

    /// Who has a slot.
    pub fn get(&self, slot: u32) -> Option<&Place> {
        self.0.get(slot as usize)
    }

    /// The backend of a slot, also if it was removed.
    pub fn upstream(&self, slot: usize) -> Option<&Arc<Upstream>> {
        match self.0.get(slot)? {
            Place::Backend(upstream) | Place::Removed(upstream) => Some(upstream),
            Place::Resource(_) => None,
        }
    }

    /// Whether a backend other than this one could be given a request for a model now.
    pub fn has_other(&self, this: &Upstream, model: ModelId) -> bool {
        self.0.iter().any(|place| match place {
            Place::Backend(other) => {
                !std::ptr::eq(&**other, this)
                    && other.backend.serves(model)
                    && other.breaker.is_here()
            }
            Place::Removed(_) | Place::Resource(_) => false,
        })
    }

    /// All of them, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Place)> {
        (0..).zip(&self.0)
    }

    /// The places under another file than the one `before`, and what that moves. The slot of a
    /// backend that was removed earlier is given away once nothing is `held` there.
    pub fn after(
        &self,
        before: &GatewayFile,
        (file, keys): (&GatewayFile, &Keys),
        held: &BTreeSet<u32>,
    ) -> (Places, Moves) {
        let mut next = self.clone();
        let mut moves = Moves::default();
        next.remove(file, &mut moves);
        let free = |places: &Places| {
            let mut free = self.iter().filter(|(slot, place)| {
                let left = matches!(place, Place::Removed(_)) && !held.contains(slot);
                left && matches!(places.0[*slot as usize], Place::Removed(_))
            });
            free.next().map(|(slot, _)| slot)
        };
        let mut unknown = Vec::new();
        for (index, backend) in file.backends.iter().enumerate() {
            let upstream = Upstream::new(backend.clone(), keys.upstream(index));
            match self.find(&backend.name) {
                Some(slot) => next.change(slot, upstream, &mut moves),
                None => unknown.push(upstream),
            }
        }
        for upstream in unknown {
            let slot = free(&next);
            moves.joining.push(next.put(slot, Place::Backend(Arc::new(upstream))));
        }
        for (index, resource) in file.resources.iter().enumerate() {
            match self.find_resource(index) {
                Some(slot) if before.resources[index].info != resource.info => {
                    moves.offers.push((slot, resource.info));
                }
                Some(_) => {}
                None => {
                    let slot = free(&next);
                    moves.lent.push(next.put(slot, Place::Resource(index)));
                }
            }
        }
        (next, moves)
    }

    /// Marks the backends that a file names no more.
    fn remove(&mut self, file: &GatewayFile, moves: &mut Moves) {
        for (slot, place) in (0..).zip(&mut self.0) {
            let Place::Backend(upstream) = place else { continue };
            if file.backends.iter().all(|backend| backend.name != upstream.backend.name) {
                moves.leaving.push(slot);
                *place = Place::Removed(Arc::clone(upstream));
            }
        }
    }

    /// Puts a backend in the slot that its name has had.
    fn change(&mut self, slot: u32, fresh: Upstream, moves: &mut Moves) {
        let place = &mut self.0[slot as usize];
        match place {
            Place::Backend(old) if old.is_same(&fresh) => return,
            Place::Backend(old) if old.backend.url == fresh.backend.url => {
                moves.changing.push(slot);
                if old.backend.info != fresh.backend.info {
                    moves.offers.push((slot, fresh.backend.info));
                }
            }
            Place::Backend(_) => {
                moves.leaving.push(slot);
                moves.joining.push(slot);
            }
            Place::Removed(_) | Place::Resource(_) => moves.joining.push(slot),
        }
        *place = Place::Backend(Arc::new(fresh));
    }

    fn put(&mut self, slot: Option<u32>, place: Place) -> u32 {
        match slot {
            Some(slot) => {
                self.0[slot as usize] = place;
                slot
            }
            None => {
                self.0.push(place);
                self.0.len() as u32 - 1
            }
        }
    }

    fn find(&self, name: &str) -> Option<u32> {
        let has_name = |(slot, _): &(u32, &Place)| {
            self.upstream(*slot as usize).is_some_and(|upstream| upstream.backend.name == name)
        };
        self.iter().find(has_name).map(|(slot, _)| slot)
    }

    fn find_resource(&self, wanted: usize) -> Option<u32> {
        let is_it = |place: &Place| matches!(place, Place::Resource(index) if *index == wanted);
        self.iter().find(|(_, place)| is_it(place)).map(|(slot, _)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_config::{Shipped, read};

    /// A gateway over backends `name:seats:port` and a resource.
    fn file(backends: &str, resources: &str) -> GatewayFile {
        const FILE: &str = r#"
schema_version = 1
name = "small"
class = [{ name = "chat" }]
policy = { classify = [{ rule = "match", class = "chat" }] }
gateway = { listen = "127.0.0.1:0" }
"#;
        const SHIPPED: Shipped = &[("small", FILE)];
        let backends: Vec<_> = backends
            .split(' ')
            .map(|written| {
                let [name, seats, port] = written.split(':').collect::<Vec<_>>()[..] else {
                    panic!("{written}")
                };
                format!(
                    "{{ name = \"{name}\", url = \"http://h:{port}\", kind = \"vllm\", \
                     seats = {seats}, kv_tokens = 1000 }}"
                )
            })
            .collect();
        let resources = resources.split_whitespace();
        let resources: Vec<_> =
            resources.map(|name| format!("{{ name = \"{name}\", seats = 1 }}")).collect();
        let settings = [
            format!("backend=[{}]", backends.join(",")),
            format!("resource=[{}]", resources.join(",")),
        ];
        let layered = read(std::path::Path::new("shipped:small"), &settings, SHIPPED);
        let file = layered.and_then(|layered| layered.gateway_file());
        file.unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn names(places: &Places, file: &GatewayFile) -> String {
        let name = |(_, place): (u32, &Place)| match place {
            Place::Backend(upstream) => upstream.backend.name.clone(),
            Place::Removed(upstream) => format!("-{}", upstream.backend.name),
            Place::Resource(index) => format!("+{}", file.resources[*index].name),
        };
        places.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nobody_moves() {
        let keys = Keys::default();
        let free = BTreeSet::new();
        let first = file("a:1:1 b:1:1", "r");
        let places = Places::new(&first, &keys);
        assert_eq!(names(&places, &first), "a b +r");

        let next = file("c:1:1 b:1:1", "r s");
        let (places, moves) = places.after(&first, (&next, &keys), &free);
        assert_eq!(names(&places, &next), "-a b +r c +s");
        let wanted =
            Moves { joining: vec![3], leaving: vec![0], lent: vec![4], ..Moves::default() };
        assert_eq!(moves, wanted, "what was removed just now keeps its slot");

        let third = file("d:1:1 b:1:1 c:1:1", "r s");
        let (kept, _) = places.after(&next, (&third, &keys), &BTreeSet::from([0]));
        assert_eq!(names(&kept, &third), "-a b +r c +s d", "something runs there");
        let (given, moves) = places.after(&next, (&third, &keys), &free);
        assert_eq!(names(&given, &third), "d b +r c +s");
        assert_eq!(moves, Moves { joining: vec![0], ..Moves::default() });

        let back = file("a:1:1 b:1:1 c:1:1", "r s");
        let (places, moves) = places.after(&next, (&back, &keys), &free);
        assert_eq!(names(&places, &back), "a b +r c +s", "it comes back to its own slot");
        assert_eq!(moves, Moves { joining: vec![0], ..Moves::default() });
    }

    #[test]
    fn what_changes_is_told_apart() {
        let keys = Keys::default();
        let first = file("a:1:1 b:1:1 c:1:1", "");
        let next = file("c:1:1 b:2:1 a:1:2", "");
        let places = Places::new(&first, &keys);
        let (after, moves) = places.after(&first, (&next, &keys), &BTreeSet::new());
        let offers = vec![(1, next.backends[1].info)];
        let wanted = Moves {
            joining: vec![0],
            leaving: vec![0],
            changing: vec![1],
            offers,
            ..Moves::default()
        };
        assert_eq!(moves, wanted, "a moved, b has another seat, c is only written elsewhere");
        assert_eq!(names(&after, &next), "a b c");
        assert!(Arc::ptr_eq(
            after.upstream(2).expect("a backend"),
            places.upstream(2).expect("a backend")
        ));
    }
}
