//! A container's first program: to be written.
#![no_std]
#![no_main]
