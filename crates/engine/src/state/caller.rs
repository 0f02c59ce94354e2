//! [`Caller`]: the hook that is running, and its owner.

use crate::hook::Hook;

/// The owner of the running method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Trainer,
    Module,
    DataModule,
    /// The callback at this index.
    Callback(usize),
}

/// The running hook and its owner, to which logged values and errors are attributed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    hook: Hook,
    owner: Owner,
}

impl Default for Caller {
    fn default() -> Caller {
        Caller { hook: Hook::Setup, owner: Owner::Trainer }
    }
}

impl Caller {
    /// The hook that is running, or ran last.
    pub(crate) fn hook(&self) -> Hook {
        self.hook
    }

    /// The owner of the hook; the trainer between two hooks.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Start of a hook. Returns the value to pass to [`leave`](Caller::leave) at its end.
    #[must_use]
    pub(crate) fn enter(&mut self, hook: Hook, owner: Owner) -> Caller {
        std::mem::replace(self, Caller { hook, owner })
    }

    /// End of a hook: an enclosing hook continues; otherwise it is remembered as the last one.
    pub(crate) fn leave(&mut self, outer: Caller) {
        match outer.owner {
            Owner::Trainer => self.owner = Owner::Trainer,
            _ => *self = outer,
        }
    }
}
