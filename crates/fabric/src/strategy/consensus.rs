//! [`Consensus`]: what ranks agree on between steps.

use fulgurite_torch::distributed::{ProcessGroup, ReduceOp, Work};
use fulgurite_torch::tch::Tensor;

use crate::FabricError;

/// Flags that any rank may set: a request to stop, a signal, a time limit.
///
/// They are exchanged while the next step is computed, so that an exchange after every step costs next to nothing: what
/// one rank sets after a step is known to all ranks after the next one.
#[derive(Debug)]
pub struct Consensus {
    group: ProcessGroup,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    work: Work,
    answers: Tensor,
}

/// Questions that can be asked at once.
const QUESTIONS: usize = u32::BITS as usize;

impl Consensus {
    /// Of the ranks of a group on the CPU.
    pub fn new(group: ProcessGroup) -> Consensus {
        Consensus { group, pending: None }
    }

    /// Sends this rank's answers, one bit each, and returns what any rank had said at the last exchange.
    ///
    /// # Errors
    ///
    /// Fails if another process is gone.
    pub fn exchange(&mut self, answers: u32) -> Result<u32, FabricError> {
        let agreed = self.finish()?;
        self.begin(answers)?;
        Ok(agreed)
    }

    /// What any rank says now, with what was said at the last exchange. Waits for all ranks.
    ///
    /// # Errors
    ///
    /// Fails if another process is gone.
    pub fn settle(&mut self, answers: u32) -> Result<u32, FabricError> {
        let earlier = self.finish()?;
        self.begin(answers)?;
        Ok(earlier | self.finish()?)
    }

    fn begin(&mut self, answers: u32) -> Result<(), FabricError> {
        let bits: [u8; QUESTIONS] = std::array::from_fn(|question| (answers >> question & 1) as u8);
        let answers = Tensor::f_from_slice(&bits)?;
        let work = self.group.all_reduce_async(&answers, ReduceOp::Max)?;
        self.pending = Some(Pending { work, answers });
        Ok(())
    }

    fn finish(&mut self) -> Result<u32, FabricError> {
        let Some(Pending { work, answers }) = self.pending.take() else { return Ok(0) };
        work.wait()?;
        let mut bits = [0u8; QUESTIONS];
        answers.f_copy_data(&mut bits, QUESTIONS)?;
        Ok(bits.iter().enumerate().fold(0, |agreed, (question, bit)| agreed | u32::from(*bit != 0) << question))
    }
}
