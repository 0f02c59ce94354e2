//! A deep Q-network: learns to balance a pole on a cart by trying, as in *Human-level control through deep reinforcement
//! learning* (Mnih et al. 2015).
//!
//! `cargo run --release --example dqn -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

mod cart_pole;
mod replay;

use cart_pole::{CartPole, State};
use clap::Parser;
use fulgurite::data::rand::{RngExt, SeedableRng};
use fulgurite::data::{ItemRng, IterableDataLoader};
use fulgurite::prelude::*;
use fulgurite::torch::params;
use replay::{Memory, Replay, Transition};

/// Train a deep Q-network to balance a pole.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Epochs of 200 steps to train at most.
    #[arg(long, default_value_t = 15)]
    max_epochs: u64,
    /// Remembered steps per step of training.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Learning rate.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// What a reward is worth one step earlier.
    #[arg(long, default_value_t = 0.99)]
    gamma: f64,
    /// Steps that are remembered.
    #[arg(long, default_value_t = 5000)]
    memory: usize,
    /// Random steps before the training.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    warm_start: u64,
    /// Steps within which the agent stops to act at random.
    #[arg(long, default_value_t = 2000)]
    epsilon_steps: u64,
    /// Steps until the target network is made equal to the trained one.
    #[arg(long, default_value_t = 100)]
    sync_rate: u64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Run one batch, to see that it works.
    #[arg(long)]
    fast_dev_run: bool,
    /// Where logs and checkpoints go.
    #[arg(long, default_value = ".")]
    default_root_dir: String,
}

/// The network that is trained, an older copy of it that says what the next state is worth, and a game that goes on.
struct Dqn {
    net_vars: nn::VarStore,
    net: nn::Sequential,
    target_vars: nn::VarStore,
    target: nn::Sequential,
    game: CartPole,
    memory: Memory,
    rng: ItemRng,
    total_reward: u32,
    args: Args,
}

/// The value of each action in a state.
fn network(vars: &nn::VarStore) -> Result<nn::Sequential> {
    let layers = nn::sequential()
        .add(nn::linear(4, 128))
        .add(nn::relu())
        .add(nn::linear(128, 128))
        .add(nn::relu())
        .add(nn::linear(128, 2));
    Ok(layers.at(vars)?)
}

impl Dqn {
    fn new(args: &Args) -> Result<Dqn> {
        let net_vars = nn::VarStore::new(Device::Cpu);
        let net = network(&net_vars)?;
        let mut target_vars = nn::VarStore::new(Device::Cpu);
        let target = network(&target_vars)?;
        target_vars.freeze();
        let mut rng = ItemRng::seed_from_u64(args.seed);
        let game = CartPole::new(&mut rng);
        let memory = Memory::new(args.memory);
        let mut dqn =
            Dqn { net_vars, net, target_vars, target, game, memory, rng, total_reward: 0, args: args.clone() };
        dqn.sync_target()?;
        (0..args.warm_start).for_each(|_| dqn.play_step(1.0));
        Ok(dqn)
    }

    fn sync_target(&self) -> Result<()> {
        params::load_state_dict(&self.target_vars, &params::state_dict(&self.net_vars)?, true)?;
        Ok(())
    }

    /// How often the agent acts at random.
    fn epsilon(&self, global_step: u64) -> f64 {
        (1.0 - global_step as f64 / self.args.epsilon_steps as f64).max(0.02)
    }

    /// The action that seems best.
    fn best_action(&self, state: &State) -> i64 {
        let state = Tensor::from_slice(state).to_device(self.net_vars.device());
        tch::no_grad(|| self.net.forward(&state).argmax(-1, false).int64_value(&[]))
    }

    /// Acts, and remembers what happened. A game that is over is followed by the next.
    fn play_step(&mut self, epsilon: f64) {
        let state = self.game.state;
        let action = if self.rng.random_bool(epsilon) { self.rng.random_range(0..2) } else { self.best_action(&state) };
        self.game.step(action);
        let failed = self.game.has_failed();
        self.memory.push(Transition { state, action, reward: 1.0, failed, next_state: self.game.state });
        if self.game.is_over() {
            self.total_reward = self.game.steps;
            self.game = CartPole::new(&mut self.rng);
        }
    }

    /// How long the pole is balanced without chance, on average over some games.
    fn evaluate(&mut self) -> f64 {
        const GAMES: u32 = 5;
        let steps = (0..GAMES).map(|_| {
            let mut game = CartPole::new(&mut self.rng);
            while !game.is_over() {
                game.step(self.best_action(&game.state));
            }
            game.steps
        });
        f64::from(steps.sum::<u32>()) / f64::from(GAMES)
    }
}

impl Parameters for Dqn {
    fn named_tensors(&self) -> NamedTensors {
        NamedTensors::new().module("net", &self.net_vars).module("target", &self.target_vars)
    }
}

impl LightningModule for Dqn {
    /// States, actions, rewards, whether the game was lost, and the next states.
    type Batch = (Tensor, Tensor, Tensor, Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        self
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        let (states, actions, rewards, failed, next_states) = batch;
        let global_step = step.global_step();
        let epsilon = self.epsilon(global_step);
        self.play_step(epsilon);

        let values = self.net.forward(&states).gather(1, &actions.unsqueeze(1), false).squeeze_dim(1);
        let next_values = tch::no_grad(|| self.target.forward(&next_states).amax(1, false)) * failed.logical_not();
        let loss = nn::smooth_l1_loss().forward(&values, &(rewards + next_values * self.args.gamma));
        if global_step.is_multiple_of(self.args.sync_rate) {
            self.sync_target()?;
        }
        step.log("train_loss", &loss).prog_bar();
        step.log("total_reward", f64::from(self.total_reward)).prog_bar();
        step.log("epsilon", epsilon);
        Ok(loss.into())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.log("balanced_steps", self.evaluate()).prog_bar();
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(&self.net_vars).lr(self.args.lr).into())
    }
}

#[fulgurite::main]
fn main() -> Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let mut model = Dqn::new(&args)?;
    let replay = Replay { memory: model.memory.clone(), count: 200 * args.batch_size };
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .log_every_n_steps(1)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("balanced_steps").mode(Mode::Max))
        .build()?;
    trainer.fit(&mut model, IterableDataLoader::new(replay).batch_size(args.batch_size))?.completed()?;

    println!("the pole is balanced for {} of {} steps", model.evaluate(), CartPole::MAX_STEPS);
    if !args.fast_dev_run {
        println!("logs: {}", trainer.state().log_dir().display());
    }
    Ok(())
}
