//! Runs with several processes: agreement between ranks, and decisions of rank zero.

use fulgurite_data::{Batch, BoxLoader, Remainder, Shard};
use fulgurite_fabric::loggers::Logger;
use fulgurite_fabric::strategy::Consensus;
use fulgurite_torch::{Value, rng};

use crate::config::ValCheckInterval;
use crate::diagnostics::LostLoss;
use crate::engine::Engine;
use crate::error::Error;
use crate::loops::{Numbered, of_loader};
use crate::stage::Stage;
use crate::state::{Length, TrainerState};

mod follower;

use follower::FollowerLogger;

impl Engine {
    /// Reports that other processes did not respond, which ended the run. Every machine prints this, since its user may
    /// see no other output.
    pub(crate) fn say_how_to_go_on(&self) {
        let saves = self.checkpointers().next().is_some();
        if saves && self.state.fabric.local_rank() == 0 {
            self.state.console().print(
                "other processes of the run are lost; start it again on all machines with ckpt_path=\"auto\" (--resume), and it resumes from its newest checkpoint",
            );
        }
    }
}

impl TrainerState {
    /// Start of a run: no requests yet.
    pub(crate) fn begin_requests(&mut self) {
        let consensus = self.fabric.strategy().control_group().map(|group| Consensus::new(group.clone()));
        self.shutdown.signals.await_agreement(consensus.is_some());
        self.requests.begin(consensus);
    }

    /// After a batch: receives the requests that ranks made after the previous one.
    pub(crate) fn sync_requests(&mut self) -> Result<(), Error> {
        let calls = self.calls_to_validate();
        let loss_is_lost = self.requests.sync(&mut self.shutdown, calls, Consensus::exchange)?;
        if loss_is_lost { self.report_lost_loss() } else { Ok(()) }
    }

    /// Between epochs, where waiting costs nothing: receives the current requests of all ranks.
    pub(crate) fn settle_requests(&mut self) -> Result<(), Error> {
        let calls = self.calls_to_validate();
        let loss_is_lost = self.requests.sync(&mut self.shutdown, calls, Consensus::exchange_now)?;
        if loss_is_lost { self.report_lost_loss() } else { Ok(()) }
    }

    fn report_lost_loss(&self) -> Result<(), Error> {
        if let Some(first) = self.first_lost_loss()? {
            self.warn(&first.to_string());
        }
        Ok(())
    }

    /// The first loss of any rank that was not finite, in which the rank is named.
    pub(crate) fn first_lost_loss(&self) -> Result<Option<LostLoss>, Error> {
        let mine = self.diagnostics.losses.first().map_or(Value::None, |loss| Value::Dict(loss.to_dict()));
        let of_ranks = self.fabric.strategy().all_gather_values(mine)?;
        let of_ranks = of_ranks.iter().enumerate();
        let lost = of_ranks.filter_map(|(rank, loss)| Some(LostLoss::of_rank(rank, loss.as_dict()?)));
        Ok(lost.min_by_key(LostLoss::order))
    }

    /// After a trial: discards the requests that were made in it.
    pub(crate) fn forget_requests_of_trial(&mut self) -> Result<(), Error> {
        self.settle_requests()?;
        self.requests.forget();
        Ok(())
    }

    /// Rank zero's clock decides, and calls once for each validation: all ranks receive it a batch later.
    fn calls_to_validate(&self) -> bool {
        let ValCheckInterval::Time(interval) = self.config.val_check_interval else { return false };
        self.is_global_zero()
            && self.stage() == Stage::Train
            && self.requests.may_call_to_validate()
            && self.fit.epoch.validation.time_has_passed(interval)
    }

    /// Reduces what was logged in this epoch over all ranks.
    pub(crate) fn reduce_over_ranks(&mut self) -> Result<(), Error> {
        self.metrics.reduce_over_ranks(self.fabric.strategy())
    }

    /// Shards a loader for this rank, unless the loader does so itself.
    pub(crate) fn shard<B: Batch>(
        &self,
        stage: Stage,
        loader: &mut BoxLoader<B>,
        remainder: Remainder,
    ) -> Result<(), Error> {
        if !self.is_distributed() || !self.config.use_distributed_sampler {
            return Ok(());
        }
        let shard = Shard::new(self.fabric.world_size(), self.fabric.global_rank());
        let shard = shard.map_err(|error| Error::Config(error.to_string()))?;
        match of_loader(stage, || loader.shard(shard.remainder(remainder)))? {
            Some(part) => *loader = part,
            None => self.warn(
                "a loader cannot be divided among processes (`Loader::shard` returns None), so every process reads all of it; let each read its own part, or ignore this if they do",
            ),
        }
        Ok(())
    }

