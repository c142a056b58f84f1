//! Arbitrary bytes as a segment of the log, and as frames with damage; the body is `tidegate::fuzzing::segment_scan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::segment_scan(data));
