//! Arbitrary bytes as what happens to a store; the body is `tidegate::fuzzing::store_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::store_ops(data));