    /// The number of training batches that all ranks have. Additional batches of some ranks are dropped, because a rank
    /// without a batch could not participate in the steps of the others.
    pub(crate) fn fewest_batches(&self, len: Length) -> Result<Length, Error> {
        let lens = self.lengths_of_ranks(len)?;
        let said = lens.iter().map(|len| len.said).min().flatten();
        if lens.iter().any(|len| len.said != said) {
            let counts: Vec<String> = lens
                .iter()
                .map(|len| len.said.map_or("an unknown number".to_owned(), |said| said.to_string()))
                .collect();
            self.warn(&format!(
                "the processes have {} training batches; an epoch ends with the first that has no more",
                counts.join(", ")
            ));
        }
        Ok(Length { said, is_exact: lens.iter().all(|len| len.is_exact) })
    }

    /// The maximum number of evaluation batches of any rank, if known, and the number that every rank is sure to have.
    pub(crate) fn most_and_fewest_batches(&self, len: Length) -> Result<(Option<usize>, usize), Error> {
        let lens = self.lengths_of_ranks(len)?;
        let all = |of: fn(&Length) -> Option<usize>| lens.iter().map(of).collect::<Option<Vec<usize>>>();
        let most = all(|len| len.said).and_then(|said| said.into_iter().max());
        let fewest = all(|len| len.exact()).and_then(|exact| exact.into_iter().min());
        Ok((most, fewest.unwrap_or(0)))
    }

    fn lengths_of_ranks(&self, len: Length) -> Result<Vec<Length>, Error> {
        if !self.is_distributed() {
            return Ok(vec![len]);
        }
        let said = len.said.map_or(Value::None, |len| Value::Int(len as i64));
        let of_ranks = self.fabric.strategy().all_gather_values(Value::Tuple(vec![said, len.is_exact.into()]))?;
        let of_rank = |told: &Value| {
            let (said, is_exact) = match told.as_list() {
                Some([said, is_exact]) => (said.as_int(), is_exact.as_bool()),
                _ => (None, None),
            };
            Length { said: said.and_then(|said| usize::try_from(said).ok()), is_exact: is_exact.unwrap_or(false) }
        };
        Ok(of_ranks.iter().map(of_rank).collect())
    }

    /// An epoch of loaders that are not sure of their length ends on all ranks with the first that has no more batches.
    pub(crate) fn end_together<B: Batch>(&self, next: Option<Numbered<B>>) -> Result<Option<Numbered<B>>, Error> {
        if !self.is_distributed() || self.training_data.len().is_exact {
            return Ok(next);
        }
        let any_rank = |says: bool| self.fabric.strategy().reduce_boolean_decision(says, false);
        if any_rank(next.is_none())? {
            return Ok(None);
        }
        let is_last = any_rank(next.as_ref().is_some_and(|next| next.is_last))?;
        Ok(next.map(|next| Numbered { is_last, ..next }))
    }

    /// On ranks other than zero: loggers that write nothing, with the names and folders of rank zero's. `version` and
    /// folders may change until the run starts.
    pub(crate) fn follow_loggers_of_rank_zero(&mut self) -> Result<(), Error> {
        if !self.is_distributed() {
            return Ok(());
        }
        let described = self.fabric.loggers.iter().map(|logger| follower::describe(logger.as_ref())).collect();
        let described = self.fabric.strategy().broadcast(Value::List(described), 0)?;
        if !self.is_global_zero() {
            let described = described.as_list().unwrap_or_default();
            let follow = |described: &Value| Box::new(FollowerLogger::new(described)) as Box<dyn Logger>;
            self.fabric.loggers = described.iter().map(follow).collect();
        }
        Ok(())
    }

    /// One order of data for all ranks, also without a given seed.
    pub(crate) fn share_global_seed(&self) -> Result<(), Error> {
        // A bitwise cast: a value has signed integers.
        let seed = self.fabric.strategy().broadcast(Value::Int(rng::global_seed() as i64), 0)?;
        rng::set_global_seed(seed.as_int().map_or_else(rng::global_seed, |seed| seed as u64));
        Ok(())
    }

    /// Different random numbers for each rank: the same seed everywhere would give every rank the same dropout masks.
    pub(crate) fn seed_rank(&self) -> Result<(), Error> {
        let rank = self.fabric.global_rank() as u64;
        if rank > 0 {
            // Far from any seed that a user would choose for another run.
            rng::manual_seed(rng::global_seed().wrapping_add(rank.wrapping_mul(0x9E37_79B9_7F4A_7C15)))?;
        }
        Ok(())
    }
}
