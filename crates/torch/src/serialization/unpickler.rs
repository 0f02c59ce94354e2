//! The pickle machine: converts a pickle to a graph of plain objects, with a closed list of opcodes and names.
//!
//! Nothing is ever imported or called: a name refers to one of the items of [`Global`], and "calling" it is
//! implemented in [`super::rebuild`] for that item.

use std::collections::HashMap;

use super::failures::damaged;
use super::globals::Global;
use super::opcode::*;
use crate::error::TorchError;
use crate::tch::Tensor;

/// An object that the pickle creates, by its index in [`Unpickler::objects`].
pub(super) type Id = usize;

/// More objects than any checkpoint has, and few enough to fit into memory.
const MAX_OBJECTS: usize = 1 << 24;

/// Bytes that what the pickle shares may take when it is written out, above what the pickle itself takes.
pub(super) const EXPANSION: usize = 64 << 20;

/// What a pickle can make.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// An object that is only its attributes.
    Namespace(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
}

/// The bytes of tensors, already read.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// One dimension of bytes; undefined if they are not needed.
    pub(super) bytes: std::rc::Rc<Tensor>,
    /// How many.
    pub(super) size: usize,
    /// The kind of elements according to its class; none for untyped storages.
    pub(super) dtype: Option<&'static super::dtype::Dtype>,
}

/// Reads the bytes of storage `key`, which must be as many as given.
pub(super) type ReadStorage<'a> = &'a mut dyn FnMut(&str, usize) -> Result<std::rc::Rc<Tensor>, TorchError>;

