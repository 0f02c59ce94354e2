//! Recurrent layers, their cells, and packed sequences.

mod cells;
mod packed;
mod recurrent;

pub use cells::{
    GruCell, GruCellOptions, LstmCell, LstmCellOptions, RnnCell, RnnCellOptions, gru_cell, lstm_cell, rnn_cell,
};
pub use packed::{PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence};
pub use recurrent::{Gru, GruOptions, Lstm, LstmOptions, LstmState, Nonlinearity, Rnn, RnnOptions, gru, lstm, rnn};
