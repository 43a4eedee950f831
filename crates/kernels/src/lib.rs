//! Hand-written compute.
