"""A deep Q-network that balances a pole on a cart, with Lightning: what `examples/dqn` is in Rust."""

import argparse
import copy
import math
import random
from collections import deque

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class CartPole:
    """The task of Barto, Sutton and Anderson (1983) with Gymnasium's constants."""

    LIMIT = 200

    def reset(self):
        self.steps, self.state = 0, [random.uniform(-0.05, 0.05) for _ in range(4)]
        return self.state

    def step(self, action):
        x, v, angle, spin = self.state
        force = 10.0 if action == 1 else -10.0
        push = (force + 0.05 * spin**2 * math.sin(angle)) / 1.1
        swing = (9.8 * math.sin(angle) - math.cos(angle) * push) / (0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / 1.1))
        pull = push - 0.05 * swing * math.cos(angle) / 1.1
        self.steps += 1
        self.state = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * swing]
        fell = abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)
        return self.state, 1.0, fell, fell or self.steps >= self.LIMIT


class Agent:
    """Plays, and remembers what it saw."""

    def __init__(self, capacity):
        self.env, self.memory = CartPole(), deque(maxlen=capacity)
        self.state = self.env.reset()

    @torch.no_grad()
    def play_step(self, net, epsilon):
        if random.random() < epsilon:
            action = random.randrange(2)
        else:
            action = int(net(torch.tensor(self.state)).argmax())
        new_state, reward, fell, over = self.env.step(action)
        self.memory.append((self.state, action, reward, float(fell), new_state))
        self.state = self.env.reset() if over else new_state
        return reward, over


class ReplayDataset(IterableDataset):
    """Draws from the memory, which grows while it is read."""

    def __init__(self, memory, items):
        self.memory, self.items = memory, items

    def __iter__(self):
        for _ in range(self.items):
            state, action, reward, fell, new_state = random.choice(self.memory)
            yield torch.tensor(state), action, torch.tensor(reward), torch.tensor(fell), torch.tensor(new_state)


class Dqn(L.LightningModule):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.net = nn.Sequential(
            nn.Linear(4, 128), nn.ReLU(),
            nn.Linear(128, 128), nn.ReLU(),
            nn.Linear(128, 2),
        )  # fmt: skip
        self.target_net = copy.deepcopy(self.net).requires_grad_(False)
        self.agent = Agent(args.memory)
        self.episode_reward, self.total_reward = 0.0, 0.0
        for _ in range(args.warm_start):
            self.agent.play_step(self.net, epsilon=1.0)

    def epsilon(self):
        return max(0.02, 1.0 - self.global_step / self.args.epsilon_steps)

    def training_step(self, batch, batch_idx):
        state, action, reward, fell, new_state = batch
        step_reward, over = self.agent.play_step(self.net, self.epsilon())
        self.episode_reward += step_reward
        if over:
            self.total_reward, self.episode_reward = self.episode_reward, 0.0

        value = self.net(state).gather(1, action.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            next_value = self.target_net(new_state).max(1).values * (1 - fell)
        loss = F.smooth_l1_loss(value, reward + self.args.gamma * next_value)
        if self.global_step % self.args.sync_rate == 0:
            self.target_net.load_state_dict(self.net.state_dict())
        self.log_dict({"train_loss": loss, "total_reward": self.total_reward, "epsilon": self.epsilon()})
        return loss

    def on_train_epoch_end(self):
        self.log("balanced_steps", self.evaluate())

    def evaluate(self, episodes=5):
        """The mean length of games that are played without chance."""
        agent, steps = Agent(capacity=1), 0
        for _ in range(episodes):
            over = False
            while not over:
                _, over = agent.play_step(self.net, epsilon=0.0)
                steps += 1
        return steps / episodes

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), lr=self.args.lr)

    def train_dataloader(self):
        return DataLoader(ReplayDataset(self.agent.memory, 200 * self.args.batch_size), batch_size=self.args.batch_size)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--memory", type=int, default=5000)
    parser.add_argument("--warm-start", type=int, default=500)
    parser.add_argument("--epsilon-steps", type=int, default=2000)
    parser.add_argument("--sync-rate", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default-root-dir", default=".")
    args = parser.parse_args()

    L.seed_everything(args.seed, verbose=False)
    trainer = L.Trainer(
        max_epochs=args.max_epochs, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        logger=CSVLogger(args.default_root_dir),
        callbacks=ModelCheckpoint(monitor="balanced_steps", mode="max"),
    )  # fmt: skip
    trainer.fit(Dqn(args))


if __name__ == "__main__":
    main()
