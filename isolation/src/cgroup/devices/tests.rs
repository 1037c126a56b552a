//! The program against the filter, the filter against a naive model of the v1 controller, and the promises.

use super::*;
use oci_spec::runtime::LinuxDeviceCgroupBuilder;
use proptest::prelude::*;
use proptest::sample::select;

/// Runs a device program as the kernel does, knowing only the instructions we write.
fn run(program: &[u64], kind: Kind, major: u32, minor: u32, access: Access) -> Option<bool> {
    let mut registers = [0_u64; 11];
    let mut at = 0;
    for _ in 0..program.len() + 1 {
        let word = *program.get(at)?;
        let [op, operands, ..] = word.to_le_bytes();
        let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
        let jump = (word >> 16) as i16;
        let value = (word >> 32) as u32;
        let low = registers[to] as u32;
        at += 1;
        let holds = match op {
            0xb7 => {
                registers[to] = i64::from(value as i32) as u64;
                false
            }
            0xbc => {
                registers[to] = u64::from(registers[from] as u32);
                false
            }
            0x54 => {
                registers[to] = u64::from(low & value);
                false
            }
            0x74 => {
                registers[to] = u64::from(low >> value);
                false
            }
            0x61 => {
                assert_eq!(from, 1);
                let context = [u32::from(access.0) << 16 | kind as u32, major, minor];
                registers[to] = u64::from(*context.get(usize::try_from(jump).ok()? / 4)?);
                continue;
            }
            0x05 => true,
            0x16 => low == value,
            0x56 => low != value,
            0x46 => low & value != 0,
            0x95 => return Some(registers[0] == 1),
            _ => return None,
        };
        if holds {
            at += usize::try_from(jump).ok()?;
        }
    }
    None
}

/// The devices controller of cgroup v1 as the kernel's documentation has it, one access bit at a time where lists
/// are concerned.
#[derive(Default)]
struct Model {
    open: bool,
    list: Vec<(Kind, Option<u32>, Option<u32>, u8)>,
}

impl Model {
    fn write(&mut self, allow: bool, kind: Option<Kind>, major: Option<u32>, minor: Option<u32>, access: u8) {
        let Some(kind) = kind else {
            *self = Model { open: allow, list: Vec::new() };
            return;
        };
        for bit in [1, 2, 4].into_iter().filter(|bit| access & bit != 0) {
            let entry = (kind, major, minor, bit);
            self.list.retain(|other| *other != entry);
            if allow != self.open {
                self.list.push(entry);
            }
        }
    }

    /// Bits the exceptions for one and the same set of devices hold together.
    fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let fits = |entry: &&(Kind, Option<u32>, Option<u32>, u8)| {
            entry.0 == kind && entry.1.is_none_or(|n| n == major) && entry.2.is_none_or(|n| n == minor)
        };
        let all: Vec<_> = self.list.iter().filter(fits).collect();
        let held = |set: (Option<u32>, Option<u32>)| {
            all.iter().filter(|entry| (entry.1, entry.2) == set).map(|entry| entry.3).sum::<u8>()
        };
        if self.open {
            !all.iter().any(|entry| entry.3 & access != 0)
        } else {
            all.iter().any(|entry| access & !held((entry.1, entry.2)) == 0)
        }
    }
}

fn rule(allow: bool, kind: char, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let typ = match kind {
        'a' => LinuxDeviceType::A,
        'b' => LinuxDeviceType::B,
        _ => LinuxDeviceType::C,
    };
    let built = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access(access);
    let built = match major {
        Some(major) => built.major(major),
        None => built,
    };
    match minor {
        Some(minor) => built.minor(minor),
        None => built,
    }
    .build()
    .unwrap()
}

fn rules() -> impl Strategy<Value = Vec<LinuxDeviceCgroup>> {
    let number = || {
        select(vec![None, Some(-1), Some(0), Some(1), Some(3), Some(8), Some(0xffff_ffff), Some(0x8000_0000)])
    };
    let access = select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm", "mwr"]);
    let kind = select(vec!['a', 'b', 'b', 'b', 'c', 'c', 'c', 'c']);
    let one = (any::<bool>(), kind, number(), number(), access)
        .prop_map(|(allow, kind, major, minor, access)| rule(allow, kind, major, minor, access));
    proptest::collection::vec(one, 0..10)
}

const NUMBERS: [u32; 8] = [0, 1, 2, 3, 7, 8, 0x8000_0000, 0xffff_ffff];

