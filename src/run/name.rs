//! Names for containers that were given none.

use std::{
    hash::{BuildHasher, RandomState},
    process,
};

const MANNERS: [&str; 32] = [
    "able", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cool", "deft", "eager", "fair",
    "fast", "firm", "fond", "free", "glad", "hardy", "keen", "kind", "light", "lucid", "merry", "neat",
    "noble", "plain", "proud", "quick", "quiet", "ready", "sound", "swift",
];

const BIRDS: [&str; 32] = [
    "auk", "avocet", "bittern", "bunting", "coot", "crane", "curlew", "dipper", "dove", "dunlin", "egret",
    "eider", "finch", "gannet", "goose", "grebe", "heron", "jackdaw", "kite", "lark", "linnet", "merlin",
    "osprey", "owl", "plover", "raven", "robin", "stork", "swan", "tern", "thrush", "wren",
];

/// A name such as `calm-heron-2f81`, which `is_taken` says is free.
pub fn generate(is_taken: impl Fn(&str) -> bool) -> String {
    loop {
        // The hasher's keys come from the kernel's random numbers.
        let number = RandomState::new().hash_one(process::id());
        let pick = |words: &[&'static str; 32], shift: u32| words[(number >> shift) as usize % words.len()];
        let name = format!("{}-{}-{:04x}", pick(&MANNERS, 0), pick(&BIRDS, 8), number >> 48);
        if !is_taken(&name) {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_generated_name_is_a_container_id_and_a_host_name() {
        for _ in 0..100 {
            let name = generate(|_| false);
            assert!(
                name.len() < 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_taken_name_is_not_given_again() {
        let taken = Cell::new(String::new());
        let name = generate(|name| taken.replace(name.to_owned()).is_empty());
        assert_eq!(name, taken.into_inner());
    }
}
