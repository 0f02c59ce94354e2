//! fulgurite-optim
