//! [`SingleDeviceStrategy`].

use fulgurite_torch::tch::Device;

use super::Strategy;

/// One process on one device: no communication.
#[derive(Debug)]
pub struct SingleDeviceStrategy {
    device: Device,
}

impl SingleDeviceStrategy {
    /// The strategy of a run on `device`.
    pub fn new(device: Device) -> SingleDeviceStrategy {
        SingleDeviceStrategy { device }
    }
}

impl Strategy for SingleDeviceStrategy {
    fn name(&self) -> &str {
        "single_device"
    }

    fn device(&self) -> Device {
        self.device
    }
}
