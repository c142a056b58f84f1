//! Arbitrary bytes as what happens to a coordinator; the body is `tidegate::fuzzing::coordinator`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::coordinator(data));
