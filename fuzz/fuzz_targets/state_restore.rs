//! Arbitrary bytes as the sections of states; the body is `tidegate::fuzzing::state_restore`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::state_restore(data));
