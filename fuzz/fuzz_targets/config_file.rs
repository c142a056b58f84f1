//! Arbitrary bytes as a configuration file; the body is `tidegate::fuzzing::config_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate::fuzzing::config_file(data));
