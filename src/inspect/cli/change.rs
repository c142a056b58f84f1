//! The verbs that change a store: `delete`, `pin`, `unpin`, `gc` and `repair`.

use clap::{Args, Subcommand};
use indicatif::ProgressBar;

use super::{Answer, Common, EXIT_NO, EXIT_OK, WithId, show_progress};
use crate::error::{Error, Result};
use crate::inspect::{
    ChangedCheckpoint, collect_garbage, delete_checkpoint, pin_checkpoint, repair_store,
};

/// One of the verbs. Each needs the store to be free.
#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// Deletes a completed checkpoint and frees what only it used; a pinned one is refused
    Delete(WithId),
    /// Pins a completed checkpoint: neither retention nor delete takes it
    Pin(WithId),
    /// Takes the pin of a checkpoint back
    Unpin(WithId),
    /// Frees everything that no completed checkpoint needs
    Gc(Common),
    /// Recovers what a damaged store still holds; what cannot be read is moved to lost/
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    #[command(flatten)]
    common: Common,

    /// Gives up checkpoints that cannot be recovered, but for pinned ones
    #[arg(long)]
    drop_broken: bool,
}

impl Change {
    pub(super) fn answer(&self, bar: Option<ProgressBar>) -> Result<Answer> {
        match self {
            Self::Delete(WithId { common, id }) => {
                let id = common.checkpoint(*id)?.ok_or_else(|| unnamed("delete"))?;
                let job = common.job.as_deref();
                common.changed(&delete_checkpoint(common.sled_store()?, job, id)?)
            }
            Self::Pin(with_id) => with_id.pin("pin", true),
            Self::Unpin(with_id) => with_id.pin("unpin", false),
            Self::Gc(common) => {
                common.whole_store("gc")?;
                common.answer(&collect_garbage(common.sled_store()?)?, EXIT_OK)
            }
            Self::Repair(Repair { common, drop_broken }) => {
                common.whole_store("repair")?;
                let directory = common.sled_store()?;
                let repaired = repair_store(directory, *drop_broken, &mut |progress| {
                    show_progress(bar.as_ref(), progress);
                });
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                let repaired = repaired?;
                let is_whole = repaired.lost.iter().all(|lost| lost.dropped);
                common.answer(&repaired, if is_whole { EXIT_OK } else { EXIT_NO })
            }
        }
    }
}

impl WithId {
    fn pin(&self, verb: &str, pinned: bool) -> Result<Answer> {
        let Self { common, id } = self;
        let id = common.checkpoint(*id)?.ok_or_else(|| unnamed(verb))?;
        let job = common.job.as_deref();
        common.changed(&pin_checkpoint(common.sled_store()?, job, id, pinned)?)
    }
}

impl Common {
    fn changed(&self, changed: &ChangedCheckpoint) -> Result<Answer> {
        self.answer(changed, EXIT_OK)
    }

    /// The directory of a sled store; the verbs here know no other.
    fn sled_store(&self) -> Result<&std::path::Path> {
        if self.store.place().is_no_sled() {
            let message = format!("{} is no sled store; this verb changes one", self.store);
            return Err(Error::invalid(message));
        }
        Ok(self.store.directory())
    }

    fn whole_store(&self, verb: &str) -> Result<()> {
        if self.store.checkpoint().is_some() || self.job.is_some() {
            let message = format!("{verb} takes a whole store, not a checkpoint or a job of it");
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

fn unnamed(verb: &str) -> Error {
    Error::invalid(format!("{verb} needs the id of a checkpoint, as STORE ID or STORE#ID"))
}
