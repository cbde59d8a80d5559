//! The HTTP server as its clients see it.

mod access;
mod copy;
mod cut_off;
mod pages;
mod query;
mod sessions;
mod support;
