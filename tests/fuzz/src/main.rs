//! The fuzzer of config.json: libFuzzer calls it with ever new texts.
#![no_main]

mod check;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    check::configuration(text);
});
