//! Goal: what people type is understood, and what they read is right. Method: tables of cases.

use std::path::Path;

use super::StoreLocation;
use super::text::{Side, Table, count, duration, plain, short, size, time};
use crate::ids::CheckpointId;

#[test]
fn a_location_is_a_path_or_a_uri_and_may_name_a_checkpoint() {
    for (text, directory, id) in [
        ("state", "state", None),
        ("/var/state#12", "/var/state", Some(12)),
        ("sled:///var/state", "/var/state", None),
        ("sled://localhost/var/state#3", "/var/state", Some(3)),
        ("SLED:///x", "/x", None),
        ("run#12/", "run#12/", None),
        ("run#twelve", "run#twelve", None),
        ("c:\\state", "c:\\state", None),
        ("file:///var/chk-7", "/var/chk-7", None),
        ("FILE://localhost/x#3", "/x", Some(3)),
    ] {
        let location: StoreLocation = text.parse().unwrap();
        assert_eq!(location.directory(), Path::new(directory), "{text}");
        assert_eq!(location.checkpoint(), id.map(CheckpointId), "{text}");
    }
}

#[test]
fn a_location_of_another_storage_is_refused_by_name() {
    for (text, why) in [
        ("s3://bucket", "below it"),
        ("s3://bucket/x?secret_access_key=x", "is a secret"),
        ("s3://bucket/x?regoin=x", "the nearest is region"),
        ("memory:", "scheme memory"),
        ("sled:x", "slashes"),
        ("sled://host/x", "host"),
        ("sled://", "no directory"),
        ("", "no directory"),
        ("#3", "no directory"),
        ("x#99999999999999999999", "no checkpoint"),
    ] {
        let error = text.parse::<StoreLocation>().unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_remote_location_needs_the_feature_of_its_scheme() {
    for (text, feature, is_on) in [
        ("s3://bucket/x#3", "s3", cfg!(feature = "s3")),
        ("gs://bucket/x", "gcs", cfg!(feature = "gcs")),
        ("abfs://container/x", "azure", cfg!(feature = "azure")),
        ("hdfs://host/x", "hdfs", cfg!(feature = "hdfs")),
    ] {
        match text.parse::<StoreLocation>() {
            Ok(location) => assert!(is_on && !location.to_string().is_empty(), "{text}"),
            Err(error) => {
                let named = error.to_string().contains(&format!("needs the feature {feature} "));
                assert!(named && !is_on, "{text}: {error}");
            }
        }
    }
}

#[cfg(feature = "remote")]
#[test]
fn a_remote_location_is_written_as_its_storage_or_as_a_pointer() {
    let text = "test-store://bucket//base/a%20job/?threshold=0&region=eu&create_subdir=true#7";
    let location: StoreLocation = text.parse().unwrap();
    assert_eq!(location.directory(), Path::new("test-store://bucket/base/a%20job"));
    assert_eq!(location.checkpoint(), Some(CheckpointId(7)));
    let printed = location.to_string();
    assert_eq!(printed, "test-store://bucket/base/a%20job?region=eu#7");
    assert_eq!(printed.parse::<StoreLocation>().unwrap(), location);
}

#[test]
fn sizes_times_and_counts_read_well() {
    let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB")];
    for (bytes, text) in sizes {
        assert_eq!(size(bytes), text);
    }
    assert_eq!(size(u64::MAX), "15.9 EiB");
    assert_eq!([duration(9999), duration(12_345)], ["9999 ms", "12.3 s"]);
    assert_eq!([count(1, "job"), count(0, "job")], ["1 job", "0 jobs"]);
    for (ms, text) in [
        (0, "1970-01-01 00:00:00.000Z"),
        (951_782_400_000, "2000-02-29 00:00:00.000Z"),
        (951_868_799_999, "2000-02-29 23:59:59.999Z"),
        (951_868_800_000, "2000-03-01 00:00:00.000Z"),
        (4_107_542_400_000, "2100-03-01 00:00:00.000Z"),
        (1_767_225_599_000, "2025-12-31 23:59:59.000Z"),
    ] {
        assert_eq!(time(ms), text);
    }
    assert!(!time(u64::MAX).is_empty());
}

#[test]
fn text_from_a_store_cannot_move_the_cursor() {
    assert_eq!(plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
    assert_eq!(short(&"x\n".repeat(41)), format!("{}... (2 more)", "x\\n".repeat(40)));
    assert_eq!(short("x"), "x");
    assert_eq!(plain("na\u{ef}ve"), "na\u{ef}ve");
}

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let mut table = Table::new(1, &[("N", Side::Right), ("NAME", Side::Left)]);
    table.row(["7".into(), "x".into()]);
    table.row(["1234".into(), "longer".into()]);
    assert_eq!(table.to_string(), "    N  NAME\n    7  x\n 1234  longer\n");
}
