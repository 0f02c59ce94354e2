//! The same computation in Python and here, number by number.

mod arguments;
mod checkpoint;
mod combined_loader;
mod csv_logger;
mod data;
mod ddp;
mod grad;
mod hooks;
mod interchange;
mod manual;
mod metrics;
mod model_summary;
mod optimizers;
mod precision;
mod profilers;
mod pruning;
mod random_configurations;
mod resume;
mod safetensors;
mod schedulers;
mod tensorboard;
mod tools;
mod training;
mod tuner;
mod watching;
mod weights;
