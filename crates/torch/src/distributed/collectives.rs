//! The collective operations of a [`ProcessGroup`].

use std::ffi::c_char;
use std::sync::PoisonError;

use torch_sys::C_tensor;

use super::process_group::{ProcessGroup, RawGroup};
use super::work::{RawWork, Work};
use crate::error::{TorchError, check};
use crate::tch::{Device, Kind, Tensor};

#[repr(C)]
struct RawCall {
    operation: i32,
    reduction: i32,
    peer: i32,
    tag: i32,
    inputs: *const *const C_tensor,
    input_count: usize,
    outputs: *const *const C_tensor,
    output_count: usize,
}

unsafe extern "C" {
    fn fulgurite_group_start(group: *const RawGroup, call: *const RawCall, out: *mut *mut RawWork) -> *mut c_char;
}

/// How the tensors of all ranks are reduced to one; `torch.distributed.ReduceOp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReduceOp {
    /// The sum.
    #[default]
    Sum = 0,
    /// The sum, divided by the number of ranks.
    Mean = 1,
    /// The element-wise minimum.
    Min = 2,
    /// The element-wise maximum.
    Max = 3,
    /// The product.
    Product = 4,
}

/// The operations, with the bridge's numbers.
#[derive(Clone, Copy)]
enum Operation {
    Broadcast = 0,
    AllReduce = 1,
    Reduce = 2,
    AllGather = 3,
    ReduceScatter = 4,
    Gather = 5,
    Scatter = 6,
    AllToAll = 7,
    Send = 8,
    Recv = 9,
    Barrier = 10,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Broadcast => "broadcast",
            Operation::AllReduce => "all_reduce",
            Operation::Reduce => "reduce",
            Operation::AllGather => "all_gather",
            Operation::ReduceScatter => "reduce_scatter",
            Operation::Gather => "gather",
            Operation::Scatter => "scatter",
            Operation::AllToAll => "all_to_all",
            Operation::Send => "send",
            Operation::Recv => "recv",
            Operation::Barrier => "barrier",
        }
    }
}

/// An operation with its arguments; those that are not given are not used.
struct Call<'a> {
    operation: Operation,
    reduction: ReduceOp,
    peer: usize,
    tag: i32,
    inputs: &'a [&'a Tensor],
    outputs: &'a [&'a Tensor],
}

impl Call<'_> {
    fn new(operation: Operation) -> Self {
        Call { operation, reduction: ReduceOp::Sum, peer: 0, tag: 0, inputs: &[], outputs: &[] }
    }
}

