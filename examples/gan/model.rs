//! The two networks, as in *Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks*
//! (Radford, Metz and Chintala 2016), for images of 8 × 8.

use fulgurite::prelude::*;

/// Draws digits, `[batch, 1, 8, 8]` in 0..=1, from noise.
pub(crate) struct Generator {
    layers: nn::SequentialT,
    latent: i64,
}

impl Generator {
    pub(crate) fn new(path: &nn::Path, latent: i64, width: i64) -> Generator {
        let double = nn::ConvTransposeConfig { stride: 2, padding: 1, bias: false, ..Default::default() };
        let layers = nn::seq_t()
            .add(nn::linear(path / "noise", latent, 4 * width * 4, Default::default()))
            .add_fn(move |x| x.view([-1, 4 * width, 2, 2]))
            .add(norm(path / "norm1", 4 * width))
            .add_fn(|x| x.relu())
            .add(nn::conv_transpose2d(path / "conv1", 4 * width, 2 * width, 4, double)) // 4 × 4
            .add(norm(path / "norm2", 2 * width))
            .add_fn(|x| x.relu())
            .add(nn::conv_transpose2d(path / "conv2", 2 * width, width, 4, double)) // 8 × 8
            .add(norm(path / "norm3", width))
            .add_fn(|x| x.relu())
            .add(nn::conv2d(path / "ink", width, 1, 3, nn::ConvConfig { padding: 1, ..Default::default() }))
            .add_fn(|x| x.sigmoid());
        Generator { layers, latent }
    }

    /// Noise for `count` digits.
    pub(crate) fn noise(&self, count: i64, device: Device) -> Tensor {
        Tensor::randn([count, self.latent], (Kind::Float, device))
    }

    /// A digit for each row of `noise`.
    pub(crate) fn draw(&self, noise: &Tensor, train: bool) -> Tensor {
        noise.apply_t(&self.layers, train)
    }
}

/// Tells real digits from drawn ones.
pub(crate) struct Discriminator(nn::SequentialT);

impl Discriminator {
    pub(crate) fn new(path: &nn::Path, width: i64, dropout: f64) -> Discriminator {
        let padded = nn::ConvConfig { padding: 1, ..Default::default() };
        let halve = nn::ConvConfig { stride: 2, padding: 1, ..Default::default() };
        let leak = |x: &Tensor| x.maximum(&(x * 0.2));
        Discriminator(
            nn::seq_t()
                .add(nn::conv2d(path / "conv1", 1, width, 3, padded)) // 8 × 8
                .add_fn(leak)
                .add(nn::conv2d(path / "conv2", width, 2 * width, 4, halve)) // 4 × 4
                .add_fn(leak)
                .add_fn_t(move |x, train| x.dropout(dropout, train))
                .add(nn::conv2d(path / "conv3", 2 * width, 4 * width, 4, halve)) // 2 × 2
                .add_fn(leak)
                .add_fn_t(move |x, train| x.flat_view().dropout(dropout, train))
                .add(nn::linear(path / "verdict", 4 * width * 4, 1, Default::default())),
        )
    }

    /// How real each image looks: above 0 for real.
    pub(crate) fn judge(&self, images: &Tensor) -> Tensor {
        images.apply_t(&self.0, true)
    }
}

fn norm(path: nn::Path, channels: i64) -> nn::BatchNorm {
    nn::batch_norm2d(path, channels, nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() })
}