fn everywhere(mut check: impl FnMut(Kind, u32, u32, Access)) {
    for kind in [Kind::Block, Kind::Char] {
        for major in NUMBERS {
            for minor in NUMBERS {
                (1..8).for_each(|bits| check(kind, major, minor, Access(bits)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Program, filter and model agree on every access to every device, unless the rules are refused.
    #[test]
    fn program_filter_and_model_agree(rules in rules(), defaults in any::<bool>()) {
        let Ok(filter) = Filter::new(&rules, defaults) else { return Ok(()) };
        let mut model = Model::default();
        let wild = |number: Option<i64>| number.filter(|n| *n >= 0).map(|n| n as u32);
        for rule in &rules {
            let kind = match rule.typ() { Some(LinuxDeviceType::B) => Some(Kind::Block), Some(LinuxDeviceType::C) => Some(Kind::Char), _ => None };
            let access = Access::parse(rule.access().as_deref().unwrap()).unwrap().0;
            model.write(rule.allow(), kind, wild(rule.major()), wild(rule.minor()), access);
        }
        if defaults {
            DEFAULTS.iter().for_each(|(d, access)| model.write(true, Some(d.kind), d.major, d.minor, access.0));
        }
        let program = filter.program();
        everywhere(|kind, major, minor, access| {
            let expected = model.allows(kind, major, minor, access.0);
            assert_eq!(run(&program, kind, major, minor, access), Some(expected), "{kind:?} {major}:{minor} {access}\n{rules:?}");
            assert_eq!(filter.allows(kind, major, minor, access), expected);
        });
    }

    /// The verifier refuses code that nothing reaches, and jumps out of the program.
    #[test]
    fn every_instruction_is_reached(rules in rules()) {
        let Ok(filter) = Filter::new(&rules, true) else { return Ok(()) };
        let program = filter.program();
        let mut reached = vec![false; program.len()];
        reached[0] = true;
        for (at, word) in program.iter().enumerate() {
            prop_assert!(reached[at], "{at}: {word:016x} in {rules:?}");
            let op = *word as u8;
            if op & 7 == 6 || op == 5 {
                let to = at + 1 + usize::try_from((word >> 16) as i16).unwrap();
                prop_assert!(to < program.len());
                reached[to] = true;
            }
            if op != 5 && op != 0x95 && at + 1 < program.len() {
                reached[at + 1] = true;
            }
        }
        prop_assert_eq!(*program.last().unwrap(), EXIT);
    }
}

fn parse(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

/// runtime-spec config-linux.md, "Allowed Device list"; runc's AllowedDevices.
#[test]
fn defaults_are_allowed_in_every_container() {
    let filter = Filter::new(&parse(r#"[{"allow":false,"access":"rwm"}]"#), true).unwrap();
    for (major, minor) in
        [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200), (136, 0), (136, 77)]
    {
        assert!(filter.allows(Kind::Char, major, minor, Access::ALL), "{major}:{minor}");
    }
    assert!(filter.allows(Kind::Block, 8, 0, Access::MAKE));
    assert!(!filter.allows(Kind::Block, 8, 0, Access::READ));
    assert!(!filter.allows(Kind::Char, 1, 1, Access::READ));
    assert!(!filter.allows(Kind::Char, 5, 1, Access::WRITE));
    println!("{} instructions", filter.program().len());
    assert!(filter.program().len() <= 32, "{}", filter.program().len());
}

/// What a privileged container is given.
#[test]
fn allow_all_is_short() {
    let filter = Filter::new(&parse(r#"[{"allow":true,"access":"rwm"}]"#), true).unwrap();
    assert!(filter.allows_everything());
    assert_eq!(filter.program().len(), 2);
    assert_eq!(run(&filter.program(), Kind::Block, 8, 0, Access::ALL), Some(true));
}

/// runc's TestDeviceFilter_Weird: a rule of type a forgets what came before it.
#[test]
fn type_a_starts_over() {
    let rules = r#"[{"allow":false,"type":"b","major":8,"minor":1,"access":"rwm"},
        {"allow":true,"type":"a","major":-1,"minor":-1,"access":"rwm"},
        {"allow":false,"type":"b","major":8,"minor":2,"access":"rwm"}]"#;
    let filter = Filter::new(&parse(rules), false).unwrap();
    assert!(filter.allows(Kind::Block, 8, 1, Access::ALL));
    assert!(!filter.allows(Kind::Block, 8, 2, Access::READ));
}

/// The kernel's devices.rst: in an open list, denying one access forbids every open that includes it.
#[test]
fn denied_write_forbids_read_write() {
    let rules = r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
    let filter = Filter::new(&parse(rules), false).unwrap();
    assert!(filter.allows(Kind::Block, 8, 0, Access::READ));
    assert!(!filter.allows(Kind::Block, 8, 0, Access(Access::READ.0 | Access::WRITE.0)));
}

/// All faults at once, each with its place; what runc refuses is refused.
#[test]
fn invalid_rules_are_refused() {
    let rules = r#"[{"allow":true,"type":"u","access":"r"},
        {"allow":true,"type":"c","access":"rx"},
        {"allow":true,"type":"c","major":-2,"minor":4294967296},
        {"allow":true,"type":"c","major":10,"access":"rw"},
        {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#;
    let problems: String =
        Filter::new(&parse(rules), true).unwrap_err().iter().map(|p| format!("{p}\n")).collect();
    assert_eq!(
        problems,
        "/0/type: \"u\": a device rule is for a, b or c\n\
         /1/access: \"rx\": must be letters among r, w and m\n\
         /2/access: \"\": must be letters among r, w and m\n\
         /2/major: -2 is no device number; -1 means all\n\
         /2/minor: 4294967296 is no device number; -1 means all\n\
         /4: cannot take c 10:200 w out of c 10:* rw, allowed before\n"
    );
}

/// Rules that do not do what they seem to are kept as runc has them, but said aloud.
#[test]
fn surprising_rules_are_warned_of() {
    let rules = r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
        {"allow":false,"type":"c","major":10,"access":"rwm"}]"#;
    let filter = Filter::new(&parse(rules), false).unwrap();
    assert!(filter.allows(Kind::Char, 10, 229, Access::READ));
    assert_eq!(
        filter.warnings[0].to_string(),
        "/1: does not change the rule for c 10:229 given before, which stays in force"
    );
    let filter = Filter::new(&parse(r#"[{"allow":true,"access":"r"}]"#), false).unwrap();
    assert!(filter.allows_everything() && filter.warnings.len() == 1);
}
