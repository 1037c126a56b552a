//! An assembler for classic BPF that works from the end of the program to its beginning.
//!
//! All jumps of BPF go forward, so whatever a jump leads to has been written already, and its distance is known.
//! A conditional jump reaches 255 instructions; what lies beyond is brought near by a copy or an unconditional jump.

use crate::sys::seccomp::Instruction;

// linux/bpf_common.h, in the combinations a seccomp filter needs.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where `nr`, `arch` and the arguments are in `struct seccomp_data` (seccomp(2)).
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGS: u32 = 16;

/// How far from a conditional jump its target may be: 255, less room to bring the other target near.
const REACH: usize = 250;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// What a jump leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Code already written.
    Code(Place),
    /// An instruction that returns this value.
    Return(u32),
}

/// A program under construction.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// For each target used so far, the place nearest to the front that does the same.
    near: Vec<(Target, Place)>,
}

impl Assembler {
    /// Puts an instruction before all others.
    pub(super) fn push(&mut self, code: u16, k: u32) -> Place {
        self.push_raw(Instruction { code, jt: 0, jf: 0, k })
    }

    /// Puts a ready instruction before all others; its jumps are its own affair.
    pub(super) fn push_raw(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        Place(self.reversed.len() - 1)
    }

    /// Puts a conditional jump before all others.
    pub(super) fn branch(&mut self, code: u16, k: u32, then: Target, otherwise: Target) -> Place {
        let then = self.reach(then);
        let otherwise = self.reach(otherwise);
        let (jt, jf) = (self.offset(then), self.offset(otherwise));
        self.push_raw(Instruction { code, jt, jf, k })
    }

    /// A place close enough to jump to that does what `target` does.
    pub(super) fn reach(&mut self, target: Target) -> Place {
        let known = self.near.iter().position(|(other, _)| *other == target);
        let from = match (known, target) {
            (Some(i), _) => Some(self.near[i].1),
            (None, Target::Code(place)) => Some(place),
            (None, Target::Return(_)) => None,
        };
        if let Some(place) = from
            && self.distance(place) <= REACH
        {
            return place;
        }
        let place = match target {
            Target::Return(value) => self.push(RETURN, value),
            Target::Code(code) => self.jump(code),
        };
        match known {
            Some(i) => self.near[i].1 = place,
            None => self.near.push((target, place)),
        }
        place
    }

    /// Makes sure that an instruction put before all others is followed by what is at `to`.
    pub(super) fn continue_at(&mut self, to: Place) {
        if self.distance(to) > 0 {
            self.jump(to);
        }
    }

    fn jump(&mut self, to: Place) -> Place {
        let distance = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        self.push(JUMP, distance)
    }

    /// Instructions to skip from one put at the front now.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - 1 - to.0
    }

    fn offset(&self, to: Place) -> u8 {
        u8::try_from(self.distance(to)).expect("reach() brought the target within 255 instructions")
    }

    /// The program in the order it runs.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
