//! The network of *Deep Residual Learning for Image Recognition* (He et al. 2016) with the names that torchvision gives to
//! its parts, narrow, for small images, and without its last layer.

use fulgurite::prelude::*;

/// Features of images `[batch, 1, height, width]`: `[batch, 2 * WIDTH]`.
#[derive(Debug)]
pub(crate) struct ResNet {
    conv1: nn::Conv2d,
    bn1: nn::BatchNorm,
    layer1: BasicBlock,
    layer2: BasicBlock,
}

impl ResNet {
    const WIDTH: i64 = 16;
    pub(crate) const FEATURES: i64 = 2 * ResNet::WIDTH;

    pub(crate) fn new(path: &nn::Path) -> Result<ResNet> {
        let width = ResNet::WIDTH;
        Ok(ResNet {
            conv1: nn::conv2d(1, width, 3).padding(1).bias(false).at(path / "conv1")?,
            bn1: nn::batch_norm2d(width).at(path / "bn1")?,
            layer1: BasicBlock::new(&(path / "layer1" / 0), width, width, 1)?,
            layer2: BasicBlock::new(&(path / "layer2" / 0), width, 2 * width, 2)?,
        })
    }
}

impl nn::Module for ResNet {
    fn forward(&self, images: &Tensor) -> Tensor {
        let x = self.bn1.forward(&self.conv1.forward(images)).relu();
        let x = self.layer2.forward(&self.layer1.forward(&x));
        x.adaptive_avg_pool2d([1, 1]).flatten(1, -1)
    }
}

/// Two convolutions, and a way past them.
#[derive(Debug)]
struct BasicBlock {
    conv1: nn::Conv2d,
    bn1: nn::BatchNorm,
    conv2: nn::Conv2d,
    bn2: nn::BatchNorm,
    downsample: Option<nn::Sequential>,
}

impl BasicBlock {
    fn new(path: &nn::Path, inputs: i64, outputs: i64, stride: i64) -> Result<BasicBlock> {
        let downsample = nn::sequential()
            .add(nn::conv2d(inputs, outputs, 1).stride(stride).bias(false))
            .add(nn::batch_norm2d(outputs));
        let resizes = stride != 1 || inputs != outputs;
        Ok(BasicBlock {
            conv1: nn::conv2d(inputs, outputs, 3).stride(stride).padding(1).bias(false).at(path / "conv1")?,
            bn1: nn::batch_norm2d(outputs).at(path / "bn1")?,
            conv2: nn::conv2d(outputs, outputs, 3).padding(1).bias(false).at(path / "conv2")?,
            bn2: nn::batch_norm2d(outputs).at(path / "bn2")?,
            downsample: resizes.then(|| downsample.at(path / "downsample")).transpose()?,
        })
    }
}

impl nn::Module for BasicBlock {
    fn forward(&self, x: &Tensor) -> Tensor {
        let out = self.bn1.forward(&self.conv1.forward(x)).relu();
        let out = self.bn2.forward(&self.conv2.forward(&out));
        let past = self.downsample.as_ref().map_or_else(|| x.shallow_clone(), |layer| layer.forward(x));
        (out + past).relu()
    }
}
