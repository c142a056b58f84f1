//! The second operator: the running average of the prices in each category.

use serde::{Deserialize, Serialize};
use tidegate::Result;
use tidegate::local::{Output, Scope};
use tidegate::state::ValueState;

use crate::event::{Row, Winner};

/// The name of the state.
const PRICES: &str = "prices";

/// An average, as its parts.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Prices {
    closed: u64,
    total: u64,
}

/// One subtask.
pub(crate) struct Averages {
    /// Of the category of the winner at hand.
    prices: ValueState<Prices>,
}

impl Averages {
    pub(crate) fn new(scope: &mut Scope) -> Result<Self> {
        Ok(Self { prices: scope.value_state::<u64, _>(PRICES)? })
    }

    pub(crate) fn take(&mut self, winner: Winner, output: &mut Output<Row>) -> Result<()> {
        let Prices { closed, total } = self.prices.update(|prices| {
            prices.closed += 1;
            prices.total += winner.price;
            *prices
        })?;
        output.emit(Row { winner, closed, total })
    }
}
