//! A network sender whose messages can be changed on their way out: how a liar looks from outside.

use commonware_actor::{Feedback, Unreliable};
use commonware_p2p::{CheckedSender, LimitedSender, Recipients, Sender};
use commonware_runtime::IoBufs;
use fluence_consensus::Identity;
use std::sync::Arc;
use std::time::SystemTime;

/// Changes a message.
pub(crate) type Hook = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Tamper<S> {
    pub(crate) inner: S,
    pub(crate) hook: Option<Hook>,
}

pub(crate) struct Checked<C> {
    inner: C,
    hook: Option<Hook>,
}

impl<S: Sender<PublicKey = Identity>> LimitedSender for Tamper<S> {
    type PublicKey = Identity;
    type Checked<'a> = Checked<S::Checked<'a>>;

    fn check(&mut self, recipients: Recipients<Identity>) -> Result<Self::Checked<'_>, SystemTime> {
        let hook = self.hook.clone();
        self.inner.check(recipients).map(|inner| Checked { inner, hook })
    }
}

impl<C: CheckedSender<PublicKey = Identity>> CheckedSender for Checked<C> {
    type PublicKey = Identity;

    fn recipients(&self) -> Vec<Identity> {
        self.inner.recipients()
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let Some(hook) = self.hook else { return self.inner.send(message, priority) };
        let mut bytes = message.into().coalesce().as_ref().to_vec();
        hook(&mut bytes);
        self.inner.send(bytes, priority)
    }
}
