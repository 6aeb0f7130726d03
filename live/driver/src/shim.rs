use plimsoll_base::{Observer, Span, Time};
use plimsoll_policy::{Allocator, Config, Decision, Input, Signal};
pub struct Chronicle;
impl Chronicle {
    pub fn new(_: &Config, _: Span) -> Chronicle {
        Chronicle
    }
    pub fn input(&mut self, _: Time, _: &Input, _: &Allocator, _: &mut impl Observer) {}
    pub fn decision(&mut self, _: Time, _: &Decision, _: &Allocator, _: &mut impl Observer) {}
    pub fn signal(&mut self, _: Time, _: &Signal, _: &mut impl Observer) {}
    pub fn rest(&mut self, _: Time, _: &Allocator, _: &mut impl Observer) {}
    pub fn finish(&mut self, _: Time, _: &mut impl Observer) {}
    pub fn resume(&mut self, _: &Config) {}
}