/// Every operation has two forms. The plain one returns when it is done; the one named `_async` returns a [`Work`] to
/// wait for. Outputs are written in place, and are not recorded by autograd.
///
/// All of them fail with a [`DistributedError`](super::DistributedError) that names rank, group and operation: when
/// another rank does not come before the group's timeout, when a connection is lost, and when the arguments do not fit
/// the group. After a failure within an operation, the group cannot be used any more.
impl ProcessGroup {
    /// Broadcasts `tensor` from rank `source` to all ranks, in place.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn broadcast(&self, tensor: &Tensor, source: usize) -> Result<(), TorchError> {
        self.broadcast_async(tensor, source)?.wait()
    }

    /// Starts [`broadcast`](ProcessGroup::broadcast).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn broadcast_async(&self, tensor: &Tensor, source: usize) -> Result<Work, TorchError> {
        self.start(Call { peer: source, outputs: &[tensor], ..Call::new(Operation::Broadcast) })
    }

    /// Broadcasts `tensors` from rank `source` to all ranks, in place, such as the initial state of a model.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn broadcast_all(&self, tensors: &[Tensor], source: usize) -> Result<(), TorchError> {
        let works: Vec<Work> = tensors.iter().map(|it| self.broadcast_async(it, source)).collect::<Result<_, _>>()?;
        works.into_iter().try_for_each(Work::wait)
    }

    /// Reduces `tensor` over all ranks with `reduction`, such as to the sum or mean, in place on every rank.
    ///
    /// # Errors
    ///
    /// Fails as described above, and for the mean of integers.
    pub fn all_reduce(&self, tensor: &Tensor, reduction: ReduceOp) -> Result<(), TorchError> {
        self.all_reduce_async(tensor, reduction)?.wait()
    }

    /// Starts [`all_reduce`](ProcessGroup::all_reduce).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_reduce_async(&self, tensor: &Tensor, reduction: ReduceOp) -> Result<Work, TorchError> {
        self.start(Call { reduction, outputs: &[tensor], ..Call::new(Operation::AllReduce) })
    }

    /// As [`all_reduce`](ProcessGroup::all_reduce), but only on rank `destination`; other ranks' tensors are unchanged.
    ///
    /// # Errors
    ///
    /// Fails as described above, and for the mean of integers.
    pub fn reduce(&self, tensor: &Tensor, destination: usize, reduction: ReduceOp) -> Result<(), TorchError> {
        self.reduce_async(tensor, destination, reduction)?.wait()
    }

    /// Starts [`reduce`](ProcessGroup::reduce).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn reduce_async(&self, tensor: &Tensor, destination: usize, reduction: ReduceOp) -> Result<Work, TorchError> {
        self.start(Call { reduction, peer: destination, outputs: &[tensor], ..Call::new(Operation::Reduce) })
    }

    /// The tensors of all ranks, in the order of the ranks, on all ranks. They have the same shape.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        self.all_gather_async(tensor)?.wait()
    }

    /// Starts [`all_gather`](ProcessGroup::all_gather).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_gather_async(&self, tensor: &Tensor) -> Result<Work<Vec<Tensor>>, TorchError> {
        let gathered = self.one_for_each(tensor)?;
        let outputs: Vec<&Tensor> = gathered.iter().collect();
        let work = self.start(Call { inputs: &[tensor], outputs: &outputs, ..Call::new(Operation::AllGather) })?;
        Ok(work.with_output(gathered))
    }

    /// Reduces the first of the `tensors` of all ranks for rank 0, the second for rank 1, and so
    /// on, and gives each rank its own. There is one for each rank, and all have the same shape.
    ///
    /// # Errors
    ///
    /// Fails as described above, and for the mean of integers.
    pub fn reduce_scatter(&self, tensors: &[Tensor], reduction: ReduceOp) -> Result<Tensor, TorchError> {
        self.reduce_scatter_async(tensors, reduction)?.wait()
    }

    /// Starts [`reduce_scatter`](ProcessGroup::reduce_scatter).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn reduce_scatter_async(&self, tensors: &[Tensor], reduction: ReduceOp) -> Result<Work<Tensor>, TorchError> {
        let operation = Operation::ReduceScatter;
        self.check_one_for_each(operation, tensors, true)?;
        let mine = empty_like(&tensors[0])?;
        let inputs: Vec<&Tensor> = tensors.iter().collect();
        let work = self.start(Call { reduction, inputs: &inputs, outputs: &[&mine], ..Call::new(operation) })?;
        Ok(work.with_output(mine))
    }

    /// Gathers the tensors of all ranks, in rank order, on rank `destination`; `None` on the others.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn gather(&self, tensor: &Tensor, destination: usize) -> Result<Option<Vec<Tensor>>, TorchError> {
        self.gather_async(tensor, destination)?.wait()
    }

    /// Starts [`gather`](ProcessGroup::gather).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn gather_async(&self, tensor: &Tensor, destination: usize) -> Result<Work<Option<Vec<Tensor>>>, TorchError> {
        let gathered = if self.rank() == destination { Some(self.one_for_each(tensor)?) } else { None };
        let outputs: Vec<&Tensor> = gathered.iter().flatten().collect();
        let call = Call { peer: destination, inputs: &[tensor], outputs: &outputs, ..Call::new(Operation::Gather) };
        let work = self.start(call)?;
        Ok(work.with_output(gathered))
    }

    /// Scatters `tensors` of rank `source`, one for each rank, to `output` on each rank. Only `source` passes
    /// `tensors`.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn scatter(&self, output: &Tensor, tensors: Option<&[Tensor]>, source: usize) -> Result<(), TorchError> {
        self.scatter_async(output, tensors, source)?.wait()
    }

    /// Starts [`scatter`](ProcessGroup::scatter).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn scatter_async(
        &self,
        output: &Tensor,
        tensors: Option<&[Tensor]>,
        source: usize,
    ) -> Result<Work, TorchError> {
        let operation = Operation::Scatter;
        match tensors {
            Some(tensors) if self.rank() == source => self.check_one_for_each(operation, tensors, true)?,
            None if self.rank() != source => {}
            _ => {
                let problem = format!("rank {source} passes the tensors, and the other ranks none");
                return Err(self.argument(operation.name(), problem));
            }
        }
        let inputs: Vec<&Tensor> = tensors.iter().copied().flatten().collect();
        self.start(Call { peer: source, inputs: &inputs, outputs: &[output], ..Call::new(operation) })
    }

    /// Sends `inputs[r]` to rank `r`, for each rank, and receives what rank `r` sent here in `outputs[r]`. An output
    /// has the shape of what is sent to it; one of no elements receives nothing.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_to_all(&self, outputs: &[Tensor], inputs: &[Tensor]) -> Result<(), TorchError> {
        self.all_to_all_async(outputs, inputs)?.wait()
    }

    /// Starts [`all_to_all`](ProcessGroup::all_to_all).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_to_all_async(&self, outputs: &[Tensor], inputs: &[Tensor]) -> Result<Work, TorchError> {
        let operation = Operation::AllToAll;
        self.check_one_for_each(operation, inputs, false)?;
        self.check_one_for_each(operation, outputs, false)?;
        let (inputs, outputs): (Vec<&Tensor>, Vec<&Tensor>) = (inputs.iter().collect(), outputs.iter().collect());
        self.start(Call { inputs: &inputs, outputs: &outputs, ..Call::new(operation) })
    }

    /// Sends `tensor` to rank `destination`, which receives it with the same `tag`.
    ///
    /// # Errors
    ///
    /// Fails as described above, and if the destination is this rank.
    pub fn send(&self, tensor: &Tensor, destination: usize, tag: i32) -> Result<(), TorchError> {
        self.send_async(tensor, destination, tag)?.wait()
    }

    /// Starts [`send`](ProcessGroup::send).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn send_async(&self, tensor: &Tensor, destination: usize, tag: i32) -> Result<Work, TorchError> {
        self.start(Call { peer: destination, tag, inputs: &[tensor], ..Call::new(Operation::Send) })
    }

    /// Receives into `tensor` what rank `source` sends with the same `tag`. The shapes must be equal.
    ///
    /// # Errors
    ///
    /// Fails as described above, and if the source is this rank.
    pub fn recv(&self, tensor: &Tensor, source: usize, tag: i32) -> Result<(), TorchError> {
        self.recv_async(tensor, source, tag)?.wait()
    }

    /// Starts [`recv`](ProcessGroup::recv).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn recv_async(&self, tensor: &Tensor, source: usize, tag: i32) -> Result<Work, TorchError> {
        self.start(Call { peer: source, tag, outputs: &[tensor], ..Call::new(Operation::Recv) })
    }

    /// Waits until all ranks have called this. [`monitored_barrier`](ProcessGroup::monitored_barrier) names those that
    /// did not.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn barrier(&self) -> Result<(), TorchError> {
        self.barrier_async()?.wait()
    }

    /// Starts [`barrier`](ProcessGroup::barrier).
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn barrier_async(&self) -> Result<Work, TorchError> {
        self.start(Call::new(Operation::Barrier))
    }

    /// Broadcasts the bytes of rank `source` to all ranks; other ranks pass `None`.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn broadcast_bytes(&self, bytes: Option<&[u8]>, source: usize) -> Result<Vec<u8>, TorchError> {
        if bytes.is_some() != (self.rank() == source) {
            let problem = format!("rank {source} passes the bytes, and the other ranks none");
            return Err(self.argument("broadcast_bytes", problem));
        }
        let len = Tensor::f_from_slice(&[bytes.map_or(0, <[u8]>::len) as i64])?;
        self.broadcast(&len, source)?;
        let data = match bytes {
            Some(bytes) => Tensor::f_from_slice(bytes)?,
            None => Tensor::f_empty([len.f_int64_value(&[0])?], (Kind::Uint8, Device::Cpu))?,
        };
        self.broadcast(&data, source)?;
        Ok(Vec::try_from(&data)?)
    }

    /// The bytes of all ranks, in the order of the ranks, on all ranks. They may differ in length.
    ///
    /// # Errors
    ///
    /// Fails as described above.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TorchError> {
        let mut lengths = Vec::with_capacity(self.size());
        for len in self.all_gather(&Tensor::f_from_slice(&[bytes.len() as i64])?)? {
            lengths.push(usize::try_from(len.f_int64_value(&[0])?).unwrap_or(0));
        }
        let mut padded = bytes.to_vec();
        padded.resize(lengths.iter().copied().max().unwrap_or(0), 0);
        let gathered = self.all_gather(&Tensor::f_from_slice(&padded)?)?;
        gathered
            .iter()
            .zip(lengths)
            .map(|(data, len)| {
                let mut data = Vec::<u8>::try_from(data)?;
                data.truncate(len);
                Ok(data)
            })
            .collect()
    }

    fn start(&self, call: Call<'_>) -> Result<Work, TorchError> {
        let operation = call.operation.name();
        self.check_together(operation)?;
        let peer = i32::try_from(call.peer)
            .ok()
            .filter(|_| call.peer < self.size())
            .ok_or_else(|| self.argument(operation, format!("there is no rank {}; ranks count from 0", call.peer)))?;
        let tensors = || call.inputs.iter().chain(call.outputs);
        if tensors().any(|tensor| !tensor.defined()) {
            return Err(self.argument(operation, "a tensor is undefined".into()));
        }
        if call.reduction == ReduceOp::Mean
            && let Some(integers) = tensors().find(|tensor| !is_divisible(tensor.kind()))
        {
            let problem = format!("there is no mean of {:?}; convert to Float, or use the sum", integers.kind());
            return Err(self.argument(operation, problem));
        }
        if matches!(call.operation, Operation::Send | Operation::Recv) && call.peer == self.rank() {
            return Err(self.argument(operation, format!("the other side is this rank, {peer}, itself")));
        }
        let pointers = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.as_ptr()).collect::<Vec<_>>();
        let (inputs, outputs) = (pointers(call.inputs), pointers(call.outputs));
        let raw_call = RawCall {
            operation: call.operation as i32,
            reduction: call.reduction as i32,
            peer,
            tag: call.tag,
            inputs: inputs.as_ptr(),
            input_count: inputs.len(),
            outputs: outputs.as_ptr(),
            output_count: outputs.len(),
        };
        let mut raw = std::ptr::null_mut();
        let order = self.inner.order.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the group and the tensors live for the call, and the operation keeps the tensors that it still needs;
        // `raw` is written only when there is no error.
        let begun = check(unsafe { fulgurite_group_start(self.inner.raw, &raw_call, &mut raw) });
        drop(order);
        begun.map_err(|error| self.failed(operation, &error))?;
        Ok(Work::new(raw, operation, self))
    }

    /// An uninitialized tensor like `tensor` for each rank.
    fn one_for_each(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        (0..self.size()).map(|_| empty_like(tensor)).collect()
    }

    fn check_one_for_each(&self, operation: Operation, tensors: &[Tensor], alike: bool) -> Result<(), TorchError> {
        if tensors.len() != self.size() {
            let problem = format!("{} tensors were given, and every rank needs one", tensors.len());
            return Err(self.argument(operation.name(), problem));
        }
        let differs = |tensor: &&Tensor| tensor.kind() != tensors[0].kind() || tensor.size() != tensors[0].size();
        match tensors.iter().find(differs) {
            Some(other) if alike => {
                let (first, kind) = (tensors[0].size(), tensors[0].kind());
                let problem = format!(
                    "the tensors differ: one is {first:?} of {kind:?}, another {:?} of {:?}",
                    other.size(),
                    other.kind()
                );
                Err(self.argument(operation.name(), problem))
            }
            _ => Ok(()),
        }
    }
}

fn empty_like(tensor: &Tensor) -> Result<Tensor, TorchError> {
    Ok(Tensor::f_empty(tensor.size(), (tensor.kind(), tensor.device()))?)
}

/// Whether the sum of such elements can be divided in place.
fn is_divisible(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 | Kind::ComplexFloat | Kind::ComplexDouble)
}
