//! A pole on a cart, which is pushed to the left or to the right: the task of Barto, Sutton and Anderson (1983), with
//! the constants of Gymnasium's `CartPole-v0`.

use fulgurite::data::ItemRng;
use fulgurite::data::rand::RngExt;

/// Where the cart is and how fast, the angle of the pole and how fast it turns.
pub(crate) type State = [f32; 4];

/// A game, which is over when the pole has fallen, or was balanced long enough.
pub(crate) struct CartPole {
    pub(crate) state: State,
    pub(crate) steps: u32,
}

impl CartPole {
    /// What can be won.
    pub(crate) const MAX_STEPS: u32 = 200;

    /// A game that begins nearly upright.
    pub(crate) fn new(rng: &mut ItemRng) -> CartPole {
        CartPole { state: [(); 4].map(|()| rng.random_range(-0.05..0.05)), steps: 0 }
    }

    /// Pushes the cart to the left (0) or to the right (1) for 20 ms.
    pub(crate) fn step(&mut self, action: i64) {
        let [x, velocity, angle, spin] = self.state;
        let (sin, cos) = angle.sin_cos();
        let force = if action == 1 { 10.0 } else { -10.0 };
        let push = (force + 0.05 * spin * spin * sin) / 1.1;
        let swing = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1));
        let pull = push - 0.05 * swing * cos / 1.1;
        self.state = [x + 0.02 * velocity, velocity + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * swing];
        self.steps += 1;
    }

    /// Whether the pole has fallen, or the cart has left the track.
    pub(crate) fn has_failed(&self) -> bool {
        let [x, _, angle, _] = self.state;
        x.abs() > 2.4 || angle.abs() > 12f32.to_radians()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.has_failed() || self.steps >= CartPole::MAX_STEPS
    }
}
