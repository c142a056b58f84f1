//! Arbitrary bytes as frames and payloads; the body is `tidegate::fuzzing::record_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::record_decode(data));