pub(super) struct Unpickler<'a> {
    input: &'a [u8],
    pub(super) objects: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Bytes of tensors, and of objects copied from others.
    copied: usize,
    /// How many these may become.
    allowance: usize,
    /// Storages that tensors of `bool` are seen in, by what was read and beside it.
    pub(super) bools: HashMap<*const Tensor, (std::rc::Rc<Tensor>, std::rc::Rc<Tensor>)>,
    pub(super) read_storage: ReadStorage<'a>,
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(input: &'a [u8], read_storage: ReadStorage<'a>) -> Unpickler<'a> {
        Unpickler {
            input,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
            allowance: EXPANSION.saturating_add(input.len().saturating_mul(16)),
            bools: HashMap::new(),
            read_storage,
        }
    }

    /// Runs the pickle to its end; the object it leaves.
    pub(super) fn run(&mut self) -> Result<Id, TorchError> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                STOP => {
                    let root = self.pop()?;
                    return match self.stack.is_empty() && self.marks.is_empty() {
                        true => Ok(root),
                        false => Err(damaged("its pickle makes more than it uses".into())),
                    };
                }
                PROTO => {
                    self.byte()?;
                }
                MARK => self.marks.push(self.stack.len()),
                NONE => self.push(Object::None)?,
                NEWTRUE => self.push(Object::Bool(true))?,
                NEWFALSE => self.push(Object::Bool(false))?,
                BININT => {
                    let int = i32::from_le_bytes(self.array()?);
                    self.push(Object::Int(int.into()))?;
                }
                BININT1 => {
                    let int = self.byte()?;
                    self.push(Object::Int(int.into()))?;
                }
                BININT2 => {
                    let int = u16::from_le_bytes(self.array()?);
                    self.push(Object::Int(int.into()))?;
                }
                LONG1 => {
                    let length = self.byte()?;
                    let int = long(self.take(length.into())?)?;
                    self.push(Object::Int(int))?;
                }
                BINFLOAT => {
                    let float = f64::from_be_bytes(self.array()?);
                    self.push(Object::Float(float))?;
                }
                BINUNICODE => {
                    let length = u32::from_le_bytes(self.array()?);
                    let text = utf8(self.take(length as usize)?)?;
                    self.push(Object::Str(text))?;
                }
                SHORT_BINSTRING => {
                    let length = self.byte()?;
                    let text = utf8(self.take(length.into())?)?;
                    self.push(Object::Str(text))?;
                }
                EMPTY_LIST | EMPTY_SET => self.push(Object::List(Vec::new()))?,
                EMPTY_TUPLE => self.push(Object::Tuple(Vec::new()))?,
                EMPTY_DICT => self.push(Object::Dict(Vec::new()))?,
                TUPLE => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                TUPLE1 | TUPLE2 | TUPLE3 => {
                    let count = usize::from(opcode - TUPLE1) + 1;
                    let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
                    let items = self.stack.split_off(start.ok_or_else(underflow)?);
                    self.push(Object::Tuple(items))?;
                }
                APPEND => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                APPENDS => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                SETITEM => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                }
                SETITEMS => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                BINPUT => {
                    let place = self.byte()?;
                    self.memo.insert(place.into(), self.top()?);
                }
                LONG_BINPUT => {
                    let place = u32::from_le_bytes(self.array()?);
                    self.memo.insert(place, self.top()?);
                }
                BINGET => {
                    let place = self.byte()?;
                    self.recall(place.into())?;
                }
                LONG_BINGET => {
                    let place = u32::from_le_bytes(self.array()?);
                    self.recall(place)?;
                }
                GLOBAL => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Global(Global::named(&module, &name)?))?;
                }
                BINPERSID => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(Object::Storage(storage))?;
                }
                REDUCE | NEWOBJ => {
                    let arguments = self.pop()?;
                    let callee = self.pop()?;
                    let object = self.call(callee, arguments)?;
                    self.push(object)?;
                }
                BUILD => {
                    let state = self.pop()?;
                    let object = self.top()?;
                    self.build(object, state)?;
                }
                other => {
                    return Err(TorchError::UnsupportedCheckpoint {
                        reason: format!(
                            "its pickle uses opcode {other:#04x}, which torch.save does not write; save it again with \
                             torch.save's own pickle_protocol"
                        ),
                    });
                }
            }
        }
    }

    fn push(&mut self, object: Object) -> Result<(), TorchError> {
        if self.objects.len() >= MAX_OBJECTS {
            return Err(TorchError::UnsupportedCheckpoint {
                reason: format!("it holds more than {MAX_OBJECTS} objects; put large lists of numbers into tensors"),
            });
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    /// Where the innermost mark lies; nothing below it may be taken.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, TorchError> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn top(&self) -> Result<Id, TorchError> {
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, TorchError> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), TorchError> {
        let list = self.top()?;
        match &mut self.objects[list] {
            Object::List(held) => held.extend(items),
            _ => return Err(damaged("its pickle appends to something that is not a list".into())),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), TorchError> {
        let dict = self.top()?;
        match &mut self.objects[dict] {
            Object::Dict(held) if items.len().is_multiple_of(2) => {
                held.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            _ => return Err(damaged("its pickle sets items of something that is not a dict".into())),
        }
        Ok(())
    }

    /// Attributes that go with an object: those of a namespace are its content, others (such as the `_metadata` of a
    /// module's state dict) have no place in plain data.
    fn build(&mut self, object: Id, state: Id) -> Result<(), TorchError> {
        if !matches!(self.objects[object], Object::Namespace(_)) {
            return Ok(());
        }
        let attributes = match &self.objects[state] {
            Object::Dict(entries) => entries.clone(),
            _ => return Err(damaged("its pickle gives a namespace something else than attributes".into())),
        };
        self.charge(size_of_val(&attributes[..]))?;
        if let Object::Namespace(entries) = &mut self.objects[object] {
            entries.extend(attributes);
        }
        Ok(())
    }

    /// Counts what is copied, so that a small pickle cannot fill memory by copying a large object again and again.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), TorchError> {
        self.copied = self.copied.saturating_add(bytes);
        match self.copied <= self.allowance {
            true => Ok(()),
            false => Err(expands_too_much()),
        }
    }

    fn recall(&mut self, place: u32) -> Result<(), TorchError> {
        let id = self.memo.get(&place).ok_or_else(|| damaged("its pickle recalls what it never stored".into()))?;
        self.stack.push(*id);
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, TorchError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TorchError> {
        let (taken, rest) = self.input.split_at_checked(count).ok_or_else(|| damaged("its pickle is cut".into()))?;
        self.input = rest;
        Ok(taken)
    }

    fn line(&mut self) -> Result<String, TorchError> {
        let end = self.input.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or_else(|| damaged("its pickle is cut".into()))?)?;
        self.byte()?;
        utf8(line)
    }
}

pub(super) fn expands_too_much() -> TorchError {
    TorchError::UnsupportedCheckpoint { reason: "it repeats its own parts so often that they fill memory".into() }
}

fn underflow() -> TorchError {
    damaged("its pickle takes more than it made".into())
}

fn utf8(bytes: &[u8]) -> Result<String, TorchError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| damaged("its pickle holds text that is not UTF-8".into()))
}

/// A little-endian two's complement integer of any length.
fn long(bytes: &[u8]) -> Result<i64, TorchError> {
    let negative = bytes.last().is_some_and(|&last| last >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let mut array = [fill; 8];
    let (low, high) = bytes.split_at(bytes.len().min(8));
    array[..low.len()].copy_from_slice(low);
    let int = i64::from_le_bytes(array);
    if high.iter().any(|&byte| byte != fill) || (int < 0) != negative {
        return Err(TorchError::UnsupportedCheckpoint { reason: "it holds an integer of more than 64 bits".into() });
    }
    Ok(int)
}
