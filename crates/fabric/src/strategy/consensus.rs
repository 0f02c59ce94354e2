//! [`Consensus`]: flags that ranks agree on between steps.

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
    flags: Tensor,
}

/// The number of flags.
const FLAGS: usize = u32::BITS as usize;

impl Consensus {
    /// Synchronizes the flags of the ranks of a group on the CPU.
    pub fn new(group: ProcessGroup) -> Consensus {
        Consensus { group, pending: None }
    }

    /// Starts to exchange this rank's flags, one bit each, and returns those that any rank set in the previous
    /// exchange.
    ///
    /// # Errors
    ///
    /// Fails if another process has exited.
    pub fn exchange(&mut self, flags: u32) -> Result<u32, FabricError> {
        let agreed = self.finish()?;
        self.begin(flags)?;
        Ok(agreed)
    }

    /// Returns the flags that any rank sets now or set in the previous exchange. Waits for all ranks.
    ///
    /// # Errors
    ///
    /// Fails if another process has exited.
    pub fn exchange_now(&mut self, flags: u32) -> Result<u32, FabricError> {
        let earlier = self.finish()?;
        self.begin(flags)?;
        Ok(earlier | self.finish()?)
    }

    fn begin(&mut self, flags: u32) -> Result<(), FabricError> {
        let bits: [u8; FLAGS] = std::array::from_fn(|index| (flags >> index & 1) as u8);
        let flags = Tensor::f_from_slice(&bits)?;
        let work = self.group.all_reduce_async(&flags, ReduceOp::Max)?;
        self.pending = Some(Pending { work, flags });
        Ok(())
    }

    fn finish(&mut self) -> Result<u32, FabricError> {
        let Some(Pending { work, flags }) = self.pending.take() else { return Ok(0) };
        work.wait()?;
        let mut bits = [0u8; FLAGS];
        flags.f_copy_data(&mut bits, FLAGS)?;
        Ok(bits.iter().enumerate().fold(0, |agreed, (index, bit)| agreed | u32::from(*bit != 0) << index))
    }
}
