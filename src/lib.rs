//! The program `ctr` and its library: containers and zones on one Linux kernel.

#![forbid(unsafe_code)]

pub mod attachment;
pub mod cli;
pub mod commands;
pub mod container;
pub mod doctor;
pub mod ended;
pub mod foreground;
pub mod hint;
pub mod image;
pub mod input;
pub mod journal;
pub mod log;
pub mod loggers;
pub mod notify;
pub mod output;
pub mod private;
pub mod report;
pub mod run;
mod scratch;
pub mod settings;
pub mod setup;
pub mod size;
pub mod supervisor;
pub mod terminal;
pub mod time;
mod tool;
pub mod trace;
