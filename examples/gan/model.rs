//! The two networks, as in *Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks*
//! (Radford, Metz and Chintala 2016), for images of 8 × 8.

use fulgurite::prelude::*;

/// Draws digits, `[batch, 1, 8, 8]` in 0..=1, from noise.
pub(crate) struct Generator {
    layers: nn::Sequential,
    latent: i64,
}

impl Generator {
    pub(crate) fn new(path: &nn::Path, latent: i64, width: i64) -> nn::Result<Generator> {
        let double = |from, to| nn::conv_transpose2d(from, to, 4).stride(2).padding(1).bias(false);
        let layers = nn::sequential()
            .add(nn::linear(latent, 4 * width * 4))
            .add(nn::unflatten(1, &[4 * width, 2, 2]))
            .add(nn::batch_norm2d(4 * width))
            .add(nn::relu())
            .add(double(4 * width, 2 * width)) // 4 × 4
            .add(nn::batch_norm2d(2 * width))
            .add(nn::relu())
            .add(double(2 * width, width)) // 8 × 8
            .add(nn::batch_norm2d(width))
            .add(nn::relu())
            .add(nn::conv2d(width, 1, 3).padding(1))
            .add(nn::sigmoid())
            .at(path)?;
        Ok(Generator { layers, latent })
    }

    /// Noise for `count` digits.
    pub(crate) fn noise(&self, count: i64, device: Device) -> Tensor {
        Tensor::randn([count, self.latent], (Kind::Float, device))
    }

    /// A digit for each row of `noise`.
    pub(crate) fn draw(&self, noise: &Tensor) -> Tensor {
        self.layers.forward(noise)
    }
}

/// Tells real digits from drawn ones.
pub(crate) struct Discriminator(nn::Sequential);

impl Discriminator {
    pub(crate) fn new(path: &nn::Path, width: i64, dropout: f64) -> nn::Result<Discriminator> {
        let halve = |from, to| nn::conv2d(from, to, 4).stride(2).padding(1);
        let layers = nn::sequential()
            .add(nn::conv2d(1, width, 3).padding(1)) // 8 × 8
            .add(nn::leaky_relu(0.2))
            .add(halve(width, 2 * width)) // 4 × 4
            .add(nn::leaky_relu(0.2))
            .add(nn::dropout(dropout))
            .add(halve(2 * width, 4 * width)) // 2 × 2
            .add(nn::leaky_relu(0.2))
            .add(nn::flatten())
            .add(nn::dropout(dropout))
            .add(nn::linear(4 * width * 4, 1));
        Ok(Discriminator(layers.at(path)?))
    }

    /// How real each image looks: above 0 for real.
    pub(crate) fn judge(&self, images: &Tensor) -> Tensor {
        self.0.forward(images)
    }
}
