//! The callbacks in real runs. Where a row says nothing else, it is what Lightning 2.6.6 does.

mod accumulation;
mod device_stats_monitor;
mod early_stopping;
mod elsewhere;
mod failed_saves;
mod full_log;
mod gradient_norm;
mod lambda;
mod lr_monitor;
mod model_checkpoint;
mod never;
mod on_exception_checkpoint;
mod prediction_writer;
mod pruning;
mod rounds;
mod scripted;
mod spike_detection;
mod terminate_on_nan;
mod throughput_monitor;
mod timer;
mod trial_pruning;
mod untrusted;
mod watched;
mod weights;
