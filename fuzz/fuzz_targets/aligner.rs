//! Arbitrary bytes as what comes to a barrier handler; the body is `tidegate::fuzzing::aligner`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::aligner(data));
