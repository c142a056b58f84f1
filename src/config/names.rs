//! Choices by name, spelled as Flink spells them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $what:literal, {
        $($(#[$variant_doc:meta])* $variant:ident = $flink:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $flink)] $variant,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Flink's name of the constant.
            pub fn flink_name(self) -> &'static str {
                match self {
                    $(Self::$variant => $flink,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.flink_name())
            }
        }

        /// Reads Flink's name in any case; `-` does not stand for `_`.
        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let named = |value: &&Self| value.flink_name().eq_ignore_ascii_case(text);
                Self::ALL.iter().find(named).copied().ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|value| value.flink_name()).collect();
                    Error::invalid(format!(
                        "{text:?} is not a {}: expected {}",
                        $what,
                        names.join(" or ")
                    ))
                })
            }
        }
    };
}

choice! {
    /// How often a record may take effect when a job restarts (Flink: `CheckpointingMode`).
    CheckpointingMode, "checkpointing mode", {
        /// Every record takes effect once: barriers align the inputs of a task.
        ExactlyOnce = "EXACTLY_ONCE",
        /// Some records may take effect twice after a restart. The host of this crate aligns the
        /// inputs for this mode, too, in this version.
        AtLeastOnce = "AT_LEAST_ONCE",
    }
}

choice! {
    /// What happens to completed checkpoints when a job ends
    /// (Flink: `ExternalizedCheckpointCleanup`, later `ExternalizedCheckpointRetention`).
    ExternalizedCheckpointCleanup, "cleanup of checkpoints", {
        /// Discarded when the job is cancelled, kept when it fails.
        DeleteOnCancellation = "DELETE_ON_CANCELLATION",
        /// Kept when the job is cancelled or fails.
        RetainOnCancellation = "RETAIN_ON_CANCELLATION",
        /// Not kept for anybody but the job itself.
        NoExternalizedCheckpoints = "NO_EXTERNALIZED_CHECKPOINTS",
    }
}
