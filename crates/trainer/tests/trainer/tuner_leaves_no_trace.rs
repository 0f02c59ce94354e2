//! A test of bits, which needs libtorch's random numbers for itself: alone in its process.

use fulgurite::tuner::{BatchSizeFinderOptions, LearningRateFinderOptions, Tuner};

use crate::tuner::net::{Net, quiet};

/// Weights, optimizer, random numbers and counters: everything a training afterwards depends on, to the bit.
#[test]
fn nothing_else_changes() {
    let trained = |tune: bool| {
        let mut net = Net::new();
        let mut trainer = quiet().build().unwrap();
        _ = trainer.fit(&mut net, ()).unwrap();
        if tune {
            let options = LearningRateFinderOptions::default().num_training(40).update_attr(false);
            Tuner::new(&mut trainer).lr_find(&mut net, (), options).unwrap().unwrap();
            let options = BatchSizeFinderOptions::default().max_val(16);
            Tuner::new(&mut trainer).scale_batch_size(&mut net, (), options).unwrap().unwrap();
            net.batch_size = 8;
        }
        assert_eq!((trainer.state().global_step(), trainer.state().current_epoch(), net.seen), (16, 2, 128));
        let mut again = quiet().max_epochs(4).build().unwrap();
        _ = again.fit(&mut net, ()).unwrap();
        net.weights()
    };
    assert_eq!(trained(true), trained(false));
}
