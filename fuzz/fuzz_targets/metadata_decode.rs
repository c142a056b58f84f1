//! Arbitrary bytes as what commits and manifests say; the body is `tidegate::fuzzing::metadata_decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::metadata_decode(data));
