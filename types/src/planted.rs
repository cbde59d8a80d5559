//! Two rules that the simulator breaks on purpose, on one thread at a time, to see that it notices.
//!
//! Rule    without the feature `planted` there is nothing to switch, and both answers are constants. No node is built with it.

#[cfg(feature = "planted")]
mod switches {
    use std::cell::Cell;

    thread_local! {
        static SHORT_QUORUM: Cell<bool> = const { Cell::new(false) };
        static TRUSTED_PAGES: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes every quorum on this thread one less than it must be.
    pub fn short_quorum(short: bool) {
        SHORT_QUORUM.set(short);
    }

    /// Takes the cells that a member sends for a missing segment as they are, on this thread.
    pub fn trust_pages(trust: bool) {
        TRUSTED_PAGES.set(trust);
    }

    /// Whether [`short_quorum`] is on.
    #[must_use]
    pub fn is_quorum_short() -> bool {
        SHORT_QUORUM.get()
    }

    /// Whether [`trust_pages`] is on.
    #[must_use]
    pub fn are_pages_trusted() -> bool {
        TRUSTED_PAGES.get()
    }
}

#[cfg(not(feature = "planted"))]
mod switches {
    /// Never.
    #[must_use]
    pub const fn is_quorum_short() -> bool {
        false
    }

    /// Never.
    #[must_use]
    pub const fn are_pages_trusted() -> bool {
        false
    }
}

pub use switches::*;
